//! The Python packages of the real libraries, PyTorch on a CPU among them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::libtorch;
use crate::process;
use crate::python::{self, Requirements};

const LIBRARIES: Requirements =
    Requirements(include_str!("../../../tests/conformance/requirements.txt"));

/// What opens the models of transformers.
const MODELS: Requirements = Requirements(include_str!("../../python/models.txt"));

/// What quantizes them with data.
const LLMCOMPRESSOR: Requirements = Requirements(include_str!("../../python/llmcompressor.txt"));

/// Where PyTorch's libraries look for those of CUDA.
const CUDA: &str = "nvidia/cu13/lib";

/// CUDA libraries that PyTorch's Python module links and a CPU never calls: 4 GB of packages.
const NOT_CALLED: &[&str] = &[
    "libcublas.so.13",
    "libcublasLt.so.13",
    "libcudnn.so.9",
    "libcufft.so.12",
    "libcufile.so.0",
    "libcurand.so.10",
    "libcusparse.so.12",
    "libcusparseLt.so.0",
    "libnccl.so.2",
    "libnvrtc.so.13",
    "libnvshmem_host.so.3",
];

/// With functions bound when they are called, libraries that are never called may lack them.
const LAZY_BINDING: &str = "\
import os, sys
sys.setdlopenflags(os.RTLD_LAZY)
";

/// A Python that can import every library.
#[derive(Debug)]
pub struct Python(python::Environment);

/// Installs the libraries, once per machine.
pub fn python() -> Result<Python> {
    // PyTorch itself is among the libraries; the CUDA libraries that it does call are not.
    let called = libtorch::WHEELS
        .lines()
        .filter(|line| line.starts_with("nvidia-"));
    install("conformance", LIBRARIES.lines().chain(called).collect())
}

/// Installs what opens the models of transformers, once per machine.
pub fn models() -> Result<Python> {
    let packages = MODELS.lines().chain(libtorch::WHEELS.lines());
    install("models", packages.collect())
}

/// Installs what quantizes the models of transformers with data, once per machine.
pub fn llmcompressor() -> Result<Python> {
    let packages = LLMCOMPRESSOR.lines().chain(libtorch::WHEELS.lines());
    install("llmcompressor", packages.collect())
}

fn install(name: &str, packages: Vec<&str>) -> Result<Python> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the libraries are those for x86-64 Linux"
    );
    let environment = python::Environment::make(name, &packages, |folder| {
        for library in NOT_CALLED {
            empty_library(&folder.join(CUDA), library)?;
        }
        std::fs::write(folder.join("sitecustomize.py"), LAZY_BINDING)
            .context("cannot write to the folder of packages")
    })?;
    Ok(Python(environment))
}

/// A shared library that defines nothing.
fn empty_library(folder: &Path, name: &str) -> Result<()> {
    let mut cc = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    cc.args(["-shared", "-nostdlib", "-x", "c", "/dev/null", "-o"])
        .arg(folder.join(name))
        .arg(format!("-Wl,-soname,{name}"));
    process::run_as_progress(&mut cc)
}

impl Python {
    /// The interpreter, on one core and without a word about deprecations or missing GPUs.
    pub fn command(&self) -> Command {
        let mut command = self.0.python();
        command.args(["-W", "ignore"]).envs([
            ("OMP_NUM_THREADS", "1"),
            ("JAX_PLATFORMS", "cpu"),
            ("TF_CPP_MIN_LOG_LEVEL", "3"),
        ]);
        command
    }
}
