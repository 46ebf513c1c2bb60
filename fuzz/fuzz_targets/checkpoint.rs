//! A checkpoint of a training, well made or not: what is read is the same when it is written and read again, and a
//! file that is refused changes nothing.
//!
//! The input is a byte of options and the file: the header as text up to a zero byte, then data.

#![no_main]

use std::collections::BTreeMap;

use candle_core::Var;
use chopi::candle::nn::load_float;
use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, safetensors};
use chopi_fuzz::training::Training;
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
    let mut training = Training::new(3, learned);
    let before = state(&training);
    if options & 4 != 0 {
        if load_float(&path, &training.variables, &training.quantizers).is_err() {
            assert_eq!(
                state(&training),
                before,
                "a file that is refused changes nothing"
            );
        }
        return;
    }
    let moments = options & 8 == 0;
    if training.load(&path, moments).is_err() {
        assert_eq!(
            state(&training),
            before,
            "a file that is refused changes nothing"
        );
        return;
    }
    let again = folder.path("again.safetensors");
    training.save(&again, moments).expect("it is written");
    let mut other = Training::new(3, learned);
    other.load(&again, moments).expect("it was written");
    let mut found = state(&other);
    if planted(moments && learned) {
        found.steps += 1;
    }
    assert_eq!(found, state(&training), "it is not the same");
});

/// What a checkpoint keeps, but for the moments, which a further step would show.
#[derive(Debug, PartialEq)]
struct State {
    /// The bits of each variable.
    variables: BTreeMap<String, Vec<u32>>,
    quantizers: String,
    steps: u32,
}

fn state(training: &Training) -> State {
    let bits = |variable: &Var| {
        let values = variable.flatten_all().expect("a tensor");
        let values: Vec<f32> = values.to_vec1().expect("floats");
        values.into_iter().map(f32::to_bits).collect()
    };
    let variables = training.variables.data().lock().expect("one thread");
    let variables = variables.iter().map(|(name, v)| (name.clone(), bits(v)));
    let states = training.quantizers.states();
    State {
        variables: variables.collect(),
        quantizers: serde_json::to_string(&states).expect("it is written"),
        steps: training.adam.steps(),
    }
}
