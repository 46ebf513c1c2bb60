//! A tensor in pieces that stay in cache, so that memory does not grow with the tensor.

use std::ops::Range;

use chopi_core::{Error, Granularity, QParams, Result};

/// A row-major tensor cut along its outermost axis that is longer than 1, each piece with the
/// parameters of its own elements.
#[derive(Debug)]
pub struct Chunks<'a> {
    shape: &'a [usize],
    /// The granularity that the convention has for a tensor of this rank.
    granularity: Granularity,
    axis: usize,
    /// The number of rows: the length of that axis.
    rows: usize,
    /// The elements in a row.
    width: usize,
    /// The rows in a chunk.
    step: usize,
}

/// One piece: its rows and its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The rows of the tensor that are in it.
    pub rows: Range<usize>,
    /// The elements of the tensor that are in it.
    pub elements: Range<usize>,
}

impl<'a> Chunks<'a> {
    /// Enough for the cost of each call to vanish, few enough for the cache. A chunk has more where
    /// a row, or a group along the axis, has.
    const ELEMENTS: usize = 1 << 18;

    /// The shape must have elements, and the granularity must fit it.
    pub fn new(shape: &'a [usize], granularity: Granularity) -> Self {
        Self::of_at_most(Self::ELEMENTS, shape, granularity)
    }

    /// The pieces of a tensor that is read or written in whole rows only, or at any element.
    pub fn of(shape: &'a [usize], granularity: Granularity, is_packed: bool) -> Self {
        match is_packed {
            true => Self::of_rows(shape, granularity),
            false => Self::new(shape, granularity),
        }
    }

    /// The pieces of whole rows along axis 0; a tensor of fewer than two axes in one piece.
    fn of_rows(shape: &'a [usize], granularity: Granularity) -> Self {
        let (rows, width) = match shape {
            [] | [_] => return Self::new(shape, granularity).whole(),
            [rows, row @ ..] => (*rows, row.iter().product::<usize>()),
        };
        let chunks = Self {
            shape,
            granularity,
            axis: 0,
            rows,
            width,
            step: (Self::ELEMENTS / width.max(1)).max(1),
        };
        chunks.with_whole_groups()
    }

    /// With pieces of whole groups, where groups lie along the axis that is cut.
    fn with_whole_groups(mut self) -> Self {
        if let Granularity::PerGroup { axis, size } = self.granularity
            && self.cuts(axis)
        {
            self.step = (self.step / size).max(1).saturating_mul(size);
        }
        self
    }

    /// The pieces of about so many elements, and no fewer than a row or a group along the axis has.
    pub fn of_at_most(elements: usize, shape: &'a [usize], granularity: Granularity) -> Self {
        let axis = shape.iter().position(|&len| len > 1).unwrap_or(0);
        let rows = shape.get(axis).copied().unwrap_or(1);
        let width = shape.iter().skip(axis + 1).product::<usize>();
        let chunks = Self {
            shape,
            granularity,
            axis,
            rows,
            width,
            step: (elements / width.max(1)).max(1),
        };
        chunks.with_whole_groups()
    }

    /// Whether the tensor is cut along this axis, which may count from the end.
    fn cuts(&self, axis: isize) -> bool {
        let rank = self.shape.len() as isize;
        self.axis as isize == if axis < 0 { axis + rank } else { axis }
    }

    /// Whether a group has elements in several pieces.
    pub fn cuts_groups(&self) -> bool {
        let cuts = match self.granularity {
            Granularity::PerTensor => true,
            Granularity::PerChannel { axis } => !self.cuts(axis),
            Granularity::PerGroup { .. } => false,
        };
        cuts && self.step < self.rows
    }

    /// Whether every channel has elements in several pieces.
    pub fn cuts_channels(&self) -> bool {
        self.cuts_groups() && matches!(self.granularity, Granularity::PerChannel { .. })
    }

    /// The tensor in one piece.
    pub fn whole(&self) -> Self {
        Self {
            step: self.rows.max(1),
            ..*self
        }
    }

    /// The shape of the parameters of the tensor.
    ///
    /// # Errors
    /// Where the tensor has no such axis.
    pub fn params_shape(&self) -> Result<Vec<usize>> {
        self.granularity.params_shape(self.shape)
    }

    /// The pieces, in order.
    pub fn iter(&self) -> impl Iterator<Item = Chunk> {
        (0..self.rows).step_by(self.step).map(|row| self.from(row))
    }

    /// The piece that an element lies in, which there must be.
    pub fn with(&self, element: usize) -> Chunk {
        let row = element / self.width.max(1);
        self.from(row / self.step * self.step)
    }

