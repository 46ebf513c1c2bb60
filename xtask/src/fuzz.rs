//! `cargo xtask fuzz`: the targets of `fuzz/`, built with coverage and, unless `--plain`, AddressSanitizer, and run.
//!
//! The flags are those of cargo-fuzz, which is not needed; nor is another toolchain, since `RUSTC_BOOTSTRAP`
//! lets a stable one take them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::table::count;
use crate::workspace::Workspace;
use crate::{process, sanitize, table};

/// What libFuzzer needs of the compiler: counters at the edges of the control flow.
const COVERAGE: [&str; 4] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
];
/// What finds more, and costs more: calls where numbers are compared, and AddressSanitizer.
const INSTRUMENTS: [&str; 2] = [
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
];
/// The crates that a plain build has counters in, besides the generic code of others that these are compiled with:
/// those that read. The kernels are without, as users run them.
const COVERED: [&str; 7] = [
    "chopi-fuzz",
    "chopi-cli",
    "chopi-core",
    "chopi-formats",
    "chopi-models",
    "chopi-ptq",
    "safetensors",
];
/// What says that this is a build for fuzzing.
const FUZZING: &str = "--cfg fuzzing";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Targets, instead of all of them
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each target runs, in minutes
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    minutes: f64,
    /// The seed of the inputs, for runs that differ in nothing but their length; a new one each time by default
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Build without AddressSanitizer, and with coverage counters only in the crates that parse input: faster
    #[arg(long)]
    plain: bool,
    /// Have each target misread a result for rare inputs, and check that it finds that
    #[arg(long)]
    planted: bool,
    /// Write the inputs that the targets of files start from anew
    #[arg(long, exclusive = true)]
    seeds: bool,
    /// Take what the corpora have and the committed inputs lack into these, smallest first, up to so many
    /// bytes for a target
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["minutes", "seed", "planted"])]
    keep: Option<u64>,
}

impl Args {
    /// All targets for so short a time that CI can run them.
    pub fn short() -> Self {
        Self {
            targets: Vec::new(),
            minutes: 0.2,
            // So that what passes today does not fail tomorrow for other inputs alone.
            seed: Some(1),
            plain: false,
            planted: false,
            seeds: false,
            keep: None,
        }
    }
}

/// Runs each target on the inputs that there are, and then on new ones.
pub fn run(args: &Args) -> Result<()> {
    let fuzz = Fuzz::new(args.plain, args.planted)?;
    let targets = fuzz.targets(&args.targets)?;
    // Only what was asked for.
    let programs: &[String] = match args.seeds {
        true => &["seeds".to_owned()],
        false => &targets,
    };
    let built = fuzz.build(programs)?;
    if args.seeds {
        let seeds = fuzz.folder.join("seeds");
        return process::run(Command::new(built.join("seeds")).arg(seeds));
    }
    if let Some(limit) = args.keep {
        return targets
            .iter()
            .try_for_each(|target| fuzz.keep(&built, target, limit));
    }
    let time = Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes")?;
    let header = [
        "target",
        "finding",
        "executions",
        "seconds",
        "new inputs",
        "inputs",
    ];
    let mut table = table::table(&header, 2);
    let mut findings = Vec::new();
    for target in &targets {
        let run = fuzz.run(&built, target, time, args.seed)?;
        let finding = match (&run.finding, args.planted) {
            (Some(path), false) => path.display().to_string(),
            (Some(_), true) => "found".to_owned(),
            (None, false) => "none".to_owned(),
            (None, true) => "NOT FOUND".to_owned(),
        };
        if run.finding.is_some() != args.planted {
            findings.push(target.as_str());
        }
        let seconds = format!("{:.0}", run.time.as_secs_f64());
        let numbers = [
            count(run.executions),
            seconds,
            count(run.new),
            count(run.inputs),
        ];
        table.add_row([target.clone(), finding].into_iter().chain(numbers));
    }
    println!("{table}");
    match (findings.is_empty(), args.planted) {
        (true, _) => Ok(()),
        (false, false) => bail!("findings in {}", findings.join(", ")),
        (false, true) => bail!("the planted fault was not found in {}", findings.join(", ")),
    }
}

