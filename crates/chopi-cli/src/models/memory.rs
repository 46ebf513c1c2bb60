//! The memory that the program has used.

/// The most memory that the program has had at once, in bytes, since its start or the last [`restart`]; where
/// the system tells.
pub fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Forgets the peak until now, where the system can.
pub fn restart() {
    // Linux takes 5 for this; elsewhere there is no such file, and no peak either.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}
