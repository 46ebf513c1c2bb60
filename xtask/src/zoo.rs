//! `cargo xtask check-export --zoo`: small models of many architectures of transformers, quantized by the
//! program and opened by transformers (`python/zoo.py`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::conformance::libraries;
use crate::process;
use crate::table::table;
use crate::workspace::Workspace;

/// What the script found of one model.
#[derive(Debug, Deserialize)]
struct Found {
    model_type: String,
    name: String,
    schemes: BTreeMap<String, Opened>,
    note: Option<String>,
}

/// What it found of one scheme.
#[derive(Debug, Deserialize)]
struct Opened {
    problems: Vec<String>,
    refused: Option<String>,
    #[serde(default)]
    bits: Vec<u32>,
    #[serde(default)]
    tensors: usize,
    #[serde(default)]
    quantized: usize,
    /// How many matrices stay in float, by the reason.
    #[serde(default)]
    kept: BTreeMap<String, usize>,
    /// The largest difference of the outputs, opened by the class with a head.
    task: Option<f64>,
    /// Likewise by the base class; none where the float model lacks weights in that class.
    base: Option<f64>,
}

/// Prints what is quantized in each model; fails if one opens wrong.
pub fn check(program: &Path, types: &[String]) -> Result<()> {
    let mut script = libraries::models()?.command();
    script.arg(Workspace::load()?.python("zoo.py"));
    script.arg(program).args(types);
    let output = process::output(&mut script)?;
    let found = output.lines().map(serde_json::from_str);
    let found: Vec<Found> = found
        .collect::<serde_json::Result<_>>()
        .context("cannot read what the script says")?;

    let header = [
        "model", "class", "scheme", "bits", "in float", "weights", "of", "task", "base",
    ];
    let mut table = table(&header, 5);
    let mut wrong = Vec::new();
    let mut refused = Vec::new();
    for model in &found {
        let name = format!("{} {}", model.model_type, model.name);
        wrong.extend(model.note.iter().map(|note| format!("{name}: {note}")));
        for (scheme, opened) in &model.schemes {
            let problems = opened.problems.iter();
            wrong.extend(problems.map(|problem| format!("{name}, {scheme}: {problem}")));
            if let Some(reason) = &opened.refused {
                refused.push(format!("{name}, {scheme}: {reason}"));
                continue;
            }
            let bits = opened.bits.iter().map(u32::to_string);
            let kept = opened.kept.iter();
            let kept = kept.map(|(reason, count)| format!("{count} {reason}"));
            let off = |off: Option<f64>| off.map_or_else(String::new, |off| format!("{off:.1e}"));
            table.add_row([
                model.model_type.clone(),
                model.name.clone(),
                scheme.clone(),
                bits.collect::<Vec<_>>().join(", "),
                kept.collect::<Vec<_>>().join("; "),
                opened.quantized.to_string(),
                opened.tensors.to_string(),
                off(opened.task),
                off(opened.base),
            ]);
        }
    }
    println!("{table}");
    println!("{} refused:\n  {}", refused.len(), refused.join("\n  "));
    println!("{} models, {} wrong", found.len(), wrong.len());
    if !wrong.is_empty() {
        bail!("opened wrong:\n  {}", wrong.join("\n  "));
    }
    Ok(())
}
