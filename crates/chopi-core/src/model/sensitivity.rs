//! What quantizing one tensor of a model costs and saves.

use super::named;
use super::weights::quantize;
use crate::backend::{Backend, FloatTensor, HostFloats};
use crate::builder::Builder;
use crate::error::{Error, Result};
use crate::groups::on_host;
use crate::metrics::Metrics;
use crate::observer::Calibration;
use crate::qparams::QParams;
use crate::scheme::Symmetry;
use chopi_kernels::FloatType;

/// What quantizing one tensor, and nothing else, costs and saves.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Sensitivity {
    name: String,
    bytes: u64,
    choices: Vec<Choice>,
}

/// One number of bits for a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Choice {
    /// The bits of a code.
    pub bits: u32,
    /// The bytes that the tensor then takes.
    pub bytes: u64,
    /// How much worse the model is with this choice than with the tensor in float, whose loss is 0. What
    /// it is measured in is up to the caller; less is better, and the losses of several tensors should
    /// add up.
    pub loss: f64,
}

impl Sensitivity {
    /// The sensitivity of a tensor that takes `bytes` bytes in float, with a loss for each choice of bits.
    ///
    /// # Errors
    /// [`Error::Loss`] for a loss that is not finite.
    pub fn new(name: &str, bytes: u64, choices: Vec<Choice>) -> Result<Self> {
        match choices.iter().find(|choice| !choice.loss.is_finite()) {
            Some(&Choice { bits, loss, .. }) => Err(Error::Loss {
                name: name.to_owned(),
                bits,
                loss,
            }),
            None => Ok(Self {
                name: name.to_owned(),
                bytes,
                choices,
            }),
        }
    }

    /// Quantizes a tensor to each of these numbers of bits. `loss` is called with the bits and the
    /// quantized and dequantized tensor; it runs the model with that in the tensor's place and says
    /// how much worse it is, for example by the rise of the training loss, or by 1 − cosine of the outputs.
    ///
    /// The bytes are those of codes packed without gaps, a scale of the tensor's type for each group,
    /// and for an asymmetric scheme a packed zero point for each group.
    ///
    /// # Errors
    /// The errors of `loss`; [`Error::Tensor`] where the tensor cannot be quantized so; [`Error::Loss`] for
    /// a loss that is not finite.
    pub fn measure<B, T, E>(
        name: &str,
        tensor: &T,
        bits: &[u32],
        (builder, calibration): (&Builder, Calibration),
        mut loss: impl FnMut(u32, &T::Owned) -> std::result::Result<f64, E>,
    ) -> std::result::Result<Self, E>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        E: From<Error>,
    {
        let loss = |bits, values: &T::Owned, _: &Metrics| loss(bits, values);
        Self::of(name, tensor, bits, (builder, calibration), loss)
    }

    /// Quantizes a tensor to each of these numbers of bits, as [`measure`](Self::measure) does, but
    /// without a model or data: the loss is the share of noise in the tensor, Σ(x − x̂)² / Σx², or
    /// 10^(−SQNR/10).
    ///
    /// It takes every tensor for equally important, whatever its size and magnitude: the noise in the
    /// output of a linear layer, relative to that output, is about that of its weights.
    ///
    /// # Errors
    /// [`Error::Tensor`] where the tensor cannot be quantized so; [`Error::Loss`] for a loss that is not
    /// finite.
    pub fn without_data<B: Backend, T: FloatTensor<B> + ?Sized>(
        name: &str,
        tensor: &T,
        bits: &[u32],
        (builder, calibration): (&Builder, Calibration),
    ) -> Result<Self> {
        let noise = |_, _: &T::Owned, metrics: &Metrics| -> Result<f64> {
            Ok(10_f64.powf(-metrics.sqnr_db() / 10.0))
        };
        Self::of(name, tensor, bits, (builder, calibration), noise)
    }

    fn of<B, T, E>(
        name: &str,
        tensor: &T,
        bits: &[u32],
        (builder, calibration): (&Builder, Calibration),
        mut loss: impl FnMut(u32, &T::Owned, &Metrics) -> std::result::Result<f64, E>,
    ) -> std::result::Result<Self, E>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        E: From<Error>,
    {
        let size = |host: HostFloats<'_>| Ok((host.layout().len() as u64, host.float_type()));
        let (count, float) = named(name, on_host(tensor, size))?;
        let mut choices = Vec::with_capacity(bits.len());
        for &bits in bits {
            let builder = builder.clone().num_bits(bits);
            let (values, done) = named(name, quantize(&builder, calibration, tensor))?;
            choices.push(Choice {
                bits,
                bytes: packed_bytes(&done.params, count),
                loss: loss(bits, &values, &done.metrics)?,
            });
        }
        Ok(Self::new(name, count * bytes_of(float), choices)?)
    }

    /// The tensor's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes that the tensor takes in float.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes and the loss of each number of bits that was measured.
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// What this number of bits costs and saves, if it was measured.
    pub fn choice(&self, bits: u32) -> Option<&Choice> {
        self.choices.iter().find(|choice| choice.bits == bits)
    }
}

/// The bytes of codes packed without gaps, and of their parameters.
fn packed_bytes(params: &QParams, count: u64) -> u64 {
    let scheme = params.scheme();
    let packed = |codes: u64| (codes * u64::from(scheme.bits)).div_ceil(8);
    let groups = params.scale().len() as u64;
    let zero_points = match scheme.symmetry {
        Symmetry::Symmetric => 0,
        Symmetry::Asymmetric => packed(groups),
    };
    packed(count) + groups * bytes_of(params.float_type()) + zero_points
}

fn bytes_of(float: FloatType) -> u64 {
    match float {
        FloatType::F16 | FloatType::BF16 => 2,
        FloatType::F32 => 4,
        FloatType::F64 => 8,
    }
}

/// The tensors by their loss with this number of bits, the most sensitive first; of equals
/// the one named first. Those that were not measured with it are left out.
pub fn rank(sensitivities: &[Sensitivity], bits: u32) -> Vec<&Sensitivity> {
    let by_loss = |s: &'_ Sensitivity| s.choice(bits).map(|choice| choice.loss);
    let mut ranked: Vec<_> = sensitivities
        .iter()
        .filter_map(|s| Some((by_loss(s)?, s)))
        .collect();
    ranked.sort_by(|(a, s), (b, t)| b.total_cmp(a).then_with(|| s.name.cmp(&t.name)));
    ranked.into_iter().map(|(_, s)| s).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sensitivity(name: &str, loss: f64) -> Result<Sensitivity> {
        let choice = |bits, loss| Choice {
            bits,
            bytes: u64::from(bits),
            loss,
        };
        Sensitivity::new(name, 32, vec![choice(8, 0.0), choice(4, loss)])
    }

    #[test]
    fn the_most_sensitive_comes_first() {
        let all = [("b", 1.0), ("c", 3.0), ("a", 1.0)];
        let all = all.map(|(name, loss)| sensitivity(name, loss).unwrap());
        let names = |bits| {
            let ranked = rank(&all, bits);
            ranked
                .iter()
                .map(|s| s.name().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(4), ["c", "a", "b"]);
        assert_eq!(names(8), ["a", "b", "c"]);
        assert!(names(2).is_empty());
    }

    #[test]
    fn losses_are_numbers() {
        for loss in [f64::NAN, f64::INFINITY] {
            let error = sensitivity("x", loss).unwrap_err();
            assert!(
                error
                    .to_string()
                    .starts_with("the loss of \"x\" with 4 bits is")
            );
        }
    }
}
