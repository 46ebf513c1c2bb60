//! Integer layers of the weights of float layers, and of layers that were trained with quantization.

use chopi_core::backend::{
    Backend, Compute, Float, FloatTensor, IntTensor, collected, match_float, repeated, with_room,
};
use chopi_core::training::Converted;
use chopi_core::{Chopi, QParams};

use crate::conv::{ConvParams, QuantizedConv};
use crate::error::{Error, Result};
use crate::{Activations, QuantizedEmbedding, QuantizedLinear};

impl QuantizedLinear {
    /// A layer of float weights of shape \[outputs, inputs\], quantized by `weights`, which takes its parameters
    /// from them where it is not calibrated: per tensor, per channel of axis 0, or in groups along axis 1.
    ///
    /// # Errors
    /// The errors of [`Chopi::quantize`] and of [`new`](Self::new).
    pub fn from_float<B: Backend, T: FloatTensor<B> + ?Sized>(
        weight: &T,
        weights: Chopi,
        activations: Activations,
    ) -> Result<Self> {
        let (codes, params) = quantized(weight, weights)?;
        Self::new(&codes, &params, activations)
    }

    /// A layer that was trained with quantization. Where its input was not quantized then, each row is, to 8
    /// bits.
    ///
    /// # Errors
    /// [`Error::NotQuantized`] where the weights were not; the errors of [`new`](Self::new).
    pub fn from_converted<B, T>(layer: &Converted<T>) -> Result<Self>
    where
        B: Backend,
        T: FloatTensor<B> + IntTensor<B>,
    {
        let (codes, params, activations) = trained(layer)?;
        Self::new(codes, params, activations)?.with_bias_of(layer.bias.as_ref())
    }

    /// The layer, which now adds a bias, a tensor of one number for each output, rounded to `f32`, if there is
    /// one.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of elements.
    pub fn with_bias_of<B: Backend, T: FloatTensor<B> + ?Sized>(
        self,
        bias: Option<&T>,
    ) -> Result<Self> {
        match bias {
            None => Ok(self),
            Some(bias) => self.with_bias(elements(bias)?),
        }
    }
}

impl QuantizedConv {
    /// A layer of float weights of shape \[M, C/groups, K_1, …\], quantized by `weights`, which takes its
    /// parameters from them where it is not calibrated: per tensor or per channel of axis 0.
    ///
    /// # Errors
    /// The errors of [`Chopi::quantize`] and of [`new`](Self::new).
    pub fn from_float<B: Backend, T: FloatTensor<B> + ?Sized>(
        weight: &T,
        weights: Chopi,
        convolution: ConvParams,
        activations: Activations,
    ) -> Result<Self> {
        let (codes, params) = quantized(weight, weights)?;
        Self::new(&codes, &params, convolution, activations)
    }

    /// A layer that was trained with quantization. Where its input was not quantized then, each image is, to 8
    /// bits.
    ///
    /// # Errors
    /// [`Error::NotQuantized`] where the weights were not; the errors of [`new`](Self::new).
    pub fn from_converted<B, T>(layer: &Converted<T>, convolution: ConvParams) -> Result<Self>
    where
        B: Backend,
        T: FloatTensor<B> + IntTensor<B>,
    {
        let (codes, params, activations) = trained(layer)?;
        let conv = Self::new(codes, params, convolution, activations)?;
        conv.with_bias_of(layer.bias.as_ref())
    }

    /// The layer, which now adds a bias, a tensor of one number for each output channel, rounded to `f32`, if
    /// there is one.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of elements.
    pub fn with_bias_of<B: Backend, T: FloatTensor<B> + ?Sized>(
        self,
        bias: Option<&T>,
    ) -> Result<Self> {
        match bias {
            None => Ok(self),
            Some(bias) => self.with_bias(elements(bias)?),
        }
    }
}

impl QuantizedEmbedding {
    /// A table of floats of shape \[rows, columns\], quantized by `codes`, which takes its parameters from it where
    /// it is not calibrated: per tensor, per channel of axis 0, or in groups along axis 1.
    ///
    /// # Errors
    /// The errors of [`Chopi::quantize`] and of [`new`](Self::new).
    pub fn from_table<B: Backend, T: FloatTensor<B> + ?Sized>(
        table: &T,
        codes: Chopi,
    ) -> Result<Self> {
        let (codes, params) = quantized(table, codes)?;
        Self::new(&codes, &params)
    }

    /// An embedding that was trained with quantization.
    ///
    /// # Errors
    /// [`Error::NotQuantized`] where the table was not; the errors of [`new`](Self::new).
    pub fn from_converted<B, T>(layer: &Converted<T>) -> Result<Self>
    where
        B: Backend,
        T: FloatTensor<B> + IntTensor<B>,
    {
        let (codes, params, _) = trained(layer)?;
        Self::new(codes, params)
    }

    /// The rows of these indices, one after the other.
    ///
    /// # Errors
    /// [`Error::Row`] for a row that is not there; [`chopi_core::Error::Memory`].
    pub fn rows_of(&self, indices: &[i64]) -> Result<Vec<f32>> {
        let mut rows = with_room(indices.len())?;
        for &row in indices {
            let number = u32::try_from(row);
            let rows_there = self.rows();
            rows.push(number.map_err(|_| Error::Row {
                row,
                rows: rows_there,
            })?);
        }
        let mut values = repeated(0.0, rows.len().saturating_mul(self.columns()))?;
        self.lookup(&rows, &mut values)?;
        Ok(values)
    }
}

/// The codes of weights, and the parameters that a quantizer has or takes from them.
fn quantized<B: Backend, T: FloatTensor<B> + ?Sized>(
    weight: &T,
    mut quantizer: Chopi,
) -> Result<(T::Int, QParams)> {
    let codes = quantizer.quantize(weight)?;
    let params = quantizer.into_params();
    Ok((codes, params.ok_or(chopi_core::Error::NotCalibrated)?))
}

/// What a trained layer multiplies with, and how its input is quantized.
fn trained<T>(layer: &Converted<T>) -> Result<(&T, &QParams, Activations)> {
    let (Some(codes), Some(weights)) = (&layer.weight_codes, &layer.weight) else {
        return Err(Error::NotQuantized);
    };
    let activations = match layer.activations.as_ref().and_then(Chopi::params) {
        Some(params) => Activations::Static(params.try_clone()?),
        None => Activations::default(),
    };
    let params = weights.params().ok_or(chopi_core::Error::NotCalibrated)?;
    Ok((codes, params, activations))
}

/// The elements of a tensor in row-major order, rounded to `f32`.
fn elements<B: Backend, T: FloatTensor<B> + ?Sized>(tensor: &T) -> Result<Vec<f32>> {
    let elements = tensor.with_host(|host| {
        match_float!(FloatSlice, host.data(), data => {
            let data = host.layout().to_row_major(data)?;
            Ok(collected(data.iter().map(|x| x.widen().as_f64() as f32))?)
        })
    });
    Ok(elements?)
}
