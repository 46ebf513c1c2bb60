//! How much of a matrix is lost at each number of bits: pychop's documented example, in Rust.
//!
//! A 500 × 500 matrix of normal random numbers is quantized and dequantized, and the Frobenius
//! norm of the difference printed, for 2 to 16 bits.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use chopi::Chopi;
use ndarray::Array2;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

fn main() -> chopi::Result<()> {
    let mut rng = StdRng::seed_from_u64(0);
    let x = Array2::<f64>::from_shape_simple_fn((500, 500), || StandardNormal.sample(&mut rng));
    println!(
        "x: {} x {}, Frobenius norm {:.4}\n",
        x.nrows(),
        x.ncols(),
        frobenius_norm(&x)
    );

    println!("bits   asymmetric    symmetric   (norm of x - dequantized)");
    for bits in 2..=16 {
        let mut norms = [0.0; 2];
        for (norm, symmetric) in norms.iter_mut().zip([false, true]) {
            let mut chopi = Chopi::builder()
                .num_bits(bits)
                .symmetric(symmetric)
                .build()?;
            let q = chopi.quantize(&x)?; // integers
            let y = chopi.dequantize(&q)?; // f64 again
            *norm = frobenius_norm(&(&x - &y));
        }
        println!("{bits:4} {:12.6} {:12.6}", norms[0], norms[1]);
    }
    Ok(())
}

fn frobenius_norm(x: &Array2<f64>) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>().sqrt()
}
