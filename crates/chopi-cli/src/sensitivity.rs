//! `chopi sensitivity`: which tensors lose most by few bits, and bits for each under a budget.

use std::collections::BTreeMap;

use chopi::model::{Allocation, Choice as MeasuredChoice, Sensitivity, allocate_bits, rank};
use chopi::ndarray::NdArray;
use chopi::ptq;
use chopi::{Builder, backend::FloatType};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::archive::{Archive, Entry};
use crate::args::SensitivityArgs;
use crate::compressed_tensors::{Loaded, Weights, check_floats};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::framework::Framework;
use crate::interrupt;
use crate::plan::Plan;
use crate::print::{print, print_json, printable};
use crate::report::grouped;
use crate::selection::{Ranks, Selection};
use crate::statistics::LayerStatistics;
use crate::table::{Cell, Column, Table};
use crate::workers;
use crate::write::Target;
use chopi::formats::chopi::KEY;
use chopi::formats::with_float;

/// # Errors
/// What is wrong with the model; a budget that is too small.
pub fn run(
    args: &SensitivityArgs,
    (builder, bits, selection): (Builder, Vec<u32>, Selection),
) -> Result<()> {
    let model = Files::open(&args.model)?;
    let target = match &args.output {
        Some(output) => {
            interrupt::watch();
            Some(Target::new(output, &model.inputs(), args.force)?)
        }
        None => None,
    };
    let archives = model.archives()?;
    if let Some(archive) = archives.iter().find(|a| a.metadata.contains_key(KEY)) {
        let path = archive.path.to_owned();
        return Err(Error::AlreadyQuantized { path });
    }
    if selection.ranks() == Ranks::Linear {
        check_floats(&archives)?;
    }
    let config = model.config()?;
    let statistics = args.statistics.as_ref();
    let statistics =
        statistics.map(|path| LayerStatistics::open(path, &model.input, &archives, &config));
    let statistics = statistics.transpose()?;
    let tasks = tasks(&archives, &config, &selection);
    if tasks.is_empty() {
        let all = archives.iter().flat_map(|archive| archive.tensors.values());
        return Err(selection.nothing(&model.input, all));
    }
    let size = |task: &SensitivityTask<'_>| task.tensor.data.len();
    let progress = workers::progress(tasks.iter().map(size).sum(), args.print.quiet);
    let scheme = (&builder, args.scheme.calibration);
    let measured = workers::run(&tasks, size, None, |task| {
        let measured = task.measure(&bits, scheme, statistics.as_ref());
        progress.inc(size(task) as u64);
        measured
    });
    progress.finish_and_clear();
    let measured = measured?;

    let all = archives.iter().flat_map(|archive| archive.tensors.values());
    let bytes = all.map(|tensor| tensor.data.len() as u64).sum::<u64>();
    let left = bytes - measured.iter().map(Sensitivity::bytes).sum::<u64>();
    let proposed = match args.budget.map(|budget| budget.bytes(bytes)) {
        None => None,
        Some(budget) => {
            Some(
                propose(&measured, &tasks, left, budget).map_err(|source| Error::Budget {
                    path: model.input,
                    source,
                })?,
            )
        }
    };
    if let (Some(target), Some(proposed)) = (target, &proposed) {
        Plan::write(&proposed.bits, target)?;
    }
    let report = Report::new(&measured, &tasks, bytes, proposed);
    match (args.print.quiet, args.print.json) {
        (true, _) => Ok(()),
        (false, true) => print_json(&report),
        (false, false) => print(report.table(&bits)),
    }
}

/// One tensor to measure.
struct SensitivityTask<'a> {
    archive: &'a Archive,
    tensor: &'a Entry,
    float: FloatType,
    /// Whether it is one of the matrices that are stacked for all experts of a layer on loading.
    is_expert: bool,
}

