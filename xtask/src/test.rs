//! `cargo xtask test`: everything that must hold, cheapest first, stopping at the first failure.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use chopi::cpu::Isa;

use crate::libtorch::Libtorch;
use crate::workspace::Workspace;
use crate::{
    built, check_backends, check_crates, check_docs, check_model, check_pychop, direction, fuzz,
    model, process, table,
};

/// What has tests; the examples have none.
const TARGETS: [&str; 3] = ["--lib", "--bins", "--tests"];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Leave out what needs the network, a release build or another set of features
    #[arg(long)]
    fast: bool,
}

/// Formats, lints, tests, documents and checks.
pub fn run(args: &Args) -> Result<()> {
    let mut sections = Sections::default();
    let result = if args.fast {
        fast(&mut sections)
    } else {
        full(&mut sections)
    };
    sections.finish(&result);
    result
}

fn fast(sections: &mut Sections) -> Result<()> {
    let cargo = Cargo::default();
    sections.start("Formatting");
    cargo.run(["fmt", "--all", "--check"])?;
    sections.start("Directions between crates");
    direction::check(&Workspace::load()?)?;
    sections.start("Lints");
    cargo.run(["clippy", "--all-targets", "--", "-Dwarnings"])?;
    sections.start("Tests");
    cargo.tests(&TARGETS)?;
    sections.start("Documentation tests");
    cargo.run(["test", "--doc"])?;
    sections.start("Documentation");
    check_docs::build(&mut cargo.command(["doc", "--no-deps", "--lib"]))?;
    check_docs::links(&Workspace::load()?)
}

fn full(sections: &mut Sections) -> Result<()> {
    let workspace = Workspace::load()?;
    let mut cargo = Cargo::default();

    sections.start("Formatting");
    cargo.run(["fmt", "--all", "--check"])?;
    cargo.run(["fmt", "--manifest-path=fuzz/Cargo.toml", "--check"])?;

    sections.start("Directions between crates");
    direction::check(&workspace)?;

    if workspace.needs_libtorch() {
        sections.start("libtorch");
        cargo.environment = Libtorch::find()?.environment()?;
        for (name, value) in &cargo.environment {
            println!("{name}={value}");
        }
    }

    sections.start("Lints");
    let all_features = workspace.all_features();
    let everything = ["--workspace", &*all_features];
    cargo.run(
        ["clippy", "--all-targets"]
            .iter()
            .chain(&everything)
            .chain(&["--", "-Dwarnings"]),
    )?;
    for package in &workspace.packages {
        for features in package.feature_sets() {
            let package = ["clippy", "--all-targets", "--package", &package.name];
            let features = features.iter().map(String::as_str);
            cargo.run(
                package
                    .into_iter()
                    .chain(features)
                    .chain(["--", "-Dwarnings"]),
            )?;
        }
    }

    // From here to the program as it is installed: all members with all features, so that everything is
    // built once.
    sections.start("Tests");
    // But not those of the program: they start it some thousand times, and one that links libtorch takes
    // half a second to start.
    let but_program = workspace.all_features_but("chopi-cli");
    let selected = if Cargo::has_nextest() {
        [
            "--filterset=not package(chopi-cli)",
            everything[0],
            everything[1],
        ]
    } else {
        ["--exclude=chopi-cli", "--workspace", &but_program]
    };
    let targets = [&TARGETS[..], &selected].concat();
    cargo.tests(&targets)?;
    let others = Isa::ALL.into_iter().filter(|&isa| isa != Isa::active());
    for isa in others.filter(|isa| isa.is_available()) {
        println!("--- with the kernels for {isa}");
        let cargo = cargo.with("CHOPI_ISA", isa.name());
        cargo.tests(&targets)?;
    }

    sections.start("Documentation tests");
    cargo.run(["test", "--doc"].iter().chain(&everything))?;

    sections.start("Examples");
    let examples = ["build", "--examples"].iter().chain(&everything);
    for (example, path) in built::programs(&mut cargo.command(examples))? {
        let mut command = cargo.program(&path);
        match &*example {
            // Those that train do so briefly.
            name if name.starts_with("qat_")
                || ["digits_integer", "ptq_convolution"].contains(&name) =>
            {
                command.args(["--epochs", "2"]);
            }
            "quantize_and_embed" => {
                command.arg(model::minilm()?);
            }
            "methods" => {
                let sentences = workspace.python("sentences.txt");
                command
                    .arg(model::minilm()?)
                    .args(["--methods", "rtn,gptq"]);
                command.arg("--calibration").arg(&sentences);
                command.arg("--evaluation").arg(&sentences);
            }
            "quantize_and_run" => {
                // A small one: the real one takes PyTorch to make.
                command.arg(
                    workspace
                        .workspace_root
                        .join("crates/chopi-models/tests/data/llama"),
                );
            }
            _ => {}
        }
        process::run(&mut command)?;
    }

    sections.start("The real model: the same bytes with every backend");
    // With the tests, which are built already: their dependencies have a say in the features.
    let build = ["build", "--bin=chopi", "--tests"];
    let program = built::chopi(&mut cargo.command(build.iter().chain(&everything)))?;
    check_backends::run(&check_backends::Args::short(program))?;

    sections.start("Tests of the program as it is installed");
    let alone = ["--package", "chopi-cli"];
    cargo.tests(&[&TARGETS[..], &alone[..]].concat())?;

    sections.start("The real model: the same numbers as NumPy");
    let program = built::chopi(&mut cargo.command(build.iter().chain(&alone)))?;
    check_model::run(&check_model::Args::short(program))?;

    sections.start("Tests with ndarray alone");
    // Without threads. With the other sets of features the lints have compiled the tests; what they do
    // there they did above.
    let features = ["--no-default-features", "--features=ndarray"];
    let alone = [&["--package", "chopi"], &features[..]].concat();
    cargo.tests(&[&["--lib", "--tests"], &alone[..]].concat())?;
    cargo.run(["test", "--doc"].iter().chain(&alone))?;

    sections.start("Fuzzing");
    fuzz::run(&fuzz::Args::short())?;

    sections.start("Documentation");
    check_docs::build_all(&workspace)?;
    check_docs::links(&workspace)?;

    sections.start("Licenses and sources of dependencies");
    // `cargo xtask check-crates` installs it, which takes longer than all that it checks.
    if process::succeeds(&mut process::cargo(["deny", "--version"])) {
        cargo.run(check_crates::DENIED)?;
    } else {
        println!("left out: cargo-deny is not installed");
    }

    sections.start("pychop: the same numbers with its convention");
    check_pychop::run(&check_pychop::Args::short())
}