    /// The piece that begins with a row.
    fn from(&self, row: usize) -> Chunk {
        let rows = row..self.rows.min(row.saturating_add(self.step));
        Chunk {
            elements: rows.start * self.width..rows.end * self.width,
            rows,
        }
    }

    /// The error in a piece, with the index in the tensor.
    pub fn error(&self, chunk: &Chunk, error: Error) -> Error {
        match error {
            Error::Code {
                index,
                code,
                qmin,
                qmax,
            } => Error::Code {
                index: self.index(chunk, index),
                code,
                qmin,
                qmax,
            },
            other => other,
        }
    }

    /// The shape of a piece.
    pub fn shape(&self, chunk: &Chunk) -> Vec<usize> {
        let mut shape = self.shape.to_vec();
        if let Some(len) = shape.get_mut(self.axis) {
            *len = chunk.rows.len();
        }
        shape
    }

    /// The index in the tensor of an index in a piece.
    pub fn index(&self, chunk: &Chunk, mut index: Vec<usize>) -> Vec<usize> {
        if let Some(row) = index.get_mut(self.axis) {
            *row += chunk.rows.start;
        }
        index
    }

    /// The parameters of a piece: the parameters of the tensor whose groups lie in it.
    ///
    /// # Errors
    /// Where the parameters are for another tensor.
    pub fn params(&self, chunk: &Chunk, params: &QParams) -> Result<QParams> {
        // The tensor of parameters is cut along the same axis, or along its only one, or not.
        let (axis, rows) = match self.granularity {
            Granularity::PerChannel { axis } if self.cuts(axis) => (0, chunk.rows.clone()),
            Granularity::PerTensor | Granularity::PerChannel { .. } => return Ok(params.clone()),
            Granularity::PerGroup { axis, size } if self.cuts(axis) => {
                let groups = chunk.rows.start / size..chunk.rows.end.div_ceil(size);
                (self.axis, groups)
            }
            Granularity::PerGroup { .. } => (self.axis, chunk.rows.clone()),
        };
        let mut shape = params.shape().to_vec();
        let width = shape[axis + 1..].iter().product::<usize>();
        shape[axis] = rows.len();
        let groups = rows.start * width..rows.end * width;
        params.part(shape, groups)
    }
}

#[cfg(test)]
mod tests {
    use chopi_core::{
        Chopi, Convention,
        backend::{Int, IntTensor},
    };
    use chopi_ndarray as _;
    use ndarray::{ArrayD, ArrayViewD, Dimension};
    use proptest::prelude::*;

    use super::*;

    fn granularity() -> impl Strategy<Value = Granularity> {
        prop_oneof![
            Just(Granularity::PerTensor),
            (-3_isize..3).prop_map(|axis| Granularity::PerChannel { axis }),
            (-3_isize..3, 1_usize..6).prop_map(|(axis, size)| Granularity::PerGroup { axis, size }),
        ]
    }

    /// The codes of all of an array, whose parameters are known.
    fn codes(x: ArrayViewD<'_, f32>, params: QParams) -> Vec<i64> {
        let q = params.quantize(&x).unwrap();
        let mut codes = Vec::new();
        IntTensor::with_host(&q, |host| {
            chopi_core::backend::match_int!(IntSlice, host.data(), data => {
                codes.extend(data.iter().map(|&q| q.to_i64()));
            });
            Ok(())
        })
        .unwrap();
        codes
    }

    proptest! {
        #[test]
        fn the_codes_of_the_pieces_are_those_of_the_whole(
            shape in proptest::collection::vec(1_usize..7, 0..4),
            granularity in granularity(),
            elements in 1_usize..40,
        ) {
            prop_assume!(granularity.params_shape(&shape).is_ok());
            let x = ArrayD::from_shape_fn(shape.clone(), |index| {
                let mut hash = 7_u32;
                for &i in index.as_array_view() {
                    hash = (hash + i as u32 + 1).wrapping_mul(2_654_435_761);
                }
                hash as f32 / 1e9 - 2.0
            });
            let mut chopi = Chopi::builder().granularity(granularity).build().unwrap();
            chopi.calibrate(&x).unwrap();
            let params = chopi.params().unwrap();

            let data = x.as_slice().unwrap();
            let chunks = Chunks::of_at_most(elements, &shape, granularity);
            let mut pieces = Vec::new();
            for chunk in chunks.iter() {
                let x = ArrayViewD::from_shape(chunks.shape(&chunk), &data[chunk.elements.clone()]);
                pieces.extend(codes(x.unwrap(), chunks.params(&chunk, params).unwrap()));
            }
            prop_assert_eq!(pieces, codes(x.view(), params.clone()));
            prop_assert_eq!(params.convention(), &Convention::CHOPI);
        }
    }
}
