//! What each convention does with an element once there are parameters, read from the words at its constant:
//! one element at a time, with no thought of speed.

use chopi::backend::{Compute, Float, FloatType};
use chopi::{Convention, Granularity, QParams};
use chopi_conformance::oracle;

/// How x becomes a number that is clamped.
#[derive(Clone, Copy, PartialEq)]
enum Steps {
    /// RNE(x/s + z), the sum exact.
    DivideExact,
    /// RNE(x/s + z), the sum rounded.
    Divide,
    /// RNE(x/s) + z.
    DivideAfter,
    /// As before, halves away from zero.
    DivideAfterAway,
    /// RNE(x·r + z).
    Multiply,
    /// RNE(x·r) + z.
    MultiplyAfter,
    /// RNE(fma(x, r, z)).
    Fused,
}

/// The definition of quantizing elements of type `F` with some parameters.
pub struct Definition<'a> {
    params: &'a QParams,
    float: FloatType,
    steps: Steps,
    /// Whether each operation is rounded to the element type.
    native: bool,
}

/// What becomes of an element.
pub enum Outcome {
    /// NaN, of which the policy says what becomes.
    NaN,
    /// The code before it is clamped; beyond 2^62 by its sign.
    Code(i128),
    /// The sum of an infinity and of a zero point that is infinite in the element type, or the product of an infinity
    /// and of a reciprocal that is 0 there: no number, and no code.
    NoNumber,
}

impl<'a> Definition<'a> {
    pub fn new(params: &'a QParams, float: FloatType) -> Self {
        let per_tensor = params.scheme().granularity == Granularity::PerTensor;
        let (steps, native) = match params.convention().name() {
            "chopi" => (Steps::DivideExact, false),
            "pychop" if float != FloatType::F64 => (Steps::DivideExact, true),
            "pychop" | "pychop-torch" | "compressed-tensors" => (Steps::Divide, true),
            "pychop-jax" => (Steps::Multiply, true),
            "torch" if per_tensor => (Steps::Fused, false),
            "torch" => (Steps::Multiply, false),
            "torch-fake" => (Steps::MultiplyAfter, false),
            "onnx" | "onnx-spec" => (Steps::DivideAfter, false),
            "tflite" => (Steps::DivideAfterAway, false),
            "aqt" => (Steps::MultiplyAfter, true),
            other => panic!("no definition of {other}"),
        };
        Self {
            params,
            float,
            steps,
            native,
        }
    }

    fn zero(&self, group: usize) -> f64 {
        match self.params.real_zero_point() {
            Some(real) => real[group],
            None => self.params.zero_point()[group] as f64,
        }
    }

    /// A number rounded to the compute type, and to the element type where the convention does.
    fn round<F: Float>(&self, x: f64) -> f64 {
        let x = <F::Compute as Compute>::from_f64(x);
        match self.native {
            true => F::narrow(x).widen().as_f64(),
            false => x.as_f64(),
        }
    }

    /// 1/s.
    fn reciprocal<F: Float>(&self, s: f64) -> f64 {
        match self.params.convention().name() {
            "torch-fake" => f64::from((1.0 / s) as f32),
            "aqt" => match self.float.round(1.0 / s) {
                r if r.is_infinite() => 1.0,
                r => r,
            },
            "pychop-jax" if self.float == FloatType::F16 => self.round::<F>(1.0 / s),
            _ => <F::Compute as Compute>::from_f64(1.0 / s).as_f64(),
        }
    }

