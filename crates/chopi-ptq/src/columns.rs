//! The weights of one input channel after the other, with the parameters that they have.

use std::ops::Range;

use chopi_core::backend::{Compute, Float, HostFloats, HostFloatsMut, Layout};
use chopi_core::{Convention, Granularity, QParams, Scheme, SchemeFields};
use chopi_kernels::memory::{collected, repeated, with_room};

use crate::error::Result;
use crate::matrix::{Groups, Matrix};

/// Some outputs of a weight, of which the weights of one input channel at a time are quantized, as `F`.
pub(crate) struct Columns<F> {
    /// Each for as many weights as there are outputs, a tensor of shape \[1, outputs\].
    params: Vec<QParams>,
    /// Which of them are those of an input.
    of_input: Vec<usize>,
    layout: Layout,
    /// The numbers of one channel, and their values once they are quantized.
    x: Vec<F>,
    values: Vec<F>,
}

impl<F: Float> Columns<F> {
    /// The columns of these outputs.
    pub fn new(weights: &Matrix, params: &QParams, outputs: Range<usize>) -> Result<Self> {
        let (scheme, convention) = (params.scheme(), params.convention());
        let shape = &weights.shape;
        let granularity = convention.granularity_for(scheme.granularity, shape.len());
        let groups = Groups::new(granularity, shape)?;
        let mut distinct = groups.by_input.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let of_input = groups
            .by_input
            .iter()
            .map(|b| distinct.partition_point(|d| d < b));
        let of_input = collected(of_input)?;
        let count = outputs.len();
        let by_output = &groups.by_output[outputs];
        let gathered = distinct
            .iter()
            .map(|b| gathered(params, scheme, convention, granularity, by_output, *b));
        let zero = F::narrow(F::Compute::from_f64(0.0));
        Ok(Self {
            params: gathered.collect::<Result<_>>()?,
            of_input,
            layout: Layout::row_major(&[1, count]),
            x: repeated(zero, count)?,
            values: repeated(zero, count)?,
        })
    }

    /// Rounds numbers in the place of the weights of an input channel to the compute type, and gives these and the
    /// values that quantizing them leaves.
    pub fn quantize<'s>(
        &'s mut self,
        channel: usize,
        numbers: &[f64],
    ) -> Result<impl Iterator<Item = (f64, f64)> + use<'s, F>> {
        for (x, number) in self.x.iter_mut().zip(numbers) {
            *x = F::narrow(F::Compute::from_f64(*number));
        }
        let host = HostFloats::new(F::slice(&self.x), self.layout.clone())?;
        let out = HostFloatsMut::new(&mut self.values, self.layout.clone())?;
        self.params[self.of_input[channel]].fake_quantize_host(host, out)?;
        let wide = |x: &F| x.widen().as_f64();
        Ok(self.x.iter().map(wide).zip(self.values.iter().map(wide)))
    }
}

/// The parameters of groups `by_output[o] + b` as those of a tensor of shape \[1, outputs\], under the convention and
/// with the kind of granularity that they have in the weight: conventions have other formulas per
/// tensor than per channel.
fn gathered(
    params: &QParams,
    scheme: &Scheme,
    convention: &Convention,
    granularity: Granularity,
    by_output: &[usize],
    b: usize,
) -> Result<QParams> {
    let (granularity, shape) = match granularity {
        Granularity::PerTensor => return Ok(params.part(vec![1], 0..1)?),
        Granularity::PerChannel { .. } => {
            (Granularity::PerChannel { axis: 1 }, vec![by_output.len()])
        }
        Granularity::PerGroup { .. } => (
            Granularity::PerGroup { axis: 0, size: 1 },
            vec![1, by_output.len()],
        ),
    };
    let scheme = Scheme::new(SchemeFields {
        granularity,
        ..**scheme
    })?;
    let scale = by_output.iter().map(|a| params.scale()[a + b]);
    let (scale, float) = (collected(scale)?, params.float_type());
    Ok(match params.real_zero_point() {
        Some(zeros) => {
            let zeros = collected(by_output.iter().map(|a| zeros[a + b]))?;
            QParams::with_real_zero_points(scheme, *convention, float, shape, scale, zeros)?
        }
        None => {
            let zeros = collected(by_output.iter().map(|a| params.zero_point()[a + b]))?;
            QParams::new(scheme, *convention, float, shape, scale, zeros)?
        }
    })
}

/// Some outputs' numbers, one channel after the other in this order.
pub(crate) fn by_channel(all: &[f64], order: &[usize], outputs: &Range<usize>) -> Result<Vec<f64>> {
    let n = order.len();
    let part = &all[outputs.start * n..outputs.end * n];
    let mut numbers = with_room(part.len())?;
    for &channel in order {
        numbers.extend(part.chunks_exact(n).map(|row| row[channel]));
    }
    Ok(numbers)
}
