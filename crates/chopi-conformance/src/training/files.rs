//! Checkpoints, and weights of networks in floats.

use std::collections::BTreeMap;
use std::path::Path;

use chopi_core::training::{FakeQuantizer, QatConfig};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::layers::config;
use super::{LAYERS, Layer, Trainee, network, ramp, train};

/// A training that stops at a checkpoint and goes on has the bits of one that does not stop.
pub fn training_goes_on_from_a_checkpoint_to_the_bit<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for layer in LAYERS {
        for learned in [false, true] {
            let make = || network::<T>(layer, &config(learned));
            let (mut whole, mut first, mut second) = (make(), make(), make());
            train(&mut whole, layer, 0..20);
            train(&mut first, layer, 0..10);
            first.save(&path, true).unwrap();
            second.load(&path, true).unwrap();
            assert_eq!(
                (second.steps(), second.variables()),
                (10, first.variables())
            );
            train(&mut second, layer, 10..20);
            assert_eq!(second.variables(), whole.variables(), "{layer:?} {learned}");
            assert_eq!(second.quantizers().states(), whole.quantizers().states());
            assert_ne!(first.variables(), whole.variables());
            let learns = first.variables().keys().any(|name| name.ends_with("scale"));
            assert_eq!(learns, learned);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }
}

/// Where a checkpoint cannot be written, nothing is left of it, and what has its name is as it was.
pub fn a_checkpoint_that_cannot_be_written_leaves_nothing<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    std::fs::create_dir(&path).unwrap();
    let trained = network::<T>(LAYERS[0], &config(true));
    let error = trained.save(&path, true).unwrap_err().to_string();
    assert!(error.contains("checkpoint.safetensors"), "{error}");
    assert!(path.is_dir());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

/// A checkpoint has each variable under its name, what Adam knows of it under `adam.mean.` and `adam.square.`,
/// and the rest in its metadata: the layout is a contract with files that were written before.
pub fn a_checkpoint_has_its_layout<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let layer = LAYERS[0];
    let mut trained = network::<T>(layer, &config(true));
    train(&mut trained, layer, 0..5);
    trained.save(&path, true).unwrap();
    let data = std::fs::read(&path).unwrap();
    let (file, (_, header)) = (
        SafeTensors::deserialize(&data).unwrap(),
        SafeTensors::read_metadata(&data).unwrap(),
    );
    let metadata = header.metadata().as_ref().unwrap();
    assert_eq!(metadata.len(), 2);
    assert_eq!(metadata["chopi.adam.step"], "5");
    let states = serde_json::from_str::<BTreeMap<String, FakeQuantizer>>;
    let states = states(&metadata["chopi.quantizers"]).unwrap();
    assert_eq!(states, trained.quantizers().states());
    let variables = trained.variables();
    assert_eq!(file.len(), 3 * variables.len());
    for (name, values) in variables {
        let saved = file.tensor(&name).unwrap();
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|&v| (v as f32).to_le_bytes())
            .collect();
        assert_eq!((saved.dtype(), saved.data()), (Dtype::F32, &*bytes));
        for moment in ["mean", "square"] {
            let moment = file.tensor(&format!("adam.{moment}.{name}")).unwrap();
            assert_eq!(
                (moment.dtype(), moment.shape()),
                (Dtype::F32, saved.shape())
            );
        }
    }
}

type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

