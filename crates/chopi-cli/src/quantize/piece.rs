//! A piece of a tensor.

use chopi::{Chopi, Error, FloatTensor, IntSlice, IntTensor, Metrics, QParams, Result};

use crate::element::FloatElement;
use crate::framework::Framework;

/// Quantizes a piece, hands its codes to `write`, and adds what dequantizing gives to the metrics.
///
/// # Errors
/// Those of `write`; what is wrong with the elements.
pub fn quantize<K: Framework, F: FloatElement>(
    data: &[F],
    shape: &[usize],
    params: QParams,
    metrics: &mut Metrics,
    write: impl FnOnce(IntSlice<'_>) -> Result<()>,
) -> Result<()> {
    let x = K::floats(data, shape)?;
    let mut chopi = Chopi::from_params(params);
    let codes = chopi.quantize(&x)?;
    codes.with_host(|host| write(host.data))?;
    chopi.dequantize(&codes)?.with_host(|host| {
        let quantized = F::from_slice(host.data).ok_or_else(|| Error::Dtype {
            backend: K::NAME,
            dtype: host.data.float_type().to_string(),
            expected: "the dtype of the tensor itself",
        })?;
        metrics.add(data, quantized);
        Ok(())
    })
}
