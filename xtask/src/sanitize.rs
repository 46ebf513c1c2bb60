//! `cargo xtask sanitize`: the tests of the crates that have `unsafe` code, or feed it, under
//! AddressSanitizer, and where that cannot go, a few under valgrind.

use std::process::Command;

use anyhow::{Context, Result, bail};
use chopi::cpu::Isa;

use crate::libtorch::Libtorch;
use crate::process;
use crate::workspace::Workspace;

/// A crate to test.
struct Tested {
    package: &'static str,
    /// The argument of Cargo that says which.
    features: &'static str,
    /// Whether it is tested on each instruction set, and not on the best one alone.
    on_each_isa: bool,
    /// Tests that cannot run under the sanitizer.
    skipped: &'static [&'static str],
}

/// The crates whose `unsafe` code runs without libtorch, and those that hand them what they read.
const CRATES: [Tested; 9] = [
    Tested::on_each_isa("chopi-kernels"),
    Tested::on_each_isa("chopi-core"),
    Tested::on_each_isa("chopi-ndarray"),
    Tested::on_each_isa("chopi-matmul"),
    // Not all features: they are of GPUs, of Apple's, and of libtorch.
    Tested::on_the_best_isa("chopi-candle", "--features=matmul"),
    Tested::on_the_best_isa("chopi-formats", "--all-features"),
    Tested::on_the_best_isa("chopi-ptq", "--features=rayon,serde"),
    Tested::on_the_best_isa("chopi-models", "--features=rayon"),
    Tested {
        // The shadow memory of the sanitizer is more than the memory that this one may take.
        skipped: &["a_tensor_larger_than_the_memory_is_read_at_any_offset"],
        ..Tested::on_the_best_isa("chopi-cli", "--features=candle")
    },
];

/// The tests of libtorch's memory, which is not the sanitizer's: the files of tests, and which of them.
const UNDER_VALGRIND: [(&str, &[&str]); 3] = [
    ("memory", &[]),
    ("want_of_memory", &[]),
    (
        "conformance",
        &["the_memory_layout_does_not_matter", "empty"],
    ),
];

impl Tested {
    const fn on_each_isa(package: &'static str) -> Self {
        Self {
            package,
            features: "--all-features",
            on_each_isa: true,
            skipped: &[],
        }
    }

    const fn on_the_best_isa(package: &'static str, features: &'static str) -> Self {
        Self {
            features,
            on_each_isa: false,
            ..Self::on_each_isa(package)
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Crates to test, instead of all
    #[arg(long = "package", value_name = "CRATE")]
    packages: Vec<String>,
    /// An instruction set for the kernels, instead of each that the CPU has
    #[arg(long, value_name = "NAME")]
    isa: Option<Isa>,
}

/// Tests each crate on its instruction sets, and chopi-tch under valgrind.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let host = host()?;
    let asked =
        |package: &str| args.packages.is_empty() || args.packages.iter().any(|p| p == package);
    let names = || CRATES.iter().map(|tested| tested.package).chain([TCH]);
    if let Some(unknown) = args
        .packages
        .iter()
        .find(|p| !names().any(|name| name == **p))
    {
        let names: Vec<&str> = names().collect();
        bail!(
            "no crate {unknown:?} here, expected one of {}",
            names.join(", ")
        );
    }
    let available = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let isas = available.filter(|isa| args.isa.is_none_or(|asked| asked == *isa));
    let isas: Vec<Isa> = isas.collect();
    for tested in CRATES.iter().filter(|tested| asked(tested.package)) {
        let isas = match tested.on_each_isa {
            true => &isas[..],
            false => &isas[..isas.len().min(1)],
        };
        for &isa in isas {
            sanitize(tested, isa, &host, &workspace)?;
        }
    }
    match asked(TCH) {
        true => valgrind(&host),
        false => Ok(()),
    }
}

/// The crate of libtorch.
const TCH: &str = "chopi-tch";

/// The tests of a crate under AddressSanitizer.
fn sanitize(tested: &Tested, isa: Isa, host: &str, workspace: &Workspace) -> Result<()> {
    let package = tested.package;
    println!("\n=== {package} with the kernels for {isa} ===");
    let mut command = process::cargo(["test", "--package", package, tested.features]);
    // Not the documentation tests: rustdoc takes flags of its own, and they run what the others run. With a
    // target, the flags are not those of build scripts and procedural macros. A folder of its own: the flags
    // are others, and everything would be built anew both ways.
    command
        .args([
            "--lib",
            "--bins",
            "--tests",
            "--target",
            host,
            "--target-dir",
        ])
        .arg(workspace.target_directory.join("sanitize"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", "-Zsanitizer=address")
        // What cannot be allocated is an error in the tests too.
        .env("ASAN_OPTIONS", "allocator_may_return_null=1")
        .env("CHOPI_ISA", isa.name());
    command.arg("--");
    for skipped in tested.skipped {
        command.args(["--skip", skipped]);
    }
    process::run(&mut command)
}

/// Some tests of chopi-tch under valgrind, where that is installed.
fn valgrind(host: &str) -> Result<()> {
    if !process::succeeds(Command::new("valgrind").arg("--version")) {
        println!("left out: valgrind is not here");
        return Ok(());
    }
    let environment = Libtorch::find()?.environment()?;
    let runner = format!(
        "CARGO_TARGET_{}_RUNNER",
        host.to_uppercase().replace('-', "_")
    );
    for (file, tests) in UNDER_VALGRIND {
        println!("\n=== {TCH}, {file}, under valgrind ===");
        let mut command = process::cargo(["test", "--package", TCH, "--test", file, "--"]);
        command
            .args(tests)
            .envs(environment.iter().cloned())
            .env(&runner, "valgrind --quiet --error-exitcode=1")
            // libtorch's threads take turns under valgrind.
            .env("OMP_NUM_THREADS", "1");
        process::run(&mut command)?;
    }
    Ok(())
}

/// The target of the machine itself.
pub fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = process::output(Command::new(rustc).arg("-vV"))?;
    let host = host_of(&version).context("`rustc -vV` names no host")?;
    Ok(host.to_owned())
}

fn host_of(version: &str) -> Option<&str> {
    version.lines().find_map(|line| line.strip_prefix("host: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_what_rustc_says() {
        let version =
            "rustc 1.95.0\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.95.0";
        assert_eq!(host_of(version), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host_of("rustc 1.95.0"), None);
    }
}
