//! What the kernel says about a process. Linux only.

use std::fs;
use std::time::Duration;

/// Resident memory, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> u64 {
    rollup(pid, "Rss:")
}

/// Memory of the process's own, in bytes: anonymous, and shared memory that it made.
///
/// Not what the kernel calls private: that counts the pages of the program's file, as clean or,
/// just after it was linked, as dirty, and only while no other process runs the same file. Those
/// are megabytes back and forth while cases run side by side.
pub(crate) fn private_bytes(pid: u32) -> u64 {
    rollup(pid, "Anonymous:") + rollup(pid, "Pss_Shmem:")
}

/// Open file descriptors.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Processor time that all its threads have used, in the scheduler's nanoseconds.
pub(crate) fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let used_ns: u64 = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(used_ns)
}

/// Connections that stand at this end, on a port of IPv4.
#[cfg(not(wardline_portable))]
pub(crate) fn established(port: u16) -> usize {
    let table = fs::read_to_string("/proc/self/net/tcp").expect("there is IPv4");
    let port = format!(":{port:04X}");
    let stands = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("01")
    };
    table.lines().filter(stands).count()
}

/// What `smaps_rollup` says; nothing of a binary that watches its own memory, as
/// `WARDLINE_TEST_SANITIZED` says: most of it is the watchman's.
fn rollup(pid: u32, field: &str) -> u64 {
    if std::env::var_os("WARDLINE_TEST_SANITIZED").is_some() {
        return 0;
    }
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let value = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_else(|| panic!("no {field} in {text}")) << 10
}
