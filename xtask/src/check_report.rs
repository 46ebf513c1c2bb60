//! `cargo xtask check-report`: the pages of `chopi report` in Chromium (`browser/check_report.mjs`), those of the
//! real model quantized in one and in two ways.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::Workspace;
use crate::{built, cache, model, process};

/// The package that steers the browser.
const PLAYWRIGHT: (&str, &str) = ("playwright-core", "1.65.1");
/// The names of the browser.
const CHROMIUM: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program that is built already; by default one is built, with the release profile
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
    /// Keep the screenshots, both themes at 1024 and 1600 pixels, in this folder
    #[arg(long, value_name = "FOLDER")]
    screenshots: Option<PathBuf>,
}

/// Makes the pages and checks them.
pub fn run(args: &Args) -> Result<()> {
    let browser = chromium()?;
    let playwright = playwright()?;
    let program = match &args.program {
        Some(program) => program.clone(),
        None => built::released()?,
    };
    let folder = tempfile::tempdir()?;
    let pages = pages(&program, folder.path())?;
    let screenshots = args.screenshots.as_deref().unwrap_or(folder.path());
    let mut node = Command::new("node");
    node.arg(Workspace::load()?.browser("check_report.mjs"));
    node.arg(playwright).arg(browser).arg(screenshots);
    process::run(node.args(pages))
}

/// The pages: one of bits that a plan mixes, and one of it beside 8 bits. The models have short names, which the
/// pages show.
fn pages(program: &Path, folder: &Path) -> Result<[PathBuf; 2]> {
    let (mixed, eight) = ("MiniLM-mixed", "MiniLM-w8");
    let float = float_model(folder)?;
    let program = program.canonicalize()?;
    let chopi = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(folder);
        process::output(&mut command)
    };
    let grouped = ["--symmetric", "--group-size", "128"];
    let plan = ["--bits=3,4,8", "--budget=62%", "--output=plan.json"];
    chopi(&[&["sensitivity", float], &grouped[..], &plan].concat())?;
    let quantize = ["quantize", float, "--format=compressed-tensors", "-o"];
    let of_plan = [mixed, "--bits-from=plan.json"];
    chopi(&[&quantize[..], &of_plan, &grouped].concat())?;
    chopi(&[&quantize[..], &[eight, "--symmetric", "--per-channel=0"]].concat())?;
    chopi(&["report", float, mixed, "-o", "one.html"])?;
    chopi(&["report", float, eight, mixed, "-o", "two.html"])?;
    Ok(["one.html", "two.html"].map(|page| folder.join(page)))
}

/// Puts the real model into a folder, and gives its name there, a short one.
pub fn float_model(folder: &Path) -> Result<&'static str> {
    let name = "all-MiniLM-L6-v2";
    fs::create_dir(folder.join(name))?;
    for file in ["model.safetensors", "config.json"] {
        fs::copy(model::minilm()?.join(file), folder.join(name).join(file))?;
    }
    Ok(name)
}

/// The browser: that of the variable `CHROMIUM`, or the first one that is here.
pub fn chromium() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CHROMIUM") {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates = CHROMIUM
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    match candidates.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!(
            "no browser: install one of {} (on Debian `apt-get install chromium`), or name it in CHROMIUM",
            CHROMIUM.join(", ")
        ),
    }
}

/// The folder of the package that steers the browser.
pub fn playwright() -> Result<PathBuf> {
    let (package, version) = PLAYWRIGHT;
    let folder = cache::entry(&format!("{package}-{version}"), |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--ignore-scripts", "--prefix"]);
        npm.arg(folder).arg(format!("{package}@{version}"));
        process::run_as_progress(&mut npm).context("npm fetches what steers the browser")
    })?;
    Ok(folder.join("node_modules").join(package))
}
