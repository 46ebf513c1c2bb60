//! A checkpoint of a training, well made or not: what is read is the same when it is written and read again, and a
//! file that is refused changes nothing.
//!
//! The input is a byte of options and the file: the header as text up to a zero byte, then data.

#![no_main]

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use chopi::Chopi;
use chopi::candle::nn::{
    Adam, AdamConfig, QatLinear, load_checkpoint, load_float, save_checkpoint,
};
use chopi::training::{FakeQuantizer, Learning, QatConfig, Quantizers, RangeObserver};
use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, safetensors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [options, rest @ ..] = input else { return };
    let (header, data) = match rest.iter().position(|&byte| byte == 0) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    let bytes = match options & 1 {
        1 => rest.to_vec(),
        _ => safetensors(header, data),
    };
    let folder = Folder::new();
    let path = folder.write("in.safetensors", &bytes);
    let learned = options & 2 != 0;
    let mut training = Training::new(learned);
    let before = training.state();
    if options & 4 != 0 {
        if load_float(&path, &training.variables, &training.quantizers).is_err() {
            assert_eq!(
                training.state(),
                before,
                "a file that is refused changes nothing"
            );
        }
        return;
    }
    let moments = options & 8 == 0;
    if training.load(&path, moments).is_err() {
        assert_eq!(
            training.state(),
            before,
            "a file that is refused changes nothing"
        );
        return;
    }
    let again = folder.path("again.safetensors");
    training.save(&again, moments);
    let mut other = Training::new(learned);
    other.load(&again, moments).expect("it was written");
    let mut state = other.state();
    if planted(moments && learned) {
        state.steps += 1;
    }
    assert_eq!(state, training.state(), "it is not the same");
});

/// A layer, what it learns, and its optimizer.
struct Training {
    variables: VarMap,
    quantizers: Quantizers,
    adam: Adam,
}

/// What a checkpoint keeps, but for the moments, which a further step would show.
#[derive(Debug, PartialEq)]
struct State {
    /// The bits of each variable.
    variables: BTreeMap<String, Vec<u32>>,
    quantizers: String,
    steps: u32,
}

impl Training {
    fn new(learned: bool) -> Self {
        let weights = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
        let weights = FakeQuantizer::new(weights.build().expect("a scheme"));
        let activations = FakeQuantizer::new(Chopi::new(8).expect("a scheme"));
        let config = QatConfig::new().weights(weights.observer(RangeObserver::Latest));
        let config = match learned {
            true => config.activations(activations.learning(Learning::lsq())),
            false => config.activations(activations),
        };
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        QatLinear::new(3, 2, &config, vb.pp("fc"), &quantizers).expect("a layer");
        for (i, (_, variable)) in variables.data().lock().unwrap().iter().enumerate() {
            let ones = variable.ones_like().expect("a tensor");
            let value = (ones * (i as f64 + 0.5)).expect("a tensor");
            variable.set(&value).expect("of its shape");
        }
        let adam = Adam::new(&variables, &quantizers, AdamConfig::default()).expect("Adam");
        Self {
            variables,
            quantizers,
            adam,
        }
    }

    fn load(&mut self, path: &Path, moments: bool) -> candle_core::Result<()> {
        let adam = moments.then_some(&mut self.adam);
        load_checkpoint(path, &mut self.variables, &self.quantizers, adam)
    }

    fn save(&self, path: &Path, moments: bool) {
        let adam = moments.then_some(&self.adam);
        save_checkpoint(path, &self.variables, &self.quantizers, adam).expect("it is written");
    }

    fn state(&self) -> State {
        let bits = |variable: &candle_core::Var| {
            let values = variable.flatten_all().expect("a tensor");
            let values: Vec<f32> = values.to_vec1().expect("floats");
            values.into_iter().map(f32::to_bits).collect()
        };
        let variables = self.variables.data().lock().unwrap();
        let states = self.quantizers.states();
        State {
            variables: variables
                .iter()
                .map(|(name, v)| (name.clone(), bits(v)))
                .collect(),
            quantizers: serde_json::to_string(&states).expect("it is written"),
            steps: self.adam.steps(),
        }
    }
}
