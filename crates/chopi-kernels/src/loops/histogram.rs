//! Counting elements into the bins of a [`Histogram`].

use std::mem::MaybeUninit;

use crate::element::{Element, WIDE_BLOCK};
use crate::float::Compute;
use crate::histogram::{BINS, Histogram};
use crate::isa::{Loop, dispatch};
use crate::loops::minmax;
use crate::memory::{NoMemory, repeated};
use crate::vector::Arch;

/// Tables that count side by side, so that equal neighbours do not wait for one another. They are
/// added to the histogram at the end.
///
/// An element takes an increment in memory, of which a processor finishes about one a cycle: that is
/// what bounds the whole, not the arithmetic.
struct Tables(Box<[Table; TABLES]>);

/// A count for each slot, and a cache line that nobody uses: without it the same slot of two tables lies
/// at the same place in a page, and the processor takes a load of the one for a load of what it has just
/// stored in the other.
type Table = [u32; BINS + 16];

const TABLES: usize = 4;
const BLOCK: usize = 2048;
/// Fewer elements than this are counted one by one: adding up the tables would cost more.
const MANY: usize = 4 * BINS;
/// A table is added up before it could overflow.
const MOST: usize = 1 << 31;

/// Adds elements to a histogram. Returns whether all are finite; the histogram means nothing where one
/// is not.
///
/// # Errors
/// [`NoMemory`] where there is none to count in; the histogram means nothing then.
pub(crate) fn count<F: Element>(data: &[F], histogram: &mut Histogram) -> Result<bool, NoMemory> {
    dispatch(Count { data, histogram })
}

struct Count<'a, F> {
    data: &'a [F],
    histogram: &'a mut Histogram,
}

impl<F: Element> Loop for Count<'_, F> {
    type Output = Result<bool, NoMemory>;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> Result<bool, NoMemory> {
        let Self { data, histogram } = self;
        let mut widened = [MaybeUninit::uninit(); WIDE_BLOCK];
        let mut slots = [0_u16; BLOCK];
        let infinity = <F::Compute as num_traits::Float>::infinity();
        let size = match F::TYPE == F::TYPE.compute() {
            true => BLOCK,
            false => WIDE_BLOCK,
        };
        let mut tables = match data.len() >= MANY {
            true => Some(Tables::new()?),
            false => None,
        };
        for part in data.chunks(MOST) {
            for block in part.chunks(size) {
                let (mut min, mut max) = ([infinity], [-infinity]);
                if !minmax::extend(arch, block, &mut min, &mut max) {
                    return Ok(false);
                }
                let x = F::widen_block(block, &mut widened);
                let (min, max) = (min[0].as_f64(), max[0].as_f64());
                if !histogram.holds(min, max) {
                    if let Some(tables) = &mut tables
                        && histogram.widens(min, max, F::TYPE)
                    {
                        tables.add_to(histogram);
                    }
                    histogram.extend(min, max, F::TYPE)?;
                }
                let slots = &mut slots[..x.len()];
                slots_of(x, F::Compute::from_f64(histogram.bins_per_unit()), slots);
                match &mut tables {
                    Some(tables) => tables.count(slots),
                    None => histogram.count(slots),
                }
            }
            if let Some(tables) = &mut tables {
                tables.add_to(histogram);
            }
        }
        Ok(true)
    }
}

/// The slot of each element: the bin m of |x|, or −1 − m for a negative x, modulo [`BINS`].
#[inline(always)]
fn slots_of<C: Compute>(x: &[C], bins_per_unit: C, slots: &mut [u16]) {
    for (&x, slot) in x.iter().zip(slots) {
        let bin = ((x.abs() * bins_per_unit).floor() + C::MAGIC).low_bits();
        let negative = if x < C::zero() { u32::MAX } else { 0 };
        *slot = (bin ^ negative) as u16 % BINS as u16;
    }
}

impl Tables {
    fn new() -> Result<Self, NoMemory> {
        let tables = repeated([0; BINS + 16], TABLES)?.into_boxed_slice();
        let bytes = size_of_val(&*tables);
        Box::try_from(tables)
            .map(Self)
            .map_err(|_| NoMemory { bytes })
    }

    #[inline(always)]
    fn count(&mut self, slots: &[u16]) {
        let (chunks, rest) = slots.as_chunks::<TABLES>();
        for chunk in chunks {
            for (table, &slot) in self.0.iter_mut().zip(chunk) {
                table[usize::from(slot) % BINS] += 1;
            }
        }
        for &slot in rest {
            self.0[0][usize::from(slot) % BINS] += 1;
        }
    }

    #[inline(never)]
    fn add_to(&mut self, histogram: &mut Histogram) {
        let [a, b, c, d] = &*self.0;
        let tables = a.iter().zip(b).zip(c.iter().zip(d));
        histogram.add(
            tables.map(|((&a, &b), (&c, &d))| {
                u64::from(a) + u64::from(b) + u64::from(c) + u64::from(d)
            }),
        );
        *self.0 = [[0; BINS + 16]; TABLES];
    }
}
