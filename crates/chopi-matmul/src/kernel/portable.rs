//! Plain Rust, which the compiler vectorizes as it can.

use super::{Arch, Kernel, LeftQuad, PANEL, Pairs, QUAD, Quad, Sums, tiles};

/// What every CPU can.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Portable {
    /// Runs a kernel.
    pub(super) fn run<K: Kernel>(self, kernel: K) {
        kernel.run(self);
    }
}

impl Arch for Portable {
    const SIGNED_LEFT: bool = true;

    type Sums = Sums;
    type Left = [i32; QUAD];
    /// The depths of a quad, each for all columns.
    type Right = [[i32; PANEL]; QUAD];

    #[inline(always)]
    fn zero(self) -> Sums {
        [0; PANEL]
    }

    #[inline(always)]
    fn left(self, from: &LeftQuad) -> [i32; QUAD] {
        from.map(|code| i32::from(code as i8))
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> Self::Right {
        by_depth(from.0)
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> Self::Right {
        by_depth(from.0.map(|both| both as u8 & 15))
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> Self::Right {
        by_depth(from.0.map(|both| both as u8 >> 4))
    }

    #[inline(always)]
    fn dot(self, mut sums: Sums, left: [i32; QUAD], right: Self::Right) -> Sums {
        for depth in 0..QUAD {
            for column in 0..PANEL {
                // Sums wrap: 128 · 128 · 2^17 does not fit. The products do.
                sums[column] = sums[column].wrapping_add(left[depth] * right[depth][column]);
            }
        }
        sums
    }

    #[inline(always)]
    fn store(self, sums: Sums, to: &mut Sums) {
        *to = sums;
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        let [a, b] = left.map(i32::from);
        std::array::from_fn(|i| {
            let [c, d] = right[i].map(i32::from);
            sums[i].wrapping_sub((a * c).wrapping_add(b * d))
        })
    }
}

/// The codes of a quad, depth by depth.
#[inline(always)]
fn by_depth<T: Copy + Into<i32>>(quad: [T; super::QUAD_BYTES]) -> [[i32; PANEL]; QUAD] {
    std::array::from_fn(|depth| std::array::from_fn(|column| quad[column * QUAD + depth].into()))
}

tiles!(Portable: 4 rows, 1 => 1, 2 => 1, 3 => 1, 4 => 1);