/// The tensors that are selected.
fn tasks<'a>(
    archives: &'a [Archive],
    config: &Map<String, Value>,
    selection: &Selection,
) -> Vec<SensitivityTask<'a>> {
    let weights = Weights::new(archives, config);
    let tensors = archives.iter().flat_map(|archive| {
        let tensors = archive.tensors.values();
        tensors.map(move |tensor| (archive, tensor))
    });
    let task = |(archive, tensor): (&'a Archive, &'a Entry)| {
        let linear = weights.linear(tensor, selection.chosen(&tensor.name));
        let float = match selection.ranks() {
            Ranks::Linear => linear.as_ref().ok()?.float,
            _ => selection.float_type_of(tensor)?,
        };
        Some(SensitivityTask {
            archive,
            tensor,
            float,
            is_expert: linear.is_ok_and(|linear| linear.loaded == Loaded::Stacked),
        })
    };
    tensors.filter_map(task).collect()
}

impl SensitivityTask<'_> {
    /// What each number of bits loses: the share of noise in the output of the tensor's layer where its statistics are
    /// there, in the tensor where not.
    fn measure(
        &self,
        bits: &[u32],
        scheme: (&Builder, chopi::Calibration),
        statistics: Option<&LayerStatistics>,
    ) -> Result<Sensitivity> {
        let name = &*self.tensor.name;
        let fault = |fault| Error::from(self.archive.fault(name, fault));
        let moments = match statistics {
            Some(statistics) => statistics.of(name)?,
            None => None,
        };
        let measured = with_float!(self.float, F => {
            let data = self.tensor.elements::<F>().map_err(fault)?;
            let x = NdArray::floats(&data, &self.tensor.shape).map_err(|error| fault(error.into()))?;
            match &moments {
                None => Sensitivity::without_data(name, &x, bits, scheme).map_err(ptq::Error::from),
                Some(moments) => ptq::Inputs::new(moments).and_then(|inputs| {
                    Sensitivity::measure(name, &x, bits, scheme, |_, values| {
                        Ok(inputs.output_error(&x, values)?.relative())
                    })
                }),
            }
        });
        measured.map_err(|error| match error {
            // The program names the tensor itself.
            ptq::Error::Core(chopi::Error::Tensor { source, .. }) => fault((*source).into()),
            ptq::Error::Core(source) => fault(source.into()),
            source => Error::Method {
                path: self.archive.path.clone(),
                tensor: name.to_owned(),
                source: Box::new(source),
            },
        })
    }
}

