//! Products as other hardware computes them: operands of 2 to 16 bits, and an accumulator of a chosen
//! width that wraps around, saturates, or says where it overflows. Exact, and slower than the
//! products of 8-bit codes.
//!
//! An element of the product of a \[m, k\] and b \[k, n\] is summed in this order:
//!
//! s_0 = bias_j, s_{t+1} = ⟦s_t + (a_{it} − z_i)·(b_{tj} − z'_j)⟧ for t = 0, 1, …, k − 1
//!
//! where ⟦ ⟧ is what the accumulator makes of a sum. The products themselves are exact. In a
//! convolution t counts the channels of the group, and for each the positions of the kernel; in the
//! padding the product is 0.
//!
//! ```
//! # mod chopi { pub use chopi_core::*; pub use chopi_matmul as matmul; }
//! use chopi::backend::IntSlice;
//! use chopi::matmul::emulate::{Accumulator, Matrix, Overflow, matmul};
//!
//! let a = Matrix { codes: IntSlice::I8(&[100, 100, -100]), shape: (1, 3), range: (-128, 127), zero_points: &[0] };
//! let b = Matrix { codes: IntSlice::I8(&[120, 120, 120]), shape: (3, 1), range: (-128, 127), zero_points: &[0] };
//! // The sums are 12000, 24000 and 12000.
//! assert_eq!(matmul(&a, &b, None, Accumulator::new(16, Overflow::Report)?)?, [12000]);
//! // With 15 bits, which hold −16384..=16383, 24000 is one too many.
//! assert_eq!(matmul(&a, &b, None, Accumulator::new(15, Overflow::Wrap)?)?, [12000]);
//! assert_eq!(matmul(&a, &b, None, Accumulator::new(15, Overflow::Saturate)?)?, [4383]);
//! let error = matmul(&a, &b, None, Accumulator::new(15, Overflow::Report)?).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "the sum of element [0, 0] overflows an accumulator of 15 bits: it is 24000 with product 1"
//! );
//! # Ok::<(), chopi_matmul::Error>(())
//! ```

mod accumulator;
mod operand;
mod product;

pub use accumulator::{Accumulator, Overflow};
pub use operand::{Matrix, Tensor};
pub use product::{conv, matmul};
