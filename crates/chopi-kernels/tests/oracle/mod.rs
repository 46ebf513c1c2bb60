//! The formulas, read from the words at [`Steps`], [`Rounding`] and [`Recipe`], for one element.

use chopi_kernels::{Compute, Float, FloatType, Recipe, Rounding, Steps};

/// SplitMix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn split_mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The numbers of each group.
#[derive(Debug)]
pub struct Numbers {
    pub scale: Vec<f64>,
    pub reciprocal: Vec<f64>,
    pub zero_point: Vec<f64>,
}

/// What becomes of each element of a tensor of type `F`.
pub struct Oracle<'a, F: Float> {
    recipe: Recipe,
    numbers: &'a Numbers,
    /// The group of each element.
    groups: &'a [usize],
    float: std::marker::PhantomData<F>,
}

/// A number as an integer and a rest, |rest| < 1 of its sign: their sum need not be a float.
#[derive(Clone, Copy)]
struct Sum {
    integer: i128,
    rest: f64,
}

impl Sum {
    /// Infinities are integers that no code is as large as.
    fn new(v: f64) -> Self {
        let rest = v - v.trunc();
        Self {
            integer: v.trunc() as i128,
            rest: if rest.is_nan() { 0.0 } else { rest },
        }
    }

    fn plus(self, integer: f64) -> Self {
        assert_eq!(integer, integer.trunc());
        Self {
            integer: self.integer.saturating_add(integer as i128),
            ..self
        }
    }

    /// Of the element at this row-major index.
    fn round(self, rounding: Rounding, index: usize) -> i128 {
        let below = self.rest < 0.0;
        let floor = self.integer.saturating_sub(below.into());
        let up = floor.saturating_add(1);
        // The fraction less a number; of the sum and 1 where the rest is negative, not to be rounded.
        let fraction_is_over = |number: f64| match below {
            true => self.rest > number - 1.0,
            false => self.rest > number,
        };
        let is_tie = self.rest.abs() == 0.5;
        match rounding {
            Rounding::NearestEven if is_tie => floor + (floor & 1),
            // The sign of the sum is that of its floor, which is not 0 of a negative sum.
            Rounding::NearestAway if is_tie => floor + i128::from(floor >= 0),
            Rounding::NearestEven | Rounding::NearestAway if fraction_is_over(0.5) => up,
            Rounding::NearestEven | Rounding::NearestAway | Rounding::Floor => floor,
            Rounding::TowardZero if floor >= 0 => floor,
            Rounding::TowardZero | Rounding::Ceiling => floor + i128::from(self.rest != 0.0),
            Rounding::Stochastic { seed } => {
                let k = split_mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
                let (k0, k1) = (k as u32, (k >> 32) as u32);
                let h = index as u32 ^ k0;
                let h = (h ^ (h >> 16)).wrapping_mul(0x21f0_aaad) ^ k1;
                let h = (h ^ (h >> 15)).wrapping_mul(0xd35a_2d97);
                let h = h ^ (h >> 15);
                let u = f64::from(h >> 8) / f64::from(1 << 24);
                if fraction_is_over(u) { up } else { floor }
            }
        }
    }
}

impl<'a, F: Float> Oracle<'a, F> {
    pub fn new(recipe: Recipe, numbers: &'a Numbers, groups: &'a [usize]) -> Self {
        Self {
            recipe,
            numbers,
            groups,
            float: std::marker::PhantomData,
        }
    }

    /// What an element is made with, for messages.
    pub fn of(&self, i: usize) -> String {
        let (
            group,
            Numbers {
                scale, zero_point, ..
            },
        ) = (self.groups[i], self.numbers);
        let (s, z) = (scale[group], zero_point[group]);
        format!(
            "at {i} with s = {s}, z = {z}, {:?} {:?}",
            F::TYPE,
            self.recipe
        )
    }

    /// A number after an operation whose result is rounded to the element type where that is native.
    fn native(&self, v: F::Compute) -> F::Compute {
        match self.recipe.native {
            true => F::narrow(v).widen(),
            false => v,
        }
    }