/// The bits of each tensor, where `left` bytes of the budget are those of other tensors.
fn propose(
    measured: &[Sensitivity],
    tasks: &[SensitivityTask<'_>],
    left: u64,
    budget: u64,
) -> chopi::Result<Allocation> {
    let (experts, mut units): (Vec<_>, Vec<_>) = measured
        .iter()
        .cloned()
        .zip(tasks)
        .partition(|(_, task)| task.is_expert);
    let experts: Vec<Sensitivity> = experts.into_iter().map(|(s, _)| s).collect();
    let mut units: Vec<Sensitivity> = units.drain(..).map(|(s, _)| s).collect();
    let stack = Stack::of(&experts)?;
    units.extend(stack.iter().map(|stack| stack.unit.clone()));
    let of_all = |source| match source {
        chopi::Error::Budget { least, .. } => chopi::Error::Budget {
            budget,
            least: least + left,
        },
        source => source,
    };
    let mut found = allocate_bits(&units, budget.saturating_sub(left)).map_err(of_all)?;
    if let Some(stack) = stack {
        let bits = found.bits.remove(stack.unit.name()).unwrap_or(stack.most);
        let names = experts.iter().map(|expert| expert.name().to_owned());
        found.bits.extend(names.map(|name| (name, bits)));
    }
    found.bytes += left;
    if found.bytes > budget {
        let least = found.bytes;
        return Err(chopi::Error::Budget { budget, least });
    }
    Ok(found)
}

/// All matrices that are stacked for the experts of their layers: they get the same bits, and none of them
/// stays in float beside quantized weights.
struct Stack {
    /// What fewer bits than the most cost and save.
    unit: Sensitivity,
    /// The most bits.
    most: u32,
}

impl Stack {
    fn of(experts: &[Sensitivity]) -> chopi::Result<Option<Self>> {
        let bits = |s: &Sensitivity| s.choices().iter().map(|choice| choice.bits).max();
        let Some((first, most)) = experts.first().and_then(|s| Some((s, bits(s)?))) else {
            return Ok(None);
        };
        let sum = |bits: u32| {
            let of_bits = experts.iter().filter_map(|expert| expert.choice(bits));
            of_bits.fold((0, 0.0), |(bytes, loss), choice| {
                (bytes + choice.bytes, loss + choice.loss)
            })
        };
        let (bytes, least) = sum(most);
        let fewer = first.choices().iter().filter(|choice| choice.bits < most);
        let choices = fewer.map(|&MeasuredChoice { bits, .. }| {
            let (bytes, loss) = sum(bits);
            MeasuredChoice {
                bits,
                bytes,
                loss: (loss - least).max(0.0),
            }
        });
        let unit = Sensitivity::new(first.name(), bytes, choices.collect())?;
        Ok(Some(Self { unit, most }))
    }
}

/// What the command says.
#[derive(Serialize)]
struct Report {
    /// The most sensitive first, by the fewest bits.
    tensors: Vec<SensitivityRow>,
    /// The bytes of all tensors of the model.
    bytes: u64,
    /// The bytes of all tensors of the model with the proposed bits.
    bytes_proposed: Option<u64>,
}

#[derive(Serialize)]
struct SensitivityRow {
    name: String,
    shape: Vec<usize>,
    bytes: u64,
    choices: Vec<ChoiceRow>,
    /// None where the tensor is to stay in float, and where nothing is proposed.
    bits_proposed: Option<u32>,
}

#[derive(Serialize)]
struct ChoiceRow {
    bits: u32,
    bytes: u64,
    /// JSON has no infinity: written as null where every element comes back exactly.
    sqnr_db: f64,
}

impl Report {
    fn new(
        measured: &[Sensitivity],
        tasks: &[SensitivityTask<'_>],
        bytes: u64,
        proposed: Option<Allocation>,
    ) -> Self {
        let shapes: BTreeMap<&str, &[usize]> = tasks
            .iter()
            .map(|task| (&*task.tensor.name, &*task.tensor.shape))
            .collect();
        let bits = measured.iter().flat_map(Sensitivity::choices);
        let fewest = bits.map(|choice| choice.bits).min().unwrap_or_default();
        let row = |s: &Sensitivity| SensitivityRow {
            name: s.name().to_owned(),
            shape: shapes.get(s.name()).copied().unwrap_or_default().to_vec(),
            bytes: s.bytes(),
            choices: s
                .choices()
                .iter()
                .map(|choice| ChoiceRow {
                    bits: choice.bits,
                    bytes: choice.bytes,
                    sqnr_db: -10.0 * choice.loss.log10(),
                })
                .collect(),
            bits_proposed: proposed
                .as_ref()
                .and_then(|proposed| proposed.bits.get(s.name()).copied()),
        };
        Self {
            tensors: rank(measured, fewest).into_iter().map(row).collect(),
            bytes,
            bytes_proposed: proposed.as_ref().map(|proposed| proposed.bytes),
        }
    }

    fn table(&self, bits: &[u32]) -> String {
        let mut columns = vec![
            Column::text("tensor"),
            Column::text("shape").goes(1),
            Column::number("bytes").goes(2),
        ];
        // The fewest bits say most.
        let decibels = bits.iter().zip((3..=u8::MAX).rev());
        columns.extend(
            decibels.map(|(bits, goes)| Column::number(format!("dB at {bits}")).goes(goes)),
        );
        columns.extend(self.bytes_proposed.map(|_| Column::number("proposed")));
        let mut table = Table::new(columns);
        for row in &self.tensors {
            let mut cells: Vec<Cell> = vec![
                printable(&row.name).into_owned().into(),
                format!("{:?}", row.shape).into(),
                grouped(row.bytes as usize).into(),
            ];
            cells.extend(row.choices.iter().map(|c| Cell::sqnr(Some(c.sqnr_db))));
            cells.extend(self.bytes_proposed.map(|_| match row.bits_proposed {
                Some(bits) => Cell::from(bits.to_string()),
                None => "float".into(),
            }));
            table.row(cells);
        }
        let total = format!("{} bytes in all", grouped(self.bytes as usize));
        match self.bytes_proposed {
            None => format!("{table}\n\n{total}"),
            Some(proposed) => {
                let percent = 100.0 * proposed as f64 / self.bytes as f64;
                let proposed = grouped(proposed as usize);
                format!("{table}\n\n{total}, {proposed} ({percent:.1} %) as proposed")
            }
        }
    }
}
