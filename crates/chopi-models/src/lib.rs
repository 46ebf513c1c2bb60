//! Models that people run small, on candle: sentence encoders like BERT and text decoders like Llama, in floats
//! or in integers.
//!
//! ```no_run
//! # mod chopi { pub use chopi_models as models; }
//! use chopi::models::{Scheme, load};
//!
//! // A folder with config.json, tokenizer.json and safetensors files, as Hugging Face has them.
//! let model = load("SmolLM2-135M-Instruct")?.quantize(&Scheme::new(4))?;
//! println!("{}", model.generate("The capital of France is", 20)?);
//! model.save("SmolLM2-W4")?; // load("SmolLM2-W4")? has the same bits
//!
//! let encoder = load("all-MiniLM-L6-v2")?.quantize(&Scheme::new(8))?;
//! let embeddings = encoder.embed(&["A cat sat by the window.", "The train was late."])?;
//! # Ok::<(), chopi_models::Error>(())
//! ```
//!
//! | family | `model_type` | what it gives |
//! |---|---|---|
//! | [`Decoder`] | `llama` (SmolLM too), `mistral`, `qwen2`, `qwen3` | [`generate`](Model::generate), [`perplexity`](Model::perplexity) |
//! | [`Encoder`] | `bert`, `roberta`, `xlm-roberta` | [`embed`](Model::embed), pooled as `sentence-transformers` configures it |
//!
//! Each linear layer is a [`Linear`]: in floats, with integer weights and inputs of 8 bits, whose product is one
//! of integers, or with integer weights and float inputs. An [`Observe`] sees the input of each, by the name that
//! Hugging Face gives the layer. Models run on the CPU, in `f32` where they do not run in integers.

mod config;
mod decoder;
mod encoder;
mod error;
mod evaluate;
mod gelu;
mod generate;
mod gguf;
mod layerwise;
mod linear;
mod model;
mod observe;
mod rotation;
mod save;
mod scheme;
mod text;
mod weights;

pub use decoder::{Cache, CacheFormat, Decoder};
pub use encoder::Encoder;
pub use error::{Error, Result};
pub use evaluate::{Perplexity, Windows, cosine};
pub use generate::{Generation, Pieces};
pub use layerwise::LayerReport;
pub use linear::Linear;
pub use model::{Model, Network, load};
pub use observe::Observe;
pub use scheme::{InputScheme, Inputs, Scheme};
