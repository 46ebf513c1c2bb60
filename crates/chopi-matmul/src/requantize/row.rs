//! Requantization of many accumulators at once.

use chopi_core::Isa;

use super::{Code, Multiplier, OutputCodes};
use crate::{Error, Result};

/// One of something for all columns of a matrix, or one for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PerColumn<'a, T> {
    /// One for all.
    One(T),
    /// One for each column.
    Each(&'a [T]),
}

impl<T: Copy> PerColumn<'_, T> {
    /// That of a column.
    pub(crate) fn of(self, column: usize) -> T {
        match self {
            Self::One(value) => value,
            Self::Each(values) => values[column],
        }
    }

    /// For how many columns there are values; None where there is one for all.
    pub(crate) fn len(self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::Each(values) => Some(values.len()),
        }
    }
}

/// Requantizes accumulators: out\[j\] = [code](Multiplier::code)(acc\[j\] + bias\[j\]), with the
/// sum saturated to `i32`.
///
/// `acc` and `out`, and the bias and the multipliers where there is one for each, have one length.
/// They may be a row of the output, with the columns' multipliers, or all of a channel's elements,
/// with one.
///
/// # Errors
/// [`Error::Length`] where a length differs.
pub fn requantize_row<M: Multiplier, Q: Code>(
    acc: &[i32],
    bias: Option<PerColumn<'_, i32>>,
    multipliers: PerColumn<'_, M>,
    codes: OutputCodes<Q>,
    out: &mut [Q],
) -> Result<()> {
    let length = |what, len| match len == acc.len() {
        true => Ok(()),
        false => Err(Error::Length {
            what,
            len,
            expected: acc.len(),
        }),
    };
    length("the output", out.len())?;
    if let Some(PerColumn::Each(bias)) = bias {
        length("the bias", bias.len())?;
    }
    if let PerColumn::Each(multipliers) = multipliers {
        length("the slice of multipliers", multipliers.len())?;
    }
    let row = Row { acc, codes };
    match Isa::active() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: only an available instruction set is ever active, and it has these features.
        Isa::Avx512 => unsafe { avx512(row, bias, multipliers, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: likewise.
        Isa::Avx2 => unsafe { avx2(row, bias, multipliers, out) },
        _ => row.write(bias, multipliers, out),
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Row<'a, Q> {
    acc: &'a [i32],
    codes: OutputCodes<Q>,
}

/// The loop, compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn avx512<M: Multiplier, Q: Code>(
    row: Row<'_, Q>,
    bias: Option<PerColumn<'_, i32>>,
    multipliers: PerColumn<'_, M>,
    out: &mut [Q],
) {
    row.write(bias, multipliers, out);
}

/// The loop, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<M: Multiplier, Q: Code>(
    row: Row<'_, Q>,
    bias: Option<PerColumn<'_, i32>>,
    multipliers: PerColumn<'_, M>,
    out: &mut [Q],
) {
    row.write(bias, multipliers, out);
}

impl<Q: Code> Row<'_, Q> {
    #[inline(always)]
    fn write<M: Multiplier>(
        self,
        bias: Option<PerColumn<'_, i32>>,
        multipliers: PerColumn<'_, M>,
        out: &mut [Q],
    ) {
        use std::iter::repeat;
        match (bias, multipliers) {
            (None | Some(PerColumn::One(0)), PerColumn::One(m)) => {
                self.each(repeat(0), repeat(m), out);
            }
            (None | Some(PerColumn::One(0)), PerColumn::Each(m)) => {
                self.each(repeat(0), m.iter().copied(), out);
            }
            (Some(PerColumn::One(b)), PerColumn::One(m)) => self.each(repeat(b), repeat(m), out),
            (Some(PerColumn::One(b)), PerColumn::Each(m)) => {
                self.each(repeat(b), m.iter().copied(), out);
            }
            (Some(PerColumn::Each(b)), PerColumn::One(m)) => {
                self.each(b.iter().copied(), repeat(m), out);
            }
            (Some(PerColumn::Each(b)), PerColumn::Each(m)) => {
                self.each(b.iter().copied(), m.iter().copied(), out);
            }
        }
    }

    #[inline(always)]
    fn each<M: Multiplier>(
        self,
        bias: impl Iterator<Item = i32>,
        multipliers: impl Iterator<Item = M>,
        out: &mut [Q],
    ) {
        let elements = out.iter_mut().zip(self.acc).zip(bias).zip(multipliers);
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
        let all = (PerColumn::Each(bias), PerColumn::Each(multipliers));
        let one = (
            bias.first()
                .map_or(PerColumn::Each(bias), |&b| PerColumn::One(b)),
            multipliers.first().map_or(all.1, |&m| PerColumn::One(m)),
        );
        for bias in [None, Some(all.0), Some(one.0)] {
            for multipliers in [all.1, one.1] {
                requantize_row(acc, bias, multipliers, codes, &mut out).unwrap();
                for (j, (&got, &acc)) in out.iter().zip(acc).enumerate() {
                    let bias = match bias {
                        None => 0,
                        Some(PerColumn::One(bias)) => bias,
                        Some(PerColumn::Each(bias)) => bias[j],
                    };
                    let multiplier = match multipliers {
                        PerColumn::One(m) => m,
                        PerColumn::Each(m) => m[j],
                    };
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
        let run = |bias, multipliers, out: &mut [u8]| {
            requantize_row(&[1, 2], bias, multipliers, codes, out)
                .unwrap_err()
                .to_string()
        };
        let one = PerColumn::One(half);
        assert_eq!(
            run(None, one, &mut [0]),
            "the output has 1 elements, expected 2"
        );
        assert_eq!(
            run(Some(PerColumn::Each(&[1])), one, &mut [0; 2]),
            "the bias has 1 elements, expected 2"
        );
        assert_eq!(
            run(None, PerColumn::Each(&[half; 3]), &mut [0; 2]),
            "the slice of multipliers has 3 elements, expected 2"
        );
    }
}