/// The crate of the targets.
#[derive(Debug)]
struct Fuzz {
    folder: PathBuf,
    /// Where the targets are built: a folder of its own, since the flags are others.
    target_directory: PathBuf,
    plain: bool,
    planted: bool,
}

/// What a target did.
#[derive(Debug)]
struct Run {
    executions: u64,
    time: Duration,
    new: u64,
    inputs: u64,
    finding: Option<PathBuf>,
}

impl Fuzz {
    fn new(plain: bool, planted: bool) -> Result<Self> {
        let workspace = Workspace::load()?;
        let target = if plain { "fuzz-plain" } else { "fuzz" };
        Ok(Self {
            folder: workspace.workspace_root.join("fuzz"),
            target_directory: workspace.target_directory.join(target),
            plain,
            planted,
        })
    }

    /// The names of the targets that were asked for, or of all.
    fn targets(&self, asked: &[String]) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.folder.join("fuzz_targets"))? {
            let path = entry?.path();
            let name = path.file_stem().context("a target has a name")?;
            all.push(name.to_string_lossy().into_owned());
        }
        all.sort();
        if let Some(unknown) = asked.iter().find(|name| !all.contains(name)) {
            bail!("no target {unknown:?}, expected one of {}", all.join(", "));
        }
        Ok(if asked.is_empty() {
            all
        } else {
            asked.to_vec()
        })
    }

    /// Builds some programs, and gives the folder where they lie.
    fn build(&self, programs: &[String]) -> Result<PathBuf> {
        let host = sanitize::host()?;
        let mut command = process::cargo(["build", "--release", "--locked", "--target", &host]);
        command
            .arg("--manifest-path")
            .arg(self.folder.join("Cargo.toml"));
        command.arg("--target-dir").arg(&self.target_directory);
        for program in programs {
            command.args(["--bin", program]);
        }
        if self.planted {
            command.arg("--features=planted");
        }
        let flags = match self.plain {
            true => {
                let flags = COVERAGE.map(|flag| format!("{flag:?}")).join(",");
                command.arg("-Zprofile-rustflags");
                for package in COVERED {
                    let key = format!("profile.release.package.{package}.rustflags");
                    command.args(["--config", &format!("{key}=[{flags}]")]);
                }
                FUZZING.to_owned()
            }
            false => [&COVERAGE[..], &INSTRUMENTS, &[FUZZING]].concat().join(" "),
        };
        command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags);
        process::run(&mut command)?;
        Ok(self.target_directory.join(host).join("release"))
    }

    /// Runs a target on all inputs and, for this time, on new ones. With a planted fault nothing is kept.
    fn run(&self, built: &Path, target: &str, time: Duration, seed: Option<u32>) -> Result<Run> {
        let seeds = self.of_target("seeds", target)?;
        let scratch = tempfile::tempdir()?;
        let (corpus, artifacts) = match self.planted {
            true => (
                scratch.path().join("corpus"),
                scratch.path().join("artifacts"),
            ),
            false => (
                self.of_target("corpus", target)?,
                self.of_target("artifacts", target)?,
            ),
        };
        fs::create_dir_all(&corpus)?;
        fs::create_dir_all(&artifacts)?;
        let before = entries(&corpus)?;
        let program = built.join(target);
        let mut command = Command::new(&program);
        command.arg(&corpus).arg(&seeds);
        command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        if let Some(seed) = seed {
            command.arg(format!("-seed={seed}"));
        }
        let dictionary = self.folder.join("dictionaries").join(target);
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        // What the targets print is not kept: the program prints with every input. Inputs are long from the
        // start, since a target draws many numbers of one. Inputs that take long are changed less often. An input
        // takes at most 30 seconds and 4 GB.
        command.args(["-close_fd_mask=3", "-print_final_stats=1", "-len_control=0"]);
        command.arg("-entropic_scale_per_exec_time=1");
        command.args(["-timeout=30", "-rss_limit_mb=4096"]);
        command.env("RUST_BACKTRACE", "0");
        eprintln!("$ {}", process::shown(&command));
        let start = Instant::now();
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| process::cannot_run(&command))?;
        let time = start.elapsed();
        let log = String::from_utf8_lossy(&output.stderr);
        let finding = match output.status.success() {
            true => None,
            false => written(&log).map(PathBuf::from),
        };
        if finding.is_none() && !output.status.success() {
            eprintln!("{log}");
            process::check(&command, output.status)?;
        }
        // Once more, to see what it says.
        if let Some(input) = &finding {
            let again = Command::new(&program)
                .arg(input)
                .stdin(Stdio::null())
                .output()?;
            let message = String::from_utf8_lossy(&again.stderr);
            if self.planted && !message.contains("planted") {
                bail!("{target} found another fault than the planted one:\n{message}");
            }
            if !self.planted {
                eprintln!("{message}");
            }
        }
        Ok(Run {
            executions: statistic(&log, "number_of_executed_units").unwrap_or(0),
            time,
            new: entries(&corpus)?.saturating_sub(before),
            inputs: entries(&corpus)? + entries(&seeds)?,
            finding,
        })
    }

    /// The folder of a target in a folder of the crate, which is made if it is not there.
    fn of_target(&self, folder: &str, target: &str) -> Result<PathBuf> {
        let folder = self.folder.join(folder).join(target);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Takes inputs of the corpus that do something new into those that are committed.
    fn keep(&self, built: &Path, target: &str, limit: u64) -> Result<()> {
        let (corpus, seeds) = (
            self.of_target("corpus", target)?,
            self.of_target("seeds", target)?,
        );
        let scratch = tempfile::tempdir()?;
        // libFuzzer merges into its first folder what the others have and it lacks.
        for entry in fs::read_dir(&seeds)? {
            let entry = entry?;
            fs::copy(entry.path(), scratch.path().join(entry.file_name()))?;
        }
        let mut command = Command::new(built.join(target));
        command
            .args(["-merge=1", "-close_fd_mask=3"])
            .arg(scratch.path())
            .arg(&corpus);
        process::run_as_progress(command.stderr(Stdio::null()))?;
        let mut merged = Vec::new();
        for entry in fs::read_dir(scratch.path())? {
            let entry = entry?;
            if !seeds.join(entry.file_name()).exists() {
                merged.push((entry.metadata()?.len(), entry.path()));
            }
        }
        merged.sort();
        let mut kept = 0;
        for (len, path) in merged {
            kept += len;
            if kept > limit {
                break;
            }
            let name = path.file_name().context("an input has a name")?;
            fs::copy(&path, seeds.join(name))?;
        }
        Ok(())
    }
}

/// The number of files in a folder.
fn entries(folder: &Path) -> Result<u64> {
    Ok(fs::read_dir(folder)?.count() as u64)
}

/// Where libFuzzer says that it has written the input that failed: the last one, since it writes slow ones
/// too.
fn written(log: &str) -> Option<&str> {
    let (_, path) = log.rsplit_once("Test unit written to ")?;
    path.lines().next()
}

/// A number of libFuzzer's statistics.
fn statistic(log: &str, name: &str) -> Option<u64> {
    let (_, number) = log.split_once(&format!("stat::{name}:"))?;
    number.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_says_is_read() {
        let log =
            "Done 15 runs\nstat::number_of_executed_units: 15\nstat::new_units_added:          3\n";
        assert_eq!(statistic(log, "number_of_executed_units"), Some(15));
        assert_eq!(statistic(log, "new_units_added"), Some(3));
        assert_eq!(statistic(log, "peak_rss_mb"), None);
        assert_eq!(written(log), None);
        let log = "artifact_prefix='a/'; Test unit written to a/crash-12\nBase64: \n";
        assert_eq!(written(log), Some("a/crash-12"));
    }
}
