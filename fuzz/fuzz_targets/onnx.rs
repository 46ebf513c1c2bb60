//! ONNX's operators on arrays of any shape and memory order, against their formulas.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use chopi::NanPolicy;
use chopi::backend::{Float, FloatType, bf16, f16};
use chopi::matmul::requantize::Code;
use chopi::ndarray::onnx::{
    AutoPad, ConvAttributes, DequantizeAttributes, QuantizeAttributes, Quantized, QuantizedElement,
    QuantizedType, conv_integer, dequantize_linear, dynamic_quantize_linear, matmul_integer,
    qlinear_conv, qlinear_matmul, quantize_linear,
};
use chopi_fuzz::draw::{self, Memory, with_view};
use chopi_fuzz::planted;
use libfuzzer_sys::fuzz_target;
use ndarray::{ArrayD, Dimension, IxDyn};

fuzz_target!(|input: &[u8]| {
    let u = &mut Unstructured::new(input);
    let _ = match u.arbitrary::<u8>().unwrap_or(0) % 8 {
        0 => linear::<f32, f32, u8>(u),
        1 => linear::<f32, f32, i8>(u),
        2 => linear::<f16, f16, i16>(u),
        3 => linear::<bf16, f32, u16>(u),
        4 => dynamic(u),
        5 => matmul::<u8, i8>(u),
        6 => matmul::<i8, u8>(u),
        _ => conv(u),
    };
});

/// A shape of few elements: how the work on many is divided among threads, the target `quantize` looks at.
fn shape(u: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    let shape = draw::shape(u)?;
    Ok(match shape.iter().product::<usize>() {
        0..4000 => shape,
        _ => vec![3, 5],
    })
}

fn array<T: Clone>(shape: &[usize], elements: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), elements).expect("as many elements as the shape has")
}

fn wide<F: Float<Compute = f32>>(x: F) -> f64 {
    x.widen().into()
}

/// A number of `f64` rounded to a type, once where that is `f32`.
fn rounded(float: FloatType, x: f64) -> f64 {
    float.round(x)
}