/// Cargo, with the environment that the workspace needs.
#[derive(Debug, Default)]
struct Cargo {
    environment: Vec<(String, String)>,
}

impl Cargo {
    /// Cargo with one more environment variable.
    fn with(&self, name: &str, value: &str) -> Self {
        let mut environment = self.environment.clone();
        environment.push((name.to_owned(), value.to_owned()));
        Self { environment }
    }

    fn command<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        self.provided(process::cargo(args))
    }

    /// A program that Cargo has built.
    fn program(&self, path: &Path) -> Command {
        self.provided(Command::new(path))
    }

    fn provided(&self, mut command: Command) -> Command {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run<I: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Result<()> {
        process::run(&mut self.command(args))
    }

    /// The tests of some targets: by cargo-nextest, which sums them up, if it is installed.
    fn tests(&self, args: &[&str]) -> Result<()> {
        match Self::has_nextest() {
            true => self.run(["nextest", "run", "--no-tests=pass"].iter().chain(args)),
            false => self.run(["test"].iter().chain(args)),
        }
    }

    fn has_nextest() -> bool {
        process::succeeds(&mut process::cargo(["nextest", "--version"]))
    }
}

/// The parts of the run, with their times.
#[derive(Debug, Default)]
struct Sections {
    done: Vec<(&'static str, Duration)>,
    current: Option<(&'static str, Instant)>,
}

impl Sections {
    fn start(&mut self, name: &'static str) {
        self.stop();
        println!("\n=== {name} ===");
        self.current = Some((name, Instant::now()));
    }

    fn stop(&mut self) {
        if let Some((name, start)) = self.current.take() {
            self.done.push((name, start.elapsed()));
        }
    }

    /// Says how long each part took, and which one failed.
    fn finish(mut self, result: &Result<()>) {
        let failed = self
            .current
            .map(|(name, _)| name)
            .filter(|_| result.is_err());
        self.stop();
        println!("\n=== Summary ===");
        let mut table = table::table(&["section", "seconds"], 1);
        let total = self.done.iter().map(|(_, time)| *time).sum::<Duration>();
        for (name, time) in self.done.iter().chain([&("total", total)]) {
            table.add_row([(*name).to_owned(), format!("{:.1}", time.as_secs_f64())]);
        }
        println!("{table}");
        match failed {
            Some(name) => println!("failed: {name}"),
            None => println!("passed"),
        }
    }
}
