//! The rotation of the hidden states of a decoder, fused into its weights (Ashkboos et al. 2024).

use super::{Decoder, EMBEDDING};
use crate::error::{Error, Result};
use crate::rotation::Rotation;

impl Decoder {
    /// Gives the decoder weights with which its hidden states are x·Q where they were x, and the values of attention
    /// v·R in each head, and which computes the same, but for the rounding of floats.
    ///
    /// A norm x·g/√(mean(x²) + ε) is the same of x·Q, but for its weights g. These go into the linear layers after it
    /// and become 1. With W \[outputs, inputs\] of a layer, E the embedding:
    ///
    /// ```text
    /// E ← E·Q
    /// W ← W·diag(g)·Q         for the layers after a norm, the head among them
    /// W ← Qᵀ·W,  b ← b·Q      for the projections of attention's output and down
    /// W ← Rᵀ·W,  b ← b·R      for each head of the projection to values
    /// W ← W·R                 for each head of the projection of attention's output
    /// ```
    ///
    /// The head has weights of its own then, where it had those of the embedding. Where there is no Hadamard matrix of
    /// the length of a head, values stay as they are.
    ///
    /// # Errors
    /// [`Error::Rotation`] for weights that are integers, and where there is no Hadamard matrix of the length of
    /// hidden states.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        self.check_floats()?;
        let hidden = self.config.hidden;
        let Some(rotation) = Rotation::new(hidden)? else {
            return Err(Error::Rotation {
                name: "the hidden states".to_owned(),
                reason: format!("there is no Hadamard matrix for their length, {hidden}"),
            });
        };
        let of_heads = Rotation::new(self.config.head)?;
        self.embedding.rotate(&rotation)?;
        for layer in &mut self.layers {
            layer.rotate(&rotation, of_heads.as_ref())?;
        }
        let gains = self.norm.take_gains()?;
        self.head.multiply_inputs(&gains)?;
        self.head.rotate_inputs(&rotation)?;
        self.config.tied = false;
        Ok(())
    }

    fn check_floats(&self) -> Result<()> {
        let linears = self.linears().filter(|linear| linear.is_quantized());
        let tables = self.embedding.is_quantized().then_some(EMBEDDING);
        let mut integers = linears.map(|linear| linear.name()).chain(tables);
        match integers.next() {
            None => Ok(()),
            Some(name) => Err(Error::Rotation {
                name: name.to_owned(),
                reason: "its weights are integers, expected floats".to_owned(),
            }),
        }
    }
}
