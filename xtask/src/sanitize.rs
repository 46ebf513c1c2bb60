//! `cargo xtask sanitize`: the tests of the crates with `unsafe` code, under AddressSanitizer.

use std::process::Command;

use anyhow::{Context, Result};
use chopi::cpu::Isa;

use crate::process;
use crate::workspace::Workspace;

/// The crates whose `unsafe` code runs without a framework.
const CRATES: [&str; 4] = [
    "chopi-kernels",
    "chopi-core",
    "chopi-ndarray",
    "chopi-matmul",
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Crates to test, instead of all that have `unsafe` code of their own
    #[arg(long = "package", value_name = "CRATE")]
    packages: Vec<String>,
    /// An instruction set for the kernels, instead of each that the CPU has
    #[arg(long, value_name = "NAME")]
    isa: Option<Isa>,
}

/// Tests each crate on each instruction set.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let host = host()?;
    // A folder of its own: the flags are others, and everything would be built anew both ways.
    let target = workspace.target_directory.join("sanitize");
    let packages: Vec<&str> = match args.packages.is_empty() {
        true => CRATES.to_vec(),
        false => args.packages.iter().map(String::as_str).collect(),
    };
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let isas = isas.filter(|isa| args.isa.is_none_or(|asked| asked == *isa));
    for isa in isas {
        for package in &packages {
            println!("\n=== {package} with the kernels for {isa} ===");
            let mut command = process::cargo(["test", "--all-features", "--package", package]);
            // Not the documentation tests: rustdoc takes flags of its own, and they run what the others
            // run. With a target, the flags are not those of build scripts and procedural macros.
            command
                .args(["--lib", "--tests", "--target", &host, "--target-dir"])
                .arg(&target)
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", "-Zsanitizer=address")
                .env("CHOPI_ISA", isa.name());
            process::run(&mut command)?;
        }
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
