//! A plan of bits for each tensor, given to `chopi quantize --bits-from`.

#![no_main]

use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, model, succeeds, writes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let folder = Folder::new();
    let model = folder.write("model.safetensors", &model());
    let plan = folder.write("plan.json", input);
    let quantize = [
        "quantize",
        "--quiet",
        "--threads",
        "1",
        "--bits-from",
        plan.to_str().unwrap(),
    ];
    if writes(&folder, &quantize, &[&model], "q.safetensors") {
        assert!(succeeds(
            &["inspect", "--json"],
            &[&folder.path("q.safetensors")]
        ));
        let plan: serde_json::Value = serde_json::from_slice(input).expect("a plan is JSON");
        let bits = plan
            .as_object()
            .expect("a plan is an object")
            .values()
            .map(|bits| bits.as_u64());
        for bits in bits {
            assert!(
                bits.is_some_and(|b| (2..=32).contains(&b) && !planted(b % 2 == 1)),
                "{plan}"
            );
        }
    }
});
