//! What observing costs: the histogram of 1 Mi normal numbers against their smallest and largest
//! value, and the choice of a range from a histogram.

use std::hint::black_box;

use chopi::{
    Calibration, Chopi, Convention, Granularity,
    observer::{Histograms, Ranges},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ndarray::Array1;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

fn observers(c: &mut Criterion) {
    let mut rng = StdRng::seed_from_u64(1);
    let mut x: Array1<f32> = (0..1 << 20)
        .map(|_| StandardNormal.sample(&mut rng))
        .collect();
    let mut group = c.benchmark_group("observe 1 Mi f32");
    group.throughput(Throughput::Elements(x.len() as u64));
    group.bench_function("minmax", |b| {
        b.iter(|| Ranges::observe(black_box(&x), Granularity::PerTensor))
    });
    group.bench_function("histogram", |b| {
        b.iter(|| Histograms::observe(black_box(&x), Granularity::PerTensor))
    });
    let zeros = Array1::<f32>::zeros(1 << 20);
    group.bench_function("histogram of zeros", |b| {
        b.iter(|| Histograms::observe(black_box(&zeros), Granularity::PerTensor))
    });
    group.finish();

    x[0] = 50.0;
    let histograms = Histograms::observe(&x, Granularity::PerTensor);
    let histograms = histograms.expect("the values are finite");
    let scheme = Chopi::builder().symmetric(true).scheme();
    let scheme = scheme.expect("8 bits are in range");
    let mut group = c.benchmark_group("range from a histogram, 8 bits");
    for calibration in [
        Calibration::Percentile(99.99),
        Calibration::MeanSquaredError,
        Calibration::KullbackLeibler,
    ] {
        group.bench_function(calibration.to_string(), |b| {
            b.iter(|| calibration.ranges(black_box(&histograms), &scheme, &Convention::CHOPI))
        });
    }
    group.finish();
}

criterion_group!(benches, observers);
criterion_main!(benches);
