//! `chopi quantize`: floats to codes.

use std::collections::BTreeMap;
use std::time::Instant;

use chopi::{
    Chopi, FloatTensor, FloatType, Granularity, IntTensor, IntType, QParams, Ranges, Symmetry,
};
use indicatif::ProgressBar;
use safetensors::Dtype;
use serde::Serialize;

use crate::archive::{Archive, Mapped, Tensor};
use crate::args::{Parameters, QuantizeArgs, Settings};
use crate::chunks::Chunks;
use crate::element::{FloatElement, bytes, code_bytes, elements, with_float};
use crate::error::{Error, Fault, Result};
use crate::format::{KEY, Quantized, Record, int_dtype, scale_dtype, scale_name, zero_point_name};
use crate::framework::{Framework, with_framework};
use crate::header::{Header, Slot};
use crate::metrics::Metrics;
use crate::output::{Output, Target};
use crate::report;
use crate::workers;

/// # Errors
/// What is wrong with the input or the output.
pub fn run(args: &QuantizeArgs, settings: &Settings) -> Result<()> {
    let start = Instant::now();
    let mapped = Mapped::open(&args.files.input)?;
    let archive = mapped.parse()?;
    let target = Target::new(&args.files)?;
    let rows = with_framework!(args.work.backend, K => {
        write::<K>(&archive, args, settings, target)?
    });
    let report = Report {
        bytes_in: rows.iter().map(|row| row.bytes_in).sum(),
        bytes_out: rows.iter().map(|row| row.bytes_out).sum(),
        tensors: rows,
        seconds: start.elapsed().as_secs_f64(),
    };
    match (args.print.quiet, args.print.json) {
        (true, _) => Ok(()),
        (false, true) => report::print_json(&report),
        (false, false) => report.print_table(),
    }
}

/// Writes the quantized file.
fn write<K: Framework>(
    archive: &Archive<'_>,
    args: &QuantizeArgs,
    settings: &Settings,
    target: Target,
) -> Result<Vec<Row>> {
    if archive.metadata.contains_key(KEY) {
        return Err(Error::AlreadyQuantized {
            path: archive.path.to_owned(),
        });
    }
    let selected = |tensor: &Tensor<'_>| settings.selection.float_type_of(tensor);
    let record: BTreeMap<_, _> = archive
        .tensors
        .values()
        .filter_map(|tensor| {
            let quantized = Quantized {
                scheme: settings.scheme.clone(),
                convention: settings.convention.name.to_string(),
                dtype: selected(tensor)?,
            };
            Some((tensor.name.clone(), quantized))
        })
        .collect();
    if record.is_empty() && settings.selection.is_explicit() {
        return Err(Error::NothingIncluded {
            path: archive.path.to_owned(),
        });
    }
    let mut metadata = archive.metadata.clone();
    let json = serde_json::to_string(&Record::new(record));
    metadata.insert(KEY.to_owned(), json.map_err(|e| archive.bad_metadata(e))?);

    let mut header = Header::new(metadata);
    let tasks = archive
        .tensors
        .values()
        .map(|tensor| {
            let task = match selected(tensor) {
                None => Ok(Task::copy(tensor, &mut header)),
                Some(float) => {
                    let plan = Plan { archive, settings };
                    plan.quantize::<K>(tensor, float, &mut header)
                }
            };
            task.map_err(|fault| archive.fault(&tensor.name, fault))
        })
        .collect::<Result<Vec<_>>>()?;
    let output = target.create(&header)?;
    let total = tasks.iter().map(|task| task.tensor.data.len()).sum();
    let progress = workers::progress(total, args.print.quiet);
    let rows = workers::run(
        &tasks,
        |task| task.tensor.data.len(),
        args.work.threads,
        |task| task.run::<K>(archive, settings, &output, &progress),
    );
    progress.finish_and_clear();
    let rows = rows?;
    output.persist()?;
    Ok(rows)
}

