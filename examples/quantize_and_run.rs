//! Quantizes a decoder like Llama to 4 bits, saves it, loads it again, and writes what follows a prompt.
//!
//! ```sh
//! cargo run --release --example quantize_and_run --features models -- "$(cargo xtask model smollm2)"
//! ```

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use chopi::models::{Scheme, load};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1);
    let folder = folder.context("usage: quantize_and_run MODEL, the folder of a float model")?;
    let saved = std::env::temp_dir().join(format!("quantized-{}", std::process::id()));
    load(&folder)?.quantize(&Scheme::new(4))?.save(&saved)?;

    let model = load(&saved)?;
    print!("Once upon a time");
    model.generate_with("Once upon a time", 40, |piece| {
        print!("{piece}");
        // Text that cannot be shown at once is shown later.
        let _ = stdout().flush();
        Ok(())
    })?;
    println!();
    Ok(std::fs::remove_dir_all(&saved)?)
}
