//! `chopi evaluate`: how good a model is on a text.

use std::path::Path;
use std::time::Instant;

use chopi::models::{CacheFormat, Model, Network, Windows, cosine};
use indicatif::HumanBytes;
use serde::Serialize;

use super::{memory, read};
use crate::args::EvaluateArgs;
use crate::error::{Error, Result};
use crate::print::{print, print_json};
use crate::table::{Column, Table};
use crate::workers::steps;

/// What one model does on the text.
#[derive(Serialize)]
struct Found {
    /// Of a decoder.
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
    /// Tokens that a decoder predicted, or texts that an encoder embedded.
    count: usize,
    seconds: f64,
    per_second: f64,
    peak_bytes: Option<u64>,
    #[serde(skip)]
    embeddings: Vec<Vec<f32>>,
}

#[derive(Serialize)]
struct Report {
    model: Found,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Found>,
    /// Of the perplexities, the model's over that of the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity_ratio: Option<f64>,
    /// Of the embeddings of both models.
    #[serde(skip_serializing_if = "Option::is_none")]
    cosine: Option<Cosine>,
}

#[derive(Serialize)]
struct Cosine {
    mean: f64,
    least: f64,
}

/// # Errors
/// What is wrong with a model or the text; an encoder with nothing to compare with.
pub fn run(args: &EvaluateArgs) -> Result<()> {
    let text = read(&args.text)?;
    let model = found(
        args,
        &args.model.folder,
        args.model.bits,
        args.cache_bits,
        &text,
    )?;
    let against = match &args.against {
        Some(folder) => Some(found(args, folder, None, None, &text)?),
        None if model.perplexity.is_none() => {
            return Err(Error::NothingToCompare {
                path: args.model.folder.clone(),
            });
        }
        None => None,
    };
    let perplexities = model
        .perplexity
        .zip(against.as_ref().and_then(|other| other.perplexity));
    let cosine = match &against {
        Some(other) if model.perplexity.is_none() => {
            if other.embeddings.first().map(Vec::len) != model.embeddings.first().map(Vec::len) {
                return Err(Error::OtherEmbeddings {
                    path: args.model.folder.clone(),
                    other: args.against.clone().unwrap_or_default(),
                });
            }
            Some(Cosine::of(&model.embeddings, &other.embeddings))
        }
        _ => None,
    };
    let report = Report {
        perplexity_ratio: perplexities.map(|(of_model, of_other)| of_model / of_other),
        model,
        against,
        cosine,
    };
    match (args.quiet, args.json) {
        (true, _) => Ok(()),
        (_, true) => print_json(&report),
        _ => report.print_table(),
    }
}

/// Evaluates one model.
fn found(
    args: &EvaluateArgs,
    folder: &Path,
    bits: Option<u32>,
    cache: Option<CacheFormat>,
    text: &str,
) -> Result<Found> {
    memory::restart();
    args.model.with(folder, bits, cache, |model| {
        let wrong = |error| Error::model(folder, error);
        match model.network() {
            Network::Decoder(_) => decoder(args, model, text).map_err(wrong),
            Network::Encoder(_) => {
                let texts = text.lines().filter(|line| !line.trim().is_empty());
                let texts: Vec<&str> = texts.take(args.limit.unwrap_or(usize::MAX)).collect();
                if texts.is_empty() {
                    return Err(Error::Text {
                        path: args.text.clone(),
                        reason: "there is no line with text".to_owned(),
                    });
                }
                encoder(args, model, &texts).map_err(wrong)
            }
        }
    })
}

fn decoder(args: &EvaluateArgs, model: &Model, text: &str) -> chopi::models::Result<Found> {
    let windows = Windows {
        tokens: args.window,
        limit: args.limit,
    };
    let bar = steps("windows", args.quiet);
    let start = Instant::now();
    let found = model.perplexity(text, windows, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(Found {
        perplexity: Some(found.perplexity),
        count: found.predictions,
        seconds,
        per_second: found.predictions as f64 / seconds,
        peak_bytes: memory::peak(),
        embeddings: Vec::new(),
    })
}

fn encoder(args: &EvaluateArgs, model: &Model, texts: &[&str]) -> chopi::models::Result<Found> {
    let bar = steps("texts", args.quiet);
    bar.set_length(texts.len() as u64);
    let start = Instant::now();
    let mut embeddings = Vec::with_capacity(texts.len());
    for texts in texts.chunks(32) {
        embeddings.extend(model.embed(texts)?);
        bar.inc(texts.len() as u64);
    }
    let seconds = start.elapsed().as_secs_f64();
    bar.finish_and_clear();
    Ok(Found {
        perplexity: None,
        count: texts.len(),
        seconds,
        per_second: texts.len() as f64 / seconds,
        peak_bytes: memory::peak(),
        embeddings,
    })
}

impl Cosine {
    fn of(a: &[Vec<f32>], b: &[Vec<f32>]) -> Self {
        let cosines: Vec<f64> = a.iter().zip(b).map(|(a, b)| cosine(a, b)).collect();
        Self {
            mean: cosines.iter().sum::<f64>() / cosines.len() as f64,
            least: cosines.iter().copied().fold(f64::INFINITY, f64::min),
        }
    }
}

impl Report {
    fn print_table(&self) -> Result<()> {
        let (counted, speed) = match self.model.perplexity {
            Some(_) => ("predictions", "tokens/s"),
            None => ("texts", "texts/s"),
        };
        let mut table = Table::new(vec![
            Column::text(""),
            Column::number("perplexity"),
            Column::number(counted).goes(1),
            Column::number("seconds").goes(2),
            Column::number(speed),
            Column::number("memory"),
        ]);
        let models = [
            ("model", Some(&self.model)),
            ("against", self.against.as_ref()),
        ];
        for (name, found) in models {
            let Some(found) = found else { continue };
            let perplexity = found.perplexity.map(|p| format!("{p:.3}"));
            let memory = found.peak_bytes.map(|b| HumanBytes(b).to_string());
            table.row(vec![
                name.into(),
                perplexity.unwrap_or_default().into(),
                found.count.to_string().into(),
                format!("{:.2}", found.seconds).into(),
                format!("{:.1}", found.per_second).into(),
                memory.unwrap_or_default().into(),
            ]);
        }
        print(table)?;
        if let Some(ratio) = self.perplexity_ratio {
            print(format_args!("perplexity: {ratio:.4} of the other's"))?;
        }
        match &self.cosine {
            Some(Cosine { mean, least }) => print(format_args!(
                "cosine: {mean:.6} on average, {least:.6} at least"
            )),
            None => Ok(()),
        }
    }
}
