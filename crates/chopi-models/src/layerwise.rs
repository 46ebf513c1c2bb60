//! Quantization with data: layer by layer, each on what the layers before it have become.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use chopi_candle::Candle;
use chopi_ptq::{LayerError, Moments, Rotation, Scaling, Statistics};

use crate::decoder::HEAD;
use crate::error::{Error, Result};
use crate::evaluate::Windows;
use crate::linear::Linear;
use crate::model::{Model, Network};
use crate::scheme::{InputScheme, Scheme};

/// Linear layers that take one input, just before they are used.
pub(crate) struct Stage<'a> {
    pub(crate) linears: Vec<&'a mut Linear>,
    /// What multiplies each channel of the input, if anything does.
    pub(crate) before: Option<&'a mut dyn Divide>,
    /// The inputs, \[rows, channels\] for each text.
    pub(crate) inputs: &'a mut [Tensor],
}

/// What gives channels that each can be divided by a number.
pub(crate) trait Divide {
    /// Divides each channel by its number, \[channels\].
    fn divide(&mut self, by: &Tensor) -> Result<()>;

    /// What kind of thing it is.
    fn kind(&self) -> Before;
}

/// What comes before linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// A norm.
    Norm,
    /// A linear layer whose weights are floats.
    Floats,
    /// A linear layer whose weights are integers, which cannot be divided.
    Integers,
}

/// What became of a linear layer that was quantized with data.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerReport {
    /// The name of the layer, as Hugging Face gives it.
    pub name: String,
    /// The error of its outputs on the calibration data.
    pub error: LayerError,
    /// The codes of its weights.
    pub weight: Arc<chopi_formats::Tensor>,
    /// How many layers are done, this one included, and of how many.
    pub done: (usize, usize),
}

/// What decides how a linear layer is quantized, by its name.
type Choose<'a> = dyn Fn(&str) -> Option<Scheme> + 'a;

impl Model {
    /// The model with its linear layers quantized with data, by the [method](Scheme::method) of the scheme: in the
    /// order of their use, so that a layer is quantized on what the quantized layers before it give. Of a decoder
    /// `windows` of the text are taken, of an encoder its lines, `windows.limit` of them at most, each cut to
    /// `windows.tokens`. The embeddings are quantized as [`quantize`](Self::quantize) does. `watch` sees each layer
    /// when it is done.
    ///
    /// # Errors
    /// A text of less than one window; what quantizing a layer says, with the layer's name; what the tokenizer says.
    pub fn quantize_on(
        self,
        text: &str,
        windows: Windows,
        scheme: &Scheme,
        watch: impl FnMut(&LayerReport),
    ) -> Result<Self> {
        let choose = |name: &str| (name != HEAD).then(|| scheme.clone());
        let mut model = self.quantize_layers_on(text, windows, choose, watch)?;
        if scheme.embeddings {
            model.quantize_embeddings(scheme)?;
        }
        Ok(model)
    }

    /// The model with some of its linear layers quantized with data, as [`quantize_on`](Self::quantize_on) does:
    /// `choose` gives the scheme of a layer by its name, or none for one that stays as it is. Layers that are quantized
    /// already, as by [`Linear::set_codes`] of a run before, stay so too, and later ones see what they give. Embeddings and a head
    /// that has their weights stay as they are, unless the scheme of a layer asks for a rotation, which is one of the whole
    /// model.
    ///
    /// # Errors
    /// The errors of [`quantize_on`](Self::quantize_on).
    pub fn quantize_layers_on(
        mut self,
        text: &str,
        windows: Windows,
        choose: impl Fn(&str) -> Option<Scheme>,
        mut watch: impl FnMut(&LayerReport),
    ) -> Result<Self> {
        let texts = self.calibration_texts(text, windows)?;
        let is_rotated = |linear: &Linear| {
            choose(linear.name()).is_some_and(|scheme| scheme.method.rotation == Rotation::Hadamard)
        };
        if self.linears().any(is_rotated) {
            self = self.rotated()?;
        }
        let is_open = |linear: &&Linear| !linear.is_quantized() && choose(linear.name()).is_some();
        let count = self.linears().filter(is_open).count();
        if count == 0 {
            return Ok(self);
        }
        let mut work = Work {
            choose: &choose,
            watch: &mut watch,
            done: 0,
            count,
        };
        match &mut self.network {
            Network::Encoder(encoder) => encoder.walk(&texts, &mut work)?,
            Network::Decoder(decoder) => decoder.walk(&texts, &mut work)?,
        }
        Ok(self)
    }

