//! Text on standard output.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::error::{Error, Result};
use crate::interrupt;

/// Prints a text and ends the line.
///
/// # Errors
/// [`Error::Print`] where standard output cannot be written, unless it is because nobody reads it any
/// more.
pub fn print(text: impl Display) -> Result<()> {
    // Whoever reads may let it wait for long.
    interrupt::settled();
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        _ => Ok(()),
    }
}

/// Prints a JSON object.
///
/// # Errors
/// [`Error::Print`] where standard output cannot be written, unless it is because nobody reads it any
/// more.
pub fn print_json(object: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(object).map_err(io::Error::from);
    text.map_err(Error::Print).and_then(print)
}

/// Text from a file as it may be shown: control characters, which could move the cursor of a
/// terminal or start a line of their own, are escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(printable("naïve/層.weight"), "naïve/層.weight");
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
    }
}
