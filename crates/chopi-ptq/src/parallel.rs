//! Work in pieces that do not depend on the threads, on the threads that the caller has.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use chopi_kernels::memory::with_room;
use chopi_kernels::parallel;

use crate::error::Result;

/// Calls `work` with every piece; the error is that of one of the pieces that had one.
pub(crate) fn try_for_each<P: Send>(
    pieces: impl ExactSizeIterator<Item = P> + Send,
    work: impl Fn(P) -> Result<()> + Sync,
) -> Result<()> {
    let failed = Mutex::new(None);
    let run = |_: &mut (), piece: P| {
        if let Err(error) = work(piece) {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        }
    };
    parallel::for_each(pieces, || (), run, |()| ());
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    failed.map_or(Ok(()), Err)
}

/// The results of `work` of each piece, in the order of the pieces.
pub(crate) fn try_map<P: Send, R: Send>(
    pieces: impl ExactSizeIterator<Item = P> + Send,
    work: impl Fn(P) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let mut results: Vec<Option<R>> = std::iter::repeat_with(|| None).take(pieces.len()).collect();
    let slots: Vec<_> = pieces.zip(results.iter_mut()).collect();
    try_for_each(slots.into_iter(), |(piece, slot)| {
        *slot = Some(work(piece)?);
        Ok(())
    })?;
    Ok(results.into_iter().flatten().collect())
}

/// The outputs of a weight whose codes are chosen together. It is fixed, so that the result does not depend on the
/// threads.
const OUTPUTS: usize = 48;

/// The outputs of a weight in pieces.
pub(crate) fn chunks(outputs: usize) -> std::vec::IntoIter<Range<usize>> {
    let chunks = (0..outputs)
        .step_by(OUTPUTS)
        .map(|first| first..outputs.min(first + OUTPUTS));
    chunks.collect::<Vec<_>>().into_iter()
}

/// What pieces gave, one after the other.
pub(crate) fn joined(parts: Vec<Vec<f64>>) -> Result<Vec<f64>> {
    let mut all = with_room(parts.iter().map(Vec::len).sum())?;
    parts.iter().for_each(|part| all.extend_from_slice(part));
    Ok(all)
}
