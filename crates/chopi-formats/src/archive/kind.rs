//! Files that are named as safetensors and are something else, and headers that readers read differently.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

/// Why a file is not one of safetensors, where more can be said than that its header is not valid.
pub fn no_safetensors(bytes: &[u8]) -> Option<String> {
    // A header's length may look like the beginning of another kind of file.
    if let Some(header) = header(bytes).filter(|header| header.starts_with(b"{")) {
        return twice(header).map(|name| format!("its header has the name {name:?} twice"));
    }
    let begins = |with: &[u8]| bytes.starts_with(with);
    let start = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_whitespace())
        .count();
    let text = &bytes[start..(start + 15).min(bytes.len())];
    let lower = text.to_ascii_lowercase();
    let kind = if begins(b"version https://git-lfs.github.com/spec/") {
        "it is a Git LFS pointer; `git lfs pull` fetches the file that it stands for"
    } else if lower.starts_with(b"<!doctype html") || lower.starts_with(b"<html") {
        "it is an HTML page, such as a server sends instead of a file"
    } else if lower.starts_with(b"<?xml") {
        "it is an XML document, such as a server sends instead of a file"
    } else if begins(b"GGUF") {
        "it is a GGUF file"
    } else if begins(b"PK\x03\x04") {
        "it is a ZIP archive, as PyTorch saves models"
    } else if begins(b"\x80\x02") {
        "it is a Python pickle, as PyTorch saves models"
    } else if begins(b"\x89HDF") {
        "it is an HDF5 file"
    } else if begins(b"{") {
        "it is text, JSON as it seems"
    } else {
        return None;
    };
    Some(kind.to_owned())
}

/// The text of the header, if the file is as long as that.
fn header(bytes: &[u8]) -> Option<&[u8]> {
    let len = u64::from_le_bytes(*bytes.first_chunk()?);
    bytes[8..].get(..usize::try_from(len).ok()?)
}

/// A name that a header has twice: readers differ in which one they take.
fn twice(header: &[u8]) -> Option<String> {
    struct Names(Option<String>);

    impl<'de> Visitor<'de> for &mut Names {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
            let mut seen = BTreeSet::new();
            while let Some((name, IgnoredAny)) = entries.next_entry::<String, _>()? {
                if let Some(name) = seen.replace(name) {
                    self.0.get_or_insert(name);
                }
            }
            Ok(())
        }
    }

    let mut names = Names(None);
    let mut json = serde_json::Deserializer::from_slice(header);
    // What is wrong with the rest is said by the reader of the format.
    let _ = json.deserialize_map(&mut names);
    names.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_named() {
        let kind = |bytes: &[u8]| no_safetensors(bytes).unwrap_or_default();
        assert!(kind(b"version https://git-lfs.github.com/spec/v1\noid").contains("Git LFS"));
        assert!(kind(b"\n <!DOCTYPE html><html>").contains("HTML"));
        assert!(kind(b"<html lang=en>").contains("HTML"));
        assert!(kind(b"GGUF\x03\0\0\0").contains("GGUF"));
        assert!(kind(b"PK\x03\x04\x14\0").contains("ZIP"));
        let file =
            |header: &str| [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
        assert!(kind(&file(r#"{"a": {"b": 1}, "a": {"b": 1}}"#)).contains("\"a\" twice"));
        assert_eq!(kind(&file(r#"{"a": {"b": 1}, "b": {"b": 1, "b": 2}}"#)), "");
        assert_eq!(kind(b""), "");
        assert_eq!(kind(b"\x10\0\0"), "");
    }
}
