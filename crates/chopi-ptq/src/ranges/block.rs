//! Some outputs of a weight, whose groups are searched side by side.

use std::ops::Range;

use chopi_core::backend::{Compute, Float, FloatType, HostFloats, HostFloatsMut, Layout};
use chopi_core::observer::Ranges;
use chopi_core::{Convention, Granularity, QParams, Scheme, Symmetry};
use chopi_kernels::memory::{collected, repeated, with_room};

use crate::error::Result;
use crate::matrix::{Groups, Matrix};
use crate::parallel::try_map;

/// About how many weights a block has: few enough for a cache.
const WEIGHTS: usize = 1 << 14;
/// Independent sums, so that the processor need not wait for one addition to begin the next.
const LANES: usize = 4;

/// The weights of some outputs and the groups that they fall into, with no group in two blocks.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// The weights, in row-major order.
    pub weights: &'a [f64],
    /// The smallest and the largest weight of each group.
    pub min: &'a [f64],
    pub max: &'a [f64],
    pub groups: Groups,
    pub scheme: &'a Scheme,
    pub convention: &'a Convention,
    granularity: Granularity,
    shape: Vec<usize>,
    float: FloatType,
}

impl<'a> Block<'a> {
    /// The ranges of all groups of a weight, by `choose`, which gives the ends of the groups of a block.
    pub fn ranges_of_all(
        weights: &'a Matrix,
        observed: &'a Ranges,
        scheme: &'a Scheme,
        convention: &'a Convention,
        choose: impl Fn(&Block<'_>) -> Result<Vec<(f64, f64)>> + Sync,
    ) -> Result<Ranges> {
        // Where the convention has no parameters for what was observed, there is nothing to choose from.
        QParams::from_ranges(observed, scheme, convention)?;
        let granularity = observed.granularity();
        let outputs = weights.outputs();
        let in_rows = match granularity {
            Granularity::PerTensor => false,
            Granularity::PerChannel { axis } => is_first(axis, weights.shape.len()),
            Granularity::PerGroup { axis, .. } => !is_first(axis, weights.shape.len()),
        };
        let rows = if in_rows {
            (WEIGHTS / weights.inputs()).max(1)
        } else {
            outputs
        };
        let per_output = observed.min().len() / outputs;
        let starts: Vec<usize> = (0..outputs).step_by(rows).collect();
        let parts = try_map(starts.into_iter(), |first| {
            let part = first..outputs.min(first + rows);
            let groups = match in_rows {
                true => first * per_output..part.end * per_output,
                false => 0..observed.min().len(),
            };
            let block = Self::new(weights, observed, part, groups, (scheme, convention))?;
            choose(&block)
        })?;
        let (mut min, mut max) = (
            with_room(observed.min().len())?,
            with_room(observed.min().len())?,
        );
        for (low, high) in parts.into_iter().flatten() {
            min.push(low);
            max.push(high);
        }
        Ok(Ranges::from_ends(
            granularity,
            weights.float,
            &weights.shape,
            min,
            max,
        )?)
    }

    fn new(
        matrix: &'a Matrix,
        observed: &'a Ranges,
        outputs: Range<usize>,
        groups: Range<usize>,
        (scheme, convention): (&'a Scheme, &'a Convention),
    ) -> Result<Self> {
        let granularity = observed.granularity();
        let mut shape = matrix.shape.clone();
        shape[0] = outputs.len();
        let inputs = matrix.inputs();
        Ok(Self {
            weights: &matrix.values[outputs.start * inputs..outputs.end * inputs],
            min: &observed.min()[groups.clone()],
            max: &observed.max()[groups],
            groups: Groups::new(granularity, &shape)?,
            scheme,
            convention,
            granularity,
            shape,
            float: matrix.float,
        })
    }

    pub fn is_symmetric(&self) -> bool {
        self.scheme.symmetry == Symmetry::Symmetric
    }

    /// The sum over each group of `cost(weight, value, input)` of its weights and the values that they have under
    /// the parameters of these ends; `None` where the convention has none for them.
    pub fn costs(
        &self,
        ends: &[(f64, f64)],
        cost: impl Fn(f64, f64, usize) -> f64,
    ) -> Result<Option<Vec<f64>>> {
        let (min, max) = (
            collected(ends.iter().map(|e| e.0))?,
            collected(ends.iter().map(|e| e.1))?,
        );
        let params = Ranges::from_ends(self.granularity, self.float, &self.shape, min, max)
            .and_then(|ranges| QParams::from_ranges(&ranges, self.scheme, self.convention));
        let params = match params {
            Ok(params) => params,
            Err(error @ chopi_core::Error::Memory { .. }) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        match self.float {
            FloatType::F64 => self.costs_in::<f64>(&params, cost),
            _ => self.costs_in::<f32>(&params, cost),
        }
        .map(Some)
    }

    fn costs_in<F: Float>(
        &self,
        params: &QParams,
        cost: impl Fn(f64, f64, usize) -> f64,
    ) -> Result<Vec<f64>> {
        let layout = Layout::row_major(&self.shape);
        let narrowed = self
            .weights
            .iter()
            .map(|&w| F::narrow(F::Compute::from_f64(w)));
        let weights: Vec<F> = collected(narrowed)?;
        let mut values = repeated(weights[0], weights.len())?;
        let out = HostFloatsMut::new(&mut values, layout.clone())?;
        params.fake_quantize_host(HostFloats::new(F::slice(&weights), layout)?, out)?;
        let mut costs = repeated(0.0, self.min.len())?;
        let by_input = &self.groups.by_input;
        let inputs = by_input.len();
        for ((row, values), first) in (self.weights.chunks_exact(inputs))
            .zip(values.chunks_exact(inputs))
            .zip(&self.groups.by_output)
        {
            let mut start = 0;
            for run in by_input.chunk_by(|a, b| a == b) {
                let end = start + run.len();
                let mut sums = [0.0; LANES];
                for (i, (w, v)) in row[start..end].iter().zip(&values[start..end]).enumerate() {
                    sums[i % LANES] += cost(*w, v.widen().as_f64(), start + i);
                }
                costs[first + run[0]] += (sums[0] + sums[1]) + (sums[2] + sums[3]);
                start = end;
            }
        }
        Ok(costs)
    }
}

fn is_first(axis: isize, rank: usize) -> bool {
    axis == 0 || axis == -(rank as isize)
}
