//! What the fuzz targets share: numbers and shapes drawn from their inputs, the definitions that results are
//! compared with, and the program in the target's own process.
//!
//! `cargo xtask fuzz` builds and runs the targets.

pub mod definition;
pub mod draw;
pub mod program;
pub mod training;

/// Whether a target is to misread a result this time: where `rare` holds in a build with the feature
/// `planted`, so that one sees that the target finds a fault. Without the feature, never.
pub fn planted(rare: bool) -> bool {
    let planted = cfg!(feature = "planted") && rare;
    if planted {
        // So that one sees that it is this fault which was found.
        eprintln!("planted");
    }
    planted
}