/// What is to be done with one tensor, and where the result goes.
struct Task<'a> {
    tensor: &'a Tensor<'a>,
    slot: Slot,
    quantize: Option<Quantize>,
}

struct Quantize {
    float: FloatType,
    int: IntType,
    granularity: Granularity,
    scale: Slot,
    zero_point: Option<(Slot, IntType)>,
    /// The bytes of the codes and the parameters.
    len: usize,
}

impl<'a> Task<'a> {
    fn copy(tensor: &'a Tensor<'a>, header: &mut Header) -> Self {
        let len = tensor.data.len();
        Self {
            tensor,
            slot: header.add(&tensor.name, tensor.dtype, &tensor.shape, len),
            quantize: None,
        }
    }

    fn run<K: Framework>(
        &self,
        archive: &Archive<'_>,
        settings: &Settings,
        output: &Output,
        progress: &ProgressBar,
    ) -> Result<Row> {
        let Some(quantize) = &self.quantize else {
            output.write(self.slot, 0, self.tensor.data)?;
            progress.inc(self.tensor.data.len() as u64);
            return Ok(Row::copied(self.tensor));
        };
        let metrics = with_float!(quantize.float, F => {
            self.quantize::<K, F>(quantize, archive, settings, output, progress)?
        });
        Ok(Row::quantized(self.tensor, quantize, settings, &metrics))
    }

    /// Quantizes the tensor piece by piece.
    fn quantize<K: Framework, F: FloatElement>(
        &self,
        quantize: &Quantize,
        archive: &Archive<'_>,
        settings: &Settings,
        output: &Output,
        progress: &ProgressBar,
    ) -> Result<Metrics> {
        let tensor = self.tensor;
        let fault = |fault: Fault| archive.fault(&tensor.name, fault);
        let data = elements::<F>(tensor.data);
        let (params, abs_max) =
            calibrate::<K, F>(&data, tensor, quantize.granularity, settings).map_err(fault)?;
        write_params(quantize, &params, output)?;

        let mut metrics = Metrics::new(abs_max);
        let chunks = Chunks::new(&tensor.shape, quantize.granularity);
        for chunk in chunks.iter() {
            let data = &data[chunk.elements.clone()];
            let mut written = Ok(());
            let mut piece = || {
                let x = K::floats(data, &chunks.shape(&chunk))?;
                let mut chopi = Chopi::from_params(chunks.params(&chunk, &params)?);
                let codes = chopi.quantize(&x)?;
                codes.with_host(|host| {
                    let bytes = code_bytes(host.data, quantize.int);
                    let offset = chunk.elements.start * quantize.int.size();
                    written = output.write(self.slot, offset, &bytes);
                    Ok(())
                })?;
                chopi.dequantize(&codes)?.with_host(|host| {
                    if let Some(quantized) = F::from_floats(host.data) {
                        metrics.add(data, quantized);
                    }
                    Ok(())
                })
            };
            piece().map_err(|error: chopi::Error| fault(error.into()))?;
            written?;
            progress.inc(size_of_val(data) as u64);
        }
        Ok(metrics)
    }
}

/// What the tasks of a file have in common.
struct Plan<'a> {
    archive: &'a Archive<'a>,
    settings: &'a Settings,
}

impl<'a> Plan<'a> {
    /// The task that quantizes a tensor, whose results get their places in the header.
    fn quantize<K: Framework>(
        &self,
        tensor: &'a Tensor<'a>,
        float: FloatType,
        header: &mut Header,
    ) -> std::result::Result<Task<'a>, Fault> {
        let scheme = &self.settings.scheme;
        let convention = &self.settings.convention;
        let granularity = convention.granularity_for(scheme.granularity, tensor.shape.len());
        let shape = granularity.params_shape(&tensor.shape)?;
        let groups: usize = shape.iter().product();
        let count: usize = tensor.shape.iter().product();

