//! Tensors in memory, as they are read from files and written to them.

use std::borrow::Cow;

use chopi_core::QParams;
use chopi_core::backend::{
    Backend, Float, FloatTensor, FloatType, HostFloats, IntTensor, copied, match_float,
};
use safetensors::Dtype;

use crate::codes::{Codes, Ints};
use crate::dtype::float_dtype;
use crate::element::bytes;
use crate::error::Fault;
use crate::gguf::Blocks;

/// A tensor of a model, in memory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Tensor {
    /// Elements that are not quantized: floats, or integers such as positions.
    Plain(Plain),
    /// Codes with their parameters.
    Quantized(Box<Quantized>),
    /// Blocks of a GGUF file.
    Blocks(Blocks),
}

/// A tensor whose elements are as they are: row-major and little-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plain {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

/// The codes q of a tensor and the parameters that give its values: x̂ = (q − z)·s.
#[derive(Clone, Debug)]
pub struct Quantized {
    shape: Vec<usize>,
    params: QParams,
    codes: Codes,
}

impl Tensor {
    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Plain(plain) => plain.shape(),
            Self::Quantized(quantized) => quantized.shape(),
            Self::Blocks(blocks) => blocks.shape(),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Plain(_) => "plain elements",
            Self::Quantized(_) => "codes",
            Self::Blocks(_) => "blocks",
        }
    }

    /// The values: a plain tensor is given back as it is, codes and
    /// blocks are [dequantized](Quantized::dequantize).
    ///
    /// # Errors
    /// A code outside of the range of its scheme.
    pub fn dequantize(self) -> Result<Plain, Fault> {
        match self {
            Self::Plain(plain) => Ok(plain),
            Self::Quantized(quantized) => Ok(quantized.dequantize()?),
            Self::Blocks(blocks) => Ok(blocks.dequantize()?),
        }
    }
}

impl Plain {
    /// A tensor of these bytes: its elements, row-major and little-endian.
    ///
    /// # Errors
    /// [`Fault::Bytes`] where there are not as many bytes as the dtype and the shape ask for.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, Fault> {
        match byte_len(dtype, &shape) == Some(bytes.len()) {
            true => Ok(Self {
                dtype,
                shape,
                bytes,
            }),
            false => Err(Fault::Bytes {
                bytes: bytes.len(),
                dtype,
                shape,
            }),
        }
    }

    /// The elements of a float tensor of any framework.
    ///
    /// # Errors
    /// [`chopi_core::Error::Framework`] where the framework fails; [`chopi_core::Error::Dtype`] for a dtype that chopi
    /// does not quantize.
    pub fn of<B: Backend, T: FloatTensor<B> + ?Sized>(x: &T) -> chopi_core::Result<Self> {
        x.with_host(|host: HostFloats<'_>| {
            let shape = host.layout().shape().to_vec();
            match_float!(FloatSlice, host.data(), data => {
                Self::of_floats(&host.layout().to_row_major(data)?, shape)
            })
        })
    }

    pub(crate) fn of_floats<F: Float + crate::element::Element>(
        data: &[F],
        shape: Vec<usize>,
    ) -> chopi_core::Result<Self> {
        Ok(Self {
            dtype: float_dtype(F::TYPE),
            shape,
            bytes: match bytes(data) {
                Cow::Borrowed(bytes) => copied(bytes)?,
                Cow::Owned(bytes) => bytes,
            },
        })
    }

    /// The type of the elements.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The type of the elements, where they are floats that chopi quantizes.
    pub fn float_type(&self) -> Option<FloatType> {
        crate::dtype::float_type(self.dtype)
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major and little-endian.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements, row-major and little-endian.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The elements as numbers of a type as wide as theirs: borrowed where the machine can read them where
    /// they lie. `None` where the width is another one.
    pub fn elements<T: crate::element::Element>(&self) -> Option<Cow<'_, [T]>> {
        let wide = self.dtype.bitsize() == 8 * size_of::<T>();
        wide.then(|| crate::element::elements(&self.bytes))
    }
}

/// The bytes of a tensor, where a `usize` can count them.
pub(crate) fn byte_len(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let mut lens = shape.iter();
    let count = lens.try_fold(1_usize, |n, &len| n.checked_mul(len))?;
    let bits = count.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

impl Quantized {
    /// The codes of a tensor of any framework with their parameters, as
    /// [`QParams::quantize`] has computed them.
    ///
    /// # Errors
    /// [`chopi_core::Error::Framework`] where the framework fails; [`chopi_core::Error::ParamsShape`] where the parameters are for another shape.
    pub fn of<B: Backend, Q: IntTensor<B> + ?Sized>(
        params: QParams,
        q: &Q,
    ) -> chopi_core::Result<Self> {
        q.with_host(|host| {
            let layout = host.layout();
            let codes = Ints::row_major(host.data(), layout, params.int_type())?;
            Self::new(layout.shape().to_vec(), params, Codes::Ints(codes))
        })
    }

    /// Codes, row-major, with the parameters of a tensor of this shape.
    ///
    /// # Errors
    /// [`chopi_core::Error::Elements`] where there are not as many codes as the shape asks for,
    /// [`chopi_core::Error::ParamsShape`] where the parameters are for another shape.
    pub fn new(shape: Vec<usize>, params: QParams, codes: Codes) -> chopi_core::Result<Self> {
        codes.check(&shape)?;
        let convention = params.convention();
        let granularity = convention.granularity_for(params.scheme().granularity, shape.len());
        let expected = granularity.params_shape(&shape)?;
        match expected == params.shape() {
            true => Ok(Self {
                shape,
                params,
                codes,
            }),
            false => Err(chopi_core::Error::ParamsShape {
                params: params.shape().to_vec(),
                expected,
                shape,
            }),
        }
    }

    /// The lengths of the axes of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The scales and the zero points, with the scheme, the convention and the original float type.
    pub fn params(&self) -> &QParams {
        &self.params
    }

    /// The codes, row-major.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// The parameters and the codes.
    pub fn into_parts(self) -> (QParams, Codes) {
        (self.params, self.codes)
    }

    /// The values x̂ = (q − z)·s in the original float type, to the bit as [`QParams::dequantize`] computes them.
    ///
    /// # Errors
    /// [`chopi_core::Error::Code`] for a code outside of the range of the scheme.
    pub fn dequantize(&self) -> chopi_core::Result<Plain> {
        self.params.dequantize(self)
    }
}
