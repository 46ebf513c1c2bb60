//! The pictures at the top of the page: bytes, the SQNR by layer, and the worst tensors.

use super::axis::{self, Tick};
use super::figures::{Figures, Row, class};
use super::say;

/// A quantization of the model in numbers.
#[derive(Debug)]
pub struct Totals {
    /// The name on the page: A, and B for a second one.
    pub letter: char,
    pub path: String,
    pub count: usize,
    pub parameters: usize,
    pub bytes: usize,
    /// The mean of the quantized tensors' SQNR, of those where it is finite.
    pub mean_sqnr_db: Option<f64>,
    /// The row and the SQNR of the tensor with the smallest one.
    pub worst: Option<(usize, f64)>,
    /// The tensors of each number of bits, the fewest first, and then those that were copied.
    pub shares: Vec<Share>,
}

/// The tensors of one number of bits, or those that were copied.
#[derive(Debug)]
pub struct Share {
    pub class: String,
    pub label: String,
    pub tensors: usize,
    pub parameters: usize,
    pub bytes: usize,
    pub mean_sqnr_db: Option<f64>,
    pub worst_sqnr_db: Option<f64>,
}

impl Totals {
    /// The totals of the quantization of this index.
    pub fn new(path: String, rows: &[Row], index: usize) -> Self {
        let quantized = |row: &&Row| row.results[index].quantized.is_some();
        let of = |row: &Row| row.results[index].sqnr_db;
        let finite = rows.iter().filter(quantized).filter_map(of);
        let finite: Vec<f64> = finite.filter(|db| db.is_finite()).collect();
        let numbered = rows.iter().enumerate().filter(|(_, row)| quantized(row));
        Self {
            letter: ['A', 'B'][index],
            path,
            count: rows.iter().filter(quantized).count(),
            parameters: rows
                .iter()
                .filter(quantized)
                .map(|row| row.parameters)
                .sum(),
            bytes: rows.iter().map(|row| row.results[index].bytes).sum(),
            mean_sqnr_db: mean(&finite),
            worst: numbered
                .filter_map(|(i, row)| Some((i, of(row)?)))
                .min_by(|(_, a), (_, b)| a.total_cmp(b)),
            shares: shares(rows, index),
        }
    }

    /// What the ids of the page end in, so that those of two quantizations are different.
    pub fn suffix(&self) -> &'static str {
        match self.letter {
            'A' => "",
            _ => "-b",
        }
    }
}

fn mean(numbers: &[f64]) -> Option<f64> {
    match numbers.len() {
        0 => None,
        count => Some(numbers.iter().sum::<f64>() / count as f64),
    }
}

fn shares(rows: &[Row], index: usize) -> Vec<Share> {
    let bits = |row: &Row| row.results[index].quantized.as_ref().map(|how| how.bits);
    let mut all: Vec<Option<u32>> = rows.iter().map(bits).collect();
    // What was copied comes last.
    all.sort_by_key(|bits| bits.unwrap_or(u32::MAX));
    all.dedup();
    let share = |of: Option<u32>| {
        let rows: Vec<&Row> = rows.iter().filter(|row| bits(row) == of).collect();
        let sqnr = rows.iter().filter_map(|row| row.results[index].sqnr_db);
        // Tensors that were copied are exact.
        let finite: Vec<f64> = sqnr.filter(|db| db.is_finite()).collect();
        Share {
            class: class(of),
            label: match of {
                Some(bits) => format!("{bits} bits"),
                None => "copied".to_owned(),
            },
            tensors: rows.len(),
            parameters: rows.iter().map(|row| row.parameters).sum(),
            bytes: rows.iter().map(|row| row.results[index].bytes).sum(),
            mean_sqnr_db: mean(&finite),
            worst_sqnr_db: finite.iter().copied().reduce(f64::min),
        }
    };
    all.into_iter().map(share).collect()
}

