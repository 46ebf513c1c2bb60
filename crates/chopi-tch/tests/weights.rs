//! A model of tch whose weights are quantized without its knowing.

use chopi_core::model::WeightQuantizer;
use chopi_core::{Calibration, Chopi};
use chopi_tch::quantize_variables;
use tch::nn::{Linear, Module, VarStore};
use tch::{Device, Kind, Tensor, nn};

struct Network {
    hidden: Linear,
    head: Linear,
}

impl Network {
    fn new(variables: &VarStore) -> Self {
        let root = variables.root();
        Self {
            hidden: nn::linear(&root / "encoder" / "hidden", 16, 12, Default::default()),
            head: nn::linear(&root / "head", 12, 3, Default::default()),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.head.forward(&self.hidden.forward(x).relu())
    }
}

fn scheme() -> chopi_core::Builder {
    Chopi::builder().num_bits(3).symmetric(true).per_channel(0)
}

#[test]
fn its_output_is_that_of_weights_quantized_by_hand() {
    for kind in [Kind::Float, Kind::Double] {
        tch::manual_seed(3);
        let mut variables = VarStore::new(Device::Cpu);
        let network = Network::new(&variables);
        variables.set_kind(kind);
        let x = Tensor::randn([5, 16], (kind, Device::Cpu));
        let float = network.forward(&x);

        let mut chopi = scheme().build().unwrap();
        let hidden = chopi.fake_quantize(&network.hidden.ws.detach()).unwrap();
        let by_hand = x.linear(&hidden, network.hidden.bs.as_ref()).relu();
        let by_hand = network.head.forward(&by_hand);

        let weights = WeightQuantizer::new(scheme(), Calibration::MinMax).unwrap();
        quantize_variables(&variables, &weights).unwrap();
        let quantized = network.forward(&x);
        assert!(quantized.equal(&by_hand) && !quantized.equal(&float));
        let done = weights.quantized();
        // The head is left alone by default.
        assert_eq!(done.keys().collect::<Vec<_>>(), ["encoder.hidden.weight"]);
        assert_eq!(Some(&done["encoder.hidden.weight"].params), chopi.params());
        // It is a variable as before.
        assert!(network.hidden.ws.requires_grad());
    }
}

#[test]
fn what_is_selected_is_quantized_and_what_is_wrong_has_a_name() {
    let variables = VarStore::new(Device::Cpu);
    let network = Network::new(&variables);
    let weights = WeightQuantizer::new(scheme(), Calibration::MinMax).unwrap();
    let weights = weights.select(|name, shape| name.starts_with("head") && shape == [3, 12]);
    quantize_variables(&variables, &weights).unwrap();
    assert_eq!(
        weights.quantized().keys().collect::<Vec<_>>(),
        ["head.weight"]
    );

    let mut head = network.head.ws.detach();
    let _ = head.fill_(f64::NAN);
    let error = quantize_variables(&variables, &weights).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("\"head.weight\": cannot calibrate on NaN"),
        "{error}"
    );
}
