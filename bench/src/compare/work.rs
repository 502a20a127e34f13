//! Workloads by name: what is measured, in a word that can be typed.
//!
//! ```text
//! 1to100            one publisher, a hundred readers, 64 bytes, 256 in flight
//! 1to100-1k-w32     the same with 1 KiB and 32 in flight
//! 1to100-at5000     64 bytes, 5,000 messages a second: an open loop
//! 1to1-x500-w1      500 topics, each with one publisher and one reader
//! idle-10000        memory of so many connections that do nothing
//! connects-2000     so many connections, one after the other, and their end
//! 1to1-f1           one frame in each record of the native dialect, not as many as fit
//! rtt, rtt-1k       there and back again between two clients, one message in flight
//! rtt-request       the same by REQUEST and REPLY, where there is such a thing
//! daemons-200-at100 so many daemons, which are asked so many questions a second
//! ```

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::blind;
use crate::line::{PAYLOAD_MIN, PUBLISHERS_MAX};
use crate::traffic::Workload;
use crate::wire::Format;

/// Payload bytes where a name says nothing.
const SIZE: usize = 64;
/// Messages in flight where a name says nothing.
const WINDOW: u64 = 256;
/// The largest payload: what NATS takes without being told.
const SIZE_MAX: usize = 1 << 20;
/// Topics that a name may ask for: their names have five digits, and Wardline has 4,096 by default.
const TOPICS_MAX: usize = blind::ROOMS_MAX;
/// The largest payload of a round trip: what every server takes without being told.
const TRIP_MAX: usize = 32 << 10;
/// Daemons that a name may ask for.
const DAEMONS_MAX: usize = 10_000;

/// What is compared where nothing else is asked for; about ten minutes with eight targets.
pub const DEFAULT: [&str; 18] = [
    "1to1",
    "1to10",
    "1to100",
    "1to1000",
    "10to10-w32",
    "1to100-1k-w32",
    "1to100-16k-w32",
    "1to100-w1",
    "1to100-w8",
    "1to100-w32",
    "1to1-x500-w1",
    "1to100-at1000",
    "1to100-at3000",
    "1to100-at10000",
    "1to100-at30000",
    "1to100-at100000",
    "idle-10000",
    "connects-2000",
];

/// What is compared in a hurry.
pub const QUICK: [&str; 5] = ["1to1", "1to10", "1to100", "1to10-at1000", "connects-200"];

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Work {
    /// Messages, as fast as the window allows.
    Window {
        /// Who sends how much to whom.
        workload: Workload,
    },
    /// Messages at a fixed rate.
    Rate {
        /// Who sends how much to whom; the window does not matter.
        workload: Workload,
        /// Of all publishers together.
        per_second: f64,
    },
    /// Memory of connections that do nothing.
    Idle {
        /// How many.
        connections: usize,
    },
    /// The price of a connection.
    Connects {
        /// How many.
        connections: usize,
    },
    /// Round trips between two clients.
    Trips {
        /// By REQUEST and REPLY, where the server has them; else by plain messages.
        request: bool,
        /// Payload bytes, each way.
        size: usize,
    },
    /// Daemons that are asked.
    Daemons {
        /// How many.
        daemons: usize,
        /// Questions, to one after the other.
        per_second: f64,
    },
}

impl Work {
    /// Its messages, if it has any.
    pub fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Window { workload } | Self::Rate { workload, .. } => Some(workload),
            Self::Idle { .. }
            | Self::Connects { .. }
            | Self::Trips { .. }
            | Self::Daemons { .. } => None,
        }
    }

    /// Why a server with these messages cannot do this work.
    pub fn impossible(&self, format: Format) -> Option<&'static str> {
        match self {
            Self::Trips { .. } => {
                let two = matches!(format, Format::Plain | Format::Envelope | Format::Direct);
                return (!two).then_some("round trips are between two that hear each other alone");
            }
            Self::Daemons { .. } => {
                return (format != Format::Direct).then_some("it knows no requests");
            }
            Self::Window { .. } | Self::Rate { .. } | Self::Idle { .. } | Self::Connects { .. } => {
            }
        }
        let workload = self.workload()?;
        let in_flight = workload.window.saturating_mul(workload.size as u64 + 1);
        if format == Format::Direct && (workload.publishers, workload.readers) != (1, 1) {
            Some("from one peer to another is one to one")
        } else if format != Format::Plain {
            None
        } else if workload.publishers > 1 && in_flight > blind::UNCUT_BYTES_MAX {
            Some("it knows no lines and would cut them")
        } else {
            None
        }
    }
}

