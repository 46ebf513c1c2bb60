//! `cargo xtask check-backends`: the program on the real model with each backend writes the same
//! bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::libtorch::Libtorch;
use crate::table::table;
use crate::{built, model, process};

const BACKENDS: [&str; 3] = ["ndarray", "candle", "tch"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bits 2, 3, 4, 8 and 16 in f32, f16 and bf16, not one scheme of each kind
    #[arg(long)]
    full: bool,
    /// A program that is built already, with every backend
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
}

impl Args {
    /// The form that CI runs.
    pub fn short(program: PathBuf) -> Self {
        Self {
            full: false,
            program: Some(program),
        }
    }
}

/// Quantizes the model in every way with every backend and compares the files.
pub fn run(args: &Args) -> Result<()> {
    let program = Program::find(args.program.as_deref())?;
    let folder = tempfile::tempdir()?;
    let f32_model = model::minilm()?.join("model.safetensors");
    let mut models = vec![("f32", f32_model.clone())];
    if args.full {
        for (name, dtype) in [("f16", Dtype::F16), ("bf16", Dtype::BF16)] {
            let path = folder.path().join(format!("{name}.safetensors"));
            convert(&f32_model, &path, dtype)?;
            models.push((name, path));
        }
    }
    let bits: &[u32] = if args.full {
        &[2, 3, 4, 8, 16]
    } else {
        &[4, 8]
    };
    let granularities: [&[&str]; 3] = [&[], &["--per-channel=0"], &["--group-size=128"]];

    let mut report = table(&["model", "options", "bytes", "differing files"], 2);
    let mut differing = 0;
    for (name, model) in &models {
        for bits in bits {
            for symmetric in [&[][..], &["--symmetric"]] {
                for granularity in granularities {
                    let mut options = vec![format!("--bits={bits}")];
                    options.extend([symmetric, granularity].concat().iter().map(|&o| o.into()));
                    let files: Vec<Vec<u8>> = BACKENDS
                        .iter()
                        .map(|backend| quantize(&program, model, folder.path(), backend, &options))
                        .collect::<Result<_>>()?;
                    let others = files.iter().filter(|file| **file != files[0]).count();
                    differing += others;
                    report.add_row([
                        (*name).to_owned(),
                        options.join(" "),
                        files[0].len().to_string(),
                        others.to_string(),
                    ]);
                }
            }
        }
    }
    println!("{report}");
    match differing {
        0 => Ok(()),
        _ => bail!("{differing} files differ from those of {}", BACKENDS[0]),
    }
}

struct Program {
    path: PathBuf,
    environment: Vec<(String, String)>,
}

impl Program {
    /// The program of that path, or one that is built with every backend.
    fn find(path: Option<&Path>) -> Result<Self> {
        let environment = Libtorch::find()?.environment()?;
        let path = match path {
            Some(path) => path.to_owned(),
            None => {
                let build = ["build", "--package=chopi-cli", "--features=candle,tch"];
                let variables = environment.iter().map(|(name, value)| (name, value));
                built::chopi(process::cargo(build).envs(variables))?
            }
        };
        Ok(Self { path, environment })
    }
}

fn quantize(
    program: &Program,
    model: &Path,
    folder: &Path,
    backend: &str,
    options: &[String],
) -> Result<Vec<u8>> {
    let out = folder.join("q.safetensors");
    let mut command = Command::new(&program.path);
    command
        .envs(
            program
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .arg("quantize")
        .arg(model)
        .arg("-o")
        .arg(&out)
        .args(["--quiet", "--force", "--backend", backend])
        .args(options);
    process::run(&mut command)?;
    fs::read(&out).with_context(|| format!("cannot read {}", out.display()))
}

/// Writes the model with every f32 tensor rounded to a half type.
fn convert(model: &Path, out: &Path, dtype: Dtype) -> Result<()> {
    let bytes = fs::read(model).with_context(|| format!("cannot read {}", model.display()))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut converted: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, tensor) in tensors.tensors() {
        let shape = tensor.shape().to_vec();
        let entry = match tensor.dtype() {
            Dtype::F32 => {
                let floats: Vec<f32> = tensor
                    .data()
                    .chunks_exact(4)
                    .map(|number| f32::from_le_bytes([number[0], number[1], number[2], number[3]]))
                    .collect();
                (dtype, shape, halves(&floats, dtype))
            }
            other => (other, shape, tensor.data().to_vec()),
        };
        converted.insert(name, entry);
    }
    let views = converted
        .iter()
        .map(|(name, (dtype, shape, data))| {
            Ok((name, TensorView::new(*dtype, shape.clone(), data)?))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(safetensors::serialize_to_file(views, None, out)?)
}

fn halves(floats: &[f32], dtype: Dtype) -> Vec<u8> {
    if dtype == Dtype::BF16 {
        let mut halves = vec![bf16::ZERO; floats.len()];
        halves.convert_from_f32_slice(floats);
        halves.iter().flat_map(|half| half.to_le_bytes()).collect()
    } else {
        let mut halves = vec![f16::ZERO; floats.len()];
        halves.convert_from_f32_slice(floats);
        halves.iter().flat_map(|half| half.to_le_bytes()).collect()
    }
}
