//! `cargo xtask test-emulated`: the tests, compiled for 64-bit ARM and for s390x, which is big-endian, and run under
//! emulation.
//!
//! A toolchain comes from Debian's unstable suite, whose packages apt downloads and dpkg unpacks into a folder of the
//! cache. They are not installed: nothing in them needs to be configured. The tests are built there in a chroot, in
//! a mount namespace that goes with the process, and run by qemu-user. So it takes Linux on x86-64 with apt, and root.

mod root;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::built::Artifact;
use crate::table;
use crate::table::count;
use root::Root;

/// The members that are tested, with their features. Left out are those of candle and libtorch, whose
/// frameworks would have to be built too, and the tasks.
const MEMBERS: [&str; 8] = [
    "chopi-kernels",
    "chopi-core",
    "chopi-ndarray",
    "chopi-matmul",
    "chopi-conformance",
    "chopi-formats",
    "chopi-ptq",
    "chopi",
];
const FEATURES: &str = "chopi-kernels/rayon,chopi-kernels/serde,chopi-core/rayon,chopi-core/serde,\
                        chopi-ndarray/matmul,chopi-matmul/rayon,chopi-formats/layers,chopi-ptq/rayon,\
                        chopi-ptq/serde,chopi/matmul,chopi/serde";
/// The program, which runs models by candle.
const PROGRAM: &str = "chopi-cli";

/// An architecture that is emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Architecture {
    Arm64,
    S390x,
}

impl Architecture {
    /// Its name in Debian.
    fn debian(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::S390x => "s390x",
        }
    }

    /// Its name in triples and in the emulator.
    fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64",
            Self::S390x => "s390x",
        }
    }

    /// The target of the compiler.
    fn target(self) -> String {
        format!("{}-unknown-linux-gnu", self.name())
    }

    /// The instruction set of the kernels, which a test of chopi-kernels checks to be the active one.
    fn isa(self) -> &'static str {
        match self {
            Self::Arm64 => "neon",
            Self::S390x => "portable",
        }
    }

    /// What is tested: candle reads and writes files on little-endian machines only.
    fn members(self) -> Vec<&'static str> {
        let program = (self == Self::Arm64).then_some(PROGRAM);
        MEMBERS.into_iter().chain(program).collect()
    }

    /// A member, and a CPU that its tests run on too, which lacks instructions that the emulator's own has, and that
    /// some products use: dot products.
    fn old_cpu(self) -> Option<(&'static str, &'static str)> {
        (self == Self::Arm64).then_some(("chopi-matmul", "cortex-a53"))
    }
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Architectures, instead of all
    #[arg(value_name = "ARCHITECTURE")]
    architectures: Vec<Architecture>,
    /// Crates to test, instead of all that can be
    #[arg(long = "package", value_name = "CRATE")]
    packages: Vec<String>,
}

/// Builds the tests and runs one binary after the other.
pub fn run(args: &Args) -> Result<()> {
    let root = Root::new()?;
    let architectures = match args.architectures.is_empty() {
        true => Architecture::value_variants(),
        false => &args.architectures,
    };
    let header = [
        "architecture",
        "tests",
        "result",
        "passed",
        "failed",
        "ignored",
        "seconds",
    ];
    let mut table = table::table(&header, 3);
    let (mut failed, mut outputs) = (Vec::new(), Vec::new());
    for &architecture in architectures {
        let binaries = root.build(architecture, &args.packages)?;
        root.put_emulator(architecture)?;
        let on_old_cpu = architecture
            .old_cpu()
            .into_iter()
            .flat_map(|(member, cpu)| {
                let those = binaries.iter().filter(move |b| b.name.starts_with(member));
                those.map(move |binary| (binary, Some(cpu)))
            });
        let on_its_own = binaries.iter().map(|binary| (binary, None));
        for (binary, cpu) in on_its_own.chain(on_old_cpu) {
            let name = match cpu {
                Some(cpu) => format!("{} on {cpu}", binary.name),
                None => binary.name.clone(),
            };
            let start = Instant::now();
            let (well, output) = root.test(architecture, binary, cpu)?;
            let seconds = format!("{:.1}", start.elapsed().as_secs_f64());
            let [passed, failures, ignored] =
                ["passed", "failed", "ignored"].map(|what| number(&output, what));
            let architecture = architecture.name();
            eprintln!("{architecture}: {name}: {passed} passed, {failures} failed, {seconds} s");
            if !well {
                failed.push(format!("{architecture}: {name}"));
                outputs.push(output);
            }
            let result = if well { "ok" } else { "FAILED" };
            let numbers = [passed, failures, ignored].map(count);
            let cells = [architecture.to_owned(), name, result.to_owned()]
                .into_iter()
                .chain(numbers)
                .chain([seconds]);
            table.add_row(cells);
        }
    }
    for output in outputs {
        eprintln!("{output}");
    }
    println!("{table}");
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// A binary of tests.
#[derive(Debug)]
struct Binary {
    /// The crate and the file of the tests.
    name: String,
    /// Where it lies, seen from inside.
    path: PathBuf,
    /// The folder that it is run in, seen from inside.
    folder: PathBuf,
}

/// The binary of tests that a message of Cargo is about, if it is about one.
fn binary(message: &str) -> Option<Binary> {
    let artifact = Artifact::read(message)?;
    let path = artifact.executable.filter(|_| artifact.profile.test)?;
    let folder = artifact.manifest_path.parent()?.to_owned();
    let member = match folder.file_name()?.to_string_lossy() {
        name if name == "workspace" => "chopi".to_owned(),
        name => name.into_owned(),
    };
    let name = match &*artifact.target.kind {
        [kind] if kind == "test" => format!("{member}, tests/{}", artifact.target.name),
        [kind] if kind == "bin" => format!("{member}, program"),
        _ => format!("{member}, library"),
    };
    Some(Binary { name, path, folder })
}

/// A number of the line in which a binary of tests sums them up.
fn number(output: &str, what: &str) -> u64 {
    let lines = output
        .lines()
        .filter(|line| line.starts_with("test result: "));
    let words: Vec<&str> = lines.flat_map(|line| line.split([' ', ';'])).collect();
    let pairs = words.windows(2).filter(|pair| pair[1] == what);
    pairs.filter_map(|pair| pair[0].parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_results_of_tests_are_read() {
        let output = "test a ... ok\n\ntest result: ok. 18 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; \
                      finished in 5.38s\n";
        assert_eq!(
            ["passed", "failed", "ignored"].map(|what| number(output, what)),
            [18, 0, 2]
        );
        assert_eq!(number("", "passed"), 0);
    }

    #[test]
    fn binaries_of_tests_are_told_from_libraries_and_programs() {
        let artifact = |kind: &str, test: bool, executable: &str| {
            binary(&format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/workspace/crates/chopi-core/Cargo.toml",
                    "target":{{"kind":["{kind}"],"name":"saved"}},"profile":{{"test":{test}}},
                    "executable":{executable}}}"#
            ))
        };
        let tests = artifact("test", true, r#""/target/saved-1""#).unwrap();
        assert_eq!(
            (&*tests.name, &*tests.path),
            ("chopi-core, tests/saved", Path::new("/target/saved-1"))
        );
        assert_eq!(tests.folder, Path::new("/workspace/crates/chopi-core"));
        assert!(artifact("lib", false, "null").is_none());
        assert!(artifact("bin", false, r#""/target/chopi""#).is_none());
    }
}
