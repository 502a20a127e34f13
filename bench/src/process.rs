//! What the kernel says of a process: CPU time, memory, descriptors; and where it may run.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::Serialize;

/// The unit of the times in `/proc/PID/stat` and `/proc/stat`: fixed at 100 a second for programs.
const TICK_NS: u64 = 10_000_000;

/// CPU time of a process until a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuTime {
    /// Nanoseconds of the threads that live, by the kernel's accounting of each thread.
    pub threads_ns: u64,
    /// Nanoseconds of the process with the threads that ended, in steps of 10 ms.
    pub process_ns: u64,
    /// The threads that were counted; one that ends takes its share of `threads_ns` with it.
    pub threads: Vec<i32>,
}

/// CPU time between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuSpent {
    /// Nanoseconds.
    pub ns: u64,
    /// Counted in nanoseconds; otherwise a thread ended meanwhile, and it is in steps of 10 ms.
    pub exact: bool,
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All pages that are resident.
    pub rss_bytes: u64,
    /// Those that no other process shares.
    pub private_bytes: u64,
}

/// The CPU time that a process has had until now.
///
/// A thread that is running right now is counted up to the kernel's last tick or switch, so read it
/// while the process sleeps.
pub fn cpu_time(pid: u32) -> Result<CpuTime> {
    let mut time = CpuTime { threads_ns: 0, process_ns: 0, threads: threads(pid)? };
    for tid in &time.threads {
        let path = format!("/proc/{pid}/task/{tid}/schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        time.threads_ns += first.parse::<u64>().with_context(|| format!("{path}: {text:?}"))?;
    }
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    time.process_ns = parse_stat(&text).with_context(|| format!("{path}: {text:?}"))?;
    Ok(time)
}

/// User and system time in `/proc/PID/stat`; the program's name may hold anything but its last `)`.
fn parse_stat(text: &str) -> Option<u64> {
    let (_, fields) = text.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) * TICK_NS)
}

/// What was spent between two readings.
pub fn cpu_between(before: &CpuTime, after: &CpuTime) -> CpuSpent {
    let exact = before.threads.iter().all(|tid| after.threads.contains(tid));
    let ns = if exact {
        after.threads_ns.saturating_sub(before.threads_ns)
    } else {
        after.process_ns.saturating_sub(before.process_ns)
    };
    CpuSpent { ns, exact }
}

/// The time that a core was not idle since the machine started, in steps of 10 ms; time that the
/// host took away counts as well.
pub fn core_busy_ns(core: usize) -> Result<u64> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_core_busy(&text, core).with_context(|| format!("/proc/stat has no core {core}"))
}

fn parse_core_busy(text: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
    let fields: Vec<u64> =
        line.split_ascii_whitespace().map(|field| field.parse().ok()).collect::<Option<_>>()?;
    // user nice system (idle iowait) irq softirq steal; guest time is in user time already.
    let busy: u64 = fields.get(..3)?.iter().chain(fields.get(5..8)?).sum();
    Some(busy * TICK_NS)
}

/// The threads of a process, lowest number first.
pub fn threads(pid: u32) -> Result<Vec<i32>> {
    let path = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&path).with_context(|| format!("no process {pid}"))?;
    let mut threads = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        threads.push(name.to_string_lossy().parse().context("a thread without a number")?);
    }
    threads.sort_unstable();
    Ok(threads)
}

/// How many connections the listeners at these ports of this machine have not accepted yet. A
/// server's descriptors would not tell: io_uring has connections without any.
pub fn unaccepted(ports: &[u16]) -> Result<u64> {
    let mut waiting = 0;
    for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // Without IPv6 the second is not there.
        let Ok(file) = File::open(path) else { continue };
        for line in BufReader::new(file).lines().skip(1) {
            let line = line.with_context(|| format!("cannot read {path}"))?;
            let listener = parse_listener(&line).with_context(|| format!("{path}: {line:?}"))?;
            // Listeners stand first, and thousands of connections behind them.
            let Some((port, unaccepted)) = listener else { break };
            if ports.contains(&port) {
                waiting += unaccepted;
            }
        }
    }
    Ok(waiting)
}

/// Port and unaccepted connections of a listener; nothing of another socket.
fn parse_listener(line: &str) -> Option<Option<(u16, u64)>> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
    if state != "0A" {
        return Some(None);
    }
    let (_, queued) = fields.next()?.split_once(':')?;
    let (_, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Some((port, u64::from_str_radix(queued, 16).ok()?)))
}

/// What of a process is resident now.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_smaps_rollup(&text).with_context(|| format!("{path} is not understood"))
}

