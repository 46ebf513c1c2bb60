//! The order of a model's tensors: `layers.2` comes before `layers.10`.

/// What names are sorted by: their texts, and between them their whole numbers by size.
pub fn key(name: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let is_number = rest.starts_with(|c: char| c.is_ascii_digit());
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number);
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        pieces.push(match is_number {
            // Of two numbers without leading zeros the one with more digits is the larger.
            true => {
                let digits = piece.trim_start_matches('0');
                Piece::Number(digits.len(), digits)
            }
            false => Piece::Text(piece),
        });
        rest = after;
    }
    pieces
}

/// A piece of a name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Piece<'a> {
    /// Digits without leading zeros, and before them how many there are.
    Number(usize, &'a str),
    Text(&'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ordered_by_size() {
        let mut names = ["l.10.w", "l.2.w", "l.w", "l.2.b", "a", "l.002.c", "9"];
        names.sort_by_key(|name| key(name));
        assert_eq!(
            names,
            ["9", "a", "l.2.b", "l.002.c", "l.2.w", "l.10.w", "l.w"]
        );
    }
}
