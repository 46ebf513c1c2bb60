//! What sees the inputs of linear layers.

use candle_core::{Result, Tensor};

/// Sees the input of each linear layer of a model, while the model runs.
///
/// Closures of the method's form implement it, and `()`, which looks at nothing.
///
/// ```
/// use candle_core::Tensor;
/// # mod chopi { pub use chopi_models as models; }
/// use chopi::models::Observe;
///
/// let mut largest = std::collections::HashMap::new();
/// let mut observer = |name: &str, input: &Tensor| {
///     let max = input.abs()?.max_all()?.to_scalar::<f32>()?;
///     let entry = largest.entry(name.to_owned()).or_insert(0_f32);
///     *entry = entry.max(max);
///     Ok(())
/// };
/// let x = Tensor::new(&[[1_f32, -2.0]], &candle_core::Device::Cpu)?;
/// observer.observe("model.layers.0.self_attn.q_proj", &x)?;
/// assert_eq!(largest["model.layers.0.self_attn.q_proj"], 2.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub trait Observe {
    /// Takes the input of a layer, \[rows, inputs\], before the layer multiplies. The layer has the name that
    /// Hugging Face gives it, as `model.layers.0.self_attn.q_proj`.
    ///
    /// # Errors
    /// An error ends the run.
    fn observe(&mut self, name: &str, input: &Tensor) -> Result<()>;
}

impl<F: FnMut(&str, &Tensor) -> Result<()>> Observe for F {
    fn observe(&mut self, name: &str, input: &Tensor) -> Result<()> {
        self(name, input)
    }
}

impl Observe for () {
    fn observe(&mut self, _: &str, _: &Tensor) -> Result<()> {
        Ok(())
    }
}
