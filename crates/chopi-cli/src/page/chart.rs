//! The histogram of a tensor's values over the values that codes stand for, as paths of SVG.

use std::fmt::Write;

use chopi::{QParams, observer::Histogram};

use super::axis::{self, Tick};

/// The picture of one tensor: bars above, and below them a row of ticks for each of up to three
/// groups, a tick where a code stands for a value.
#[derive(Debug)]
pub struct Chart {
    /// The least and the largest value that the picture shows: those of the tensor.
    pub low: f64,
    pub high: f64,
    /// The path of the bars.
    pub bars: String,
    /// Round values below the bars, and powers of ten beside them.
    pub values: Vec<Tick>,
    pub counts: Vec<Tick>,
    pub grids: Vec<Grid>,
    pub height: f64,
}

/// The values that the codes of one group stand for.
#[derive(Debug)]
pub struct Grid {
    /// The name of the group.
    pub label: String,
    /// How many there are in the picture.
    pub levels: u64,
    /// The path of the ticks, or of a band where there are too many to be told apart.
    pub path: String,
    /// Where the label stands.
    pub text_y: f64,
}

/// The width of the picture, in its own units.
pub const WIDTH: f64 = 640.0;
/// The height of the tallest bar.
pub const BARS: f64 = 120.0;
/// The room to the left of the bars, for how many there are.
pub const MARGIN: f64 = 44.0;
/// The room below the bars, for the values.
pub const AXIS: f64 = 22.0;
/// The distance from one row of ticks to the next.
const ROW: f64 = 26.0;
const TICK: f64 = 8.0;
/// The number of bars.
const COUNT: usize = 128;
/// Ticks that are closer than this are drawn as a band.
const APART: f64 = 1.6;

impl Chart {
    /// The chart of the values of a tensor, which has some, and its parameters, if it has any.
    pub fn new(histogram: &Histogram, params: Option<&QParams>) -> Self {
        let (low, high) = (histogram.min(), histogram.max());
        let below = BARS + AXIS;
        let grid = |params: &QParams| -> Vec<Grid> {
            let groups = groups_to_show(params.scale()).into_iter().enumerate();
            let grid = |(row, (group, what))| {
                Grid::new(params, group, what, (low, high), below + ROW * row as f64)
            };
            groups.map(grid).collect()
        };
        let grids = params.map(grid).unwrap_or_default();
        let heights = heights(histogram);
        let values = match low < high {
            true => axis::ticks(low, high, 8, WIDTH),
            false => vec![Tick {
                at: WIDTH / 2.0,
                label: super::say::error(&low),
            }],
        };
        Self {
            low,
            high,
            bars: bars(&heights),
            values,
            counts: counts(&heights),
            height: below + ROW * grids.len() as f64,
            grids,
        }
    }
}

/// The groups with the smallest, the median and the largest scale, and which they are.
fn groups_to_show(scales: &[f64]) -> Vec<(usize, &'static str)> {
    let mut order: Vec<usize> = (0..scales.len()).collect();
    order.sort_by(|&a, &b| scales[a].total_cmp(&scales[b]));
    match *order {
        [] => Vec::new(),
        [only] => vec![(only, "")],
        [least, largest] => vec![(least, "smallest"), (largest, "largest")],
        [least, .., largest] => vec![
            (least, "smallest"),
            (order[order.len() / 2], "median"),
            (largest, "largest"),
        ],
    }
}

/// Where a value stands in the picture.
fn position(x: f64, (low, high): (f64, f64)) -> f64 {
    // Halved, so that the width of the range does not overflow.
    match high / 2.0 - low / 2.0 {
        0.0 => WIDTH / 2.0,
        half => (x / 2.0 - low / 2.0) / half * WIDTH,
    }
}

/// How many values each bar stands for: a bin that lies in several is divided among them.
fn heights(histogram: &Histogram) -> Vec<f64> {
    let range = (histogram.min(), histogram.max());
    let mut heights = vec![0.0; COUNT];
    for bin in histogram.bins() {
        let bar = |x: f64| (position(x, range) / WIDTH * COUNT as f64).clamp(0.0, COUNT as f64);
        let (start, end) = (bar(bin.low), bar(bin.high));
        let last = (start as usize).max((end.ceil() as usize).saturating_sub(1));
        let touched = heights.iter_mut().enumerate().take(last + 1);
        for (i, height) in touched.skip((start as usize).min(COUNT - 1)) {
            let inside = end.min((i + 1) as f64) - start.max(i as f64);
            let share = match end > start {
                true => inside / (end - start),
                false => 1.0,
            };
            *height += bin.count as f64 * share;
        }
    }
    heights
}

/// The logarithm of the tallest bar's height.
fn largest(heights: &[f64]) -> f64 {
    heights.iter().copied().fold(0.0, f64::max).ln_1p()
}

/// Powers of ten, at most four, at the heights of bars of so many values.
fn counts(heights: &[f64]) -> Vec<Tick> {
    let largest = largest(heights);
    let decades = (0..19).take_while(|&power| 10_f64.powi(power).ln_1p() <= largest);
    let decades: Vec<i32> = decades.collect();
    let step = decades.len().div_ceil(4).max(1);
    let tick = |&power: &i32| Tick {
        at: BARS * (1.0 - 10_f64.powi(power).ln_1p() / largest),
        label: match power {
            0..=3 => format!("{}", 10_u32.pow(power.unsigned_abs())),
            4..=5 => format!("{}k", 10_u32.pow(power.unsigned_abs() - 3)),
            6..=8 => format!("{}M", 10_u32.pow(power.unsigned_abs() - 6)),
            _ => format!("1e{power}"),
        },
    };
    decades.iter().step_by(step).map(tick).collect()
}

