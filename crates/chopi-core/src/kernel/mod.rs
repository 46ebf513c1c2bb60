//! Loops over slices, compiled for each instruction set.
//!
//! A tensor is a sequence of [`Tiles`](crate::tiles::Tiles): runs that share one parameter or have
//! one an element. Two paths compute a code, with the same bits:
//!
//! * `fast`: round half to even in the compute type itself, where every integer in sight is small
//!   enough to be exact in it. One fused loop.
//! * `general`: any rounding, any zero point, codes of up to 32 bits. A few short loops over a
//!   block that stays in cache, in `f64`.

pub(crate) mod code;
pub(crate) mod dequantize;
pub(crate) mod fake_quantize;
pub(crate) mod general;
pub(crate) mod gradient;
pub(crate) mod isa;
pub(crate) mod lanes;
pub(crate) mod minmax;
pub(crate) mod parallel;
pub(crate) mod quantize;
