//! `cargo xtask check-export --zoo`: small models of many architectures of transformers, quantized by the
//! program and opened by transformers (`python/zoo.py`); with `--write`, their table in docs/transformers.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::conformance::libraries;
use crate::process;
use crate::python::Requirements;
use crate::table::table;
use crate::workspace::Workspace;

/// What the script found of one model.
#[derive(Debug, Deserialize)]
struct Found {
    model_type: String,
    name: String,
    /// What is special in how it is saved and opened; often nothing.
    case: String,
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
    /// The largest difference of the outputs, opened by the base class.
    base: Option<f64>,
}

/// Where the table lies in the workspace.
const PAGE: &str = "docs/transformers.md";

/// What stands above the table.
const ABOVE: &str = "\
# Models of transformers

`cargo xtask check-export --zoo --write` makes this page: small models of these classes, with random weights, are
quantized by `chopi quantize --format compressed-tensors` and opened by transformers, by the class that saved them
or another one with a head, and by the base class (`AutoModel`). A model opens right where no key is missing,
unexpected or of another shape, and where its outputs are those of the float model with the dequantized weights,
within 1e-5. Four schemes are tried: 8 bits per channel, 4 bits in groups of 16 and a plan of several widths
(`--bits-from`), all symmetric; and asymmetric 4 bits in groups of 16, opened with
`quantization_config=CompressedTensorsConfig(dequantize=True)`. Their columns have the largest difference of any
output of both classes.
";

impl Found {
    fn title(&self) -> String {
        match &*self.case {
            "" => self.name.clone(),
            case => format!("{}, {case}", self.name),
        }
    }
}

impl Opened {
    /// The reasons of what stays in float, and how many matrices each has.
    fn kept(&self) -> String {
        let kept = self.kept.iter();
        let kept = kept.map(|(reason, count)| format!("{count} {reason}"));
        kept.collect::<Vec<_>>().join("; ")
    }

    fn bits(&self) -> String {
        let bits = self.bits.iter().map(u32::to_string);
        bits.collect::<Vec<_>>().join(", ")
    }

    /// The larger difference of the two classes.
    fn off(&self) -> String {
        let off = self.task.into_iter().chain(self.base).reduce(f64::max);
        off.map_or_else(String::new, shown)
    }
}

fn shown(off: f64) -> String {
    match off {
        0.0 => "0".to_owned(),
        off => format!("{off:.1e}"),
    }
}

/// Prints what is quantized in each model; fails if one opens wrong. With `write`, the page has the table, too.
pub fn check(program: &Path, types: &[String], write: bool) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut script = libraries::models()?.command();
    script.arg(workspace.python("zoo.py"));
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
        let name = format!("{} {}", model.model_type, model.title());
        wrong.extend(model.note.iter().map(|note| format!("{name}: {note}")));
        for (scheme, opened) in &model.schemes {
            let problems = opened.problems.iter();
            wrong.extend(problems.map(|problem| format!("{name}, {scheme}: {problem}")));
            if let Some(reason) = &opened.refused {
                refused.push(format!("{name}, {scheme}: {reason}"));
                continue;
            }
            let off = |off: Option<f64>| off.map_or_else(String::new, shown);
            table.add_row([
                model.model_type.clone(),
                model.title(),
                scheme.clone(),
                opened.bits(),
                opened.kept(),
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
    if write {
        let file = workspace.workspace_root.join(PAGE);
        std::fs::write(&file, page(&found)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The page of all models.
fn page(found: &[Found]) -> Result<String> {
    const SCHEMES: [&str; 4] = ["8 bits", "4 bits in groups", "a plan", "4 bits, asymmetric"];
    let versions = Requirements(include_str!("../python/models.txt"));
    let types: BTreeSet<&str> = found.iter().map(|model| &*model.model_type).collect();
    let opens = |model: &&Found| model.schemes.values().any(|of| of.refused.is_none());
    let opened = found.iter().filter(opens).count();
    let mut page = format!(
        "{ABOVE}\nWith transformers {} and compressed-tensors {}, {opened} of {} models of {} model types open \
         right, and the\nothers are refused before anything is written. Asymmetric schemes are refused where \
         transformers cannot read packed\nzero points.\n\n\
         | type | class | quantized | in float | 8 bits | 4 bits | a plan | asymmetric |\n\
         |---|---|---|---|---|---|---|---|\n",
        versions.version("transformers")?,
        versions.version("compressed-tensors")?,
        found.len(),
        types.len(),
    );
    for model in found {
        let of = |scheme: &str| model.schemes.get(scheme).context("a scheme is missing");
        let one = of(SCHEMES[1])?;
        let cells = SCHEMES.iter().map(|scheme| {
            let of = of(scheme)?;
            Ok(match (&of.refused, *scheme) {
                (Some(_), _) => "refused".to_owned(),
                (None, "a plan") => format!("{} ({} bits)", of.off(), of.bits()),
                (None, _) => of.off(),
            })
        });
        let (quantized, kept) = match &one.refused {
            Some(reason) => (String::new(), reason.clone()),
            None => (one.quantized.to_string(), one.kept()),
        };
        writeln!(
            page,
            "| `{}` | {} | {quantized} | {kept} | {} |",
            model.model_type,
            model.title(),
            cells.collect::<Result<Vec<_>>>()?.join(" | "),
        )?;
    }
    Ok(page)
}
