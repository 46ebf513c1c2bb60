//! Schemes and parameters survive being saved.

#![cfg(feature = "serde")]

use chopi_core::{
    Chopi, Convention, QParams, Rounding, Scheme, backend::FloatType, observer::Histogram,
};

fn params() -> QParams {
    let scheme = Chopi::builder()
        .num_bits(4)
        .per_channel(-1)
        .scheme()
        .unwrap();
    let scale = vec![
        0.1_f32.into(),
        f64::from(f32::MIN_POSITIVE),
        3.0e38_f32.into(),
    ];
    let zero_point = vec![0, -7, 1 << 33];
    QParams::new(
        scheme,
        Convention::CHOPI,
        FloatType::F32,
        vec![3],
        scale,
        zero_point,
    )
    .unwrap()
}

#[test]
fn parameters_come_back_to_the_bit() {
    let json = serde_json::to_string(&params()).unwrap();
    assert_eq!(serde_json::from_str::<QParams>(&json).unwrap(), params());
}

#[test]
fn real_zero_points_come_back_to_the_bit() {
    let convention = Convention::PYCHOP_TORCH;
    let scheme = Chopi::builder().convention(convention).scheme().unwrap();
    let (scale, zero_point) = (vec![0.25], vec![0.1_f32.into()]);
    let params = QParams::with_real_zero_points(
        scheme,
        convention,
        FloatType::F32,
        vec![1],
        scale,
        zero_point,
    );
    let params = params.unwrap();
    let json = serde_json::to_string(&params).unwrap();
    assert_eq!(serde_json::from_str::<QParams>(&json).unwrap(), params);
}

#[test]
fn every_convention_is_saved_by_its_name() {
    for convention in [Convention::ALL, &[Convention::ONNX_SPEC]].concat() {
        let json = serde_json::to_string(&convention).unwrap();
        assert_eq!(json, format!("{:?}", convention.name()));
        assert_eq!(
            serde_json::from_str::<Convention>(&json).unwrap(),
            convention
        );
    }
    let error = serde_json::from_str::<Convention>("\"nobody\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("nobody") && error.contains("chopi, pychop"),
        "{error}"
    );
}

#[test]
fn an_empty_histogram_comes_back() {
    let json = serde_json::to_string(&Histogram::new()).unwrap();
    let back = serde_json::from_str::<Histogram>(&json).unwrap();
    assert_eq!(back, Histogram::new());
}

#[test]
fn schemes_come_back() {
    let rounding = Rounding::Stochastic { seed: u64::MAX };
    let builder = Chopi::builder().per_group(32, 1).rounding(rounding);
    let scheme = builder.symmetric(true).include_zero().scheme().unwrap();
    let json = serde_json::to_string(&scheme).unwrap();
    assert_eq!(serde_json::from_str::<Scheme>(&json).unwrap(), scheme);
}

#[test]
fn parameters_that_make_no_sense_are_refused() {
    let json = serde_json::to_value(params()).unwrap();
    for (field, value, message) in [
        (
            "scale",
            serde_json::json!([0.1, 0.0, 1.0]),
            "scale of group 1 is 0",
        ),
        (
            "scale",
            serde_json::json!([0.1]),
            "1 scales and 3 zero points",
        ),
        (
            "zero_point",
            serde_json::json!([0, 1_i64 << 40, 0]),
            "zero point of group 1",
        ),
        ("shape", serde_json::json!([4]), "parameters of shape [4]"),
        (
            "shape",
            serde_json::json!([1_u64 << 40, 1_u64 << 40]),
            "parameters of shape",
        ),
    ] {
        let mut json = json.clone();
        json[field] = value;
        let error = serde_json::from_value::<QParams>(json)
            .unwrap_err()
            .to_string();
        assert!(error.contains(message), "{error}");
    }
}
