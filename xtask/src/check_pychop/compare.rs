//! chopi's outcome of a case beside pychop's.

use std::fmt;

use anyhow::Result;
use chopi::ndarray::NdArray;
use chopi::{
    Chopi, Convention, Error,
    backend::{Float, FloatTensor},
};
use ndarray::ArrayD;

use super::record::{Case, Record};

/// What was compared, and how much of it differed.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// Cases whose numbers were compared.
    pub compared: u64,
    /// Cases in which pychop warned and chopi gave an error, as it should.
    pub refused: u64,
    /// Values of the smallest array whose numbers were compared.
    pub smallest: Option<u64>,
    /// Values whose codes were compared.
    pub values: u64,
    /// Codes that differed.
    pub codes: u64,
    /// Scales that differed.
    pub scales: u64,
    /// Zero points that differed.
    pub zero_points: u64,
    /// Dequantized and fake-quantized values that differed.
    pub dequantized: u64,
    /// Cases in which one gave numbers and the other did not.
    pub outcomes: u64,
    /// The first difference of each sort, in words.
    notes: Vec<String>,
}

impl Comparison {
    /// Whether anything differed.
    pub fn differs(&self) -> bool {
        self.codes + self.scales + self.zero_points + self.dequantized + self.outcomes > 0
    }

    /// Adds that of another case.
    pub fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.refused += other.refused;
        self.smallest = match (self.smallest, other.smallest) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.values += other.values;
        self.codes += other.codes;
        self.scales += other.scales;
        self.zero_points += other.zero_points;
        self.dequantized += other.dequantized;
        self.outcomes += other.outcomes;
    }

    /// The number of unequal pairs; the first is noted.
    fn unequal<T: PartialEq + fmt::Debug>(
        &mut self,
        what: &str,
        pairs: impl IntoIterator<Item = (T, T)>,
    ) -> u64 {
        let mut count = 0;
        for (index, (chopi, pychop)) in pairs.into_iter().enumerate() {
            if chopi != pychop {
                if count == 0 {
                    self.notes
                        .push(format!("{what} {index} is {chopi:?}, pychop's {pychop:?}"));
                }
                count += 1;
            }
        }
        count
    }
}

/// The first difference of each sort.
impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.notes.join("; "))
    }
}

/// An element type, for telling values apart to the last bit.
pub trait Bits: Float {
    fn bits(self) -> u64;
    /// pychop's value, which may be a wider type's, rounded to this type.
    fn from_f64(value: f64) -> Self;
}

impl Bits for f32 {
    fn bits(self) -> u64 {
        self.to_bits().into()
    }
    fn from_f64(value: f64) -> Self {
        value as Self
    }
}

impl Bits for f64 {
    fn bits(self) -> u64 {
        self.to_bits()
    }
    fn from_f64(value: f64) -> Self {
        value
    }
}

/// Quantizes as the case says and compares with what pychop gave.
pub fn case<A: Bits>(x: &ArrayD<A>, case: &Case, record: &Record<'_>) -> Result<Comparison>
where
    ArrayD<A>:
        FloatTensor<NdArray, Owned = ArrayD<A>, Int = chopi::ndarray::IntArray<A, ndarray::IxDyn>>,
{
    let mut comparison = Comparison::default();
    let builder = Chopi::builder()
        .num_bits(case.bits)
        .symmetric(case.symmetric)
        .convention(Convention::PYCHOP);
    let mut chopi = match case.axis {
        None => builder.per_tensor(),
        Some(axis) => builder.per_channel(axis),
    }
    .build()?;

    match (chopi.calibrate(x), &case.warning) {
        (Ok(()), None) => {}
        (Err(Error::Scale { .. } | Error::ZeroPoint { .. }), Some(_)) => {
            comparison.refused = 1;
            return Ok(comparison);
        }
        (chopi, warning) => {
            comparison.outcomes = 1;
            comparison.notes.push(format!(
                "chopi gives {chopi:?}, pychop's warning is {warning:?}"
            ));
            return Ok(comparison);
        }
    }
    comparison.compared = 1;
    comparison.values = x.len() as u64;
    comparison.smallest = Some(comparison.values);

    let scale = chopi
        .scale()
        .unwrap_or_default()
        .iter()
        .map(|s| s.to_bits());
    let expected: Vec<u64> = record.scales()?.iter().map(|s| s.to_bits()).collect();
    comparison.scales = scale.len().abs_diff(expected.len()) as u64;
    comparison.scales += comparison.unequal("scale", scale.zip(expected));

    let zero_point = chopi.zero_point().unwrap_or_default().to_vec();
    let expected = match record.zero_points()? {
        Some(expected) => expected,
        None => vec![0; zero_point.len()],
    };
    comparison.zero_points = zero_point.len().abs_diff(expected.len()) as u64;
    comparison.zero_points +=
        comparison.unequal("zero point", zero_point.iter().copied().zip(expected));

    let codes = chopi.quantize(x)?;
    let expected = record.codes()?;
    let pairs = codes
        .to_i64()
        .into_iter()
        .zip(expected.iter().map(|code| i64::from(*code)));
    comparison.codes = comparison.unequal("code", pairs);

    let values = chopi.dequantize(&codes)?;
    if let Some(expected) = record.values()? {
        let expected = expected.into_iter().map(|value| A::from_f64(value).bits());
        let pairs = values.iter().map(|value| value.bits()).zip(expected);
        comparison.dequantized = comparison.unequal("dequantized value", pairs);
    }
    let fake = chopi.fake_quantize(x)?;
    let pairs = fake
        .iter()
        .zip(&values)
        .map(|(fake, value)| (fake.bits(), value.bits()));
    comparison.dequantized += comparison.unequal("fake-quantized value", pairs);
    Ok(comparison)
}
