//! Signals that stop the program: noted, and looked at between the steps of its work, so that the thread that
//! writes an output is the only one that puts it in its place or removes it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

#[derive(Debug, Default)]
struct Watch {
    /// The signal that has come, 0 where none has.
    signal: Arc<AtomicUsize>,
    /// Whether nothing is left to be removed, so that a signal ends the program at once.
    settled: Arc<AtomicBool>,
}

static WATCH: OnceLock<Watch> = OnceLock::new();

/// From here on a signal that stops the program is noted, for [`check`]. On Linux one that the program was
/// started to ignore, as under nohup, stays ignored.
pub fn watch() {
    let watch = WATCH.get_or_init(|| {
        let watch = Watch::default();
        let ignored = ignored();
        // Elsewhere it cannot be told whether nohup has asked to ignore it: the next run removes what is left.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let stopping = [SIGINT, SIGTERM, signal_hook::consts::SIGHUP];
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let stopping = [SIGINT, SIGTERM];
        for signal in stopping {
            if ignored & (1 << (signal - 1)) == 0 {
                // Without a handler the program works as well, and a later run removes what it leaves.
                let settled = Arc::clone(&watch.settled);
                let _ = flag::register_conditional_shutdown(signal, 128 + signal, settled);
                let noted = Arc::clone(&watch.signal);
                let _ = flag::register_usize(signal, noted, signal as usize);
            }
        }
        // A file that may not grow further is an error of the write, not the end of the program.
        #[cfg(unix)]
        let _ = flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
        watch
    });
    watch.settled.store(false, Ordering::SeqCst);
}

/// The signals that the program was started to ignore, as a mask; none where the system does not tell.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// To be called between the steps of the work.
///
/// # Errors
/// A signal that has come.
pub fn check() -> io::Result<()> {
    match signal() {
        None => Ok(()),
        // Not `ErrorKind::Interrupted`, after which readers and writers try again.
        Some(signal) => Err(io::Error::other(format!("stopped by signal {signal}"))),
    }
}

/// The signal that has come, if one has.
pub fn signal() -> Option<u8> {
    let signal = WATCH.get()?.signal.load(Ordering::SeqCst);
    u8::try_from(signal).ok().filter(|&signal| signal > 0)
}

/// The output is in its place, and no temporary file is left: from here on a signal ends the program.
pub fn settled() {
    if let Some(watch) = WATCH.get() {
        watch.settled.store(true, Ordering::SeqCst);
    }
}
