//! A linear layer with 8-bit weights and activations, on candle; `ndarray_quantize.rs` is the same
//! program on ndarray.
//!
//! ```sh
//! cargo run --release --example candle_quantize --features candle
//! ```

use candle_core::{DType, Device, Tensor};
use chopi::Chopi;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::Cpu;
    let index = |rows: usize| Tensor::arange(0_u32, 64 * rows as u32, &device)?.reshape((rows, 64));
    let weight = (index(16)?.to_dtype(DType::F32)? * f64::from(0.37_f32))?.sin()?;
    let input = ((index(4)?.to_dtype(DType::F32)? * f64::from(0.11_f32))?.cos()? + 0.5)?;

    // Weights: symmetric, a scale for each output channel. Activations: asymmetric, one scale.
    let mut weights = Chopi::builder()
        .num_bits(8)
        .symmetric(true)
        .per_channel(0)
        .build()?;
    let mut activations = Chopi::new(8)?;
    let weight_codes = weights.quantize(&weight)?;
    let input_codes = activations.quantize(&input)?;
    println!(
        "weights: {} codes of type {:?}",
        weight_codes.elem_count(),
        weight_codes.dtype()
    );
    println!(
        "activations: {} codes of type {:?}",
        input_codes.elem_count(),
        input_codes.dtype()
    );
    println!(
        "activation scale {:?}, zero point {:?}",
        activations.scale(),
        activations.zero_point()
    );
    println!(
        "first codes: {:?}",
        input_codes.get(0)?.narrow(0, 0, 8)?.to_vec1::<u8>()?
    );

    let exact = input.matmul(&weight.t()?)?;
    let quantized = activations
        .dequantize(&input_codes)?
        .matmul(&weights.dequantize(&weight_codes)?.t()?)?;
    let norm = |x: &Tensor| x.sqr()?.sum_all()?.sqrt()?.to_scalar::<f32>();
    let relative = norm(&(&exact - &quantized)?)? / norm(&exact)?;
    println!("relative error of the layer's output: {relative:.5}");
    Ok(())
}
