//! The inner loops of the products: one algorithm, with a thin layer for each instruction set.
//!
//! The left matrix holds unsigned bytes, the right one signed bytes in *panels* of 16
//! columns, of which a panel holds, one after the other, the *quads*: 4 consecutive depths of each
//! column, 64 bytes. Codes of 0..=15 may be kept as nibbles: two quads in 64 bytes, the first in the
//! low halves, the second in the high ones. Depths come in pairs of quads. A tile is some rows by some panels; its sums stay in registers over the whole
//! depth. Sums are i32 and wrap, so that whatever the order, the result is the same.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use chopi_kernels::Isa;

/// The columns of a panel.
pub(crate) const PANEL: usize = 16;
/// The depths of a quad.
pub(crate) const QUAD: usize = 4;
/// The depth of both matrices is a multiple of this.
pub(crate) const PAIR: usize = 2 * QUAD;
/// The bytes of a quad.
pub(crate) const QUAD_BYTES: usize = PANEL * QUAD;

/// The most pairs of a row and a panel that a tile has.
pub(crate) const MAX_CELLS: usize = 24;

/// The sums of one row over a panel.
pub(crate) type Sums = [i32; PANEL];

/// The operands of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands {
    /// The rows of the left matrix: the first quad of each, then the second of each, and so on.
    pub(crate) left: *const u8,
    /// The first panel of the right matrix.
    pub(crate) right: *const i8,
    /// From one panel to the next, in bytes.
    pub(crate) right_stride: usize,
    /// The depth in pairs of quads.
    pub(crate) pairs: usize,
}

/// An instruction set.
///
/// # Safety
/// The functions must be called on a CPU that has it, with pointers that are good for what is read:
/// 64 bytes of the right matrix, 4 of the left one. They are `#[inline(always)]`, so that they are
/// compiled for the instruction set of the kernel that calls them.
pub(crate) trait Arch {
    /// The sums of a row over a panel.
    type Sums: Copy;
    /// 4 depths of one row, in every lane.
    type Left: Copy;
    /// A quad.
    type Right: Copy;

    unsafe fn zero() -> Self::Sums;
    unsafe fn left(from: *const u8) -> Self::Left;
    unsafe fn right(from: *const i8) -> Self::Right;
    /// The first of the two quads in 64 bytes of nibbles.
    unsafe fn low_nibbles(from: *const i8) -> Self::Right;
    /// The second one.
    unsafe fn high_nibbles(from: *const i8) -> Self::Right;
    /// To each sum, the products of the 4 depths of its column.
    unsafe fn dot(sums: Self::Sums, left: Self::Left, right: Self::Right) -> Self::Sums;
    unsafe fn store(sums: Self::Sums, to: &mut Sums);
}

/// The tiles that an instruction set has registers for.
pub(crate) trait Tiles: Arch {
    /// The most rows.
    const ROWS: usize;

    /// How many panels a tile of so many rows takes at a time; where fewer are left, it takes one.
    fn panels(rows: usize) -> usize;

    /// The sums of a tile of `rows` × `panels`, row by row: `panels` is 1 or what
    /// [`panels`](Self::panels) says.
    ///
    /// # Safety
    /// As [`Arch`]; the operands must be as large as the tile.
    unsafe fn tile<const NIBBLES: bool>(
        rows: usize,
        panels: usize,
        operands: Operands,
        sums: &mut [Sums; MAX_CELLS],
    );
}

/// Implements [`Tiles`] from the panels for each number of rows.
macro_rules! tiles {
    ($arch:ty: $last:literal rows, $($rows:literal => $panels:literal),+) => {
        impl super::Tiles for $arch {
            const ROWS: usize = $last;

            #[inline(always)]
            fn panels(rows: usize) -> usize {
                match rows {
                    $($rows => $panels,)+
                    _ => 1,
                }
            }

            #[inline(always)]
            unsafe fn tile<const NIBBLES: bool>(
                rows: usize,
                panels: usize,
                operands: super::Operands,
                sums: &mut [super::Sums; super::MAX_CELLS],
            ) {
                // SAFETY: the caller's.
                unsafe {
                    match (rows, panels) {
                        $(
                            ($rows, 1) => super::tile::<Self, NIBBLES, $rows, 1>(operands, sums),
                            ($rows, _) => super::tile::<Self, NIBBLES, $rows, $panels>(operands, sums),
                        )+
                        _ => unreachable!("a tile has 1 to {} rows", $last),
                    }
                }
            }
        }
    };
}
use tiles;

