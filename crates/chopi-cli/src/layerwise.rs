//! What a method that sees data makes of a model, layer by layer, before anything is written.

use std::collections::BTreeMap;

use chopi::formats;
use chopi::models::{self, InputScheme, Model, Network, Scheme, Windows, cosine};
use chopi::ptq::{Method, Rotation};
use rayon::ThreadPoolBuilder;

use crate::architecture::WEIGHT;
use crate::args::{QuantizeArgs, Settings};
use crate::error::{Error, Result};
use crate::interrupt;
use crate::models::read;
use crate::quantize::made::{HeldOut, Made, Measure};
use crate::resume::Finished;
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
    // Nothing of the output is written yet that would have to be removed: from here on a signal ends the program, and
    // one that has come before is an error.
    interrupt::settled();
    interrupt::check().map_err(|source| formats::Error::Read {
        path: path.clone(),
        source,
    })?;
    let whole = read(path)?;
    let held_out = (whole.len() / 8 * 7..).find(|&at| whole.is_char_boundary(at));
    let (seen, unseen) = whole.split_at(held_out.unwrap_or(whole.len()));
    let pool = ThreadPoolBuilder::new().num_threads(workers::count(args.work.threads));
    let finished = Finished::open(args, &whole, settings_of)?;
    let made = pool
        .build()?
        .install(|| quantized(args, settings_of, finished, (seen, unseen)));
    interrupt::watch();
    made
}

/// The parts of a text that data are taken from: so many, or as many as usual.
pub fn windows_of(model: &Model, count: Option<usize>) -> Windows {
    let (tokens, usual) = match model.network() {
        Network::Decoder(decoder) => (decoder.positions().min(WINDOW), WINDOWS),
        Network::Encoder(_) => (WINDOW, LINES),
    };
    Windows {
        tokens,
        limit: Some(count.unwrap_or(usual)),
    }
}

fn quantized<'a>(
    args: &QuantizeArgs,
    settings_of: &(dyn Fn(&str) -> Option<&'a Settings> + Sync),
    finished: Option<Finished>,
    (seen, unseen): (&str, &str),
) -> Result<Made> {
    let wrong = |error| Error::model(&args.files.input, error);
    let float = models::load(&args.files.input).map_err(wrong)?;
    let method = args.method.method;
    check_rotation(&float, method).map_err(wrong)?;
    let weight = |layer: &str| format!("{layer}{WEIGHT}");
    let scheme = |method: Method| {
        move |layer: &str| {
            let settings = settings_of(&weight(layer))?;
            Some(Scheme {
                weights: args.builder(settings),
                method,
                inputs: InputScheme::Float,
                embeddings: false,
            })
        }
    };
    let windows = windows_of(&float, args.method.calibration_windows);
    let bar = workers::steps("layers", args.print.quiet);
    let (mut errors, mut model) = (BTreeMap::new(), float.clone());
    if let Some(finished) = &finished {
        errors = finished.take(&mut model)?;
    }
    let model = model
        .quantize_layers_on(seen, windows, scheme(method), |layer| {
            let (done, of) = layer.done;
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            errors.insert(weight(&layer.name), layer.error);
            if let Some(finished) = &finished {
                finished.keep(layer);
            }
        })
        .map_err(wrong)?;
    bar.finish_and_clear();
    if errors.is_empty() {
        let mut weights = float.linears().map(|linear| weight(linear.name()));
        return Err(Error::NoLayer {
            path: args.files.input.clone(),
            tensor: weights.next().unwrap_or_default(),
        });
    }
    let mut nearest = float.clone();
    nearest
        .for_each_linear(|linear| match scheme(Method::default())(linear.name()) {
            Some(scheme) => linear.quantize(&scheme),
            None => Ok(()),
        })
        .map_err(wrong)?;
    Ok(Made {
        held_out: held_out(unseen, windows.tokens, [&float, &nearest, &model]).map_err(wrong)?,
        tensors: model.changed(),
        errors,
        scaled: method.changes_weights(),
        chooser: None,
    })
}

/// Checks that a rotation changes only tensors that are in the model's files.
fn check_rotation(model: &Model, method: Method) -> models::Result<()> {
    match model.network() {
        Network::Decoder(decoder) if decoder.is_tied() && method.rotation != Rotation::None => {
            Err(models::Error::Rotation {
                name: "lm_head".to_owned(),
                reason: "it has the weights of the embedding, and would get its own, for which the model's files have \
                         no place; Model::save of the library makes it"
                    .to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// What models make of a text that is held out, or nothing where it is too short.
fn held_out(text: &str, tokens: usize, models: [&Model; 3]) -> models::Result<Option<HeldOut>> {
    let windows = Windows {
        tokens,
        limit: Some(HELD_OUT),
    };
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
