//! Moments by name, in a file.

use std::collections::BTreeMap;
use std::path::Path;

use chopi_core::backend::{Backend, FloatTensor};
use chopi_formats::Dtype;
use chopi_formats::archive::{Archive, Entry};
use chopi_formats::element::Element;
use chopi_formats::header::Header;
use chopi_formats::write::Target;
use chopi_kernels::memory::collected;

use super::Moments;
use super::fixed::{POINT, offset, power_of_two};
use crate::error::{Error, Result};

/// The entry of the file's metadata that says what it is, and its value.
const FORMAT: (&str, &str) = ("chopi.moments", "1");

/// The ends of the names of the tensors of a layer.
const PARTS: [&str; 5] = ["abs_max", "second", "sum", "abs_sum", "rows"];

/// The moments of several layers, by name.
///
/// They can be saved, to go on later or to be merged with those of other data. The file is one of safetensors whose
/// metadata have `chopi.moments` = `1`. Of the layer NAME with n channels it holds
///
/// | tensor | type and shape | what it holds |
/// |---|---|---|
/// | `NAME.second` | U64 \[n·(n + 1)/2, 2\] | the lower triangle of Σ xᵀx, row by row, in quanta of 2^−64: the low and the high 64 bits of integers of 128 bits in two's complement |
/// | `NAME.sum`, `NAME.abs_sum` | U64 \[n, 2\] | Σ x and Σ \|x\|, as such integers |
/// | `NAME.abs_max` | F64 \[n\] | the largest \|x\| |
/// | `NAME.rows` | U64 \[1\] | the number of rows |
///
/// ```
/// # mod chopi { pub use chopi_ptq as ptq; }
/// use chopi::ptq::Statistics;
/// # use chopi_ndarray as _;
/// use ndarray::array;
///
/// let mut statistics = Statistics::default();
/// statistics.observe("layers.0.q_proj", &array![[1.0_f32, 2.0]])?;
///
/// let folder = tempfile::tempdir().expect("a folder for a file");
/// let path = folder.path().join("statistics.safetensors");
/// statistics.save(&path)?;
/// assert_eq!(Statistics::load(&path)?, statistics);
/// # Ok::<(), chopi_ptq::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics(pub BTreeMap<String, Moments>);

impl Statistics {
    /// Takes in a batch of inputs of the layer of this name, as [`Moments::observe`] does; a name that is new gets
    /// moments of as many channels as the last axis is long.
    ///
    /// # Errors
    /// [`Error::Named`] with the name and an error of [`Moments::new`] or [`Moments::observe`].
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        name: &str,
        inputs: &T,
    ) -> Result<()> {
        if let Some(moments) = self.0.get_mut(name) {
            return named(name, moments.observe(inputs));
        }
        let channels = inputs.with_host(|host| Ok(host.layout().shape().last().copied()));
        let channels = named(name, channels.map_err(Error::from))?;
        let mut moments = named(name, Moments::new(channels.unwrap_or(0)))?;
        named(name, moments.observe(inputs))?;
        self.0.insert(name.to_owned(), moments);
        Ok(())
    }

    /// Takes in what other statistics have seen, name by name; names that are new come with their moments.
    ///
    /// # Errors
    /// [`Error::Named`] with the name and an error of [`Moments::merge`]; the names before it are merged then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        for (name, theirs) in &other.0 {
            match self.0.get_mut(name) {
                Some(ours) => named(name, ours.merge(theirs))?,
                None => {
                    self.0.insert(name.clone(), theirs.clone());
                }
            }
        }
        Ok(())
    }

    /// Writes the moments to a file, which takes the place of the one that is there once it is whole and on disk.
    ///
    /// # Errors
    /// [`Error::Write`] where it cannot be written; then nothing is left of it.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.write(path)
            .map_err(|source| Error::Write(Box::new(source)))
    }

    fn write(&self, path: &Path) -> chopi_formats::Result<()> {
        let target = Target::new(path, &[], true)?;
        let format = BTreeMap::from([(FORMAT.0.to_owned(), FORMAT.1.to_owned())]);
        let mut header = Header::new(format);
        let mut parts = Vec::new();
        for (name, moments) in &self.0 {
            for (end, part) in [
                ("second", Part::Fixed(&moments.triangle)),
                ("sum", Part::Fixed(&moments.sums)),
                ("abs_sum", Part::Fixed(&moments.magnitudes)),
                ("abs_max", Part::Floats(&moments.abs_max)),
                ("rows", Part::Count([moments.rows])),
            ] {
                let (dtype, shape) = part.layout();
                let len = 8 * shape.iter().product::<usize>();
                let tensor = format!("{name}.{end}");
                let added = header.add(&tensor, dtype, &shape, len);
                let slot = added.map_err(|fault| chopi_formats::Error::Tensor {
                    path: path.to_owned(),
                    tensor,
                    fault: Box::new(fault),
                })?;
                parts.push((slot, part));
            }
        }
        let output = target.create(&header)?;
        for (slot, part) in parts {
            output.write(slot, 0, &part.bytes())?;
        }
        output.persist()
    }

    /// Reads a file that [`save`](Self::save) has written.
    ///
    /// # Errors
    /// [`Error::Read`] where it cannot be read or is not of safetensors; [`Error::File`] where it does not hold moments.
    pub fn load(path: &Path) -> Result<Self> {
        let file = StatisticsFile::open(path)?;
        let moments = file
            .names()
            .map(|name| Ok((name.to_owned(), file.read(name)?)));
        Ok(Self(moments.collect::<Result<_>>()?))
    }
}

