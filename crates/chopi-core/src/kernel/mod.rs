//! Loops over slices, compiled for each instruction set.
//!
//! A tensor is a sequence of [`Tiles`](crate::tiles::Tiles): runs that share one parameter or have
//! one an element. Two paths compute a code, with the same bits:
//!
//! * `fast`: in vectors of the compute type itself, where every integer in sight is small enough to
//!   be exact in it. One fused loop for all conventions and roundings, see [`affine`].
//! * `general`: codes of up to 32 bits and zero points beyond them. A few short loops over a block
//!   that stays in cache, in `f64`.

pub(crate) mod affine;
pub(crate) mod code;
pub(crate) mod dequantize;
pub(crate) mod fake_quantize;
pub(crate) mod general;
pub(crate) mod gradient;
pub(crate) mod histogram;
pub(crate) mod isa;
pub(crate) mod lanes;
pub(crate) mod minmax;
pub(crate) mod packing;
pub(crate) mod quantize;
pub(crate) mod run;
pub(crate) mod squared_error;
pub(crate) mod steps;
pub(crate) mod uniform;
pub mod vector;
