//! The Python that is on the machine, and the packages that the checks need, from PyPI.
//!
//! Versions are pinned in `xtask/python/*.txt`.

use std::hash::{DefaultHasher, Hash, Hasher};
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

/// Packages installed in a folder of the cache.
///
/// They are installed with `pip install --target`, which, unlike a virtual environment, can be
/// renamed once it is whole, and needs nothing but pip.
#[derive(Debug)]
pub struct Environment(PathBuf);

impl Environment {
    /// Installs the packages, `name==version` each, without their dependencies, if they are not there;
    /// `finish` may add to the folder.
    pub fn make(
        name: &str,
        packages: &[&str],
        finish: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let tag = process::output(interpreter().args([
            "-c",
            "import platform, sys; \
             print(sys.implementation.cache_tag, sys.platform, platform.machine(), sep='-')",
        ]))
        .context("Python 3 is needed; set PYTHON to choose an interpreter")?;
        let mut hasher = DefaultHasher::new();
        packages.hash(&mut hasher);
        let name = format!("{}-{name}-{:016x}", tag.trim(), hasher.finish());
        let folder = cache::entry(&name, |folder| {
            let mut pip = pip("install");
            pip.args(["--no-deps", "--target"])
                .arg(folder)
                .args(packages);
            process::run_as_progress(&mut pip)?;
            finish(folder)
        })?;
        Ok(Self(folder))
    }

    /// An interpreter that sees exactly these packages before those of the machine.
    pub fn python(&self) -> Command {
        let mut python = interpreter();
        python
            .env("PYTHONPATH", &self.0)
            .env("PYTHONNOUSERSITE", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1");
        python
    }
}

/// An interpreter with these packages.
pub fn with_packages(name: &str, requirements: Requirements) -> Result<Command> {
    let packages: Vec<_> = requirements.lines().collect();
    Ok(Environment::make(name, &packages, |_| Ok(()))?.python())
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
