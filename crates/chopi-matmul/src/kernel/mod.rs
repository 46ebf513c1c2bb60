//! The inner loops of the products: one algorithm, with a thin layer for each instruction set.
//!
//! The left matrix holds bytes, signed or not as an engine wants them, the right one signed bytes in *panels*
//! of 16 columns, of which a panel holds, one after the other, the *quads*: 4 consecutive depths of each
//! column, 64 bytes. Codes of 0..=15 may be kept as nibbles: two quads in 64 bytes, the first in the
//! low halves, the second in the high ones. Depths come in pairs of quads. A tile is some rows by some
//! panels; its sums stay in registers over the whole depth. Sums are i32 and wrap, so that whatever the
//! order, the result is the same.

#[cfg(target_arch = "aarch64")]
mod neon;
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

/// Two numbers for each column of a panel.
pub(crate) type Pairs = [[i16; 2]; PANEL];

/// 4 depths of a row of the left matrix, signed or not.
pub(crate) type LeftQuad = [u8; QUAD];

/// What an engine wants of the left matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftFormat {
    /// The most rows of a tile.
    pub(crate) rows: usize,
    /// Whether the bytes are signed.
    pub(crate) signed: bool,
}

/// A quad of a panel of the right matrix: one line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Quad(pub(crate) [i8; QUAD_BYTES]);

/// The operands of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operands<'a> {
    /// The rows of the left matrix: the first quad of each, then the second of each, and so on.
    pub(crate) left: &'a [LeftQuad],
    /// The panels of the right matrix.
    pub(crate) right: &'a [Quad],
    /// From one panel to the next, in lines.
    pub(crate) right_stride: usize,
    /// The lines of each panel that are multiplied; the left matrix has a quad of each row for each
    /// of their quads.
    pub(crate) lines: usize,
}

/// The instructions that a tile is made of.
///
/// A value is the proof that the CPU has them, as it is of the
/// [instruction sets](chopi_kernels::vector::Arch) of chopi's other loops: so all of this is safe. The
/// functions are `#[inline(always)]`, so that they are compiled for the [`Engine`] that calls them.
pub(crate) trait Arch: Copy {
    /// Whether the bytes of the left matrix are signed.
    const SIGNED_LEFT: bool;

    /// The sums of a row over a panel.
    type Sums: Copy;
    /// 4 depths of one row, in every lane.
    type Left: Copy;
    /// A quad.
    type Right: Copy;

    fn zero(self) -> Self::Sums;
    fn left(self, from: &LeftQuad) -> Self::Left;
    fn right(self, from: &Quad) -> Self::Right;
    /// The first of the two quads in 64 bytes of nibbles.
    fn low_nibbles(self, from: &Quad) -> Self::Right;
    /// The second one.
    fn high_nibbles(self, from: &Quad) -> Self::Right;
    /// To each sum, the products of the 4 depths of its column.
    fn dot(self, sums: Self::Sums, left: Self::Left, right: Self::Right) -> Self::Sums;
    fn store(self, sums: Self::Sums, to: &mut Sums);
    /// The sums, each less by left\[0\]·right\[0\] + left\[1\]·right\[1\] of its column, wrapped.
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums;
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
    /// # Panics
    /// Where the operands are smaller than the tile.
    fn tile<const NIBBLES: bool>(
        self,
        rows: usize,
        panels: usize,
        operands: Operands<'_>,
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
            fn tile<const NIBBLES: bool>(
                self,
                rows: usize,
                panels: usize,
                operands: super::Operands<'_>,
                sums: &mut [super::Sums; super::MAX_CELLS],
            ) {
                match (rows, panels) {
                    $(
                        ($rows, 1) => super::tile::<Self, NIBBLES, $rows, 1>(self, operands, sums),
                        ($rows, _) => super::tile::<Self, NIBBLES, $rows, $panels>(self, operands, sums),
                    )+
                    _ => unreachable!("a tile has 1 to {} rows", $last),
                }
            }
        }
    };
}
use tiles;

