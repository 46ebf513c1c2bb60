//! Tensors in memory as a backend, for [`QParams`](chopi_core::QParams) to work on.

use chopi_core::Result;
use chopi_core::backend::{
    Backend, Fill, FloatSliceMut, FloatType, HostInts, HostOnly, IntSlice, IntTensor, Layout,
};

use crate::tensor::{Plain, Quantized};
use crate::with_float;

/// The backend of tensors that files hold: [`Quantized`] ones are [`IntTensor`]s of it, so that layers of
/// integers take them as they are read.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Backend for Host {
    const NAME: &'static str = "files";
}

/// Codes, row-major.
pub(crate) struct HostCodes<'a> {
    codes: IntSlice<'a>,
    shape: &'a [usize],
}

impl<'a> HostCodes<'a> {
    pub(crate) fn new(codes: IntSlice<'a>, shape: &'a [usize]) -> Self {
        Self { codes, shape }
    }
}

impl<'a> IntTensor<Host> for HostCodes<'a> {
    type Float = Plain;
    type Device = HostOnly<Plain, HostCodes<'a>>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        f(HostInts::new(self.codes, Layout::row_major(self.shape))?)
    }

    fn float_like(
        &self,
        calibrated: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Plain> {
        floats(calibrated, layout, fill)
    }
}

impl IntTensor<Host> for Quantized {
    type Float = Plain;
    type Device = HostOnly<Plain, Quantized>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        let codes = self.codes().unpacked()?;
        HostCodes::new(codes.as_slice(), self.shape()).with_host(f)
    }

    fn float_like(
        &self,
        calibrated: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Plain> {
        floats(calibrated, layout, fill)
    }
}

/// A tensor of the floats that `fill` writes.
fn floats(
    float: FloatType,
    layout: &Layout,
    fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
) -> Result<Plain> {
    with_float!(float, F => {
        Plain::of_floats(&fill.into_floats::<F>()?, layout.shape().to_vec())
    })
}
