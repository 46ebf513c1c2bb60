//! Tables for the terminal.

use comfy_table::{CellAlignment, Table, presets};

/// A table: the first `text` columns are texts, the others numbers.
pub fn table(header: &[&str], text: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(text) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A count with its thousands apart: `1,048,576`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_apart() {
        let numbers = [0, 999, 1_000, 22_713_216].map(super::count);
        assert_eq!(numbers, ["0", "999", "1,000", "22,713,216"]);
    }
}
