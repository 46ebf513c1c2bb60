//! Quantization-aware training with candle: a fully connected 64–64–10 network on real handwritten
//! digits; `qat_tch.rs` is the same program on libtorch.
//!
//! ```sh
//! cargo run --release --example qat_candle --features candle -- --weights 4 --activations 4
//! ```

mod digits;
#[path = "digits/candle.rs"]
mod network;

use anyhow::Result;
use chopi::training::QatConfig;
use clap::Parser;
use digits::Args;
use network::{Network, tensors};

/// Gives a network the values of another one's variables.
fn take_variables(network: &mut Network, other: &Network) -> Result<()> {
    let data = other.variables.data().lock().expect("nothing panicked");
    let values = data.iter().map(|(name, var)| (name, var.as_tensor()));
    Ok(network.variables.set(values)?)
}

fn main() -> Result<()> {
    let args = Args::parse();
    let data = digits::load()?;

    let mut float = Network::new(&QatConfig::new(), args.seed)?;
    float.train("float", &data, &args)?;

    // Quantized after training: the fake-quantizers see the training digits once.
    let mut after = Network::new(&args.observed()?, args.seed)?;
    take_variables(&mut after, &float)?;
    after.forward(&tensors(&data.0)?.0, true)?;

    let mut trained = Network::new(&args.config()?, args.seed)?;
    trained.train("qat", &data, &args)?;

    let test = &data.1;
    digits::print_results(
        &args,
        [
            float.accuracy(test)?,
            after.accuracy(test)?,
            trained.accuracy(test)?,
        ],
    );
    Ok(())
}
