//! The histogram of one group of values.

use std::ops::Range;
use std::sync::Mutex;

use crate::element::Element;
use crate::float::FloatType;
use crate::loops::histogram::count;
use crate::match_float;
use crate::memory::{NoMemory, copied, make_room, repeated};
use crate::parallel::{for_each, piece_len};
use crate::slice::FloatSlice;

/// The most bins that a histogram has. At least half of them lie in the range of the values, but
/// for ranges that are narrow for their distance from zero.
pub(crate) const BINS: usize = 4096;

/// A bin counts up to so many values when histograms are merged: the sum of all bins fits 64 bits, and
/// each count is a number of `f64`.
const MOST: u64 = 1 << 51;

/// The finest bin is 2^−20 of the largest |x|'s power of two.
const DIGITS: i32 = 20;

/// How often values fall into bins of equal width, and the exact smallest and largest of them.
///
/// Bins are w = 2^e wide. The bin of x is k = ⌊|x|/w⌋, or −1 − k for x < 0, so that zero is always
/// an edge. e is the smallest exponent for which the bins from the smallest to the largest value
/// are at most 4,096, and at least ⌊log2 max |x|⌋ − 20 (and −126, or −1022 for `f64`).
///
/// So the histogram depends on nothing but the values: not on their order, nor on how they were
/// split. A wider range makes e larger; then each new bin holds exactly 2, 4, 8, ... old ones, and
/// no count is lost or divided. Counts are integers. Therefore merging is associative and
/// commutative to the bit. (A merged count stops at 2^51.)
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Saved", into = "Saved"))]
pub struct Histogram {
    exponent: i32,
    min: f64,
    max: f64,
    /// The count of bin k at k modulo [`BINS`]; empty where there are no values.
    counts: Vec<u64>,
}

/// A bin that is not empty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bin {
    /// Its lower edge.
    pub low: f64,
    /// Its upper edge.
    pub high: f64,
    /// How many values it holds.
    pub count: u64,
}

/// A histogram as it is saved.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    exponent: i32,
    min: f64,
    max: f64,
    /// From the bin of `min` to that of `max`.
    counts: Vec<u64>,
}

