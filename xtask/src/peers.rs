//! `cargo xtask peers`: how long chopi takes, beside pychop, PyTorch and ONNX Runtime on the same
//! data.
//!
//! One process each for chopi and for the peers (`python/peers.py`); they are timed in turn, some
//! hundredths of a second at a time, so that whatever else the machine does falls on all of them, and the
//! median of the turns counts. Everybody allocates their result anew, as their plain call does;
//! "into" is chopi writing to a buffer that is there. The roofline is `memcpy` between two buffers
//! that are there, of as many bytes read and written together as the operation moves.

mod chopi;
pub mod matmul;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::conformance::libraries;
use crate::table::table;
use crate::workspace::Workspace;
use crate::{process, seed};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The numbers of elements
    #[arg(long, value_delimiter = ',', default_values_t = [1 << 16, 1 << 20, 1 << 24])]
    sizes: Vec<usize>,
    /// How many threads everybody may use
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many turns everybody has
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// Run chopi with this instruction set: avx512, avx2, neon or portable
    #[arg(long)]
    isa: Option<::chopi::cpu::Isa>,
    /// Only the cases whose name contains this
    #[arg(long, default_value = "")]
    case: String,
    /// The seed of the data; a new one each time by default
    #[arg(long)]
    seed: Option<u64>,
}

/// What was measured in a case: medians.
#[derive(Debug, serde::Serialize)]
struct CaseRow {
    case: &'static str,
    n: usize,
    threads: usize,
    chopi_ns_per_elem: f64,
    peers: BTreeMap<String, f64>,
    roofline_ns_per_elem: f64,
}

/// Seconds that a turn of one peer takes, or one call where that is longer: the second core of a virtual
/// machine may take ten milliseconds to wake.
const TURN: f64 = 60e-3;
/// The threads of the peers look out for more work so long, on the cores that chopi is timed on.
const PEERS_SPIN: Duration = Duration::from_millis(20);

pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    if let Some(isa) = args.isa {
        isa.force()?;
    }
    // glibc returns the end of its heap to the system, page by page, until a large block was freed
    // once; a program that runs models is past that.
    drop(std::hint::black_box(vec![1_u8; 16 << 20]));
    let seed = seed::or_new(args.seed)?;
    let largest = args.sizes.iter().copied().max().unwrap_or(0);
    let data = chopi::data(largest, seed);
    let mut peers = Peers::of(&data, args.threads)?;
    println!(
        "chopi on {}, {} thread(s); seed {seed}; {}",
        ::chopi::cpu::Isa::active(),
        args.threads,
        peers.versions
    );

    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    let mut rows = Vec::new();
    for &n in &args.sizes {
        for case in chopi::CASES
            .iter()
            .filter(|case| case.name.contains(&args.case))
        {
            rows.push(pool.install(|| measure(case, &data[..n], args, &mut peers))?);
        }
    }
    print(&rows);
    let path = workspace.target_directory.join("peers.json");
    std::fs::create_dir_all(&workspace.target_directory)?;
    std::fs::write(&path, serde_json::to_string_pretty(&rows)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

fn measure(case: &chopi::Case, data: &[f32], args: &Args, peers: &mut Peers) -> Result<CaseRow> {
    let n = data.len();
    let mut call = (case.prepare)(data)?;
    let mut copy = chopi::copy((case.bytes * n as f64) as usize);
    let counts = [
        chopi::calls_in(TURN, &mut call),
        chopi::calls_in(TURN, &mut copy),
    ];
    let (mut own, mut roofline) = (Vec::new(), Vec::new());
    let mut others = BTreeMap::<String, Vec<f64>>::new();
    for _ in 0..args.turns {
        own.push(chopi::time(&mut call, counts[0]));
        roofline.push(chopi::time(&mut copy, counts[1]));
        for (name, ns) in peers.time(case.peer, n)? {
            others.entry(name).or_default().push(ns);
        }
        std::thread::sleep(PEERS_SPIN);
    }
    let per_element = |times: Vec<f64>| median(times) / n as f64;
    Ok(CaseRow {
        case: case.name,
        n,
        threads: args.threads,
        chopi_ns_per_elem: per_element(own),
        peers: others
            .into_iter()
            .map(|(name, times)| (name, per_element(times)))
            .collect(),
        roofline_ns_per_elem: per_element(roofline),
    })
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(rows: &[CaseRow]) {
    let header = [
        "case", "elements", "chopi", "roofline", "of it", "peer", "ns", "ratio",
    ];
    let mut lines = table(&header, 1);
    for row in rows {
        let own = row.chopi_ns_per_elem;
        let mut cells = vec![
            row.case.to_owned(),
            chopi::short(row.n),
            format!("{own:.3}"),
            format!("{:.3}", row.roofline_ns_per_elem),
            format!("{:.2}", row.roofline_ns_per_elem / own),
        ];
        if row.peers.is_empty() {
            lines.add_row(cells.clone());
        }
        for (name, ns) in &row.peers {
            let mut line = cells.clone();
            line.extend([name.clone(), format!("{ns:.3}"), format!("{:.2}", ns / own)]);
            lines.add_row(line);
            cells.fill(String::new());
        }
    }
    println!("times in ns per element; ratio: the peer's time over chopi's");
    println!("{lines}");
}

/// The process that times the peers.
struct Peers {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    versions: String,
}

impl Peers {
    /// The peers, with the data that they are timed on.
    fn of(data: &[f32], threads: usize) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("data");
        std::fs::write(&file, bytemuck::cast_slice(data))?;
        let mut command = libraries::python()?.command();
        command
            .arg(Workspace::load()?.python("peers.py"))
            .arg(&file)
            .arg(threads.to_string())
            .env("OMP_NUM_THREADS", threads.to_string());
        // The data are read before it says its versions.
        Self::start(&mut command)
    }

    fn start(command: &mut std::process::Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| process::cannot_run(command))?;
        let input = child.stdin.take().context("the input is piped")?;
        let output = BufReader::new(child.stdout.take().context("the output is piped")?);
        let mut peers = Self {
            child,
            input,
            output,
            versions: String::new(),
        };
        let versions: BTreeMap<String, String> = serde_json::from_str(&peers.line()?)?;
        let versions = versions
            .iter()
            .map(|(name, version)| format!("{name} {version}"));
        peers.versions = versions.collect::<Vec<_>>().join(", ");
        Ok(peers)
    }

    /// Nanoseconds of a call, for each peer that has the case.
    fn time(&mut self, case: &str, n: usize) -> Result<BTreeMap<String, f64>> {
        let request = serde_json::to_string(&(case, n, TURN))?;
        writeln!(self.input, "{request}").context("the peers have stopped")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line)?;
        anyhow::ensure!(
            read > 0,
            "the peers have stopped; what they said stands above"
        );
        Ok(line)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It ends with its input; if not, there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