/// Bars whose heights are logarithms, so that the few values far out can be seen.
fn bars(heights: &[f64]) -> String {
    let largest = largest(heights);
    let width = WIDTH / COUNT as f64;
    let mut path = String::new();
    for (i, height) in heights
        .iter()
        .enumerate()
        .filter(|(_, height)| **height > 0.0)
    {
        let top = BARS * (1.0 - height.ln_1p() / largest);
        let x = width * i as f64;
        // Writing to a string cannot fail.
        let _ = write!(path, "M{x:.1} {BARS}V{top:.1}h{width:.1}V{BARS}z");
    }
    path
}

impl Grid {
    fn new(params: &QParams, group: usize, what: &str, range: (f64, f64), y: f64) -> Self {
        let scale = params.scale()[group];
        let zero_point = match params.real_zero_point() {
            Some(zero_points) => zero_points[group],
            None => params.zero_point()[group] as f64,
        };
        let (qmin, qmax) = (params.scheme().qmin, params.scheme().qmax);
        let within = |q: f64| q.clamp(qmin as f64, qmax as f64) as i64;
        let first = within((range.0 / scale + zero_point).ceil());
        let last = within((range.1 / scale + zero_point).floor());
        let x = |q: i64| position((q as f64 - zero_point) * scale, range).clamp(0.0, WIDTH);
        let levels = last.abs_diff(first) + 1;
        let mut path = String::new();
        if (x(last) - x(first)) / (levels as f64) < APART && levels > 8 {
            let (start, end) = (x(first), x(last));
            let _ = write!(path, "M{start:.1} {y}H{end:.1}v{TICK}H{start:.1}z");
        } else {
            for q in first.min(last)..=last.max(first) {
                let _ = write!(path, "M{:.1} {y}h1v{TICK}h-1z", x(q) - 0.5);
            }
        }
        let label = match what {
            "" => format!("scale {scale:.4e}"),
            what => format!("{what} scale {scale:.4e}, group {group}"),
        };
        Self {
            label,
            levels,
            path,
            text_y: y + TICK + 11.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use chopi::{Chopi, Granularity, observer::Histograms};
    use ndarray::Array1;

    use super::*;

    fn chart(x: &[f32], bits: u32) -> (Histogram, Chart) {
        let x = Array1::from(x.to_vec());
        let mut chopi = Chopi::builder()
            .num_bits(bits)
            .symmetric(true)
            .build()
            .unwrap();
        chopi.calibrate(&x).unwrap();
        let histograms = Histograms::observe(&x, Granularity::PerTensor).unwrap();
        let histogram = histograms.groups()[0].clone();
        let chart = Chart::new(&histogram, chopi.params());
        (histogram, chart)
    }

    #[test]
    fn bars_hold_every_value() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32).sin() * 3.0 + 0.5).collect();
        for x in [
            &x[..],
            &[2.5],
            &[0.0; 3],
            &[-1.0, 1.0],
            &[f32::MAX, f32::MIN],
        ] {
            let (histogram, chart) = chart(x, 4);
            let sum: f64 = heights(&histogram).iter().sum();
            assert!(
                (sum - x.len() as f64).abs() < 1e-6 * x.len() as f64,
                "{sum}"
            );
            assert!(!chart.bars.contains("NaN") && !chart.bars.contains("inf"));
        }
    }

    #[test]
    fn a_tick_stands_where_a_code_does() {
        let (_, chart) = chart(&[-7.0, 1.0, 7.0], 4);
        let [grid] = &chart.grids[..] else {
            panic!("one group")
        };
        // -8 would stand for -8, which is out of the picture.
        assert_eq!(grid.levels, 15);
        assert_eq!(grid.path.matches('M').count(), 15);
        assert!(grid.path.starts_with("M-0.5 "), "{}", grid.path);
        assert!(grid.path.contains("M319.5 "), "{}", grid.path);
    }

    #[test]
    fn more_levels_than_can_be_seen_are_a_band() {
        let (_, chart) = chart(&[-7.0, 1.0, 7.0], 16);
        assert_eq!(chart.grids[0].levels, 65_535);
        assert_eq!(chart.grids[0].path.matches('M').count(), 1);
    }

    #[test]
    fn the_axes_have_round_numbers() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32).sin() * 3.0 + 0.5).collect();
        let (_, chart) = chart(&x, 8);
        let labels = |ticks: &[Tick]| -> Vec<String> {
            ticks.iter().map(|tick| tick.label.clone()).collect()
        };
        assert_eq!(labels(&chart.values), ["-2", "-1", "0", "1", "2", "3"]);
        assert_eq!(labels(&chart.counts), ["1", "10"]);
        assert!(chart.values.windows(2).all(|pair| pair[0].at < pair[1].at));
    }

    #[test]
    fn three_groups_stand_for_many() {
        let scales = [3.0, 1.0, 5.0, 2.0, 4.0];
        let shown: Vec<usize> = groups_to_show(&scales).iter().map(|g| g.0).collect();
        assert_eq!(shown, [1, 0, 2]);
        assert_eq!(groups_to_show(&[1.0]), [(0, "")]);
    }
}