/// QuantizeLinear and DequantizeLinear.
fn linear<A, S, Z>(u: &mut Unstructured<'_>) -> Result<()>
where
    A: Float<Compute = f32>,
    S: Float<Compute = f32>,
    Z: QuantizedElement + TryFrom<i64, Error: std::fmt::Debug>,
{
    let shape = shape(u)?;
    let rank = shape.len();
    let axis = if rank == 0 { 0 } else { u.choose_index(rank)? };
    let size = u.int_in_range(1..=9)?;
    let (scale_shape, block_size) = match u.arbitrary::<u8>()? % 5 {
        0 => (vec![], 0),
        1 => (vec![1], 0),
        _ if rank == 0 => (vec![], 0),
        2 => (vec![shape[axis]], 0),
        3 => {
            // Shapes that may not fit.
            let scale = draw::shape(u)?;
            (scale, u.int_in_range(0..=5)?)
        }
        _ => {
            let mut scale = shape.clone();
            scale[axis] = shape[axis].div_ceil(size);
            (scale, size)
        }
    };
    if scale_shape.iter().product::<usize>() > 4096 {
        return Ok(());
    }
    let output = match Z::QUANTIZED {
        QuantizedType::Int8 => draw::one_of(
            u,
            &[
                QuantizedType::Int8,
                QuantizedType::Int4,
                QuantizedType::Int2,
            ],
        )?,
        QuantizedType::Uint8 => draw::one_of(
            u,
            &[
                QuantizedType::Uint8,
                QuantizedType::Uint4,
                QuantizedType::Uint2,
            ],
        )?,
        other => other,
    };
    let (qmin, qmax) = output.bounds();
    let scales: Vec<S> = match draw::once_in(u, 8)? {
        true => draw::palette(u, false)?,
        false => (0..3)
            .map(|_| {
                Ok(draw::narrow(
                    (f64::from(u.arbitrary::<u8>()?) + 1.0) * 2_f64.powi(u.int_in_range(-14..=4)?),
                ))
            })
            .collect::<Result<_>>()?,
    };
    let scale = array(&scale_shape, draw::elements(u, &scale_shape, &scales)?);
    let zeros = [u.int_in_range(qmin..=qmax)?, qmin, qmax];
    let zeros: Vec<i64> = draw::elements(u, &scale_shape, &zeros)?;
    let zero_point = array(
        &scale_shape,
        zeros.iter().map(|&z| Z::try_from(z).unwrap()).collect(),
    );
    let has_zero = u.arbitrary()?;
    let zero_point = if has_zero { Some(&zero_point) } else { None };
    let attributes = QuantizeAttributes {
        axis: axis as isize - if u.arbitrary()? { rank as isize } else { 0 },
        block_size,
        output_dtype: Some(output),
        precision: draw::one_of(
            u,
            &[
                None,
                Some(FloatType::F32),
                Some(FloatType::F16),
                Some(FloatType::BF16),
            ],
        )?,
        nan: draw::one_of(u, &[NanPolicy::Error, NanPolicy::ZeroPoint])?,
    };
    let group = |index: &IxDyn| -> IxDyn {
        match &scale_shape[..] {
            [] => IxDyn(&[]),
            [1] if block_size == 0 => IxDyn(&[0]),
            [_] if block_size == 0 => IxDyn(&[index[axis]]),
            _ => {
                let mut group = index.clone();
                group[axis] /= block_size;
                group
            }
        }
    };
    let plain = draw::palette::<A>(u, false)?;
    let steps = [
        u.int_in_range(-300..=300)?,
        u.int_in_range(-40_000..=70_000)?,
        0_i64,
        1,
    ];
    let picks = array(
        &shape,
        draw::elements(u, &shape, &(0..48_usize).collect::<Vec<_>>())?,
    );
    let memory: Memory = u.arbitrary()?;

    // Whether the shapes fit, which makes all groups exist.
    let fits = match (&scale_shape[..], block_size) {
        ([], 0) | ([1], 0) => true,
        (&[n], 0) => rank > 0 && n == shape[axis],
        (scale, size) if size > 0 && scale.len() == rank && rank > 0 => (0..rank).all(|i| {
            scale[i]
                == if i == axis {
                    shape[i].div_ceil(size)
                } else {
                    shape[i]
                }
        }),
        _ => false,
    };
    let x = ArrayD::from_shape_fn(IxDyn(&shape), |index| {
        let pick = picks[&index];
        match fits && pick % 4 != 0 {
            false => plain[pick / 4 % plain.len()],
            true => {
                let s = wide(scale[group(&index)]);
                draw::narrow((steps[pick % 4] as f64 + [0.0, 0.5, 0.25][pick % 3]) * s)
            }
        }
    });
    let x_elements: Vec<A> = x.iter().copied().collect();
    let y = with_view(&x_elements, &shape, memory, |x| {
        quantize_linear(&*x, &*scale, zero_point.map(|z| &**z), &attributes)
    });
    assert!(
        fits || y.is_err(),
        "{shape:?} {scale_shape:?} {attributes:?}"
    );
    if !fits {
        return Ok(());
    }
    let precision = attributes.precision.unwrap_or(S::TYPE);
    let p = |x: f64| rounded(precision, x);
    let expected = |index: &IxDyn| -> Option<i64> {
        let group = group(index);
        // The quotient of two numbers of few bits, in `f64`, is rounded to fewer as it would be at once.
        let quotient = p(p(wide(x[index])) / p(wide(scale[&group])));
        let z = if has_zero {
            zeros_at(&zeros, &scale_shape, &group)
        } else {
            0
        };
        let sum = quotient.round_ties_even() + z as f64;
        (!sum.is_nan()).then(|| sum.clamp(qmin as f64, qmax as f64) as i64)
    };
    let y: ArrayD<Z> = match y {
        Ok(y) => y,
        Err(error) => {
            let refused = ndarray::indices(IxDyn(&shape))
                .into_iter()
                .any(|index| expected(&index).is_none());
            assert!(
                refused && attributes.nan == NanPolicy::Error,
                "{error}: {shape:?} {scale_shape:?} {attributes:?}"
            );
            return Ok(());
        }
    };
    for (index, got) in y.indexed_iter() {
        let z = if has_zero {
            zeros_at(&zeros, &scale_shape, &group(&index))
        } else {
            0
        };
        let code = expected(&index).unwrap_or(z) + i64::from(planted(rank == 3 && qmax == 3));
        let (x, s) = (wide(x[&index]), wide(scale[group(&index)]));
        assert_eq!(
            got.to_i64(),
            code,
            "{x:e}/{s:e} + {z}, {attributes:?}, {:?} {:?}",
            A::TYPE,
            S::TYPE
        );
    }
    let y_elements: Vec<Z> = y.iter().copied().collect();
    let back: ArrayD<A> = with_view(&y_elements, &shape, memory, |y| {
        let DequantizeAttributes { axis, block_size } = attributes.groups();
        let attributes = DequantizeAttributes { axis, block_size };
        dequantize_linear(&*y, &*scale, zero_point.map(|z| &**z), &attributes)
    })
    .expect("the shapes fit");
    for (index, &got) in back.indexed_iter() {
        let group = group(&index);
        let z = if has_zero {
            zeros_at(&zeros, &scale_shape, &group)
        } else {
            0
        };
        let difference = y[&index].to_i64() - z;
        let value = A::narrow(difference as f32 * scale[&group].widen());
        let (got, value) = (wide(got), wide(value));
        assert!(
            got.to_bits() == value.to_bits() || got.is_nan() && value.is_nan(),
            "{got:e}, not {value:e}"
        );
    }
    Ok(())
}

fn zeros_at(zeros: &[i64], shape: &[usize], index: &IxDyn) -> i64 {
    zeros[index
        .slice()
        .iter()
        .zip(shape)
        .fold(0, |flat, (i, n)| flat * n + i)]
}

/// DynamicQuantizeLinear.
fn dynamic(u: &mut Unstructured<'_>) -> Result<()> {
    let shape = shape(u)?;
    let finite = u.arbitrary()?;
    let palette = draw::palette::<f32>(u, finite)?;
    let elements = draw::elements(u, &shape, &palette)?;
    let got = with_view(&elements, &shape, u.arbitrary()?, |x| {
        dynamic_quantize_linear(&*x)
    });
    let min = elements.iter().fold(0.0_f32, |a, &b| a.min(b));
    let max = elements.iter().fold(0.0_f32, |a, &b| a.max(b));
    let s = (max - min) / 255.0;
    if elements.iter().any(|x| !x.is_finite())
        || !elements.is_empty() && (max > 0.0 || min < 0.0) && !(s > 0.0 && s.is_finite())
    {
        assert!(got.is_err(), "{min:e}..={max:e}");
        return Ok(());
    }
    let (y, scale, zero_point) = got.expect("the range has a scale");
    let s = if max == 0.0 && min == 0.0 { 1.0 } else { s };
    let z = (0.0 - min / s).clamp(0.0, 255.0).round_ties_even();
    assert_eq!(
        (scale.to_bits(), f32::from(zero_point)),
        (s.to_bits(), z),
        "{min:e}..={max:e}"
    );
    for (&x, &y) in elements.iter().zip(&y) {
        let expected = (f64::from((x / s).round_ties_even()) + f64::from(z)).clamp(0.0, 255.0);
        assert_eq!(f64::from(y), expected, "{x:e}, s {s:e}, z {z}");
    }
    Ok(())
}

fn codes<T: Code + for<'a> Arbitrary<'a>>(
    u: &mut Unstructured<'_>,
    shape: &[usize],
) -> Result<ArrayD<T>> {
    let palette: Vec<T> = (0..4).map(|_| u.arbitrary()).collect::<Result<_>>()?;
    Ok(array(shape, draw::elements(u, shape, &palette)?))
}

/// MatMulInteger and QLinearMatMul, of matrices, with parameters for all, or for each row and column.
fn matmul<A, B>(u: &mut Unstructured<'_>) -> Result<()>
where
    A: Code + for<'a> Arbitrary<'a>,
    B: Code + for<'a> Arbitrary<'a>,
{
    let (m, k, n) = (
        u.int_in_range(0..=12)?,
        u.int_in_range(0..=40)?,
        u.int_in_range(0..=20)?,
    );
    let batch = u.int_in_range(1..=3)?;
    let (a_batch, b_batch) = draw::one_of(u, &[(batch, 1), (1, batch), (batch, batch)])?;
    let (a_shape, b_shape) = ([a_batch, m, k], [b_batch, k, n]);
    let (a, b) = (codes::<A>(u, &a_shape)?, codes::<B>(u, &b_shape)?);
    let a_each: Vec<usize> = if u.arbitrary()? {
        vec![a_batch, m, 1]
    } else {
        vec![]
    };
    let b_each: Vec<usize> = if u.arbitrary()? {
        vec![b_batch, 1, n]
    } else {
        vec![]
    };
    let (a_zero, b_zero) = (codes::<A>(u, &a_each)?, codes::<B>(u, &b_each)?);
    let (a_elements, b_elements): (Vec<A>, Vec<B>) =
        (a.iter().copied().collect(), b.iter().copied().collect());
    let (left, right): (Memory, Memory) = (u.arbitrary()?, u.arbitrary()?);
    let at_a = |b: usize, i: usize| {
        if a_each.is_empty() {
            IxDyn(&[])
        } else {
            IxDyn(&[b % a_batch, i, 0])
        }
    };
    let at_b = |b: usize, j: usize| {
        if b_each.is_empty() {
            IxDyn(&[])
        } else {
            IxDyn(&[b % b_batch, 0, j])
        }
    };
    let sums = ArrayD::from_shape_fn(IxDyn(&[batch, m, n]), |index| {
        let (p, i, j) = (index[0], index[1], index[2]);
        let number = |x: i32, zero: i32| i64::from(x) - i64::from(zero);
        (0..k)
            .map(|t| {
                number(a[[p % a_batch, i, t]].into(), a_zero[at_a(p, i)].into())
                    * number(b[[p % b_batch, t, j]].into(), b_zero[at_b(p, j)].into())
            })
            .sum::<i64>()
    });
    let y = with_view(&a_elements, &a_shape, left, |a| {
        with_view(&b_elements, &b_shape, right, |b| {
            matmul_integer(&*a, &*b, Some(&*a_zero), Some(&*b_zero))
        })
    })
    .expect("the shapes fit");
    assert_eq!(
        y.mapv(i64::from),
        sums,
        "{a_shape:?} {b_shape:?} {a_each:?} {b_each:?}"
    );

    let scales = |u: &mut Unstructured<'_>, shape: &[usize]| -> Result<ArrayD<f32>> {
        let exponent = u.int_in_range(-6..=2)?;
        let palette = [2_f32.powi(exponent), 1.7 * 2_f32.powi(exponent), 0.3];
        Ok(array(shape, draw::elements(u, shape, &palette)?))
    };
    let (a_scale, b_scale) = (scales(u, &a_each)?, scales(u, &b_each)?);
    let y_scale = f32::from(u.arbitrary::<u8>()?) + 0.5;
    let y_zero: u8 = u.arbitrary()?;
    let a_q = Quantized {
        codes: &*a,
        scale: &*a_scale,
        zero_point: &*a_zero,
    };
    let b_q = Quantized {
        codes: &*b,
        scale: &*b_scale,
        zero_point: &*b_zero,
    };
    let y = qlinear_matmul(&a_q, &b_q, y_scale, y_zero).expect("the shapes fit");
    for (index, &got) in y.indexed_iter() {
        let (p, i, j) = (index[0], index[1], index[2]);
        let multiplier = a_scale[at_a(p, i)] * b_scale[at_b(p, j)] / y_scale;
        let product = sums[&index] as f32 * multiplier;
        let expected = (f64::from(product.round_ties_even()) + f64::from(y_zero)).clamp(0.0, 255.0);
        assert_eq!(
            f64::from(got),
            expected,
            "{} · {multiplier:e} + {y_zero}",
            sums[&index]
        );
    }
    Ok(())
}

/// ConvInteger and QLinearConv, of two spatial axes.
fn conv(u: &mut Unstructured<'_>) -> Result<()> {
    let group = u.int_in_range(1..=3)?;
    let (channels, outputs) = (u.int_in_range(1..=3)?, group * u.int_in_range(1..=4)?);
    let input = [
        u.int_in_range(1..=2)?,
        group * channels,
        u.int_in_range(1..=9)?,
        u.int_in_range(1..=9)?,
    ];
    let weights = [
        outputs,
        channels,
        u.int_in_range(1..=4)?,
        u.int_in_range(1..=4)?,
    ];
    let (x, w) = (codes::<u8>(u, &input)?, codes::<i8>(u, &weights)?);
    let small =
        |u: &mut Unstructured<'_>, range: std::ops::RangeInclusive<usize>| -> Result<Vec<usize>> {
            Ok(vec![u.int_in_range(range.clone())?, u.int_in_range(range)?])
        };
    let strides = small(u, 1..=3)?;
    let dilations = small(u, 1..=3)?;
    let pads = [small(u, 0..=3)?, small(u, 0..=3)?].concat();
    let attributes = ConvAttributes {
        auto_pad: AutoPad::NotSet,
        dilations: dilations.clone(),
        group,
        kernel_shape: vec![],
        pads: pads.clone(),
        strides: strides.clone(),
    };
    let each: Vec<usize> = if u.arbitrary()? {
        vec![outputs]
    } else {
        vec![]
    };
    let (x_zero, w_zero): (u8, _) = (u.arbitrary()?, codes::<i8>(u, &each)?);
    let y = conv_integer(&*x, &*w, Some(x_zero), Some(&*w_zero), &attributes);
    let span = |axis: usize| (weights[axis + 2] - 1) * dilations[axis] + 1;
    let padded = |axis: usize| input[axis + 2] + pads[axis] + pads[axis + 2];
    if (0..2).any(|axis| padded(axis) < span(axis)) {
        assert!(y.is_err(), "{input:?} {weights:?} {attributes:?}");
        return Ok(());
    }
    let y = y.expect("the kernel fits");
    let length = |axis: usize| (padded(axis) - span(axis)) / strides[axis] + 1;
    assert_eq!(y.shape(), [input[0], outputs, length(0), length(1)]);
    let zero_of = |m: usize| {
        i64::from(
            w_zero[if each.is_empty() {
                IxDyn(&[])
            } else {
                IxDyn(&[m])
            }],
        )
    };
    let sum = |index: &IxDyn| {
        let (b, m, i, j) = (index[0], index[1], index[2], index[3]);
        let mut sum = 0;
        for c in 0..channels {
            for p in 0..weights[2] {
                for q in 0..weights[3] {
                    let row = (i * strides[0] + p * dilations[0]).checked_sub(pads[0]);
                    let column = (j * strides[1] + q * dilations[1]).checked_sub(pads[1]);
                    let (Some(row), Some(column)) = (row, column) else {
                        continue;
                    };
                    let at = [b, m / (outputs / group) * channels + c, row, column];
                    if let Some(&x) = x.get(IxDyn(&at)) {
                        let weight = i64::from(w[[m, c, p, q]]) - zero_of(m);
                        sum += (i64::from(x) - i64::from(x_zero)) * weight;
                    }
                }
            }
        }
        sum
    };
    for (index, &got) in y.indexed_iter() {
        assert_eq!(
            i64::from(got),
            sum(&index),
            "{index:?} of {input:?} {weights:?} {attributes:?}"
        );
    }
    let one = |x: f32| ArrayD::from_elem(IxDyn(&[]), x);
    let (x_scale, x_zeros) = (one(0.3), ArrayD::from_elem(IxDyn(&[]), x_zero));
    let w_scale = ArrayD::from_elem(IxDyn(&each), 0.7_f32);
    let x_q = Quantized {
        codes: &*x,
        scale: &*x_scale,
        zero_point: &*x_zeros,
    };
    let w_q = Quantized {
        codes: &*w,
        scale: &*w_scale,
        zero_point: &*w_zero,
    };
    let (y_scale, y_zero): (f32, i8) = (f32::from(u.arbitrary::<u8>()?) + 1.0, u.arbitrary()?);
    let bias = ndarray::Array1::from_shape_fn(outputs, |m| m as i32 * 100 - 150);
    let requantized = qlinear_conv(&x_q, &w_q, y_scale, y_zero, Some(&*bias), &attributes)
        .expect("the kernel fits");
    for (index, &got) in requantized.indexed_iter() {
        let sum = y[&index].saturating_add(bias[index[1]]);
        let product = sum as f32 * (0.3_f32 * 0.7 / y_scale);
        let expected =
            (f64::from(product.round_ties_even()) + f64::from(y_zero)).clamp(-128.0, 127.0);
        assert_eq!(f64::from(got), expected, "{index:?}");
    }
    Ok(())
}
