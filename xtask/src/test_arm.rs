//! `cargo xtask test-arm`: the tests, compiled for 64-bit ARM and run under emulation.
//!
//! A toolchain for ARM comes from Debian's unstable suite, whose packages apt downloads and dpkg unpacks into a
//! folder of the cache. They are not installed: nothing in them needs to be configured. The tests are built
//! there in a chroot, in a mount namespace that goes with the process, and run by qemu-user. So it takes
//! Linux on x86-64 with apt, and root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::table::count;
use crate::workspace::Workspace;
use crate::{cache, process, table};

const TARGET: &str = "aarch64-unknown-linux-gnu";
/// Where Debian's packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The packages, with those that they depend on: but for base-files, dash and coreutils, which every package
/// may take for granted.
const PACKAGES: [&str; 10] = [
    "base-files",
    "dash",
    "coreutils",
    "cargo",
    "rustc",
    "libstd-rust-dev:arm64",
    "gcc",
    "gcc-aarch64-linux-gnu",
    "libc6-dev-arm64-cross",
    "qemu-user",
];
/// A CPU that lacks instructions which the emulator's own has, and which some products use: dot products.
const OLD_CPU: &str = "cortex-a53";
/// The member whose tests run on that CPU too.
const MEMBER_OF_OLD_CPU: &str = "chopi-matmul";
/// What the command needs of the machine.
const PROGRAMS: [&str; 5] = ["apt-get", "dpkg-deb", "chroot", "mount", "unshare"];
/// The members that are tested, with their features. Left out are those of candle and libtorch, whose
/// frameworks would have to be built for ARM too, and the tasks.
const MEMBERS: [&str; 9] = [
    "chopi-kernels",
    "chopi-core",
    "chopi-ndarray",
    "chopi-matmul",
    "chopi-conformance",
    "chopi-formats",
    "chopi-ptq",
    "chopi-cli",
    "chopi",
];
const FEATURES: &str = "--features=chopi-kernels/rayon,chopi-kernels/serde,chopi-core/rayon,\
                        chopi-core/serde,chopi-ndarray/matmul,chopi-matmul/rayon,chopi-ptq/rayon,\
                        chopi-ptq/serde,chopi/matmul,chopi/serde";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Crates to test, instead of all that can be
    #[arg(long = "package", value_name = "CRATE")]
    packages: Vec<String>,
}

/// Builds the tests and runs one binary after the other.
pub fn run(args: &Args) -> Result<()> {
    check_machine()?;
    let workspace = Workspace::load()?;
    // In the registry of this machine, which the chroot sees.
    process::run(&mut process::cargo(["fetch", "--locked"]))?;
    let root = Root {
        folder: cache::entry("debian-sid-arm64", make)?,
        target: workspace.target_directory.join("arm"),
        workspace: workspace.workspace_root,
    };
    fs::create_dir_all(&root.target)?;
    let binaries = root.build(args)?;
    root.put_emulator()?;

    let header = ["tests", "result", "passed", "failed", "ignored", "seconds"];
    let mut table = table::table(&header, 2);
    let (mut failed, mut outputs) = (Vec::new(), Vec::new());
    let on_old_cpu = binaries
        .iter()
        .filter(|binary| binary.name.starts_with(MEMBER_OF_OLD_CPU))
        .map(|binary| (binary, Some(OLD_CPU)));
    for (binary, cpu) in binaries
        .iter()
        .map(|binary| (binary, None))
        .chain(on_old_cpu)
    {
        let name = match cpu {
            Some(cpu) => format!("{} on {cpu}", binary.name),
            None => binary.name.clone(),
        };
        let start = Instant::now();
        let (well, output) = root.test(binary, cpu)?;
        let seconds = format!("{:.1}", start.elapsed().as_secs_f64());
        let [passed, failures, ignored] =
            ["passed", "failed", "ignored"].map(|what| number(&output, what));
        eprintln!("{name}: {passed} passed, {failures} failed, {seconds} s");
        if !well {
            failed.push(name.clone());
            outputs.push(output);
        }
        let result = if well { "ok" } else { "FAILED" };
        let numbers = [passed, failures, ignored].map(count);
        let cells = [name, result.to_owned()]
            .into_iter()
            .chain(numbers)
            .chain([seconds]);
        table.add_row(cells);
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

/// Says what is missing.
fn check_machine() -> Result<()> {
    let mut missing = Vec::new();
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        missing.push("Linux on x86-64".to_owned());
    }
    for program in PROGRAMS {
        if !process::succeeds(Command::new(program).arg("--version")) {
            missing.push(format!("the program {program}"));
        }
    }
    if !Path::new(KEYRING).is_file() {
        missing.push(format!("{KEYRING} (package debian-archive-keyring)"));
    }
    if !process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0") {
        missing.push("root, to mount and to change into another root folder".to_owned());
    }
    if !missing.is_empty() {
        bail!(
            "the tests for ARM need what this machine lacks: {}",
            missing.join(", ")
        );
    }
    Ok(())
}

