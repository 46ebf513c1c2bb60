//! JSON as Python writes it: with `NaN`, `Infinity` and `-Infinity`, which standard JSON does not have, and with
//! integers of any length. Numbers are written back as they were read.

use std::borrow::Cow;
use std::path::Path;

use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};
use crate::file;

/// The numbers that only Python's JSON has.
const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
/// What stands before a number while it is kept as a string.
const MARK: &str = "\u{0}number\u{0}";

/// A file that holds a JSON object. Numbers that would be written otherwise than they were read, or that standard
/// JSON does not have, are kept, for [`text`].
///
/// # Errors
/// Where it cannot be read, or holds something else.
pub fn object(path: &Path) -> Result<Map<String, Value>> {
    let bytes = file::read(path)?;
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

/// The text with the numbers that cannot be kept as such as strings.
fn quoted(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let (mut rest, mut copied) = (text, 0);
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '"' => string_len(rest),
            '-' | '0'..='9' | 'I' | 'N' => number_len(rest),
            _ => c.len_utf8(),
        };
        let (token, after) = rest.split_at(len);
        if is_kept_as_text(token) {
            let start = text.len() - rest.len();
            out += &text[copied..start];
            out += &Value::from(format!("{MARK}{token}")).to_string();
            copied = start + len;
        }
        rest = after;
    }
    match copied {
        0 => text.into(),
        _ => (out + &text[copied..]).into(),
    }
}

/// The bytes of the string that a text begins with, the quotes included.
fn string_len(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let is_end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |end| end + 2)
}

/// The bytes of the number that a text begins with, or else of its first character.
fn number_len(text: &str) -> usize {
    if let Some(number) = NUMBERS.iter().find(|number| text.starts_with(**number)) {
        return number.len();
    }
    let is_part = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    text.bytes()
        .take_while(|&byte| is_part(byte))
        .count()
        .max(1)
}

/// Whether a piece of text is a number that would not be written as it is.
fn is_kept_as_text(token: &str) -> bool {
    if NUMBERS.contains(&token) {
        return true;
    }
    let is_number = token.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    is_number && is_standard(token) && !writes(token)
}

/// Whether a number is one of standard JSON, of any size: one that is too large for a float is read as an error.
fn is_standard(token: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let token = token.strip_prefix('-').unwrap_or(token);
    let (mantissa, exponent) = match token.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent),
        None => (token, "0"),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let leading = whole.len() > 1 && whole.starts_with('0');
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    digits(whole) && !leading && digits(fraction) && digits(exponent)
}

/// Whether a number is written as it is once it has been read.
fn writes(token: &str) -> bool {
    let number = serde_json::from_str::<Value>(token);
    let written = number.and_then(|number| serde_json::to_string(&number));
    written.is_ok_and(|written| written == token)
}

/// The value as one of standard JSON: a number that was kept is the nearest `f64`, and stays as it is where that is none
/// of standard JSON.
pub fn plain(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let number = text
                .strip_prefix(MARK)
                .filter(|number| is_kept_as_text(number));
            let number = number.and_then(|number| Number::from_f64(number.parse().ok()?));
            number.map_or_else(|| value.clone(), Value::Number)
        }
        Value::Array(values) => values.iter().map(plain).collect(),
        Value::Object(values) => values
            .iter()
            .map(|(key, value)| (key.clone(), plain(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// The text of a value, with the numbers as they were read.
///
/// # Errors
/// None that a value of JSON can give.
pub fn text(value: &Value) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let mark = Value::from(MARK).to_string();
    let mark = mark.trim_end_matches('"');
    let mut out = String::with_capacity(text.len() + 1);
    let mut rest = &*text;
    while let Some(start) = rest.find('"') {
        let (before, string) = rest.split_at(start);
        let (string, after) = string.split_at(string_len(string));
        let number = string.strip_prefix(mark).and_then(|s| s.strip_suffix('"'));
        out += before;
        // Only numbers: a file may hold a string that begins with the mark.
        out += match number {
            Some(number) if is_kept_as_text(number) => number,
            _ => string,
        };
        rest = after;
    }
    Ok(out + rest + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_kept_as_text_are_numbers_where_standard_json_has_them() {
        let text = b"{\"a\": [1e-06, 36893488147419103232, 2], \"b\": {\"c\": Infinity}, \"d\": \"1e-06\"}";
        let object = parse(text).unwrap();
        let plain = plain(&Value::from(object.clone()));
        let expected = serde_json::json!([1e-6, 36_893_488_147_419_103_232.0, 2]);
        assert_eq!(plain["a"], expected);
        assert_eq!(plain["b"], object["b"]);
        assert_eq!(plain["d"], "1e-06");
    }

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

    #[test]
    fn numbers_are_written_as_they_were_read() {
        let long = "{\n  \"a\": [\n    18446744073709551616,\n    -9223372036854775809,\n    1e-05,\n    \
                    1E400,\n    -0,\n    0.10,\n    1.0e+10,\n    123456789012345678901234567890.5\n  ],\n  \
                    \"b\": \"\\\\\",\n  \"c\": \"1e-05\"\n}\n";
        assert_eq!(text(&parse(long.as_bytes()).unwrap().into()).unwrap(), long);
        let object = parse(b"{\"a\": 7, \"b\": 0.5, \"c\": \"\\u0000number\\u0000x\"}").unwrap();
        assert_eq!(
            (object["a"].as_u64(), object["b"].as_f64()),
            (Some(7), Some(0.5))
        );
        assert!(
            text(&object.into())
                .unwrap()
                .contains("\"\\u0000number\\u0000x\"")
        );
        for bad in [
            "{\"a\": 01}",
            "{\"a\": 1.}",
            "{\"a\": 1e}",
            "{\"a\": --1}",
            "{\"a\": 1-2}",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
