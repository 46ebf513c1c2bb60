//! The methods by which codes are chosen, and their names.

use std::fmt;
use std::str::FromStr;

use chopi_core::Calibration;

use crate::error::{Error, Result};

/// How the codes of a weight are chosen: a rotation of the model, scales of its input channels, ranges of its groups,
/// and the rounding, which compose.
///
/// A method has a name, parts joined by `+` in any order, as which it is displayed, parsed and, with the feature
/// `serde`, saved:
///
/// | part | what it chooses |
/// |---|---|
/// | `rotation` | [`Rotation::Hadamard`] |
/// | `rtn` | [`Rounding::Nearest`], the default |
/// | `gptq`, with settings `gptq:natural:damping=0.05:sweeps=4`, each if wanted | [`Rounding::Gptq`] |
/// | `minmax`, `mse`, `kl`, `percentile:99.9` | [`RangeMethod::Calibration`], `minmax` by default |
/// | `weighted` | [`RangeMethod::Weighted`] |
/// | `hqq` | [`RangeMethod::HalfQuadratic`] |
/// | `awq` | [`Scaling::Awq`] |
/// | `smoothquant`, `smoothquant:0.7` | [`Scaling::Smooth`], α = 0.8 by default |
///
/// ```
/// # mod chopi { pub use chopi_ptq as ptq; }
/// use chopi::ptq::{Method, RangeMethod, Scaling};
///
/// let method: Method = "awq+gptq+weighted".parse()?;
/// assert_eq!((method.scaling, method.ranges), (Scaling::Awq, RangeMethod::Weighted));
/// assert_eq!(method.to_string(), "awq+gptq+weighted");
/// assert_eq!("rtn".parse::<Method>()?, Method::default());
/// # Ok::<(), chopi_ptq::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct Method {
    /// What the hidden states of the model are multiplied by, which whoever holds the model fuses into its weights
    /// before any layer is quantized. [`quantize`](crate::quantize) leaves them alone.
    pub rotation: Rotation,
    /// The scales of the input channels, which [`awq_scales`](crate::awq_scales) and
    /// [`smooth_scales`](crate::smooth_scales) compute: whoever holds the model folds them into it before the
    /// layer is quantized. [`quantize`](crate::quantize) leaves them alone.
    pub scaling: Scaling,
    /// The range of each group of weights, from which its scale and zero point follow.
    pub ranges: RangeMethod,
    /// The codes of the weights, with these scales and zero points.
    pub rounding: Rounding,
}

impl Method {
    /// Whether weights are changed before they are quantized, by scales or a rotation, which takes the layers around
    /// them too.
    pub fn changes_weights(&self) -> bool {
        self.scaling != Scaling::None || self.rotation != Rotation::None
    }
}

/// What the hidden states of a model are multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// Nothing.
    #[default]
    None,
    /// A Hadamard matrix with random signs (QuaRot, Ashkboos et al. 2024), so that no channel is much larger than
    /// others: for activations of 4 bits.
    Hadamard,
}

/// Scales s of the input channels of a layer, which computes (x/s)·(s·w) instead of x·w.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Scaling {
    /// All 1.
    #[default]
    None,
    /// Activation-aware: the powers of the mean of |x| with the least error of the layer's output; see
    /// [`awq_scales`](crate::awq_scales).
    Awq,
    /// SmoothQuant: max|x|^α / max|w|^(1 − α), for activations of 8 bits; see
    /// [`smooth_scales`](crate::smooth_scales).
    Smooth {
        /// How much of the difficulty moves to the weights, 0 to 1; 0.8 is usual for
        /// decoders like Llama, 0.5 for others.
        alpha: f64,
    },
}

/// How the range of each group of weights is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RangeMethod {
    /// From the weights alone, by one of chopi's calibrations.
    Calibration(Calibration),
    /// The least Σ E\[x_j²\]·(w_j − ŵ_j)² over the weights of the group, j the input channel of a weight; see
    /// [`weighted_ranges`](crate::weighted_ranges).
    Weighted,
    /// Half-quadratic quantization, which needs no data; see
    /// [`half_quadratic_ranges`](crate::half_quadratic_ranges).
    HalfQuadratic,
}

impl Default for RangeMethod {
    fn default() -> Self {
        Self::Calibration(Calibration::MinMax)
    }
}

