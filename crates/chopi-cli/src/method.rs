//! What a method that sees data makes of a model, before anything is written.

use std::collections::BTreeMap;

use chopi::models::{self, InputScheme, Model, Network, Scheme, Windows, cosine};
use chopi::ptq::{Method, Scaling};
use rayon::ThreadPoolBuilder;

use crate::args::{QuantizeArgs, Settings};
use crate::error::{Error, Result};
use crate::models::read;
use crate::quantize::made::{HeldOut, Made, Measure, OutputError};
use crate::workers;

/// The parts of the text that methods see and models are evaluated on, in tokens.
const WINDOW: usize = 512;
/// How many windows of a text, and how many lines, methods see.
const WINDOWS: usize = 16;
const LINES: usize = 1000;
/// The windows, or lines, of the text held out that models are evaluated on.
const HELD_OUT: usize = 4;

/// Quantizes the weights that `settings_of` gives settings for by the method of the command line, where that is asked
/// for with a text.
///
/// # Errors
/// What is wrong with the model or the text.
pub fn make<'a>(
    args: &QuantizeArgs,
    settings_of: &(dyn Fn(&str) -> Option<&'a Settings> + Sync),
) -> Result<Made> {
    let Some(path) = &args.method.calibration_text else {
        return Ok(Made::default());
    };
    let whole = read(path)?;
    let held_out = (whole.len() / 8 * 7..).find(|&at| whole.is_char_boundary(at));
    let (seen, unseen) = whole.split_at(held_out.unwrap_or(whole.len()));
    let pool = ThreadPoolBuilder::new().num_threads(workers::count(args.work.threads));
    pool.build()?.install(|| {
        let made = quantized(args, settings_of, seen, unseen);
        made.map_err(|error| Error::model(&args.files.input, error))
    })
}

fn quantized<'a>(
    args: &QuantizeArgs,
    settings_of: &dyn Fn(&str) -> Option<&'a Settings>,
    seen: &str,
    unseen: &str,
) -> models::Result<Made> {
    let float = models::load(&args.files.input)?;
    let method = args.method.method;
    let scheme = |method: Method| {
        move |layer: &str| {
            let settings = settings_of(&format!("{layer}.weight"))?;
            Some(Scheme {
                weights: args.builder(settings),
                method,
                inputs: InputScheme::Float,
                embeddings: false,
            })
        }
    };
    let bar = workers::steps("layers", args.print.quiet);
    let (window, count) = match float.network() {
        Network::Decoder(decoder) => (decoder.positions().min(WINDOW), WINDOWS),
        Network::Encoder(_) => (WINDOW, LINES),
    };
    let count = args.method.calibration_windows.unwrap_or(count);
    let windows = |limit| Windows {
        tokens: window,
        limit: Some(limit),
    };
    let mut errors = BTreeMap::new();
    let model =
        float
            .clone()
            .quantize_layers_on(seen, windows(count), scheme(method), |layer| {
                let (done, of) = layer.done;
                bar.set_length(of as u64);
                bar.set_position(done as u64);
                let error = OutputError {
                    nearest: layer.error.nearest,
                    chosen: layer.error.chosen,
                };
                errors.insert(format!("{}.weight", layer.name), error);
            })?;
    bar.finish_and_clear();
    let mut nearest = float.clone();
    nearest.for_each_linear(|linear| match scheme(Method::default())(linear.name()) {
        Some(scheme) => linear.quantize(&scheme),
        None => Ok(()),
    })?;
    Ok(Made {
        held_out: held_out(unseen, windows(HELD_OUT), [&float, &nearest, &model])?,
        tensors: model.changed(),
        errors,
        scaled: method.scaling != Scaling::None,
    })
}

/// What models make of a text that is held out, or nothing where it is too short.
fn held_out(text: &str, windows: Windows, models: [&Model; 3]) -> models::Result<Option<HeldOut>> {
    let (measure, [float, nearest, quantized]) = match models[0].network() {
        Network::Decoder(_) => {
            let of = |model: &Model| model.perplexity(text, windows, |_, _| ());
            let [float, nearest, quantized] = models.map(of);
            match float {
                Err(models::Error::TooShort { .. }) => return Ok(None),
                float => (
                    Measure::Perplexity,
                    [float?, nearest?, quantized?].map(|found| found.perplexity),
                ),
            }
        }
        Network::Encoder(_) => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let lines: Vec<&str> = lines.take(HELD_OUT * 8).collect();
            if lines.is_empty() {
                return Ok(None);
            }
            let [float, nearest, quantized] = models.map(|model| model.embed(&lines));
            let float = float?;
            let mean = |other: &[Vec<f32>]| {
                let cosines = float.iter().zip(other).map(|(a, b)| cosine(a, b));
                cosines.sum::<f64>() / lines.len() as f64
            };
            (Measure::Cosine, [1.0, mean(&nearest?), mean(&quantized?)])
        }
    };
    Ok(Some(HeldOut {
        measure,
        float,
        nearest,
        quantized,
    }))
}
