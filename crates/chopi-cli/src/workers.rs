//! Work on many tensors at once.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rayon::ThreadPoolBuilder;

use crate::error::Result;

/// Does `work` on every item, the largest first, so that no thread is left alone with a large one
/// at the end. The results are in the order of the items.
///
/// # Errors
/// The errors of `work`; where several items fail, the first one's, whatever the number of threads.
pub fn run<T: Sync, R: Send>(
    items: &[T],
    size: impl Fn(&T) -> usize,
    threads: Option<NonZeroUsize>,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(size(&items[i])));
    let threads = count(threads).clamp(1, items.len().max(1));
    let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;

    let next = AtomicUsize::new(0);
    let first_failed = AtomicUsize::new(usize::MAX);
    let done = pool.broadcast(|_| {
        let mut done = Vec::new();
        while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            // An item that comes after one that failed cannot matter any more.
            if i < first_failed.load(Ordering::Relaxed) {
                let result = work(&items[i]);
                if result.is_err() {
                    first_failed.fetch_min(i, Ordering::Relaxed);
                }
                done.push((i, result));
            }
        }
        done
    });
    let mut done: Vec<_> = done.into_iter().flatten().collect();
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The most threads for each core: more only wait for each other.
pub const THREADS_PER_CORE: usize = 4;

/// How many threads work: as many as asked for, or one for each core, and at most [`THREADS_PER_CORE`] for each.
pub fn count(asked: Option<NonZeroUsize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let most = cores.saturating_mul(THREADS_PER_CORE);
    asked.map_or(cores, NonZeroUsize::get).min(most)
}

/// Says, unless it is to be quiet, that fewer threads work than were asked for.
pub fn say_count(asked: Option<NonZeroUsize>, quiet: bool) {
    let Some(asked) = asked.filter(|&asked| asked.get() > count(Some(asked)) && !quiet) else {
        return;
    };
    let most = count(Some(asked));
    let _ = writeln!(
        io::stderr(),
        "chopi: {most} threads work, not {asked}: {THREADS_PER_CORE} for each core are the most"
    );
}

/// A progress bar of bytes on standard error, if that is a terminal and the user has not asked for quiet.
pub fn progress(bytes: usize, quiet: bool) -> ProgressBar {
    let template = "{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar(bytes, template, quiet)
}

/// A progress bar of these steps, whose number is not known yet, like [`progress`].
#[cfg(feature = "models")]
pub fn steps(name: &str, quiet: bool) -> ProgressBar {
    let template = format!("{{wide_bar}} {{pos}} of {{len}} {name}, {{eta}} left");
    bar(0, &template, quiet)
}

fn bar(length: usize, template: &str, quiet: bool) -> ProgressBar {
    let target = match quiet {
        true => ProgressDrawTarget::hidden(),
        false => ProgressDrawTarget::stderr(),
    };
    let bar = ProgressBar::with_draw_target(Some(length as u64), target);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn many_threads_are_no_more_than_help() {
        let items = vec![(); 2000];
        let threads = NonZeroUsize::new(2000);
        let most = THREADS_PER_CORE * std::thread::available_parallelism().unwrap().get();
        let threads = run(
            &items,
            |&()| 1,
            threads,
            |&()| Ok(rayon::current_num_threads()),
        );
        let threads = threads.unwrap();
        assert!(threads.iter().all(|&threads| threads <= most));
    }

    #[test]
    fn results_are_in_order_and_the_first_error_wins_on_any_number_of_threads() {
        let items: Vec<usize> = (0..100).collect();
        for threads in 1..4 {
            let threads = NonZeroUsize::new(threads);
            let squares = run(&items, |&i| i % 7, threads, |&i| Ok(i * i)).unwrap();
            assert!(
                squares
                    .iter()
                    .enumerate()
                    .all(|(i, &square)| square == i * i)
            );

            let failed = run(
                &items,
                |&i| i,
                threads,
                |&i| match i {
                    30 | 31 | 99 => Err(Error::NoQuantizedModel {
                        path: i.to_string().into(),
                    }),
                    _ => Ok(()),
                },
            );
            assert!(
                matches!(failed, Err(Error::NoQuantizedModel { path }) if path.as_os_str() == "30")
            );
        }
    }
}
