//! A piece of a tensor.

use chopi::{
    Error, QParams, Result,
    backend::{FloatTensor, IntSlice, IntTensor},
    metrics::Metrics,
};

use crate::element::FloatElement;
use crate::framework::Framework;

/// Quantizes a piece, hands its codes to `write`, and adds what dequantizing gives to the metrics.
///
/// # Errors
/// The errors of `write`; what is wrong with the elements.
pub fn quantize<K: Framework, F: FloatElement>(
    data: &[F],
    shape: &[usize],
    params: &QParams,
    metrics: &mut Metrics,
    write: impl FnOnce(IntSlice<'_>) -> Result<()>,
) -> Result<()> {
    let codes = params.quantize(&K::floats(data, shape)?)?;
    keep::<K, F, _>(data, &codes, params, metrics, write)
}

/// Hands the codes of a piece to `write`, and adds what dequantizing gives to the metrics.
///
/// # Errors
/// The errors of `write`; what is wrong with the codes.
pub fn keep<K: Framework, F: FloatElement, Q: IntTensor<K, Float: FloatTensor<K>>>(
    data: &[F],
    codes: &Q,
    params: &QParams,
    metrics: &mut Metrics,
    write: impl FnOnce(IntSlice<'_>) -> Result<()>,
) -> Result<()> {
    codes.with_host(|host| write(host.data()))?;
    params.dequantize(codes)?.with_host(|host| {
        let quantized = F::from_slice(host.data()).ok_or_else(|| Error::Dtype {
            backend: K::NAME,
            dtype: host.data().float_type().to_string(),
            expected: "the dtype of the tensor itself",
        })?;
        metrics.add(data, quantized);
        Ok(())
    })
}
