//! The way through a product: in pieces for threads, in blocks for caches, in tiles for registers.

use std::ops::Range;

use chopi_kernels::parallel;

use crate::kernel::{Engine, Kernel, PANEL, Tiles};
use crate::tiled::Tiled;
use crate::window::Window;

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
    /// The elements of the product.
    type Element: Copy + Send;

    /// The number of panels.
    fn panels(&self) -> usize;

    /// Multiplies a tile of rows with some panels, and writes the result: all elements of `out` that
    /// are in these rows and panels. Implementations are `#[inline(always)]`.
    fn tile<A: Tiles>(
        &self,
        arch: A,
        left: &Tiled,
        tile: usize,
        panels: Range<usize>,
        out: &mut Window<'_, Self::Element>,
    );
}

/// Does the whole job: writes all elements of `out`, a window of the rows of `left` and the columns of
/// the job.
pub(crate) fn run<J: Job>(engine: Engine, left: &Tiled, job: &J, out: Window<'_, J::Element>) {
    let work = |_: &mut (), piece: Piece<'_, J>| engine.run(piece);
    let pieces = pieces(left, job, out);
    parallel::for_each(pieces.into_iter(), || (), work, |()| ());
}

/// The parts of a product, of tiles and panels, that threads take.
fn pieces<'a, J: Job>(
    left: &'a Tiled,
    job: &'a J,
    out: Window<'a, J::Element>,
) -> Vec<Piece<'a, J>> {
    let piece = |tiles, panels, out| Piece {
        left,
        job,
        tiles,
        panels,
        out,
    };
    let (threads, panels) = (parallel::threads(), job.panels());
    let work = [panels, PANEL, left.depth]
        .into_iter()
        .fold(left.rows, usize::saturating_mul);
    if threads == 1 || work < 2 * WORTH_A_THREAD {
        return vec![piece(0..left.tiles, 0..panels, out)];
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
    let mut pieces = Vec::new();
    let mut below = out;
    for tiles in steps(left.tiles, tiles_each) {
        let mut right;
        (right, below) = below.split_at_row(left.rows_of(tiles.end - 1).end);
        for panels in steps(panels, panels_each) {
            let window;
            (window, right) = right.split_at_column(panels.end * PANEL);
            pieces.push(piece(tiles.clone(), panels, window));
        }
    }
    pieces
}

/// A part of a product, and the memory that it is written to.
struct Piece<'a, J: Job> {
    left: &'a Tiled,
    job: &'a J,
    tiles: Range<usize>,
    panels: Range<usize>,
    out: Window<'a, J::Element>,
}

impl<J: Job> Kernel for Piece<'_, J> {
    #[inline(always)]
    fn run<A: Tiles>(self, arch: A) {
        let Self {
            left,
            job,
            tiles,
            panels,
            mut out,
        } = self;
        let depth = left.depth.max(1);
        let block = (BLOCK_BYTES / (depth * A::ROWS)).max(1);
        // The lowest tiles take the most panels at a time.
        let widest = A::panels(left.rows / left.tiles.max(1));
        let group_len = (GROUP_BYTES / (depth * PANEL) / widest * widest).max(widest);
        let mut first = tiles.start;
        while first < tiles.end {
            let block = first..tiles.end.min(first + block);
            let mut group = panels.start;
            while group < panels.end {
                let panels = group..panels.end.min(group + group_len);
                for tile in block.clone() {
                    job.tile(arch, left, tile, panels.clone(), &mut out);
                }
                group += group_len;
            }
            first = block.end;
        }
    }
}
