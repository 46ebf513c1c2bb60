//! `cargo xtask libtorch`: libtorch for building and testing with `tch`, without CUDA.
//!
//! PyTorch's wheel for Linux on PyPI wants 4.7 GB of CUDA libraries beside it. On a CPU two of
//! them are loaded, 15 MB as wheels; of the wheel itself, the CPU library and the headers do.
//! `libtorch.so`, which would link the CUDA library too, becomes a linker script.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::python::Requirements;
use crate::{cache, process, wheel};

const WHEELS: Requirements = Requirements(include_str!("../python/libtorch.txt"));

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

const LIBRARY_PATH: &str = if cfg!(target_os = "macos") {
    "DYLD_LIBRARY_PATH"
} else {
    "LD_LIBRARY_PATH"
};

/// The environment variables that building and running with `tch` needs.
///
/// A user who has set tch's own `LIBTORCH` or `LIBTORCH_USE_PYTORCH` keeps that libtorch.
pub fn environment() -> Result<Vec<(String, String)>> {
    let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    if let Some(use_pytorch) = variable("LIBTORCH_USE_PYTORCH") {
        let lib = pytorch_libraries()?;
        return Ok(vec![use_pytorch, library_path(&lib)?]);
    }
    if let Some(libtorch) = variable("LIBTORCH") {
        let own: Vec<_> = ["LIBTORCH_INCLUDE", "LIBTORCH_LIB", "LIBTORCH_CXX11_ABI"]
            .into_iter()
            .filter_map(variable)
            .collect();
        let lib = own
            .iter()
            .find(|(name, _)| name == "LIBTORCH_LIB")
            .unwrap_or(&libtorch);
        let path = library_path(&Path::new(&lib.1).join("lib"))?;
        return Ok([libtorch].into_iter().chain(own).chain([path]).collect());
    }
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "libtorch can be made on x86-64 Linux only; here, install PyTorch {version} and set \
             LIBTORCH_USE_PYTORCH=1, or unpack libtorch {version} and set LIBTORCH to its folder",
            version = WHEELS.version("torch")?,
        );
    }
    let folder = folder()?;
    Ok(vec![
        ("LIBTORCH".to_owned(), text(&folder)?),
        ("LIBTORCH_INCLUDE".to_owned(), text(&folder.join("torch"))?),
        ("LIBTORCH_CXX11_ABI".to_owned(), "1".to_owned()),
        library_path(&folder.join("lib"))?,
    ])
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

/// The variable that lets programs find the libraries of a folder, besides those they find now.
fn library_path(lib: &Path) -> Result<(String, String)> {
    let now = std::env::var_os(LIBRARY_PATH).unwrap_or_default();
    let others = std::env::split_paths(&now).filter(|path| path != lib && *path != Path::new(""));
    let paths = std::env::join_paths([lib.to_owned()].into_iter().chain(others))?;
    Ok((LIBRARY_PATH.to_owned(), text(Path::new(&paths))?))
}

fn text(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(text.to_owned())
}
