//! Work in pieces, on the threads that the caller has.

use std::sync::Mutex;

/// Fewer elements than this are not worth waking a thread for.
const WORTH_A_THREAD: usize = 128 * 1024;
/// A piece is a multiple of this, so that no two threads write to one cache line of codes.
const GRAIN: usize = 4096;

/// How many elements of `len` to take at a time: all, where one thread does them.
#[inline]
pub fn piece_len(len: usize) -> usize {
    // The pool is looked at last: that takes a good part of a small tensor's time.
    let threads = if len < 2 * WORTH_A_THREAD {
        1
    } else {
        threads()
    };
    if threads == 1 {
        return len.max(1);
    }
    // A few pieces a thread, so that none waits long for another that was slow.
    (len / (4 * threads))
        .clamp(WORTH_A_THREAD / 2, 16 * WORTH_A_THREAD)
        .next_multiple_of(GRAIN)
}

/// The threads that there are to use: those of the current `rayon` pool, or the calling one.
#[cfg(feature = "rayon")]
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// The threads that there are to use: those of the current `rayon` pool, or the calling one.
#[cfg(not(feature = "rayon"))]
pub fn threads() -> usize {
    1
}

/// Calls `work` with every piece and a state of its thread, which `finish` is given in the end, in
/// no particular order.
///
/// The calling thread takes pieces like the others. When none is left, it waits only for threads that are at
/// work on a piece, not for those that the pool has not started yet: a busy pool does not make the call
/// slower than one thread would be.
pub fn for_each<P: Send, S>(
    pieces: impl ExactSizeIterator<Item = P> + Send,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, P) + Sync,
    finish: impl Fn(S) + Sync,
) {
    let count = pieces.len();
    if count <= 1 {
        let mut state = start();
        pieces.for_each(|piece| work(&mut state, piece));
        return finish(state);
    }
    let pieces = Mutex::new(pieces);
    let take = || pieces.lock().unwrap_or_else(|e| e.into_inner()).next();
    on_threads(count, &|| {
        if let Some(first) = take() {
            let mut state = start();
            work(&mut state, first);
            while let Some(piece) = take() {
                work(&mut state, piece);
            }
            finish(state);
        }
    });
}

/// A piece of work that a thread does.
pub(crate) type BoxedTask<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Does the tasks that `next` gives, `count` of them, as [`for_each`] does.
///
/// It is not generic, so that what threads cost in code is there once.
pub(crate) fn run_all<'a>(count: usize, next: &mut (dyn FnMut() -> Option<BoxedTask<'a>> + Send)) {
    let next = Mutex::new(next);
    let take = || (next.lock().unwrap_or_else(|e| e.into_inner()))();
    on_threads(count, &|| {
        while let Some(task) = take() {
            task();
        }
    });
}

/// Calls `run` on the calling thread, and at the same time on others that have nothing to do, up to
/// `most` in all.
fn on_threads(most: usize, run: &(dyn Fn() + Sync)) {
    #[cfg(feature = "rayon")]
    rayon::in_place_scope(|scope| {
        for _ in 1..threads().min(most) {
            scope.spawn(|_| run());
        }
        run();
    });
    #[cfg(not(feature = "rayon"))]
    {
        let _ = most;
        run();
    }
}
