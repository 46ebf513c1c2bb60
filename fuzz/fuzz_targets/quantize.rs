//! Quantizing, dequantizing and fake-quantizing by any scheme in any convention, of tensors of any shape,
//! element type and memory order, against the definitions.

#![no_main]

use arbitrary::{Result, Unstructured};
use chopi::backend::{Compute, Float, bf16, f16};
use chopi::convention::ZeroPoints;
use chopi::{Chopi, Convention, Error, NanPolicy, QParams, Scheme};
use chopi_conformance::oracle;
use chopi_fuzz::definition::{Definition, Outcome};
use chopi_fuzz::draw::{self, Memory};
use chopi_fuzz::planted;
use libfuzzer_sys::fuzz_target;
use ndarray::ArrayD;

fuzz_target!(|input: &[u8]| {
    let u = &mut Unstructured::new(input);
    let _ = match u.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => case::<f32>(u),
        1 => case::<f64>(u),
        2 => case::<f16>(u),
        _ => case::<bf16>(u),
    };
});

fn case<F: Float>(u: &mut Unstructured<'_>) -> Result<()> {
    let others = [Convention::ALL, &[Convention::ONNX_SPEC]].concat();
    let convention = match u.arbitrary::<bool>()? {
        true => Convention::CHOPI,
        false => draw::one_of(u, &others)?,
    };
    let bits = match draw::once_in(u, 16)? {
        true => u.arbitrary()?,
        // Those that the library has are worth most.
        false => draw::one_of(u, convention.bits())?,
    };
    let shape = draw::shape(u)?;
    let granularity = draw::granularity(u, shape.len())?;
    let mut builder = Chopi::builder()
        .num_bits(bits)
        .symmetric(u.arbitrary()?)
        .granularity(granularity)
        .convention(convention)
        .range(draw::range(u, bits.clamp(2, 32))?);
    if convention == Convention::CHOPI {
        builder = builder.rounding(draw::rounding(u)?);
        if draw::once_in(u, 4)? {
            builder = builder.include_zero();
        }
    }
    let Ok(scheme) = builder.scheme() else {
        return Ok(());
    };
    let (seen, memory) = (draw::palette::<F>(u, true)?, u.arbitrary::<Memory>()?);
    let Some(params) = parameters::<F>(u, (scheme, convention), &shape, &seen, memory)? else {
        return Ok(());
    };
    let nan = draw::one_of(u, &[NanPolicy::Error, NanPolicy::ZeroPoint])?;
    applied::<F>(u, &params.with_nan_policy(nan), &shape, memory)
}

