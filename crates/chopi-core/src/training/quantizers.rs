//! All fake-quantizers of a network, by name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::{Backend, FloatTensor};
use crate::error::{Error, Result};
use crate::qparams::QParams;
use crate::training::fake_quantizer::{Seen, Wanted};
use crate::training::{FakeQuantizer, Phase};

/// The fake-quantizers of the layers of a network, each by the name of its place in it.
///
/// A handle: clones share the same fake-quantizers. Layers put theirs in when they are made; the
/// training loop switches them all at once and saves their states with the parameters.
#[derive(Clone, Debug, Default)]
pub struct Quantizers(Arc<Mutex<BTreeMap<String, SharedQuantizer>>>);

/// One fake-quantizer, shared by its layer and the [`Quantizers`] of the network.
///
/// Threads may share it: it is locked for as long as its state is read or changed, and never while a
/// tensor is looked at.
#[derive(Clone, Debug)]
pub struct SharedQuantizer(Arc<Mutex<FakeQuantizer>>);

impl SharedQuantizer {
    /// Shares a fake-quantizer.
    pub fn new(quantizer: FakeQuantizer) -> Self {
        Self(Arc::new(Mutex::new(quantizer)))
    }

    /// For code that neither waits nor calls what its caller has given it.
    fn lock(&self) -> MutexGuard<'_, FakeQuantizer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fake-quantizer as it is now.
    pub fn state(&self) -> FakeQuantizer {
        self.lock().clone()
    }

    /// Puts another fake-quantizer in the place of this one.
    pub fn set_state(&self, state: FakeQuantizer) {
        *self.lock() = state;
    }

    /// [`FakeQuantizer::step`].
    ///
    /// # Errors
    /// The errors of [`FakeQuantizer::step`].
    pub fn step<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        x: &T,
        phase: Phase,
    ) -> Result<Option<QParams>> {
        loop {
            let wanted = self.lock().wanted(x.rank(), phase);
            let seen = wanted.see(x)?;
            let mut quantizer = self.lock();
            // Another thread may have changed it meanwhile.
            if quantizer.wanted(x.rank(), phase) == wanted {
                return quantizer.take_in(seen, phase, QParams::try_clone);
            }
        }
    }

    /// The parameters that learning starts with on this tensor, where [`step`](Self::step) would start
    /// it.
    ///
    /// A layer sets its variables to these, and then calls [`start`](Self::start): so nobody sees parameters
    /// that are not in the variables yet.
    pub(super) fn initial<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        x: &T,
        phase: Phase,
    ) -> Result<Option<QParams>> {
        let wanted = self.lock().wanted(x.rank(), phase);
        match wanted {
            Wanted::Initial(..) => match wanted.see(x)? {
                Seen::Initial(params) => Ok(Some(params)),
                Seen::Nothing | Seen::Ranges(_) => Ok(None),
            },
            Wanted::Nothing | Wanted::Ranges(_) => Ok(None),
        }
    }

    /// Starts learning with what [`initial`](Self::initial) gave, unless it has started already.
    pub(super) fn start(&self, initial: QParams) -> Result<()> {
        self.lock().start(initial)
    }

    /// [`FakeQuantizer::set_observing`].
    pub fn set_observing(&self, observing: bool) {
        self.lock().set_observing(observing);
    }

    /// [`FakeQuantizer::set_quantizing`].
    pub fn set_quantizing(&self, quantizing: bool) {
        self.lock().set_quantizing(quantizing);
    }

    /// [`FakeQuantizer::freeze`].
    pub fn freeze(&self) {
        self.lock().freeze();
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

    /// The names of the variables of learned scales and zero points: `scale` and `zero_point` in the places
    /// of the fake-quantizers that learn.
    pub fn learned_variables(&self) -> Vec<String> {
        let quantizers = self.lock();
        let learned = quantizers.iter().filter_map(|(name, quantizer)| {
            let learned = quantizer.lock().learned().is_some();
            learned.then(|| {
                ["scale", "zero_point"].map(|of| match name.as_str() {
                    "" => of.to_owned(),
                    name => format!("{name}.{of}"),
                })
            })
        });
        learned.flatten().collect()
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

    /// Calls `f` with the name of each fake-quantizer that there is now, and the fake-quantizer.
    pub fn for_each(&self, mut f: impl FnMut(&str, &SharedQuantizer)) {
        // Not under the lock, which `f` may need.
        let quantizers = self.lock().clone();
        for (name, quantizer) in &quantizers {
            f(name, quantizer);
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
            states.insert(name.to_owned(), quantizer.state());
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
                quantizer.set_state(state);
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
