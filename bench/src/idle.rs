//! `load idle`: what a connection costs that does nothing.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags};
use serde::Serialize;

use crate::clients::{self, Client};
use crate::interrupt::Interrupt;
use crate::line::shown;
use crate::process::{self, Memory};
use crate::progress::Progress;
use crate::server::{Launch, Server, Spec};
use crate::traffic::topic_name;
use crate::wire::{Format, Role};

/// How long the server's memory may take until it stands still.
const SETTLE_MAX: Duration = Duration::from_secs(5);
/// Descriptors that a process needs besides its connections.
const DESCRIPTORS_SPARE: u64 = 100;

/// A measurement of idle connections.
#[derive(Debug, Clone)]
pub struct Idle {
    /// The server.
    pub spec: Spec,
    /// How it is started.
    pub launch: Launch,
    /// How many connections.
    pub connections: usize,
    /// The greatest growth for each connection that passes, in bytes.
    pub budget_bytes: Option<u64>,
}

/// What they cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct IdleReport {
    /// How many connections.
    pub connections: usize,
    /// The server before the first one.
    pub before: Memory,
    /// The server with all of them open.
    pub after: Memory,
    /// Growth of private memory for each connection.
    pub bytes_per_connection: f64,
    /// The greatest growth that passes.
    pub budget_bytes: Option<u64>,
}

impl Idle {
    /// Opens the connections to a server that was started for it.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<IdleReport> {
        let limit = process::raise_descriptors_max()?;
        if limit < self.connections as u64 + DESCRIPTORS_SPARE {
            bail!("only {limit} files may be open here: too few for {} clients", self.connections);
        }
        progress.show(&format!("{} connections to {}", self.connections, self.spec.kind));
        let server = Server::start(&self.launch, &self.spec)?;
        let measured = self.with(&server, interrupt);
        progress.clear();
        let report = measured.with_context(|| server.said("had idle connections"))?;
        server.stop()?;
        Ok(report)
    }

    fn with(&self, server: &Server, interrupt: &Interrupt) -> Result<IdleReport> {
        let pid = server.pid();
        let before = process::settled_memory(pid, SETTLE_MAX)?;
        let (addr, format) = (server.addr(), server.place().format);
        let topic = topic_name(0);
        let streams = clients::connect_all(|_| addr, self.connections, interrupt)?;
        let seat = |_| (Role::Reader, topic.as_str());
        let clients = clients::greet_all(streams, format, seat, interrupt)?;
        let after = process::settled_memory(pid, SETTLE_MAX)?;
        for (index, client) in clients.iter().enumerate() {
            still_open(client, format).with_context(|| format!("connection {index}"))?;
        }
        let growth = after.private_bytes as f64 - before.private_bytes as f64;
        Ok(IdleReport {
            connections: self.connections,
            before,
            after,
            bytes_per_connection: growth / self.connections as f64,
            budget_bytes: self.budget_bytes,
        })
    }
}

/// An idle connection is open, and nothing was said on it but what the wire asks of everybody.
fn still_open(client: &Client, format: Format) -> Result<()> {
    let (question, _) = format.question();
    let mut said = client.begun.clone();
    let mut bytes = [0; 300];
    match net::recv(&client.stream, bytes.as_mut_slice(), RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Err(Errno::AGAIN) => {}
        Ok((0, _)) => bail!("the server closed it"),
        Ok((got, _)) => said.extend_from_slice(&bytes[..got]),
        Err(error) => return Err(error.into()),
    }
    let asked = question.repeat(said.len() / question.len().max(1));
    if said != asked {
        bail!("the server said {:?}", shown(&said));
    }
    Ok(())
}

impl IdleReport {
    /// Whether the budget, if there was one, was kept.
    pub fn passed(&self) -> bool {
        self.budget_bytes.is_none_or(|budget| self.bytes_per_connection <= budget as f64)
    }
}

impl fmt::Display for IdleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        let (before, after) = (self.before, self.after);
        writeln!(
            f,
            "{} idle connections: private {:.2} MB -> {:.2} MB, RSS {:.2} MB -> {:.2} MB",
            self.connections,
            mb(before.private_bytes),
            mb(after.private_bytes),
            mb(before.rss_bytes),
            mb(after.rss_bytes),
        )?;
        write!(f, "{:.0} bytes for each connection", self.bytes_per_connection)?;
        match self.budget_bytes {
            Some(budget) if self.passed() => writeln!(f, "; budget {budget} bytes: kept"),
            Some(budget) => writeln!(f, "; budget {budget} bytes: NOT KEPT"),
            None => writeln!(f),
        }
    }
}
