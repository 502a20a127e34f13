//! The memory that a configuration reserves, before anything is started.

use std::fmt;
use std::fs;

use serde_json::{Value, json};

use crate::links::{ARRIVALS_BYTES, ring_bytes};
use crate::logging;
use crate::net::NOT_SENT_BYTES_MAX;
use crate::settings::{Engine, Loaded};
use crate::storage::{Sizes, per_shard};

/// What the process itself takes: code, the allocator, tables of the runtime, and the stacks of its
/// threads as far as they are used. Measured at rest: under 4 MiB.
const PROCESS_BYTES: u64 = 6 << 20;

/// The plan: what is reserved, item by item, and what the kernel may take beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The engine that it is for.
    pub engine: Engine,
    /// What the process reserves.
    pub items: Vec<Item>,
    /// Threads that relay; `items` are of all of them together.
    pub shards: u8,
    /// Bytes of each of them.
    each_shard: u64,
    /// What the kernel may take for sockets.
    pub kernel: Kernel,
}

/// Memory of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// `lent`, `engine` or `process`.
    pub group: &'static str,
    /// What it is for.
    pub name: &'static str,
    /// How many.
    pub count: u64,
    /// Bytes of one.
    pub each: u64,
}

impl Item {
    /// Memory of an engine.
    #[must_use]
    pub fn engine(name: &'static str, count: u64, each: u64) -> Self {
        Self { group: "engine", name, count, each }
    }

    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }
}

/// Bounds of the kernel's memory for sockets. It is not this process's, and it is not reserved: a
/// connection whose peer reads and writes keeps next to nothing there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Connections.
    pub connections: u64,
    /// Bytes of one that may wait there unsent: `TCP_NOTSENT_LOWAT`, and the send that crosses it.
    pub unsent_each: u64,
    /// Bytes that one may take when its peer acknowledges nothing and is not read either: the
    /// largest buffers that the system allows. `None` where it does not say.
    pub buffers_each: Option<u64>,
    /// Bytes that all sockets of the machine may take. `None` where it does not say.
    pub machine: Option<u64>,
}

impl Kernel {
    /// Bytes that all connections may have waiting unsent.
    #[must_use]
    pub fn unsent(&self) -> u64 {
        let unsent = self.connections.saturating_mul(self.unsent_each);
        self.machine.map_or(unsent, |machine| unsent.min(machine))
    }

    /// The most that the kernel gives them, whatever they do.
    #[must_use]
    pub fn bound(&self) -> Option<u64> {
        let buffers = self.buffers_each.map(|each| each.saturating_mul(self.connections));
        match (buffers, self.machine) {
            (Some(buffers), Some(machine)) => Some(buffers.min(machine)),
            (one, other) => one.or(other),
        }
    }
}

impl Plan {
    /// The plan of settings that were loaded, on an engine that keeps `memory` beside what it is
    /// lent.
    #[must_use]
    pub fn of(loaded: &Loaded, engine: Engine, memory: Vec<Item>) -> Self {
        let log = &loaded.settings.log;
        let shards = loaded.settings.server.shards.count();
        let limits = &per_shard(&loaded.limits, shards);
        let lent = Sizes::of_shard(limits, &loaded.settings, shards);
        let times = |group: &str| if group == "process" { 1 } else { u64::from(shards) };
        let item = |group, name, count: u64, each| {
            let count = count.saturating_mul(times(group));
            Item { group, name, count, each }
        };
        let mut items = Vec::new();
        let mut each_shard = 0;
        for (name, count, each) in lent.tables() {
            each_shard += count.saturating_mul(each) as u64;
            match name {
                "pool" => {
                    let (blocks, segments) = (limits.blocks.into(), limits.segments.into());
                    items.push(item("lent", "pool blocks", blocks, limits.block_bytes.into()));
                    items.push(item(
                        "lent",
                        "pool segments",
                        segments,
                        limits.segment_bytes.into(),
                    ));
                }
                _ if count == 0 => {}
                _ => {
                    items.push(item("lent", name, count as u64, each as u64));
                }
            }
        }
        let connections = lent.sessions as u64;
        for Item { group, name, count, each } in memory {
            items.push(item(group, name, count, each));
        }
        if shards > 1 {
            let rings = 2 * (u64::from(shards) - 1);
            items.push(item("engine", "rings to other shards", rings, ring_bytes(limits) as u64));
            let scratch = limits.record_bytes_max().max(64 << 10) as u64;
            items.push(item("engine", "link scratch", 1, scratch));
            items.push(item("engine", "connections that move", 1, ARRIVALS_BYTES as u64));
        }
        let engines: u64 =
            items.iter().filter(|item| item.group == "engine").map(Item::bytes).sum();
        each_shard += engines / u64::from(shards);
        let places = u64::from(log.stderr) + u64::from(log.file.is_some());
        items.push(item("process", "log queue", places, logging::QUEUE_BYTES));
        items.push(item("process", "code, runtime, stacks", 1, PROCESS_BYTES));
        let kernel = Kernel {
            connections: connections.saturating_mul(u64::from(shards)),
            unsent_each: NOT_SENT_BYTES_MAX + u64::from(limits.send_bytes),
            buffers_each: buffer_bytes_max(),
            machine: machine_bytes_max(),
        };
        Self { engine, items, shards, each_shard, kernel }
    }

