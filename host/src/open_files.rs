//! How many files, so how many sockets, this process may have open.

/// Files that a process has open beside its connections: logs, listeners, the event queue.
const BESIDE: u64 = 64;

/// Sees to it that so many connections can be open at once, as far as the system lets this process
/// say so. Gives how many connections can be, where that is fewer.
///
/// Systems start a process with room for some hundred files and allow it many more; a relay that
/// takes thousands of connections has to ask.
#[must_use]
pub fn allow(connections: u32) -> Option<u64> {
    let wanted = u64::from(connections).saturating_add(BESIDE);
    let allowed = limit::raise(wanted)?;
    (allowed < wanted).then(|| allowed.saturating_sub(BESIDE))
}

#[cfg(all(unix, not(wardline_portable)))]
mod limit {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    /// Raises the limit to `wanted` or as near as can be; gives what it is then, and nothing where
    /// there is none.
    pub(super) fn raise(wanted: u64) -> Option<u64> {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        let current = current?;
        if current >= wanted {
            return Some(current);
        }
        let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
            Ok(()) => Some(raised),
            Err(_) => Some(current),
        }
    }
}

#[cfg(not(all(unix, not(wardline_portable))))]
mod limit {
    /// There is no limit to raise, or no way to.
    pub(super) fn raise(_: u64) -> Option<u64> {
        None
    }
}

#[cfg(all(test, unix, not(wardline_portable)))]
mod tests {
    use rustix::process::{Resource, getrlimit};

    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        assert_eq!(allow(1), None);
        match maximum {
            Some(maximum) if maximum < u64::from(u32::MAX) => {
                assert_eq!(allow(u32::MAX), Some(maximum.saturating_sub(BESIDE)));
                assert_eq!(getrlimit(Resource::Nofile).current, Some(maximum));
            }
            Some(_) | None => assert_eq!(allow(u32::MAX), None),
        }
    }
}