    /// The second moments of the inputs of all linear layers, by the layers' names, while the model runs on windows
    /// of a text as [`quantize_on`](Self::quantize_on) takes them. `progress` is called with the number of windows
    /// done and of all.
    ///
    /// # Errors
    /// A text of less than one window; inputs that are not finite; what the tokenizer or a layer says.
    pub fn statistics(
        &self,
        text: &str,
        windows: Windows,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Statistics> {
        let texts = self.calibration_texts(text, windows)?;
        let mut statistics = Statistics::default();
        let mut observer = |name: &str, input: &Tensor| {
            let observed = statistics.observe(name, input);
            observed.map_err(candle_core::Error::wrap)
        };
        for (done, tokens) in texts.iter().enumerate() {
            progress(done, texts.len());
            match &self.network {
                Network::Encoder(encoder) => {
                    encoder.hidden(&[tokens], &mut observer)?;
                }
                Network::Decoder(decoder) => {
                    let hidden = decoder.hidden(tokens, &mut decoder.cache(), &mut observer)?;
                    decoder.logits(&hidden.narrow(0, 0, 1)?, &mut ())?;
                }
            }
        }
        progress(texts.len(), texts.len());
        Ok(statistics)
    }

    /// The tokens of the parts of a text that data are taken from.
    fn calibration_texts(&self, text: &str, windows: Windows) -> Result<Vec<Vec<u32>>> {
        let limit = windows.limit.unwrap_or(usize::MAX);
        let texts: Vec<Vec<u32>> = match &self.network {
            Network::Decoder(_) => {
                let tokens = self.tokens(text)?;
                if tokens.len() < windows.tokens {
                    let (tokens, least) = (tokens.len(), windows.tokens);
                    return Err(Error::TooShort { tokens, least });
                }
                let windows = tokens.chunks_exact(windows.tokens.max(1)).take(limit);
                windows.map(<[u32]>::to_vec).collect()
            }
            Network::Encoder(encoder) => {
                let tokens = windows.tokens.min(encoder.positions());
                let lines = text.lines().filter(|line| !line.trim().is_empty());
                let lines = lines.take(limit).map(|line| self.cut(line, tokens));
                lines.collect::<Result<_>>()?
            }
        };
        match texts.is_empty() {
            true => Err(Error::NoText),
            false => Ok(texts),
        }
    }
}

/// Quantizes stage after stage.
pub(crate) struct Work<'a> {
    choose: &'a Choose<'a>,
    watch: &'a mut dyn FnMut(&LayerReport),
    done: usize,
    count: usize,
}

