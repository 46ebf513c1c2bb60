//! The way through a product: in pieces for threads, in blocks for caches, in tiles for registers.

use std::ops::Range;

use chopi_kernels::parallel;

use crate::kernel::{Engine, Kernel, PANEL, Tiles};
use crate::tiled::Tiled;

/// Fewer products than this are not worth waking a thread for.
const WORTH_A_THREAD: usize = 1 << 21;
/// Pieces of a product are multiples of so many panels, which is a multiple of what every tile takes.
const GROUP: usize = 8;
/// The bytes of the panels that all tiles of a block are multiplied with before the next ones: they
/// are to stay in the first-level cache.
const GROUP_BYTES: usize = 24 * 1024;
/// The bytes of the left matrix that are to stay in the second-level cache.
const BLOCK_BYTES: usize = 256 * 1024;

/// The right matrix of a product, and what becomes of the sums.
pub(crate) trait Job: Sync {
    /// The number of panels.
    fn panels(&self) -> usize;

    /// Multiplies a tile of rows with some panels, and writes the result.
    ///
    /// # Safety
    /// The CPU has the instruction set of `A`; the tile and the panels are there, and no other thread
    /// has them. Implementations are `#[inline(always)]`.
    unsafe fn tile<A: Tiles>(&self, left: &Tiled, tile: usize, panels: Range<usize>);
}

/// Does the whole job.
pub(crate) fn run(engine: Engine, left: &Tiled, job: &impl Job) {
    let work = |_: &mut (), (tiles, panels)| {
        engine.run(Piece {
            left,
            job,
            tiles,
            panels,
        });
    };
    let pieces = pieces(left, job.panels());
    parallel::for_each(pieces.into_iter(), || (), work, |()| ());
}

/// The parts of a product, of tiles and panels, that threads take.
fn pieces(left: &Tiled, panels: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let threads = parallel::threads();
    let work = left.rows * panels * PANEL * left.depth;
    if threads == 1 || work < 2 * WORTH_A_THREAD {
        return vec![(0..left.tiles, 0..panels)];
    }
    // A few pieces for each thread, so that none waits long for another that was slow. Pieces of
    // all tiles are best, since they share the panels.
    let wanted = (4 * threads).min(work / WORTH_A_THREAD);
    let groups = panels.div_ceil(GROUP);
    let panels_each = groups.div_ceil(wanted) * GROUP;
    let down = wanted.div_ceil(panels.div_ceil(panels_each));
    let tiles_each = left.tiles.div_ceil(down);
    let steps = |len: usize, step: usize| {
        (0..len)
            .step_by(step)
            .map(move |start| start..len.min(start + step))
    };
    steps(left.tiles, tiles_each)
        .flat_map(|tiles| steps(panels, panels_each).map(move |panels| (tiles.clone(), panels)))
        .collect()
}

/// A part of a product.
struct Piece<'a, J> {
    left: &'a Tiled,
    job: &'a J,
    tiles: Range<usize>,
    panels: Range<usize>,
}

impl<J: Job> Kernel for Piece<'_, J> {
    #[inline(always)]
    unsafe fn run<A: Tiles>(self) {
        let depth = self.left.depth.max(1);
        let block = (BLOCK_BYTES / (depth * A::ROWS)).max(1);
        // The lowest tiles take the most panels at a time.
        let widest = A::panels(self.left.rows / self.left.tiles.max(1));
        let group_len = (GROUP_BYTES / (depth * PANEL) / widest * widest).max(widest);
        let mut first = self.tiles.start;
        while first < self.tiles.end {
            let tiles = first..self.tiles.end.min(first + block);
            let mut group = self.panels.start;
            while group < self.panels.end {
                let panels = group..self.panels.end.min(group + group_len);
                for tile in tiles.clone() {
                    // SAFETY: the caller's; every tile and panel is in one piece, and here once.
                    unsafe { self.job.tile::<A>(self.left, tile, panels.clone()) };
                }
                group += group_len;
            }
            first = tiles.end;
        }
    }
}
