//! Moments against their definition in integers, in every order and split; files; what is refused.

mod support;

use std::collections::BTreeMap;

use chopi_conformance::{Sums, check_moments};
use chopi_core::backend::{bf16, f16};
use chopi_ndarray as _;
use chopi_ptq::{Error, Moments, Patches, Statistics};
use ndarray::{Array1, Array2, Array4, s};
use proptest::prelude::*;
use support::{Random, inputs};

fn moments_of(batches: &[Array2<f32>]) -> Moments {
    let mut moments = Moments::new(batches[0].ncols()).unwrap();
    for batch in batches {
        moments.observe(batch).unwrap();
    }
    moments
}

/// Moments of batches are the sums of those of each.
fn check(moments: &Moments, batches: &[Array2<f64>]) {
    let rows: usize = batches.iter().map(Array2::nrows).sum();
    let of_batch = |batch: &Array2<f64>| {
        let values: Vec<f64> = batch.iter().copied().collect();
        Sums::new(&values, batch.ncols())
    };
    let mut sums = of_batch(&batches[0]);
    for batch in &batches[1..] {
        let more = of_batch(batch);
        for (ours, theirs) in [
            (&mut sums.products, &more.products),
            (&mut sums.values, &more.values),
            (&mut sums.magnitudes, &more.magnitudes),
        ] {
            ours.iter_mut().zip(theirs).for_each(|(a, b)| *a += b);
        }
    }
    check_moments(moments, &sums, rows);
    let all = batches.iter().flat_map(|batch| batch.iter());
    let largest = all.fold(0.0_f64, |m, x| m.max(x.abs()));
    assert_eq!(
        moments.abs_max().iter().fold(0.0_f64, |m, x| m.max(*x)),
        largest
    );
}

