//! Quantization-aware training with candle: a fully connected 64–64–10 network on real handwritten
//! digits; `qat_tch.rs` is the same program on libtorch.
//!
//! ```sh
//! cargo run --release --example qat_candle --features candle -- --weights 4 --activations 4
//! ```

mod digits;
#[path = "digits/fully_connected.rs"]
mod fully_connected;
#[path = "digits/candle.rs"]
mod training;

use anyhow::Result;
use clap::Parser;
use digits::Args;
use fully_connected::FullyConnected;

fn main() -> Result<()> {
    training::compare::<FullyConnected>(&Args::parse())
}
