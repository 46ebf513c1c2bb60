//! What real libraries computed, and chopi beside it: the cases that `tests/conformance/vectors.py`
//! writes.

use std::error::Error;
use std::fmt;

use chopi_core::{
    Chopi, CodeRange, Convention, Granularity, QParams,
    backend::{Backend, FloatTensor, FloatType, IntTensor, bf16, f16},
    convention::ZeroPoints,
};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// The settings of a case.
#[derive(Clone, Debug, Deserialize)]
pub struct Settings {
    /// The element type: `f16`, `bf16`, `f32` or `f64`.
    pub float: String,
    /// The number of bits.
    pub bits: u32,
    /// The symmetry.
    #[serde(default)]
    pub symmetric: bool,
    /// The smallest code.
    pub qmin: i64,
    /// The largest code.
    pub qmax: i64,
    /// `channel`, `group`, or none for one set of parameters.
    pub granularity: Option<String>,
    /// The axis of the channels or of the groups.
    pub axis: Option<isize>,
    /// The size of a group.
    pub size: Option<usize>,
    /// Whether the library calibrated on `x` itself.
    #[serde(default)]
    same: bool,
    /// Whether there are no parameters that can be used.
    #[serde(default)]
    refused: bool,
}

/// Elements in row-major order, as the `f64` that equal them.
#[derive(Clone, Debug)]
pub struct Values {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Vec<f64>,
}

/// A case: inputs, and what the library gave.
#[derive(Clone, Debug)]
pub struct Case {
    /// The settings.
    pub settings: Settings,
    /// The element type.
    pub float: FloatType,
    /// What to quantize.
    pub x: Values,
    /// What to calibrate on, if it is another tensor.
    data: Option<Values>,
    scale: Vec<f64>,
    zero_point: Vec<f64>,
    codes: Option<Vec<f64>>,
    dequantized: Option<Vec<f64>>,
    fake_quantized: Option<Vec<f64>>,
}