impl FromStr for Work {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wrong = || format!("no workload `{name}`; they are such as {}", DEFAULT.join(", "));
        let mut parts = name.split('-');
        let first = parts.next().ok_or_else(wrong)?;
        let positive = |text: &str| match text.parse::<usize>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(wrong()),
        };
        if first == "rtt" {
            return trips(parts).ok_or_else(wrong);
        }
        if first == "daemons" {
            return daemons(parts).ok_or_else(wrong);
        }
        if first == "idle" || first == "connects" {
            let connections = positive(parts.next().ok_or_else(wrong)?)?;
            return match (first, parts.next()) {
                (_, Some(_)) => Err(wrong()),
                ("idle", None) => Ok(Self::Idle { connections }),
                (_, None) => Ok(Self::Connects { connections }),
            };
        }
        let (publishers, readers) = first.split_once("to").ok_or_else(wrong)?;
        let (publishers, readers) = (positive(publishers)?, positive(readers)?);
        let (window, size, frames) = (WINDOW, SIZE, 0);
        let mut workload = Workload { topics: 1, publishers, readers, window, size, frames };
        let mut per_second = None;
        for part in parts {
            if let Some(rate) = part.strip_prefix("at") {
                per_second = Some(positive(rate)? as f64);
            } else if let Some(topics) = part.strip_prefix('x') {
                workload.topics = positive(topics)?;
            } else if let Some(window) = part.strip_prefix('w') {
                workload.window = positive(window)? as u64;
            } else if let Some(frames) = part.strip_prefix('f') {
                workload.frames = positive(frames)?;
            } else {
                workload.size = size_of(part).ok_or_else(wrong)?;
            }
        }
        let Workload { topics, publishers, size, .. } = workload;
        if !(PAYLOAD_MIN..=SIZE_MAX).contains(&size) {
            return Err(format!("`{name}`: payloads have {PAYLOAD_MIN} to {SIZE_MAX} bytes"));
        }
        if topics > TOPICS_MAX || publishers > PUBLISHERS_MAX {
            return Err(format!(
                "`{name}`: {TOPICS_MAX} topics, {PUBLISHERS_MAX} publishers at most"
            ));
        }
        Ok(match per_second {
            Some(per_second) => Self::Rate { workload, per_second },
            None => Self::Window { workload },
        })
    }
}

/// A payload's size: `1k`, `48b`.
fn size_of(part: &str) -> Option<usize> {
    let (number, unit) = match part.strip_suffix('k') {
        Some(kib) => (kib, 1024),
        None => (part.strip_suffix('b')?, 1),
    };
    number.parse::<usize>().ok()?.checked_mul(unit).filter(|&size| size > 0)
}

/// What stands behind `rtt`.
fn trips<'p>(parts: impl Iterator<Item = &'p str>) -> Option<Work> {
    let (mut request, mut size) = (false, SIZE);
    for part in parts {
        match part {
            "request" if !request => request = true,
            _ => size = size_of(part).filter(|size| (1..=TRIP_MAX).contains(size))?,
        }
    }
    Some(Work::Trips { request, size })
}

/// What stands behind `daemons`: how many, and `atN`.
fn daemons<'p>(mut parts: impl Iterator<Item = &'p str>) -> Option<Work> {
    let daemons =
        parts.next()?.parse().ok().filter(|daemons| (1..=DAEMONS_MAX).contains(daemons))?;
    let rate: usize = parts.next()?.strip_prefix("at")?.parse().ok()?;
    let per_second = (1..=100_000).contains(&rate).then_some(rate as f64)?;
    parts.next().is_none().then_some(Work::Daemons { daemons, per_second })
}

