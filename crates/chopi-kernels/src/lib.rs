//! The loops of [chopi](https://docs.rs/chopi) on slices: element types, memory layouts, vectors for
//! every CPU, and what is done with the elements.
//!
//! This crate knows no tensor framework, no convention and no calibration. `chopi-core` turns
//! calibrated parameters into a [`Recipe`] and the numbers of each group, and calls a loop:
//!
//! ```
//! use std::mem::MaybeUninit;
//!
//! use chopi_kernels::{
//!     FloatSlice, IntSliceMut, Layout, Params, PerGroup, Recipe, Rounding, Steps, Tiles,
//!     ZeroPointSlice,
//! };
//!
//! let recipe = Recipe {
//!     steps: Steps::DivideExact,
//!     rounding: Rounding::NearestEven,
//!     native: false,
//!     narrow_product: false,
//!     nan_is_smallest: false,
//!     qmin: -128,
//!     qmax: 127,
//! };
//! let tiles = Tiles::per_tensor(&Layout::row_major(&[4]));
//! let params = Params::new(recipe, tiles, &[0.5], PerGroup::new(), ZeroPointSlice::Integers(&[3]));
//!
//! let mut codes = [MaybeUninit::<i8>::uninit(); 4];
//! let x = FloatSlice::F32(&[-1.0, 0.2, 7.0, 1e9]);
//! let any_nan = chopi_kernels::quantize(x, &params, IntSliceMut::I8(&mut codes))?;
//! // SAFETY: `quantize` has written every code.
//! let codes = codes.map(|code| unsafe { code.assume_init() });
//! assert_eq!((codes, any_nan), ([1, 3, 17, 127], false));
//! # Ok::<(), chopi_kernels::NoMemory>(())
//! ```
//!
//! The floors, from the bottom: element types ([`FloatType`], [`IntType`]); slices whose type is a value
//! ([`FloatSlice`]); where elements lie ([`Layout`]) and which of them share parameters ([`Tiles`]);
//! vectors, a file for each CPU ([`vector`]), of which [`isa`] chooses one; the loops.
//!
//! Every function is safe, and every loop writes each element of its output before it returns, but where it
//! returns [`NoMemory`]: want of memory for what an input's size asks for is an error, see [`memory`].

mod element;
mod float;
mod histogram;
mod int;
pub mod isa;
mod lanes;
mod layout;
mod loops;
pub mod memory;
pub mod parallel;
mod percentile;
mod recipe;
mod reciprocal;
mod slice;
mod tiles;
pub mod vector;

pub use element::widen;
pub use float::{Compute, Float, FloatType};
pub use half::{bf16, f16};
pub use histogram::{Bin, Histogram};
pub use int::{Int, IntType};
pub use isa::{Isa, IsaError};
pub use lanes::{Params, PerGroup, ZeroPointSlice};
pub use layout::{Axes, Layout};
pub use loops::dequantize::{any_outside, dequantize};
pub use loops::fake_quantize::{fake_quantize, fake_quantize_with_mask};
pub use loops::gradient::{GradientRule, Sums, learned, scale_derivatives, straight_through};
pub use loops::minmax::{MinMax, min_max};
pub use loops::packing::{Sign, pack, unpack};
pub use loops::quantize::quantize;
pub use loops::squared_error::{Grid, SquaredError, squared_error};
pub use loops::uniform::uniform;
pub use memory::NoMemory;
pub use recipe::{Recipe, Rounding, Steps};
pub use slice::{FloatSlice, FloatSliceMut, IntSlice, IntSliceMut};
pub use tiles::{GroupElements, Tile, Tiles};

mod sealed {
    pub trait Sealed {}
}
