//! Second moments of what a linear layer takes.

mod file;
mod fixed;
mod patches;

use std::fmt;

use chopi_core::backend::{
    Backend, Compute, Float, FloatTensor, HostFloats, Layout, match_float, on_host,
};
use chopi_kernels::memory::{copied, repeated, with_room};
use faer::Mat;

pub use file::{Statistics, StatisticsFile};
pub use patches::Patches;

use crate::error::{Error, Result};
use fixed::{POINT, Piece, ROWS, offset, power_of_two};

/// The most that the square of a channel's largest value times the number of rows may be.
const LIMIT: f64 = (1_u64 << 62) as f64;

/// The second moments H = Σ xᵀx / rows of the inputs of a linear layer, with the mean, the mean of |x| and the
/// largest |x| of each input channel: all that the methods of this crate know of the data.
///
/// They are collected batch by batch, of tensors of any framework, in memory that does not grow:
/// 8·n·(n + 1) bytes for n channels. Moments merge, and the result has the same bits in whatever order batches
/// are observed and moments merged, on every CPU, with any number of threads, and for equal values of any
/// framework.
///
/// # Definition
///
/// 1. A tensor has its rows along all axes but the last, in row-major order. They are taken in pieces of 2^11
///    rows, the last one shorter.
/// 2. In a piece, channel j has an exponent e_j: the least integer, at least −64, with |x| < 2^e_j for every value
///    x of the channel.
/// 3. Each value becomes the integer m = RNE(x·2^(21 − e_j)) (to nearest, ties to even), |m| ≤ 2^21. So the
///    values are known to 2^−22 of the largest one of the channel in the piece.
/// 4. M_ij = Σ m_i·m_j over the rows of the piece is exact in `f64`, in any order, since no partial sum exceeds
///    2^53. So are Σ m and Σ |m|.
/// 5. M_ij·2^(e_i + e_j − 42), Σ m·2^(e_j − 21) and Σ |m|·2^(e_j − 21) are each rounded once, to the nearest multiple
///    of 2^−64, ties to even, and added to 128-bit integers that count these multiples. These sums are
///    exact, so their order does not matter.
///
/// What does matter is which rows are observed together, as they share exponents: by less than the rounding of
/// step 3.
///
/// ```
/// # mod chopi { pub use chopi_ptq as ptq; }
/// use chopi::ptq::Moments;
/// # use chopi_ndarray as _;
/// use ndarray::array;
///
/// let mut moments = Moments::new(2)?;
/// moments.observe(&array![[1.0_f32, 2.0], [3.0, -4.0]])?;
/// assert_eq!(moments.rows(), 2);
/// assert_eq!(moments.second()[(0, 1)], (1.0 * 2.0 + 3.0 * -4.0) / 2.0);
/// assert_eq!((moments.mean(), moments.mean_abs()), (vec![2.0, -1.0], vec![2.0, 3.0]));
/// # Ok::<(), chopi_ptq::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Moments {
    channels: usize,
    rows: u64,
    /// The lower triangle of Σ xᵀx, row by row, in quanta of 2^−64.
    triangle: Vec<i128>,
    /// Σ x of each channel, in such quanta.
    sums: Vec<i128>,
    /// Σ |x| of each channel, in such quanta.
    magnitudes: Vec<i128>,
    /// The largest |x| of each channel.
    abs_max: Vec<f64>,
}

