//! What `compare` reports.

use safetensors::Dtype;
use serde::Serialize;

use super::elements::Differences;
use super::number::Difference;
use crate::archive::Entry;
use crate::args::PrintArgs;
use crate::error::Result;
use crate::print::{print, print_json, printable};
use crate::report::grouped;
use crate::table::{Cell, Column, Table};

/// How two files differ.
#[derive(Debug, Serialize)]
pub struct Report {
    tensors: Vec<CompareRow>,
    tensors_differing: usize,
    /// How many elements differ, of the tensors whose elements were compared.
    elements_differing: usize,
}

/// How the two tensors of one name differ.
#[derive(Debug, Serialize)]
pub struct CompareRow {
    name: String,
    /// The shape in A, or in B where A lacks the tensor.
    shape: Vec<usize>,
    dtype_a: Option<String>,
    dtype_b: Option<String>,
    elements: usize,
    /// How many elements differ; none where they cannot be compared.
    differing: Option<usize>,
    /// JSON has neither infinity nor NaN: both are written as null, as is the difference of dtypes without
    /// numbers.
    max_abs_difference: Option<Difference>,
    first_index: Option<Vec<usize>>,
    /// JSON has neither infinity nor NaN: both are written as null, as is the ratio of dtypes without
    /// numbers.
    sqnr_db: Option<f64>,
    /// In what the tensors differ other than their elements.
    note: Option<String>,
    /// The shape in B, if it is another one.
    #[serde(skip)]
    shape_b: Option<Vec<usize>>,
}

impl Report {
    pub fn new(tensors: Vec<CompareRow>) -> Self {
        Self {
            tensors_differing: tensors.iter().filter(|row| row.differs()).count(),
            elements_differing: tensors.iter().filter_map(|row| row.differing).sum(),
            tensors,
        }
    }

    pub fn differs(&self) -> bool {
        self.tensors_differing > 0
    }

    /// # Errors
    /// Where standard output cannot be written.
    pub fn print(&self, args: &PrintArgs, verbose: bool) -> Result<()> {
        match (args.quiet, args.json) {
            (true, _) => Ok(()),
            (false, true) => print_json(self),
            (false, false) => print(self.text(verbose)),
        }
    }

    fn text(&self, verbose: bool) -> String {
        let mut table = Table::new(vec![
            Column::text("tensor"),
            Column::text("shape").goes(3),
            Column::text("dtype").goes(2),
            Column::text("note").goes(5),
            Column::number("elements").goes(4),
            Column::number("differing"),
            Column::number("largest difference").goes(6),
            Column::number("first at").goes(1),
            Column::number("SQNR dB").goes(7),
        ]);
        let shown = |row: &&CompareRow| verbose || row.differs();
        for row in self.tensors.iter().filter(shown) {
            table.row(row.cells());
        }
        let totals = format!(
            "{} tensors, {} differ: {} of {} elements",
            self.tensors.len(),
            self.tensors_differing,
            grouped(self.elements_differing),
            grouped(self.tensors.iter().map(|row| row.elements).sum())
        );
        match self.tensors.iter().any(|row| shown(&row)) {
            false => totals,
            true => format!("{table}\n\n{totals}"),
        }
    }
}

impl CompareRow {
    pub fn only_in_a(tensor: &Entry) -> Self {
        let note = Some("only in A".to_owned());
        Self::new(tensor, Some(tensor.dtype), None, note)
    }

    pub fn only_in_b(tensor: &Entry) -> Self {
        let note = Some("only in B".to_owned());
        Self::new(tensor, None, Some(tensor.dtype), note)
    }

    /// Two tensors of different shapes.
    pub fn reshaped(a: &Entry, b: &Entry) -> Self {
        let note = Some(format!("shape {:?} in B", b.shape));
        Self {
            shape_b: Some(b.shape.clone()),
            ..Self::new(a, Some(a.dtype), Some(b.dtype), note)
        }
    }

    /// Two tensors of the same shape, whose elements were compared if their dtypes allow it.
    pub fn compared(a: &Entry, b: &Entry, found: Option<Differences>) -> Self {
        let note = match &found {
            _ if a.dtype == b.dtype => None,
            Some(_) => Some("dtypes differ".to_owned()),
            None => Some("dtypes differ, elements not compared".to_owned()),
        };
        let row = Self::new(a, Some(a.dtype), Some(b.dtype), note);
        match found {
            None => row,
            Some(found) => Self {
                differing: Some(found.count),
                max_abs_difference: found.largest,
                first_index: found.first.map(|offset| index(&a.shape, offset)),
                sqnr_db: found.sqnr_db,
                ..row
            },
        }
    }

    fn new(
        tensor: &Entry,
        dtype_a: Option<Dtype>,
        dtype_b: Option<Dtype>,
        note: Option<String>,
    ) -> Self {
        Self {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype_a: dtype_a.map(|dtype| dtype.to_string()),
            dtype_b: dtype_b.map(|dtype| dtype.to_string()),
            elements: tensor.shape.iter().product(),
            differing: None,
            max_abs_difference: None,
            first_index: None,
            sqnr_db: None,
            note,
            shape_b: None,
        }
    }

    fn differs(&self) -> bool {
        self.note.is_some() || self.differing != Some(0)
    }

    fn cells(&self) -> Vec<Cell> {
        let shape = format!("{:?}", self.shape);
        let optional = |text: Option<String>| text.unwrap_or_default();
        let dtype = match (&self.dtype_a, &self.dtype_b) {
            (Some(a), Some(b)) if a != b => format!("{a} / {b}"),
            (a, b) => optional(a.clone().or(b.clone())),
        };
        let shape = match &self.shape_b {
            Some(other) => format!("{shape} / {other:?}"),
            None => shape,
        };
        let first = self.first_index.as_ref().map(|index| format!("{index:?}"));
        vec![
            printable(&self.name).into_owned().into(),
            shape.into(),
            dtype.into(),
            optional(self.note.clone()).into(),
            grouped(self.elements).into(),
            optional(self.differing.map(grouped)).into(),
            optional(self.max_abs_difference.map(|largest| largest.to_string())).into(),
            optional(first).into(),
            Cell::sqnr(self.sqnr_db),
        ]
    }
}

/// The index of the element at this offset of a row-major tensor.
fn index(shape: &[usize], mut offset: usize) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &len) in index.iter_mut().zip(shape).rev() {
        *i = offset % len;
        offset /= len;
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_row_major() {
        assert_eq!(index(&[], 0), [0; 0]);
        assert_eq!(index(&[7], 5), [5]);
        let all: Vec<_> = (0..12).map(|offset| index(&[2, 1, 6], offset)).collect();
        assert_eq!(all[0], [0, 0, 0]);
        assert_eq!(all[7], [1, 0, 1]);
        assert!(all.is_sorted());
    }
}