/// Downloads and unpacks the packages.
fn make(folder: &Path) -> Result<()> {
    let apt = folder.join("apt");
    for name in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(name))?;
    }
    let (sources, status) = (apt.join("sources.list"), apt.join("status"));
    // No package is installed.
    fs::write(&status, "")?;
    fs::write(
        &sources,
        format!("deb [arch=amd64,arm64 signed-by={KEYRING}] {MIRROR} sid main\n"),
    )?;
    let options = [
        ("Dir::Etc::SourceList", sources.display().to_string()),
        ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
        ("Dir::State", apt.join("state").display().to_string()),
        ("Dir::State::Status", status.display().to_string()),
        ("Dir::Cache", apt.join("cache").display().to_string()),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Architectures", "amd64,arm64".to_owned()),
        ("APT::Install-Recommends", "false".to_owned()),
        ("APT::Sandbox::User", "root".to_owned()),
        ("Acquire::Languages", "none".to_owned()),
        // A mirror may be a few days behind.
        ("Acquire::Check-Valid-Until", "false".to_owned()),
    ];
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.args(
            options
                .iter()
                .map(|(name, value)| format!("-o{name}={value}")),
        );
        command
    };
    process::run_as_progress(apt_get().args(["--quiet=2", "update"]))?;
    process::run_as_progress(
        apt_get()
            .args(["--quiet=2", "--yes", "--download-only", "install"])
            .args(PACKAGES),
    )?;
    let mut packages = Vec::new();
    for entry in fs::read_dir(apt.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    // base-files first: its links make one folder of /lib and /usr/lib.
    let is_base = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("base-files_"))
    };
    packages.sort_by_key(|path| !is_base(path));
    for package in packages {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&package).arg(folder);
        let status = unpack
            .status()
            .with_context(|| process::cannot_run(&unpack))?;
        process::check(&unpack, status)?;
    }
    // Links that packages make when they are configured.
    #[cfg(unix)]
    for (name, to) in [("cc", "gcc"), ("sh", "dash")] {
        let link = folder.join("usr/bin").join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(to, link)?;
        }
    }
    for name in ["workspace", "target", "cargo/registry"] {
        fs::create_dir_all(folder.join(name))?;
    }
    Ok(fs::remove_dir_all(apt)?)
}

/// The root folder with the toolchain, and what it sees of the machine.
#[derive(Debug)]
struct Root {
    folder: PathBuf,
    workspace: PathBuf,
    /// Where the tests are built.
    target: PathBuf,
}

/// A binary of tests.
#[derive(Debug)]
struct Binary {
    /// The crate and the file of the tests.
    name: String,
    /// Where it lies, seen from inside.
    path: String,
    /// The folder that it is run in, seen from inside.
    folder: PathBuf,
}

