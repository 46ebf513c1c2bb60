//! What the page says of a number.

/// Decibels: an exact result has infinitely many.
pub fn db(db: &f64) -> String {
    match db {
        db if db.is_infinite() && *db > 0.0 => "exact".to_owned(),
        db => format!("{db:.2}"),
    }
}

/// An error or a scale, with four digits.
pub fn error(error: &f64) -> String {
    match error.abs() {
        0.0 => "0".to_owned(),
        size if (1e-2..1e4).contains(&size) => {
            let digits = 3 - size.log10().floor() as i32;
            format!("{error:.*}", digits.max(0) as usize)
        }
        _ => format!("{error:.3e}"),
    }
}

pub fn grouped(number: &usize) -> String {
    crate::report::grouped(*number)
}

/// A number of bytes with three digits and a unit, a thousand of the one before.
pub fn bytes(number: &usize) -> String {
    let (unit, name) = unit(*number);
    match *number as f64 / unit {
        value if unit == 1.0 => format!("{value} {name}"),
        value if value < 10.0 => format!("{value:.2} {name}"),
        value if value < 100.0 => format!("{value:.1} {name}"),
        value => format!("{value:.0} {name}"),
    }
}

/// The largest unit of bytes that is not above a number of them, and its name.
pub fn unit(bytes: usize) -> (f64, &'static str) {
    match bytes {
        0..1_000 => (1.0, "bytes"),
        1_000..1_000_000 => (1e3, "kB"),
        1_000_000..1_000_000_000 => (1e6, "MB"),
        _ => (1e9, "GB"),
    }
}

/// A part as a share of the whole, in percent.
pub fn percent(part: &usize, whole: &usize) -> String {
    format!("{:.1}", 100.0 * *part as f64 / (*whole).max(1) as f64)
}

/// The number that a column is sorted by, "" where there is none.
pub fn key(number: &Option<f64>) -> String {
    match number {
        Some(number) if number.is_infinite() => "1e999".to_owned(),
        Some(number) => format!("{number:e}"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_they_are_meant() {
        assert_eq!(db(&f64::INFINITY), "exact");
        assert_eq!(db(&-1.234), "-1.23");
        assert_eq!(error(&0.0), "0");
        assert_eq!(error(&-0.636_177_2), "-0.6362");
        assert_eq!(error(&4.434_217_5), "4.434");
        assert_eq!(error(&1.234_56e-5), "1.235e-5");
        assert_eq!(key(&Some(f64::INFINITY)), "1e999");
        assert_eq!(key(&None), "");
        assert_eq!(bytes(&999), "999 bytes");
        assert_eq!(bytes(&90_868_376), "90.9 MB");
        assert_eq!(percent(&1, &4), "25.0");
        assert_eq!(percent(&0, &0), "0.0");
    }
}
