//! Data that are chosen to hurt, the same in every run.

use chopi_core::backend::{Compute, Float, FloatType};

/// A generator of reproducible numbers: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A 64-bit number.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number from about N(0, 1).
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// A number rounded to an element type.
pub fn to<F: Float>(x: f64) -> F {
    F::narrow(<F::Compute as Compute>::from_f64(x))
}

/// The largest finite number of an element type.
pub fn largest(float: FloatType) -> f64 {
    match float {
        FloatType::F16 => 65504.0,
        FloatType::BF16 => f64::from(f32::from_bits(0x7f7f_0000)),
        FloatType::F32 => f64::from(f32::MAX),
        FloatType::F64 => f64::MAX,
    }
}

/// A kind of data to calibrate on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// About N(0, 1).
    Normal,
    /// A narrow range far from zero.
    Offset,
    /// Only positive, with a long tail.
    Positive,
    /// Close to the largest number of the type.
    Huge,
    /// Up to the largest number of the type, as masks.
    Largest,
    /// Subnormal numbers of the compute type.
    Tiny,
    /// Small integers, so that quotients tie often.
    Integers,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Normal,
        Self::Offset,
        Self::Positive,
        Self::Huge,
        Self::Largest,
        Self::Tiny,
        Self::Integers,
    ];

    /// `count` elements.
    pub fn elements<F: Float>(self, count: usize, random: &mut Random) -> Vec<F> {
        let mut draw = || match self {
            Self::Normal => random.normal(),
            Self::Offset => 290.0 + 15.0 * random.normal(),
            Self::Positive => random.normal().exp(),
            Self::Huge => (random.unit() - 0.5) * largest(F::TYPE) * 0.9,
            // Two of three lie at an end.
            Self::Largest => (6.0 * random.unit() - 3.0).clamp(-1.0, 1.0) * largest(F::TYPE),
            Self::Tiny => random.normal() * F::TYPE.compute().min_positive() * 0.25,
            Self::Integers => (random.unit() * 41.0).floor() - 20.0,
        };
        (0..count).map(|_| to(draw())).collect()
    }
}

/// Elements around every kind of edge of a grid: ties, numbers one step to each side of a tie, both
/// ends, zeros, subnormal numbers, the largest numbers and infinities.
pub fn edges<F: Float>(scale: f64, zero: i64, qmin: i64, qmax: i64) -> Vec<F> {
    let mut edges: Vec<F> = Vec::new();
    let codes = [
        qmin - 1,
        qmin,
        qmin + 1,
        zero - 1,
        zero,
        zero + 1,
        0,
        1,
        2,
        qmax - 1,
        qmax,
        qmax + 1,
    ];
    for code in codes {
        for half in [0.0, 0.5] {
            let x = ((code - zero) as f64 + half) * scale;
            let step = x.abs().max(f64::MIN_POSITIVE) * 2_f64.powi(-24);
            for x in [
                x,
                -x,
                x + step,
                x - step,
                x + 3.0 * step,
                x * (1.0 + f64::EPSILON),
            ] {
                edges.push(to(x));
            }
        }
    }
    let least = F::TYPE.min_positive();
    let most = largest(F::TYPE);
    for x in [
        0.0,
        least,
        least / 2.0,
        least / 8.0,
        1.0,
        scale,
        most,
        most / 2.0,
        f64::INFINITY,
    ] {
        edges.extend([to::<F>(x), to::<F>(-x)]);
    }
    // Beyond the largest number, one step less than infinity is NaN.
    edges.retain(|x| !x.widen().as_f64().is_nan());
    edges
}