/// Parameters of a calibration or any others; none where they are refused.
fn parameters<F: Float>(
    u: &mut Unstructured<'_>,
    (scheme, convention): (Scheme, Convention),
    shape: &[usize],
    seen: &[F],
    memory: Memory,
) -> Result<Option<QParams>> {
    if u.arbitrary()? {
        let elements = draw::elements(u, shape, seen)?;
        let chopi = draw::with_view(&elements, shape, memory, |view| {
            let builder = Chopi::builder()
                .num_bits(scheme.bits)
                .convention(convention);
            let builder = builder
                .granularity(scheme.granularity)
                .rounding(scheme.rounding);
            let builder = builder.symmetric(scheme.symmetry == chopi::Symmetry::Symmetric);
            let (qmin, qmax) = (scheme.qmin, scheme.qmax);
            let builder = builder.range(chopi::CodeRange::Custom { qmin, qmax });
            let builder = match scheme.zero {
                chopi::Zero::AsObserved => builder,
                chopi::Zero::Included => builder.include_zero(),
            };
            let mut chopi = builder.build().expect("the scheme was made so");
            chopi.calibrate(&view).map(|()| chopi)
        });
        let Ok(chopi) = chopi else { return Ok(None) };
        let params = chopi.into_params().expect("it is calibrated");
        assert_eq!(params.scheme(), &scheme);
        if convention == Convention::CHOPI {
            let groups = oracle::groups(shape, scheme.granularity);
            for (group, (min, max)) in oracle::ranges(&elements, &groups).into_iter().enumerate() {
                let expected = oracle::params(min, max, &scheme, F::TYPE);
                let got = (params.scale()[group], params.zero_point()[group]);
                assert_eq!(got, expected, "{scheme:?} {min:e} {max:e}");
            }
        }
        return Ok(Some(params));
    }
    let granularity = convention.granularity_for(scheme.granularity, shape.len());
    let Ok(groups) = granularity.params_shape(shape) else {
        return Ok(None);
    };
    let count = groups.iter().product();
    if count > 4096 {
        return Ok(None);
    }
    let exponent = if draw::once_in(u, 8)? {
        u.int_in_range(-149..=120)?
    } else {
        u.int_in_range(-14..=6)?
    };
    let base = f64::from(u.arbitrary::<u16>()?) + 1.0;
    let scale = (0..count)
        .map(|i| (base + i as f64) * 2_f64.powi(exponent - 8))
        .collect();
    let far = draw::once_in(u, 16)?;
    let zeros = match convention.zero_points(&scheme) {
        ZeroPoints::None => vec![0; count],
        _ if far => {
            vec![u.int_in_range(-QParams::ZERO_POINT_LIMIT..=QParams::ZERO_POINT_LIMIT)?; count]
        }
        _ => {
            let first = u.int_in_range(scheme.qmin..=scheme.qmax)?;
            (0..count as i64)
                .map(|i| scheme.qmin + (first - scheme.qmin + i) % (scheme.qmax - scheme.qmin + 1))
                .collect()
        }
    };
    let params = match convention.zero_points(&scheme) == ZeroPoints::Real {
        true => {
            let real = zeros
                .iter()
                .map(|&z| <F::Compute as Compute>::from_f64(z as f64 + 0.37).as_f64())
                .collect();
            QParams::with_real_zero_points(scheme, convention, F::TYPE, groups, scale, real)
        }
        false => QParams::new(scheme, convention, F::TYPE, groups, scale, zeros),
    };
    Ok(params.ok())
}

