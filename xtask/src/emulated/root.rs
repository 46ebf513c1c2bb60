//! A root folder with Debian's toolchain, made in the cache, and commands that are run inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::{Architecture, Binary, FEATURES, binary};
use crate::workspace::Workspace;
use crate::{cache, process};

/// Where Debian's packages come from.
const MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The packages, with those that they depend on: but for base-files, dash and coreutils, which every package
/// may take for granted.
const PACKAGES: [&str; 7] = [
    "base-files",
    "dash",
    "coreutils",
    "cargo",
    "rustc",
    "gcc",
    "qemu-user",
];
/// What the command needs of the machine.
const PROGRAMS: [&str; 5] = ["apt-get", "dpkg-deb", "chroot", "mount", "unshare"];

/// The packages of an architecture.
fn packages(architecture: Architecture) -> [String; 3] {
    let (debian, name) = (architecture.debian(), architecture.name());
    [
        format!("libstd-rust-dev:{debian}"),
        format!("gcc-{name}-linux-gnu"),
        format!("libc6-dev-{debian}-cross"),
    ]
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
            "emulated tests need what this machine lacks: {}",
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
    let emulated = Architecture::value_variants();
    let known = emulated
        .iter()
        .fold("amd64".to_owned(), |known, architecture| {
            format!("{known},{}", architecture.debian())
        });
    fs::write(
        &sources,
        format!("deb [arch={known} signed-by={KEYRING}] {MIRROR} sid main\n"),
    )?;
    let options = [
        ("Dir::Etc::SourceList", sources.display().to_string()),
        ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
        ("Dir::State", apt.join("state").display().to_string()),
        ("Dir::State::Status", status.display().to_string()),
        ("Dir::Cache", apt.join("cache").display().to_string()),
        ("APT::Architecture", "amd64".to_owned()),
        ("APT::Architectures", known),
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
            .args(PACKAGES)
            .args(
                emulated
                    .iter()
                    .flat_map(|architecture| packages(*architecture)),
            ),
    )?;
    let mut archives = Vec::new();
    for entry in fs::read_dir(apt.join("cache/archives"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            archives.push(path);
        }
    }
    // base-files first: its links make one folder of /lib and /usr/lib.
    let is_base = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("base-files_"))
    };
    archives.sort_by_key(|path| !is_base(path));
    for archive in archives {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&archive).arg(folder);
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
pub struct Root {
    folder: PathBuf,
    workspace: PathBuf,
    /// Where the tests are built.
    target: PathBuf,
}

impl Root {
    /// The root folder in the cache, made if it is not there.
    pub fn new() -> Result<Self> {
        check_machine()?;
        let workspace = Workspace::load()?;
        // In the registry of this machine, which the chroot sees.
        process::run(&mut process::cargo(["fetch", "--locked"]))?;
        let root = Self {
            folder: cache::entry("debian-sid-emulated", make)?,
            target: workspace.target_directory.join("emulated"),
            workspace: workspace.workspace_root,
        };
        fs::create_dir_all(&root.target)?;
        Ok(root)
    }

    /// A command that is run inside, in this folder.
    fn command(&self, architecture: Architecture, folder: &Path, program: &str) -> Result<Command> {
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
        let name = architecture.name();
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
                format!(
                    "CARGO_TARGET_{}_UNKNOWN_LINUX_GNU_LINKER",
                    name.to_uppercase()
                ),
                format!("{name}-linux-gnu-gcc"),
            )
            .env("CHOPI_ISA", architecture.isa());
        Ok(command)
    }

    /// Builds the tests of some members, or of all.
    pub fn build(&self, architecture: Architecture, packages: &[String]) -> Result<Vec<Binary>> {
        let mut command = self.command(architecture, Path::new("/workspace"), "cargo")?;
        command.args([
            "test",
            "--no-run",
            "--offline",
            "--locked",
            "--lib",
            "--bins",
            "--tests",
        ]);
        let target = architecture.target();
        command.args(["--target", &target]);
        command.arg("--message-format=json-render-diagnostics");
        let members = match packages.is_empty() {
            true => architecture.members(),
            false => packages.iter().map(String::as_str).collect(),
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
        let features: Vec<&str> = FEATURES.split(',').filter(of_members).collect();
        command.arg(format!("--features={}", features.join(",")));
        eprintln!("building the tests of {} for {target}", members.join(", "));
        let messages = process::output(&mut command)?;
        let mut binaries: Vec<Binary> = messages.lines().filter_map(binary).collect();
        // Last the tests of the program, which start it some thousand times.
        binaries.sort_by_key(|binary| (binary.name == "chopi-cli, tests/cli", binary.name.clone()));
        Ok(binaries)
    }

    /// Puts a script in the place of the program `chopi`, which its tests start: the kernel of this machine
    /// cannot run one of another architecture.
    pub fn put_emulator(&self, architecture: Architecture) -> Result<()> {
        let target = architecture.target();
        let folder = self.target.join(&target).join("debug");
        let program = folder.join("chopi");
        if !program.exists() {
            return Ok(());
        }
        // It may be the script of an earlier run, if Cargo had nothing to build.
        if fs::read(&program)?.starts_with(b"\x7fELF") {
            let emulated = folder.join("chopi-emulated");
            // Cargo may have linked the file of an earlier run to its old name again, and no link replaces another
            // of its own file.
            if emulated.exists() {
                fs::remove_file(&emulated)?;
            }
            fs::rename(&program, emulated)?;
        }
        let script = format!(
            "#!/bin/sh\nexec qemu-{} /target/{target}/debug/chopi-emulated \"$@\"\n",
            architecture.name()
        );
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
    pub fn test(
        &self,
        architecture: Architecture,
        binary: &Binary,
        cpu: Option<&str>,
    ) -> Result<(bool, String)> {
        let emulator = format!("qemu-{}", architecture.name());
        let mut command = self.command(architecture, &binary.folder, &emulator)?;
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
