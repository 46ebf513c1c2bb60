//! The weights of a layer as a matrix, and which of them share parameters.

use chopi_core::backend::{
    Backend, Float, FloatTensor, FloatType, HostFloats, HostFloatsMut, Layout, on_host,
};
use chopi_core::{Granularity, QParams};
use chopi_kernels::memory::{collected, repeated};

use crate::error::{Error, Result};
use crate::moments::{check_finite, widened};

/// Weights in row-major order: each output has a row of one weight for each input, where the inputs lie along all
/// axes of the tensor but the first.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub values: Vec<f64>,
    pub shape: Vec<usize>,
    pub float: FloatType,
}

impl Matrix {
    /// The weights of a tensor of at least two axes, finite and at least one.
    pub fn of<B: Backend, T: FloatTensor<B> + ?Sized>(weights: &T) -> Result<Self> {
        let matrix = on_host(weights, |host| {
            Ok(Self {
                values: widened(&host)?,
                shape: host.layout().shape().to_vec(),
                float: host.float_type(),
            })
        })?;
        if matrix.shape.len() < 2 || matrix.values.is_empty() {
            return Err(Error::Shape {
                what: "the weight",
                shape: matrix.shape,
                expected: "[outputs, inputs], or more axes of inputs, none of length 0",
            });
        }
        check_finite(&matrix.values, &matrix.shape)?;
        Ok(matrix)
    }

    pub fn outputs(&self) -> usize {
        self.shape[0]
    }

    pub fn inputs(&self) -> usize {
        self.values.len() / self.shape[0]
    }

    /// Checks that what stands in the place of the weights has their shape.
    pub fn check_same_shape(&self, what: &'static str, other: &Self) -> Result<()> {
        match self.shape == other.shape {
            true => Ok(()),
            false => Err(Error::Shape {
                what,
                shape: other.shape.clone(),
                expected: "the shape of the weight",
            }),
        }
    }

    /// The values that fake-quantizing `values`, in the place of the weights, gives.
    pub fn fake_quantized(&self, values: &[f64], params: &QParams) -> Result<Vec<f64>> {
        let layout = Layout::row_major(&self.shape);
        self.with_compute_values(values, |host| fake_quantized(host, params, &layout))
    }

    /// Calls `f` with values in the place of the weights as numbers of the compute type: `f64` for weights of
    /// `f64`, else `f32`.
    pub fn with_compute_values<R>(
        &self,
        values: &[f64],
        f: impl FnOnce(HostFloats<'_>) -> Result<R>,
    ) -> Result<R> {
        let layout = Layout::row_major(&self.shape);
        match self.float {
            FloatType::F64 => f(HostFloats::new(Float::slice(values), layout)?),
            _ => {
                let values: Vec<f32> = collected(values.iter().map(|&x| x as f32))?;
                f(HostFloats::new(Float::slice(&values), layout)?)
            }
        }
    }
}

fn fake_quantized(host: HostFloats<'_>, params: &QParams, layout: &Layout) -> Result<Vec<f64>> {
    let len = host.layout().len();
    match host.float_type() {
        FloatType::F64 => {
            let mut out = repeated(0.0_f64, len)?;
            params.fake_quantize_host(host, HostFloatsMut::new(&mut out, layout.clone())?)?;
            Ok(out)
        }
        _ => {
            let mut out = repeated(0.0_f32, len)?;
            params.fake_quantize_host(host, HostFloatsMut::new(&mut out, layout.clone())?)?;
            Ok(collected(out.iter().map(|&x| x.into()))?)
        }
    }
}

/// The group of each weight: that of output o and input j has the index `by_output[o] + by_input[j]`.
#[derive(Debug)]
pub(crate) struct Groups {
    pub by_output: Vec<usize>,
    pub by_input: Vec<usize>,
}

impl Groups {
    /// The groups of a tensor of this shape, of at least two axes, which the axis of the granularity is one of.
    pub fn new(granularity: Granularity, shape: &[usize]) -> Result<Self> {
        let (axis, size) = match granularity {
            Granularity::PerTensor => (None, 1),
            Granularity::PerChannel { axis } => (Some(axis), 1),
            Granularity::PerGroup { axis, size } => (Some(axis), size),
        };
        let axis = axis.map(|axis| if axis < 0 { axis + shape.len() as isize } else { axis } as usize);
        let params = granularity.params_shape(shape)?;
        // How far apart neighbours along each axis are in the list of groups.
        let mut strides = vec![0; shape.len()];
        match granularity {
            Granularity::PerGroup { .. } => {
                let mut stride = 1;
                for position in (0..shape.len()).rev() {
                    strides[position] = stride;
                    stride *= params[position];
                }
            }
            _ => axis.into_iter().for_each(|axis| strides[axis] = 1),
        }
        let index = |position: usize, coordinate: usize| {
            let along = if axis == Some(position) {
                coordinate / size
            } else {
                coordinate
            };
            along * strides[position]
        };
        let inputs: usize = shape[1..].iter().product();
        let of_input = |mut j: usize| {
            let mut group = 0;
            for position in (1..shape.len()).rev() {
                group += index(position, j % shape[position]);
                j /= shape[position];
            }
            group
        };
        Ok(Self {
            by_output: collected((0..shape[0]).map(|o| index(0, o)))?,
            by_input: collected((0..inputs).map(of_input))?,
        })
    }
}