/// How a weight becomes a code.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rounding {
    /// Each by itself, by the rounding of the scheme: to the nearest code, unless the scheme says otherwise.
    #[default]
    Nearest,
    /// One input channel after the other, with what is lost made up for by those that follow.
    Gptq(Gptq),
}

/// The settings of GPTQ (Frantar, Ashkboos, Hoefler, Alistarh 2022).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gptq {
    /// What is added to the diagonal of H, as a share of the mean of its diagonal; 0.01 is usual. Where H cannot
    /// be factored so, ten times as much is tried, and so on.
    pub damping: f64,
    /// The order of the input channels.
    pub order: Order,
    /// How many times each channel's codes are then chosen anew, given those of all others, unless nothing changes
    /// any more: cyclic coordinate descent, which is QuantEase (Behdin et al. 2023) from the codes of GPTQ.
    pub sweeps: u32,
}

impl Default for Gptq {
    /// Damping 0.01, in the order of activation, without sweeps.
    fn default() -> Self {
        Self {
            damping: 0.01,
            order: Order::Activation,
            sweeps: 0,
        }
    }
}

impl Gptq {
    pub(crate) fn check(&self) -> Result<()> {
        match self.damping >= 0.0 && self.damping.is_finite() {
            true => Ok(()),
            false => Err(Error::Setting {
                what: "the damping",
                value: self.damping,
                expected: "a finite number, at least 0",
            }),
        }
    }
}

/// The order in which input channels are quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By falling H_jj, the channel of the lower index first where two are equal: what matters most is quantized
    /// while there is most left to make up for it. Groups stay those of neighbouring channels, so that files need
    /// no index.
    #[default]
    Activation,
    /// By index.
    Natural,
}

impl Scaling {
    pub(crate) fn check(&self) -> Result<()> {
        match *self {
            Self::Smooth { alpha } => check_alpha(alpha),
            _ => Ok(()),
        }
    }
}

/// Checks the exponent of SmoothQuant.
pub(crate) fn check_alpha(alpha: f64) -> Result<()> {
    match (0.0..=1.0).contains(&alpha) {
        true => Ok(()),
        false => Err(Error::Setting {
            what: "alpha",
            value: alpha,
            expected: "0 to 1",
        }),
    }
}

const SMOOTH: f64 = 0.8;

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if self.rotation == Rotation::Hadamard {
            parts.push("rotation".to_owned());
        }
        match self.scaling {
            Scaling::None => {}
            Scaling::Awq => parts.push("awq".to_owned()),
            Scaling::Smooth { alpha: SMOOTH } => parts.push("smoothquant".to_owned()),
            Scaling::Smooth { alpha } => parts.push(format!("smoothquant:{alpha}")),
        }
        if let Rounding::Gptq(gptq) = self.rounding {
            let mut part = "gptq".to_owned();
            if gptq.order == Order::Natural {
                part.push_str(":natural");
            }
            if gptq.damping != Gptq::default().damping {
                part.push_str(&format!(":damping={}", gptq.damping));
            }
            if gptq.sweeps != Gptq::default().sweeps {
                part.push_str(&format!(":sweeps={}", gptq.sweeps));
            }
            parts.push(part);
        }
        match self.ranges {
            RangeMethod::Calibration(Calibration::MinMax) => {}
            RangeMethod::Calibration(calibration) => parts.push(calibration.to_string()),
            RangeMethod::Weighted => parts.push("weighted".to_owned()),
            RangeMethod::HalfQuadratic => parts.push("hqq".to_owned()),
        }
        let is_plain =
            self.rounding == Rounding::Nearest && self.ranges != RangeMethod::HalfQuadratic;
        if is_plain && !self.changes_weights() {
            parts.insert(0, "rtn".to_owned());
        }
        f.write_str(&parts.join("+"))
    }
}

