//! The forms that write into the caller's buffer: the same numbers, no allocation, clear errors.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use chopi_core::{
    Chopi, Convention, Error, Rounding,
    backend::{bf16, f16},
};
use chopi_ndarray::IntArray;
use ndarray::{Array2, ArrayD, Axis, Ix2, ShapeBuilder, s};

/// The system's allocator, which counts what the current thread asks of it.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.with(Cell::get);
    run();
    ALLOCATIONS.with(Cell::get) - before
}

fn data(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        ((i * 31 + j * 7) % 101) as f32 * 0.13 - 5.0
    })
}

#[test]
fn nothing_is_allocated_per_tensor() {
    let x = data(37, 53);
    for rounding in [
        Rounding::NearestEven,
        Rounding::Floor,
        Rounding::Stochastic { seed: 1 },
    ] {
        let mut chopi = Chopi::builder().rounding(rounding).build().unwrap();
        chopi.calibrate(&x).unwrap();
        let (mut codes, mut values) = (Array2::<u8>::zeros(x.dim()), Array2::<f32>::zeros(x.dim()));
        let as_codes = IntArray::<f32, Ix2>::from(codes.clone());
        let count = allocations(|| {
            chopi.quantize_into(&x, &mut codes).unwrap();
            chopi.fake_quantize_into(&x, &mut values).unwrap();
            chopi.dequantize_into(&as_codes, &mut values).unwrap();
        });
        assert_eq!(count, 0, "{rounding:?}");
    }
}

#[test]
fn the_result_is_that_of_the_form_that_allocates() {
    let x = data(37, 53);
    let t = x.t();
    for builder in [
        Chopi::builder(),
        Chopi::builder().per_channel(0),
        Chopi::builder().per_group(8, 1),
    ] {
        let mut chopi = builder.build().unwrap();
        let expected = chopi.quantize(&t).unwrap();
        let values = chopi.fake_quantize(&t).unwrap();
        // Row-major and transposed outputs, wider ones, and an IntArray.
        let mut wide = Array2::<i64>::zeros(t.dim());
        let mut fortran = Array2::<u8>::zeros(t.dim().f());
        let mut codes = IntArray::<f32, Ix2>::from(Array2::<u16>::zeros(t.dim()));
        chopi.quantize_into(&t, &mut wide).unwrap();
        chopi.quantize_into(&t, &mut fortran).unwrap();
        chopi.quantize_into(&t, &mut codes).unwrap();
        assert_eq!(wide, expected.to_i64());
        assert_eq!(fortran.mapv(i64::from), expected.to_i64());
        assert_eq!(codes, expected);

        let mut out = Array2::<f32>::zeros(t.dim());
        chopi.fake_quantize_into(&t, &mut out).unwrap();
        assert_eq!(out, values);
        out.fill(0.0);
        chopi.dequantize_into(&expected, &mut out).unwrap();
        assert_eq!(out, values);
        // Another float type than that of the data.
        let mut double = Array2::<f64>::zeros(t.dim());
        chopi.dequantize_into(&expected, &mut double).unwrap();
        assert!(
            double
                .iter()
                .zip(&values)
                .all(|(a, &b)| (a - f64::from(b)).abs() < 1e-6)
        );
    }
}

#[test]
fn signed_codes_keep_their_sign_in_wider_outputs() {
    let x = data(5, 7);
    let mut chopi = Chopi::builder().symmetric(true).build().unwrap();
    let expected = chopi.quantize(&x).unwrap().to_i64();
    let (mut short, mut long) = (Array2::<i16>::zeros(x.dim()), Array2::<i64>::zeros(x.dim()));
    chopi.quantize_into(&x, &mut short).unwrap();
    chopi.quantize_into(&x, &mut long).unwrap();
    assert_eq!(short.mapv(i64::from), expected);
    assert_eq!(long, expected);
}

#[test]
fn outputs_that_do_not_fit_are_refused() {
    let x = data(4, 6);
    let mut chopi = Chopi::builder().symmetric(true).build().unwrap();
    chopi.calibrate(&x).unwrap();
    let refused = chopi.quantize_into(&x, &mut Array2::<u8>::zeros((4, 6)));
    assert!(
        matches!(&refused, Err(Error::OutputType { dtype, .. }) if dtype == "u8"),
        "{refused:?}"
    );
    let refused = chopi.quantize_into(&x, &mut ArrayD::<i8>::zeros(vec![6, 4]));
    assert!(matches!(&refused, Err(Error::OutputShape { expected, .. }) if expected == &[4, 6]));
    let mut gaps = Array2::<i8>::zeros((4, 12));
    let refused = chopi.quantize_into(&x, &mut gaps.slice_mut(s![.., ..;2]));
    assert!(matches!(refused, Err(Error::OutputLayout { .. })));
    let refused = chopi.fake_quantize_into(&x, &mut Array2::<f64>::zeros((4, 6)));
    assert!(matches!(refused, Err(Error::OutputType { .. })));

    let stochastic = Chopi::builder().rounding(Rounding::Stochastic { seed: 0 });
    let mut chopi = stochastic.build().unwrap();
    let refused = chopi.quantize_into(&x, &mut Array2::<u8>::zeros((4, 6).f()));
    assert!(matches!(refused, Err(Error::OutputLayout { .. })));
}