/// In words, for a headline.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Workload { topics, publishers, readers, size, frames, .. }) = self.workload() {
            write!(f, "{publishers} -> {readers}, {size} bytes, ")?;
            if *topics > 1 {
                write!(f, "on each of {topics} topics, ")?;
            }
            if *frames > 0 {
                write!(f, "{frames} a native record, ")?;
            }
        }
        match self {
            Self::Window { workload } => write!(f, "{} in flight", workload.window),
            Self::Rate { per_second, .. } => write!(f, "{per_second} messages a second"),
            Self::Idle { connections } => write!(f, "{connections} idle connections"),
            Self::Connects { connections } => write!(f, "{connections} connections made and ended"),
            Self::Trips { request, size } => {
                let by = if *request { ", by REQUEST and REPLY" } else { "" };
                write!(
                    f,
                    "there and back again, {size} bytes, one in flight{by}; a trip is two \
                           hops, and counts as one delivery"
                )
            }
            Self::Daemons { daemons, per_second } => {
                write!(
                    f,
                    "{daemons} daemons, {per_second} requests a second, each answered; \
                           latency from when it was due to its answer"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_everything() {
        let work: Work = "2to5-x3-16k-w8".parse().unwrap();
        let workload = Workload {
            topics: 3,
            publishers: 2,
            readers: 5,
            window: 8,
            size: 16 * 1024,
            frames: 0,
        };
        assert_eq!(work, Work::Window { workload });
        let Work::Rate { workload, per_second } = "1to100-at5000".parse().unwrap() else {
            panic!("not a rate");
        };
        assert_eq!((workload.size, workload.readers, per_second), (64, 100, 5000.0));
        let one_frame: Work = "1to1-f1".parse().unwrap();
        assert_eq!(one_frame.workload().map(|workload| workload.frames), Some(1));
        assert_eq!("rtt".parse(), Ok(Work::Trips { request: false, size: 64 }));
        assert_eq!("rtt-request-1k".parse(), Ok(Work::Trips { request: true, size: 1024 }));
        let daemons = Work::Daemons { daemons: 200, per_second: 100.0 };
        assert_eq!("daemons-200-at100".parse(), Ok(daemons));
        assert_eq!("idle-7".parse(), Ok(Work::Idle { connections: 7 }));
        assert_eq!("connects-9".parse(), Ok(Work::Connects { connections: 9 }));
    }

    #[test]
    fn what_is_offered_is_understood() {
        for name in DEFAULT.iter().chain(&QUICK) {
            name.parse::<Work>().unwrap();
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for name in [
            "",
            "1",
            "to",
            "0to1",
            "1to0",
            "1to1-",
            "1to1-w0",
            "1to1-20b",
            "1to1-4000k",
            "idle",
            "idle-0",
            "idle-1-2",
            "1to1-x9999",
            "1to1-q",
            "70000to1",
            "1to1-f0",
            "rtt-99k",
            "rtt-0b",
            "rtt-w1",
            "daemons-200",
            "daemons-0-at100",
            "daemons-5-at0",
            "daemons-5-at5-at5",
        ] {
            assert!(name.parse::<Work>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_blind_cannot_do_everything() {
        let plain = |name: &str| name.parse::<Work>().unwrap().impossible(Format::Plain);
        assert!(plain("2to1-16k").is_some() && plain("daemons-1-at1").is_some());
        assert!(plain("1to1-x2").is_none() && plain("rtt-request").is_none());
        assert!(plain("1to1000-16k").is_none() && plain("10to10-w32").is_none());
        let topics: Work = "1to1-x2".parse().unwrap();
        assert_eq!(topics.impossible(Format::Nats), None);
        let trips: Work = "rtt".parse().unwrap();
        assert!(trips.impossible(Format::Nats).is_some());
        assert_eq!(trips.impossible(Format::Direct), None);
    }
}
