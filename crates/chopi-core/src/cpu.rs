//! The instruction set and the threads that the kernels run on. Neither changes a bit of a result.
//!
//! [`Isa::active`] is the best instruction set of the CPU, or what the environment variable `CHOPI_ISA`
//! says. With the feature `rayon`, large tensors are worked on by the [`threads`] of the current pool.
//!
//! ```
//! # use chopi_core as chopi;
//! use chopi::cpu::Isa;
//!
//! assert!(Isa::active().is_available());
//! ```

pub use chopi_kernels::parallel::threads;
pub use chopi_kernels::{Isa, IsaError};
