//! The seed of random inputs.

use anyhow::Result;

/// The given seed, or a new one.
pub fn or_new(seed: Option<u64>) -> Result<u64> {
    match seed {
        Some(seed) => Ok(seed),
        None => Ok(std::time::UNIX_EPOCH.elapsed()?.subsec_nanos().into()),
    }
}
