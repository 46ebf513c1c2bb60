//! A real sentence-embedding model, all-MiniLM-L6-v2, on candle: in floats, and with the products of its
//! linear layers in integers (weights of 8 bits per output, activations of 8 bits per token).
//!
//! ```sh
//! cargo run --release --example minilm_candle --features candle,matmul -- "$(cargo xtask model)"
//! ```
//!
//! The folder holds `model.safetensors`, `config.json` and `tokenizer.json`. `RAYON_NUM_THREADS=1` runs
//! both on one thread.

#[path = "minilm/bert.rs"]
mod bert;
#[path = "minilm/sentences.rs"]
mod sentences;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Error, Result, ensure};
use bert::{Bert, Config};
use candle_core::{DType, Device, Tensor};
use candle_nn::{Linear, Module, VarBuilder};
use chopi::Chopi;
use chopi::candle::QuantizedLinear;
use chopi::matmul::Activations;
use clap::{Parser, ValueEnum};
use sentences::SENTENCES;
use tokenizers::{PaddingParams, Tokenizer};

/// Embeds sentences in floats and in integers.
#[derive(Debug, Parser)]
struct Args {
    /// The folder of the model
    model: PathBuf,
    /// How often each of the two is timed
    #[arg(long, default_value_t = 11)]
    passes: usize,
    /// Run only one of the two, to see its memory
    #[arg(long)]
    only: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Float,
    Int8,
}

/// The layer with its product in integers.
fn integer(layer: Linear) -> candle_core::Result<Box<dyn Module>> {
    let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0);
    let weights = weights.build().map_err(candle_core::Error::wrap)?;
    let layer = QuantizedLinear::from_float(&layer, weights, Activations::default())?;
    Ok(Box::new(layer))
}

fn float(layer: Linear) -> candle_core::Result<Box<dyn Module>> {
    Ok(Box::new(layer))
}

fn load(folder: &Path, kind: Kind) -> Result<Bert> {
    let config: Config = serde_json::from_slice(&std::fs::read(folder.join("config.json"))?)?;
    let weights = std::fs::read(folder.join("model.safetensors"))?;
    let vb = VarBuilder::from_buffered_safetensors(weights, DType::F32, &Device::Cpu)?;
    let dense = match kind {
        Kind::Float => float,
        Kind::Int8 => integer,
    };
    Ok(Bert::load(&config, dense, vb)?)
}

/// The tokens of sentences, [sentences, tokens], and which of them are there: 1, or 0 for those that
/// only fill up.
fn tokenize(folder: &Path, sentences: &[&str]) -> Result<(Tensor, Tensor)> {
    let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).map_err(Error::msg)?;
    tokenizer.with_padding(Some(PaddingParams::default()));
    let encodings = tokenizer
        .encode_batch(sentences.to_vec(), true)
        .map_err(Error::msg)?;
    let rows = |of: fn(&tokenizers::Encoding) -> &[u32]| {
        let rows = encodings
            .iter()
            .map(|encoding| Tensor::new(of(encoding), &Device::Cpu));
        Tensor::stack(&rows.collect::<candle_core::Result<Vec<_>>>()?, 0)
    };
    Ok((
        rows(tokenizers::Encoding::get_ids)?,
        rows(tokenizers::Encoding::get_attention_mask)?,
    ))
}

fn median(seconds: &mut [f64]) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.passes > 0, "--passes is 0, expected at least 1");
    let (ids, mask) = tokenize(&args.model, &SENTENCES)?;
    let tokens = mask.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
    let count = SENTENCES.len() as f64;
    println!("{count} sentences of {:.1} tokens", tokens / count);
    if let Some(kind) = args.only {
        let model = load(&args.model, kind)?;
        let mut seconds = Vec::new();
        for _ in 0..args.passes {
            let start = Instant::now();
            model.embed(&ids, &mask)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        println!("{:.1} sentences/s", count / median(&mut seconds));
        return Ok(());
    }

    let models = [
        load(&args.model, Kind::Float)?,
        load(&args.model, Kind::Int8)?,
    ];
    let embeddings = [models[0].embed(&ids, &mask)?, models[1].embed(&ids, &mask)?];
    // They are of length 1.
    let cosines = (&embeddings[0] * &embeddings[1])?
        .sum(1)?
        .to_vec1::<f32>()?;
    for (cosine, sentence) in cosines.iter().zip(SENTENCES) {
        println!("cosine {cosine:.4}: {sentence}");
    }
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..args.passes {
        for (model, seconds) in models.iter().zip(&mut seconds) {
            let start = Instant::now();
            model.embed(&ids, &mask)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let [float, int8] = seconds.map(|mut seconds| count / median(&mut seconds));
    println!(
        "{}",
        serde_json::json!({
            "cosine_min": cosines.iter().copied().fold(f32::INFINITY, f32::min),
            "float_sentences_per_s": float,
            "int8_sentences_per_s": int8,
            "speedup": int8 / float,
        })
    );
    Ok(())
}
