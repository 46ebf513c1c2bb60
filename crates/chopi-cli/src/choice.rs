//! Which tensors of a model are quantized, and how each of them.

use std::collections::BTreeMap;
use std::path::Path;

use chopi::backend::FloatType;
use globset::GlobMatcher;

use crate::archive::{Archive, Entry};
use crate::args::Settings;
use crate::error::{Error, Result};
use crate::plan::Plan;
use crate::selection::{Chosen, Selection};

/// Which tensors are quantized, and how each of them.
#[derive(Debug)]
pub struct Choice {
    selection: Selection,
    how: How,
}

#[derive(Debug)]
enum How {
    /// All selected tensors, with the same settings.
    Alike(Settings),
    /// The selected tensors that a plan names, each with the settings for its bits.
    Planned {
        plan: Plan,
        settings: BTreeMap<u32, Settings>,
    },
}

impl Choice {
    /// All tensors that are selected, alike.
    pub fn alike(selection: Selection, settings: Settings) -> Self {
        let how = How::Alike(settings);
        Self { selection, how }
    }

    /// The tensors of a plan, of which `settings` says how they are quantized to so many bits.
    ///
    /// # Errors
    /// Bits that the convention does not have.
    pub fn planned(
        selection: Selection,
        plan: Plan,
        settings: impl Fn(u32) -> chopi::Result<Settings>,
    ) -> Result<Self> {
        let mut by_bits = BTreeMap::new();
        for (name, &bits) in &plan.bits {
            let settings = settings(bits).map_err(|error| plan.fault(name, error))?;
            by_bits.insert(bits, settings);
        }
        let settings = by_bits;
        let how = How::Planned { plan, settings };
        Ok(Self { selection, how })
    }

    /// The float type of a tensor and how it is quantized, if it is.
    pub fn of(&self, tensor: &Entry) -> Option<(FloatType, &Settings)> {
        let float = self.selection.float_type_of(tensor)?;
        Some((float, self.settings_of(&tensor.name)?))
    }

    /// What the command line and the plan say of a tensor's name.
    pub fn chosen(&self, name: &str) -> Chosen {
        match &self.how {
            How::Alike(_) => self.selection.chosen(name),
            How::Planned { plan, .. } if plan.bits.contains_key(name) => Chosen::Named,
            How::Planned { .. } => Chosen::NotPlanned,
        }
    }

    /// How a tensor of this name is quantized, if it is.
    pub fn settings_of(&self, name: &str) -> Option<&Settings> {
        match &self.how {
            How::Alike(settings) => Some(settings),
            How::Planned { plan, settings } => settings.get(plan.bits.get(name)?),
        }
    }

    /// The names of the tensors in the plan, if there is one.
    pub fn planned_names(&self) -> impl Iterator<Item = &str> {
        let plan = match &self.how {
            How::Alike(_) => None,
            How::Planned { plan, .. } => Some(plan),
        };
        plan.into_iter()
            .flat_map(|plan| plan.bits.keys().map(String::as_str))
    }

    /// The globs of `--include`.
    pub fn included(&self) -> impl Iterator<Item = &GlobMatcher> {
        self.selection.included()
    }

    /// The error for a tensor of the plan that a model does not have.
    pub fn not_there(&self, name: &str, model: &Path) -> Error {
        let reason = format!("there is no such tensor in {}", model.display());
        match &self.how {
            How::Planned { plan, .. } => plan.fault(name, reason),
            How::Alike(_) => Error::Plan {
                path: model.to_owned(),
                reason,
            },
        }
    }

    /// Whether the command line names tensors to take.
    pub fn is_explicit(&self) -> bool {
        self.selection.is_explicit()
    }

    /// The error where no tensor of a file is quantized.
    pub fn nothing<'a>(&self, path: &Path, tensors: impl Iterator<Item = &'a Entry>) -> Error {
        self.selection.nothing(path, tensors)
    }

    /// Checks that a model has all tensors of the plan, and that they can be quantized.
    ///
    /// # Errors
    /// The first one of which that is not so.
    pub fn check(&self, model: &Path, archives: &[Archive]) -> Result<()> {
        let How::Planned { plan, .. } = &self.how else {
            return Ok(());
        };
        for name in plan.bits.keys() {
            let Some(tensor) = archives.iter().find_map(|a| a.tensors.get(name)) else {
                return Err(self.not_there(name, model));
            };
            if self.of(tensor).is_none() {
                let (dtype, shape) = (tensor.dtype, &tensor.shape);
                let expected = self.selection.expected();
                let reason = format_args!("is {dtype} {shape:?}, expected {expected}");
                return Err(plan.fault(name, reason));
            }
        }
        Ok(())
    }
}