impl Work<'_> {
    /// Calls `stages` with what is to be done with each stage of a layer: first what folds scales into what comes
    /// before, if a method asks for that, and then what quantizes.
    pub(crate) fn layer(
        &mut self,
        name: &str,
        mut stages: impl FnMut(bool, &mut dyn FnMut(Stage<'_>) -> Result<()>) -> Result<()>,
    ) -> Result<()> {
        let scales =
            (self.choose)(name).is_some_and(|scheme| scheme.method.scaling != Scaling::None);
        if scales {
            stages(true, &mut |stage| self.fold(stage))?;
        }
        stages(false, &mut |stage| self.quantize(stage))
    }

    /// Moves scales from the inputs of a stage to its weights, by the method of its first layer.
    fn fold(&mut self, stage: Stage<'_>) -> Result<()> {
        let Some(before) = stage.before else {
            return Ok(());
        };
        let [first, ..] = &*stage.linears else {
            return Ok(());
        };
        let Some(scheme) = (self.choose)(first.name()) else {
            return Ok(());
        };
        // What linear layers give has tokens far larger than others. Ranges of rows are not widened by other rows,
        // and the weights are better off without such scales.
        let is_static = matches!(scheme.inputs, InputScheme::Static(_));
        let moved = match (scheme.method.scaling, before.kind()) {
            (Scaling::None, _) | (_, Before::Integers) => false,
            (Scaling::Smooth { .. }, Before::Floats) => is_static,
            (Scaling::Smooth { .. } | Scaling::Awq, _) => true,
        };
        if !moved {
            return Ok(());
        }
        let name = first.name().to_owned();
        let named = || Error::ptq(&name);
        let weights: Option<Vec<&Tensor>> =
            stage.linears.iter().map(|linear| linear.weight()).collect();
        let Some(weights) = weights else {
            return Ok(());
        };
        let moments = moments(stage.inputs).map_err(named())?;
        let scales = match scheme.method.scaling {
            Scaling::None => return Ok(()),
            Scaling::Smooth { alpha } => {
                chopi_ptq::smooth_scales::<Candle, _>(&weights, &moments, alpha)
            }
            Scaling::Awq => {
                let quantizer = scheme.weights.clone().build();
                let quantizer = quantizer.map_err(Error::layer(&name))?;
                let (scheme_of, convention) = (quantizer.scheme(), quantizer.convention());
                chopi_ptq::awq_scales::<Candle, _>(
                    &weights,
                    &moments,
                    scheme_of,
                    convention,
                    &scheme.method,
                )
            }
        };
        let scales = scales.map_err(named())?;
        let scales = Tensor::from_iter(scales.into_iter().map(|s| s as f32), &Device::Cpu)?;
        before.divide(&scales)?;
        for input in stage.inputs.iter_mut() {
            *input = input.broadcast_div(&scales)?;
        }
        stage
            .linears
            .into_iter()
            .try_for_each(|linear| linear.multiply_inputs(&scales))
    }

    fn quantize(&mut self, stage: Stage<'_>) -> Result<()> {
        let chosen = stage
            .linears
            .into_iter()
            .filter(|linear| !linear.is_quantized());
        let chosen = chosen.filter_map(|linear| Some(((self.choose)(linear.name())?, linear)));
        let chosen: Vec<(Scheme, &mut Linear)> = chosen.collect();
        let Some((_, first)) = chosen.first() else {
            return Ok(());
        };
        let named = || Error::ptq(first.name());
        let moments = moments(stage.inputs).map_err(named())?;
        let seen = chopi_ptq::Inputs::new(&moments).map_err(named())?;
        for (scheme, linear) in chosen {
            let error = linear.quantize_on(&scheme, &seen, stage.inputs)?;
            if let Some((error, weight)) = error.zip(linear.made().cloned()) {
                self.done += 1;
                (self.watch)(&LayerReport {
                    name: linear.name().to_owned(),
                    error,
                    weight,
                    done: (self.done, self.count),
                });
            }
        }
        Ok(())
    }
}

/// The second moments of inputs.
fn moments(inputs: &[Tensor]) -> chopi_ptq::Result<Moments> {
    let channels = inputs.first().map_or(0, |x| x.dims()[1]);
    let mut moments = Moments::new(channels)?;
    inputs.iter().try_for_each(|x| moments.observe(x))?;
    Ok(moments)
}

/// What `act` makes of each input.
pub(crate) fn each(
    inputs: &[Tensor],
    act: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    inputs.iter().map(act).collect()
}

/// Adds what a linear layer makes of inputs.
pub(crate) fn add(texts: &mut [Tensor], inputs: &[Tensor], linear: &Linear) -> Result<()> {
    texts.iter_mut().zip(inputs).try_for_each(|(x, input)| {
        *x = (&*x + linear.forward(input, &mut ())?)?;
        Ok(())
    })
}
