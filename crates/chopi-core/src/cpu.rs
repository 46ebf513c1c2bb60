//! The instruction set and the threads that the kernels run on.

pub use chopi_kernels::parallel::threads;
pub use chopi_kernels::{Isa, IsaError};
