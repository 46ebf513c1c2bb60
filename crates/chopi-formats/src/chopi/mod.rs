//! chopi's own layout: a safetensors file.
//!
//! A quantized tensor `NAME` is kept as the tensors `NAME.codes`, `NAME.scale` and, unless its zero points are all 0
//! by the scheme, `NAME.zero_point`, so that no tensor of the name `NAME` is there to be taken for floats. The page
//! `docs/formats.md` describes the layout.

mod layout;
mod record;
mod stored;

pub use layout::Chopi;
pub use record::{KEY, Record, Spec};
pub use stored::Stored;

use chopi_core::Scheme;
use chopi_core::packing::{Field, Packing};

/// The names of the parts of a tensor.
#[derive(Debug)]
pub(crate) struct Names {
    pub codes: String,
    pub scale: String,
    pub zero_point: String,
}

impl Names {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            codes: format!("{name}.codes"),
            scale: format!("{name}.scale"),
            zero_point: format!("{name}.zero_point"),
        }
    }

    /// The names of version 2.
    fn old(name: &str) -> Self {
        Self {
            codes: name.to_owned(),
            scale: format!("{name}_scale"),
            zero_point: format!("{name}_zero_point"),
        }
    }
}

/// How codes are packed: those of 2 to 7 bits that are 0..=2^b − 1 or −2^(b−1)..=2^(b−1) − 1, or some of these.
pub(crate) fn packing(scheme: &Scheme) -> Option<Packing> {
    if !(2..8).contains(&scheme.bits) {
        return None;
    }
    let field = match scheme.qmin {
        0.. => Field::Unsigned,
        _ => Field::TwosComplement,
    };
    let packing = Packing::new(scheme.bits, field).ok()?;
    let (low, high) = packing.bounds();
    (low <= scheme.qmin && scheme.qmax <= high).then_some(packing)
}