fn write(tensors: &Tensors, path: &Path) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// The float weights of a file, whatever their type, get into a network whose scales are learned too, and the
/// training is that of a network with those weights; files that do not fit are refused.
pub fn training_starts_from_the_weights_of_a_network_in_floats<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("float.safetensors");
    let (layer, bytes) = (LAYERS[0], |values: Vec<f64>| {
        values.into_iter().flat_map(f64::to_le_bytes)
    });
    let narrow = |values: Vec<f64>| values.into_iter().flat_map(|v| (v as f32).to_le_bytes());
    let of_floats = Tensors::from([
        (
            "layer.weight",
            (Dtype::F64, vec![4, 10], bytes(ramp(40, 1.0)).collect()),
        ),
        (
            "layer.bias",
            (Dtype::F32, vec![4], narrow(ramp(4, 0.0)).collect()),
        ),
        (
            "head.weight",
            (Dtype::F32, vec![2, 4], narrow(ramp(8, 0.0)).collect()),
        ),
    ]);
    for learned in [false, true] {
        write(&of_floats, &path);
        let mut expected = network::<T>(layer, &config(learned));
        let mut trained = network::<T>(layer, &config(learned));
        for network in [&expected, &trained] {
            network.set("layer.weight", &ramp(40, 1.0));
            network.set("layer.bias", &ramp(4, 0.0));
        }
        trained.set("layer.weight", &[1.0; 40]);
        trained.set("layer.bias", &[1.0; 4]);
        trained.load_float(&path).unwrap();
        assert_eq!(trained.variables(), expected.variables());
        train(&mut expected, layer, 0..5);
        train(&mut trained, layer, 0..5);
        assert_eq!(trained.variables(), expected.variables());
        assert_eq!(
            trained.quantizers().states(),
            expected.quantizers().states()
        );

        let refused = |weight: Option<(Dtype, Vec<usize>, Vec<u8>)>, text: &str| {
            let mut tensors = of_floats.clone();
            match weight {
                Some(weight) => tensors.insert("layer.weight", weight),
                None => tensors.remove("layer.weight"),
            };
            write(&tensors, &path);
            let error = trained.load_float(&path).unwrap_err();
            assert!(error.contains(text), "{error}");
            assert_eq!(trained.variables(), expected.variables());
        };
        refused(
            Some((Dtype::F32, vec![4, 9], vec![0; 144])),
            "layer.weight is F32 [4, 9], expected floats of shape [4, 10]",
        );
        refused(
            Some((Dtype::I64, vec![4, 10], vec![0; 320])),
            "layer.weight is I64 [4, 10], expected floats",
        );
        refused(None, "it has no tensor layer.weight");
    }
}

/// A checkpoint with other fake-quantizers or of other shapes says so.
pub fn a_checkpoint_of_another_network_is_refused<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let refused = |saved: &T, into: &mut T, text: &str| {
        saved.save(&path, true).unwrap();
        let before = (into.variables(), into.quantizers().states());
        let error = into.load(&path, true).unwrap_err();
        assert!(error.contains(text), "{error}");
        assert_eq!((into.variables(), into.quantizers().states()), before);
    };
    let layer = LAYERS[0];
    let plain = network::<T>(layer, &QatConfig::new());
    let mut quantized = network::<T>(layer, &config(false));
    refused(&plain, &mut quantized, "layer.activation_quantizer");
    let wider = Layer {
        outputs: 5,
        ..layer
    };
    let wider = network::<T>(wider, &config(false));
    refused(&wider, &mut quantized, "is F32 [5], expected F32 [4]");
}

/// A checkpoint without the moments of the optimizer does not change a network that wants them.
pub fn a_checkpoint_that_lacks_something_changes_nothing<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let layer = LAYERS[0];
    let mut saved = network::<T>(layer, &config(true));
    train(&mut saved, layer, 0..5);
    saved.save(&path, false).unwrap();
    let mut other = network::<T>(layer, &config(true));
    train(&mut other, layer, 0..2);
    let before = (other.variables(), other.quantizers().states());
    let error = other.load(&path, true).unwrap_err();
    assert!(
        error.contains("it has no chopi.adam.step: is it a checkpoint?"),
        "{error}"
    );
    assert_eq!((other.variables(), other.quantizers().states()), before);
    assert_eq!(other.steps(), 2);
    other.load(&path, false).unwrap();
    assert_eq!(other.variables(), saved.variables());
}

/// A file that is cut short, is no safetensors file, or is not there gives an error with its name.
pub fn a_file_that_is_none_is_refused<T: Trainee>() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut trained = network::<T>(LAYERS[0], &config(true));
    trained.save(&path, true).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let before = trained.variables();
    let cut = (0..whole.len())
        .step_by(97)
        .map(|length| whole[..length].to_vec());
    for data in cut.chain([vec![0xff; 64], b"not a checkpoint".to_vec()]) {
        std::fs::write(&path, data).unwrap();
        for error in [trained.load(&path, true), trained.load_float(&path)] {
            let error = error.unwrap_err();
            assert!(error.contains("checkpoint.safetensors"), "{error}");
        }
    }
    std::fs::remove_file(&path).unwrap();
    assert!(
        trained
            .load(&path, true)
            .unwrap_err()
            .contains("checkpoint.safetensors")
    );
    assert!(
        trained
            .save(&folder.path().join("none/file"), true)
            .is_err()
    );
    assert_eq!(trained.variables(), before);
}
