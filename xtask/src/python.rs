//! The Python that is on the machine, and the packages that the checks need, from PyPI.
//!
//! Versions are pinned in `xtask/python/*.txt`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cache, process};

/// Packages with their versions: the lines `name==version` of a pip requirements file.
#[derive(Clone, Copy, Debug)]
pub struct Requirements(pub &'static str);

impl Requirements {
    /// The requirements, `name==version` each.
    pub fn lines(self) -> impl Iterator<Item = &'static str> {
        let lines = self
            .0
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default().trim());
        lines.filter(|line| !line.is_empty())
    }

    /// The pinned version of a package.
    pub fn version(self, package: &str) -> Result<&'static str> {
        self.lines()
            .find_map(|line| line.strip_prefix(package)?.strip_prefix("=="))
            .with_context(|| format!("no version of {package} is pinned"))
    }

    /// Downloads the packages, without their dependencies, into a folder.
    pub fn download(self, folder: &Path, options: &[&str]) -> Result<()> {
        let mut pip = pip("download");
        pip.args(["--no-deps", "--dest"])
            .arg(folder)
            .args(options)
            .args(self.lines());
        process::run_as_progress(&mut pip)
    }
}

/// The interpreter: `$PYTHON`, or `python3`.
pub fn interpreter() -> Command {
    Command::new(std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into()))
}

fn pip(command: &str) -> Command {
    let mut pip = interpreter();
    pip.args(["-m", "pip", command, "--disable-pip-version-check"])
        .env("PIP_ROOT_USER_ACTION", "ignore");
    pip
}

/// An interpreter that sees exactly these packages before those of the machine.
///
/// They are installed into a folder of the cache with `pip install --target`, which, unlike a
/// virtual environment, can be renamed once it is whole, and needs nothing but pip.
pub fn with_packages(requirements: Requirements) -> Result<Command> {
    let folder = environment(requirements)?;
    let mut python = interpreter();
    python
        .env("PYTHONPATH", folder)
        .env("PYTHONNOUSERSITE", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}

fn environment(requirements: Requirements) -> Result<PathBuf> {
    let tag = process::output(interpreter().args([
        "-c",
        "import platform, sys; \
         print(sys.implementation.cache_tag, sys.platform, platform.machine(), sep='-')",
    ]))
    .context("Python 3 is needed; set PYTHON to choose an interpreter")?;
    let packages: Vec<String> = requirements
        .lines()
        .map(|line| line.replace("==", "-"))
        .collect();
    let name = format!("{}-{}", tag.trim(), packages.join("-"));
    cache::entry(&name, |folder| {
        let mut pip = pip("install");
        pip.args(["--no-deps", "--target"])
            .arg(folder)
            .args(requirements.lines());
        process::run_as_progress(&mut pip)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_read_without_comments() {
        let requirements =
            Requirements("# why\nnumpy==2.3.5\n\npychop==0.6.2 # its NumPy backend\n");
        assert_eq!(
            requirements.lines().collect::<Vec<_>>(),
            ["numpy==2.3.5", "pychop==0.6.2"]
        );
        assert_eq!(requirements.version("pychop").unwrap(), "0.6.2");
        assert!(requirements.version("num").is_err());
    }
}
