//! `cargo xtask libtorch`: libtorch for building and testing with `tch`, without CUDA.
//!
//! PyTorch's wheel for Linux on PyPI wants 4.7 GB of CUDA libraries beside it. On a CPU two of
//! them are loaded, 15 MB as wheels; of the wheel itself, the CPU library and the headers do.
//! `libtorch.so`, which would link the CUDA library too, becomes a linker script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::quoted;
use crate::python::Requirements;
use crate::{cache, process, wheel};

/// PyTorch, and the CUDA libraries that it loads on a CPU.
pub const WHEELS: Requirements = Requirements(include_str!("../python/libtorch.txt"));

/// The wheels to take, whichever Python it is that runs pip.
const WHEEL_TAGS: &[&str] = &[
    "--only-binary=:all:",
    "--implementation=cp",
    "--python-version=3.11",
    "--abi=cp311",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_25_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--platform=manylinux2014_x86_64",
];

/// The libraries to load and to link with, as the wheels lay them out.
const LIBRARIES: &[&str] = &[
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libc10.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
];

/// The variable that tells programs where libraries lie.
pub const LIBRARY_PATH: &str = if cfg!(target_os = "macos") {
    "DYLD_LIBRARY_PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// A libtorch to build and run with.
#[derive(Debug)]
pub struct Libtorch {
    /// tch's own variables.
    variables: Vec<(String, String)>,
    /// The folder of its libraries.
    libraries: PathBuf,
}

impl Libtorch {
    /// The libtorch that the user has chosen by tch's own `LIBTORCH` or `LIBTORCH_USE_PYTORCH`, or
    /// else that of the cache, made if it is not there.
    pub fn find() -> Result<Self> {
        let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        if let Some(use_pytorch) = variable("LIBTORCH_USE_PYTORCH") {
            return Ok(Self {
                variables: vec![use_pytorch],
                libraries: pytorch_libraries()?,
            });
        }
        if let Ok(libtorch) = std::env::var("LIBTORCH") {
            let names = [
                "LIBTORCH",
                "LIBTORCH_INCLUDE",
                "LIBTORCH_LIB",
                "LIBTORCH_CXX11_ABI",
            ];
            let libraries = std::env::var("LIBTORCH_LIB").unwrap_or(libtorch);
            return Ok(Self {
                variables: names.into_iter().filter_map(variable).collect(),
                libraries: Path::new(&libraries).join("lib"),
            });
        }
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            bail!(
                "libtorch can be made on x86-64 Linux only; here, install PyTorch {version} and \
                 set LIBTORCH_USE_PYTORCH=1, or unpack libtorch {version} and set LIBTORCH to its \
                 folder",
                version = WHEELS.version("torch")?,
            );
        }
        let folder = folder()?;
        Ok(Self {
            variables: vec![
                ("LIBTORCH".to_owned(), text(&folder)?),
                ("LIBTORCH_INCLUDE".to_owned(), text(&folder.join("torch"))?),
                ("LIBTORCH_CXX11_ABI".to_owned(), "1".to_owned()),
            ],
            libraries: folder.join("lib"),
        })
    }

    /// The lines for a shell that builds and runs with it.
    pub fn exports(&self) -> Result<Vec<String>> {
        let variables = self.variables.iter();
        let mut exports: Vec<String> = variables
            .map(|(name, value)| format!("export {name}={}", quoted(value)))
            .collect();
        // The shell's own value: here it would be Cargo's.
        let libraries = quoted(&text(&self.libraries)?);
        exports.push(format!(
            "export {LIBRARY_PATH}={libraries}${{{LIBRARY_PATH}:+:${LIBRARY_PATH}}}"
        ));
        Ok(exports)
    }

    /// The variables for a command that builds and runs with it.
    pub fn environment(&self) -> Result<Vec<(String, String)>> {
        let now = std::env::var_os(LIBRARY_PATH).unwrap_or_default();
        let folders = [self.libraries.clone()]
            .into_iter()
            .chain(std::env::split_paths(&now));
        let path = std::env::join_paths(folders)?;
        let mut environment = self.variables.clone();
        environment.push((LIBRARY_PATH.to_owned(), text(Path::new(&path))?));
        Ok(environment)
    }
}

/// The libtorch of the cache, made if it is not there.
fn folder() -> Result<PathBuf> {
    let version = WHEELS.version("torch")?;
    cache::entry(&format!("libtorch-{version}"), |folder| {
        let wheels = tempfile::tempdir_in(folder)?;
        WHEELS.download(wheels.path(), WHEEL_TAGS)?;
        wheel::unpack(wheels.path(), folder, |file| {
            let wanted = file.starts_with("torch/include")
                || LIBRARIES.iter().any(|library| file == Path::new(library));
            wanted.then(|| file.to_owned())
        })?;
        lay_out(folder)?;
        // tch checks the version that it finds here.
        Ok(fs::write(folder.join("build-version"), version)?)
    })
}

/// Makes `lib/`: links to the libraries, and the linker script `libtorch.so`.
fn lay_out(folder: &Path) -> Result<()> {
    let lib = folder.join("lib");
    fs::create_dir(&lib)?;
    for library in LIBRARIES {
        let file = folder.join(library);
        if !file.is_file() {
            bail!("the wheels hold no {library}");
        }
        let name = file.file_name().context("a library has a name")?;
        link(&Path::new("..").join(library), &lib.join(name))?;
    }
    link(Path::new("libgomp.so.1"), &lib.join("libgomp.so"))?;
    Ok(fs::write(
        lib.join("libtorch.so"),
        "INPUT(libtorch_cpu.so)\n",
    )?)
}

#[cfg(unix)]
fn link(target: &Path, link: &Path) -> Result<()> {
    Ok(std::os::unix::fs::symlink(target, link)?)
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> Result<()> {
    bail!("links are made on Unix only")
}

/// The folder of the libraries of the PyTorch that tch finds by itself.
fn pytorch_libraries() -> Result<PathBuf> {
    let python = if std::env::var_os("VIRTUAL_ENV").is_some() {
        "python"
    } else {
        "python3"
    };
    let script = "import os, torch; print(os.path.join(os.path.dirname(torch.__file__), 'lib'))";
    let lib = process::output(Command::new(python).args(["-c", script]))
        .context("LIBTORCH_USE_PYTORCH is set, but there is no PyTorch to be used")?;
    Ok(lib.trim().into())
}

fn text(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_keep_the_libraries_that_the_shell_finds_now() {
        let libtorch = Libtorch {
            variables: vec![("LIBTORCH".to_owned(), "/a b".to_owned())],
            libraries: "/a b/lib".into(),
        };
        let path = format!("'/a b/lib'${{{LIBRARY_PATH}:+:${LIBRARY_PATH}}}");
        assert_eq!(
            libtorch.exports().unwrap(),
            [
                "export LIBTORCH='/a b'".to_owned(),
                format!("export {LIBRARY_PATH}={path}")
            ]
        );
    }
}
