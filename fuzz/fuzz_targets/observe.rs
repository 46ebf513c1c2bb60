//! Observers of batches: merged in another order, and saved and read again, they have seen the same; and what
//! they choose lies within what they saw.

#![no_main]

use arbitrary::{Result, Unstructured};
use chopi::backend::{Compute, Float, bf16, f16};
use chopi::{Calibration, Chopi, Convention, Observer};
use chopi_conformance::oracle;
use chopi_fuzz::{draw, planted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let u = &mut Unstructured::new(input);
    let _ = match u.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => case::<f64>(u),
        1 => case::<f16>(u),
        2 => case::<bf16>(u),
        _ => case::<f32>(u),
    };
});

fn case<F: Float>(u: &mut Unstructured<'_>) -> Result<()> {
    let convention = draw::one_of(u, Convention::ALL)?;
    let mut shape = draw::shape(u)?;
    if shape.iter().product::<usize>() > 20_000 {
        shape = vec![3, 5];
    }
    let bits = draw::one_of(u, convention.bits())?;
    let builder = Chopi::builder()
        .num_bits(bits)
        .symmetric(u.arbitrary()?)
        .convention(convention);
    let granularity = draw::granularity(u, shape.len())?;
    let Ok(scheme) = builder.granularity(granularity).scheme() else {
        return Ok(());
    };
    let calibration = match u.arbitrary::<u8>()? % 32 {
        0..=15 => Calibration::MinMax,
        // The searches for the least error and divergence take a hundred times as long.
        16 => Calibration::MeanSquaredError,
        17 => Calibration::KullbackLeibler,
        _ => Calibration::Percentile(50.0 + f64::from(u.arbitrary::<u8>()?) / 5.1),
    };
    let groups = scheme
        .granularity
        .params_shape(&shape)
        .map_or(1, |groups| groups.iter().product());
    if bits > 8 && calibration != Calibration::MinMax || groups > 64 {
        return Ok(());
    }
    let Ok(empty) = Observer::new(scheme.clone(), convention, calibration) else {
        return Ok(());
    };
    let mut batches = Vec::new();
    for _ in 0..u.int_in_range(1..=3)? {
        let finite = !draw::once_in(u, 8)?;
        let palette = draw::palette::<F>(u, finite)?;
        batches.push(draw::elements(u, &shape, &palette)?);
    }
    let observed = |observer: &mut Observer, batch: &[F]| {
        draw::with_view(batch, &shape, draw::Memory::RowMajor, |view| {
            observer.observe(&view)
        })
    };
    let mut all = empty.clone();
    let (mut parts, mut seen) = (Vec::new(), Vec::new());
    for batch in &batches {
        let mut part = empty.clone();
        let result = observed(&mut part, batch);
        assert_eq!(result.is_ok(), observed(&mut all, batch).is_ok());
        let finite = batch.iter().all(|x| x.widen().as_f64().is_finite());
        assert!(finite || result.is_err());
        if result.is_ok() {
            parts.push(part);
            seen.push(batch);
        }
    }
    let mut merged = empty.clone();
    for part in parts.iter().rev() {
        let json = serde_json::to_string(part).expect("an observer can be saved");
        let read: Observer =
            serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
        assert_eq!(&read, part, "{json}");
        merged.merge(&read).expect("it has the same settings");
    }
    assert_eq!(merged, all);
    let Ok(ranges) = all.ranges() else {
        assert!(seen.is_empty());
        return Ok(());
    };
    let granularity = convention.granularity_for(scheme.granularity, shape.len());
    let of_elements = oracle::groups(&shape, granularity);
    let mut exact = vec![(f64::INFINITY, f64::NEG_INFINITY); ranges.min().len()];
    for batch in seen {
        for (all, new) in exact.iter_mut().zip(oracle::ranges(batch, &of_elements)) {
            *all = (all.0.min(new.0), all.1.max(new.1));
        }
    }
    for (group, (&exact, range)) in exact
        .iter()
        .zip(ranges.min().iter().zip(ranges.max()))
        .enumerate()
    {
        let (min, max) = (*range.0, *range.1);
        let about = || {
            format!(
                "group {group}: {min:e}..={max:e} of {exact:?}, {calibration}, {scheme:?}, {}",
                F::TYPE
            )
        };
        assert!(min <= max, "{}", about());
        match calibration {
            Calibration::MinMax => assert_eq!((min, max), exact, "{}", about()),
            _ => assert!(
                min >= exact.0 && max <= exact.1 && !planted(bits == 3 && group == 5),
                "{}",
                about()
            ),
        }
    }
    if let Ok(params) = all.params() {
        for &scale in params.scale() {
            assert!(scale > 0.0 && scale.is_finite(), "{params:?}");
        }
    }
    Ok(())
}