impl fmt::Debug for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Moments")
            .field("channels", &self.channels)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Moments {
    /// Moments of this many input channels that have seen nothing.
    ///
    /// # Errors
    /// [`Error::NoChannels`]; [`Error::Core`] where there is no memory for them.
    pub fn new(channels: usize) -> Result<Self> {
        if channels == 0 {
            return Err(Error::NoChannels);
        }
        // As many as no memory holds, where the product is too large.
        let entries = channels
            .checked_add(1)
            .and_then(|n| n.checked_mul(channels));
        Ok(Self {
            channels,
            rows: 0,
            triangle: repeated(0, entries.map_or(usize::MAX, |n| n / 2))?,
            sums: repeated(0, channels)?,
            magnitudes: repeated(0, channels)?,
            abs_max: repeated(0.0, channels)?,
        })
    }

    /// Takes in a batch of inputs: the channels lie along the last axis, and all other axes are rows. A tensor
    /// of no rows changes nothing.
    ///
    /// # Errors
    /// [`Error::Channels`] where the last axis has another length; [`Error::Core`] for NaN and infinities, which
    /// says where, and where there is no memory for a copy; [`Error::Overflow`] where the sums could overflow.
    /// What was seen before is kept then, but where memory ends in the middle of a batch.
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, inputs: &T) -> Result<()> {
        on_host(inputs, |host| Ok(self.observe_host(&host)))?
    }

    fn observe_host(&mut self, host: &HostFloats<'_>) -> Result<()> {
        let shape = host.layout().shape();
        let channels = shape.last().copied().unwrap_or(0);
        self.check_channels("a tensor", shape, channels)?;
        match_float!(FloatSlice, host.data(), data => {
            let data = host.layout().to_row_major(data)?;
            self.add_rows(&data, shape)
        })
    }

    fn check_channels(&self, what: &'static str, shape: &[usize], channels: usize) -> Result<()> {
        match channels == self.channels {
            true => Ok(()),
            false => Err(Error::Channels {
                what,
                shape: shape.to_vec(),
                channels,
                expected: self.channels,
            }),
        }
    }

    /// Adds rows of one value for each channel; errors speak of a tensor of this shape.
    fn add_rows<F: Float>(&mut self, values: &[F], shape: &[usize]) -> Result<()> {
        let pieces = || values.chunks(ROWS * self.channels);
        let mut largest = with_room(pieces().len())?;
        let mut abs_max = copied(&self.abs_max)?;
        for piece in pieces() {
            let of_piece = fixed::largest(piece, self.channels)?;
            abs_max
                .iter_mut()
                .zip(&of_piece)
                .for_each(|(a, x)| *a = a.max(*x));
            largest.push(of_piece);
        }
        if abs_max.contains(&f64::INFINITY) {
            return Err(non_finite(values, shape));
        }
        let rows = self.checked_rows((values.len() / self.channels) as u64, &abs_max)?;
        for (piece, largest) in pieces().zip(&largest) {
            let piece = Piece::new(piece, largest)?;
            piece.add_sums(&mut self.sums, &mut self.magnitudes);
            piece.add_products(&mut self.triangle)?;
        }
        (self.rows, self.abs_max) = (rows, abs_max);
        Ok(())
    }

    /// The number of rows with these, if the sums of values up to `abs_max` cannot overflow.
    fn checked_rows(&self, more: u64, abs_max: &[f64]) -> Result<u64> {
        let rows = self.rows.saturating_add(more);
        let overflows = |&x: &f64| rows as f64 * x.max(1.0) * x.max(1.0) >= LIMIT;
        match abs_max.iter().position(overflows) {
            None => Ok(rows),
            Some(channel) => Err(Error::Overflow {
                channel,
                largest: abs_max[channel],
                rows,
            }),
        }
    }

    /// Takes in what other moments have seen. The sums are exact: the order does not matter.
    ///
    /// # Errors
    /// [`Error::Merge`] where the other moments have another number of channels; [`Error::Overflow`] where the
    /// sums could overflow.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.channels != other.channels {
            return Err(Error::Merge {
                channels: self.channels,
                other: other.channels,
            });
        }
        let both = self.abs_max.iter().zip(&other.abs_max);
        let abs_max: Vec<f64> = both.map(|(a, b)| a.max(*b)).collect();
        self.rows = self.checked_rows(other.rows, &abs_max)?;
        self.abs_max = abs_max;
        for (ours, theirs) in [
            (&mut self.triangle, &other.triangle),
            (&mut self.sums, &other.sums),
            (&mut self.magnitudes, &other.magnitudes),
        ] {
            for (a, b) in ours.iter_mut().zip(theirs) {
                *a += b;
            }
        }
        Ok(())
    }

    /// The moments of x/s, for a positive number s of each channel: those of the layer whose weights were
    /// multiplied by s and whose inputs are divided by it. Each entry is rounded to the nearest multiple of
    /// 2^−64 once.
    ///
    /// # Errors
    /// [`Error::Count`] and [`Error::Number`] where these are not one positive finite number for each channel;
    /// [`Error::Overflow`] where the sums could overflow.
    pub fn divided_by(&self, scales: &[f64]) -> Result<Self> {
        check_scales(scales, self.channels)?;
        let abs_max: Vec<f64> = self
            .abs_max
            .iter()
            .zip(scales)
            .map(|(x, s)| x / s)
            .collect();
        let mut divided = Self::new(self.channels)?;
        divided.rows = divided.checked_rows(self.rows, &abs_max)?;
        divided.abs_max = abs_max;
        let divide = |sum: i128, by: f64| (sum as f64 / by).round_ties_even() as i128;
        for i in 0..self.channels {
            divided.sums[i] = divide(self.sums[i], scales[i]);
            divided.magnitudes[i] = divide(self.magnitudes[i], scales[i]);
            for j in 0..=i {
                let entry = offset(i) + j;
                divided.triangle[entry] = divide(self.triangle[entry], scales[i] * scales[j]);
            }
        }
        Ok(divided)
    }

    /// The number of input channels, n.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The number of rows that were observed.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// A sum over the rows in quanta, divided by the number of rows; 0 of no rows.
    fn mean_of(&self, sum: i128) -> f64 {
        sum as f64 * power_of_two(-POINT) / self.rows.max(1) as f64
    }

    /// H = Σ xᵀx / rows, a symmetric n × n matrix; zeros where no rows were observed.
    pub fn second(&self) -> Mat<f64> {
        Mat::from_fn(self.channels, self.channels, |i, j| self.second_of(i, j))
    }

    /// H_ij.
    pub(crate) fn second_of(&self, i: usize, j: usize) -> f64 {
        self.mean_of(self.triangle[offset(i.max(j)) + i.min(j)])
    }

    /// The mean of x² of each channel, the diagonal of H.
    pub fn mean_square(&self) -> Vec<f64> {
        let diagonal = (0..self.channels).map(|i| self.triangle[offset(i) + i]);
        diagonal.map(|sum| self.mean_of(sum)).collect()
    }

    /// The mean of |x| of each channel.
    pub fn mean_abs(&self) -> Vec<f64> {
        self.magnitudes
            .iter()
            .map(|&sum| self.mean_of(sum))
            .collect()
    }

    /// The mean of each channel.
    pub fn mean(&self) -> Vec<f64> {
        self.sums.iter().map(|&sum| self.mean_of(sum)).collect()
    }

    /// The largest |x| of each channel.
    pub fn abs_max(&self) -> &[f64] {
        &self.abs_max
    }

    /// Checks that a weight has as many input channels.
    pub(crate) fn check_for(
        &self,
        what: &'static str,
        shape: &[usize],
        channels: usize,
    ) -> Result<()> {
        self.check_channels(what, shape, channels)?;
        self.check_rows()
    }

    /// Checks that there are rows to go by.
    pub(crate) fn check_rows(&self) -> Result<()> {
        match self.rows {
            0 => Err(Error::NoRows),
            _ => Ok(()),
        }
    }
}

