//! NaN and infinities, in every operation and convention.

use chopi_core::{
    Builder, Chopi, Convention, Error, NanPolicy, Rounding, Symmetry,
    backend::{Compute, Float, bf16, f16},
};

use crate::data::to;
use crate::{Fixture, Memory, oracle};

/// What [`NanPolicy`] and the conventions document holds: on the fast path of the kernels; on the
/// general one, for halves that are computed with as such, roundings other than to nearest even,
/// and zero points far away; per tensor and per channel.
pub fn nan_and_infinities_are_as_documented_in_every_convention<X: Fixture>() {
    for &convention in Convention::ALL {
        run::<X, f32>(convention);
        run::<X, f64>(convention);
        run::<X, f16>(convention);
        run::<X, bf16>(convention);
    }
}

fn run<X: Fixture, F: Float>(convention: Convention) {
    if !convention.float_types().contains(&F::TYPE) {
        return;
    }
    for symmetric in [false, true] {
        let builder = Chopi::builder().convention(convention).symmetric(symmetric);
        if builder.scheme().is_err() {
            continue;
        }
        for per_channel in [false, true] {
            let builder = if per_channel {
                builder.clone().per_channel(0)
            } else {
                builder.clone().per_tensor()
            };
            check::<X, F>(&builder, 0.0, 1.0);
            let down = builder.clone().rounding(Rounding::Floor);
            if down.scheme().is_ok() {
                check::<X, F>(&down, 0.0, 1.0);
            }
            // A range so far from zero that z is beyond what the fast path takes.
            if !convention.has_zero_points_in_range() && F::TYPE == F::TYPE.compute() {
                check::<X, F>(&builder, 300.0, 0.001);
            }
        }
    }
}

/// Checks data of `center` ± `spread`.
fn check<X: Fixture, F: Float>(builder: &Builder, center: f64, spread: f64) {
    let shape = [2, 301];
    let what = format!("{} {builder:?}", F::TYPE);
    let tensor = |data: &[F]| X::tensor(data, &shape, &Memory::RowMajor);
    let clean: Vec<F> = (0..602)
        .map(|i| to(center + spread * (f64::from(i * 37 % 602) / 301.0 - 1.0)))
        .collect();
    let mut chopi = builder.clone().build().unwrap();

    // Calibration refuses all three, says where, and keeps the earlier parameters.
    chopi.calibrate(&tensor(&clean)).unwrap();
    let params = chopi.params().unwrap().clone();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut data = clean.clone();
        data[302] = to(bad);
        match chopi.calibrate(&tensor(&data)) {
            Err(Error::NonFinite {
                index,
                value,
                count,
            }) => {
                assert_eq!((index, count), (vec![1, 1], 1), "{what}");
                assert!(value == bad || value.is_nan() && bad.is_nan(), "{what}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(chopi.params(), Some(&params), "{what}");
    }

    // Infinities take the ends of the range, in quantize and in fake-quantize.
    let (qmin, qmax) = params.bounds();
    let mut data = clean.clone();
    (data[5], data[306]) = (to(f64::INFINITY), to(f64::NEG_INFINITY));
    (data[7], data[308]) = (to(f64::NEG_INFINITY), to(f64::INFINITY));
    let codes = chopi.quantize(&tensor(&data)).unwrap();
    let expected = X::codes::<F>(&codes).1;
    let ends = [5, 308, 7, 306].map(|i| expected[i]);
    assert_eq!(ends, [qmax, qmax, qmin, qmin], "{what}");
    let bits = |data: &[F]| {
        data.iter()
            .map(|x| x.widen().as_f64().to_bits())
            .collect::<Vec<_>>()
    };
    let values = X::floats::<F>(&chopi.dequantize(&codes).unwrap()).1;
    let fake = X::floats::<F>(&chopi.fake_quantize(&tensor(&data)).unwrap()).1;
    assert_eq!(bits(&fake), bits(&values), "{what}");

    // NaN is an error that says where.
    let nans = [0, 20, 303, 601];
    for i in nans {
        data[i] = to(f64::NAN);
    }
    let x = tensor(&data);
    match chopi.quantize(&x) {
        Err(Error::NaN { index, count }) => assert_eq!((index, count), (vec![0, 0], 4), "{what}"),
        other => panic!("{what}: {:?}", other.map(|_| ())),
    }
    // Or it is the zero point, rounded if it is real; the others are what they were.
    let groups = oracle::groups(&shape, params.scheme().granularity);
    let zero_point = |i: usize| match params.real_zero_point() {
        Some(reals) => reals[groups[i]].round_ties_even(),
        None => params.zero_point()[groups[i]] as f64,
    };
    chopi.set_nan_policy(NanPolicy::ZeroPoint);
    let codes = X::codes::<F>(&chopi.quantize(&x).unwrap()).1;
    for (i, &code) in codes.iter().enumerate() {
        let expected = match nans.contains(&i) {
            true => zero_point(i).clamp(qmin as f64, qmax as f64) as i64,
            false => expected[i],
        };
        assert_eq!(code, expected, "{what}: element {i}");
    }
    if params.scheme().symmetry == Symmetry::Symmetric && qmin < 0 {
        assert_eq!(codes[0], 0, "{what}");
    }

    // Fake-quantize keeps it, whatever the policy, or takes it for the smallest code.
    let fake = X::floats::<F>(&chopi.fake_quantize(&x).unwrap()).1;
    let smallest = [7, 306].map(|i| values[i].widen().as_f64());
    for (i, fake) in fake.iter().enumerate() {
        let fake = fake.widen().as_f64();
        let of_its_channel = smallest[usize::from(i >= 301)];
        let to_qmin = params.convention().fake_quantizes_nan_to_qmin();
        match (nans.contains(&i), to_qmin) {
            (false, _) => assert_eq!(
                fake.to_bits(),
                values[i].widen().as_f64().to_bits(),
                "{what}"
            ),
            (true, false) => assert!(fake.is_nan(), "{what}: {fake}"),
            (true, true) => assert_eq!(fake, of_its_channel, "{what}"),
        }
    }
}
