//! What was compared, a row for each scheme, and the sums.

use chopi::Convention;
use chopi_conformance::vectors::{Count, Differences, Settings};

use crate::table::{count, table};

/// The differences of each scheme, in the order of the conventions.
#[derive(Debug)]
pub struct Report {
    conventions: Vec<Convention>,
    rows: Vec<SchemeRow>,
}

/// One scheme: a convention, an element type, bits, a symmetry and a granularity.
#[derive(Debug)]
struct SchemeRow {
    convention: Convention,
    libraries: String,
    scheme: CheckedScheme,
    differences: Differences,
}

#[derive(Clone, Debug, PartialEq)]
struct CheckedScheme {
    float: String,
    bits: u32,
    codes: (i64, i64),
    symmetry: &'static str,
    granularity: &'static str,
}

impl CheckedScheme {
    fn new(settings: &Settings) -> Self {
        Self {
            float: settings.float.clone(),
            bits: settings.bits,
            codes: (settings.qmin, settings.qmax),
            symmetry: if settings.symmetric {
                "symmetric"
            } else {
                "asymmetric"
            },
            granularity: match (settings.granularity.as_deref(), settings.axis) {
                (None, _) => "per tensor",
                (Some("channel"), Some(0)) => "per channel, axis 0",
                (Some("channel"), _) => "per channel, axis 1",
                (_, Some(0)) => "per group, axis 0",
                _ => "per group, axis 1",
            },
        }
    }
}

const COUNTS: [&str; 8] = [
    "refused",
    "values",
    "≠ codes",
    "≠ scales",
    "≠ zero points",
    "≠ dequantized",
    "≠ fake-quantized",
    "≠ outcomes",
];

fn counts(d: &Differences) -> [String; 8] {
    let different = |c: Count| {
        if c.compared > 0 {
            count(c.different)
        } else {
            "–".to_owned()
        }
    };
    [
        count(d.refused),
        count(d.values),
        different(d.codes),
        different(d.scales),
        different(d.zero_points),
        different(d.dequantized),
        different(d.fake_quantized),
        count(d.outcomes),
    ]
}

impl Report {
    pub fn new(conventions: &[Convention]) -> Self {
        Self {
            conventions: conventions.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a case; says whether it is the first of its row.
    pub fn add(
        &mut self,
        convention: Convention,
        libraries: &str,
        settings: &Settings,
        differences: Differences,
    ) -> bool {
        let scheme = CheckedScheme::new(settings);
        let is_row = |row: &&mut SchemeRow| row.convention == convention && row.scheme == scheme;
        match self.rows.iter_mut().find(is_row) {
            Some(row) => row.differences.add(differences),
            None => {
                self.rows.push(SchemeRow {
                    convention,
                    libraries: libraries.to_owned(),
                    scheme,
                    differences,
                });
                return true;
            }
        }
        false
    }

    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    fn of(&self, convention: Convention) -> impl Iterator<Item = &SchemeRow> {
        self.rows
            .iter()
            .filter(move |row| row.convention == convention)
    }

    pub fn all_compared(&self) -> bool {
        let compared =
            |&convention: &Convention| self.of(convention).any(|row| row.differences.values > 0);
        self.conventions.iter().all(compared)
    }

    pub fn any_differences(&self) -> bool {
        self.rows.iter().any(|row| row.differences.any())
    }

    /// A convention in a line.
    pub fn line(&self, convention: Convention) -> String {
        let mut sum = Differences::default();
        self.of(convention)
            .for_each(|row| sum.add(row.differences.clone()));
        let differ = if sum.any() {
            "some differ"
        } else {
            "none differ"
        };
        let (schemes, values) = (self.of(convention).count(), count(sum.values));
        format!(
            "{}: {schemes} schemes, {values} values, {differ}",
            convention.name()
        )
    }

    /// Prints a row for each scheme, then one for each convention, symmetry and granularity.
    pub fn print(&self) {
        let header = [
            "convention",
            "type",
            "bits",
            "codes",
            "symmetry",
            "granularity",
        ];
        let mut schemes = table(&[&header[..], &COUNTS].concat(), header.len());
        let header = [
            "convention",
            "symmetry",
            "granularity",
            "schemes",
            "values of the fewest",
        ];
        let mut sums = table(&[&header[..], &COUNTS].concat(), 3);
        let mut total = Differences::default();
        for &convention in Convention::ALL {
            let mut families: Vec<(&CheckedScheme, Vec<&SchemeRow>)> = Vec::new();
            for row in self.of(convention) {
                let s = &row.scheme;
                let texts = [
                    convention.name().to_owned(),
                    s.float.clone(),
                    s.bits.to_string(),
                    format!("{}..={}", s.codes.0, s.codes.1),
                    s.symmetry.to_owned(),
                    s.granularity.to_owned(),
                ];
                schemes.add_row(texts.into_iter().chain(counts(&row.differences)));
                let is_family = |(of, _): &&mut (&CheckedScheme, Vec<&SchemeRow>)| {
                    (of.symmetry, of.granularity) == (s.symmetry, s.granularity)
                };
                match families.iter_mut().find(is_family) {
                    Some((_, rows)) => rows.push(row),
                    None => families.push((s, vec![row])),
                }
                total.add(row.differences.clone());
            }
            for (s, rows) in families {
                let mut sum = Differences::default();
                rows.iter().for_each(|row| sum.add(row.differences.clone()));
                let fewest = rows.iter().map(|row| row.differences.values).min();
                let texts = [
                    convention.name().to_owned(),
                    s.symmetry.to_owned(),
                    s.granularity.to_owned(),
                    rows.len().to_string(),
                    count(fewest.unwrap_or_default()),
                ];
                sums.add_row(texts.into_iter().chain(counts(&sum)));
            }
        }
        let texts = ["all", "", "", &self.rows.len().to_string(), ""].map(str::to_owned);
        sums.add_row(texts.into_iter().chain(counts(&total)));
        println!("{schemes}\n\n{sums}\n");
        for &convention in Convention::ALL {
            if let Some(row) = self.of(convention).next() {
                println!("{}: {}", convention.name(), row.libraries);
            }
        }
        println!(
            "A scheme is an element type, a number of bits, an integer range, a symmetry and a \
             granularity. Refused: the library's parameters are no numbers that can be used, and chopi \
             gives an error. The columns with ≠ count differences; – is what the library does not give."
        );
        for row in self.rows.iter().filter(|row| row.differences.any()) {
            println!("{}", row.differences);
        }
    }
}
