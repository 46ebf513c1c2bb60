//! Requantization: from the `i32` accumulators of a product to the 8-bit codes of its output.
//!
//! An accumulator counts in units of s_a·s_b, the codes of the output in units of s_out, so
//!
//! q = clamp(z + round(acc · m), qmin, qmax), with m = s_a·s_b/s_out.
//!
//! What `acc · m` and `round` are to the bit is the choice of a [`Multiplier`]:
//!
//! | | m | rounding | as |
//! |---|---|---|---|
//! | [`FloatMultiplier`] | `f32` | half to even | ONNX Runtime, FBGEMM, QNNPACK |
//! | [`DoubleRounded`] | 31 bits and a power of two | twice: half up, then half away from zero | gemmlowp, TensorFlow Lite |
//! | [`SingleRounded`] | 31 bits and a power of two | once: half up | TensorFlow Lite with `TFLITE_SINGLE_ROUNDING` |
//!
//! The last two use integers only, so that a network can run on hardware without floats.
//!
//! ```
//! # mod chopi { pub use chopi_matmul as matmul; }
//! use chopi::matmul::requantize::{
//!     DoubleRounded, FixedMultiplier, FloatMultiplier, Multiplier, OutputCodes, requantize_row,
//! };
//!
//! let codes = OutputCodes::new(3_u8);
//! let float = FloatMultiplier::from_scales(0.5, 0.25, 0.5)?; // 0.25
//! assert_eq!(float.code(10, codes), 5); // 2.5 goes to 2
//! let fixed = DoubleRounded(FixedMultiplier::from_real(0.25)?);
//! assert_eq!(fixed.code(10, codes), 6); // 2.5 goes to 3
//!
//! let mut row = [0_u8; 3];
//! requantize_row(&[10, -10, 5000], None, &[fixed], codes, &mut row)?;
//! assert_eq!(row, [6, 0, 255]);
//! # Ok::<(), chopi_matmul::Error>(())
//! ```

mod codes;
mod fixed;
mod float;
mod row;

pub use codes::{Code, OutputCodes};
pub use fixed::{DoubleRounded, FixedMultiplier, SingleRounded};
pub use float::FloatMultiplier;
pub use row::requantize_row;

/// A way to multiply an accumulator with m and to round the product.
///
/// [`code`](Self::code) is the definition of each implementation; [`requantize_row`] is the same for
/// many accumulators.
pub trait Multiplier: Copy + Send + Sync {
    /// clamp(z + round(acc · m), qmin, qmax).
    fn code<Q: Code>(self, acc: i32, codes: OutputCodes<Q>) -> Q;
}
