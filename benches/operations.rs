//! Each operation on f32 arrays of 16 to 64 Mi elements.
//!
//! ```sh
//! cargo bench --bench operations                      # all
//! cargo bench --bench operations -- "quantize/.*/65536"
//! CHOPI_ISA=avx2 RAYON_NUM_THREADS=1 cargo bench --bench operations
//! ```
//!
//! The forms with "into" write into a buffer that is there; the others make their result anew.

use std::hint::black_box;
use std::time::Duration;

use chopi::{Chopi, Granularity, Rounding, observer::Ranges};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use ndarray::{Array2, ArrayView2};

const SIZES: [usize; 7] = [16, 1 << 10, 1 << 14, 1 << 16, 1 << 20, 1 << 24, 1 << 26];
const COLUMNS: usize = 1024;

fn data(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * 0.37).sin() * 3.0).collect()
}

/// Rows of 1,024, or one row.
fn matrix(x: &[f32]) -> ArrayView2<'_, f32> {
    let columns = x.len().min(COLUMNS);
    ArrayView2::from_shape((x.len() / columns, columns), x).expect("the rows are whole")
}

fn calibrated(x: &ArrayView2<'_, f32>, granularity: Granularity, rounding: Rounding) -> Chopi {
    let builder = Chopi::builder().granularity(granularity).rounding(rounding);
    let mut chopi = builder.build().expect("8 bits are valid");
    chopi.calibrate(x).expect("the data are finite");
    chopi
}

/// Benchmarks `run` on tensors of every size.
fn sizes(
    criterion: &mut Criterion,
    name: &str,
    all: &[f32],
    run: impl Fn(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId, ArrayView2<'_, f32>),
) {
    let mut group = criterion.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    for n in SIZES {
        group.throughput(Throughput::Elements(n as u64));
        run(
            &mut group,
            BenchmarkId::from_parameter(n),
            matrix(&all[..n]),
        );
    }
    group.finish();
}

fn operations(criterion: &mut Criterion) {
    let all = data(SIZES[SIZES.len() - 1]);
    let granularities = [
        ("per tensor", Granularity::PerTensor),
        ("axis 0", Granularity::PerChannel { axis: 0 }),
        ("last axis", Granularity::PerChannel { axis: -1 }),
        (
            "groups of 128",
            Granularity::PerGroup {
                axis: -1,
                size: 128,
            },
        ),
    ];
    let even = Rounding::NearestEven;
    for (name, granularity) in granularities {
        sizes(
            criterion,
            &format!("min and max/{name}"),
            &all,
            |group, id, x| {
                group.bench_function(id, |b| {
                    b.iter(|| Ranges::observe(black_box(&x), granularity))
                });
            },
        );
        sizes(
            criterion,
            &format!("quantize/{name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, granularity, even);
                group.bench_function(id, |b| b.iter(|| chopi.quantize(black_box(&x))));
            },
        );
        sizes(
            criterion,
            &format!("quantize into/{name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, granularity, even);
                let mut codes = Array2::<u8>::zeros(x.dim());
                group.bench_function(id, |b| {
                    b.iter(|| chopi.quantize_into(black_box(&x), &mut codes))
                });
            },
        );
        sizes(
            criterion,
            &format!("calibrate and quantize/{name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, granularity, even);
                group.bench_function(id, |b| {
                    b.iter(|| {
                        chopi.reset();
                        chopi.quantize(black_box(&x))
                    })
                });
            },
        );
        sizes(
            criterion,
            &format!("dequantize into/{name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, granularity, even);
                let codes = chopi.quantize(&x).expect("the data are finite");
                let mut values = Array2::<f32>::zeros(x.dim());
                group.bench_function(id, |b| {
                    b.iter(|| chopi.dequantize_into(black_box(&codes), &mut values))
                });
            },
        );
        sizes(
            criterion,
            &format!("fake-quantize into/{name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, granularity, even);
                let mut values = Array2::<f32>::zeros(x.dim());
                group.bench_function(id, |b| {
                    b.iter(|| chopi.fake_quantize_into(black_box(&x), &mut values))
                });
            },
        );
        sizes(
            criterion,
            &format!("fake-quantize with mask/{name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, granularity, even);
                group.bench_function(id, |b| {
                    b.iter(|| chopi.fake_quantize_with_mask(black_box(&x)))
                });
            },
        );
    }
    let roundings = [
        ("nearest away", Rounding::NearestAway),
        ("toward zero", Rounding::TowardZero),
        ("floor", Rounding::Floor),
        ("stochastic", Rounding::Stochastic { seed: 1 }),
    ];
    for (name, rounding) in roundings {
        sizes(
            criterion,
            &format!("quantize into/per tensor, {name}"),
            &all,
            |group, id, x| {
                let mut chopi = calibrated(&x, Granularity::PerTensor, rounding);
                let mut codes = Array2::<u8>::zeros(x.dim());
                group.bench_function(id, |b| {
                    b.iter(|| chopi.quantize_into(black_box(&x), &mut codes))
                });
            },
        );
    }
}

criterion_group!(benches, operations);
criterion_main!(benches);
