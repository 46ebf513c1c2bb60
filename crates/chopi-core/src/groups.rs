//! The groups of a tensor's elements, one by one.

use crate::backend::{Backend, FloatTensor, HostFloats};
use crate::device::DeviceTensor;
use crate::error::{Error, Result};
use crate::scheme::Granularity;
use chopi_kernels::FloatSlice;
use chopi_kernels::Layout;
use chopi_kernels::memory::collected;
use chopi_kernels::{Compute, Float, FloatType};
use chopi_kernels::{GroupElements, Tiles};

/// The groups of the elements of a dense tensor, in the row-major order of their parameters.
#[derive(Debug)]
pub(crate) struct Groups {
    tiles: Tiles,
    /// The index in memory order of each group.
    order: Vec<usize>,
    /// The shape of the parameters.
    pub shape: Vec<usize>,
    /// The length of the axis that is split into groups, if one is.
    pub length: Option<usize>,
}

impl Groups {
    /// # Errors
    /// [`Error::Empty`] where there is no element, [`Error::Axis`] where there is no such axis,
    /// [`Error::Memory`] where there is none for so many groups.
    pub fn new(layout: &Layout, granularity: Granularity) -> Result<Self> {
        let shape = granularity.params_shape(layout.shape())?;
        if layout.is_empty() {
            let shape = layout.shape().to_vec();
            return Err(Error::Empty { shape });
        }
        let tiles = granularity.tiles(layout)?;
        Ok(Self {
            order: tiles.into_row_major(collected(0..tiles.groups())?)?,
            tiles,
            shape,
            length: granularity.grouped_length(layout.shape()),
        })
    }

    /// The number of groups.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Where the elements of each group lie.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = GroupElements> {
        self.order.iter().map(|&group| self.tiles.group(group))
    }
}

/// Calls `f` with a tensor's elements: where they lie in host memory, or else copied from their
/// device.
///
/// # Errors
/// The error that `f` returns; [`Error::Framework`] where the framework fails; [`Error::Memory`] where there is no
/// memory for a copy.
pub fn on_host<B: Backend, T: FloatTensor<B> + ?Sized, R>(
    tensor: &T,
    f: impl FnOnce(HostFloats<'_>) -> Result<R>,
) -> Result<R> {
    let Some(device) = tensor.on_device() else {
        return tensor.with_host(f);
    };
    let (values, float) = (device.to_host()?, device.float_type()?);
    let layout = Layout::row_major(&device.shape());
    /// The numbers of this type that these equal.
    fn narrowed<F: Float>(values: &[f64]) -> Result<Vec<F>> {
        let narrow = |&x: &f64| F::narrow(F::Compute::from_f64(x));
        Ok(collected(values.iter().map(narrow))?)
    }
    let (f16s, bf16s, f32s);
    let data = match float {
        FloatType::F16 => {
            f16s = narrowed(&values)?;
            FloatSlice::F16(&f16s)
        }
        FloatType::BF16 => {
            bf16s = narrowed(&values)?;
            FloatSlice::BF16(&bf16s)
        }
        FloatType::F32 => {
            f32s = narrowed(&values)?;
            FloatSlice::F32(&f32s)
        }
        FloatType::F64 => FloatSlice::F64(&values),
    };
    f(HostFloats::new(data, layout)?)
}
