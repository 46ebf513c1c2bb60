//! What a layer quantizes.

use crate::training::FakeQuantizer;

/// The fake-quantizers that a layer starts with: of its weights and of its input, either or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QatConfig {
    weights: Option<FakeQuantizer>,
    activations: Option<FakeQuantizer>,
}

impl QatConfig {
    /// Nothing is quantized.
    pub fn new() -> Self {
        Self::default()
    }

    /// Quantizes weights with a copy of this.
    #[must_use]
    pub fn weights(mut self, quantizer: FakeQuantizer) -> Self {
        self.weights = Some(quantizer);
        self
    }

    /// Quantizes the inputs of layers with a copy of this.
    #[must_use]
    pub fn activations(mut self, quantizer: FakeQuantizer) -> Self {
        self.activations = Some(quantizer);
        self
    }

    /// The fake-quantizer of weights.
    pub fn weight_quantizer(&self) -> Option<&FakeQuantizer> {
        self.weights.as_ref()
    }

    /// The fake-quantizer of inputs.
    pub fn activation_quantizer(&self) -> Option<&FakeQuantizer> {
        self.activations.as_ref()
    }
}
