//! The tests that quantization-aware training passes in every framework, with equal expected numbers.
//!
//! A framework implements [`Trainee`] and names it in one line of its tests:
//! `chopi_conformance::training_suite!(MyTrainee);`.

mod files;
mod formulas;
mod layers;
mod oracle;

use std::collections::BTreeMap;
use std::path::Path;

use chopi_core::QParams;
use chopi_core::backend::{Backend, FloatTensor, FloatType, IntTensor};
use chopi_core::training::{AdamConfig, Converted, LearnedParams, QatConfig, Quantizers, Ste};

pub use files::{
    a_checkpoint_has_its_layout, a_checkpoint_of_another_network_is_refused,
    a_checkpoint_that_cannot_be_written_leaves_nothing,
    a_checkpoint_that_lacks_something_changes_nothing, a_file_that_is_none_is_refused,
    training_goes_on_from_a_checkpoint_to_the_bit,
    training_starts_from_the_weights_of_a_network_in_floats,
};
pub use formulas::{
    a_folded_convolution_has_the_numbers_of_the_formula,
    gradients_pass_by_the_rule_of_the_estimator, learned_gradients_are_those_on_slices,
    training_has_the_numbers_of_the_formulas,
};
pub use layers::{
    an_optimizer_takes_only_numbers_that_it_can_step_by, frozen_parameters_stay_as_they_are,
    integers_are_what_is_evaluated, learned_scales_start_where_they_are_calibrated,
    what_is_switched_off_passes_as_it_is,
};

/// A layer that is trained, with its kind and its sizes. Convolutions have stride 1 and no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it computes.
    pub kind: Kind,
    /// The number of inputs, or of rows of an embedding.
    pub inputs: usize,
    /// The number of outputs, or of columns.
    pub outputs: usize,
    /// The length of a convolution's kernel along each axis.
    pub kernel: usize,
    /// Whether it has a bias.
    pub bias: bool,
}

/// The kinds of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `QatLinear`.
    Linear,
    /// `QatConv1d`.
    Conv1d,
    /// `QatConv2d`.
    Conv2d,
    /// `QatConvBn2d`.
    ConvBn2d,
    /// `QatEmbedding`.
    Embedding,
}

/// All kinds, with sizes in which sums have many terms.
pub const LAYERS: [Layer; 5] = [
    Layer::new(Kind::Linear, (10, 4), 1),
    Layer::new(Kind::Conv1d, (2, 3), 3),
    Layer::new(Kind::Conv2d, (2, 3), 3),
    Layer::new(Kind::ConvBn2d, (2, 3), 3),
    Layer::new(Kind::Embedding, (6, 4), 1),
];

impl Layer {
    /// A layer with bias.
    pub const fn new(kind: Kind, (inputs, outputs): (usize, usize), kernel: usize) -> Self {
        Self {
            kind,
            inputs,
            outputs,
            kernel,
            bias: true,
        }
    }
}

