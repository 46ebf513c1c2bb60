//! Tables in Markdown that fit the width of the terminal.

use std::fmt;

use console::{Style, Term, measure_text_width};

/// A table, whose first column has names.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    head: String,
    is_number: bool,
    /// Where the table is too wide, columns go in ascending order of this, those with one text alone first.
    goes: Option<u8>,
    /// Whether it is left out where all of its cells are empty.
    is_optional: bool,
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    text: String,
    /// What stands there where the table is too wide.
    short: Option<String>,
    tone: Tone,
}

/// How a cell looks on a terminal with colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    Faint,
    Yellow,
    Red,
}

impl Column {
    /// A column of texts.
    pub fn text(head: impl Into<String>) -> Self {
        Self {
            head: head.into(),
            is_number: false,
            goes: None,
            is_optional: false,
        }
    }

    /// A column of numbers, which end at the same place.
    pub fn number(head: impl Into<String>) -> Self {
        Self {
            is_number: true,
            ..Self::text(head)
        }
    }

    /// The column that is left out where the table is too wide, after those of smaller numbers.
    pub fn goes(self, order: u8) -> Self {
        let goes = Some(order);
        Self { goes, ..self }
    }

    /// The column that is left out where all of its cells are empty.
    pub fn optional(self) -> Self {
        let is_optional = true;
        Self {
            is_optional,
            ..self
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

impl Cell {
    /// The cell with another text for where the table is too wide.
    pub fn or(self, short: String) -> Self {
        let short = Some(short);
        Self { short, ..self }
    }

    pub fn tone(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }

    /// A signal-to-quantization-noise ratio: yellow below 20 dB, red below 10.
    pub fn sqnr(db: Option<f64>) -> Self {
        let tone = match db {
            Some(db) if db < 10.0 => Tone::Red,
            Some(db) if db < 20.0 => Tone::Yellow,
            _ => Tone::Plain,
        };
        let text = db.map(|db| format!("{db:.2}")).unwrap_or_default();
        Self::from(text).tone(tone)
    }

    fn shown(&self, is_short: bool) -> &str {
        match &self.short {
            Some(short) if is_short => short,
            _ => &self.text,
        }
    }
}

impl Table {
    pub fn new(columns: Vec<Column>) -> Self {
        let rows = Vec::new();
        Self { columns, rows }
    }

    /// Adds a row, of a cell for each column.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// How the table is laid out in this width, or as wide as it is.
    fn layout(&self, width: Option<usize>) -> Layout {
        let mut layout = Layout {
            columns: (0..self.columns.len()).filter(|&at| self.has(at)).collect(),
            is_short: false,
            first: usize::MAX,
        };
        let Some(width) = width else { return layout };
        let fits = |layout: &Layout| self.width(layout) <= width;
        layout.is_short = !fits(&layout);
        while !fits(&layout) {
            // One that can be said below the table goes before the others.
            let goes = |&at: &usize| {
                let goes = self.columns[at].goes?;
                Some((self.same_in_every_row(at).is_none(), goes, at))
            };
            let Some((_, _, first)) = layout.columns.iter().filter_map(goes).min() else {
                break;
            };
            layout.columns.retain(|&at| at != first);
        }
        let over = self.width(&layout).saturating_sub(width);
        layout.first = self
            .column_width(0, &layout)
            .saturating_sub(over)
            .max(SHORTEST);
        layout
    }

    /// Whether a column has something in it, or is there all the same.
    fn has(&self, at: usize) -> bool {
        let mut cells = self.rows.iter().filter_map(|row| row.get(at));
        !self.columns[at].is_optional || cells.any(|cell| !cell.text.is_empty())
    }

    fn column_width(&self, at: usize, layout: &Layout) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(at));
        let widths = cells.map(|cell| measure_text_width(cell.shown(layout.is_short)));
        let widest = widths.fold(measure_text_width(&self.columns[at].head), usize::max);
        match at {
            0 => widest.min(layout.first),
            _ => widest,
        }
    }

    /// The width of the lines.
    fn width(&self, layout: &Layout) -> usize {
        let columns = layout.columns.iter();
        columns
            .map(|&at| self.column_width(at, layout) + 3)
            .sum::<usize>()
            + 1
    }

    /// The table in this width, or as wide as it is. Columns that are left out and have the same text in
    /// every row are said below it.
    pub fn fitted(&self, width: Option<usize>) -> String {
        let layout = self.layout(width);
        let widths: Vec<usize> = layout
            .columns
            .iter()
            .map(|&at| self.column_width(at, &layout))
            .collect();
        let bold = Style::new().bold();
        let heads = layout.columns.iter().map(|&at| &self.columns[at]);
        let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
        let head = heads.clone().zip(&widths).map(|(column, &width)| {
            let text = padded(&column.head, width, column.is_number);
            bold.apply_to(text).to_string()
        });
        let rule = heads
            .zip(&widths)
            .map(|(column, &width)| match column.is_number {
                true => format!("{}:", "-".repeat(width + 1)),
                false => "-".repeat(width + 2),
            });
        let mut lines = vec![
            line(head.collect()),
            format!("|{}|", rule.collect::<Vec<_>>().join("|")),
        ];
        for row in &self.rows {
            let cells = layout.columns.iter().zip(&widths).map(|(&at, &width)| {
                let nothing = Cell::default();
                let cell = row.get(at).unwrap_or(&nothing);
                let text = shortened(cell.shown(layout.is_short), width);
                let text = padded(&text, width, self.columns[at].is_number);
                cell.tone.style().apply_to(text).to_string()
            });
            lines.push(line(cells.collect()));
        }
        let gone = (0..self.columns.len()).filter(|at| !layout.columns.contains(at));
        let notes = gone.filter_map(|at| self.same_in_every_row(at));
        let notes: Vec<String> = notes.collect();
        if !notes.is_empty() {
            lines.push(String::new());
            lines.extend(notes);
        }
        lines.join("\n")
    }

    fn same_in_every_row(&self, at: usize) -> Option<String> {
        let text = &self.rows.first()?.get(at)?.text;
        let same = |row: &Vec<Cell>| row.get(at).is_some_and(|cell| cell.text == *text);
        let head = &self.columns[at].head;
        (!text.is_empty() && self.rows.iter().all(same)).then(|| format!("{head}: {text}"))
    }
}

impl fmt::Display for Table {
    /// The table in the width of standard output.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fitted(width()))
    }
}

