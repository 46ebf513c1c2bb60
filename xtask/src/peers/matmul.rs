//! `cargo xtask peers-matmul`: integer products beside the float product of the `gemm` crate, which
//! candle uses, and ONNX Runtime's MatMulInteger.

use std::collections::BTreeMap;
use std::hint::black_box;

use ::chopi::matmul::{Dequantize, Matrix, Order, PackedMatrix};
use anyhow::Result;

use super::chopi::{Call, calls_in, time};
use super::{PEERS_SPIN, Peers, TURN, median};
use crate::table::table;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many threads everybody may use
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many turns everybody has
    #[arg(long, default_value_t = 15)]
    turns: usize,
    /// Run chopi with this instruction set: avx512, avx2, neon or portable
    #[arg(long)]
    isa: Option<::chopi::cpu::Isa>,
}

/// Rows, depth and columns.
const SHAPES: [[usize; 3]; 5] = [
    [64, 384, 1536],
    [960, 384, 384],
    [1024, 1024, 1024],
    [1, 384, 1536],
    [1, 1024, 1024],
];

pub fn run(args: &Args) -> Result<()> {
    if let Some(isa) = args.isa {
        isa.force()?;
    }
    let mut peers = Peers::of(&[], args.threads)?;
    println!(
        "chopi on {}, {} thread(s); {}",
        ::chopi::cpu::Isa::active(),
        args.threads,
        peers.versions
    );
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(args.threads)
        .build()?;
    let mut lines = table(
        &[
            "rows, depth, columns",
            "product",
            "Gop/s",
            "time over chopi's u8 · i8",
        ],
        2,
    );
    for shape in SHAPES {
        let times = pool.install(|| measure(shape, args, &mut peers))?;
        let own = times["chopi, u8 · i8"];
        for (name, ns) in &times {
            let operations = 2.0 * shape.iter().product::<usize>() as f64;
            lines.add_row([
                format!("{shape:?}"),
                name.clone(),
                format!("{:.0}", operations / ns),
                format!("{:.2}", ns / own),
            ]);
        }
    }
    println!("an operation is a multiplication or an addition; the weights are packed before");
    println!("{lines}");
    Ok(())
}

/// Median nanoseconds of each product.
fn measure(shape: [usize; 3], args: &Args, peers: &mut Peers) -> Result<BTreeMap<String, f64>> {
    let [rows, depth, columns] = shape;
    let code = |i: usize| (i.wrapping_mul(2_654_435_761) >> 9) as u8;
    let unsigned: Vec<u8> = (0..rows * depth).map(code).collect();
    let signed: Vec<i8> = unsigned.iter().map(|&code| (code ^ 128) as i8).collect();
    let weights: Vec<i8> = (7..7 + depth * columns).map(|i| code(i) as i8).collect();
    let packed = PackedMatrix::new(&weights[..], depth, columns, Order::ColumnMajor, &[0])?;
    let (mut sums, mut values) = (vec![0; rows * columns], vec![0.0; rows * columns]);
    let (mut signed_sums, mut product) = (sums.clone(), values.clone());
    let scales = vec![0.01; columns];

    let floats: Vec<f32> = unsigned.iter().map(|&code| code.into()).collect();
    let float_weights: Vec<f32> = weights.iter().map(|&code| code.into()).collect();
    let parallelism = match args.threads {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let mut calls: Vec<(&str, Call<'_>)> = vec![
        (
            "chopi, u8 · i8",
            Box::new(|| {
                let left = Matrix::new(black_box(&unsigned[..]), rows, depth, &[3]);
                left.and_then(|left| packed.multiply(&left, &mut sums))
                    .expect("the shapes fit");
            }),
        ),
        (
            "chopi, i8 · i8",
            Box::new(|| {
                let left = Matrix::new(black_box(&signed[..]), rows, depth, &[3]);
                left.and_then(|left| packed.multiply(&left, &mut signed_sums))
                    .expect("the shapes fit");
            }),
        ),
        (
            "chopi, u8 · i8 to f32",
            Box::new(|| {
                let scales = Dequantize {
                    left_scales: &[0.1],
                    right_scales: &scales,
                    bias: None,
                    clamp: None,
                };
                let left = Matrix::new(black_box(&unsigned[..]), rows, depth, &[3]);
                left.and_then(|left| packed.multiply_dequantized(&left, &scales, &mut values))
                    .expect("the shapes fit");
            }),
        ),
        (
            "gemm, f32",
            Box::new(|| {
                let (left, right) = (black_box(&floats).as_ptr(), float_weights.as_ptr());
                let (to, depth_stride) = (product.as_mut_ptr(), depth as isize);
                // SAFETY: the three matrices are as large as their shapes and strides say.
                unsafe {
                    gemm::gemm(
                        rows,
                        columns,
                        depth,
                        to,
                        1,
                        columns as isize,
                        false,
                        left,
                        1,
                        depth_stride,
                        right,
                        depth_stride,
                        1,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        parallelism,
                    );
                }
            }),
        ),
    ];
    let counts: Vec<usize> = calls
        .iter_mut()
        .map(|(_, call)| calls_in(TURN, call))
        .collect();
    let mut times = BTreeMap::<String, Vec<f64>>::new();
    let case = format!("matmul {rows} {depth} {columns}");
    for _ in 0..args.turns {
        for ((name, call), &count) in calls.iter_mut().zip(&counts) {
            times
                .entry((*name).to_owned())
                .or_default()
                .push(time(call, count));
        }
        for (name, ns) in peers.time(&case, 0)? {
            times.entry(name).or_default().push(ns);
        }
        std::thread::sleep(PEERS_SPIN);
    }
    Ok(times
        .into_iter()
        .map(|(name, times)| (name, median(times)))
        .collect())
}