/// A file of [`Statistics`], from which the moments of one layer at a time are read.
///
/// ```
/// # mod chopi { pub use chopi_ptq as ptq; }
/// use chopi::ptq::{Statistics, StatisticsFile};
/// # use chopi_ndarray as _;
/// use ndarray::array;
///
/// # let folder = tempfile::tempdir().expect("a folder for a file");
/// # let path = folder.path().join("statistics.safetensors");
/// let mut statistics = Statistics::default();
/// statistics.observe("layers.0.q_proj", &array![[1.0_f32, 2.0]])?;
/// statistics.save(&path)?;
///
/// let file = StatisticsFile::open(&path)?;
/// assert_eq!(file.names().collect::<Vec<_>>(), ["layers.0.q_proj"]);
/// assert_eq!(file.channels("layers.0.q_proj"), Some(2));
/// assert_eq!(file.read("layers.0.q_proj")?.mean(), [1.0, 2.0]);
/// # Ok::<(), chopi_ptq::Error>(())
/// ```
#[derive(Debug)]
pub struct StatisticsFile {
    archive: Archive,
}

impl StatisticsFile {
    /// Reads which layers the file has.
    ///
    /// # Errors
    /// [`Error::Read`] where it cannot be read or is not of safetensors; [`Error::File`] where it has other tensors
    /// than those of moments.
    pub fn open(path: &Path) -> Result<Self> {
        let archive = Archive::open(path).map_err(|source| Error::Read(Box::new(source)))?;
        if archive.metadata.get(FORMAT.0).map(String::as_str) != Some(FORMAT.1) {
            let (key, version) = FORMAT;
            return Err(bad_file(
                &archive,
                format!("the metadata do not say {key} = {version}"),
            ));
        }
        let file = Self { archive };
        let tensors = &file.archive.tensors;
        let is_part = |tensor: &String| match tensor.rsplit_once('.') {
            Some((name, part)) => {
                PARTS.contains(&part) && tensors.contains_key(&format!("{name}.rows"))
            }
            None => false,
        };
        match tensors.keys().all(is_part) {
            true => Ok(file),
            false => Err(bad_file(
                &file.archive,
                "it holds other tensors than those of moments".to_owned(),
            )),
        }
    }

    /// The names of the layers, in their order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let tensors = self.archive.tensors.keys();
        tensors.filter_map(|tensor| tensor.strip_suffix(".rows"))
    }

    /// The number of input channels of a layer, by the shapes of its tensors; none of a layer that is not there.
    pub fn channels(&self, name: &str) -> Option<usize> {
        let abs_max = self.archive.tensors.get(&format!("{name}.abs_max"))?;
        Some(abs_max.data.len() / size_of::<f64>())
    }

    /// Reads the moments of a layer.
    ///
    /// # Errors
    /// [`Error::Read`] where the file cannot be read; [`Error::File`] where it does not hold moments of this name.
    pub fn read(&self, name: &str) -> Result<Moments> {
        read(&self.archive, name)
    }
}

