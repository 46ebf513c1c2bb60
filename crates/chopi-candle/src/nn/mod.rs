//! Quantization-aware training with candle.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{ModuleT, VarBuilder, VarMap};
//! # mod chopi { pub use chopi_candle as candle; pub use chopi_core::*; }
//! use chopi::Chopi;
//! use chopi::candle::nn::{Adam, AdamConfig, QatLinear};
//! use chopi::training::{FakeQuantizer, Learning, RangeObserver, QatConfig, Quantizers};
//!
//! let weights = Chopi::builder().num_bits(4).symmetric(true).per_channel(0).build()?;
//! let config = QatConfig::new()
//!     .weights(FakeQuantizer::new(weights).observer(RangeObserver::Latest))
//!     .activations(FakeQuantizer::new(Chopi::new(4)?).learning(Learning::lsq()));
//!
//! let (variables, quantizers) = (VarMap::new(), Quantizers::new());
//! let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let layer = QatLinear::new(8, 2, &config, vb.pp("fc"), &quantizers)?;
//! let mut adam = Adam::new(&variables, &quantizers, AdamConfig::default())?;
//!
//! let x = Tensor::randn(0_f32, 1.0, (16, 8), &Device::Cpu)?;
//! for _ in 0..10 {
//!     let loss = layer.forward_t(&x, true)?.sqr()?.mean_all()?;
//!     adam.backward_step(&loss)?;
//! }
//! let integers = layer.convert()?;
//! # assert_eq!(integers.weight_codes.unwrap().dims(), [2, 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Layers are [`ModuleT`](candle_nn::ModuleT)s, because training and evaluation differ;
//! [`Evaluated`] makes a [`Module`](candle_nn::Module) of one. (candle has every `Module` be a
//! `ModuleT` that knows no difference, so a type cannot be both.)
//!
//! On the CPU the operations run chopi's kernels, forward and backward; on other devices the same
//! numbers and gradients are composed from candle's own operations.

mod adam;
mod checkpoint;
mod conv_bn;
mod layer;
mod ops;
mod qat;

pub use adam::Adam;
pub use checkpoint::{load_checkpoint, load_float, save_checkpoint};
pub use chopi_core::training::AdamConfig;
pub use conv_bn::{QatConvBn, QatConvBn1d, QatConvBn2d};
pub use layer::{Evaluated, IntQuantizedLayer};
pub use ops::{
    composed_fake_quantize, composed_fake_quantize_learned, fake_quantize, fake_quantize_learned,
};
pub use qat::{Qat, QatConv1d, QatConv2d, QatEmbedding, QatLinear, Weighted};

/// A trained layer in integers.
pub type Converted = chopi_core::training::Converted<candle_core::Tensor>;

/// What chopi said, as an error of candle.
fn chopi(error: chopi_core::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}
