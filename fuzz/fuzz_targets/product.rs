//! Products of integers of any shape, with any zero points, against sums in 64 bits.

#![no_main]

use arbitrary::{Result, Unstructured};
use chopi::matmul::{CodeSlice, Dequantize, Error, GroupedMatrix, Matrix, Order, PackedMatrix};
use chopi_fuzz::{draw, planted};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let u = &mut Unstructured::new(input);
    let _ = match u.arbitrary::<u8>().unwrap_or(0) % 4 {
        0 => grouped(u),
        _ => packed(u),
    };
});

/// Codes of either type.
struct Codes {
    signed: Vec<i8>,
    unsigned: Vec<u8>,
    is_signed: bool,
}

impl Codes {
    fn new(u: &mut Unstructured<'_>, len: usize) -> Result<Self> {
        let palette = [
            0,
            127,
            128,
            255,
            u.arbitrary()?,
            u.arbitrary()?,
            u.arbitrary()?,
        ];
        // Many of one code make the largest sums.
        let count = u.int_in_range(1..=palette.len())?;
        let unsigned = draw::elements(u, &[len], &palette[palette.len() - count..])?;
        let signed = unsigned.iter().map(|&code: &u8| code as i8).collect();
        Ok(Self {
            signed,
            unsigned,
            is_signed: u.arbitrary()?,
        })
    }

    fn slice(&self) -> CodeSlice<'_> {
        match self.is_signed {
            true => (&self.signed[..]).into(),
            false => (&self.unsigned[..]).into(),
        }
    }

    fn at(&self, i: usize) -> i64 {
        match self.is_signed {
            true => self.signed[i].into(),
            false => self.unsigned[i].into(),
        }
    }
}

fn zero_points(u: &mut Unstructured<'_>, len: usize) -> Result<Vec<i32>> {
    let palette = match draw::once_in(u, 16)? {
        true => [i32::MIN, i32::MAX, u.arbitrary()?, 0],
        false => [
            0,
            128,
            u.int_in_range(-128..=255)?,
            u.int_in_range(-70_000..=70_000)?,
        ],
    };
    let count = u.int_in_range(1..=4)?;
    let len = if u.arbitrary()? { len } else { 1 };
    draw::elements(u, &[len], &palette[..count])
}

fn of(values: &[i32], i: usize) -> i64 {
    if values.len() == 1 {
        values[0].into()
    } else {
        values[i].into()
    }
}

fn shape(u: &mut Unstructured<'_>) -> Result<(usize, usize, usize)> {
    if draw::rarely(u, 4096) {
        // More products than are worth a thread.
        return Ok((
            u.int_in_range(1..=60)?,
            u.int_in_range(200..=300)?,
            u.int_in_range(150..=400)?,
        ));
    }
    if draw::rarely(u, 512) {
        return Ok((1, u.int_in_range(0..=6000)?, u.int_in_range(0..=40)?));
    }
    Ok(match u.arbitrary::<u8>()? % 8 {
        0..4 => (
            u.int_in_range(0..=7)?,
            u.int_in_range(0..=24)?,
            u.int_in_range(0..=20)?,
        ),
        _ => (
            u.int_in_range(0..=20)?,
            u.int_in_range(0..=40)?,
            u.int_in_range(0..=70)?,
        ),
    })
}

fn packed(u: &mut Unstructured<'_>) -> Result<()> {
    let (rows, depth, columns) = shape(u)?;
    let order = draw::one_of(u, &[Order::DepthMajor, Order::ColumnMajor])?;
    let (left, right) = (
        Codes::new(u, rows * depth)?,
        Codes::new(u, depth * columns)?,
    );
    let (left_zeros, right_zeros) = (zero_points(u, rows)?, zero_points(u, columns)?);
    let right_at = |k: usize, j: usize| match order {
        Order::DepthMajor => right.at(k * columns + j),
        Order::ColumnMajor => right.at(j * depth + k),
    };
    let packed = PackedMatrix::new(right.slice(), depth, columns, order, &right_zeros).unwrap();
    let matrix = Matrix::new(left.slice(), rows, depth, &left_zeros).unwrap();
    let mut out = vec![i32::MIN; rows * columns];
    if let Err(error) = packed.multiply(&matrix, &mut out) {
        // Refused only where a sum could really reach 2^31.
        let largest = |codes: &Codes, zeros: &[i32]| {
            let (low, high) = if codes.is_signed {
                (-128, 127)
            } else {
                (0, 255)
            };
            zeros
                .iter()
                .map(|&z| (low - i64::from(z)).abs().max((high - i64::from(z)).abs()))
                .max()
        };
        let bound = largest(&left, &left_zeros).unwrap_or(0) as i128
            * largest(&right, &right_zeros).unwrap_or(0) as i128
            * depth as i128;
        assert!(
            matches!(error, Error::Overflow { .. }) && bound > i32::MAX.into(),
            "{error}"
        );
        return Ok(());
    }
    let left_numbers: Vec<i64> = (0..rows * depth)
        .map(|i| left.at(i) - of(&left_zeros, i / depth))
        .collect();
    let mut column = vec![0; depth];
    for j in 0..columns {
        for (k, number) in column.iter_mut().enumerate() {
            *number = right_at(k, j) - of(&right_zeros, j);
        }
        for i in 0..rows {
            let row = &left_numbers[i * depth..(i + 1) * depth];
            let mut sum = row.iter().zip(&column).map(|(a, b)| a * b).sum::<i64>();
            sum += i64::from(planted(rows == 7 && depth > 9 && i == 2));
            assert_eq!(
                i64::from(out[i * columns + j]),
                sum,
                "[{i}, {j}] of {rows}, {depth}, {columns}"
            );
        }
    }

    // As floats: each operation rounded to f32.
    let left_scales: Vec<f32> = (0..if u.arbitrary()? { rows } else { 1 })
        .map(|i| 0.25 + i as f32 / 3.0)
        .collect();
    let right_scales: Vec<f32> = (0..if u.arbitrary()? { columns } else { 1 })
        .map(|i| 0.5 + i as f32 / 7.0)
        .collect();
    let bias: Vec<f32> = (0..columns).map(|j| j as f32 * 1.3 - 9.0).collect();
    let (has_bias, relu): (bool, bool) = (u.arbitrary()?, u.arbitrary()?);
    let scales = Dequantize {
        left_scales: &left_scales,
        right_scales: &right_scales,
        bias: has_bias.then_some(&bias[..]),
        clamp: relu.then_some((0.0, f32::INFINITY)),
    };
    let mut floats = vec![f32::NAN; rows * columns];
    packed
        .multiply_dequantized(&matrix, &scales, &mut floats)
        .unwrap();
    for (at, (&y, &sum)) in floats.iter().zip(&out).enumerate() {
        let (i, j) = (at / columns, at % columns);
        let scale = left_scales[i % left_scales.len()] * right_scales[j % right_scales.len()];
        let mut expected = sum as f32 * scale;
        if has_bias {
            expected += bias[j];
        }
        if relu && expected < 0.0 {
            expected = 0.0;
        }
        assert_eq!(
            y.to_bits(),
            expected.to_bits(),
            "[{i}, {j}] of {rows}, {depth}, {columns}"
        );
    }
    Ok(())
}

