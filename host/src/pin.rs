//! A core for each shard, where the system lets one choose.

/// Cores that this process may run on.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps the calling thread on the core that is number `nth` of those that the process may run on.
/// Gives whether that was possible; where it was not, the system moves the thread as it likes.
#[cfg(all(target_os = "linux", not(wardline_portable)))]
pub fn to_core(nth: usize) -> bool {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(all) = sched_getaffinity(None) else { return false };
    let mine = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).nth(nth);
    let Some(mine) = mine else { return false };
    let mut one = CpuSet::new();
    one.set(mine);
    sched_setaffinity(None, &one).is_ok()
}

/// Nobody is asked here.
#[cfg(not(all(target_os = "linux", not(wardline_portable))))]
pub fn to_core(_: usize) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_first_core_and_no_thousandth() {
        assert!(cores() >= 1);
        let pinned = std::thread::spawn(|| to_core(0)).join().unwrap();
        assert_eq!(pinned, cfg!(all(target_os = "linux", not(wardline_portable))));
        assert!(!std::thread::spawn(|| to_core(100_000)).join().unwrap());
    }
}
