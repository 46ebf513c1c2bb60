//! Files and folders that appear whole, or not at all.

mod folder;
mod output;
mod temporary;

pub use folder::OutputFolder;
pub use output::{Output, Target};
pub use temporary::{OLD, is_temporary};