fn named<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|source| Error::Named {
        name: name.to_owned(),
        source: Box::new(source),
    })
}

fn bad_file(archive: &Archive, problem: String) -> Error {
    Error::File {
        path: archive.path.clone(),
        problem,
    }
}

/// A part of moments that is a tensor of the file.
enum Part<'a> {
    Fixed(&'a [i128]),
    Floats(&'a [f64]),
    Count([u64; 1]),
}

impl Part<'_> {
    fn layout(&self) -> (Dtype, Vec<usize>) {
        match self {
            Self::Fixed(values) => (Dtype::U64, vec![values.len(), 2]),
            Self::Floats(values) => (Dtype::F64, vec![values.len()]),
            Self::Count(values) => (Dtype::U64, vec![values.len()]),
        }
    }

    // In two's complement, little-endian, the low 64 bits come first.
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Fixed(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Floats(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Count(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }
}

/// The moments of a name.
fn read(archive: &Archive, name: &str) -> Result<Moments> {
    let abs_max: Vec<f64> = elements(archive, name, "abs_max", Dtype::F64, |_| Ok(()))?;
    let channels = abs_max.len();
    let expect = |expected: usize| {
        move |len: usize| match len == expected {
            true => Ok(()),
            false => Err(format!(
                "has {len} numbers, expected {expected} for {channels} channels"
            )),
        }
    };
    let rows: Vec<u64> = elements(archive, name, "rows", Dtype::U64, expect(1))?;
    let fixed = |part: &str, values: usize| {
        let words: Vec<u64> = elements(archive, name, part, Dtype::U64, expect(2 * values))?;
        let pairs = words.chunks_exact(2);
        Ok::<_, Error>(collected(
            pairs.map(|w| (i128::from(w[1]) << 64) | i128::from(w[0])),
        )?)
    };
    let mut moments = Moments {
        channels,
        rows: 0,
        triangle: fixed("second", offset(channels))?,
        sums: fixed("sum", channels)?,
        magnitudes: fixed("abs_sum", channels)?,
        abs_max,
    };
    let impossible = |what: &str| bad_file(archive, format!("{name:?}: {what}"));
    if channels == 0 {
        return Err(impossible("there are no channels"));
    }
    if !moments.abs_max.iter().all(|x| *x >= 0.0 && x.is_finite()) {
        return Err(impossible(
            "a largest value is not a finite number, at least 0",
        ));
    }
    moments.rows = named(name, moments.checked_rows(rows[0], &moments.abs_max))?;
    // As much as these rows can make, with what they were rounded by.
    let largest = moments
        .abs_max
        .iter()
        .fold(1.0_f64, |largest, x| largest.max(*x));
    let rows = moments.rows as f64;
    let most = rows * largest * largest * power_of_two(POINT) * (1.0 + 1e-5) + rows;
    let mut sums = (moments.triangle.iter())
        .chain(&moments.sums)
        .chain(&moments.magnitudes);
    if sums.any(|sum| sum.unsigned_abs() as f64 > most) {
        return Err(impossible("a sum is larger than its rows can make it"));
    }
    if (0..channels).any(|j| moments.triangle[offset(j) + j] < 0 || moments.magnitudes[j] < 0) {
        return Err(impossible(
            "a sum of squares or of absolute values is negative",
        ));
    }
    Ok(moments)
}

/// The elements of a tensor of a name.
fn elements<T: Element>(
    archive: &Archive,
    name: &str,
    part: &str,
    dtype: Dtype,
    check: impl Fn(usize) -> std::result::Result<(), String>,
) -> Result<Vec<T>> {
    let tensor = format!("{name}.{part}");
    let bad = |problem: String| bad_file(archive, format!("{tensor:?} {problem}"));
    let entry: &Entry = archive
        .tensors
        .get(&tensor)
        .ok_or_else(|| bad("is missing".to_owned()))?;
    if entry.dtype != dtype {
        return Err(bad(format!(
            "is of type {:?}, expected {dtype:?}",
            entry.dtype
        )));
    }
    check(entry.data.len() / size_of::<T>()).map_err(bad)?;
    let elements = entry
        .elements()
        .map_err(|fault| Error::Read(Box::new(archive.fault(&tensor, fault))))?;
    Ok(elements)
}