/// The bytes of the float model and of each quantization, as bars one below the other.
#[derive(Debug)]
pub struct BytesPicture {
    pub bars: Vec<BytesBar>,
    pub ticks: Vec<Tick>,
    pub height: f64,
}

/// The bytes of one model.
#[derive(Debug)]
pub struct BytesBar {
    pub label: String,
    pub y: f64,
    pub segments: Vec<Segment>,
}

/// The bytes of the tensors of one number of bits.
#[derive(Debug)]
pub struct Segment {
    pub class: String,
    pub x: f64,
    pub width: f64,
    pub title: String,
}

/// The width of this picture, in its own units.
pub const BYTES_WIDTH: f64 = 520.0;
/// The height of one of its bars, with its label above it.
pub const BYTES_BAR: f64 = 26.0;
const BYTES_ROW: f64 = 58.0;

impl BytesPicture {
    pub fn new(before: usize, totals: &[Totals]) -> Self {
        let most = totals
            .iter()
            .map(|totals| totals.bytes)
            .fold(before, usize::max);
        let position = |bytes: usize| bytes as f64 / most.max(1) as f64 * BYTES_WIDTH;
        let float = Segment {
            class: "copied".to_owned(),
            x: 0.0,
            width: position(before),
            title: format!("float model: {}", say::bytes(&before)),
        };
        let mut bars = vec![BytesBar {
            label: format!("before: {}", say::bytes(&before)),
            y: 18.0,
            segments: vec![float],
        }];
        let alone = totals.len() == 1;
        for totals in totals {
            let mut start = 0;
            let segments = totals.shares.iter().map(|share| {
                let x = position(start);
                start += share.bytes;
                Segment {
                    class: share.class.clone(),
                    x,
                    width: position(share.bytes),
                    title: format!("{}: {}", share.label, say::bytes(&share.bytes)),
                }
            });
            let segments = segments.collect();
            let name = match alone {
                true => "after".to_owned(),
                false => totals.letter.to_string(),
            };
            bars.push(BytesBar {
                label: format!(
                    "{name}: {}, {} %",
                    say::bytes(&totals.bytes),
                    say::percent(&totals.bytes, &before)
                ),
                y: 18.0 + BYTES_ROW * bars.len() as f64,
                segments,
            });
        }
        let (unit, name) = say::unit(most);
        let mut ticks = axis::ticks(0.0, most as f64 / unit, 5, BYTES_WIDTH);
        for tick in &mut ticks {
            tick.label = format!("{} {name}", tick.label);
        }
        Self {
            height: BYTES_ROW * bars.len() as f64,
            bars,
            ticks,
        }
    }
}

/// The SQNR of each quantized tensor, in the order of the layers.
#[derive(Debug)]
pub struct SqnrPicture {
    pub points: Vec<Point>,
    pub decibels: Vec<Tick>,
    pub tensors: Vec<Tick>,
}

/// The SQNR of one tensor in one quantization.
#[derive(Debug)]
pub struct Point {
    pub row: usize,
    pub class: String,
    /// Whether it is one of the second quantization.
    pub second: bool,
    pub x: f64,
    pub y: f64,
    pub title: String,
}

/// The width and the height of this picture, in its own units, and the room to the left for its numbers.
pub const SQNR_WIDTH: f64 = 1120.0;
pub const SQNR_HEIGHT: f64 = 220.0;
pub const SQNR_MARGIN: f64 = 56.0;

