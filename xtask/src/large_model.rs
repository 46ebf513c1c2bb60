//! A checkpoint of 8 GB in shards: what quantizing it costs, and what is left when that is killed.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use half::bf16;
use serde_json::{Map, json};

const SHARDS: usize = 4;
/// Matrices of 4096 by 14336 elements in bf16: 117 MB.
const SHAPE: [usize; 2] = [4096, 14_336];
const MATRICES: usize = 17;
/// The memory that the program may take beyond the files that it maps.
const MEMORY: u64 = 1_000_000_000;

/// Makes the checkpoint, copies it with `cp`, quantizes it and kills that; deletes all of it.
pub fn check(program: &Path, folder: Option<&Path>) -> Result<()> {
    let folder = match folder {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let (model, copy) = (folder.path().join("model"), folder.path().join("copy"));
    let bytes = make(&model)?;
    println!("{:.2} GB in {SHARDS} shards", bytes as f64 / 1e9);

    let mut copied = Duration::MAX;
    let mut times = [Duration::MAX; 2];
    let mut failures = Vec::new();
    let schemes = [
        ("8 bits per channel", "--bits 8 --symmetric --per-channel 0"),
        (
            "4 bits, groups of 128",
            "--bits 4 --symmetric --group-size 128",
        ),
    ];
    let mut peaks = [0; 2];
    // The disk is not always as fast: the best of three, turn by turn.
    for _ in 0..3 {
        let mut cp = Command::new("cp");
        let start = Instant::now();
        crate::process::run(cp.arg("-r").arg(&model).arg(&copy))?;
        copied = copied.min(start.elapsed());
        fs::remove_dir_all(&copy)?;
        for (i, (_, options)) in schemes.iter().enumerate() {
            let out = folder.path().join("out");
            let start = Instant::now();
            let peak = peak_of(quantize(program, &model, &out, options)?)?;
            times[i] = times[i].min(start.elapsed());
            peaks[i] = peaks[i].max(peak.unwrap_or(0));
            fs::remove_dir_all(&out)?;
        }
    }
    println!("cp: {:.1} s", copied.as_secs_f64());
    for (i, (name, _)) in schemes.iter().enumerate() {
        let (seconds, cp) = (times[i].as_secs_f64(), copied.as_secs_f64());
        println!(
            "{name}: {seconds:.1} s, {:.2} of cp's speed, {:.0} MB beyond mapped files",
            cp / seconds,
            peaks[i] as f64 / 1e6
        );
        if peaks[i] >= MEMORY {
            failures.push(format!("{name} takes {} bytes of memory", peaks[i]));
        }
        if seconds > 2.0 * cp {
            failures.push(format!("{name} takes {seconds:.1} s, cp {cp:.1} s"));
        }
    }

    let mut killed = 0;
    for fraction in 0..12 {
        let out = folder.path().join("killed");
        let mut child = quantize(program, &model, &out, schemes[0].1)?;
        std::thread::sleep(times[0] * fraction / 11);
        child.kill()?;
        if child.wait()?.success() {
            ensure!(
                out.join("config.json").exists(),
                "it says that it succeeded"
            );
            fs::remove_dir_all(&out)?;
        } else {
            killed += 1;
            if out.exists() {
                failures.push(format!("killed, it leaves {}", out.display()));
            }
        }
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            match entry.file_name().to_string_lossy() {
                name if name.starts_with(".chopi-") => fs::remove_dir_all(entry.path())?,
                name if name == "model" => {}
                name => failures.push(format!("killed, it leaves {name}")),
            }
        }
    }
    println!("killed {killed} times at moments spread over its run");
    ensure!(
        failures.is_empty(),
        "the large model:\n  {}",
        failures.join("\n  ")
    );
    Ok(())
}

fn quantize(program: &Path, model: &Path, out: &Path, options: &str) -> Result<Child> {
    let mut command = Command::new(program);
    command.arg("quantize").arg(model).arg("-o").arg(out);
    command.args(["--format", "compressed-tensors", "--quiet"]);
    command.args(options.split(' ')).stdin(Stdio::null());
    command.spawn().context("cannot run the program")
}

/// Waits for a program; gives the most memory that it held beyond mapped files, where the system
/// tells.
fn peak_of(mut child: Child) -> Result<Option<u64>> {
    let status = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        let resident = fs::read_to_string(&status).ok().and_then(|text| {
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("RssAnon:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        });
        peak = peak.max(resident.map(|kib| kib * 1024));
        if let Some(status) = child.try_wait()? {
            if !status.success() {
                bail!("the program failed: {status}");
            }
            return Ok(peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes the model; gives the bytes of its tensors. Weights are normal, of a spread that differs
/// from matrix to matrix, and one in 10,000 is ten times as far out.
fn make(folder: &Path) -> Result<u64> {
    fs::create_dir(folder)?;
    let [rows, width] = SHAPE;
    let mut state = 1_u64;
    let mut random = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    // The sum of twelve uniform numbers is as good as normal.
    let mut normal = || (0..12).map(|_| random()).sum::<f32>() - 6.0;
    let pool: Vec<f32> = (0..1 << 20)
        .map(|i| normal() * if i % 10_007 == 0 { 10.0 } else { 1.0 })
        .collect();
    let mut weight_map = Map::new();
    let mut total = 0;
    for shard in 0..SHARDS {
        let file = format!("model-{:05}-of-{SHARDS:05}.safetensors", shard + 1);
        let mut header = Map::new();
        let mut end = 0;
        for matrix in 0..MATRICES {
            let name = format!(
                "model.layers.{}.mlp.down_proj.weight",
                shard * MATRICES + matrix
            );
            let start = end;
            end += 2 * rows * width;
            let info = json!({"dtype": "BF16", "shape": SHAPE, "data_offsets": [start, end]});
            header.insert(name.clone(), info);
            weight_map.insert(name, file.clone().into());
        }
        total += end as u64;
        let mut text = serde_json::to_vec(&header)?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut out = BufWriter::new(File::create(folder.join(&file))?);
        out.write_all(&(text.len() as u64).to_le_bytes())?;
        out.write_all(&text)?;
        for matrix in 0..MATRICES {
            let spread = 0.01 * (1 + matrix % 5) as f32;
            let scaled: Vec<u8> = pool
                .iter()
                .flat_map(|x| bf16::from_f32(x * spread).to_le_bytes())
                .collect();
            let mut left = 2 * rows * width;
            while left > 0 {
                let part = left.min(scaled.len());
                out.write_all(&scaled[..part])?;
                left -= part;
            }
        }
        out.into_inner()
            .context("cannot write a shard")?
            .sync_all()?;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    fs::write(
        folder.join("model.safetensors.index.json"),
        index.to_string(),
    )?;
    fs::write(folder.join("config.json"), r#"{"model_type": "llama"}"#)?;
    Ok(total)
}
