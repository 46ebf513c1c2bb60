//! The operations that are timed, and the copies that bound them.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use chopi::{
    Chopi, Granularity,
    observer::{Histograms, Ranges},
    packing::Packing,
};
use ndarray::{Array2, ArrayView2};

/// One operation.
pub struct Case {
    pub name: &'static str,
    /// The peers' name for it; empty where there is none.
    pub peer: &'static str,
    /// How many bytes it reads and writes for an element.
    pub bytes: f64,
    pub prepare: for<'a> fn(&'a [f32]) -> Result<Call<'a>>,
}

/// A call that can be repeated.
pub type Call<'a> = Box<dyn FnMut() + 'a>;

pub const CASES: &[Case] = &[
    Case {
        name: "quantize per tensor",
        peer: "quantize per tensor",
        bytes: 5.0,
        prepare: |x| quantize(x, Granularity::PerTensor),
    },
    Case {
        name: "quantize per tensor, into",
        peer: "quantize per tensor",
        bytes: 5.0,
        prepare: |x| {
            let x = matrix(x)?;
            let mut chopi = Chopi::new(8)?;
            chopi.calibrate(&x)?;
            let codes = in_huge_pages((0..x.len()).map(|_| 0_u8));
            let mut codes = Array2::from_shape_vec(x.dim(), codes)?;
            Ok(Box::new(move || {
                chopi
                    .quantize_into(black_box(&x), &mut codes)
                    .expect("it did so before");
            }))
        },
    },
    Case {
        name: "quantize per channel, axis 0",
        peer: "quantize per channel, axis 0",
        bytes: 5.0,
        prepare: |x| quantize(x, Granularity::PerChannel { axis: 0 }),
    },
    Case {
        name: "quantize per channel, last axis",
        peer: "quantize per channel, last axis",
        bytes: 5.0,
        prepare: |x| quantize(x, Granularity::PerChannel { axis: -1 }),
    },
    Case {
        name: "fake-quantize per tensor",
        peer: "fake-quantize per tensor",
        bytes: 8.0,
        prepare: |x| fake_quantize(x, Granularity::PerTensor),
    },
    Case {
        name: "fake-quantize per channel, axis 0",
        peer: "fake-quantize per channel, axis 0",
        bytes: 8.0,
        prepare: |x| fake_quantize(x, Granularity::PerChannel { axis: 0 }),
    },
    Case {
        name: "min/max",
        peer: "min/max",
        bytes: 4.0,
        prepare: |x| {
            let x = matrix(x)?;
            Ok(Box::new(move || {
                let ranges = Ranges::observe(black_box(&x), Granularity::PerTensor);
                black_box(ranges.expect("the data are finite"));
            }))
        },
    },
    Case {
        name: "histogram",
        peer: "histogram",
        bytes: 4.0,
        prepare: |x| {
            let x = matrix(x)?;
            Ok(Box::new(move || {
                let histograms = Histograms::observe(black_box(&x), Granularity::PerTensor);
                black_box(histograms.expect("the data are finite"));
            }))
        },
    },
    Case {
        name: "pack 4 bits",
        peer: "",
        bytes: 1.5,
        prepare: |x| {
            let (packing, codes) = (Packing::compressed_tensors(4)?, codes(x));
            Ok(Box::new(move || {
                let packed = packing.pack(black_box(&codes), codes.len());
                black_box(packed.expect("the codes fit"));
            }))
        },
    },
    Case {
        name: "unpack 4 bits",
        peer: "",
        bytes: 1.5,
        prepare: |x| {
            let packing = Packing::compressed_tensors(4)?;
            let packed = packing.pack(&codes(x), x.len())?;
            let count = x.len();
            Ok(Box::new(move || {
                let codes = packing.unpack::<i8>(black_box(&packed), 1, count);
                black_box(codes.expect("there are as many"));
            }))
        },
    },
    Case {
        name: "dequantize",
        peer: "dequantize",
        bytes: 5.0,
        prepare: |x| {
            let x = matrix(x)?;
            let mut chopi = Chopi::new(8)?;
            let codes = chopi.quantize(&x)?;
            Ok(Box::new(move || {
                black_box(
                    chopi
                        .dequantize(black_box(&codes))
                        .expect("it did so before"),
                );
            }))
        },
    },
    Case {
        name: "calibrate + quantize",
        peer: "calibrate + quantize",
        bytes: 9.0,
        prepare: |x| {
            let x = matrix(x)?;
            let mut chopi = Chopi::new(8)?;
            Ok(Box::new(move || {
                chopi.reset();
                black_box(chopi.quantize(black_box(&x)).expect("the data are finite"));
            }))
        },
    },
];

