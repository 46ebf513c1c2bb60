//! The left matrix, laid out for the kernels at the start of each product.

use std::cell::Cell;
use std::ops::Range;

use chopi_core::backend::{NoMemory, collected, make_room, with_room};

use crate::codes::{CodeSlice, Matrix};
use crate::kernel::{LeftFormat, LeftQuad, PAIR, QUAD};

/// The left matrix as the kernels read it: bytes, in tiles of about the same height.
pub(crate) struct Tiled {
    /// The tiles one after the other, each with the first quad of every row, then the second of
    /// every row, and so on. What fills up the depth meets zeros of the right matrix.
    quads: Vec<LeftQuad>,
    /// The depth of the tiles.
    pub(crate) depth: usize,
    pub(crate) rows: usize,
    pub(crate) tiles: usize,
    /// The zero points, more by 128 where codes were signed and bytes are not, less by it where codes were
    /// unsigned and bytes are not.
    pub(crate) zero_points: Vec<i32>,
    /// The sums of each row, if they were asked for: over so many depths at a time.
    pub(crate) sums: Vec<i32>,
}

thread_local! {
    /// The memory of the last left matrix, for the next one: fresh memory costs its page faults.
    static SCRATCH: Cell<Vec<LeftQuad>> = const { Cell::new(Vec::new()) };
}
/// No more than so many quads are kept: 4 MiB.
const SCRATCH_QUADS: usize = 1 << 20;

impl Drop for Tiled {
    fn drop(&mut self) {
        if self.quads.capacity() <= SCRATCH_QUADS {
            SCRATCH.set(std::mem::take(&mut self.quads));
        }
    }
}

impl Tiled {
    /// Tiles of at most as many rows as the format says.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for them.
    pub(crate) fn new(
        left: &Matrix<'_>,
        sums_over: Option<usize>,
        format: LeftFormat,
    ) -> Result<Self, NoMemory> {
        let (rows, depth) = (left.rows(), left.depth().next_multiple_of(PAIR));
        let (flip, offset) = match (left.codes(), format.signed) {
            (CodeSlice::U8(_), false) | (CodeSlice::I8(_), true) => (0, 0),
            (CodeSlice::I8(_), false) => (0x8080_8080, 128),
            (CodeSlice::U8(_), true) => (0x8080_8080, -128),
        };
        let zero_points = (0..rows).map(|row| left.zero_point(row).wrapping_add(offset));
        let mut tiled = Self {
            quads: SCRATCH.take(),
            depth,
            rows,
            tiles: rows.div_ceil(format.rows),
            zero_points: collected(zero_points)?,
            sums: with_room(match sums_over {
                Some(len) => rows.saturating_mul(left.depth().div_ceil(len.max(1))),
                None => 0,
            })?,
        };
        // What was there before is overwritten.
        let quads_of_row = depth / QUAD;
        let quads = rows.saturating_mul(quads_of_row);
        let more = quads.saturating_sub(tiled.quads.len());
        make_room(&mut tiled.quads, more)?;
        tiled.quads.resize(quads, [0; QUAD]);
        let codes = left.codes().bytes();
        for tile in 0..tiled.tiles {
            let rows = tiled.rows_of(tile);
            let of_tile = &mut tiled.quads[rows.start * quads_of_row..rows.end * quads_of_row];
            for (place, row) in rows.clone().enumerate() {
                let codes = &codes[row * left.depth()..][..left.depth()];
                let (quads, rest) = codes.as_chunks::<QUAD>();
                let mut places = of_tile.iter_mut().skip(place).step_by(rows.len());
                // In this order, no place is lost where the quads end.
                for (quad, place) in quads.iter().zip(&mut places) {
                    *place = (u32::from_ne_bytes(*quad) ^ flip).to_ne_bytes();
                }
                let mut last = [0; QUAD];
                last[..rest.len()].copy_from_slice(rest);
                for place in places {
                    *place = (u32::from_ne_bytes(last) ^ flip).to_ne_bytes();
                }
                if let Some(len) = sums_over {
                    let number = |code: u8| match format.signed {
                        true => i32::from(code as i8),
                        false => i32::from(code),
                    };
                    let sum = |codes: &[u8]| {
                        let numbers = codes.iter().map(|&code| number(code ^ flip as u8));
                        numbers.fold(0, i32::wrapping_add)
                    };
                    tiled.sums.extend(codes.chunks(len.max(1)).map(sum));
                }
            }
        }
        Ok(tiled)
    }

    /// The quads of a tile: the first of every row, then the second of every row, and so on.
    pub(crate) fn quads_of(&self, tile: usize) -> &[LeftQuad] {
        let rows = self.rows_of(tile);
        let of_row = self.depth / QUAD;
        &self.quads[rows.start * of_row..rows.end * of_row]
    }

    /// The rows of a tile.
    pub(crate) fn rows_of(&self, tile: usize) -> Range<usize> {
        // Wide, for the product may be larger than the memory of a machine of 32 bits.
        let start = |tile| (self.rows as u128 * tile as u128 / self.tiles as u128) as usize;
        start(tile)..start(tile + 1)
    }
}
