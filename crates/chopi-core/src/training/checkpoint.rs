//! What checkpoints of every framework call their parts, and how they are written.

use std::io;
use std::path::Path;

/// The entry of a checkpoint's metadata that holds the states of the fake-quantizers, in JSON.
pub const CHECKPOINT_QUANTIZERS: &str = "chopi.quantizers";
/// The entry of a checkpoint's metadata that holds the number of the optimizer's steps.
pub const CHECKPOINT_STEPS: &str = "chopi.adam.step";
/// The prefix of a variable's name under which a checkpoint has Adam's mean of its gradients.
pub const CHECKPOINT_MEAN: &str = "adam.mean.";
/// The prefix of a variable's name under which a checkpoint has Adam's mean of its squared gradients.
pub const CHECKPOINT_SQUARE: &str = "adam.square.";

/// Has `write` write a file beside the one at `path`, and puts it in that one's place once it is
/// whole: what stops the writing leaves the earlier checkpoint as it was.
///
/// # Errors
/// The errors of `write` and of the file system.
pub fn write_checkpoint<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    write(partial)?;
    Ok(std::fs::rename(partial, path)?)
}