#[cfg(feature = "serde")]
impl From<Histogram> for Saved {
    fn from(histogram: Histogram) -> Self {
        if histogram.is_empty() {
            // Its infinities are no numbers of JSON.
            return Self {
                exponent: 0,
                min: 0.0,
                max: 0.0,
                counts: Vec::new(),
            };
        }
        Self {
            exponent: histogram.exponent,
            min: histogram.min,
            max: histogram.max,
            counts: histogram
                .window()
                .map(|bin| histogram.counts[slot(bin)])
                .collect(),
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Saved> for Histogram {
    type Error = String;

    fn try_from(saved: Saved) -> Result<Self, String> {
        let mut histogram = Self::new();
        if saved.counts.is_empty() {
            return Ok(histogram);
        }
        let (min, max) = (saved.min, saved.max);
        if !(min.is_finite() && max.is_finite() && min <= max) {
            return Err(format!("a histogram of values from {min} to {max}"));
        }
        let exponents = [FloatType::F64, FloatType::F32];
        let exponents = exponents.map(|float| least_exponent(min, max, float));
        let width = || {
            let exponent = saved.exponent;
            format!("a histogram from {min} to {max} of bins 2^{exponent} wide")
        };
        if saved.exponent < exponents[0] {
            return Err(width());
        }
        (histogram.exponent, histogram.min, histogram.max) = (saved.exponent, min, max);
        let bins = histogram.window().count();
        if saved.counts.len() != bins {
            let counts = saved.counts.len();
            return Err(format!("{counts} counts for {bins} bins"));
        }
        // Nothing but the range and the type of the values makes bins wider.
        if !exponents.contains(&saved.exponent) {
            return Err(width());
        }
        if let Some(count) = saved.counts.iter().find(|count| **count > MOST) {
            return Err(format!("a count of {count}, expected at most {MOST}"));
        }
        // The smallest and the largest value were counted.
        if saved.counts.first() == Some(&0) || saved.counts.last() == Some(&0) {
            return Err(format!("no count of {min} or of {max}, its ends"));
        }
        histogram.counts = repeated(0, BINS).map_err(|e| e.to_string())?;
        for (bin, count) in histogram.window().zip(saved.counts) {
            histogram.counts[slot(bin)] = count;
        }
        Ok(histogram)
    }
}

/// The bin of a value at an exponent.
fn bin(x: f64, exponent: i32) -> i64 {
    let bin = (x.abs() * power_of_two(-exponent)).floor() as i64;
    if x < 0.0 { !bin } else { bin }
}

/// 2^exponent, for exponents of normal numbers; 0 below.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits((i64::from(exponent) + 1023).clamp(0, 2046).cast_unsigned() << 52)
}

/// ⌊log2 x⌋ of a positive normal number, −1023 of a subnormal one or zero.
fn exponent_of(x: f64) -> i32 {
    (x.to_bits() >> 52) as i32 - 1023
}

fn slot(bin: i64) -> usize {
    bin as usize % BINS
}

/// The finest exponent for values from `min` to `max`.
fn least_exponent(min: f64, max: f64, float: FloatType) -> i32 {
    let least = match float {
        FloatType::F64 => -1022,
        FloatType::F16 | FloatType::BF16 | FloatType::F32 => -126,
    };
    let abs_max = min.abs().max(max.abs());
    let mut exponent = (exponent_of(abs_max) - DIGITS).max(least);
    while bin(max, exponent) - bin(min, exponent) >= BINS as i64 {
        exponent += 1;
    }
    exponent
}

impl Histogram {
    /// The histogram of no values.
    pub fn new() -> Self {
        Self {
            exponent: i32::MIN,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            counts: Vec::new(),
        }
    }

    /// Adds elements. Returns whether all are finite; the histogram means nothing where one is not.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none to count in; the histogram means nothing then.
    pub fn observe(&mut self, data: FloatSlice<'_>) -> Result<bool, NoMemory> {
        match_float!(FloatSlice, data, data => self.observe_floats(data))
    }

    fn observe_floats<F: Element>(&mut self, data: &[F]) -> Result<bool, NoMemory> {
        let n = piece_len(data.len());
        if data.len() <= n {
            return count(data, self);
        }
        // The parts give the same bits in whatever order they are merged.
        type Part = (Histogram, Result<bool, NoMemory>);
        let all = Mutex::new((self, Ok(true)));
        let work = |(part, finite): &mut Part, data: &[F]| {
            if *finite == Ok(true) {
                *finite = count(data, part);
            }
        };
        let merge = |(part, finite): Part| {
            let mut all = all.lock().unwrap_or_else(|e| e.into_inner());
            if all.1 == Ok(true) {
                all.1 = finite.and_then(|finite| all.0.merge(&part).map(|()| finite));
            }
        };
        for_each(data.chunks(n), || (Self::new(), Ok(true)), work, merge);
        all.into_inner().unwrap_or_else(|e| e.into_inner()).1
    }

    /// Adds the values of another histogram.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none to count in, which a histogram that holds a value has already; the
    /// histogram is as it was then.
    pub fn merge(&mut self, other: &Self) -> Result<(), NoMemory> {
        if other.is_empty() {
            return Ok(());
        }
        // The exponents of both are not finer than their types allow.
        self.extend_to(other.min, other.max, other.exponent, FloatType::F64)?;
        let shift = shift(self.exponent - other.exponent);
        for bin in other.window() {
            add(
                &mut self.counts[slot(bin >> shift)],
                other.counts[slot(bin)],
            );
        }
        Ok(())
    }

    /// A copy, as [`Clone`] makes it.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for it.
    pub fn try_clone(&self) -> Result<Self, NoMemory> {
        Ok(Self {
            counts: copied(&self.counts)?,
            ..*self
        })
    }

    /// Forgets the values, but keeps the memory.
    pub fn clear(&mut self) {
        for bin in self.window() {
            self.counts[slot(bin)] = 0;
        }
        let counts = std::mem::take(&mut self.counts);
        *self = Self::new();
        // Kept empty until there are values again.
        self.counts = counts;
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.min > self.max
    }

    /// The smallest value; infinity where there is none.
    pub fn min(&self) -> f64 {
        self.min
    }

    /// The largest value; −infinity where there is none.
    pub fn max(&self) -> f64 {
        self.max
    }

    /// The largest |x|; 0 where there is none.
    pub fn abs_max(&self) -> f64 {
        match self.is_empty() {
            true => 0.0,
            false => self.min.abs().max(self.max.abs()),
        }
    }

    /// The width of a bin.
    pub fn width(&self) -> f64 {
        power_of_two(self.exponent)
    }

    /// How many values there are.
    pub fn len(&self) -> u64 {
        self.bins().map(|bin| bin.count).sum()
    }

    /// The bins that are not empty, from the lowest to the highest.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = Bin> + Clone {
        let width = self.width();
        self.window().filter_map(move |k| {
            let count = self.counts[slot(k)];
            (count > 0).then(|| Bin {
                low: edge(k, width),
                high: edge(k + 1, width),
                count,
            })
        })
    }

    /// The counts of |x| in bins from zero on, and their width, which is that of the histogram, or
    /// larger where they would be more than its most bins.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for the counts.
    pub fn magnitudes(&self) -> Result<(Vec<u64>, f64), NoMemory> {
        if self.is_empty() {
            return Ok((Vec::new(), 0.0));
        }
        let magnitude = |k: i64| if k < 0 { !k } else { k };
        let last = bin(self.abs_max(), self.exponent);
        let shift = (0..).find(|&shift| last >> shift < BINS as i64);
        let shift: i32 = shift.unwrap_or(0);
        let mut counts = repeated(0, (last >> shift) as usize + 1)?;
        for k in self.window() {
            counts[(magnitude(k) >> shift) as usize] += self.counts[slot(k)];
        }
        Ok((counts, power_of_two(self.exponent + shift)))
    }

    /// The bins from that of the smallest value to that of the largest.
    fn window(&self) -> Range<i64> {
        match self.is_empty() {
            true => 0..0,
            false => bin(self.min, self.exponent)..bin(self.max, self.exponent) + 1,
        }
    }

    /// The number that gives bins when |x| is multiplied by it: 1/w.
    #[inline(always)]
    pub(crate) fn bins_per_unit(&self) -> f64 {
        power_of_two(-self.exponent)
    }

    /// Whether bins get wider to make room for values of a type from `min` to `max`.
    pub(crate) fn widens(&self, min: f64, max: f64, float: FloatType) -> bool {
        let (min, max) = (self.min.min(min), self.max.max(max));
        least_exponent(min, max, float) > self.exponent
    }

    /// Makes room for values of a type from `min` to `max`, which are to be counted.
    #[inline(never)]
    pub(crate) fn extend(&mut self, min: f64, max: f64, float: FloatType) -> Result<(), NoMemory> {
        self.extend_to(min, max, i32::MIN, float)
    }

    fn extend_to(
        &mut self,
        min: f64,
        max: f64,
        exponent: i32,
        float: FloatType,
    ) -> Result<(), NoMemory> {
        // Adding +0.0 turns −0.0 into +0.0, so that the order of the data cannot be seen.
        let (min, max) = (self.min.min(min) + 0.0, self.max.max(max) + 0.0);
        let least = least_exponent(min, max, float).max(exponent);
        if self.is_empty() {
            let more = BINS.saturating_sub(self.counts.len());
            make_room(&mut self.counts, more)?;
            self.counts.resize(BINS, 0);
            self.exponent = least;
        } else if least > self.exponent {
            let shift = shift(least - self.exponent);
            // 32 KiB of the stack: a histogram that holds values asks for no more memory.
            let mut counts = [0; BINS];
            for bin in self.window() {
                add(&mut counts[slot(bin >> shift)], self.counts[slot(bin)]);
            }
            self.counts.copy_from_slice(&counts);
            self.exponent = least;
        }
        (self.min, self.max) = (min, max);
        Ok(())
    }

    /// Counts elements by their slots.
    #[inline(always)]
    pub(crate) fn count(&mut self, slots: &[u16]) {
        if let Some(counts) = self.counts.first_chunk_mut::<BINS>() {
            for &slot in slots {
                counts[usize::from(slot) % BINS] += 1;
            }
        }
    }

    /// Adds counts by slot.
    pub(crate) fn add(&mut self, counts: impl Iterator<Item = u64>) {
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            add(sum, count);
        }
    }
}

