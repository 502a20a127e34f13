//! Where it was measured: figures without that are not figures.

use std::fmt;
use std::fs;

use serde::Serialize;

/// A machine in some words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor.
    pub processor: String,
    /// How many cores this program may use.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// How busy it was before, in runnable programs over a minute.
    pub load: String,
}

impl Machine {
    /// This one, as far as it can be told.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let processor = parse_processor(&read("/proc/cpuinfo")).unwrap_or("unknown").to_owned();
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        let load = read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let online = read("/proc/cpuinfo").matches("\nprocessor\t").count() + 1;
        Self { processor, cores: cores.max(online), kernel, load }
    }
}

fn parse_processor(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, kernel, load } = self;
        write!(f, "{processor}, {cores} cores, Linux {kernel}, load before {load}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_a_name() {
        let text = "processor\t: 0\nmodel name\t: A fast one @ 3 GHz\n";
        assert_eq!(parse_processor(text), Some("A fast one @ 3 GHz"));
        assert_eq!(parse_processor(""), None);
        assert!(Machine::here().cores > 0);
    }
}
