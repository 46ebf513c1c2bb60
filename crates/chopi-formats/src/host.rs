//! Tensors in memory as a backend, for [`QParams`](chopi_core::QParams) to work on.

use chopi_core::Result;
use chopi_core::backend::{
    Backend, Fill, FloatSliceMut, FloatType, HostInts, HostOnly, IntSlice, IntTensor, Layout,
};

use crate::tensor::Plain;
use crate::with_float;

/// The backend of tensors that files hold.
pub(crate) struct Host;

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
        with_float!(calibrated, F => {
            Plain::of_floats(&fill.into_floats::<F>()?, layout.shape().to_vec())
        })
    }
}
