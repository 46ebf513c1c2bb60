//! Requantizing: the rows that the vectors compute, against the definitions in exact arithmetic.

#![no_main]

use arbitrary::{Result, Unstructured};
use chopi::matmul::requantize::{
    Code, DoubleRounded, FixedMultiplier, FloatMultiplier, Multiplier, OutputCodes, SingleRounded,
    requantize_row,
};
use chopi_fuzz::{draw, planted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let u = &mut Unstructured::new(input);
    let _ = match u.arbitrary().unwrap_or(false) {
        true => case::<i8>(u),
        false => case::<u8>(u),
    };
});

fn case<Q: Code + for<'a> arbitrary::Arbitrary<'a>>(u: &mut Unstructured<'_>) -> Result<()> {
    let len = u.int_in_range(0..=100)?;
    let palette = [
        i32::MIN,
        i32::MAX,
        0,
        (1 << 24) + u.int_in_range(-4..=8)?,
        u.int_in_range(-2000..=2000)?,
        u.int_in_range(-2000..=2000)?,
        u.arbitrary()?,
        u.arbitrary()?,
    ];
    let acc = draw::elements(u, &[len], &palette)?;
    let bias = match u.arbitrary::<u8>()? % 3 {
        0 => None,
        1 => Some(vec![u.arbitrary()?]),
        _ => Some(draw::elements(u, &[len], &palette)?),
    };
    let zero: Q = u.arbitrary()?;
    let (a, b): (Q, Q) = (u.arbitrary()?, u.arbitrary()?);
    let codes = OutputCodes::new(zero).clamped(a.min(b), a.max(b)).unwrap();
    assert!(a == b || OutputCodes::new(zero).clamped(a.max(b), a.min(b)).is_err());
    let count = if u.arbitrary()? { len } else { 1 };
    let inputs = (&acc[..], bias.as_deref(), codes);
    match u.arbitrary::<u8>()? % 3 {
        0 => {
            let multipliers = (0..count)
                .map(|_| fixed(u).map(SingleRounded))
                .collect::<Result<Vec<_>>>()?;
            check(inputs, &multipliers, |m, acc| single(acc, m.0));
        }
        1 => {
            let multipliers = (0..count)
                .map(|_| fixed(u).map(DoubleRounded))
                .collect::<Result<Vec<_>>>()?;
            check(inputs, &multipliers, |m, acc| double(acc, m.0));
        }
        _ => {
            let multipliers = (0..count).map(|_| float(u)).collect::<Result<Vec<_>>>()?;
            check(inputs, &multipliers, |m, acc| {
                // The product of two `f32` is a number of `f64`; as `f32` it is rounded once.
                let product = (f64::from(acc as f32) * f64::from(m.value())) as f32;
                f64::from(product).round_ties_even().clamp(-1e12, 1e12) as i128
            });
        }
    }
    Ok(())
}

fn check<M: Multiplier, Q: Code>(
    (acc, bias, codes): (&[i32], Option<&[i32]>, OutputCodes<Q>),
    multipliers: &[M],
    scaled: impl Fn(M, i32) -> i128,
) {
    let mut out = vec![Q::default(); acc.len()];
    if let Err(error) = requantize_row(acc, bias, multipliers, codes, &mut out) {
        // One for all, where there are none.
        panic!(
            "{error}: {} accumulators, {} multipliers",
            acc.len(),
            multipliers.len()
        );
    }
    let (zero, (min, max)): (i32, (i32, i32)) = (codes.zero_point().into(), {
        let (min, max) = codes.bounds();
        (min.into(), max.into())
    });
    for (i, (&got, &acc)) in out.iter().zip(acc).enumerate() {
        let bias = bias.map_or(0, |bias| bias[if bias.len() == 1 { 0 } else { i }]);
        let multiplier = multipliers[if multipliers.len() == 1 { 0 } else { i }];
        let sum = acc.saturating_add(bias);
        let expected = (scaled(multiplier, sum) + i128::from(zero)).clamp(min.into(), max.into());
        let got = i128::from(got.into()) + i128::from(planted(sum == 1 << 24 && zero == 77));
        assert_eq!(got, expected, "{acc} + {bias}, {codes:?}");
        let one: i32 = multiplier.code(sum, codes).into();
        assert_eq!(
            i128::from(one),
            expected,
            "{acc} + {bias}, {codes:?}, alone"
        );
    }
}

fn fixed(u: &mut Unstructured<'_>) -> Result<FixedMultiplier> {
    if draw::once_in(u, 4)? {
        let real = draw::any_float::<f64>(u)?;
        let multiplier = FixedMultiplier::from_real(real);
        assert_eq!(multiplier.is_err(), !real.is_finite());
        if let Ok(multiplier) = multiplier {
            let (error, real) = ((multiplier.value() - real).abs(), real.abs());
            let saturated = real >= 2_f64.powi(30) * (1.0 - 2_f64.powi(-31));
            assert!(
                saturated || error <= (real * 2_f64.powi(-31)).max(2_f64.powi(-32)),
                "{real:e}: {multiplier:?}"
            );
            return Ok(multiplier);
        }
    }
    let mantissa = match u.arbitrary::<u8>()? % 4 {
        0 => u.arbitrary()?,
        1 => draw::one_of(u, &[1 << 30, i32::MAX, i32::MIN, 0, 1, -1])?,
        _ => u.int_in_range(1 << 30..=i32::MAX)?,
    };
    let exponent = u.int_in_range(-33..=32)?;
    let multiplier = FixedMultiplier::new(mantissa, exponent);
    assert_eq!(
        multiplier.is_err(),
        !FixedMultiplier::EXPONENTS.contains(&exponent)
    );
    Ok(multiplier.unwrap_or(FixedMultiplier::new(mantissa, 0).expect("an exponent of 0")))
}

fn float(u: &mut Unstructured<'_>) -> Result<FloatMultiplier> {
    let real = match u.arbitrary::<u8>()? % 4 {
        0 => draw::any_float::<f32>(u)?,
        1 => 0.5_f32.powi(u.int_in_range(0..=30)?),
        _ => f32::from(u.arbitrary::<u16>()?) * 2_f32.powi(u.int_in_range(-40..=-10)?),
    };
    Ok(match FloatMultiplier::new(real) {
        Ok(multiplier) => multiplier,
        Err(_) => {
            assert!(!real.is_finite());
            FloatMultiplier::new(0.25).expect("a finite number")
        }
    })
}

/// numerator/2^shift to the nearest integer, halves up.
fn half_up(numerator: i128, shift: i32) -> i128 {
    (2 * numerator + (1 << shift)).div_euclid(2 << shift)
}

fn to_i32(value: i128) -> i128 {
    value.clamp(i32::MIN.into(), i32::MAX.into())
}

fn single(acc: i32, m: FixedMultiplier) -> i128 {
    to_i32(half_up(
        i128::from(acc) * i128::from(m.mantissa()),
        31 - m.exponent(),
    ))
}

fn double(acc: i32, m: FixedMultiplier) -> i128 {
    let left = to_i32(i128::from(acc) * (1 << m.exponent().max(0)));
    let high = to_i32(half_up(left * i128::from(m.mantissa()), 31));
    half_up(high.abs(), (-m.exponent()).max(0)) * high.signum()
}
