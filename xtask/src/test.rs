//! `cargo xtask test`: everything that must hold, cheapest first, stopping at the first failure.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use chopi::Isa;

use crate::libtorch::Libtorch;
use crate::workspace::{Package, Workspace};
use crate::{check_backends, check_model, check_pychop, model, process, table};

/// The members that are programs.
const PROGRAMS: [&str; 2] = ["chopi-cli", "xtask"];

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
    sections.start("Lints");
    cargo.run(["clippy", "--all-targets", "--", "-Dwarnings"])?;
    sections.start("Tests");
    cargo.tests(&[])?;
    sections.start("Documentation tests");
    cargo.run(["test", "--doc"])?;
    sections.start("Documentation");
    cargo.docs(&[])
}

fn full(sections: &mut Sections) -> Result<()> {
    let workspace = Workspace::load()?;
    let facade = workspace.package("chopi")?;
    let mut cargo = Cargo::default();

    sections.start("Formatting");
    cargo.run(["fmt", "--all", "--check"])?;

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

    sections.start("Tests");
    // The programs are tested as they are installed: one that links libtorch takes half a second to
    // start, and their tests start it some thousand times.
    let features = workspace.features_but(&PROGRAMS);
    let [cli, xtask] = PROGRAMS;
    let libraries = [
        "--workspace",
        "--exclude",
        cli,
        "--exclude",
        xtask,
        &features,
    ];
    cargo.tests(&libraries)?;
    let others = Isa::ALL.into_iter().filter(|&isa| isa != Isa::active());
    for isa in others.filter(|isa| isa.is_available()) {
        println!("--- with the kernels for {isa}");
        cargo.with("CHOPI_ISA", isa.name()).tests(&libraries)?;
    }
    cargo.tests(&["--package", cli, "--package", xtask])?;
    for_each_feature_set(facade, |args| cargo.tests(args))?;

    sections.start("Documentation tests");
    cargo.run(["test", "--doc"].iter().chain(&everything))?;
    for_each_feature_set(facade, |args| {
        cargo.run(["test", "--doc"].iter().chain(args))
    })?;

    sections.start("Examples");
    for example in facade.examples() {
        let run = ["run", "--quiet", "--example", example, &all_features];
        let folder;
        let args: &[&str] = match example {
            // Those that train do so briefly.
            name if name.starts_with("qat_") || name == "digits_integer" => {
                &["--", "--epochs", "2"]
            }
            "minilm_candle" => {
                folder = model::folder()?.display().to_string();
                &["--", &folder, "--passes", "1"]
            }
            _ => &[],
        };
        cargo.run(run.iter().chain(args))?;
    }

    sections.start("Documentation");
    // As on docs.rs, without libtorch.
    Cargo::default().docs(&["--workspace", &workspace.documentation_features()])?;

    sections.start("Licenses and sources of dependencies");
    if process::succeeds(&mut process::cargo(["deny", "--version"])) {
        cargo.run([
            "deny",
            "--all-features",
            "check",
            "licenses",
            "bans",
            "sources",
        ])?;
    } else {
        println!("left out: cargo-deny is not installed");
    }

    sections.start("pychop: the same numbers with its convention");
    check_pychop::run(&check_pychop::Args::short())?;

    sections.start("The real model: the same bytes with every backend");
    check_backends::run(&check_backends::Args::short())?;

    sections.start("The real model: the same numbers as NumPy");
    check_model::run(&check_model::Args::short())
}

/// Calls `run` with Cargo's arguments for each set of features of a package.
fn for_each_feature_set(package: &Package, run: impl Fn(&[&str]) -> Result<()>) -> Result<()> {
    for features in package.feature_sets() {
        let mut args = vec!["--package", &*package.name];
        args.extend(features.iter().map(String::as_str));
        run(&args)?;
    }
    Ok(())
}

/// Cargo, with the environment that the workspace needs.
#[derive(Debug, Default)]
struct Cargo {
    environment: Vec<(String, String)>,
}

impl Cargo {
    /// The same with another variable.
    fn with(&self, name: &str, value: &str) -> Self {
        let mut environment = self.environment.clone();
        environment.push((name.to_owned(), value.to_owned()));
        Self { environment }
    }

    fn command<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Command {
        let mut command = process::cargo(args);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run<I: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = I>) -> Result<()> {
        process::run(&mut self.command(args))
    }

    /// All tests but those in the documentation: by cargo-nextest, which sums them up, if it is
    /// installed.
    fn tests(&self, args: &[&str]) -> Result<()> {
        if process::succeeds(&mut process::cargo(["nextest", "--version"])) {
            self.run(["nextest", "run", "--no-tests=pass"].iter().chain(args))
        } else {
            self.run(
                ["test", "--lib", "--bins", "--tests", "--examples"]
                    .iter()
                    .chain(args),
            )
        }
    }

    fn docs(&self, args: &[&str]) -> Result<()> {
        let mut command = self.command(["doc", "--no-deps", "--lib"].iter().chain(args));
        let flags = "-D warnings -D rustdoc::broken_intra_doc_links";
        process::run(command.env("RUSTDOCFLAGS", flags))
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
