//! What `quantize` reports of one tensor.

use chopi::formats::gguf::BlockType;
use chopi::ptq::LayerError;
use chopi::{Granularity, Symmetry, metrics::Metrics};
use safetensors::Dtype;
use serde::Serialize;

use crate::archive::Entry;
use crate::args::Settings;
use crate::print::printable;
use crate::report::{ReportRow, grouped, scheme_cell};
use crate::table::{Cell, Column, Tone};

/// What became of a tensor. One that was copied has no scheme and no error.
#[derive(Debug, Serialize)]
pub struct QuantizeRow {
    name: String,
    shape: Vec<usize>,
    /// The dtype in the input.
    dtype: String,
    bits: Option<u32>,
    symmetric: Option<bool>,
    granularity: Option<String>,
    convention: Option<String>,
    bytes_in: usize,
    bytes_out: usize,
    /// JSON has no infinity: written as null where it is infinite.
    sqnr_db: Option<f64>,
    mse: Option<f64>,
    max_abs_error: Option<f64>,
    /// Where a method has seen data.
    #[serde(skip_serializing_if = "Option::is_none")]
    output_error: Option<LayerError>,
    /// Why it was copied, where the format asks for more than a float.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<String>,
    /// The dtype of the codes or the type of the blocks, and the scheme in words.
    #[serde(skip)]
    codes: Option<(String, Cell)>,
}

/// How a quantized tensor is kept.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The dtype of the codes.
    pub dtype: Dtype,
    /// The granularity on this tensor.
    pub granularity: Granularity,
    /// The bytes of the codes and the parameters.
    pub len: usize,
}

impl QuantizeRow {
    pub fn copied(tensor: &Entry) -> Self {
        Self {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype.to_string(),
            bits: None,
            symmetric: None,
            granularity: None,
            convention: None,
            bytes_in: tensor.data.len(),
            bytes_out: tensor.data.len(),
            sqnr_db: None,
            mse: None,
            max_abs_error: None,
            output_error: None,
            kept: None,
            codes: None,
        }
    }

    /// A tensor that was copied for a reason.
    pub fn kept(tensor: &Entry, reason: String) -> Self {
        Self {
            kept: Some(reason),
            ..Self::copied(tensor)
        }
    }

    pub fn is_quantized(&self) -> bool {
        self.codes.is_some()
    }

    /// A tensor that was quantized to codes; without metrics where its values were scaled before.
    pub fn quantized(
        tensor: &Entry,
        kept: Kept,
        settings: &Settings,
        metrics: Option<&Metrics>,
    ) -> Self {
        let scheme = &settings.scheme;
        let granularity = kept.granularity;
        Self {
            bits: Some(scheme.bits),
            symmetric: Some(scheme.symmetry == Symmetry::Symmetric),
            granularity: Some(granularity.to_string()),
            convention: Some(settings.convention.name().to_string()),
            bytes_out: kept.len,
            sqnr_db: metrics.map(Metrics::sqnr_db),
            mse: metrics.map(Metrics::mse),
            max_abs_error: metrics.map(Metrics::max_abs_error),
            codes: Some((kept.dtype.to_string(), scheme_cell(scheme, granularity))),
            ..Self::copied(tensor)
        }
    }
}

impl QuantizeRow {
    /// The row with the error of the layer's outputs.
    pub fn with_output_error(self, output_error: Option<LayerError>) -> Self {
        Self {
            output_error,
            ..self
        }
    }

    /// A tensor that was quantized to blocks of GGUF, which take `len` bytes.
    pub fn blocks(tensor: &Entry, block_type: BlockType, len: usize, metrics: &Metrics) -> Self {
        let (bits, block) = (block_type.bits(), block_type.elements());
        let granularity = format!("blocks of {block}");
        Self {
            bits: Some(bits),
            granularity: Some(granularity.clone()),
            convention: Some("ggml".to_owned()),
            bytes_out: len,
            sqnr_db: Some(metrics.sqnr_db()),
            mse: Some(metrics.mse()),
            max_abs_error: Some(metrics.max_abs_error()),
            codes: Some((
                block_type.to_string(),
                format!("{bits} bits {granularity}").into(),
            )),
            ..Self::copied(tensor)
        }
    }
}

/// The cell of a share of an error.
fn share(error: Option<f64>) -> Cell {
    Cell::from(
        error
            .map(|error| format!("{error:.3e}"))
            .unwrap_or_default(),
    )
}

impl ReportRow for QuantizeRow {
    const DONE: &'static str = "quantized";

    fn columns() -> Vec<Column> {
        vec![
            Column::text("tensor"),
            Column::text("shape").goes(2),
            Column::text("dtype").goes(1),
            Column::text("scheme").goes(6),
            Column::number("bytes in").goes(3),
            Column::number("bytes out").goes(5),
            Column::number("SQNR dB"),
            Column::number("max error").goes(4),
            Column::number("nearest's output").goes(0).optional(),
            Column::number("output error").optional(),
        ]
    }

    fn reason(&self) -> Option<&str> {
        self.kept.as_deref()
    }

    fn is_done(&self) -> bool {
        self.is_quantized()
    }

    fn bytes_in(&self) -> usize {
        self.bytes_in
    }

    fn bytes_out(&self) -> usize {
        self.bytes_out
    }

    fn cells(&self) -> Vec<Cell> {
        let copied = |text: String| Cell::from(text).or("copied".to_owned()).tone(Tone::Faint);
        let (dtype, scheme) = match &self.codes {
            Some((codes, scheme)) => (format!("{} → {codes}", self.dtype), scheme.clone()),
            None => match &self.kept {
                Some(reason) => (
                    self.dtype.clone(),
                    copied(format!("copied: {}", printable(reason))),
                ),
                None => (self.dtype.clone(), copied("copied".to_owned())),
            },
        };
        let max_error = self.max_abs_error.map(|error| format!("{error:.3e}"));
        vec![
            printable(&self.name).into_owned().into(),
            format!("{:?}", self.shape).into(),
            dtype.into(),
            scheme,
            grouped(self.bytes_in).into(),
            grouped(self.bytes_out).into(),
            Cell::sqnr(self.sqnr_db),
            max_error.unwrap_or_default().into(),
            share(self.output_error.map(|error| error.nearest)),
            share(self.output_error.map(|error| error.chosen)),
        ]
    }

    /// The errors of outputs on average, and which tensors have none.
    fn summary(rows: &[Self]) -> Option<String> {
        let errors: Vec<LayerError> = rows.iter().filter_map(|row| row.output_error).collect();
        if errors.is_empty() {
            return None;
        }
        let mean =
            |of: fn(&LayerError) -> f64| errors.iter().map(of).sum::<f64>() / errors.len() as f64;
        let mut text = format!(
            "error of the outputs of {} layers: {:.3e} on average, nearest codes {:.3e}",
            errors.len(),
            mean(|error| error.chosen),
            mean(|error| error.nearest)
        );
        let is_nearest = |row: &&Self| row.is_quantized() && row.output_error.is_none();
        let nearest: Vec<_> = rows
            .iter()
            .filter(is_nearest)
            .map(|row| printable(&row.name))
            .collect();
        if !nearest.is_empty() {
            let (count, names) = (nearest.len(), nearest.join(", "));
            text += &format!("\nnearest codes, for want of statistics: {count}: {names}");
        }
        Some(text)
    }
}