/// A fake-quantizing operation.
#[derive(Clone, Copy, Debug)]
pub enum Operation<'a> {
    /// With fixed parameters.
    Fixed(&'a QParams, Ste),
    /// With learned ones, and the variables that they were made of, in the shape of the parameters.
    Learned(&'a LearnedParams, &'a [f64], &'a [f64]),
}

/// What an operation made of x, and the gradients of the sum of the squares of that.
#[derive(Debug)]
pub struct Outcome {
    /// The values.
    pub y: Vec<f64>,
    /// The gradient of x.
    pub x: Vec<f64>,
    /// The gradient of the scale, where that is learned.
    pub scale: Vec<f64>,
    /// The gradient of the zero point, where that is learned.
    pub zero_point: Vec<f64>,
}

/// A network of one layer in a framework, of type `f32`, with its variables, its fake-quantizers and its
/// `Adam`. Errors are their texts.
///
/// The layer is `layer` in the network; its batch normalization is `layer.norm` after the convolution
/// `layer.conv`, and what they are folded to `layer.folded`.
pub trait Trainee: Sized {
    /// The backend.
    type Backend: Backend;
    /// The framework's tensor.
    type Tensor: FloatTensor<Self::Backend, Owned = Self::Tensor, Int = Self::Tensor>
        + IntTensor<Self::Backend, Float = Self::Tensor>;

    /// How much the sums of learned gradients may differ, relative to them: 0 where they are the kernels'.
    const DIFFERENCE_OF_SUMS: f64;

    /// A tensor with these elements in row-major order.
    fn tensor(values: &[f64], shape: &[usize]) -> Self::Tensor;
    /// Indices for an embedding.
    fn indices(values: &[usize]) -> Self::Tensor;
    /// The framework's square roots, which need not be the nearest numbers.
    fn sqrt(values: &[f32]) -> Vec<f32> {
        values.iter().map(|value| value.sqrt()).collect()
    }
    /// The elements of a tensor of floats or integers.
    fn read(tensor: &Self::Tensor) -> Vec<f64>;
    /// Runs an operation on a tensor of a type, the transpose of one of the transposed shape where
    /// `transposed` says so.
    fn operate(
        x: (&[f64], &[usize]),
        float: FloatType,
        transposed: bool,
        operation: &Operation<'_>,
    ) -> Outcome;

    /// A network.
    fn new(layer: Layer, config: &QatConfig) -> Result<Self, String>;
    /// Every variable's elements.
    fn variables(&self) -> BTreeMap<String, Vec<f64>>;
    /// Sets a variable's elements.
    fn set(&self, name: &str, values: &[f64]);
    /// The fake-quantizers.
    fn quantizers(&self) -> &Quantizers;
    /// What the layer gives.
    fn forward(&self, x: &Self::Tensor, train: bool) -> Result<Self::Tensor, String>;
    /// What a float layer of this kind, without normalization, gives with this weight and bias.
    fn float(
        &self,
        x: &Self::Tensor,
        weight: &Self::Tensor,
        bias: Option<&Self::Tensor>,
    ) -> Self::Tensor;
    /// A step of Adam on the mean of the squares of what the layer gives.
    fn train(&mut self, x: &Self::Tensor);
    /// Normalizes by the running statistics from now on.
    fn freeze_statistics(&mut self);
    /// The layer in integers.
    fn convert(&self) -> Result<Converted<Self::Tensor>, String>;
    /// Adam's numbers.
    fn adam(&self) -> AdamConfig;
    /// Sets Adam's numbers.
    fn set_adam(&mut self, config: AdamConfig) -> Result<(), String>;
    /// How many steps there were.
    fn steps(&self) -> u32;
    /// `save_checkpoint`, with the optimizer or without.
    fn save(&self, path: &Path, optimizer: bool) -> Result<(), String>;
    /// `load_checkpoint`, with the optimizer or without.
    fn load(&mut self, path: &Path, optimizer: bool) -> Result<(), String>;
    /// `load_float`.
    fn load_float(&self, path: &Path) -> Result<(), String>;
}

/// Defines a test for each part of the suite, run on a [`Trainee`].
#[macro_export]
macro_rules! training_suite {
    ($trainee:ty) => {
        $crate::training_suite!($trainee:
            gradients_pass_by_the_rule_of_the_estimator
            learned_gradients_are_those_on_slices
            training_has_the_numbers_of_the_formulas
            a_folded_convolution_has_the_numbers_of_the_formula
            training_goes_on_from_a_checkpoint_to_the_bit
            a_checkpoint_has_its_layout
            a_checkpoint_that_cannot_be_written_leaves_nothing
            training_starts_from_the_weights_of_a_network_in_floats
            a_checkpoint_of_another_network_is_refused
            a_checkpoint_that_lacks_something_changes_nothing
            a_file_that_is_none_is_refused
            learned_scales_start_where_they_are_calibrated
            integers_are_what_is_evaluated
            frozen_parameters_stay_as_they_are
            what_is_switched_off_passes_as_it_is
            an_optimizer_takes_only_numbers_that_it_can_step_by
        );
    };
    ($trainee:ty: $($name:ident)*) => {$(
        #[test]
        fn $name() {
            $crate::training::$name::<$trainee>();
        }
    )*};
}

/// Elements between −3 and 3.
fn ramp(count: usize, phase: f64) -> Vec<f64> {
    (0..count)
        .map(|i| f64::from(((i as f64 * 0.37 + phase).sin() * 3.0) as f32))
        .collect()
}

/// A network whose weights and biases are ramps.
fn network<T: Trainee>(layer: Layer, config: &QatConfig) -> T {
    let network = T::new(layer, config).unwrap();
    for (i, (name, values)) in network.variables().into_iter().enumerate() {
        if name.ends_with("weight") || name.ends_with("bias") {
            network.set(&name, &ramp(values.len(), i as f64));
        }
    }
    network
}

/// A batch for a layer.
fn batch<T: Trainee>(layer: Layer, step: usize) -> T::Tensor {
    let values = |shape: &[usize]| {
        let values = ramp(shape.iter().product(), step as f64);
        let scale = 1.0 + step as f64 / 8.0;
        let values: Vec<f64> = values.iter().map(|v| v * scale).collect();
        T::tensor(&values, shape)
    };
    match layer.kind {
        Kind::Linear => values(&[8, layer.inputs]),
        Kind::Conv1d => values(&[2, layer.inputs, 7]),
        Kind::Conv2d | Kind::ConvBn2d => values(&[2, layer.inputs, 6, 6]),
        Kind::Embedding => T::indices(&[step % layer.inputs, 0, layer.inputs - 1]),
    }
}

fn train<T: Trainee>(network: &mut T, layer: Layer, steps: std::ops::Range<usize>) {
    for step in steps {
        network.train(&batch::<T>(layer, step));
    }
}
