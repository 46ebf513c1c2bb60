//! What is printed: tables and JSON.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;

use crate::error::{Error, Result};

/// A table in Markdown, so that it can be pasted into one. The columns after the first `left` ones
/// hold numbers.
pub fn table(columns: &[&str], left: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_header(columns);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
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

/// A number of bytes with separators: 90,868,376.
pub fn grouped(bytes: usize) -> String {
    HumanCount(bytes as u64).to_string()
}

/// Prints a table or what follows it.
///
/// # Errors
/// What the system says, unless it is that nobody reads any more.
pub fn print(text: impl Display) -> Result<()> {
    printed(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints one JSON object.
///
/// # Errors
/// Likewise.
pub fn print_json(object: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(object).map_err(io::Error::from);
    text.map_err(Error::Print).and_then(print)
}

fn printed(result: io::Result<()>) -> Result<()> {
    match result.and_then(|()| io::stdout().lock().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Print(error)),
        _ => Ok(()),
    }
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
