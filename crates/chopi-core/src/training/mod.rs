//! Quantization-aware training, without a framework: the state of a fake-quantizer, gradients on
//! slices, learned scales.
//!
//! A framework's autograd calls [`fake_quantize`] forward and [`straight_through`] or
//! [`LearnedParams::gradients`] backward; one that cannot have operations of its own composes the
//! same from [`Chopi::fake_quantize_with_mask`](crate::Chopi::fake_quantize_with_mask) and
//! [`LearnedParams::scale_derivative`].

mod adam;
mod checkpoint;
mod config;
mod fake_quantizer;
mod initialization;
mod learned;
mod quantizers;
mod straight_through;

pub use adam::AdamConfig;
pub use checkpoint::{
    CHECKPOINT_MEAN, CHECKPOINT_QUANTIZERS, CHECKPOINT_SQUARE, CHECKPOINT_STEPS, write_checkpoint,
};
pub use config::QatConfig;
pub use fake_quantizer::{FakeQuantizer, Initialization, Learning, Phase, RangeObserver};
pub use initialization::{least_squares, mean_magnitude};
pub use learned::{GradientFactor, LearnedGradients, LearnedParams};
pub use quantizers::{Quantizers, SharedQuantizer};
pub use straight_through::{Ste, fake_quantize, straight_through};
