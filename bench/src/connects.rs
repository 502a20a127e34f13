//! What it costs to come and go: connections that are made, greeted, and ended.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::clients;
use crate::interrupt::Interrupt;
use crate::process;
use crate::server::Server;
use crate::traffic::topic_name;
use crate::wire::Role;

/// How long the server's CPU time has to stand still until it is taken to rest.
const QUIET: Duration = Duration::from_millis(30);
/// How long that may take.
const QUIET_MAX: Duration = Duration::from_secs(10);

/// What a number of connections cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Connects {
    /// How many.
    pub connections: usize,
    /// Until all were accepted, and greeted where one greets.
    pub elapsed_ns: u64,
    /// CPU time of the server for all of them, their end included.
    pub server_cpu_ns: u64,
}

impl Connects {
    /// Makes and ends so many connections.
    pub fn measure(server: &Server, connections: usize, interrupt: &Interrupt) -> Result<Self> {
        let (pid, addr) = (server.pid(), server.addr());
        let topic = topic_name(0);
        wait_quiet(pid, interrupt)?;
        let (before, began) = (process::cpu_time(pid)?, Instant::now());
        let streams = clients::connect_all(|_| addr, connections, interrupt)?;
        let seat = |_| (Role::Reader, topic.as_str());
        let clients = clients::greet_all(streams, server.place().format, seat, interrupt)?;
        let elapsed_ns = began.elapsed().as_nanos() as u64;
        drop(clients);
        wait_quiet(pid, interrupt)?;
        let spent = process::cpu_between(&before, &process::cpu_time(pid)?);
        Ok(Self { connections, elapsed_ns, server_cpu_ns: spent.ns })
    }

    /// Connections a second, one waiting for nothing but those before it to be accepted.
    pub fn per_second(&self) -> f64 {
        self.connections as f64 * 1e9 / self.elapsed_ns as f64
    }

    /// CPU nanoseconds of the server for each.
    pub fn cpu_ns(&self) -> f64 {
        self.server_cpu_ns as f64 / self.connections as f64
    }
}

/// Waits until a process does nothing.
pub(crate) fn wait_quiet(pid: u32, interrupt: &Interrupt) -> Result<()> {
    let end = Instant::now() + QUIET_MAX;
    let mut last = process::cpu_time(pid)?.threads_ns;
    while Instant::now() < end {
        std::thread::sleep(QUIET);
        interrupt.check()?;
        let now = process::cpu_time(pid)?.threads_ns;
        // Timers of an idle server take some microseconds.
        if now.saturating_sub(last) < QUIET.as_nanos() as u64 / 100 {
            return Ok(());
        }
        last = now;
    }
    bail!("the server does not come to rest within {} s", QUIET_MAX.as_secs());
}