/// Large tensors, whose pieces may be worked on by several threads, begin and end anywhere in a row
/// or a group.
#[test]
fn a_large_tensor_gives_what_its_rows_give_one_by_one() {
    let x = Array2::from_shape_fn((1031, 977), |(i, j)| {
        ((i * 7919 + j * 104_729) % 9973) as f32 - 4e3
    });
    let granularities = [
        Chopi::builder().per_channel(0),
        Chopi::builder().per_group(100, 1),
        Chopi::builder().per_channel(0).rounding(Rounding::Ceiling),
    ];
    for builder in granularities {
        let mut whole = builder.clone().build().unwrap();
        let codes = whole.quantize(&x).unwrap().to_i64();
        let values = whole.fake_quantize(&x).unwrap();
        let (masked, mask) = whole.fake_quantize_with_mask(&x).unwrap();
        assert_eq!(masked, values);
        let mask = mask.to_i64();
        for (i, row) in x.axis_iter(Axis(0)).enumerate() {
            let row = row.insert_axis(Axis(0));
            let (mut one, part) = (builder.clone().build().unwrap(), s![i..=i, ..]);
            assert_eq!(
                one.quantize(&row).unwrap().to_i64(),
                codes.slice(part),
                "row {i}"
            );
            let (masked, inside) = one.fake_quantize_with_mask(&row).unwrap();
            assert_eq!(masked, values.slice(part), "row {i}");
            assert_eq!(inside.to_i64(), mask.slice(part), "row {i}");
        }
    }
}

/// Calibrating and quantizing at once, a few groups at a time, gives the parameters and the codes of
/// one after the other.
#[test]
fn the_first_quantize_gives_what_calibrate_and_quantize_give() {
    let x = Array2::from_shape_fn((300, 1024), |(i, j)| {
        ((i * 7919 + j * 104_729) % 9973) as f32 - 4e3
    });
    for convention in Convention::ALL {
        for builder in [
            Chopi::builder(),
            Chopi::builder().per_channel(0),
            Chopi::builder().per_channel(1),
            Chopi::builder().per_group(128, 1),
            Chopi::builder().per_group(100, 1),
            Chopi::builder().per_group(128, 0),
        ] {
            for symmetric in [false, true] {
                let builder = builder.clone().convention(*convention).symmetric(symmetric);
                let Ok(mut at_once) = builder.build() else {
                    continue;
                };
                let mut after = at_once.clone();
                for x in [x.view(), x.t()] {
                    at_once.reset();
                    let codes = at_once.quantize(&x).map_err(|e| e.to_string());
                    let calibrated = after.calibrate(&x).map_err(|e| e.to_string());
                    let expected =
                        calibrated.and_then(|()| after.quantize(&x).map_err(|e| e.to_string()));
                    assert_eq!(
                        codes,
                        expected,
                        "{:?} {:?}",
                        convention.name(),
                        at_once.scheme()
                    );
                    if codes.is_ok() {
                        assert_eq!(at_once, after, "{:?}", convention.name());
                    }
                }
            }
        }
    }
    let mut x = x;
    x[[299, 1000]] = f32::NAN;
    let mut chopi = Chopi::builder().per_channel(0).build().unwrap();
    let refused = chopi.quantize(&x);
    assert!(
        matches!(&refused, Err(Error::NonFinite { index, count: 1, .. }) if index == &[299, 1000])
    );
    assert_eq!(chopi.params(), None);
}

/// Elements at any offset from the start of a vector.
#[test]
fn short_and_odd_lengths_give_what_single_elements_give() {
    fn check<F: chopi_core::backend::Float>(narrow: impl Fn(f32) -> F) {
        let mut chopi = Chopi::new(8).unwrap();
        let all: Vec<F> = (0..67)
            .map(|i| narrow((i * 37 % 67) as f32 * 0.3 - 7.0))
            .collect();
        chopi
            .calibrate(&ndarray::ArrayView1::from(&all[..]))
            .unwrap();
        let one = |x: &F| {
            chopi
                .clone()
                .quantize(&ndarray::arr1(&[*x]))
                .unwrap()
                .to_i64()[0]
        };
        let expected: Vec<i64> = all.iter().map(one).collect();
        for start in 0..34 {
            for end in start + 1..=67 {
                let part = ndarray::ArrayView1::from(&all[start..end]);
                let codes = chopi.clone().quantize(&part).unwrap().to_i64();
                assert_eq!(
                    codes.as_slice().unwrap(),
                    &expected[start..end],
                    "{start}..{end}"
                );
            }
        }
    }
    check(|x| x);
    check(f64::from);
    check(f16::from_f32);
    check(bf16::from_f32);
}

#[test]
fn a_refused_output_leaves_the_quantizer_uncalibrated() {
    let x = ndarray::array![1.0_f32, -2.0, 3.0];
    let mut chopi = Chopi::new(8).unwrap();
    let mut values = ndarray::Array1::<f32>::zeros(4);
    let mut codes = ndarray::Array1::<u8>::zeros(4);
    assert!(chopi.fake_quantize_into(&x, &mut values).is_err());
    assert!(chopi.quantize_into(&x, &mut codes).is_err());
    assert!(chopi.params().is_none());
}
