//! Observers at the named points of a forward pass.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::named;
use crate::backend::{Backend, FloatTensor};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::observer::Observer;
use crate::qparams::QParams;

/// Observes activations at points that a model's forward pass names.
///
/// The model calls [`observe`](Self::observe) with a name and a tensor wherever something is to be
/// quantized later. A name that was not seen before gets an observer like the one that the points were
/// made with, or one of its own. Afterwards there are parameters for each name.
///
/// A handle, which threads may share: clones have the same observers. Several batches may be observed
/// at once; as observers merge to the same bits in any order, so do the points. Switched off, a call
/// reads one flag. With the feature `serde` they can be saved and go on later.
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::model::ObservationPoints;
/// use chopi::{Calibration, Chopi, Convention, Observer};
///
/// let scheme = Chopi::builder().num_bits(8).scheme()?;
/// let observer = Observer::new(scheme, Convention::CHOPI, Calibration::Percentile(99.99))?;
/// let points = ObservationPoints::new(&observer);
/// // In the model: points.observe("encoder.0.input", &x)?;
/// for (name, params) in points.params()? {
///     println!("{name}: scale {:?}", params.scale());
/// }
/// points.set_observing(false);
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Saved", into = "Saved"))]
pub struct ObservationPoints(Arc<Points>);

#[derive(Debug)]
struct Points {
    observing: AtomicBool,
    /// What a new name starts with.
    observer: Observer,
    observers: Mutex<BTreeMap<String, Observer>>,
}

/// Points as they are saved.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Saved {
    observing: bool,
    observer: Observer,
    points: BTreeMap<String, Observer>,
}

#[cfg(feature = "serde")]
impl From<ObservationPoints> for Saved {
    fn from(points: ObservationPoints) -> Self {
        Self {
            observing: points.is_observing(),
            observer: points.0.observer.clone(),
            points: points.observers(),
        }
    }
}

#[cfg(feature = "serde")]
impl From<Saved> for ObservationPoints {
    fn from(saved: Saved) -> Self {
        let points = Self::new(&saved.observer);
        for (name, observer) in saved.points {
            points.set_observer(&name, observer);
        }
        points.set_observing(saved.observing);
        points
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ObservationPoints {
    /// No points yet, switched on; each one starts with such an observer, which has seen nothing.
    pub fn new(observer: &Observer) -> Self {
        Self(Arc::new(Points {
            observing: AtomicBool::new(true),
            observer: observer.without_data(),
            observers: Mutex::default(),
        }))
    }

    /// Gives a name an observer of its own, in the place of the one that it has.
    pub fn set_observer(&self, name: &str, observer: Observer) {
        lock(&self.0.observers).insert(name.to_owned(), observer);
    }

    /// Switches all points on or off.
    pub fn set_observing(&self, observing: bool) {
        self.0.observing.store(observing, Ordering::Relaxed);
    }

    /// Whether the points are switched on.
    pub fn is_observing(&self) -> bool {
        self.0.observing.load(Ordering::Relaxed)
    }

    /// Takes in a tensor at the point of this name; does nothing where the points are switched off.
    ///
    /// # Errors
    /// [`Error::Tensor`] with the name and an error of [`Observer::observe`].
    #[inline]
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        name: &str,
        tensor: &T,
    ) -> Result<()> {
        match self.is_observing() {
            true => self.observe_always(name, tensor),
            false => Ok(()),
        }
    }

    fn observe_always<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        name: &str,
        tensor: &T,
    ) -> Result<()> {
        // Alone with the tensor, so that other threads observe theirs meanwhile.
        let mut new = match lock(&self.0.observers).get(name) {
            Some(observer) => observer.without_data(),
            None => self.0.observer.clone(),
        };
        named(name, new.observe(tensor))?;
        match lock(&self.0.observers).entry(name.to_owned()) {
            Entry::Occupied(mut observer) => named(name, observer.get_mut().merge(&new)),
            Entry::Vacant(place) => {
                place.insert(new);
                Ok(())
            }
        }
    }

    /// Takes in what other points have seen, name by name. Names that are new come with their
    /// observers.
    ///
    /// # Errors
    /// [`Error::Tensor`] with the name and an error of [`Observer::merge`]; then nothing is changed.
    pub fn merge(&self, other: &Self) -> Result<()> {
        let mut theirs = other.observers();
        let mut ours = lock(&self.0.observers);
        for (name, theirs) in &mut theirs {
            if let Some(ours) = ours.get(name) {
                named(name, theirs.merge(ours))?;
            }
        }
        ours.append(&mut theirs);
        Ok(())
    }

    /// What was observed, by name.
    pub fn observers(&self) -> BTreeMap<String, Observer> {
        lock(&self.0.observers).clone()
    }

    /// The parameters of each name.
    ///
    /// # Errors
    /// [`Error::Tensor`] with the name and an error of [`Observer::params`], such as
    /// [`Error::NotCalibrated`] for an observer that has seen nothing.
    pub fn params(&self) -> Result<BTreeMap<String, QParams>> {
        let observers = self.observers().into_iter();
        observers
            .map(|(name, observer)| {
                let params = named(&name, observer.params())?;
                Ok((name, params))
            })
            .collect()
    }
}
