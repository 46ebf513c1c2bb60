//! Quantization-aware training with libtorch.
//!
//! ```
//! # mod chopi { pub use chopi_core::*; pub use chopi_tch as tch; }
//! use chopi::Chopi;
//! use chopi::tch::nn::{Adam, AdamConfig, QatLinear};
//! use chopi::training::{FakeQuantizer, Learning, RangeObserver, QatConfig, Quantizers};
//! use tch::nn::{ModuleT, VarStore};
//! use tch::{Device, Kind, Tensor};
//!
//! let weights = Chopi::builder().num_bits(4).symmetric(true).per_channel(0).build()?;
//! let config = QatConfig::new()
//!     .weights(FakeQuantizer::new(weights).observer(RangeObserver::Latest))
//!     .activations(FakeQuantizer::new(Chopi::new(4)?).learning(Learning::lsq()));
//!
//! let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
//! let layer = QatLinear::new(8, 2, &config, &(variables.root() / "fc"), &quantizers)?;
//! let mut adam = Adam::new(&variables, &quantizers, AdamConfig::default())?;
//!
//! let x = Tensor::randn([16, 8], (Kind::Float, Device::Cpu));
//! for _ in 0..10 {
//!     let loss = layer.forward_t(&x, true).square().mean(Kind::Float);
//!     adam.backward_step(&loss)?;
//! }
//! let integers = layer.convert()?;
//! # assert_eq!(integers.weight_codes.unwrap().size(), [2, 8]);
//! # Ok::<(), chopi_core::Error>(())
//! ```
//!
//! Layers are [`ModuleT`](tch::nn::ModuleT)s, because training and evaluation differ; [`Evaluated`]
//! makes a [`Module`](tch::nn::Module) of one. (tch has every `Module` be a `ModuleT` that knows no
//! difference, so a type cannot be both.) Those traits return tensors and can only panic on errors,
//! as all of tch's layers do; `f_forward_t` returns them.
//!
//! tch has no autograd operations of one's own, so gradients are composed: the values are the bits
//! of [`Chopi::fake_quantize`](chopi_core::Chopi::fake_quantize), and to them come differences of
//! tensors and their own detached values, which are 0 and carry the gradient. Sums of gradients are
//! libtorch's, in `f64`.

mod adam;
mod checkpoint;
mod conv_bn;
mod layer;
mod ops;
mod qat;
mod weighted;

pub use adam::Adam;
pub use checkpoint::{load_checkpoint, load_float, save_checkpoint};
pub use chopi_core::training::AdamConfig;
pub use conv_bn::{QatConvBn, QatConvBn1d, QatConvBn2d};
pub use layer::{Evaluated, IntQuantizedLayer};
pub use ops::{fake_quantize, fake_quantize_learned};
pub use qat::{Qat, QatConv1d, QatConv2d, QatEmbedding, QatLinear};
pub use weighted::{Convolution, Embedding, Weighted};

/// A trained layer in integers.
pub type Converted = chopi_core::training::Converted<tch::Tensor>;

/// What a `forward` of tch does about an error.
fn expect<T>(result: chopi_core::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error}"))
}
