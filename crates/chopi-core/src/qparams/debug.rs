//! Quantizers and parameters as `{:?}` shows them, with lists of thousands of groups cut.

use std::fmt;

use super::{QParams, Values};
use crate::Chopi;

impl fmt::Debug for Chopi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Chopi");
        shown
            .field("scheme", self.scheme())
            .field("convention", &self.convention());
        match self.params() {
            None => shown.field("calibrated", &false),
            Some(params) => params.lists(&mut shown),
        };
        shown.finish_non_exhaustive()
    }
}

impl fmt::Debug for QParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("QParams");
        shown
            .field("scheme", &self.scheme)
            .field("convention", &self.convention)
            .field("float", &self.float)
            .field("shape", &self.shape);
        self.lists(&mut shown);
        if let Some(length) = self.length {
            shown.field("length", &length);
        }
        shown.field("nan", &self.nan).finish()
    }
}

impl QParams {
    /// Adds the scales and the zero points.
    fn lists<'f, 'a, 'b>(
        &self,
        shown: &'f mut fmt::DebugStruct<'a, 'b>,
    ) -> &'f mut fmt::DebugStruct<'a, 'b> {
        shown.field("scale", &Cut(&self.scale));
        match &self.zero_point {
            Values::Integer(integers) => shown.field("zero_point", &Cut(integers)),
            Values::Real(reals) => shown.field("zero_point", &Cut(reals)),
        }
    }
}

/// How many values of a list are shown.
const SHOWN: usize = 6;

/// A list of which the first values are shown, and how many there are.
struct Cut<'a, T>(&'a [T]);

impl<T: fmt::Debug> fmt::Debug for Cut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        match self.0.len() {
            0..=SHOWN => list.entries(self.0).finish(),
            len => {
                let more = format_args!("… {} more", len - SHOWN).to_string();
                list.entries(&self.0[..SHOWN]).entry(&Bare(more)).finish()
            }
        }
    }
}

/// A text without quotes.
struct Bare(String);

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantizer_says_how_and_with_what() {
        let chopi = Chopi::builder().num_bits(4).range(-7..=7).build().unwrap();
        assert_eq!(
            format!("{chopi:?}"),
            "Chopi { scheme: Scheme { bits: 4, symmetry: Asymmetric, granularity: per_tensor, qmin: -7, qmax: 7, \
             zero: AsObserved, rounding: NearestEven }, convention: chopi, calibrated: false, .. }"
        );
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(format!("{:?}", Cut(&[1, 2, 3])), "[1, 2, 3]");
        let many: Vec<i64> = (0..100).collect();
        assert_eq!(format!("{:?}", Cut(&many)), "[0, 1, 2, 3, 4, 5, … 94 more]");
    }
}