    /// round(x/s + z) before it is clamped; nothing for NaN.
    fn rounded(&self, x: F, i: usize) -> Option<i128> {
        use num_traits::Float as _;
        let (group, x) = (self.groups[i], x.widen());
        let number = |of: &[f64]| F::Compute::from_f64(of[group]);
        let (s, r) = (
            number(&self.numbers.scale),
            number(&self.numbers.reciprocal),
        );
        let (z, exact_z) = (
            number(&self.numbers.zero_point),
            self.numbers.zero_point[group],
        );
        let quotient = || self.native(x / s);
        let product = || self.native(x * r);
        let sum = |v: F::Compute| self.native(v + self.native(z));
        let rounding = |sum: Sum| sum.round(self.recipe.rounding, i);
        if x.is_nan() {
            return None;
        }
        let exact = |v: F::Compute| Sum::new(v.as_f64());
        Some(match self.recipe.steps {
            Steps::DivideExact => rounding(exact(quotient()).plus(exact_z)),
            Steps::DivideRounded => rounding(exact(sum(quotient()))),
            Steps::MultiplyRounded => rounding(exact(sum(product()))),
            Steps::Fused => rounding(exact(self.native(x.mul_add(r, z)))),
            Steps::DivideAfter => rounding(exact(quotient())).saturating_add(exact_z as i128),
            Steps::MultiplyAfter => rounding(exact(product())).saturating_add(exact_z as i128),
        })
    }

    fn clamped(&self, code: i128) -> i64 {
        code.clamp(self.recipe.qmin.into(), self.recipe.qmax.into()) as i64
    }

    /// clamp(round(x/s + z), qmin, qmax); clamp(RNE(z), qmin, qmax) for NaN.
    pub fn code(&self, x: F, i: usize) -> i64 {
        let zero = || {
            let zero = Sum::new(self.numbers.zero_point[self.groups[i]]);
            zero.round(Rounding::NearestEven, i)
        };
        self.clamped(self.rounded(x, i).unwrap_or_else(zero))
    }

    /// (q − z)·s.
    pub fn value(&self, q: i64, i: usize) -> F {
        let (recipe, group) = (&self.recipe, self.groups[i]);
        let (s, z) = (self.numbers.scale[group], self.numbers.zero_point[group]);
        // Exact: integers of at most 34 bits, or z with 10 bits behind the point.
        let difference = q as f64 - z;
        let mut difference = match recipe.has_exact_difference() {
            true => difference,
            false => F::Compute::from_f64(difference).as_f64(),
        };
        if recipe.has_native_difference() {
            difference = F::narrow(F::Compute::from_f64(difference)).widen().as_f64();
        }
        let product = product(F::Compute::TYPE, difference, s);
        let product = match recipe.narrow_product {
            true => f64::from(product as f32),
            false => product,
        };
        F::narrow(F::Compute::from_f64(product))
    }

    /// The value of the code, and whether that lies in the range before it is clamped.
    pub fn fake_quantized(&self, x: F, i: usize) -> (F, bool) {
        match self.rounded(x, i) {
            Some(code) => {
                let inside = i128::from(self.clamped(code)) == code;
                (self.value(self.clamped(code), i), inside)
            }
            None if self.recipe.nan_is_smallest => (self.value(self.recipe.qmin, i), false),
            None => (F::narrow(num_traits::Float::nan()), false),
        }
    }
}

/// d·s rounded once to a compute type.
fn product(float: FloatType, d: f64, s: f64) -> f64 {
    if float == FloatType::F64 || !d.is_finite() {
        return d * s;
    }
    // Integers m·2^−k of at most 44 and 24 bits: their product is one of i128, which is rounded once.
    let integer = |x: f64| {
        let k = (0..60)
            .find(|&k| (x * 2_f64.powi(k)).fract() == 0.0)
            .unwrap();
        ((x * 2_f64.powi(k)) as i128, k)
    };
    let ((m, k), (n, l)) = (integer(d), integer(s));
    let rounded = (m * n) as f32;
    let zero = if d.is_sign_negative() { -0.0 } else { 0.0 };
    match m {
        0 => zero,
        _ => f64::from(rounded) * 2_f64.powi(-k - l),
    }
}
