//! Codes of numbers whose quotients lie beside a tie, by every way to a quotient, against the quotient of
//! a division.
//!
//! `CHOPI_QUOTIENTS` is the number of quotients that are compared; by default some millions.

#[allow(dead_code, reason = "its dice alone are cast here")]
mod oracle;

use std::mem::MaybeUninit;

use chopi_kernels::{
    Compute, Int, Isa, Layout, Params, PerGroup, Recipe, Rounding, Steps, Tiles, ZeroPointSlice,
    fake_quantize, quantize,
};
use oracle::Dice;

const STEPS: [Steps; 3] = [Steps::DivideExact, Steps::DivideRounded, Steps::DivideAfter];

/// As many elements as take the loop for long runs, and the shorter rest of a block.
const LEN: usize = 4096 + 37;

/// round(v + z), clamped, with v = x/s: the words at [`Steps`].
fn code<C: Compute>(x: C, s: C, zero: C, recipe: &Recipe) -> C {
    let v = x / s;
    let even = |v: C| {
        let (floor, half) = (v.floor(), C::from_f64(0.5));
        let odd = (floor / C::from_i32(2)).fract() != C::zero();
        match (v - floor, odd) {
            (rest, _) if rest < half => floor,
            (rest, false) if rest == half => floor,
            _ => floor + C::one(),
        }
    };
    let code = match recipe.steps {
        Steps::DivideRounded => even(v + zero),
        Steps::DivideAfter => even(v) + zero,
        // The sum of a tie and an odd zero point is a tie whose other neighbour is even.
        _ if (zero / C::from_i32(2)).fract() != C::zero() => {
            even(v)
                + zero
                + match v - even(v) {
                    rest if rest.abs() == C::from_f64(0.5) => rest + rest,
                    _ => C::zero(),
                }
        }
        _ => even(v) + zero,
    };
    code.max(C::from_i64(recipe.qmin))
        .min(C::from_i64(recipe.qmax))
}

/// Numbers of a scale: beside ties within and beyond the range of the codes, tiny, huge and infinite.
fn numbers<C: Compute>(dice: &mut Dice, s: C, recipe: &Recipe) -> Vec<C> {
    let wide = 3 * (recipe.qmax - recipe.qmin) as usize;
    let special = [
        C::infinity(),
        C::neg_infinity(),
        C::max_value(),
        C::min_value(),
        C::min_positive_value(),
        C::zero(),
        -C::zero(),
        s,
    ];
    (0..LEN)
        .map(|_| {
            if dice.once_in(64) {
                return dice.of(&special);
            }
            let n = dice.below(wide) as i64 - wide as i64 / 2;
            let tie = (C::from_i64(n) + C::from_f64(0.5)) * s;
            let away = C::from_i64(dice.below(7) as i64 - 3);
            tie + tie * away * C::from_f64(C::TYPE.epsilon() / 2.0)
        })
        .collect()
}

fn compare<C: Compute>(dice: &mut Dice) -> usize {
    let (qmin, qmax) = dice.of(&[(-128, 127), (-127, 127), (-8, 7), (-1, 0)]);
    let steps = dice.of(&STEPS);
    let recipe = Recipe {
        steps,
        rounding: Rounding::NearestEven,
        native: false,
        narrow_product: false,
        nan_is_smallest: false,
        qmin,
        qmax,
    };
    let most = match C::TYPE {
        chopi_kernels::FloatType::F64 => 405,
        _ => 62,
    };
    let exponent = dice.below(2 * most) as i32 - most as i32;
    let mut s = C::from_f64((1.0 + dice.unit()) * 2_f64.powi(exponent));
    if dice.once_in(4) {
        // The last bits are those of ±1, with which reciprocals have to be tried.
        let (whole, last) = (
            C::from_i64(1 << dice.below(24)),
            C::from_f64(C::TYPE.epsilon()),
        );
        let significand = s / C::from_f64(2_f64.powi(exponent));
        let coarse = (significand * whole).floor() / whole;
        let signed = if dice.once_in(2) { last } else { -last };
        s = (coarse + signed) * C::from_f64(2_f64.powi(exponent));
    }
    let scale = [s.as_f64()];
    let integer = (dice.below(2 * 128) as i64 - 128).clamp(qmin, qmax) as f64;
    let zero = match steps {
        Steps::DivideRounded if dice.once_in(2) => C::from_f64(integer + dice.unit()).as_f64(),
        _ => integer,
    };
    let x = numbers(dice, s, &recipe);
    let tiles = Tiles::per_tensor(&Layout::row_major(&[LEN]));
    let zero_point = [zero];
    let params = Params::new(
        recipe,
        tiles,
        &scale,
        PerGroup::new(),
        ZeroPointSlice::Reals(&zero_point),
    );

    let mut codes = vec![MaybeUninit::new(0_i8); LEN];
    let any_nan = quantize(C::slice(&x), &params, i8::slice_mut(&mut codes));
    assert_eq!(any_nan, Ok(false));
    let mut values = vec![MaybeUninit::new(C::zero()); LEN];
    fake_quantize(C::slice(&x), &params, C::slice_mut(&mut values)).unwrap();
    let zero = C::from_f64(zero);
    for (i, &x) in x.iter().enumerate() {
        let expected = code(x, s, zero, &recipe);
        // SAFETY: both vectors were made of initialized elements.
        let (code, value) = unsafe { (codes[i].assume_init(), values[i].assume_init()) };
        let right = C::from_i32(code.into()) == expected && value == (expected - zero) * s;
        assert!(
            right,
            "{x:?} / {s:?} + {zero:?} by {recipe:?}: {code} and {value:?}"
        );
    }
    LEN
}

#[test]
fn a_quotient_beside_a_tie_gives_the_code_of_the_division() {
    let wanted = match std::env::var("CHOPI_QUOTIENTS") {
        Ok(count) => count.parse().expect("a number of quotients"),
        Err(_) => 4_000_000,
    };
    let isas: Vec<Isa> = Isa::ALL
        .into_iter()
        .filter(|isa| isa.is_available())
        .collect();
    for (seed, &isa) in isas.iter().enumerate() {
        isa.force().expect("it is available");
        let mut dice = Dice::new(0x51_u64 + seed as u64);
        let mut compared = 0;
        while compared < wanted / isas.len() {
            compared += compare::<f32>(&mut dice);
            compared += compare::<f64>(&mut dice);
        }
        println!("{isa}: {compared} quotients");
    }
}
