//! The operands of an emulated product.

use std::fmt;

use chopi_core::backend::{Int, IntSlice, match_int, with_room};

use crate::{Error, Result};

/// A matrix of codes, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The codes.
    pub codes: IntSlice<'a>,
    /// The numbers of rows and columns.
    pub shape: (usize, usize),
    /// The smallest and the largest code: of 2 to 16 bits, signed or unsigned.
    pub range: (i64, i64),
    /// One zero point; or of the first matrix of a product one for each row, of the second one for
    /// each column. Each is at most 2^30 either way.
    pub zero_points: &'a [i64],
}

/// A tensor of codes, row-major: the input or the weights of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// The codes.
    pub codes: IntSlice<'a>,
    /// The smallest and the largest code: of 2 to 16 bits, signed or unsigned.
    pub range: (i64, i64),
    /// One zero point; or of the weights one for each output channel. Each is at most 2^30 either
    /// way.
    pub zero_points: &'a [i64],
}

/// The codes of an operand before its zero points are subtracted.
pub(super) struct NamedOperand<'a> {
    pub name: &'static str,
    pub codes: IntSlice<'a>,
    pub range: (i64, i64),
    pub zero_points: &'a [i64],
}

/// How many zero points an operand may have.
pub(super) struct Channels {
    /// One for all, or this many.
    pub count: usize,
    /// How many elements in a row share one; then the next has its turn, round and round.
    pub inner: usize,
}

impl NamedOperand<'_> {
    /// q − z for each of `len` codes.
    pub fn differences(&self, len: usize, channels: &Channels) -> Result<Vec<i32>> {
        let &Self {
            name: operand,
            codes,
            range: (qmin, qmax),
            zero_points,
        } = self;
        let fits = (-(1 << 15)..1 << 16).contains(&qmin)
            && (-(1 << 15)..1 << 16).contains(&qmax)
            && (1..1 << 16).contains(&(qmax - qmin));
        if !fits {
            return Err(Error::OperandRange {
                operand,
                qmin,
                qmax,
            });
        }
        Error::check_length(operand, codes.len(), len)?;
        Error::check_each("the zero points", zero_points.len(), channels.count)?;
        const LIMIT: i64 = 1 << 30;
        let refused = |z: &i64| !(-LIMIT..=LIMIT).contains(z);
        if let Some(index) = zero_points.iter().position(refused) {
            return Err(Error::OperandZeroPoint {
                operand,
                index,
                zero_point: zero_points[index],
            });
        }
        match_int!(IntSlice, codes, codes => {
            let outside = |q: &&_| !(qmin..=qmax).contains(&Int::to_i64(**q));
            if let Some((index, &code)) = codes.iter().enumerate().find(|(_, q)| outside(q)) {
                return Err(Error::OperandCode {
                    operand,
                    index,
                    code: code.to_i64(),
                    qmin,
                    qmax,
                });
            }
            let mut differences = with_room(len)?;
            for (block, codes) in codes.chunks(channels.inner.max(1)).enumerate() {
                let zero_point = zero_points[block % zero_points.len()];
                // Less than 2^31 either way, by the checks above.
                differences.extend(codes.iter().map(|q| (q.to_i64() - zero_point) as i32));
            }
            Ok(differences)
        })
    }
}

impl fmt::Debug for NamedOperand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NamedOperand")
            .field("name", &self.name)
            .finish()
    }
}