        let int = IntType::smallest(scheme.qmin, scheme.qmax);
        let mut len = count * int.size();
        let slot = header.add(&tensor.name, int_dtype(int), &tensor.shape, len);
        let mut companion = |name: String, dtype: Dtype| {
            if self.archive.tensors.contains_key(&name) {
                return Err(Fault::NameTaken { name });
            }
            let bytes = groups * dtype.bitsize() / 8;
            len += bytes;
            Ok(header.add(&name, dtype, &shape, bytes))
        };
        let scale = companion(scale_name(&tensor.name), scale_dtype(float))?;
        let zero_point = match scheme.symmetry {
            Symmetry::Symmetric => None,
            Symmetry::Asymmetric => {
                let int = self.zero_point_type::<K>(tensor, float, granularity)?;
                let slot = companion(zero_point_name(&tensor.name), int_dtype(int))?;
                Some((slot, int))
            }
        };
        Ok(Task {
            tensor,
            slot,
            quantize: Some(Quantize {
                float,
                int,
                granularity,
                scale,
                zero_point,
                len,
            }),
        })
    }

    /// I32, or I64 where a zero point does not fit it.
    fn zero_point_type<K: Framework>(
        &self,
        tensor: &Tensor<'_>,
        float: FloatType,
        granularity: Granularity,
    ) -> std::result::Result<IntType, Fault> {
        let settings = self.settings;
        let fits = |z: &i64| i32::try_from(*z).is_ok();
        let fit = match settings.parameters {
            Parameters::Given { zero_point, .. } => fits(&zero_point),
            // A zero point lies within 2^30 + 1 of the smallest code, or among the codes.
            Parameters::Calibrated
                if settings.scheme.qmin.abs() < 1 << 30
                    && settings.scheme.qmax <= i32::MAX.into() =>
            {
                true
            }
            Parameters::Calibrated => {
                let params = with_float!(float, F => {
                    let data = elements::<F>(tensor.data);
                    calibrate::<K, F>(&data, tensor, granularity, settings)?.0
                });
                params.zero_point().iter().all(fits)
            }
        };
        Ok(if fit { IntType::I32 } else { IntType::I64 })
    }
}

/// The parameters of a tensor, and its largest |x|.
fn calibrate<K: Framework, F: FloatElement>(
    data: &[F],
    tensor: &Tensor<'_>,
    granularity: Granularity,
    settings: &Settings,
) -> std::result::Result<(QParams, f64), Fault> {
    // Observed even where the parameters are given: that finds NaN and infinities.
    let x = K::floats(data, &tensor.shape)?;
    let ranges = match Ranges::observe(&x, granularity) {
        Err(chopi::Error::NonFinite {
            index,
            value,
            count,
        }) => {
            return Err(Fault::NonFinite {
                index,
                value,
                count,
            });
        }
        ranges => ranges?,
    };
    let scheme = &settings.scheme;
    let convention = &settings.convention;
    let params = match settings.parameters {
        Parameters::Calibrated => QParams::from_ranges(&ranges, scheme, convention)?,
        Parameters::Given { scale, zero_point } => QParams::new(
            scheme.clone(),
            convention.clone(),
            F::TYPE,
            vec![1],
            vec![scale],
            vec![zero_point],
        )?,
    };
    let ends = ranges.min().iter().chain(ranges.max());
    let abs_max = ends.fold(0.0, |largest: f64, end| largest.max(end.abs()));
    Ok((params, abs_max))
}

