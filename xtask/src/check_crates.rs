//! `cargo xtask check-crates`: what the crates depend on, and the packages that a release would publish.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::{DOCUMENTATION, Workspace};
use crate::{cache, process};

/// The dependencies that nothing names.
const MACHETE: Tool = Tool("cargo-machete", "0.9.2");
/// The licenses, sources and known faults of dependencies.
const DENY: Tool = Tool("cargo-deny", "0.20.2");
/// What a user of the last release would have to change.
const SEMVER_CHECKS: Tool = Tool("cargo-semver-checks", "0.51.0");

/// Checks the dependencies, the oldest Rust, the packages and what has changed since the last release.
pub fn run() -> Result<()> {
    let workspace = Workspace::load()?;
    dependencies()?;
    advisories()?;
    oldest_rust(&workspace)?;
    packages(&workspace)?;
    changes(&workspace)
}

/// The check of cargo-deny that every dependency is one that chopi may use, as arguments of Cargo.
pub const DENIED: [&str; 6] = [
    "deny",
    "--all-features",
    "check",
    "licenses",
    "bans",
    "sources",
];

/// Checks that every dependency is used, and is one that chopi may use.
fn dependencies() -> Result<()> {
    process::run(&mut MACHETE.command(["--with-metadata"])?)?;
    let [_, checks @ ..] = DENIED;
    process::run(&mut DENY.command(checks)?)
}

/// Checks that no dependency has a known fault, where the list of these can be had.
fn advisories() -> Result<()> {
    if !process::succeeds(&mut DENY.command(["fetch", "db"])?) {
        println!("left out: the list of known faults cannot be fetched");
        return Ok(());
    }
    let checks = ["--all-features", "check", "--disable-fetch", "advisories"];
    process::run(&mut DENY.command(checks)?)
}

/// Checks that the published crates build with the Rust that they promise, where rustup has it.
fn oldest_rust(workspace: &Workspace) -> Result<()> {
    let version = workspace.rust_version()?;
    let rustup = |args: &[&str]| {
        let mut command = Command::new("rustup");
        command.args(args);
        command
    };
    let install = ["toolchain", "install", version, "--profile=minimal"];
    if !process::succeeds(&mut rustup(&install)) {
        println!("left out: rustup is not here or cannot fetch Rust {version}");
        return Ok(());
    }
    // A folder of its own, for the artifacts of another compiler are others.
    let target = workspace.target_directory.join("oldest-rust");
    let mut command = rustup(&["run", version, "cargo", "check", "--target-dir"]);
    command
        .arg(target)
        .arg(workspace.documentation_features())
        // Its own, not those of the toolchain that runs this.
        .env_remove("RUSTC")
        .env_remove("RUSTDOC");
    for package in workspace.published() {
        command.args(["--package", &package.name]);
    }
    process::run(&mut command)
}

/// Packs all crates in the order in which a release publishes them, and builds each from its package
/// and those of the others.
fn packages(workspace: &Workspace) -> Result<()> {
    let mut command = process::cargo(["publish", "--workspace", "--dry-run"]);
    // What is packed is what is here, as in the other checks.
    command.arg("--allow-dirty");
    // Without libtorch.
    command.arg(format!("--features=chopi-tch/{DOCUMENTATION}"));
    command.env("CARGO_TARGET_DIR", &workspace.target_directory);
    process::run(&mut command)
}

/// Compares the public items with those of the last release.
fn changes(workspace: &Workspace) -> Result<()> {
    let describe = ["describe", "--tags", "--abbrev=0", "--match=v*"];
    let mut git = Command::new("git");
    git.args(describe).current_dir(&workspace.workspace_root);
    if !process::succeeds(&mut git) {
        println!("left out: no release has a tag (`v*`) to compare with");
        return Ok(());
    }
    let tag = process::output(&mut git)?;
    let mut command = SEMVER_CHECKS.command(["--baseline-rev", tag.trim()])?;
    // Those that Rust programs use. The program has no promises but those of its command line, and what
    // needs libtorch is compared by the crates that it is made of.
    for package in workspace.published() {
        if !["chopi-cli", "chopi-tch"].contains(&&*package.name) {
            command.args(["--package", &package.name]);
        }
    }
    process::run(&mut command)
}

/// A subcommand of Cargo, by its package and version.
struct Tool(&'static str, &'static str);

impl Tool {
    /// The subcommand with arguments. It is built when it is first needed, and kept in the cache.
    fn command<const N: usize>(&self, args: [&str; N]) -> Result<Command> {
        let &Self(package, version) = self;
        let folder = cache::entry(&format!("{package}-{version}"), |folder| {
            let target = folder.join("target");
            let mut install = process::cargo(["install", "--locked", package]);
            install.args(["--version", version, "--root"]).arg(folder);
            process::run_as_progress(install.arg("--target-dir").arg(&target))?;
            fs::remove_dir_all(&target)
                .with_context(|| format!("cannot delete {}", target.display()))
        })?;
        let mut command = Command::new(folder.join("bin").join(package));
        if let Some(subcommand) = package.strip_prefix("cargo-") {
            command.arg(subcommand);
        }
        command.args(args);
        Ok(command)
    }
}
