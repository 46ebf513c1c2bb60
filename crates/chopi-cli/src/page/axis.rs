//! Round numbers for the axes of the page's pictures.

/// A mark of an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Tick {
    /// Where it stands, in the units of the picture.
    pub at: f64,
    pub label: String,
}

/// The multiples of 1, 2 or 5 times a power of ten that lie in `low..=high`, in steps that give at most
/// `count` + 1 of them, with the step. None where the range is empty, or too narrow for doubles to divide.
pub fn round_numbers(low: f64, high: f64, count: usize) -> (Vec<f64>, f64) {
    // Halved, so that the width of the range does not overflow.
    let half = high / 2.0 - low / 2.0;
    let least = half / count as f64 * 2.0;
    let magnitude = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * magnitude);
    let Some(&step) = steps.iter().find(|step| **step >= least) else {
        return (Vec::new(), 0.0);
    };
    if !(step.is_normal() && step > low.abs().max(high.abs()) * 1e-12) {
        return (Vec::new(), 0.0);
    }
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    ((first..=last).map(|i| i as f64 * step).collect(), step)
}

/// A multiple of `step` with the digits that it needs beside its neighbours.
pub fn label(value: f64, step: f64) -> String {
    let digits = |x: f64| (x.abs().log10() + 1e-9).floor() as i32;
    let exponent = digits(step);
    if value == 0.0 {
        return "0".to_owned();
    }
    if (-5..=5).contains(&exponent) {
        return format!("{value:.*}", exponent.min(0).unsigned_abs() as usize);
    }
    let precision = (digits(value) - exponent).clamp(0, 17);
    format!("{value:.*e}", precision as usize)
}

/// The marks of an axis of `width` that runs from `low` to `high`.
pub fn ticks(low: f64, high: f64, count: usize, width: f64) -> Vec<Tick> {
    let (values, step) = round_numbers(low, high, count);
    let half = high / 2.0 - low / 2.0;
    let tick = |value: f64| Tick {
        at: (value / 2.0 - low / 2.0) / half * width,
        label: label(value, step),
    };
    values.into_iter().map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64, count: usize) -> Vec<String> {
        let ticks = ticks(low, high, count, 100.0);
        ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn axes_have_round_numbers() {
        let expected = ["0", "1", "2", "3", "4"];
        assert_eq!(labels(-0.6361772, 4.4342175, 6), expected);
        assert_eq!(
            labels(0.0, 0.7, 4),
            ["0.0", "0.2", "0.4", "0.6"].map(|s| if s == "0.0" { "0" } else { s })
        );
        assert_eq!(
            labels(-250.0, 250.0, 5),
            ["-200", "-100", "0", "100", "200"]
        );
        assert_eq!(labels(0.0, 3e-9, 3), ["0", "1e-9", "2e-9", "3e-9"]);
        assert_eq!(
            labels(1e9, 1.5e9, 5),
            ["1.0e9", "1.1e9", "1.2e9", "1.3e9", "1.4e9", "1.5e9"]
        );
    }

    #[test]
    fn every_range_of_doubles_has_few_marks_inside_of_it() {
        for (low, high) in [
            (f64::MIN, f64::MAX),
            (0.0, f64::MIN_POSITIVE),
            (0.0, 5e-324),
            (1e10, 1e10 + 1e-6),
            (3.0, 3.0),
            (-1e-300, 1e300),
            (0.1, 0.30000000000000004),
        ] {
            for count in 1..12 {
                let ticks = ticks(low, high, count, 640.0);
                assert!(ticks.len() <= count + 1, "{low} {high} {count}: {ticks:?}");
                for tick in ticks {
                    assert!((-1e-6..=640.000_001).contains(&tick.at), "{tick:?}");
                }
            }
        }
    }
}