/// Checks that there is a positive finite number for each channel.
pub(crate) fn check_scales(scales: &[f64], channels: usize) -> Result<()> {
    if scales.len() != channels {
        return Err(Error::Count {
            what: "scales",
            count: scales.len(),
            channels,
        });
    }
    match scales.iter().position(|s| !(*s > 0.0 && s.is_finite())) {
        None => Ok(()),
        Some(channel) => Err(Error::Number {
            what: "the scale",
            channel,
            value: scales[channel],
            expected: "a positive finite number",
        }),
    }
}

/// Calls `f` with the elements of a tensor as `f64`, in row-major order, and its shape.
pub(crate) fn with_values<B, T, R>(
    tensor: &T,
    f: impl FnOnce(&[f64], &[usize]) -> Result<R>,
) -> Result<R>
where
    B: Backend,
    T: FloatTensor<B> + ?Sized,
{
    let (values, shape) = on_host(tensor, |host| {
        Ok((widened(&host)?, host.layout().shape().to_vec()))
    })?;
    f(&values, &shape)
}

/// The elements as `f64`, in row-major order.
pub(crate) fn widened(host: &HostFloats<'_>) -> chopi_core::Result<Vec<f64>> {
    match_float!(FloatSlice, host.data(), data => {
        let data = host.layout().to_row_major(data)?;
        let mut values = with_room(data.len())?;
        values.extend(data.iter().map(|x| x.widen().as_f64()));
        Ok(values)
    })
}

/// Checks that no element, of those of a tensor in row-major order, is NaN or an infinity.
pub(crate) fn check_finite(values: &[f64], shape: &[usize]) -> Result<()> {
    match values.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err(non_finite(values, shape)),
    }
}

/// The error that says which elements are NaN or infinities, of a tensor in row-major order.
fn non_finite<F: Float>(values: &[F], shape: &[usize]) -> Error {
    let is_bad = |x: &f64| !x.is_finite();
    let bad = || {
        values
            .iter()
            .map(|x| x.widen().as_f64())
            .enumerate()
            .filter(|(_, x)| is_bad(x))
    };
    let (first, value) = bad().next().unwrap_or_default();
    Error::Core(chopi_core::Error::NonFinite {
        index: Layout::row_major(shape).index(first),
        value,
        count: bad().count(),
    })
}
