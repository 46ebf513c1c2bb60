//! Quantizes a sentence encoder like BERT to 8 bits, and compares its embeddings with the float model's.
//!
//! ```sh
//! cargo run --release --example quantize_and_embed --features models -- "$(cargo xtask model)"
//! ```

use anyhow::{Context, Result};
use chopi::models::{Scheme, cosine, load};

const SENTENCES: [&str; 4] = [
    "A cat sat by the window and watched the snow fall.",
    "How do I reset the password of my e-mail account?",
    "Quantization stores the weights of a network in fewer bits.",
    "Astronomers found a planet that orbits two stars.",
];

fn main() -> Result<()> {
    let folder = std::env::args().nth(1);
    let folder = folder.context("usage: quantize_and_embed MODEL, the folder of a float model")?;
    let float = load(&folder)?;
    let integer = load(&folder)?.quantize(&Scheme::new(8))?;

    let (of_float, of_integer) = (float.embed(&SENTENCES)?, integer.embed(&SENTENCES)?);
    for ((a, b), sentence) in of_float.iter().zip(&of_integer).zip(SENTENCES) {
        println!("cosine {:.5}: {sentence}", cosine(a, b));
    }
    Ok(())
}
