//! How good a model is.

use candle_core::Tensor;

use crate::decoder::Decoder;
use crate::error::{Error, Result};
use crate::model::Model;

/// The parts of a text that a decoder is evaluated on: each is seen alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The tokens of a window.
    pub tokens: usize,
    /// How many windows are taken from the start of the text, or fewer where it has no more; by default all.
    pub limit: Option<usize>,
}

impl Default for Windows {
    /// All windows, of 512 tokens.
    fn default() -> Self {
        Self {
            tokens: 512,
            limit: None,
        }
    }
}

/// How well a decoder predicts a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// exp(−mean ln p), with p the probability of a token after those before it in its window.
    pub perplexity: f64,
    /// The number of tokens that were predicted.
    pub predictions: usize,
    /// The number of windows.
    pub windows: usize,
}

/// How many tokens have their logits in memory at a time.
const ROWS: usize = 64;

impl Model {
    /// The perplexity of a text, of which the tokens after the last whole window are left out; `progress` is
    /// called with the number of windows done and of all.
    ///
    /// # Errors
    /// [`Error::Family`] for an encoder; [`Error::TooShort`] for windows of less than two tokens or a text
    /// of less than one window; [`Error::TooLong`] for windows of more tokens than the model has positions; what
    /// the tokenizer or a layer says.
    pub fn perplexity(
        &self,
        text: &str,
        windows: Windows,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Perplexity> {
        let decoder = self.decoder()?;
        if windows.tokens < 2 {
            let tokens = windows.tokens;
            return Err(Error::TooShort { tokens, least: 2 });
        }
        let tokens = self.tokens(text)?;
        if tokens.len() < windows.tokens || windows.limit == Some(0) {
            return Err(Error::TooShort {
                tokens: tokens.len(),
                least: windows.tokens,
            });
        }
        let count = tokens.len() / windows.tokens;
        let count = windows.limit.unwrap_or(count).min(count);
        let mut loss = 0.0;
        progress(0, count);
        for (done, window) in tokens.chunks_exact(windows.tokens).take(count).enumerate() {
            loss += loss_of(decoder, window)?;
            progress(done + 1, count);
        }
        let predictions = count * (windows.tokens - 1);
        Ok(Perplexity {
            perplexity: (loss / predictions as f64).exp(),
            predictions,
            windows: count,
        })
    }
}

/// −Σ ln p of the tokens of a window after the first.
fn loss_of(decoder: &Decoder, window: &[u32]) -> Result<f64> {
    let seen = &window[..window.len() - 1];
    let hidden = decoder.hidden(seen, &mut decoder.cache(), &mut ())?;
    let mut loss = 0.0;
    for (i, targets) in window[1..].chunks(ROWS).enumerate() {
        let rows = hidden.narrow(0, i * ROWS, targets.len())?;
        loss += loss_of_logits(&decoder.logits(&rows, &mut ())?, targets)?;
    }
    Ok(loss)
}

fn loss_of_logits(logits: &Tensor, targets: &[u32]) -> Result<f64> {
    let rows = logits.to_vec2::<f32>()?;
    let of_row = |(row, &target): (&Vec<f32>, &u32)| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|&x| f64::from(x - max).exp()).sum();
        sum.ln() - f64::from(row[target as usize] - max)
    };
    Ok(rows.iter().zip(targets).map(of_row).sum())
}

/// The cosine of the angle between two vectors: 1 where they point the same way; NaN where one is 0.
///
/// ```
/// assert_eq!(chopi_models::cosine(&[3.0, 0.0], &[0.5, 0.0]), 1.0);
/// ```
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b));
        products.sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