/// The edge k·width, or the largest number where that is beyond it.
pub(crate) fn edge(k: i64, width: f64) -> f64 {
    (k as f64 * width).clamp(-f64::MAX, f64::MAX)
}

/// Adds a count.
fn add(sum: &mut u64, count: u64) {
    *sum = sum.saturating_add(count).min(MOST);
}

/// A shift of a bin's number that is defined; bins have fewer than 62 bits.
fn shift(exponents: i32) -> i32 {
    exponents.clamp(0, 62)
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of<F: Element>(data: &[F]) -> Histogram {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.observe(F::slice(data)), Ok(true));
        histogram
    }

    /// The histogram by the definition, a value at a time, from the finest bins to the coarsest.
    fn naive(data: &[f32]) -> Vec<(i64, u64)> {
        let x: Vec<f64> = data.iter().map(|&x| f64::from(x)).collect();
        let abs_max = x.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let mut e = match abs_max {
            0.0 => -126,
            _ => (abs_max.log2().floor() as i32 - 20).max(-126),
        };
        loop {
            let bins: Vec<i64> = x
                .iter()
                .map(|x| {
                    let k = (x.abs() / 2_f64.powi(e)).floor() as i64;
                    if *x < 0.0 { -1 - k } else { k }
                })
                .collect();
            let (low, high) = (bins.iter().min().unwrap(), bins.iter().max().unwrap());
            if high - low < 4096 {
                let mut counts = std::collections::BTreeMap::new();
                for bin in bins {
                    *counts.entry(bin).or_default() += 1;
                }
                return counts.into_iter().collect();
            }
            e += 1;
        }
    }

    /// Values of all magnitudes, and those that lie on edges.
    fn values(len: Range<usize>) -> impl Strategy<Value = Vec<f32>> {
        let value = prop_oneof![
            4 => -8.0_f32..8.0,
            1 => (-4096_i32..4096).prop_map(|k| k as f32 / 256.0),
            1 => proptest::num::f32::NORMAL | proptest::num::f32::SUBNORMAL | proptest::num::f32::ZERO,
        ];
        prop_oneof![
            proptest::collection::vec(-8.0_f32..8.0, len.clone()),
            proptest::collection::vec(280.0_f32..310.0, len.clone()),
            proptest::collection::vec(value, len),
        ]
    }

    proptest! {
        #[test]
        fn it_is_what_its_definition_says(data in values(1..300)) {
            let histogram = of(&data);
            let width = histogram.width();
            let bins = histogram.bins().map(|bin| ((bin.low / width) as i64, bin.count));
            prop_assert_eq!(bins.collect::<Vec<_>>(), naive(&data));
            prop_assert_eq!(histogram.min(), f64::from(data.iter().copied().fold(f32::MAX, f32::min)));
            prop_assert_eq!(histogram.max(), f64::from(data.iter().copied().fold(f32::MIN, f32::max)));
        }

        #[test]
        fn pieces_merged_in_any_order_are_the_whole_to_the_bit(
            data in values(64..500),
            pieces in prop_oneof![Just(1_usize), Just(2), Just(7), Just(64)],
            seed in any::<u64>(),
        ) {
            let whole = of(&data);
            let mut parts: Vec<Histogram> =
                data.chunks(data.len().div_ceil(pieces)).map(of).collect();
            // Merge two at random until one is left: any order and any tree.
            let mut state = seed | 1;
            while parts.len() > 1 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let part = parts.swap_remove((state >> 33) as usize % parts.len());
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let into = (state >> 33) as usize % parts.len();
                parts[into].merge(&part).unwrap();
            }
            prop_assert_eq!(&parts[0], &whole);
            prop_assert_eq!(parts[0].len(), data.len() as u64);
        }

        #[test]
        fn the_order_of_the_values_cannot_be_seen(data in values(1..300), by in 0_usize..300) {
            let mut turned = data.clone();
            turned.rotate_left(by % data.len());
            prop_assert_eq!(of(&turned), of(&data));
        }
    }

    #[test]
    fn long_runs_count_like_short_ones() {
        let data: Vec<f32> = (0..100_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) as f32 / 1e9 - 2.0).powi(3))
            .collect();
        let mut parts = Histogram::new();
        for part in data.chunks(1000) {
            parts.merge(&of(part)).unwrap();
        }
        assert_eq!(of(&data), parts);
        assert_eq!(parts.len(), 100_000);
        let doubles: Vec<f64> = data.iter().map(|&x| x.into()).collect();
        assert_eq!(of(&doubles), parts);
    }

    #[test]
    fn no_count_is_lost_where_all_elements_fall_into_one_bin() {
        // More than 16 bits hold for each table, on one thread.
        let histogram = of(&[1.5_f32; 300_001]);
        let counts: Vec<u64> = histogram.bins().map(|bin| bin.count).collect();
        assert_eq!(counts, [300_001]);
    }

    #[test]
    fn growth_keeps_every_count() {
        let mut histogram = of(&[1.0_f32; 10]);
        for exponent in -20..120 {
            let data = [2_f32.powi(exponent), -(2_f32.powi(exponent))];
            assert_eq!(histogram.observe(FloatSlice::F32(&data)), Ok(true));
        }
        assert_eq!(histogram.len(), 10 + 2 * 140);
        assert!(histogram.bins().count() <= BINS);
        assert_eq!(histogram.max(), 2_f64.powi(119));
    }

    #[test]
    fn at_least_2048_bins_lie_in_the_range() {
        for (low, high) in [
            (-1.0_f32, 1.0),
            (0.0, 1.0),
            (-5.0, 50.0),
            (0.0, 6.1e-5),
            (-1e38, 3e38),
        ] {
            let histogram = of(&[low, high]);
            let bins = (histogram.max() - histogram.min()) / histogram.width();
            assert!((2040.0..=4096.0).contains(&bins), "{low}..{high}: {bins}");
        }
    }

    #[test]
    fn a_cleared_histogram_is_as_good_as_a_new_one() {
        let mut histogram = of(&[1.0_f32, -3.0, 1e9]);
        histogram.clear();
        assert!(histogram.is_empty());
        assert_eq!(histogram.observe(FloatSlice::F32(&[2.0, 4.5])), Ok(true));
        assert_eq!(histogram, of(&[2.0_f32, 4.5]));
    }

    #[test]
    fn nan_and_infinities_are_found() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut histogram = Histogram::new();
            assert_eq!(
                histogram.observe(FloatSlice::F32(&[1.0, bad, 2.0])),
                Ok(false)
            );
        }
    }
}