    /// Bytes that the process reserves in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes()))
    }

    /// Bytes of one group.
    #[must_use]
    pub fn group(&self, group: &str) -> u64 {
        let items = self.items.iter().filter(|item| item.group == group);
        items.fold(0, |sum, item| sum.saturating_add(item.bytes()))
    }

    /// The plan for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let item = |item: &Item| {
            json!({
                "group": item.group, "name": item.name,
                "count": item.count, "each": item.each, "bytes": item.bytes(),
            })
        };
        json!({
            "shards": self.shards,
            "items": self.items.iter().map(item).collect::<Vec<_>>(),
            "engine": self.engine.name(),
            "lent_bytes": self.group("lent"),
            "engine_bytes": self.group("engine"),
            "process_bytes": self.group("process"),
            "total_bytes": self.total(),
            "kernel": {
                "connections": self.kernel.connections,
                "unsent_each_bytes": self.kernel.unsent_each,
                "unsent_bytes": self.kernel.unsent(),
                "buffers_each_bytes": self.kernel.buffers_each,
                "machine_bytes": self.kernel.machine,
                "bound_bytes": self.kernel.bound(),
            },
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10}{:<24}{:>10}{:>12}{:>14}", "", "", "count", "each", "in all")?;
        let mut group = "";
        for item in &self.items {
            let shown = if item.group == group { "" } else { item.group };
            group = item.group;
            let (each, all) = (short(item.each), short(item.bytes()));
            writeln!(f, "{shown:<10}{:<24}{:>10}{each:>12}{all:>14}", item.name, item.count)?;
        }
        writeln!(f)?;
        for group in ["lent", "engine", "process"] {
            writeln!(f, "{group:<56}{:>14}", short(self.group(group)))?;
        }
        if self.shards > 1 {
            let name = format!("each of {} shards, of the first two", self.shards);
            writeln!(f, "{name:<56}{:>14}", short(self.each_shard))?;
        }
        writeln!(f, "{:<56}{:>14}", "in all, at most", short(self.total()))?;
        writeln!(f, "\nEngine {}. Untouched memory is not resident.\n", self.engine.name())?;
        let kernel = &self.kernel;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, each, all| {
            writeln!(f, "{:<10}{name:<24}{:>10}{each:>12}{all:>14}", "kernel", kernel.connections)
        };
        row(f, "waiting unsent", short(kernel.unsent_each), short(kernel.unsent()))?;
        if let (Some(each), Some(bound)) = (kernel.buffers_each, kernel.bound()) {
            row(f, "all buffers, at most", short(each), short(bound))?;
        }
        Ok(())
    }
}

/// Bytes in the unit that keeps at most five digits.
fn short(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let mut unit = 0;
    let mut shown = bytes;
    while shown >= 10_000 && unit + 1 < UNITS.len() {
        // Rounded up: a plan must not promise less than is taken.
        shown = shown.div_ceil(1_024);
        unit += 1;
    }
    format!("{shown} {}", UNITS[unit])
}