#[test]
fn sums_are_those_of_the_definition() {
    for (rows, channels) in [(1, 1), (3, 70), (2048, 5), (2049, 5), (3000, 70)] {
        let x = inputs(rows, channels, rows as u64);
        check(&moments_of(std::slice::from_ref(&x)), &[x.mapv(f64::from)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sums_are_those_of_the_definition_for_any_magnitudes(
        rows in 1_usize..40,
        channels in 1_usize..9,
        exponents in proptest::collection::vec(-90_i32..25, 9),
        seed: u64,
    ) {
        let mut random = Random::new(seed);
        let x = Array2::from_shape_fn((rows, channels), |(_, j)| {
            random.normal() * 2.0_f64.powi(exponents[j])
        });
        let mut moments = Moments::new(channels).unwrap();
        moments.observe(&x).unwrap();
        check(&moments, &[x]);
    }

    #[test]
    fn the_order_of_batches_and_merges_does_not_change_a_bit(
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
        cut in 1_usize..6,
        seed: u64,
    ) {
        let batches: Vec<_> = (0..6).map(|i| inputs(7 + 5 * i, 11, seed.wrapping_add(i as u64))).collect();
        let shuffled: Vec<_> = order.iter().map(|&i| batches[i].clone()).collect();
        let all = moments_of(&batches);
        prop_assert_eq!(&all, &moments_of(&shuffled));
        let (mut first, second) = (moments_of(&shuffled[..cut]), moments_of(&shuffled[cut..]));
        first.merge(&second).unwrap();
        prop_assert_eq!(&all, &first);
        let wide: Vec<_> = batches.iter().map(|batch| batch.mapv(f64::from)).collect();
        check(&all, &wide);
    }
}

#[test]
fn second_moments_are_near_those_of_floats() {
    let x = inputs(700, 40, 5);
    let moments = moments_of(std::slice::from_ref(&x));
    let x = x.mapv(f64::from);
    let exact = x.t().dot(&x) / 700.0;
    for ((i, j), h) in exact.indexed_iter() {
        let size = moments.abs_max()[i] * moments.abs_max()[j];
        assert!(
            (h - moments.second()[(i, j)]).abs() <= size * 2.0_f64.powi(-20),
            "({i}, {j})"
        );
    }
}

#[test]
fn shapes_and_memory_orders_do_not_matter() {
    let x = inputs(60, 12, 1);
    let all = moments_of(std::slice::from_ref(&x));
    let mut moments = Moments::new(12).unwrap();
    moments
        .observe(&x.to_shape((3, 4, 5, 12)).unwrap())
        .unwrap();
    assert_eq!(moments, all);
    let mut moments = Moments::new(12).unwrap();
    moments.observe(&x.t().as_standard_layout().t()).unwrap();
    assert_eq!(moments, all);
    let mut wide = Array2::zeros((120, 24));
    wide.slice_mut(s![..;2, ..;2]).assign(&x);
    let mut moments = Moments::new(12).unwrap();
    moments.observe(&wide.slice(s![..;2, ..;2])).unwrap();
    assert_eq!(moments, all);
    let mut moments = Moments::new(12).unwrap();
    moments.observe(&x.row(0)).unwrap();
    assert_eq!(moments.rows(), 1);
    moments.observe(&Array2::<f32>::zeros((0, 12))).unwrap();
    assert_eq!(moments.rows(), 1);
}

#[test]
fn equal_values_of_any_type_have_the_same_moments() {
    let x = inputs(50, 6, 2).mapv(|x| f16::from_f32(bf16::from_f32(x).to_f32()).to_f32());
    let x = x.mapv(|x| bf16::from_f32(x).to_f32());
    let all = moments_of(std::slice::from_ref(&x));
    let mut others = [(); 3].map(|()| Moments::new(6).unwrap());
    others[0].observe(&x.mapv(f64::from)).unwrap();
    others[1].observe(&x.mapv(bf16::from_f32)).unwrap();
    others[2].observe(&x.mapv(f16::from_f32)).unwrap();
    for other in &others {
        assert_eq!(other, &all);
    }
}

#[test]
fn moments_of_scaled_inputs_are_those_divided_by_the_scales() {
    let x = inputs(90, 7, 3);
    let scales = [0.5, 2.0, 1.0, 4.0, 0.25, 8.0, 16.0];
    let divided = moments_of(std::slice::from_ref(&x))
        .divided_by(&scales)
        .unwrap();
    let row = Array1::from_vec(scales.map(|s| s as f32).to_vec());
    // Powers of two change no mantissa, but what is below the quantum.
    let expected = moments_of(&[x / row]);
    for (i, j) in (0..7).flat_map(|i| (0..7).map(move |j| (i, j))) {
        let (a, b) = (divided.second()[(i, j)], expected.second()[(i, j)]);
        assert!((a - b).abs() <= b.abs() * 1e-15 + 1e-18, "{a} {b}");
    }
    assert_eq!(divided.abs_max(), expected.abs_max());
    assert_eq!(divided.rows(), 90);
}

/// The rows of the windows of a convolution, as its definition has them.
fn windows(x: &Array4<f32>, p: &Patches, channels: std::ops::Range<usize>) -> Array2<f32> {
    let (n, _, h, w) = x.dim();
    let out = |axis: usize, len: usize| {
        (len + 2 * p.padding[axis] - p.dilation[axis] * (p.kernel[axis] - 1) - 1) / p.stride[axis]
            + 1
    };
    let (rows, columns) = (out(0, h), out(1, w));
    let mut values = Vec::new();
    for (image, y, x0) in
        (0..n).flat_map(|i| (0..rows).flat_map(move |y| (0..columns).map(move |x| (i, y, x))))
    {
        for c in channels.clone() {
            for (k, l) in (0..p.kernel[0]).flat_map(|k| (0..p.kernel[1]).map(move |l| (k, l))) {
                let at = |axis: usize, place: usize, k: usize| {
                    (place * p.stride[axis] + k * p.dilation[axis]) as isize
                        - p.padding[axis] as isize
                };
                let (i, j) = (at(0, y, k), at(1, x0, l));
                let inside = (0..h as isize).contains(&i) && (0..w as isize).contains(&j);
                values.push(if inside {
                    x[[image, c, i as usize, j as usize]]
                } else {
                    0.0
                });
            }
        }
    }
    let length = channels.len() * p.kernel[0] * p.kernel[1];
    Array2::from_shape_vec((n * rows * columns, length), values).unwrap()
}

#[test]
fn patches_are_the_windows_of_the_convolution() {
    let x = inputs(3 * 4 * 9, 11, 8)
        .into_shape_with_order((3, 4, 9, 11))
        .unwrap();
    let plain = Patches::new([3, 2]);
    for patches in [
        plain,
        Patches {
            stride: [2, 3],
            ..plain
        },
        Patches {
            padding: [1, 2],
            ..plain
        },
        Patches {
            dilation: [2, 4],
            ..plain
        },
        Patches {
            kernel: [9, 11],
            ..plain
        },
        Patches {
            kernel: [1, 1],
            stride: [20, 20],
            ..plain
        },
    ] {
        for channels in [0..4, 2..4, 1..2] {
            let rows = windows(&x, &patches, channels.clone());
            let mut moments = Moments::new(rows.ncols()).unwrap();
            moments.observe_patches(&x, &patches, channels).unwrap();
            assert_eq!(moments, moments_of(&[rows]), "{patches:?}");
        }
    }
    // Pieces go on over images.
    let x = inputs(5 * 40, 40, 9)
        .into_shape_with_order((5, 1, 40, 40))
        .unwrap();
    let mut moments = Moments::new(4).unwrap();
    moments
        .observe_patches(&x, &Patches::new([2, 2]), 0..1)
        .unwrap();
    assert_eq!(
        moments,
        moments_of(&[windows(&x, &Patches::new([2, 2]), 0..1)])
    );
}

#[test]
fn what_cannot_be_observed_is_refused_and_changes_nothing() {
    let mut moments = moments_of(&[inputs(5, 3, 1)]);
    let before = moments.clone();
    let mut refused = |x: &ndarray::ArrayD<f32>| {
        let error = moments.observe(x).unwrap_err().to_string();
        assert_eq!(moments, before);
        error
    };
    let wrong = Array2::zeros((2, 4)).into_dyn();
    assert_eq!(
        refused(&wrong),
        "a tensor of shape [2, 4] has 4 channels, expected 3"
    );
    let scalar = ndarray::arr0(1.0).into_dyn();
    assert_eq!(
        refused(&scalar),
        "a tensor of shape [] has 0 channels, expected 3"
    );
    let mut nan = Array2::zeros((4, 3)).into_dyn();
    nan[[2, 1]] = f32::NAN;
    nan[[3, 0]] = f32::INFINITY;
    assert_eq!(
        refused(&nan),
        "cannot calibrate on NaN or infinity: the first of 2 is NaN at index [2, 1]"
    );
    let mut large = Array2::zeros((4, 3)).into_dyn();
    large[[0, 2]] = 1e9;
    assert!(refused(&large).starts_with("channel 2 holds 1e9 in 9 rows, but"));
    assert!(matches!(Moments::new(0), Err(Error::NoChannels)));
    assert!(matches!(
        Moments::new(usize::MAX),
        Err(Error::Core(chopi_core::Error::Memory { .. }))
    ));
    let other = Moments::new(4).unwrap();
    let error = moments.merge(&other).unwrap_err().to_string();
    assert_eq!(
        error,
        "moments of 4 channels cannot be merged into those of 3"
    );
    for (scales, said) in [
        (&[1.0][..], "1 scales given for 3 channels"),
        (
            &[1.0, 0.0, 1.0],
            "the scale of channel 1 is 0.0, expected a positive finite number",
        ),
        (
            &[1.0, 1.0, f64::NAN],
            "the scale of channel 2 is NaN, expected a positive finite number",
        ),
    ] {
        assert_eq!(moments.divided_by(scales).unwrap_err().to_string(), said);
    }
}

#[test]
fn windows_that_do_not_fit_are_refused() {
    let x = Array4::<f32>::zeros((1, 2, 5, 5));
    let plain = Patches::new([3, 3]);
    let refused = |patches: Patches, channels| {
        let mut moments = Moments::new(18).unwrap();
        moments
            .observe_patches(&x, &patches, channels)
            .unwrap_err()
            .to_string()
    };
    let said = refused(
        Patches {
            kernel: [3, 0],
            ..plain
        },
        0..2,
    );
    assert_eq!(
        said,
        "the kernel is [3, 0], expected at least 1 along each axis"
    );
    let said = refused(
        Patches {
            stride: [0, 1],
            ..plain
        },
        0..2,
    );
    assert_eq!(
        said,
        "the stride is [0, 1], expected at least 1 along each axis"
    );
    let said = refused(
        Patches {
            dilation: [3, 1],
            ..plain
        },
        0..2,
    );
    assert!(
        said.starts_with("the kernel is [3, 3], expected a kernel that fits an image of [5, 5]")
    );
    let said = refused(
        Patches {
            dilation: [usize::MAX, 1],
            ..plain
        },
        0..2,
    );
    assert!(said.starts_with("the kernel is [3, 3], expected a kernel that fits"));
    assert_eq!(
        refused(plain, 1..3),
        "the range of channels is [1, 3], expected a part of 0..2"
    );
    assert_eq!(
        refused(plain, 0..1),
        "a window on a tensor of shape [1, 2, 5, 5] has 9 channels, expected 18"
    );
    let mut moments = Moments::new(18).unwrap();
    let flat = Array2::<f32>::zeros((2, 3));
    let said = moments
        .observe_patches(&flat, &plain, 0..2)
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("the input of a convolution has shape [2, 3], expected [images, "));
}

fn statistics() -> Statistics {
    let mut statistics = BTreeMap::new();
    for (i, name) in ["a.b", "layers.0.q_proj", "layers.10.down_proj.rows"]
        .into_iter()
        .enumerate()
    {
        statistics.insert(name.to_owned(), moments_of(&[inputs(30, 5 + i, i as u64)]));
    }
    Statistics(statistics)
}

#[test]
fn saved_statistics_come_back_and_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statistics.safetensors");
    let mut all = statistics();
    all.save(&path).unwrap();
    let mut back = Statistics::load(&path).unwrap();
    assert_eq!(back, all);
    let more = inputs(9, 5, 77);
    for statistics in [&mut all, &mut back] {
        statistics.0.get_mut("a.b").unwrap().observe(&more).unwrap();
    }
    assert_eq!(back, all);
    let mut merged = Statistics::default();
    merged.merge(&all).unwrap();
    merged.merge(&back).unwrap();
    assert_eq!(merged.0["a.b"].rows(), 78);
    merged.0.insert("a.b".to_owned(), Moments::new(2).unwrap());
    let error = merged.merge(&all).unwrap_err().to_string();
    assert_eq!(
        error,
        "\"a.b\": moments of 5 channels cannot be merged into those of 2"
    );
    Statistics::default().save(&path).unwrap();
    assert_eq!(Statistics::load(&path).unwrap(), Statistics::default());
    assert!(
        all.save(&folder.path().join("none/x"))
            .unwrap_err()
            .to_string()
            .contains("none")
    );
    // A folder is not replaced, and nothing is left beside what is there.
    std::fs::create_dir(folder.path().join("taken")).unwrap();
    let error = all.save(&folder.path().join("taken")).unwrap_err();
    assert!(
        error.to_string().contains("taken: not a regular file"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn files_of_something_else_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statistics.safetensors");
    let said = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Statistics::load(&path).unwrap_err().to_string()
    };
    assert!(
        Statistics::load(&path)
            .unwrap_err()
            .to_string()
            .contains("statistics.safetensors")
    );
    assert!(said(b"no").contains("statistics.safetensors"));
    let file = |version: &str, tensors: &[(&str, &str, &[usize], usize)]| {
        let mut header = format!("{{\"__metadata__\":{{\"chopi.moments\":\"{version}\"}}");
        let mut end = 0;
        for (name, dtype, shape, bytes) in tensors {
            header += &format!(
                ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{end},{}]}}",
                end + bytes
            );
            end += bytes;
        }
        header.push('}');
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.bytes());
        file.extend(vec![0xff; end]);
        file
    };
    assert!(said(&file("2", &[])).ends_with("the metadata do not say chopi.moments = 1"));
    let one = ("a.rows", "U64", &[1][..], 8);
    assert!(said(&file("1", &[one])).ends_with("\"a.abs_max\" is missing"));
    let floats = ("a.abs_max", "F32", &[2][..], 8);
    assert!(
        said(&file("1", &[one, floats])).ends_with("\"a.abs_max\" is of type F32, expected F64")
    );
    let largest = ("a.abs_max", "F64", &[1][..], 8);
    let (second, sum) = (
        ("a.second", "U64", &[1, 2][..], 16),
        ("a.sum", "U64", &[1, 2][..], 16),
    );
    let sums = ("a.abs_sum", "U64", &[1, 2][..], 16);
    let all = [one, largest, second, sum, sums];
    assert!(said(&file("1", &all)).ends_with("a largest value is not a finite number, at least 0"));
    // One row of the value 1, whose square is said to be −2^−64, then almost 2^63.
    let mut one_row = file("1", &all);
    let data = one_row.len() - 64;
    one_row[data..][..8].copy_from_slice(&1_u64.to_le_bytes());
    one_row[data + 8..][..8].copy_from_slice(&1_f64.to_le_bytes());
    assert!(said(&one_row).ends_with("is negative"));
    one_row[data + 31] = 0x7f;
    let large = said(&one_row);
    assert!(
        large.ends_with("\"a\": a sum is larger than its rows can make it"),
        "{large}"
    );
    let short = ("a.second", "U64", &[1][..], 8);
    let said_short = said(&file("1", &[one, largest, short, sum, sums]));
    assert!(
        said_short.ends_with("\"a.second\" has 1 numbers, expected 2 for 1 channels"),
        "{said_short}"
    );
    assert!(said(&file("1", &[largest])).ends_with("it holds other tensors than those of moments"));
}

#[test]
fn moments_say_little_when_they_are_printed() {
    let moments = moments_of(&[inputs(5, 3, 1)]);
    assert_eq!(
        format!("{moments:?}"),
        "Moments { channels: 3, rows: 5, .. }"
    );
}

#[test]
fn more_windows_than_can_be_counted_are_refused() {
    let x = Array4::<f32>::zeros((1, 1, 1, 1));
    let mut moments = Moments::new(1).unwrap();
    for padding in [1 << 40, usize::MAX / 4] {
        let patches = Patches {
            padding: [padding; 2],
            ..Patches::new([1, 1])
        };
        let error = moments.observe_patches(&x, &patches, 0..1).unwrap_err();
        let expected = format!("the padding is [{padding}, {padding}], expected fewer windows");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    assert_eq!(moments.rows(), 0);
}