/// # Safety
/// As [`Tiles::tile`].
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "an index is that of a row or a panel everywhere"
)]
unsafe fn tile<A: Arch, const NIBBLES: bool, const ROWS: usize, const PANELS: usize>(
    operands: Operands,
    out: &mut [Sums; MAX_CELLS],
) {
    let Operands {
        left,
        right,
        right_stride,
        pairs,
    } = operands;
    // How many quads 64 bytes of a panel hold.
    let packed = if NIBBLES { 2 } else { 1 };
    // SAFETY: the caller's; every pointer stays in its row or its panel.
    unsafe {
        let mut sums = [[A::zero(); PANELS]; ROWS];
        for line in 0..2 * pairs / packed {
            for half in 0..packed {
                let mut rights = [A::right(right); PANELS];
                for panel in 0..PANELS {
                    let from = right.add(panel * right_stride + line * QUAD_BYTES);
                    rights[panel] = match (NIBBLES, half) {
                        (false, _) => A::right(from),
                        (true, 0) => A::low_nibbles(from),
                        (true, _) => A::high_nibbles(from),
                    };
                }
                for row in 0..ROWS {
                    let left = A::left(left.add(((line * packed + half) * ROWS + row) * QUAD));
                    for panel in 0..PANELS {
                        sums[row][panel] = A::dot(sums[row][panel], left, rights[panel]);
                    }
                }
            }
        }
        for row in 0..ROWS {
            for panel in 0..PANELS {
                A::store(sums[row][panel], &mut out[row * PANELS + panel]);
            }
        }
    }
}

/// A computation that is compiled for each instruction set.
pub(crate) trait Kernel {
    /// Runs it. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU has the instruction set of `A`.
    unsafe fn run<A: Tiles>(self);
}

/// The ways in which this CPU can multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// AVX-512 with VNNI: 64 products in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    /// AVX-512 BW: 32 products of i16, exact, where VNNI is missing.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX-VNNI: 32 products.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX2: 16 products of i16. (`vpmaddubsw` would multiply 32 bytes, but saturates.)
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What every CPU can.
    Portable,
}

impl Engine {
    /// Those of this CPU for an instruction set, the best first.
    pub(crate) fn of(isa: Isa) -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let candidates = {
            let (wide, narrow) = (isa == Isa::Avx512, isa == Isa::Avx2);
            [
                (
                    Self::Avx512Vnni,
                    wide && is_x86_feature_detected!("avx512vnni"),
                ),
                (Self::Avx512, wide),
                (Self::AvxVnni, narrow && is_x86_feature_detected!("avxvnni")),
                (Self::Avx2, narrow),
                (Self::Portable, !wide && !narrow),
            ]
        };
        #[cfg(not(target_arch = "x86_64"))]
        let candidates = {
            let _ = isa;
            [(Self::Portable, true)]
        };
        candidates
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(engine, _)| engine)
    }

    /// The one for the instruction set that chopi's kernels run on.
    pub(crate) fn active() -> Self {
        Self::of(Isa::active()).next().unwrap_or(Self::Portable)
    }

    /// The most rows of its tiles.
    pub(crate) fn rows(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => x86::Avx512Vnni::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => x86::AvxVnni::ROWS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::ROWS,
            Self::Portable => portable::Portable::ROWS,
        }
    }

    /// Runs `kernel` compiled for this engine, which must be [`of`](Self::of) an instruction set of
    /// this CPU.
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        // SAFETY: an engine is only made where the CPU has its features, which are those that the
        // functions enable.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Self::Avx512Vnni => x86::run_avx512_vnni(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx512 => x86::run_avx512(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::AvxVnni => x86::run_avx_vnni(kernel),
                #[cfg(target_arch = "x86_64")]
                Self::Avx2 => x86::run_avx2(kernel),
                Self::Portable => kernel.run::<portable::Portable>(),
            }
        }
    }
}