/// The numbers of a tensor; none of its types has one that `f64` does not.
fn values(tensors: &SafeTensors<'_>, name: &str) -> Result<Option<Values>, Box<dyn Error>> {
    fn read<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().map(|&bytes| number(bytes)).collect()
    }
    let Ok(tensor) = tensors.tensor(name) else {
        return Ok(None);
    };
    let bytes = tensor.data();
    let data = match tensor.dtype() {
        Dtype::F16 => read(bytes, |b| f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => read(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        Dtype::F32 => read(bytes, |b| f32::from_le_bytes(b).into()),
        Dtype::F64 => read(bytes, f64::from_le_bytes),
        Dtype::I8 => read(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U8 => read(bytes, |b| u8::from_le_bytes(b).into()),
        Dtype::I16 => read(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::U16 => read(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::I32 => read(bytes, |b| i32::from_le_bytes(b).into()),
        other => return Err(format!("{name} is of type {other}").into()),
    };
    Ok(Some(Values {
        shape: tensor.shape().to_vec(),
        data,
    }))
}

/// The cases in a file, and the versions of the libraries that computed them.
///
/// # Errors
/// Where the bytes are not what `vectors.py` writes.
pub fn read(bytes: &[u8]) -> Result<(String, Vec<Case>), Box<dyn Error>> {
    let (_, header) = SafeTensors::read_metadata(bytes)?;
    let text = |key: &str| {
        let metadata = header.metadata().as_ref();
        let text = metadata.and_then(|metadata| metadata.get(key));
        text.ok_or_else(|| format!("no {key} in the metadata"))
    };
    let settings: Vec<Settings> = serde_json::from_str(text("cases")?)?;
    let tensors = SafeTensors::deserialize(bytes)?;
    let case = |(index, settings): (usize, Settings)| -> Result<Case, Box<dyn Error>> {
        let get = |name: &str| values(&tensors, &format!("{index}.{name}"));
        let data =
            |name: &str| -> Result<_, Box<dyn Error>> { Ok(get(name)?.map(|values| values.data)) };
        let float = match settings.float.as_str() {
            "f16" => FloatType::F16,
            "bf16" => FloatType::BF16,
            "f32" => FloatType::F32,
            "f64" => FloatType::F64,
            other => return Err(format!("case {index} is of {other}").into()),
        };
        let scale = data("scale")?.unwrap_or_default();
        Ok(Case {
            settings,
            float,
            x: get("x")?.ok_or_else(|| format!("case {index} has no x"))?,
            data: get("data")?,
            zero_point: data("zero_point")?.unwrap_or_else(|| vec![0.0; scale.len()]),
            scale,
            codes: data("codes")?,
            dequantized: data("dequantized")?,
            fake_quantized: data("fake_quantized")?,
        })
    };
    let cases = settings.into_iter().enumerate().map(case);
    Ok((text("libraries")?.clone(), cases.collect::<Result<_, _>>()?))
}

impl Settings {
    /// Which elements share parameters.
    pub fn granularity(&self) -> Granularity {
        let axis = self.axis.unwrap_or(0);
        match (self.granularity.as_deref(), self.size) {
            (None, _) => Granularity::PerTensor,
            (_, None) => Granularity::PerChannel { axis },
            (_, Some(size)) => Granularity::PerGroup { axis, size },
        }
    }

    /// The quantizer, not calibrated.
    fn chopi(&self, convention: Convention) -> chopi_core::Result<Chopi> {
        let (qmin, qmax) = (self.qmin, self.qmax);
        Chopi::builder()
            .num_bits(self.bits)
            .symmetric(self.symmetric)
            .range(CodeRange::Custom { qmin, qmax })
            .granularity(self.granularity())
            .convention(convention)
            .build()
    }
}

/// How the tensors of a backend are made and read.
#[derive(Debug)]
pub struct Tensors<M, C, F> {
    /// A float tensor of the case's type.
    pub make: M,
    /// The codes of an integer tensor.
    pub codes: C,
    /// The elements of a float tensor.
    pub floats: F,
}

impl Case {
    /// Does what the library did, with the tensors of a backend, and compares.
    ///
    /// Calibrates where the library did; quantizes, dequantizes and fake-quantizes with the library's
    /// own parameters. `at` says in the notes of differences which case it is.
    pub fn compare<B: Backend, T: FloatTensor<B>>(
        &self,
        convention: Convention,
        tensors: Tensors<
            impl Fn(&Values) -> T,
            impl Fn(&T::Int) -> Vec<f64>,
            impl Fn(&<T::Int as IntTensor<B>>::Float) -> Vec<f64>,
        >,
        at: &str,
    ) -> Differences {
        let mut differences = Differences::default();
        if let Err(error) = self.try_compare(convention, tensors, at, &mut differences) {
            differences.outcome(format!("{at}: {error}"));
        }
        differences
    }

    fn try_compare<B: Backend, T: FloatTensor<B>>(
        &self,
        convention: Convention,
        tensors: Tensors<
            impl Fn(&Values) -> T,
            impl Fn(&T::Int) -> Vec<f64>,
            impl Fn(&<T::Int as IntTensor<B>>::Float) -> Vec<f64>,
        >,
        at: &str,
        differences: &mut Differences,
    ) -> chopi_core::Result<()> {
        let x = (tensors.make)(&self.x);
        let mut calibrated = self.settings.chopi(convention)?;
        let scheme = calibrated.scheme().clone();
        if self.settings.refused {
            differences.refused = 1;
            if calibrated.calibrate(&x).is_ok() {
                differences.outcome(format!("{at}: is not refused"));
            }
            return Ok(());
        }
        differences.cases = 1;
        differences.values = self.x.data.len() as u64;
        match &self.data {
            Some(data) => calibrated.calibrate(&(tensors.make)(data))?,
            None if self.settings.same => calibrated.calibrate(&x)?,
            None => {}
        }
        if let Some(params) = calibrated.params() {
            let reals = params.real_zero_point().map(<[f64]>::to_vec);
            let integers = || params.zero_point().iter().map(|&z| z as f64).collect();
            let zeros: Vec<f64> = reals.unwrap_or_else(integers);
            let (scales, zero_points) = (&mut differences.scales, &mut differences.zero_points);
            let notes = &mut differences.notes;
            let of_group = |group: usize| format!("{at}: group {group}");
            scales.compare("scale", params.scale(), &self.scale, of_group, notes);
            // Zero points are numbers: the sign of a zero does not count.
            let unsigned = |zeros: &[f64]| zeros.iter().map(|z| z + 0.0).collect::<Vec<_>>();
            let (got, expected) = (unsigned(&zeros), unsigned(&self.zero_point));
            zero_points.compare("zero point", &got, &expected, of_group, notes);
        }

        let granularity = convention.granularity_for(scheme.granularity, self.x.shape.len());
        let (shape, scale) = (granularity.params_shape(&self.x.shape)?, self.scale.clone());
        let zeros = self.zero_point.clone();
        let params = if convention.zero_points(&scheme) == ZeroPoints::Real {
            QParams::with_real_zero_points(scheme, convention, self.float, shape, scale, zeros)
        } else {
            let zeros = zeros.into_iter().map(|z| z as i64).collect();
            QParams::new(scheme, convention, self.float, shape, scale, zeros)
        };
        let mut chopi = Chopi::from_params(params?);
        let q = chopi.quantize(&x)?;
        let (dequantized, fake) = (chopi.dequantize(&q)?, chopi.fake_quantize(&x)?);

        let of_element = |index: usize| {
            let (s, z) = self.parameters_at(index);
            format!("{at}: x[{index}] {:e}, s {s:e}, z {z}", self.x.data[index])
        };
        // A library may have one of the two only; they are equal.
        let values = self.dequantized.as_ref().or(self.fake_quantized.as_ref());
        let fakes = self.fake_quantized.as_ref().or(self.dequantized.as_ref());
        let notes = &mut differences.notes;
        for (what, count, got, expected) in [
            (
                "code",
                &mut differences.codes,
                (tensors.codes)(&q),
                self.codes.as_ref(),
            ),
            (
                "dequantized",
                &mut differences.dequantized,
                (tensors.floats)(&dequantized),
                values,
            ),
            (
                "fake-quantized",
                &mut differences.fake_quantized,
                (tensors.floats)(&fake),
                fakes,
            ),
        ] {
            if let Some(expected) = expected {
                count.compare(what, &got, expected, of_element, notes);
            }
        }
        Ok(())
    }

    /// The scale and the zero point of the group of the element at this index.
    fn parameters_at(&self, index: usize) -> (f64, f64) {
        let groups = crate::oracle::groups(&self.x.shape, self.settings.granularity());
        (self.scale[groups[index]], self.zero_point[groups[index]])
    }
}

/// How many numbers of a sort were compared, and how many differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Count {
    /// Numbers compared.
    pub compared: u64,
    /// Numbers that differ in any bit.
    pub different: u64,
}

impl Count {
    /// Compares to the bit; the first difference is noted.
    fn compare(
        &mut self,
        what: &str,
        got: &[f64],
        expected: &[f64],
        of: impl Fn(usize) -> String,
        notes: &mut Vec<String>,
    ) {
        self.compared += expected.len() as u64;
        self.different += got.len().abs_diff(expected.len()) as u64;
        let mut pairs = got.iter().zip(expected).enumerate();
        let differs =
            |&(_, (got, expected)): &(usize, (&f64, &f64))| got.to_bits() != expected.to_bits();
        if let Some((index, (got, expected))) = pairs.find(differs) {
            let at = of(index);
            notes.push(format!("{at}: {what} {got:e}, not {expected:e}"));
            self.different += 1 + pairs.filter(differs).count() as u64;
        }
    }

    fn add(&mut self, other: Self) {
        self.compared += other.compared;
        self.different += other.different;
    }
}

/// What was compared, and what of it differs.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Cases compared.
    pub cases: u64,
    /// Cases without parameters that can be used, which chopi must refuse.
    pub refused: u64,
    /// Values that were quantized.
    pub values: u64,
    /// Scales.
    pub scales: Count,
    /// Zero points.
    pub zero_points: Count,
    /// Codes.
    pub codes: Count,
    /// Dequantized values.
    pub dequantized: Count,
    /// Fake-quantized values.
    pub fake_quantized: Count,
    /// Cases in which one gave numbers and the other did not.
    pub outcomes: u64,
    notes: Vec<String>,
}

impl Differences {
    /// Whether there are any.
    pub fn any(&self) -> bool {
        let counts = [
            self.scales,
            self.zero_points,
            self.codes,
            self.dequantized,
            self.fake_quantized,
        ];
        self.outcomes > 0 || counts.iter().any(|count| count.different > 0)
    }

    fn outcome(&mut self, note: String) {
        self.outcomes += 1;
        self.notes.push(note);
    }

    /// Adds those of other cases; a few notes are kept.
    pub fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.refused += other.refused;
        self.values += other.values;
        self.scales.add(other.scales);
        self.zero_points.add(other.zero_points);
        self.codes.add(other.codes);
        self.dequantized.add(other.dequantized);
        self.fake_quantized.add(other.fake_quantized);
        self.outcomes += other.outcomes;
        let room = 12_usize.saturating_sub(self.notes.len());
        self.notes.extend(other.notes.into_iter().take(room));
    }
}

/// The first differences, a line each.
impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.notes.join("\n"))
    }
}
