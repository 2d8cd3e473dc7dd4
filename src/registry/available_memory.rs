//! Determines the available memory.

use std::fs;

/// Bytes that are left in this machine, the process's container, or its address space limit; `None`
/// if unknown. Files in the page cache count as free.
pub fn available_memory() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let of_machine = system.available_memory();
    if system.total_memory() == 0 {
        // Without /proc nothing is known, and reading more would panic.
        return None;
    }
    let of_container = system.cgroup_limits().map_or(u64::MAX, |limits| {
        limits.total_memory.saturating_sub(limits.rss)
    });
    let of_process = address_space_left().unwrap_or(u64::MAX);
    (of_machine > 0).then_some(of_machine.min(of_container).min(of_process))
}

/// Bytes that `ulimit -v` leaves of the process's address space; `None` if there is no limit.
fn address_space_left() -> Option<u64> {
    let limit = first_number("/proc/self/limits", "Max address space")?;
    let used_kib = first_number("/proc/self/status", "VmSize:")?;
    Some(limit.saturating_sub(used_kib << 10))
}

/// Returns the number behind a name in one of the kernel's files about this process.
fn first_number(file: &str, name: &str) -> Option<u64> {
    let account = fs::read_to_string(file).ok()?;
    let line = account.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Default memory for request bodies: a quarter of what is available, and no more than the largest
/// requests need in parallel.
pub fn request_memory() -> u64 {
    const MOST: u64 = 2 << 30;
    const LEAST: u64 = 64 << 20;
    let available = available_memory().unwrap_or(MOST * 4);
    (available / 4).clamp(LEAST, MOST)
}