fn write_params(quantize: &Quantize, params: &QParams, output: &Output) -> Result<()> {
    let scale = params.scale();
    if quantize.float.compute() == FloatType::F64 {
        output.write(quantize.scale, 0, &bytes(scale))?;
    } else {
        let scale: Vec<f32> = scale.iter().map(|&s| s as f32).collect();
        output.write(quantize.scale, 0, &bytes(&scale))?;
    }
    if let Some((slot, int)) = quantize.zero_point {
        let zero_point = chopi::IntSlice::I64(params.zero_point());
        output.write(slot, 0, &code_bytes(zero_point, int))?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Report {
    tensors: Vec<Row>,
    bytes_in: usize,
    bytes_out: usize,
    seconds: f64,
}

/// What became of a tensor. One that was copied has no scheme and no error.
#[derive(Serialize)]
struct Row {
    name: String,
    shape: Vec<usize>,
    /// The dtype in the input.
    dtype: String,
    bits: Option<u32>,
    symmetric: Option<bool>,
    granularity: Option<String>,
    convention: Option<String>,
    bytes_in: usize,
    bytes_out: usize,
    /// Written as null where it is infinite: JSON has no infinity.
    sqnr_db: Option<f64>,
    mse: Option<f64>,
    max_abs_error: Option<f64>,
    /// The dtype and the range of the codes.
    #[serde(skip)]
    codes: Option<(Dtype, i64, i64)>,
}

impl Row {
    fn copied(tensor: &Tensor<'_>) -> Self {
        Self {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype.to_string(),
            bits: None,
            symmetric: None,
            granularity: None,
            convention: None,
            bytes_in: tensor.data.len(),
            bytes_out: tensor.data.len(),
            sqnr_db: None,
            mse: None,
            max_abs_error: None,
            codes: None,
        }
    }

    fn quantized(
        tensor: &Tensor<'_>,
        quantize: &Quantize,
        settings: &Settings,
        metrics: &Metrics,
    ) -> Self {
        let scheme = &settings.scheme;
        Self {
            bits: Some(scheme.bits),
            symmetric: Some(scheme.symmetry == Symmetry::Symmetric),
            granularity: Some(quantize.granularity.to_string()),
            convention: Some(settings.convention.name.to_string()),
            bytes_out: quantize.len,
            sqnr_db: Some(metrics.sqnr_db()),
            mse: Some(metrics.mse()),
            max_abs_error: Some(metrics.max_abs_error()),
            codes: Some((int_dtype(quantize.int), scheme.qmin, scheme.qmax)),
            ..Self::copied(tensor)
        }
    }
}

impl Report {
    fn print_table(&self) -> Result<()> {
        let columns = [
            "tensor",
            "shape",
            "dtype",
            "scheme",
            "bytes in",
            "bytes out",
            "SQNR dB",
            "max error",
        ];
        let mut table = report::table(&columns, 4);
        let optional = |text: Option<String>| text.unwrap_or_default();
        for row in &self.tensors {
            table.add_row([
                report::printable(&row.name).into_owned(),
                format!("{:?}", row.shape),
                match row.codes {
                    Some((dtype, ..)) => format!("{} → {dtype}", row.dtype),
                    None => row.dtype.clone(),
                },
                row.scheme(),
                report::grouped(row.bytes_in),
                report::grouped(row.bytes_out),
                optional(row.sqnr_db.map(|db| format!("{db:.2}"))),
                optional(row.max_abs_error.map(|error| format!("{error:.3e}"))),
            ]);
        }
        let quantized = self.tensors.iter().filter(|row| row.codes.is_some());
        let total = format!("{} tensors", self.tensors.len());
        let done = format!("{} quantized", quantized.count());
        let (bytes_in, bytes_out) = (self.bytes_in, self.bytes_out);
        table.add_row([
            total,
            String::new(),
            String::new(),
            done,
            report::grouped(bytes_in),
            report::grouped(bytes_out),
        ]);
        let percent = 100.0 * bytes_out as f64 / bytes_in.max(1) as f64;
        let seconds = self.seconds;
        report::print(format_args!(
            "{table}\n\n{percent:.1} % of the bytes, {seconds:.2} s"
        ))
    }
}

impl Row {
    fn scheme(&self) -> String {
        match (self.bits, self.symmetric, &self.granularity, self.codes) {
            (Some(bits), Some(symmetric), Some(granularity), Some((_, qmin, qmax))) => {
                let symmetry = if symmetric { "symmetric" } else { "asymmetric" };
                format!("{bits} bits {symmetry} [{qmin}, {qmax}] {granularity}")
            }
            _ => "copied".to_owned(),
        }
    }
}
