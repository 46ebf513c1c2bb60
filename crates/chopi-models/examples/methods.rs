//! What methods of quantization make of a model: its perplexity, or the cosine of its embeddings to those of the
//! float model, for each scheme, with the seconds and the memory that it took. `cargo xtask ptq` calls it.

use std::path::PathBuf;
use std::time::Instant;

use chopi_core::{Calibration, Chopi, Convention};
use chopi_models::{
    Error, InputScheme, LayerReport, Model, Network, Scheme, Windows, cosine, load,
};
use chopi_ptq::Method;
use clap::Parser;

#[derive(Debug, Parser)]
struct Args {
    /// The model's folder
    model: PathBuf,
    /// The text that methods see
    #[arg(long)]
    calibration: PathBuf,
    /// The text that models are compared on; lines for an encoder
    #[arg(long)]
    evaluation: PathBuf,
    /// The methods
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "rtn,rtn+mse,rtn+weighted,gptq"
    )]
    methods: Vec<Method>,
    /// The bits of weights
    #[arg(long, value_delimiter = ',', default_value = "4")]
    bits: Vec<u32>,
    /// The sizes of groups, or 0 for a scale for each output
    #[arg(long, value_delimiter = ',', default_value = "64")]
    groups: Vec<usize>,
    /// Weights with zero points
    #[arg(long)]
    asymmetric: bool,
    /// What becomes of inputs: float, dynamic, dynamic4 or static
    #[arg(long, default_value = "float")]
    inputs: String,
    /// Windows, or lines, of the calibration text
    #[arg(long, default_value_t = 16)]
    windows: usize,
    /// Windows of the evaluation text
    #[arg(long, default_value_t = 6)]
    limit: usize,
    /// Print the error of each layer too
    #[arg(long)]
    layers: bool,
    /// The folder of a quantized model, which is compared instead of methods
    #[arg(long)]
    quantized: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let calibration = std::fs::read_to_string(&args.calibration)?;
    let evaluation = std::fs::read_to_string(&args.evaluation)?;
    let float = load(&args.model)?;
    if let Some(folder) = &args.quantized {
        let found = judged(&args, &load(folder)?, &float, &evaluation)?;
        print("quantized", 0, 0, found, 0.0);
        return Ok(());
    }
    let inputs = match &*args.inputs {
        "float" => InputScheme::Float,
        "dynamic" => InputScheme::Dynamic,
        "dynamic4" => InputScheme::Dynamic4,
        "static" => InputScheme::Static(Calibration::MinMax),
        other => {
            return Err(format!("{other}: expected float, dynamic, dynamic4 or static").into());
        }
    };
    print(
        "float",
        32,
        0,
        judged(&args, &float, &float, &evaluation)?,
        0.0,
    );
    for &bits in &args.bits {
        for &group in &args.groups {
            for method in &args.methods {
                let builder = Chopi::builder()
                    .num_bits(bits)
                    .symmetric(!args.asymmetric)
                    .convention(Convention::COMPRESSED_TENSORS);
                let scheme = Scheme {
                    weights: match group {
                        0 => builder.per_channel(0),
                        _ => builder.per_group(group, 1),
                    },
                    method: *method,
                    inputs,
                    embeddings: false,
                };
                let windows = Windows {
                    tokens: 512,
                    limit: Some(args.windows),
                };
                // The peak from here on, where the system can say it.
                let _ = std::fs::write("/proc/self/clear_refs", "5");
                let start = Instant::now();
                let mut watch = |layer: &LayerReport| {
                    if args.layers {
                        eprintln!("{} {:?}", layer.name, layer.error);
                    }
                };
                // What needs no data takes no pass over them.
                let model = match float.clone().quantize(&scheme) {
                    Err(Error::NeedsData { .. }) => {
                        let model = float.clone();
                        model.quantize_on(&calibration, windows, &scheme, &mut watch)?
                    }
                    model => model?,
                };
                let seconds = start.elapsed().as_secs_f64();
                let found = judged(&args, &model, &float, &evaluation)?;
                print(&method.to_string(), bits, group, found, seconds);
            }
        }
    }
    Ok(())
}

/// The perplexity of a decoder, the mean cosine of an encoder.
fn judged(
    args: &Args,
    model: &Model,
    float: &Model,
    text: &str,
) -> Result<f64, Box<dyn std::error::Error>> {
    Ok(match model.network() {
        Network::Decoder(_) => {
            let windows = Windows {
                tokens: 512,
                limit: Some(args.limit),
            };
            model.perplexity(text, windows, |_, _| ())?.perplexity
        }
        Network::Encoder(_) => {
            let lines: Vec<&str> = text.lines().collect();
            let (a, b) = (float.embed(&lines)?, model.embed(&lines)?);
            a.iter().zip(&b).map(|(a, b)| cosine(a, b)).sum::<f64>() / lines.len() as f64
        }
    })
}

/// One line of JSON.
fn print(method: &str, bits: u32, group: usize, value: f64, seconds: f64) {
    let peak = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = peak.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let peak: Option<u64> = peak.map(|kib: u64| kib * 1024);
    println!(
        "{}",
        serde_json::json!({
            "method": method, "bits": bits, "group": group, "value": value, "seconds": seconds, "peak_bytes": peak,
        })
    );
}
