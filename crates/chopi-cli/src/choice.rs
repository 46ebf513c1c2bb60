//! Which tensors of a model are quantized, and how each of them.

use std::collections::BTreeMap;
use std::path::Path;

use chopi::backend::FloatType;

use crate::archive::{Archive, Tensor};
use crate::args::Settings;
use crate::error::Result;
use crate::plan::Plan;
use crate::selection::Selection;

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

/// Tensors that are quantized alike.
#[derive(Debug)]
pub struct Group<'a> {
    pub settings: &'a Settings,
    /// The names of the tensors, where a plan has them.
    pub names: Option<Vec<&'a str>>,
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
    pub fn of(&self, tensor: &Tensor<'_>) -> Option<(FloatType, &Settings)> {
        let float = self.selection.float_type_of(tensor)?;
        let settings = match &self.how {
            How::Alike(settings) => settings,
            How::Planned { plan, settings } => settings.get(plan.bits.get(&tensor.name)?)?,
        };
        Some((float, settings))
    }

    /// Whether the command line names tensors to take.
    pub fn is_explicit(&self) -> bool {
        self.selection.is_explicit()
    }

    /// Checks that a model has all tensors of the plan, and that they can be quantized.
    ///
    /// # Errors
    /// The first one of which that is not so.
    pub fn check(&self, model: &Path, archives: &[Archive<'_>]) -> Result<()> {
        let How::Planned { plan, .. } = &self.how else {
            return Ok(());
        };
        for name in plan.bits.keys() {
            let Some(tensor) = archives.iter().find_map(|a| a.tensors.get(name)) else {
                let model = model.display();
                return Err(plan.fault(name, format_args!("there is no such tensor in {model}")));
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

    /// The groups of tensors that are quantized alike, those of few bits first.
    pub fn groups(&self) -> Vec<Group<'_>> {
        match &self.how {
            How::Alike(settings) => vec![Group {
                settings,
                names: None,
            }],
            How::Planned { plan, settings } => {
                let group = |(bits, settings)| {
                    let names = plan.bits.iter().filter(|(_, of)| *of == bits);
                    let names = Some(names.map(|(name, _)| &**name).collect());
                    Group { settings, names }
                };
                settings.iter().map(group).collect()
            }
        }
    }
}
