//! Shapes of more elements than memory holds, or of none along a huge axis: an error, or an empty result,
//! and neither a panic nor an abort nor a loop without end.

use chopi::matmul::conv::{ConvGeometry, ConvInput, ConvParams, PackedConv};
use chopi::matmul::emulate::{self, Accumulator, Overflow};
use chopi::matmul::requantize::OutputCodes;
use chopi::matmul::{
    Activations, CodeSlice, GroupedMatrix, IntegerOnlyLinear, Matrix, Order, PackedMatrix,
    QuantizedLinear,
};
use chopi::ndarray::onnx::{
    DequantizeAttributes, QuantizeAttributes, dequantize_linear, matmul_integer, quantize_linear,
};
use chopi::observer::{Histograms, Ranges};
use chopi::{Calibration, Chopi, Convention, Error, Granularity, NanPolicy, QParams};
use ndarray::{Array1, Array2, ArrayD, IxDyn, arr0, array};

const HUGE: [usize; 3] = [1 << 44, 1 << 60, usize::MAX];

fn params(shape: &[usize], groups: usize) -> QParams {
    let scheme = Chopi::builder().num_bits(8).scheme().unwrap();
    let shape = shape.to_vec();
    let (scale, zeros) = (vec![0.5; groups], vec![3; groups]);
    QParams::new(
        scheme,
        Convention::CHOPI,
        chopi::backend::FloatType::F32,
        shape,
        scale,
        zeros,
    )
    .unwrap()
}

#[test]
fn views_that_repeat_their_elements_beyond_memory() {
    let one = array![1.5_f32];
    let huge = one.broadcast(1 << 60).unwrap();
    let memory = |error: Error| {
        let text = error.to_string();
        assert!(matches!(error, Error::Memory { .. }), "{text}");
        assert!(text.contains(&format!("{} bytes", 1_u64 << 62)), "{text}");
    };
    let params = params(&[1], 1);
    memory(params.quantize(&huge).unwrap_err());
    memory(params.fake_quantize(&huge).unwrap_err());
    memory(params.fake_quantize_with_mask(&huge).unwrap_err());
    memory(Ranges::observe(&huge, Granularity::PerTensor).unwrap_err());
    memory(Histograms::observe(&huge, Granularity::PerTensor).unwrap_err());
    memory(chopi::metrics::quantization_metrics(&huge, &params).unwrap_err());
    let mut chopi = Chopi::builder()
        .nan_policy(NanPolicy::ZeroPoint)
        .build()
        .unwrap();
    memory(chopi.quantize(&huge).unwrap_err());
    memory(chopi.fake_quantize(&huge).unwrap_err());
    assert!(chopi.params().is_none());
    let scheme = Chopi::builder().scheme().unwrap();
    let calibration = Calibration::MeanSquaredError;
    memory(
        calibration
            .observe(&huge, &scheme, &Convention::CHOPI)
            .unwrap_err(),
    );

    let attributes = QuantizeAttributes::default();
    let codes: Result<Array1<u8>, _> = quantize_linear(&huge, &arr0(0.5_f32), None, &attributes);
    assert!(codes.unwrap_err().to_string().contains("bytes"));
    let one = array![3_u8];
    let huge = one.broadcast(1 << 60).unwrap();
    let groups = DequantizeAttributes::default();
    let values: Result<Array1<f32>, _> = dequantize_linear(&huge, &arr0(0.5_f32), None, &groups);
    assert!(values.unwrap_err().to_string().contains("bytes"));
}

#[test]
fn tensors_without_elements_whatever_their_other_axes() {
    // ndarray itself has no more than isize::MAX elements along the axes that are not empty.
    for rows in [1 << 44, 1 << 60] {
        let x = Array2::<f32>::zeros((rows, 0));
        let params = params(&[1], 1);
        assert_eq!(params.quantize(&x).unwrap().shape(), [rows, 0]);
        assert_eq!(params.fake_quantize(&x).unwrap().shape(), [rows, 0]);
        for granularity in [Granularity::PerTensor, Granularity::PerChannel { axis: 0 }] {
            let observed = Ranges::observe(&x, granularity);
            assert!(matches!(observed, Err(Error::Empty { .. })));
        }
        let other = QParams::from_ranges(
            &Ranges::observe(&array![[1.0_f32]], Granularity::PerChannel { axis: 0 }).unwrap(),
            &Chopi::builder().per_channel(0).scheme().unwrap(),
            &Convention::CHOPI,
        );
        assert!(matches!(
            other.unwrap().quantize(&x),
            Err(Error::ParamsShape { .. })
        ));
    }
}