impl SqnrPicture {
    pub fn new(rows: &[Row]) -> Self {
        let quantized = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.is_quantized());
        let quantized: Vec<(usize, &Row)> = quantized.collect();
        let of = |figures: &Figures| figures.quantized.as_ref().and(figures.sqnr_db);
        let all = quantized
            .iter()
            .flat_map(|(_, row)| row.results.iter().filter_map(of));
        let finite: Vec<f64> = all.filter(|db| db.is_finite()).collect();
        let (low, high, decibels) = range(&finite);
        let step = SQNR_WIDTH / quantized.len().max(1) as f64;
        let middle = |i: usize| (i as f64 + 0.5) * step;
        let y = |db: f64| match db.is_finite() {
            true => SQNR_HEIGHT * (1.0 - (db - low) / (high - low)),
            // Exact tensors lie at the top.
            false => 0.0,
        };
        let mut points = Vec::new();
        for (i, &(row, tensor)) in quantized.iter().enumerate() {
            for (index, figures) in tensor.results.iter().enumerate() {
                let Some(db) = of(figures) else { continue };
                let bits = figures.quantized.as_ref().map_or(0, |how| how.bits);
                points.push(Point {
                    row,
                    class: figures.class(),
                    second: index > 0,
                    x: middle(i),
                    y: y(db),
                    title: format!("{}: {} dB, {bits} bits", tensor.name, say::db(&db)),
                });
            }
        }
        let (numbers, _) = axis::round_numbers(0.0, quantized.len() as f64, 10);
        let numbers = numbers
            .into_iter()
            .filter(|x| *x >= 1.0 && x.fract() == 0.0);
        Self {
            points,
            decibels: decibels
                .into_iter()
                .map(|(db, label)| Tick { at: y(db), label })
                .collect(),
            tensors: numbers
                .map(|number| Tick {
                    at: middle(number as usize - 1),
                    label: format!("{number}"),
                })
                .collect(),
        }
    }
}

/// The ends of an axis for these numbers, which are round, and its labels.
fn range(numbers: &[f64]) -> (f64, f64, Vec<(f64, String)>) {
    let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = match low < high {
        true => (low, high),
        false if low.is_finite() => (low - 1.0, low + 1.0),
        false => return (0.0, 1.0, Vec::new()),
    };
    let (_, step) = axis::round_numbers(low, high, 5);
    let (first, last) = ((low / step).floor() as i64, (high / step).ceil() as i64);
    let value = |i: i64| i as f64 * step;
    let labels = (first..=last).map(|i| (value(i), axis::label(value(i), step)));
    (value(first), value(last), labels.collect())
}

/// One of the tensors with the smallest SQNR.
#[derive(Debug)]
pub struct Worst {
    pub row: usize,
    pub name: String,
    /// The bars, one for each quantization that has quantized it.
    pub bars: Vec<WorstBar>,
}

/// The SQNR of one of the worst tensors.
#[derive(Debug)]
pub struct WorstBar {
    pub letter: char,
    pub class: String,
    /// The length, in percent of the longest one's.
    pub percent: String,
    pub label: String,
}

/// How many of the worst tensors are shown.
const WORST: usize = 10;

/// The tensors with the smallest SQNR in any quantization, the worst first; of equals the first ones.
pub fn worst(rows: &[Row]) -> Vec<Worst> {
    let of = |figures: &Figures| figures.quantized.as_ref().and(figures.sqnr_db);
    let least = |row: &Row| row.results.iter().filter_map(of).reduce(f64::min);
    let ranked = rows.iter().enumerate();
    let mut ranked: Vec<(usize, f64)> = ranked
        .filter_map(|(i, row)| Some((i, least(row).filter(|db| db.is_finite())?)))
        .collect();
    ranked.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    ranked.truncate(WORST);
    let shown = ranked.iter().flat_map(|&(i, _)| rows[i].results.iter());
    let finite = shown.filter_map(of).filter(|db| db.is_finite());
    let longest = finite.fold(1.0, f64::max);
    let bar = |(index, figures): (usize, &Figures)| {
        let db = of(figures)?;
        Some(WorstBar {
            letter: ['A', 'B'][index],
            class: figures.class(),
            percent: format!("{:.1}", (db / longest).clamp(0.0, 1.0) * 100.0),
            label: say::db(&db),
        })
    };
    let worst = |&(row, _): &(usize, f64)| Worst {
        row,
        name: rows[row].name.clone(),
        bars: rows[row]
            .results
            .iter()
            .enumerate()
            .filter_map(bar)
            .collect(),
    };
    ranked.iter().map(worst).collect()
}
