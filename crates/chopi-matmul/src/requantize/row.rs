//! Requantization of many accumulators at once.

use chopi_kernels::isa::{Loop, dispatch};
use chopi_kernels::vector::Arch;

use super::{Code, Multiplier, OutputCodes};
use crate::{Error, Result};

/// Requantizes accumulators: out\[j\] = [code](Multiplier::code)(acc\[j\] + bias\[j\]), with the
/// sum saturated to `i32`.
///
/// `acc` and `out` have one length. Of biases and of multipliers there are as many, or one for all: they
/// may be a row of the output, with the columns' multipliers, or all of a channel's elements, with one.
///
/// # Errors
/// [`Error::Length`] and [`Error::Each`] where a length differs.
pub fn requantize_row<M: Multiplier, Q: Code>(
    acc: &[i32],
    bias: Option<&[i32]>,
    multipliers: &[M],
    codes: OutputCodes<Q>,
    out: &mut [Q],
) -> Result<()> {
    let bias = bias.unwrap_or(&[0]);
    Error::check_length("the output", out.len(), acc.len())?;
    Error::check_each("the bias", bias.len(), acc.len())?;
    Error::check_each("the multipliers", multipliers.len(), acc.len())?;
    dispatch(Row {
        acc,
        bias,
        multipliers,
        codes,
        out,
    });
    Ok(())
}

/// The loop of [`requantize_row`], whose lengths have been checked.
struct Row<'a, M, Q> {
    acc: &'a [i32],
    bias: &'a [i32],
    multipliers: &'a [M],
    codes: OutputCodes<Q>,
    out: &'a mut [Q],
}

impl<M: Multiplier, Q: Code> Loop for Row<'_, M, Q> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        use std::iter::repeat;
        match (self.bias, self.multipliers) {
            (&[0], &[m]) => self.each(repeat(0), repeat(m)),
            (&[0], m) => self.each(repeat(0), m.iter().copied()),
            (&[b], &[m]) => self.each(repeat(b), repeat(m)),
            (&[b], m) => self.each(repeat(b), m.iter().copied()),
            (b, &[m]) => self.each(b.iter().copied(), repeat(m)),
            (b, m) => self.each(b.iter().copied(), m.iter().copied()),
        }
    }
}

impl<M: Multiplier, Q: Code> Row<'_, M, Q> {
    #[inline(always)]
    fn each(self, bias: impl Iterator<Item = i32>, multipliers: impl Iterator<Item = M>) {
        let elements = self.out.iter_mut().zip(self.acc).zip(bias).zip(multipliers);
        for (((out, &acc), bias), multiplier) in elements {
            *out = multiplier.code(acc.saturating_add(bias), self.codes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::requantize::{DoubleRounded, FixedMultiplier, FloatMultiplier, SingleRounded};

    fn check<M: Multiplier>(acc: &[i32], bias: &[i32], multipliers: &[M]) {
        let codes = OutputCodes::new(-3_i8);
        let mut out = vec![0; acc.len()];
        // No columns have nothing for any.
        let one = acc.len().min(1);
        let (one_bias, one_multiplier) = (&bias[..one], &multipliers[..one]);
        for bias in [None, Some(bias), Some(one_bias)] {
            for multipliers in [multipliers, one_multiplier] {
                requantize_row(acc, bias, multipliers, codes, &mut out).unwrap();
                for (j, (&got, &acc)) in out.iter().zip(acc).enumerate() {
                    let bias = bias.map_or(0, |bias| bias[j % bias.len()]);
                    let multiplier = multipliers[j % multipliers.len()];
                    assert_eq!(got, multiplier.code(acc.saturating_add(bias), codes));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn a_row_is_its_elements_whatever_its_length(
            columns in prop::collection::vec((any::<i32>(), -5000..5000, -20.0..1.0_f64), 0..200),
        ) {
            let acc: Vec<i32> = columns.iter().map(|&(a, _, m)| a >> (m + 20.0) as i32).collect();
            let bias: Vec<i32> = columns.iter().map(|column| column.1).collect();
            let real = || columns.iter().map(|column| column.2.exp2());
            let fixed = || real().map(|m| FixedMultiplier::from_real(m).unwrap());
            let float: Vec<_> = real().map(|m| FloatMultiplier::new(m as f32).unwrap()).collect();
            check(&acc, &bias, &float);
            check(&acc, &bias, &fixed().map(DoubleRounded).collect::<Vec<_>>());
            check(&acc, &bias, &fixed().map(SingleRounded).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lengths_that_differ_are_refused() {
        let codes = OutputCodes::new(0_u8);
        let half = FloatMultiplier::new(0.5).unwrap();
        let run = |bias: Option<&[i32]>, multipliers: &[FloatMultiplier], out: &mut [u8]| {
            requantize_row(&[1, 2, 3], bias, multipliers, codes, out)
                .unwrap_err()
                .to_string()
        };
        let one = [half];
        assert_eq!(
            run(None, &one, &mut [0]),
            "the output has 1 elements, expected 3"
        );
        assert_eq!(
            run(Some(&[1, 2]), &one, &mut [0; 3]),
            "the bias: there are 2, expected 1 or 3"
        );
        assert_eq!(
            run(None, &[half; 2], &mut [0; 3]),
            "the multipliers: there are 2, expected 1 or 3"
        );
    }
}