#[test]
fn matrices_without_codes() {
    for huge in HUGE {
        let none: CodeSlice<'_> = [0_u8; 0][..].into();
        // Each column has a zero point and a sum, and these are too many.
        for order in [Order::DepthMajor, Order::ColumnMajor] {
            let error = PackedMatrix::new(none, 0, huge, order, &[7]).unwrap_err();
            assert!(error.to_string().contains("bytes"), "{error}");
            let deep = PackedMatrix::new(none, huge, 0, order, &[7]).unwrap();
            let left = Matrix::new(none, 0, huge, &[1]).unwrap();
            deep.multiply(&left, &mut []).unwrap();
        }
        let narrow = PackedMatrix::new(none, 0, 0, Order::DepthMajor, &[7]).unwrap();
        let left = Matrix::new(none, huge, 0, &[1]).unwrap();
        narrow.multiply(&left, &mut []).unwrap();

        let matrix = |shape| emulate::Matrix {
            codes: chopi::backend::IntSlice::U8(&[]),
            shape,
            range: (0, 255),
            zero_points: &[3],
        };
        let accumulator = Accumulator::new(32, Overflow::Wrap).unwrap();
        let product = |a, b| emulate::matmul(&matrix(a), &matrix(b), None, accumulator);
        assert!(product((huge, 0), (0, 1)).is_err());
        assert!(product((huge, 0), (0, huge)).is_err());
        assert!(product((0, huge), (huge, 0)).unwrap().is_empty());
        assert!(product((huge, 0), (0, 0)).unwrap().is_empty());
    }
    let (a, b) = (
        Array2::<u8>::zeros((1 << 44, 0)),
        Array2::<i8>::zeros((0, 1)),
    );
    let product: Result<ArrayD<i32>, _> = matmul_integer(&a, &b, None, None);
    let error = product.unwrap_err().to_string();
    assert!(error.contains(&format!("{} bytes", 1_u64 << 46)), "{error}");
    let none = Array2::<i8>::zeros((0, 0));
    let product: ArrayD<i32> = matmul_integer(&a, &none, None, None).unwrap();
    assert_eq!(product.shape(), [1 << 44, 0]);
}

#[test]
fn layers_without_inputs() {
    let weights = params(&[1], 1)
        .quantize(&Array2::<f32>::zeros((4, 0)))
        .unwrap();
    let input = params(&[1], 1);
    let layer = IntegerOnlyLinear::new(&weights, &input, None, &input, 0.5).unwrap();
    let float = QuantizedLinear::new(&weights, &input, Activations::Static(input.clone())).unwrap();
    for rows in [0, 3] {
        let x = Array2::<f32>::zeros((rows, 0));
        let codes = input.quantize(&x).unwrap();
        let y = layer.forward(&codes, OutputCodes::new(9_u8)).unwrap();
        assert_eq!(y, vec![9; 4 * rows]);
        assert_eq!(layer.forward_wide(&codes).unwrap(), vec![0; 4 * rows]);
        assert_eq!(float.forward(&x).unwrap(), Array2::<f32>::zeros((rows, 4)));
    }
    // More rows than there are numbers, and outputs than there is memory.
    for shape in [
        &[1 << 30, 1 << 30, 0, 0][..],
        &[1 << 31, 1 << 31, 0],
        &[1 << 60, 0],
    ] {
        let x = ArrayD::<f32>::zeros(IxDyn(shape));
        let codes = input.quantize(&x).unwrap();
        let y = layer.forward(&codes, OutputCodes::new(9_u8));
        let sums = layer.forward_wide(&codes);
        let floats = float.forward(&x);
        match shape.len() {
            4 => assert!(
                y.unwrap().is_empty() && sums.unwrap().is_empty() && floats.unwrap().is_empty()
            ),
            _ => {
                let errors = [y.unwrap_err(), sums.unwrap_err(), floats.unwrap_err()];
                for error in errors.map(|error| error.to_string()) {
                    assert!(error.contains("bytes"), "{error}");
                }
            }
        }
    }
}

#[test]
fn convolutions_without_channels_or_images() {
    let huge = 1 << 60;
    let none: CodeSlice<'_> = [0_u8; 0][..].into();
    // No output channel, in as many groups as there are numbers.
    let params = ConvParams {
        groups: huge,
        ..ConvParams::new(1)
    };
    assert!(PackedConv::new(none, &[0, 0, 1], params.clone(), &[0]).is_err());
    assert!(ConvGeometry::new(&[1, 0, 1], &[0, 0, 1], &params).is_err());
    // As many images, none of which has a channel.
    let conv = PackedConv::new(none, &[0, 0, 1], ConvParams::new(1), &[0]).unwrap();
    let input = ConvInput {
        codes: none,
        shape: &[huge, 0, 1],
        zero_point: 0,
    };
    conv.convolve(&input, &mut []).unwrap();
    let tensor = emulate::Tensor {
        codes: chopi::backend::IntSlice::U8(&[]),
        range: (0, 255),
        zero_points: &[0],
    };
    let geometry = conv.geometry(&[huge, 0, 1]).unwrap();
    let sums = emulate::conv(
        &tensor,
        &tensor,
        None,
        &geometry,
        Accumulator::new(32, Overflow::Wrap).unwrap(),
    );
    assert!(sums.unwrap().is_empty());
}

#[test]
fn grouped_matrices_without_rows_or_columns() {
    for huge in HUGE {
        let grouped = |shape| GroupedMatrix::new(&[0_u8; 0][..], (0, 15), shape, 8, &[], &[]);
        let columns = grouped((huge, 0)).unwrap();
        assert_eq!((columns.columns(), columns.depth()), (huge, 0));
        let rows = grouped((0, huge)).unwrap();
        assert_eq!((rows.columns(), rows.depth()), (0, huge));
        let error = grouped((huge, huge)).unwrap_err().to_string();
        assert!(error.contains("the right matrix"), "{error}");
        // An empty product of many rows.
        let left = Matrix::new(&[0_u8; 0][..], huge, 0, &[0]).unwrap();
        let none = grouped((0, 0)).unwrap();
        let scales = [1.0];
        none.multiply_dequantized(&left, &scales, None, None, &mut [])
            .unwrap();
    }
}
