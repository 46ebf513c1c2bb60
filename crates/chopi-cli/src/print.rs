//! Text on standard output.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

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

/// Prints a JSON object. Characters that [`printable`] escapes are escaped as JSON escapes them.
///
/// # Errors
/// [`Error::Print`] where standard output cannot be written, unless it is because nobody reads it any
/// more.
pub fn print_json(object: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(object).map_err(io::Error::from);
    let escaped = |text: String| printable_json(&text).into_owned();
    text.map(escaped).map_err(Error::Print).and_then(print)
}

/// JSON whose strings have what [`printable`] escapes as JSON escapes it. The layout has ends of lines, and no other
/// such characters outside of strings.
pub fn printable_json(text: &str) -> Cow<'_, str> {
    escaped(text, |c| format!("\\u{:04x}", c as u32), "\n")
}

/// Text from a file as it may be shown: characters that could move the cursor of a terminal, start a line of
/// their own, or show the text around them in another order are escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.escape_default().to_string(), "")
}

/// Text of many lines as a terminal may show it: like [`printable`], but lines end and tabs stay.
pub fn printable_text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.escape_default().to_string(), "\n\t")
}

/// A text with what [`is_shown`] does not allow escaped, but for the characters in `but`.
fn escaped<'a>(text: &'a str, escape: impl Fn(char) -> String, but: &str) -> Cow<'a, str> {
    let keep = |c: char| is_shown(c) || but.contains(c);
    if text.chars().all(keep) {
        return text.into();
    }
    let each = |c: char| match keep(c) {
        true => c.to_string(),
        false => escape(c),
    };
    text.chars().map(each).collect::<String>().into()
}

/// Whether a character shows itself and nothing more: no control character of C0 or C1, nothing that sets the
/// direction of text, and no separator of lines or paragraphs.
fn is_shown(c: char) -> bool {
    let directs = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let separates = matches!(c, '\u{2028}' | '\u{2029}');
    !(c.is_control() || directs || separates)
}

/// A value as what it displays.
pub fn as_text<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(printable("naïve/層.weight"), "naïve/層.weight");
        assert_eq!(printable("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        for c in [
            '\u{7f}', '\u{80}', '\u{9b}', '\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}', '\u{2028}',
        ] {
            assert_eq!(printable(&c.to_string()), format!("\\u{{{:x}}}", c as u32));
        }
    }
}
