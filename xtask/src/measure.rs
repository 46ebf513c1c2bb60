//! What a program costs: its time and its memory.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::process;

/// A program that ran and succeeded.
#[derive(Debug)]
pub struct Measured {
    /// What it wrote to standard output.
    pub stdout: String,
    /// From its start to its end.
    pub time: Duration,
    /// The most memory that it held at once, mapped files included, in bytes; where the system
    /// tells.
    pub peak: Option<u64>,
}

/// Runs a program to its end.
pub fn measure(command: &mut Command) -> Result<Measured> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| process::cannot_run(command))?;
    let mut stdout = String::new();
    let pipe = child.stdout.as_mut().context("the output is piped")?;
    pipe.read_to_string(&mut stdout)
        .with_context(|| format!("the output of `{}` is not UTF-8", process::shown(command)))?;
    let (status, peak) = wait(child)?;
    let time = start.elapsed();
    process::check(command, status)?;
    Ok(Measured { stdout, time, peak })
}

#[cfg(unix)]
fn wait(child: Child) -> Result<(ExitStatus, Option<u64>)> {
    use std::mem::MaybeUninit;
    use std::os::unix::process::ExitStatusExt;

    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to live, writable variables of the types that wait4 writes.
        // `child`, which nobody waited for, still names this process.
        let waited = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
        if waited == pid {
            break;
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for a program");
        }
    }
    // SAFETY: all bits zero is a value of rusage, a struct of integers, and wait4 has written it.
    let usage = unsafe { usage.assume_init() };
    // Linux counts in KiB, macOS in bytes.
    let unit = if cfg!(target_vendor = "apple") {
        1
    } else {
        1024
    };
    let peak = u64::try_from(usage.ru_maxrss)? * unit;
    Ok((ExitStatus::from_raw(status), Some(peak)))
}

#[cfg(not(unix))]
fn wait(mut child: Child) -> Result<(ExitStatus, Option<u64>)> {
    Ok((child.wait()?, None))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn output_and_memory_are_measured_and_a_failure_is_an_error() {
        let measured = measure(Command::new("sh").args(["-c", "echo out"])).unwrap();
        assert_eq!(measured.stdout, "out\n");
        assert!(measured.peak.unwrap() > 100_000);
        assert!(measure(Command::new("sh").args(["-c", "exit 3"])).is_err());
    }
}