/// What the parameters do with elements at and beside every edge of their groups, and with any others.
fn applied<F: Float>(
    u: &mut Unstructured<'_>,
    params: &QParams,
    shape: &[usize],
    memory: Memory,
) -> Result<()> {
    let scheme = params.scheme();
    let granularity = params
        .convention()
        .granularity_for(scheme.granularity, shape.len());
    if granularity.params_shape(shape).is_err() {
        return Ok(());
    }
    let groups = oracle::groups(shape, granularity);
    let definition = Definition::new(params, F::TYPE);
    let finite = u.arbitrary()?;
    let plain = draw::palette::<F>(u, finite)?;
    let steps: Vec<f64> = (0..u.int_in_range(1..=6)?)
        .map(|_| {
            let code = u.int_in_range(scheme.qmin - 2..=scheme.qmax + 2)?;
            Ok(code as f64 + draw::one_of(u, &[0.0, 0.5, 0.5, 0.25])?)
        })
        .collect::<Result<_>>()?;
    let ulps: Vec<i8> = (0..4)
        .map(|_| u.int_in_range(-1..=1))
        .collect::<Result<_>>()?;
    let picks = draw::elements(u, shape, &(0..64_usize).collect::<Vec<_>>())?;
    let element = |i: usize| -> F {
        let (pick, group) = (picks[i], groups[i]);
        if pick % 3 == 0 {
            return plain[pick / 3 % plain.len()];
        }
        let zero = params
            .real_zero_point()
            .map_or_else(|| params.zero_point()[group] as f64, |z| z[group]);
        let x = (steps[pick % steps.len()] - zero) * params.scale()[group];
        let x = match (F::TYPE, ulps[pick % ulps.len()]) {
            (chopi::backend::FloatType::F64, 1) => x.next_up(),
            (chopi::backend::FloatType::F64, -1) => x.next_down(),
            (_, 1) => f64::from((x as f32).next_up()),
            (_, -1) => f64::from((x as f32).next_down()),
            _ => x,
        };
        draw::narrow(x)
    };
    let elements: Vec<F> = (0..groups.len()).map(element).collect();
    let outcomes: Vec<Outcome> = elements
        .iter()
        .enumerate()
        .map(|(i, &x)| definition.unclamped(x, groups[i], i))
        .collect();
    let first_nan = outcomes
        .iter()
        .position(|outcome| matches!(outcome, Outcome::NaN));
    let about = |i: usize| {
        let group = groups[i];
        let (x, s) = (elements[i].widen().as_f64(), params.scale()[group]);
        format!(
            "x[{i}] = {x:e} {} {shape:?}, s {s:e}, z {:?}, {params:?}",
            F::TYPE,
            params.zero_point().get(group)
        )
    };

    let quantized = draw::with_view(&elements, shape, memory, |view| params.quantize(&view));
    let fake = draw::with_view(&elements, shape, memory, |view| {
        params.fake_quantize_with_mask(&view)
    });
    let (fake, mask) = match fake {
        Ok(fake) => fake,
        // A convention may lack the type or the groups, whatever is done with them.
        Err(_) => {
            assert!(quantized.is_err(), "{params:?} {shape:?}");
            return Ok(());
        }
    };
    let fake_alone =
        draw::with_view(&elements, shape, memory, |view| params.fake_quantize(&view)).unwrap();
    let fake: Vec<F> = fake.iter().copied().collect();
    let bits = |values: &[F]| -> Vec<u64> {
        values
            .iter()
            .map(|x| x.widen().as_f64().to_bits())
            .collect()
    };
    assert_eq!(
        bits(&fake),
        bits(&fake_alone.iter().copied().collect::<Vec<_>>())
    );
    let mask: Vec<i64> = mask.to_i64().into_iter().collect();
    for (i, outcome) in outcomes.iter().enumerate() {
        let group = groups[i];
        let got = fake[i].widen().as_f64();
        let inside = mask[i] != 0;
        match *outcome {
            Outcome::NaN => {
                if params.convention().fake_quantizes_nan_to_qmin() {
                    let expected: F = definition.value(scheme.qmin, group);
                    assert_eq!(
                        got.to_bits(),
                        expected.widen().as_f64().to_bits(),
                        "{}",
                        about(i)
                    );
                } else {
                    assert!(got.is_nan(), "{}", about(i));
                }
                assert!(!inside, "{}", about(i));
            }
            Outcome::NoNumber => assert!(!inside, "{}", about(i)),
            Outcome::Code(code) => {
                let clamped = definition.clamped(code);
                let expected: F = definition.value(clamped, group);
                let expected = expected.widen().as_f64();
                assert!(
                    same(got, expected),
                    "{got:e}, not {expected:e}: {}",
                    about(i)
                );
                assert_eq!(inside, i128::from(clamped) == code, "mask of {}", about(i));
            }
        }
    }

    let quantized = match (quantized, first_nan, params.nan_policy()) {
        (Err(Error::NaN { .. }), Some(_), NanPolicy::Error) => return Ok(()),
        (Ok(_), Some(i), NanPolicy::Error) => panic!("NaN is no error: {}", about(i)),
        (Err(error), ..) => panic!("{error}: {params:?} {shape:?}"),
        (Ok(quantized), ..) => quantized,
    };
    let codes: ArrayD<i64> = quantized.to_i64();
    for ((i, outcome), &got) in outcomes.iter().enumerate().zip(&codes) {
        let expected = match *outcome {
            Outcome::NaN => definition.code_of_nan(groups[i]),
            Outcome::NoNumber => continue,
            Outcome::Code(code) => definition.clamped(code),
        };
        let rare = scheme.bits == 11 && shape.len() == 3 && i == 5;
        assert_eq!(
            got,
            expected + i64::from(planted(rare)),
            "code of {}",
            about(i)
        );
    }
    let back = params
        .dequantize(&quantized)
        .expect("they are its own codes");
    for ((i, &code), &got) in codes.iter().enumerate().zip(&back) {
        let (got, expected): (f64, F) = (got.widen().as_f64(), definition.value(code, groups[i]));
        let expected = expected.widen().as_f64();
        assert!(
            same(got, expected),
            "{got:e}, not {expected:e}: value of {code} of {}",
            about(i)
        );
    }
    Ok(())
}

/// Whether two numbers have the same bits, or are both NaN: a code times a scale may overflow.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}
