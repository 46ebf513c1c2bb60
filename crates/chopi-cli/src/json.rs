//! JSON as Python writes it: with `NaN`, `Infinity` and `-Infinity`, which standard JSON does not have.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The numbers that only Python's JSON has.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
/// What stands before such a number while it is kept as a string.
const MARK: &str = "\u{0}number\u{0}";

/// A file that holds a JSON object. Numbers that standard JSON does not have are kept, for [`text`].
///
/// # Errors
/// Where it cannot be read, or holds something else.
pub fn object(path: &Path) -> Result<Map<String, Value>> {
    let bytes = fs::read(path).map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(&bytes).map_err(|reason| Error::Json {
        path: path.to_owned(),
        reason,
    })
}

fn parse(bytes: &[u8]) -> std::result::Result<Map<String, Value>, String> {
    // Python reads a file that begins with the mark of UTF-8, too.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str(&quoted(text)).map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// The text with the numbers that standard JSON does not have as strings.
fn quoted(text: &str) -> Cow<'_, str> {
    if !NUMBERS.iter().any(|number| text.contains(number)) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 64);
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let number = NUMBERS.iter().find(|number| rest.starts_with(**number));
        let taken = match (in_string, c, number) {
            (true, '\\', _) => rest.chars().take(2).map(char::len_utf8).sum(),
            (_, '"', _) => {
                in_string = !in_string;
                1
            }
            (false, _, Some(number)) => {
                out += &Value::from(format!("{MARK}{number}")).to_string();
                rest = &rest[number.len()..];
                continue;
            }
            _ => c.len_utf8(),
        };
        out += &rest[..taken];
        rest = &rest[taken..];
    }
    out.into()
}

/// The text of a value, with the numbers as Python reads them.
///
/// # Errors
/// None that a value of JSON can give.
pub fn text(value: &Value) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(value)?;
    for number in NUMBERS {
        text = text.replace(&Value::from(format!("{MARK}{number}")).to_string(), number);
    }
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_python_come_back() {
        let python = "{\n  \"Infinity\": \"-Infinity \\\" NaN\",\n  \"limits\": [\n    0.0,\n    \
                      Infinity,\n    -Infinity,\n    NaN\n  ]\n}\n";
        let object = parse(python.as_bytes()).unwrap();
        assert_eq!(text(&object.into()).unwrap(), python);
        for bad in [
            "{\"a\": Infinite}",
            "{\"a\": -NaN}",
            "[NaN]",
            "{\"a\": +Infinity}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\xef\xbb\xbf{}").unwrap().is_empty());
    }
}
