//! Codes of few bits, packed and unpacked, against the bits one by one.

#![no_main]

use arbitrary::{Result, Unstructured};
use chopi::backend::Int;
use chopi::packing::{Field, Packing};
use chopi_fuzz::{draw, planted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = packing(&mut Unstructured::new(input));
});

fn packing(u: &mut Unstructured<'_>) -> Result<()> {
    let bits = if draw::once_in(u, 32)? {
        u.arbitrary()?
    } else {
        u.int_in_range(1..=8)?
    };
    let field = draw::one_of(u, &[Field::Unsigned, Field::TwosComplement, Field::Offset])?;
    let (packing, unit, field) = match u.arbitrary::<u8>()? % 3 {
        0 => (Packing::new(bits, field), 1, field),
        1 => (Packing::compressed_tensors(bits), 4, Field::Offset),
        _ => {
            let signed = u.arbitrary()?;
            let field = if signed {
                Field::TwosComplement
            } else {
                Field::Unsigned
            };
            (Packing::onnx(bits, signed), 1, field)
        }
    };
    let Ok(packing) = packing else {
        assert!(!(1..=8).contains(&bits));
        return Ok(());
    };
    let half = 1_i64 << (bits - 1);
    let bounds = match field {
        Field::Unsigned => (0, 2 * half - 1),
        _ => (-half, half - 1),
    };
    assert_eq!(packing.bounds(), bounds);
    match field {
        Field::Unsigned => rows::<u8>(u, packing, (bits as usize, unit, field)),
        _ => rows::<i8>(u, packing, (bits as usize, unit, field)),
    }
}

fn rows<I: Int + TryFrom<i64, Error: std::fmt::Debug>>(
    u: &mut Unstructured<'_>,
    packing: Packing,
    (bits, unit, field): (usize, usize, Field),
) -> Result<()> {
    let (rows, row) = match u.arbitrary::<u8>()? % 16 {
        // Any numbers: only the errors can be looked at.
        0 => return any_length::<I>(u, packing),
        _ if draw::rarely(u, 256) => (u.int_in_range(0..=3)?, u.int_in_range(0..=5000)?),
        _ => (u.int_in_range(0..=9)?, u.int_in_range(0..=100)?),
    };
    let (low, high) = packing.bounds();
    let palette = [
        low,
        high,
        0,
        u.int_in_range(low..=high)?,
        u.int_in_range(low..=high)?,
    ];
    let mut codes = draw::elements(u, &[rows, row], &palette)?;
    let outside = match codes.is_empty() || !draw::once_in(u, 16)? {
        true => None,
        false => {
            let at = u.choose_index(codes.len())?;
            let beyond = [low - 1, high + 1].map(|code| code.clamp(i8::MIN.into(), i8::MAX.into()));
            codes[at] = if low < 0 {
                draw::one_of(u, &beyond)?
            } else {
                (high + 1).min(255)
            };
            (!(low..=high).contains(&codes[at])).then_some(at)
        }
    };
    let of_type: Vec<I> = codes
        .iter()
        .map(|&code| I::try_from(code).unwrap())
        .collect();
    let packed = packing.pack(&of_type, row);
    if let Some(at) = outside {
        let error = packed.expect_err("a code is outside").to_string();
        assert!(error.contains(&format!("[{at}]")), "{error}");
        return Ok(());
    }
    let packed = packed.expect("all codes are within the bounds");
    let row_bytes = (row * bits).div_ceil(8).next_multiple_of(unit);
    assert_eq!(packing.row_bytes(row), row_bytes);
    // No codes are no rows.
    let rows_there = if row == 0 { 0 } else { rows };
    assert_eq!(packed.len(), rows_there * row_bytes);

    let mut expected = vec![0_u8; rows_there * row_bytes];
    for (i, &code) in codes.iter().enumerate() {
        let value = match field {
            Field::Offset => code + (1 << (bits - 1)),
            _ => code,
        };
        for bit in 0..bits {
            let at = (i % row) * bits + bit;
            expected[i / row * row_bytes + at / 8] |= ((value >> bit & 1) as u8) << (at % 8);
        }
    }
    if planted(bits == 5 && row == 33 && rows == 3) {
        expected[0] ^= 1;
    }
    assert_eq!(packed, expected);
    assert_eq!(
        packing.unpack::<I>(&packed, rows_there, row).unwrap(),
        of_type
    );
    if let Some(shorter) = packed.split_last().map(|(_, rest)| rest) {
        assert!(packing.unpack::<I>(shorter, rows_there, row).is_err());
    }
    Ok(())
}

/// Bytes of any length as rows of any length.
fn any_length<I: Int>(u: &mut Unstructured<'_>, packing: Packing) -> Result<()> {
    let (rows, row): (usize, usize) = (u.arbitrary()?, u.arbitrary()?);
    let bytes = u.bytes(u.len())?;
    if let Ok(codes) = packing.unpack::<I>(bytes, rows, row) {
        assert_eq!(Some(codes.len()), rows.checked_mul(row));
    }
    let ones = vec![I::default(); bytes.len()];
    if let Ok(packed) = packing.pack(&ones, row) {
        assert!(
            packed
                .iter()
                .all(|&byte| byte == 0 || packing.bounds().0 < 0)
        );
    }
    Ok(())
}
