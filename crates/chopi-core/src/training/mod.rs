//! Quantization-aware training, without a framework: the state of a fake-quantizer, gradients on
//! slices, and, on a framework's tensors, learned scales, folded batch normalization, Adam and
//! checkpoints.
//!
//! A framework's autograd calls [`fake_quantize`] forward and [`straight_through`] or
//! [`LearnedParams::gradients`] backward; one that cannot have operations of its own composes the
//! same by [`composed_fake_quantize`] and [`composed_fake_quantize_learned`].
//!
//! What trains a network is written once, on top of [`DeviceTensor`](crate::backend::DeviceTensor):
//! a [`LayerQuantizer`] says what becomes of each tensor, a [`FoldedBatchNorm`] of a convolution's
//! weight, [`Adam`] steps. The crate of a framework has the layers themselves, in the framework's own
//! way, and the operations.

mod adam;
mod batch_norm;
#[cfg(feature = "checkpoints")]
mod checkpoint;
mod composed;
mod config;
mod converted;
mod fake_quantizer;
mod initialization;
mod layer;
mod learned;
mod quantizers;
mod straight_through;

pub use adam::{Adam, AdamConfig};
pub use batch_norm::FoldedBatchNorm;
#[cfg(feature = "checkpoints")]
pub use checkpoint::{CheckpointTensor, Dtype, load_checkpoint, load_float, save_checkpoint};
pub use composed::{composed_fake_quantize, composed_fake_quantize_learned};
pub use config::QatConfig;
pub use converted::Converted;
pub use fake_quantizer::{FakeQuantizer, Initialization, Learning, Phase, RangeObserver};
pub use initialization::{least_squares, mean_magnitude};
pub use layer::{LayerQuantizer, Step};
pub use learned::{GradientFactor, LearnedGradients, LearnedParams};
pub use quantizers::{Quantizers, SharedQuantizer};
pub use straight_through::{Ste, fake_quantize, straight_through};
