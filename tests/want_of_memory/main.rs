//! Where there is no memory for what an input's size asks for, every operation gives an error, and leaves its
//! state as it was.

mod arrays;
mod candle_tensors;
mod products;
mod training;

use chopi_conformance::ScarceMemory;
use ndarray::{Array2, ShapeBuilder};

#[global_allocator]
static MEMORY: ScarceMemory = ScarceMemory;

/// An array of this shape whose numbers differ.
fn array((rows, columns): (usize, usize)) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| number(i * columns + j))
}

/// The array of [`array`] that lies in memory column by column.
fn turned((rows, columns): (usize, usize)) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns).f(), |(i, j)| number(i * columns + j))
}

fn number(i: usize) -> f32 {
    (i.wrapping_mul(2_654_435_761) % 100_003) as f32 / 40_000.0 - 1.0
}
