//! Plain Rust, which the compiler vectorizes as it can.

use super::{Arch, PANEL, QUAD, QUAD_BYTES, Sums, tiles};

#[derive(Debug)]
pub(crate) struct Portable;

impl Arch for Portable {
    type Sums = Sums;
    type Left = [i32; QUAD];
    /// The depths of a quad, each for all columns.
    type Right = [[i32; PANEL]; QUAD];

    #[inline(always)]
    unsafe fn zero() -> Sums {
        [0; PANEL]
    }

    #[inline(always)]
    unsafe fn left(from: *const u8) -> [i32; QUAD] {
        // SAFETY: the caller's.
        unsafe { from.cast::<[u8; QUAD]>().read() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn right(from: *const i8) -> Self::Right {
        // SAFETY: the caller's.
        by_depth(unsafe { from.cast::<[i8; QUAD_BYTES]>().read() })
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const i8) -> Self::Right {
        // SAFETY: the caller's.
        by_depth(unsafe { from.cast::<[u8; QUAD_BYTES]>().read() }.map(|both| both & 15))
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const i8) -> Self::Right {
        // SAFETY: the caller's.
        by_depth(unsafe { from.cast::<[u8; QUAD_BYTES]>().read() }.map(|both| both >> 4))
    }

    #[inline(always)]
    unsafe fn dot(mut sums: Sums, left: [i32; QUAD], right: Self::Right) -> Sums {
        for depth in 0..QUAD {
            for column in 0..PANEL {
                // Sums wrap: 255 · 128 · 2^16 does not fit. The products do.
                sums[column] = sums[column].wrapping_add(left[depth] * right[depth][column]);
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn store(sums: Sums, to: &mut Sums) {
        *to = sums;
    }
}

/// The codes of a quad, depth by depth.
#[inline(always)]
fn by_depth<T: Copy + Into<i32>>(quad: [T; QUAD_BYTES]) -> [[i32; PANEL]; QUAD] {
    std::array::from_fn(|depth| std::array::from_fn(|column| quad[column * QUAD + depth].into()))
}

tiles!(Portable: 4 rows, 1 => 1, 2 => 1, 3 => 1, 4 => 1);
