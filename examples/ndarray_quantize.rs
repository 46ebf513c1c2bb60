//! A linear layer with 8-bit weights and activations, on ndarray.
//!
//! `candle_quantize.rs` and `tch_quantize.rs` are the same program in the other two frameworks; all
//! three print the same numbers.
//!
//! ```sh
//! cargo run --release --example ndarray_quantize
//! ```

use chopi::Chopi;
use ndarray::Array2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let weight = Array2::from_shape_fn((16, 64), |(i, j)| ((i * 64 + j) as f32 * 0.37).sin());
    let input = Array2::from_shape_fn((4, 64), |(i, j)| ((i * 64 + j) as f32 * 0.11).cos() + 0.5);

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
        "weights: {} codes of type {}",
        weight_codes.len(),
        weight_codes.int_type()
    );
    println!(
        "activations: {} codes of type {}",
        input_codes.len(),
        input_codes.int_type()
    );
    println!(
        "activation scale {:?}, zero point {:?}",
        activations.scale(),
        activations.zero_point()
    );
    println!(
        "first codes: {:?}",
        input_codes.to_i64().iter().take(8).collect::<Vec<_>>()
    );

    let exact = input.dot(&weight.t());
    let quantized = activations
        .dequantize(&input_codes)?
        .dot(&weights.dequantize(&weight_codes)?.t());
    let difference = &exact - &quantized;
    let relative = difference.pow2().sum().sqrt() / exact.pow2().sum().sqrt();
    println!("relative error of the layer's output: {relative:.5}");
    Ok(())
}