const PARTS: &str = "rtn, gptq[:natural][:damping=X][:sweeps=N], minmax, mse, kl, percentile:P, weighted, hqq, awq, \
                     smoothquant[:ALPHA], rotation, joined by +, at most one for each of rotation, scales, ranges and \
                     rounding";

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (mut rotation, mut scaling) = (None, None);
        let (mut ranges, mut rounding) = (None, None);
        for part in name.split('+') {
            let unknown = || Error::UnknownMethod {
                name: name.to_owned(),
                part: part.to_owned(),
                expected: PARTS,
            };
            let repeated = match parse_part(part).ok_or_else(unknown)? {
                Part::Rotation(new) => rotation.replace(new).is_some(),
                Part::Scaling(new) => scaling.replace(new).is_some(),
                Part::Ranges(new) => ranges.replace(new).is_some(),
                Part::Rounding(new) => rounding.replace(new).is_some(),
            };
            if repeated {
                return Err(unknown());
            }
        }
        let method = Self {
            rotation: rotation.unwrap_or_default(),
            scaling: scaling.unwrap_or_default(),
            ranges: ranges.unwrap_or_default(),
            rounding: rounding.unwrap_or_default(),
        };
        method.scaling.check()?;
        if let Rounding::Gptq(gptq) = &method.rounding {
            gptq.check()?;
        }
        Ok(method)
    }
}

enum Part {
    Rotation(Rotation),
    Scaling(Scaling),
    Ranges(RangeMethod),
    Rounding(Rounding),
}

fn parse_part(part: &str) -> Option<Part> {
    let (first, rest) = part
        .split_once(':')
        .map_or((part, None), |(first, rest)| (first, Some(rest)));
    Some(match (first, rest) {
        ("rtn", None) => Part::Rounding(Rounding::Nearest),
        ("gptq", settings) => {
            let mut gptq = Gptq::default();
            for setting in settings
                .into_iter()
                .flat_map(|settings| settings.split(':'))
            {
                match setting.split_once('=') {
                    None if setting == "natural" => gptq.order = Order::Natural,
                    Some(("damping", damping)) => gptq.damping = damping.parse().ok()?,
                    Some(("sweeps", sweeps)) => gptq.sweeps = sweeps.parse().ok()?,
                    _ => return None,
                }
            }
            Part::Rounding(Rounding::Gptq(gptq))
        }
        ("rotation", None) => Part::Rotation(Rotation::Hadamard),
        ("awq", None) => Part::Scaling(Scaling::Awq),
        ("smoothquant", alpha) => Part::Scaling(Scaling::Smooth {
            alpha: alpha.map_or(Some(SMOOTH), |alpha| alpha.parse().ok())?,
        }),
        ("weighted", None) => Part::Ranges(RangeMethod::Weighted),
        ("hqq", None) => Part::Ranges(RangeMethod::HalfQuadratic),
        _ => Part::Ranges(RangeMethod::Calibration(part.parse().ok()?)),
    })
}

impl TryFrom<String> for Method {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<Method> for String {
    fn from(method: Method) -> Self {
        method.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for name in [
            "rtn",
            "rtn+mse",
            "rtn+weighted",
            "gptq",
            "gptq+weighted",
            "gptq+mse",
            "gptq:natural:damping=0.05+percentile:99.9",
            "gptq:sweeps=4+weighted",
            "gptq:damping=0.05:sweeps=10",
            "awq",
            "awq+gptq",
            "awq+weighted",
            "smoothquant",
            "smoothquant:0.7+gptq+kl",
            "hqq",
            "gptq+hqq",
            "rotation",
            "rotation+gptq+weighted",
            "rotation+smoothquant+gptq",
        ] {
            let method: Method = name.parse().unwrap();
            assert_eq!(method.to_string(), name);
        }
        let same: Method = "weighted+gptq+awq".parse().unwrap();
        assert_eq!(same.to_string(), "awq+gptq+weighted");
    }

    #[test]
    fn unknown_parts_and_two_of_a_kind_are_refused() {
        for name in [
            "",
            "gptqq",
            "rtn+gptq",
            "rotation+rotation",
            "mse+weighted",
            "gptq:fast",
            "gptq:damping=x",
            "gptq:sweeps=-1",
            "awq:1",
            "rtn:1",
        ] {
            let error = name.parse::<Method>().unwrap_err().to_string();
            assert!(
                error.contains("is unknown: expected rtn, gptq"),
                "{name}: {error}"
            );
        }
        let error = "gptq:damping=-1".parse::<Method>().unwrap_err().to_string();
        assert_eq!(
            error,
            "the damping is -1.0, expected a finite number, at least 0"
        );
        assert!(
            "smoothquant:1.5"
                .parse::<Method>()
                .unwrap_err()
                .to_string()
                .contains("0 to 1")
        );
    }
}