    /// The code of the element at a row-major index, of this group, before it is clamped.
    pub fn unclamped<F: Float>(&self, x: F, group: usize, index: usize) -> Outcome {
        let scheme = self.params.scheme();
        let (s, z) = (self.params.scale()[group], self.zero(group));
        if self.params.convention() == &Convention::CHOPI {
            let code = oracle::unclamped_code(x, s, z as i64, scheme, index);
            return code.map_or(Outcome::NaN, |code| Outcome::Code(code.into()));
        }
        let s_of_compute = <F::Compute as Compute>::from_f64(s);
        let wide = x.widen();
        if wide.as_f64().is_nan() {
            return Outcome::NaN;
        }
        let quotient = || self.round::<F>((wide / s_of_compute).as_f64());
        let product = || {
            let r = <F::Compute as Compute>::from_f64(self.reciprocal::<F>(s));
            self.round::<F>((wide * r).as_f64())
        };
        let compute = |a: f64, b: f64| {
            let (a, b) = (
                <F::Compute as Compute>::from_f64(a),
                <F::Compute as Compute>::from_f64(b),
            );
            self.round::<F>((a + b).as_f64())
        };
        let rne = |v: f64| saturated(v.round_ties_even());
        let number = match self.steps {
            Steps::Divide => compute(quotient(), self.round::<F>(z)),
            Steps::Multiply => compute(product(), self.round::<F>(z)),
            Steps::MultiplyAfter => product(),
            _ => 0.0,
        };
        if number.is_nan() {
            return Outcome::NoNumber;
        }
        Outcome::Code(match self.steps {
            Steps::DivideExact => {
                let q = quotient();
                let floor = q.floor();
                let rest = q - floor;
                let low = saturated(floor) + z as i128;
                let up = rest > 0.5 || rest == 0.5 && low % 2 != 0;
                low + i128::from(up)
            }
            Steps::Divide | Steps::Multiply => rne(number),
            Steps::DivideAfter => rne(quotient()) + z as i128,
            Steps::DivideAfterAway => saturated(quotient().round()) + z as i128,
            Steps::MultiplyAfter => rne(number) + z as i128,
            Steps::Fused => {
                let r = self.reciprocal::<F>(s);
                let fused = (wide.as_f64() as f32).mul_add(r as f32, z as f32);
                rne(f64::from(fused))
            }
        })
    }

    /// The code, clamped to the range.
    pub fn clamped(&self, code: i128) -> i64 {
        let scheme = self.params.scheme();
        code.clamp(scheme.qmin.into(), scheme.qmax.into()) as i64
    }

    /// The code of NaN where the policy asks for the zero point.
    pub fn code_of_nan(&self, group: usize) -> i64 {
        self.clamped(saturated(self.zero(group).round_ties_even()))
    }

    /// The value of a code.
    pub fn value<F: Float>(&self, code: i64, group: usize) -> F {
        let (s, z) = (self.params.scale()[group], self.zero(group));
        let rounds_difference = matches!(self.steps, Steps::Divide | Steps::Multiply);
        // Exact in `f64`, but for real zero points of `f64` data.
        let mut difference = code as f64 - z;
        if rounds_difference {
            difference = <F::Compute as Compute>::from_f64(difference).as_f64();
        }
        if self.native && (rounds_difference || self.steps == Steps::Fused) {
            difference = self.round::<F>(difference);
        }
        let mut product = match F::TYPE {
            FloatType::F64 => difference * s,
            _ => rounded_product(difference, s),
        };
        let torch_fake = self.params.convention().name() == "torch-fake";
        if torch_fake && self.params.scheme().granularity == Granularity::PerTensor {
            product = f64::from(product as f32);
        }
        F::narrow(<F::Compute as Compute>::from_f64(product))
    }
}

/// a·b rounded to `f32`, once: the product in `f64` rounded to odd, which a second rounding to 24 bits does
/// not see.
fn rounded_product(a: f64, b: f64) -> f64 {
    let product = a * b;
    if !product.is_finite() {
        return product;
    }
    let rest = a.mul_add(b, -product);
    let odd = match rest != 0.0 && product.to_bits() & 1 == 0 {
        true if (rest > 0.0) == (product > 0.0) => f64::from_bits(product.to_bits() + 1),
        true => f64::from_bits(product.to_bits() - 1),
        false => product,
    };
    f64::from(odd as f32)
}

/// The integer, ±2^62 where it is beyond.
fn saturated(x: f64) -> i128 {
    x.clamp(-(2_f64.powi(62)), 2_f64.powi(62)) as i128
}