/// A code of 4 bits for each element.
fn codes(x: &[f32]) -> Vec<i8> {
    x.iter().map(|v| (v * 4.0).clamp(-8.0, 7.0) as i8).collect()
}

fn quantize(x: &[f32], granularity: Granularity) -> Result<Call<'_>> {
    let x = matrix(x)?;
    let mut chopi = Chopi::builder().granularity(granularity).build()?;
    chopi.calibrate(&x)?;
    Ok(Box::new(move || {
        black_box(chopi.quantize(black_box(&x)).expect("the data are finite"));
    }))
}

fn fake_quantize(x: &[f32], granularity: Granularity) -> Result<Call<'_>> {
    let x = matrix(x)?;
    let mut chopi = Chopi::builder().granularity(granularity).build()?;
    chopi.calibrate(&x)?;
    Ok(Box::new(move || {
        black_box(
            chopi
                .fake_quantize(black_box(&x))
                .expect("it did so before"),
        );
    }))
}

/// The data as rows of 1,024, or as one row.
fn matrix(x: &[f32]) -> Result<ArrayView2<'_, f32>> {
    let columns = if x.len().is_multiple_of(1024) {
        1024
    } else {
        x.len()
    };
    Ok(ArrayView2::from_shape((x.len() / columns, columns), x)?)
}

/// Sums of four uniform numbers, much like normal ones.
pub fn data(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    in_huge_pages((0..n).map(|_| uniform() + uniform() + uniform() + uniform()))
}

/// A vector in huge pages where the system has them, in which NumPy's large arrays are too.
fn in_huge_pages<T>(values: impl ExactSizeIterator<Item = T>) -> Vec<T> {
    let mut data = Vec::with_capacity(values.len());
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        let memory = data.spare_capacity_mut();
        let (start, bytes) = (memory.as_mut_ptr().cast::<u8>(), size_of_val(memory));
        let before = start.align_offset(PAGE);
        if bytes > before {
            // SAFETY: the pages lie whole in memory that is ours, and the advice changes nothing
            // that a program can see.
            unsafe {
                let pages = (bytes - before) / PAGE * PAGE;
                libc::madvise(start.add(before).cast(), pages, libc::MADV_HUGEPAGE)
            };
        }
    }
    data.extend(values);
    data
}

/// A copy that reads and writes `bytes` together.
pub fn copy(bytes: usize) -> Call<'static> {
    let from = in_huge_pages((0..bytes / 2).map(|_| 1_u8));
    let mut to = in_huge_pages((0..bytes / 2).map(|_| 2_u8));
    Box::new(move || black_box(&mut to).copy_from_slice(black_box(&from)))
}

/// How many calls take about `seconds`.
pub fn calls_in(seconds: f64, call: &mut Call<'_>) -> usize {
    call();
    let one = time(call, 1) * 1e-9;
    ((seconds / one.max(1e-9)) as usize).max(1)
}

/// Nanoseconds of a call, the mean of `count`, after a few that wake the threads and fill the caches.
pub fn time(call: &mut Call<'_>, count: usize) -> f64 {
    for _ in 0..count.div_ceil(2) {
        call();
    }
    let start = Instant::now();
    for _ in 0..count {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / count as f64
}

/// 64 Ki, 1 Mi, or the number itself.
pub fn short(n: usize) -> String {
    match n {
        n if n > 0 && n.is_multiple_of(1 << 20) => format!("{} Mi", n >> 20),
        n if n > 0 && n.is_multiple_of(1 << 10) => format!("{} Ki", n >> 10),
        n => n.to_string(),
    }
}
