//! A linear layer with 8-bit weights and activations, on libtorch; `ndarray_quantize.rs` is the same
//! program on ndarray.
//!
//! ```sh
//! cargo run --release --example tch_quantize --features tch
//! ```

use chopi::Chopi;
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let index = |rows: i64| Tensor::arange(64 * rows, (Kind::Float, Device::Cpu)).view([rows, 64]);
    let weight = (index(16) * f64::from(0.37_f32)).sin();
    let input = (index(4) * f64::from(0.11_f32)).cos() + 0.5;

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
        weight_codes.numel(),
        weight_codes.kind()
    );
    println!(
        "activations: {} codes of type {:?}",
        input_codes.numel(),
        input_codes.kind()
    );
    println!(
        "activation scale {:?}, zero point {:?}",
        activations.scale(),
        activations.zero_point()
    );
    let first: Vec<u8> = input_codes.get(0).narrow(0, 0, 8).try_into()?;
    println!("first codes: {first:?}");

    let exact = input.matmul(&weight.tr());
    let quantized = activations
        .dequantize(&input_codes)?
        .matmul(&weights.dequantize(&weight_codes)?.tr());
    let relative = (&exact - &quantized).norm() / exact.norm();
    println!(
        "relative error of the layer's output: {:.5}",
        relative.double_value(&[])
    );
    Ok(())
}