/// The largest buffers of one socket, both directions, that Linux grows it to.
fn buffer_bytes_max() -> Option<u64> {
    let wmem = third_number("/proc/sys/net/ipv4/tcp_wmem")?;
    let rmem = third_number("/proc/sys/net/ipv4/tcp_rmem")?;
    Some(wmem.saturating_add(rmem))
}

/// What all TCP sockets of the machine may take.
fn machine_bytes_max() -> Option<u64> {
    /// Of the machines that Linux runs on, those with larger pages say so elsewhere; counted in
    /// the smallest, the figure is at most too low.
    const PAGE: u64 = 4_096;
    third_number("/proc/sys/net/ipv4/tcp_mem").map(|pages| pages.saturating_mul(PAGE))
}

fn third_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Sources;

    fn plan(pairs: &[&str]) -> Plan {
        let sets = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let loaded = Sources { sets, ..Sources::default() }.load().unwrap();
        let memory = vec![Item::engine("connections", 7, 1_024)];
        Plan::of(&loaded, Engine::Tokio, memory)
    }

    fn item(plan: &Plan, name: &str) -> Item {
        plan.items.iter().find(|item| item.name == name).unwrap().clone()
    }

    #[test]
    fn the_plan_adds_up_and_follows_the_settings() {
        let plan = plan(&["limits.connections=1000", "limits.blocks=1MiB", "limits.segments=8MiB"]);
        assert_eq!(item(&plan, "sessions").count, 1_032);
        assert_eq!(item(&plan, "pool blocks").bytes(), 1 << 20);
        assert_eq!(item(&plan, "pool segments").bytes(), 8 << 20);
        assert_eq!(item(&plan, "log queue").count, 1);
        assert_eq!(plan.group("engine"), 7 << 10);
        let groups = ["lent", "engine", "process"].map(|group| plan.group(group));
        assert_eq!(groups.iter().sum::<u64>(), plan.total());
        let tables: usize = Sizes::of(
            &Sources { sets: vec!["limits.connections=1000".to_owned()], ..Sources::default() }
                .load()
                .unwrap()
                .limits,
            &crate::settings::Settings::default(),
        )
        .tables()
        .iter()
        .filter(|(name, ..)| *name != "pool" && *name != "links")
        .map(|(_, count, each)| count * each)
        .sum();
        let pool_and_links =
            ["pool blocks", "pool segments", "links"].map(|name| item(&plan, name).bytes());
        assert_eq!(plan.group("lent"), tables as u64 + pool_and_links.iter().sum::<u64>());
    }

    #[test]
    fn the_defaults_reserve_little_more_than_the_pool() {
        let plan = plan(&[]);
        let total = plan.total();
        assert!((96 << 20..160 << 20).contains(&total), "{total}");
    }

    #[test]
    fn table_and_json_say_the_same() {
        let plan = plan(&["log.file=/x.log"]);
        let json = plan.json();
        assert_eq!(json["total_bytes"], plan.total());
        assert_eq!(json["items"].as_array().unwrap().len(), plan.items.len());
        let text = plan.to_string();
        for item in &plan.items {
            assert!(text.contains(item.name), "{}", item.name);
        }
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("kernel"), "{text}");
        assert!(text.contains("Engine tokio.") && json["engine"] == "tokio", "{text}");
    }

    #[test]
    fn the_kernel_is_bounded_by_the_smaller_bound() {
        let kernel =
            Kernel { connections: 10, unsent_each: 2, buffers_each: Some(5), machine: None };
        assert_eq!((kernel.unsent(), kernel.bound()), (20, Some(50)));
        let small = Kernel { machine: Some(7), ..kernel };
        assert_eq!((small.unsent(), small.bound()), (7, Some(7)));
        assert_eq!(Kernel { buffers_each: None, ..kernel }.bound(), None);
    }

    #[test]
    fn sizes_are_short_and_never_too_small() {
        let cases = [
            (0, "0 B"),
            (9_999, "9999 B"),
            (10_000, "10 KiB"),
            (65_536, "64 KiB"),
            (32 << 20, "32 MiB"),
            (u64::MAX, "17179869184 GiB"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(short(bytes), shown);
        }
    }
}