/// The width of the shortest names that are shown.
const SHORTEST: usize = 12;

/// Which columns are shown, and how.
#[derive(Debug)]
struct Layout {
    columns: Vec<usize>,
    is_short: bool,
    /// The greatest width of the first column.
    first: usize,
}

impl Tone {
    /// How it is shown on standard output: with colours where that is a terminal that has them and `NO_COLOR` is
    /// not set.
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Faint => Style::new().dim(),
            Self::Yellow => Style::new().yellow(),
            Self::Red => Style::new().red(),
        }
    }
}

/// The columns of standard output: those of `COLUMNS`, or of the terminal; none where it is not one.
fn width() -> Option<usize> {
    let terminal = Term::stdout().size_checked();
    let asked = std::env::var("COLUMNS").ok();
    columns(asked.as_deref(), terminal.map(|(_, columns)| columns))
}

fn columns(asked: Option<&str>, terminal: Option<u16>) -> Option<usize> {
    let asked = asked.and_then(|asked| asked.parse().ok());
    let columns = asked.or(terminal.map(usize::from));
    columns.filter(|&columns| columns > 0)
}

fn padded(text: &str, width: usize, right: bool) -> String {
    let space = " ".repeat(width.saturating_sub(measure_text_width(text)));
    match right {
        true => space + text,
        false => text.to_owned() + &space,
    }
}

/// A text of at most this width, of which the middle is left out where it is longer.
fn shortened(text: &str, width: usize) -> String {
    if measure_text_width(text) <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let take = |chars: &mut dyn Iterator<Item = char>, room: usize| {
        let mut taken = Vec::new();
        let mut used = 0;
        for c in chars {
            used += measure_text_width(c.encode_utf8(&mut [0; 4]));
            if used > room {
                break;
            }
            taken.push(c);
        }
        taken
    };
    let start = take(&mut text.chars(), room / 2);
    let end = take(&mut text.chars().rev(), room - room / 2);
    start
        .into_iter()
        .chain(['…'])
        .chain(end.into_iter().rev())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(vec![
            Column::text("tensor"),
            Column::text("dtype").goes(1),
            Column::text("scheme").goes(3),
            Column::number("bytes").goes(2),
            Column::number("dB"),
        ]);
        let rows = [
            ("encoder.0.weight", 8, "1,024", 9.5),
            ("層.1.weight", 4, "64", 41.0),
        ];
        for (name, bits, bytes, db) in rows {
            let scheme = Cell::from(format!("{bits} bits symmetric")).or(format!("{bits} sym"));
            table.row(vec![
                name.into(),
                "F32 → I8".into(),
                scheme,
                bytes.into(),
                Cell::sqnr(Some(db)),
            ]);
        }
        table
    }

    #[test]
    fn a_table_is_as_wide_as_it_needs_without_a_width() {
        let expected = "\
| tensor           | dtype    | scheme           | bytes |    dB |
|------------------|----------|------------------|------:|------:|
| encoder.0.weight | F32 → I8 | 8 bits symmetric | 1,024 |  9.50 |
| 層.1.weight      | F32 → I8 | 4 bits symmetric |    64 | 41.00 |";
        assert_eq!(table().fitted(None), expected);
        assert_eq!(table().fitted(Some(200)), expected);
    }

    #[test]
    fn texts_get_short_before_columns_go_and_names_last() {
        let table = table();
        let short = table.fitted(Some(60));
        assert!(
            short.contains("| 8 sym  |") && short.contains("bytes"),
            "{short}"
        );
        let narrow = table.fitted(Some(40));
        assert!(!narrow.contains("bytes"), "{narrow}");
        assert!(narrow.ends_with("\n\ndtype: F32 → I8"), "{narrow}");
        let narrowest = table.fitted(Some(24));
        assert!(narrowest.contains("| encod…weight | "), "{narrowest}");
        assert!(!narrowest.contains("scheme"), "{narrowest}");
        for width in 24..90 {
            let text = table.fitted(Some(width));
            let widest = text
                .lines()
                .filter(|line| line.starts_with('|'))
                .map(measure_text_width);
            assert!(widest.max() <= Some(width), "{width}:\n{text}");
        }
    }

    #[test]
    fn the_width_is_what_is_asked_for_or_that_of_the_terminal() {
        assert_eq!(columns(Some("100"), Some(80)), Some(100));
        assert_eq!(columns(Some("wide"), Some(80)), Some(80));
        assert_eq!(columns(None, Some(80)), Some(80));
        assert_eq!(columns(None, None), None);
        assert_eq!(columns(Some("0"), None), None);
    }

    #[test]
    fn the_middle_of_long_names_is_left_out() {
        assert_eq!(shortened("encoder.layer.0.weight", 12), "encod…weight");
        assert_eq!(shortened("short", 12), "short");
        assert_eq!(measure_text_width(&shortened("層層層層層層", 8)), 7);
    }
}
