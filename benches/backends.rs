//! What a framework costs beside the kernels: quantizing a contiguous f32 tensor of 1 Mi elements
//! through each backend that is compiled in.
//!
//! ```sh
//! cargo bench --bench backends --features candle,tch
//! ```

use chopi::Chopi;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const ELEMENTS: usize = 1 << 20;

fn data() -> Vec<f32> {
    (0..ELEMENTS).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn backends(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quantize 1 Mi");
    group.throughput(Throughput::Elements(ELEMENTS as u64));
    let array = ndarray::Array1::from(data());
    let mut chopi = Chopi::new(8).expect("8 bits are valid");
    chopi.calibrate(&array).expect("finite data");

    group.bench_function("ndarray", |b| b.iter(|| chopi.quantize(black_box(&array))));
    let tensor = candle_core::Tensor::from_vec(data(), ELEMENTS, &candle_core::Device::Cpu)
        .expect("as many elements as the shape says");
    group.bench_function("candle", |b| b.iter(|| chopi.quantize(black_box(&tensor))));
    #[cfg(feature = "tch")]
    {
        let tensor = tch::Tensor::from_slice(&data());
        group.bench_function("tch", |b| b.iter(|| chopi.quantize(black_box(&tensor))));
    }
    group.finish();
}

criterion_group!(benches, backends);
criterion_main!(benches);
