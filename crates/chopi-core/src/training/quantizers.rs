//! All fake-quantizers of a network, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::training::FakeQuantizer;

/// The fake-quantizers of the layers of a network, each by the name of its place in it.
///
/// A handle: clones share the same fake-quantizers. Layers put theirs in when they are made; the
/// training loop switches them all at once and saves their states with the parameters.
#[derive(Clone, Debug, Default)]
pub struct Quantizers(Arc<Mutex<BTreeMap<String, SharedQuantizer>>>);

/// One fake-quantizer, shared by its layer and the [`Quantizers`] of the network.
#[derive(Clone, Debug)]
pub struct SharedQuantizer(Arc<Mutex<FakeQuantizer>>);

impl SharedQuantizer {
    /// Shares a fake-quantizer.
    pub fn new(quantizer: FakeQuantizer) -> Self {
        Self(Arc::new(Mutex::new(quantizer)))
    }

    /// The fake-quantizer, until the guard is dropped.
    pub fn lock(&self) -> MutexGuard<'_, FakeQuantizer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quantizers {
    /// A network's fake-quantizers, of which there are none yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SharedQuantizer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a fake-quantizer in.
    ///
    /// # Errors
    /// [`Error::QuantizerName`] where the name is taken.
    pub fn insert(&self, name: String, quantizer: FakeQuantizer) -> Result<SharedQuantizer> {
        let mut quantizers = self.lock();
        if quantizers.contains_key(&name) {
            let problem = "there is one of this name already";
            return Err(Error::QuantizerName { name, problem });
        }
        let shared = SharedQuantizer::new(quantizer);
        quantizers.insert(name, shared.clone());
        Ok(shared)
    }

    /// The fake-quantizer of this name.
    pub fn get(&self, name: &str) -> Option<SharedQuantizer> {
        self.lock().get(name).cloned()
    }

    /// Whether the variable of this name is the learned scale or zero point of one of them: `scale`
    /// or `zero_point` in its place.
    pub fn learns(&self, variable: &str) -> bool {
        let (place, variable) = variable.rsplit_once('.').unwrap_or(("", variable));
        matches!(variable, "scale" | "zero_point") && self.lock().contains_key(place)
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Calls `f` with each fake-quantizer and its name.
    pub fn for_each(&self, mut f: impl FnMut(&str, &mut FakeQuantizer)) {
        for (name, quantizer) in &*self.lock() {
            f(name, &mut quantizer.lock());
        }
    }

    /// [`FakeQuantizer::set_observing`] of all.
    pub fn set_observing(&self, observing: bool) {
        self.for_each(|_, quantizer| quantizer.set_observing(observing));
    }

    /// [`FakeQuantizer::set_quantizing`] of all.
    pub fn set_quantizing(&self, quantizing: bool) {
        self.for_each(|_, quantizer| quantizer.set_quantizing(quantizing));
    }

    /// [`FakeQuantizer::freeze`] of all.
    pub fn freeze(&self) {
        self.for_each(|_, quantizer| quantizer.freeze());
    }

    /// The states of all, to be saved.
    pub fn states(&self) -> BTreeMap<String, FakeQuantizer> {
        let mut states = BTreeMap::new();
        self.for_each(|name, quantizer| {
            states.insert(name.to_owned(), quantizer.clone());
        });
        states
    }

    /// Gives each fake-quantizer its saved state.
    ///
    /// # Errors
    /// [`Error::QuantizerName`] where the names are not the same; then nothing is changed.
    pub fn set_states(&self, mut states: BTreeMap<String, FakeQuantizer>) -> Result<()> {
        let quantizers = self.lock();
        let missing = quantizers.keys().find(|name| !states.contains_key(*name));
        let unknown = states.keys().find(|name| !quantizers.contains_key(*name));
        if let Some(name) = missing {
            let (name, problem) = (name.clone(), "it has no saved state");
            return Err(Error::QuantizerName { name, problem });
        }
        if let Some(name) = unknown {
            let (name, problem) = (name.clone(), "it is saved, but not in the network");
            return Err(Error::QuantizerName { name, problem });
        }
        for (name, quantizer) in &*quantizers {
            if let Some(state) = states.remove(name) {
                *quantizer.lock() = state;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Chopi;

    #[test]
    fn learned_parameters_are_known_by_the_place_of_their_quantizer() -> Result<()> {
        let quantizers = Quantizers::new();
        for place in ["fc.act", ""] {
            quantizers.insert(place.to_owned(), FakeQuantizer::new(Chopi::new(8)?))?;
        }
        let learned = ["fc.act.scale", "fc.act.zero_point", "scale"];
        assert!(learned.iter().all(|name| quantizers.learns(name)));
        let others = [
            "fc.act.weight",
            "fc.scale",
            "act.scale",
            "weight",
            "norm.scale",
        ];
        assert!(!others.iter().any(|name| quantizers.learns(name)));
        Ok(())
    }
}