fn parse_smaps_rollup(text: &str) -> Option<Memory> {
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line[name.len()..].trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    let private_bytes = field("Private_Clean:")? + field("Private_Dirty:")?;
    Some(Memory { rss_bytes: field("Rss:")?, private_bytes })
}

/// Waits until the private memory of a process stays the same for a quarter of a second, at most
/// `limit`; then the last reading, whatever it is.
pub fn settled_memory(pid: u32, limit: Duration) -> Result<Memory> {
    let end = Instant::now() + limit;
    let mut last = memory(pid)?;
    let mut same = 0;
    while same < 5 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        let now = memory(pid)?;
        same = if now.private_bytes == last.private_bytes { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// Ties every thread of a process to one core, those that begin meanwhile too.
pub fn pin(pid: u32, core: usize) -> Result<()> {
    let set = only(core);
    let mut pinned = Vec::new();
    loop {
        let found = threads(pid)?;
        let new: Vec<i32> = found.into_iter().filter(|tid| !pinned.contains(tid)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for tid in new {
            let thread = Pid::from_raw(tid).context("thread number 0")?;
            match sched_setaffinity(Some(thread), &set) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => pinned.push(tid),
                Err(error) => bail!("cannot tie thread {tid} to core {core}: {error}"),
            }
        }
    }
}

/// Ties the calling thread to one core; what it starts afterwards begins there.
pub fn pin_self(core: usize) -> Result<()> {
    sched_setaffinity(None, &only(core)).with_context(|| format!("cannot run on core {core}"))
}

/// Whether the calling thread may run on both cores, so that pinning is possible at all.
pub fn has_cores(first: usize, second: usize) -> io::Result<bool> {
    let set = sched_getaffinity(None)?;
    let within = |core| core < CpuSet::MAX_CPU && set.is_set(core);
    Ok(within(first) && within(second))
}

fn only(core: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(core);
    set
}

/// Raises the soft limit of open files to the hard one, and says what it is now.
pub fn raise_descriptors_max() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smaps_rollup_is_read() {
        let text = "5647-7ffd ---p 00000000 00:00 0 [rollup]\nRss:    1500 kB\nPss: 900 kB\n\
                    Private_Clean:      12 kB\nPrivate_Dirty:     100 kB\n";
        let want = Memory { rss_bytes: 1500 * 1024, private_bytes: 112 * 1024 };
        assert_eq!(parse_smaps_rollup(text), Some(want));
        assert_eq!(parse_smaps_rollup("Rss: 1500 kB\n"), None);
    }

    #[test]
    fn listeners_are_told_from_connections() {
        let listener = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00 0";
        assert_eq!(parse_listener(listener), Some(Some((8080, 3))));
        let conn = "   1: 0100007F:1F90 0100007F:1234 01 00000000:00000000 00:00000000 00 0";
        assert_eq!(parse_listener(conn), Some(None));
        assert_eq!(parse_listener("   2: nonsense"), None);
    }

    #[test]
    fn own_cpu_time_grows_with_work() {
        let pid = std::process::id();
        let own = || {
            let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let (before, at_first) = (cpu_time(pid).unwrap(), own());
        let mut x = 1u64;
        while own() - at_first < 20_000_000 {
            x = std::hint::black_box(x.wrapping_mul(31));
        }
        let after = cpu_time(pid).unwrap();
        assert!(!before.threads.is_empty());
        let spent = cpu_between(&before, &after);
        assert!(spent.ns >= 10_000_000, "{spent:?} counted for at least 20 ms of work");
    }

    #[test]
    fn a_thread_that_ended_leaves_the_coarse_count() {
        let before = CpuTime { threads_ns: 5, process_ns: 10, threads: vec![1, 2] };
        let more = CpuTime { threads_ns: 9, process_ns: 20, threads: vec![1, 2, 3] };
        assert_eq!(cpu_between(&before, &more), CpuSpent { ns: 4, exact: true });
        let less = CpuTime { threads: vec![1, 3], ..more };
        assert_eq!(cpu_between(&before, &less), CpuSpent { ns: 10, exact: false });
    }

    #[test]
    fn stat_files_are_read() {
        let text = "42 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 99";
        assert_eq!(parse_stat(text), Some(175 * TICK_NS));
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 3 1000 50 4 5 6 0 0\ncpu10 0 0 0 7\n";
        assert_eq!(parse_core_busy(text, 0), Some(21 * TICK_NS));
        assert_eq!(parse_core_busy(text, 1), None);
    }
}