/// Weights with a scale for each group, against the sums of the groups.
fn grouped(u: &mut Unstructured<'_>) -> Result<()> {
    let (rows, depth, columns) = shape(u)?;
    let group = match draw::once_in(u, 8)? {
        true => u.int_in_range(0..=100)?,
        false => 8 * u.int_in_range(1..=9)?,
    };
    let bounds = draw::one_of(
        u,
        &[(-8, 7), (0, 15), (-128, 127), (-2, 1), (0, 255), (3, 9)],
    )?;
    let codes: Vec<i32> = {
        let palette = [
            bounds.0,
            bounds.1,
            u.int_in_range(bounds.0..=bounds.1)?,
            u.int_in_range(bounds.0..=bounds.1)?,
        ];
        draw::elements(u, &[columns, depth], &palette)?
    };
    let left = Codes::new(u, rows * depth)?;
    let left_zeros = zero_points(u, rows)?;
    let groups = if group == 0 { 0 } else { depth.div_ceil(group) };
    let zeros = [bounds.0, bounds.1, u.int_in_range(-300..=300)?];
    let zeros = draw::elements(u, &[columns, groups], &zeros)?;
    let scales: Vec<f32> = (0..columns * groups)
        .map(|i| 0.5_f32.powi((i % 5) as i32))
        .collect();
    let signed: Vec<i8> = codes.iter().map(|&code| code as i8).collect();
    let unsigned: Vec<u8> = codes.iter().map(|&code| code as u8).collect();
    let slice: CodeSlice<'_> = if bounds.0 < 0 {
        (&signed[..]).into()
    } else {
        (&unsigned[..]).into()
    };
    let packed = GroupedMatrix::new(slice, bounds, (columns, depth), group, &scales, &zeros);
    let packed = match packed {
        Ok(packed) => packed,
        Err(error) => {
            assert!(group == 0 || group % 8 != 0 && group < depth, "{error}");
            return Ok(());
        }
    };
    let matrix = Matrix::new(left.slice(), rows, depth, &left_zeros).unwrap();
    let left_scale = 1.0 / (1.0 + f32::from(u.arbitrary::<u8>()?));
    let mut out = vec![f32::NAN; rows * columns];
    if let Err(error) = packed.multiply_dequantized(&matrix, &[left_scale], None, None, &mut out) {
        assert!(matches!(error, Error::Overflow { .. }), "{error}");
        return Ok(());
    }
    for i in 0..rows {
        for j in 0..columns {
            // The groups one after the other, each operation rounded to f32.
            let mut sum = 0.0_f32;
            for g in 0..groups {
                let zero = i64::from(zeros[j * groups + g]);
                let number = |k: usize| {
                    let left = left.at(i * depth + k) - of(&left_zeros, i);
                    left * (i64::from(codes[j * depth + k]) - zero)
                };
                let of_group = (g * group..((g + 1) * group).min(depth)).map(number);
                sum += of_group.sum::<i64>() as f32 * scales[j * groups + g];
            }
            let (got, expected) = (out[i * columns + j], sum * left_scale);
            // The sign of a zero is not that of a definition.
            assert!(
                got == expected,
                "{got:e}, not {expected:e}: [{i}, {j}] of {rows}, {depth}, {columns}, {group}"
            );
        }
    }
    Ok(())
}