/// The sums of a tile: Σ_k left\[row, k\] · right\[k, column\], wrapped, of each row and panel.
#[inline(always)]
fn tile<A: Arch, const NIBBLES: bool, const ROWS: usize, const PANELS: usize>(
    arch: A,
    operands: Operands<'_>,
    out: &mut [Sums; MAX_CELLS],
) {
    let Operands {
        left,
        right,
        right_stride,
        lines,
    } = operands;
    // All lengths are checked here, and no index below.
    let mut panels = [&right[..0]; PANELS];
    for panel in 0..PANELS {
        panels[panel] = &right[panel * right_stride..][..lines];
    }
    // `..lines` below tells the compiler what it would learn too late: it unrolls the array of panels
    // after it has dealt with the indices.
    let left = left.as_chunks::<ROWS>().0;
    let mut sums = [[arch.zero(); PANELS]; ROWS];
    if NIBBLES {
        let left = &left.as_chunks::<2>().0[..lines];
        for line in 0..lines {
            let mut rights = [arch.low_nibbles(&panels[0][..lines][line]); PANELS];
            for panel in 1..PANELS {
                rights[panel] = arch.low_nibbles(&panels[panel][..lines][line]);
            }
            dot(arch, &mut sums, &left[line][0], &rights);
            for panel in 0..PANELS {
                rights[panel] = arch.high_nibbles(&panels[panel][..lines][line]);
            }
            dot(arch, &mut sums, &left[line][1], &rights);
        }
    } else {
        let left = &left[..lines];
        for line in 0..lines {
            let mut rights = [arch.right(&panels[0][..lines][line]); PANELS];
            for panel in 1..PANELS {
                rights[panel] = arch.right(&panels[panel][..lines][line]);
            }
            dot(arch, &mut sums, &left[line], &rights);
        }
    }
    for row in 0..ROWS {
        for panel in 0..PANELS {
            arch.store(sums[row][panel], &mut out[row * PANELS + panel]);
        }
    }
}

/// To each sum of a tile, the products of one quad.
#[inline(always)]
fn dot<A: Arch, const ROWS: usize, const PANELS: usize>(
    arch: A,
    sums: &mut [[A::Sums; PANELS]; ROWS],
    left: &[LeftQuad; ROWS],
    rights: &[A::Right; PANELS],
) {
    for row in 0..ROWS {
        let left = arch.left(&left[row]);
        for panel in 0..PANELS {
            sums[row][panel] = arch.dot(sums[row][panel], left, rights[panel]);
        }
    }
}