/// What Cargo says of something that it has built.
#[derive(Debug, Deserialize)]
struct Artifact {
    target: Target,
    profile: Profile,
    manifest_path: PathBuf,
    executable: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Profile {
    test: bool,
}

impl Root {
    /// A command that is run inside, in this folder.
    fn command(&self, folder: &Path, program: &str) -> Result<Command> {
        // What is mounted is seen by this process and those that it starts, and goes with them.
        const SCRIPT: &str = r#"set -e
root=$1 workspace=$2 target=$3 registry=$4 folder=$5
shift 5
mount --bind "$workspace" "$root/workspace"
mount --bind "$target" "$root/target"
mount --bind "$registry" "$root/cargo/registry"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot "$root" /usr/bin/env --chdir="$folder" "$@""#;
        let home = match std::env::var_os("CARGO_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir()
                .context("there is no home folder")?
                .join(".cargo"),
        };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation=private", "sh", "-c", SCRIPT, "sh"]);
        command.args([
            &self.folder,
            &self.workspace,
            &self.target,
            &home.join("registry"),
        ]);
        command.arg(folder).arg(program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/cargo")
            .env("CARGO_HOME", "/cargo")
            .env("CARGO_TARGET_DIR", "/target")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                "aarch64-linux-gnu-gcc",
            )
            // That it is the active one, a test of chopi-kernels checks.
            .env("CHOPI_ISA", "neon");
        Ok(command)
    }

    /// Builds the tests.
    fn build(&self, args: &Args) -> Result<Vec<Binary>> {
        let mut command = self.command(Path::new("/workspace"), "cargo")?;
        command.args([
            "test",
            "--no-run",
            "--offline",
            "--locked",
            "--lib",
            "--bins",
            "--tests",
        ]);
        command.args([
            "--target",
            TARGET,
            "--message-format=json-render-diagnostics",
        ]);
        let members: Vec<&str> = match args.packages.is_empty() {
            true => MEMBERS.to_vec(),
            false => args.packages.iter().map(String::as_str).collect(),
        };
        for member in &members {
            command.args(["--package", member]);
        }
        // Those of the members that are built.
        let of_members = |feature: &&str| {
            feature
                .split_once('/')
                .is_some_and(|(member, _)| members.contains(&member))
        };
        let features: Vec<&str> = FEATURES["--features=".len()..]
            .split(',')
            .filter(of_members)
            .collect();
        command.arg(format!("--features={}", features.join(",")));
        eprintln!("building the tests of {} for {TARGET}", members.join(", "));
        let messages = process::output(&mut command)?;
        let mut binaries: Vec<Binary> = messages.lines().filter_map(binary).collect();
        // Last the tests of the program, which start it some thousand times.
        binaries.sort_by_key(|binary| (binary.name == "chopi-cli, tests/cli", binary.name.clone()));
        Ok(binaries)
    }

    /// Puts a script in the place of the program `chopi`, which its tests start: the kernel of this machine
    /// cannot run one for ARM.
    fn put_emulator(&self) -> Result<()> {
        let folder = self.target.join(TARGET).join("debug");
        let program = folder.join("chopi");
        if !program.exists() {
            return Ok(());
        }
        // It may be the script of an earlier run, if Cargo had nothing to build.
        if fs::read(&program)?.starts_with(b"\x7fELF") {
            fs::rename(&program, folder.join("chopi-arm"))?;
        }
        let script =
            format!("#!/bin/sh\nexec qemu-aarch64 /target/{TARGET}/debug/chopi-arm \"$@\"\n");
        fs::write(&program, script)?;
        #[cfg(unix)]
        fs::set_permissions(
            &program,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        Ok(())
    }

    /// Runs the tests of a binary, on a CPU that the emulator knows by name or else its own: whether they
    /// pass, and what they print.
    fn test(&self, binary: &Binary, cpu: Option<&str>) -> Result<(bool, String)> {
        let mut command = self.command(&binary.folder, "qemu-aarch64")?;
        command.envs(cpu.map(|cpu| ("QEMU_CPU", cpu)));
        command.arg(&binary.path).stdin(Stdio::null());
        let output = command
            .output()
            .with_context(|| process::cannot_run(&command))?;
        let text = [output.stdout, output.stderr].concat();
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }
}

/// The binary of tests that a message of Cargo is about, if it is about one.
fn binary(message: &str) -> Option<Binary> {
    let artifact: Artifact = serde_json::from_str(message).ok()?;
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
            ("chopi-core, tests/saved", "/target/saved-1")
        );
        assert_eq!(tests.folder, Path::new("/workspace/crates/chopi-core"));
        assert!(artifact("lib", false, "null").is_none());
        assert!(artifact("bin", false, r#""/target/chopi""#).is_none());
    }
}
