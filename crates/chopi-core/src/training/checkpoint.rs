//! What checkpoints of every framework call their parts.

/// The entry of a checkpoint's metadata that holds the states of the fake-quantizers, in JSON.
pub const CHECKPOINT_QUANTIZERS: &str = "chopi.quantizers";
/// The entry that holds the number of the optimizer's steps.
pub const CHECKPOINT_STEPS: &str = "chopi.adam.step";
/// What stands before the name of a variable for Adam's mean of its gradients.
pub const CHECKPOINT_MEAN: &str = "adam.mean.";
/// What stands before the name of a variable for Adam's mean of their squares.
pub const CHECKPOINT_SQUARE: &str = "adam.square.";