/// Defines an engine: the proof that the CPU has these features, and `run`, which compiles a kernel for
/// them. An engine that is more than another one holds that one's proof.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! engine {
    ($(#[$doc:meta])* $name:ident($($less:ident)?): $is_detected:ident, $($feature:tt),+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(engine!(@proof $($less)?));

        impl $name {
            /// The engine, where this CPU has it.
            pub(super) fn new() -> Option<Self> {
                let found = $($is_detected!($feature))&&+;
                found.then_some(Self(engine!(@found $($less)?)))
            }

            /// Runs a kernel that is compiled for this engine.
            pub(super) fn run<K: super::Kernel>(self, kernel: K) {
                #[target_feature($(enable = $feature),+)]
                fn compiled<K: super::Kernel>(kernel: K, arch: $name) {
                    kernel.run(arch)
                }
                // SAFETY: `self` comes from `new`, which has found on this CPU each of the features that
                // `compiled` enables: both lists are one in this macro.
                unsafe { compiled(kernel, self) }
            }
        }
    };
    (@proof) => { () };
    (@proof $less:ident) => { $less };
    (@found) => { () };
    (@found $less:ident) => { $less::new()? };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use engine;

/// Functions that consist of intrinsics.
///
/// Their bodies stand in one `unsafe` block each, by one argument, which has two parts:
///
/// 1. *The instructions exist.* Each function takes the engine whose instructions it uses, or one that
///    holds it. Engines have private fields, and come from `new` alone, which looks at the CPU.
/// 2. *The memory is there.* The bodies take pointers from nothing but references to a [`Quad`], to
///    [`Sums`] and to [`Pairs`], which are 64 bytes each, and read or write bytes 0 to 63; the
///    instructions need no alignment but that of the elements.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! intrinsics {
    ($(fn $name:ident($($argument:tt)*) $(-> $result:ty)? { $($body:tt)* })*) => {$(
        #[inline(always)]
        fn $name($($argument)*) $(-> $result)? {
            // SAFETY: by the two parts of the argument at `intrinsics!`.
            unsafe { $($body)* }
        }
    )*};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use intrinsics;
const _: () = assert!(size_of::<Quad>() == 64 && size_of::<Sums>() == 64 && QUAD_BYTES == 64);
const _: () = assert!(size_of::<Pairs>() == 64);

/// A computation that is compiled for each engine.
pub(crate) trait Kernel {
    /// Runs it. Implementations are `#[inline(always)]`.
    fn run<A: Tiles>(self, arch: A);
}

/// The ways to multiply that chopi knows.
///
/// [`Isa`] says which vectors all loops run on; the instructions that multiply bytes, VNNI and those of
/// ARM's dot products, come with such vectors, or do not. So the active `Isa` is chosen first, and its best
/// engine that this CPU has next: whoever forces an `Isa`, forces the engines too. Loops that need no
/// instruction beyond those of an `Isa` go through [`chopi_kernels::isa::dispatch`].
///
/// An engine holds the proof that the CPU has its instructions, and nothing but
/// [`of`](Self::of) makes one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    /// AVX-512 with VNNI: 64 products in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(x86::Avx512Vnni),
    /// AVX-512 BW: 32 products of i16, exact, where VNNI is missing.
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    /// AVX-VNNI: 32 products.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(x86::AvxVnni),
    /// AVX2: 16 products of i16. (`vpmaddubsw` would multiply 32 bytes, but saturates.)
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    /// NEON with dot products: 16 products in one instruction.
    #[cfg(target_arch = "aarch64")]
    NeonDot(neon::NeonDot),
    /// NEON: 8 products of bytes, as i16.
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
    /// What every CPU can.
    Portable(portable::Portable),
}

/// A function of what an [`Engine`] holds.
macro_rules! with_arch {
    ($engine:expr, $arch:ident => $result:expr) => {
        match $engine {
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512Vnni($arch) => $result,
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512($arch) => $result,
            #[cfg(target_arch = "x86_64")]
            Engine::AvxVnni($arch) => $result,
            #[cfg(target_arch = "x86_64")]
            Engine::Avx2($arch) => $result,
            #[cfg(target_arch = "aarch64")]
            Engine::NeonDot($arch) => $result,
            #[cfg(target_arch = "aarch64")]
            Engine::Neon($arch) => $result,
            Engine::Portable($arch) => $result,
        }
    };
}

impl Engine {
    /// Those that this CPU has for an instruction set, the best first.
    pub(crate) fn of(isa: Isa) -> impl Iterator<Item = Self> {
        let engines = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => [
                x86::Avx512Vnni::new().map(Self::Avx512Vnni),
                x86::Avx512::new().map(Self::Avx512),
            ],
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => [
                x86::AvxVnni::new().map(Self::AvxVnni),
                x86::Avx2::new().map(Self::Avx2),
            ],
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => [
                neon::NeonDot::new().map(Self::NeonDot),
                neon::Neon::new().map(Self::Neon),
            ],
            _ => [Some(Self::Portable(portable::Portable)), None],
        };
        engines.into_iter().flatten()
    }

    /// The best one for the instruction set that chopi's loops run on.
    pub(crate) fn active() -> Self {
        let portable = Self::Portable(portable::Portable);
        Self::of(Isa::active()).next().unwrap_or(portable)
    }

    /// What it wants of the left matrix.
    pub(crate) fn left_format(self) -> LeftFormat {
        fn of<A: Tiles>(_: A) -> LeftFormat {
            LeftFormat {
                rows: A::ROWS,
                signed: A::SIGNED_LEFT,
            }
        }
        with_arch!(self, arch => of(arch))
    }

    /// Runs `kernel` compiled for this engine.
    pub(crate) fn run<K: Kernel>(self, kernel: K) {
        with_arch!(self, arch => arch.run(kernel))
    }
}
