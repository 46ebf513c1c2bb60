//! The loops, each compiled for each instruction set.
//!
//! A tensor is a sequence of [`Tiles`](crate::Tiles): runs that share one parameter or have one an
//! element. Two paths compute a code, with the same bits:
//!
//! * in vectors of the compute type itself, where every integer in sight is small enough to be exact in
//!   it: one loop for all recipes, see [`affine`], which [`driver`] takes through the runs;
//! * [`wide`]: codes of up to 32 bits and zero points beyond them, and integers wider than 16 bits. A few
//!   short loops over a block that stays in cache, in `f64`.

pub(crate) mod affine;
pub(crate) mod dequantize;
pub(crate) mod driver;
pub(crate) mod fake_quantize;
pub(crate) mod gradient;
pub(crate) mod histogram;
pub(crate) mod minmax;
pub(crate) mod packing;
pub(crate) mod quantize;
pub(crate) mod squared_error;
pub(crate) mod uniform;
pub(crate) mod wide;
