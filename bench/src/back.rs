//! `load back`: native agents that all come at once, lose their connections, and all come back: how
//! long that takes, and what it costs the relay.

use std::fmt;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::net::sockopt;
use serde::Serialize;
use wardline_core::native::handshake::client::Resumption;

use crate::interrupt::Interrupt;
use crate::native::End;
use crate::process;
use crate::progress::Progress;
use crate::server::{Kind, Launch, Server, Spec};

/// A storm of so many.
#[derive(Debug, Clone)]
pub struct Back {
    /// How the relay is started.
    pub launch: Launch,
    /// How many agents.
    pub agents: usize,
    /// The core of the agents.
    pub load_core: Option<usize>,
}

/// Handshakes per second are not what is asked here.
const NO_LIMIT: &str = "native.handshakes_total_per_second=1000000";

/// How long one way took, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Storm {
    /// From the first connect to the last agent that has its session, in seconds. The agents'
    /// own work is in it, one after the other.
    pub seconds: f64,
    /// CPU time of the relay for each, in microseconds.
    pub cpu_us: f64,
}

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BackReport {
    /// How many agents.
    pub agents: usize,
    /// Full handshakes.
    pub full: Storm,
    /// The same agents by resume, after all connections were lost.
    pub resumed: Storm,
}

impl Back {
    /// Lets them come, go, and come back.
    ///
    /// # Errors
    /// An agent that is refused, or whose session is not held any more.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<BackReport> {
        process::raise_descriptors_max()?;
        let spec = Spec { kind: Kind::Native, program: None };
        let mut launch = self.launch.clone();
        launch.settings.push(NO_LIMIT.to_owned());
        let server = Server::start(&launch, &spec)?;
        if let Some(core) = self.load_core {
            process::pin_self(core)?;
        }
        progress.show(&format!("{} agents come", self.agents));
        let (full, ends) = self.storm(&server, None, interrupt)?;
        progress.show("and lose their connections, and come back");
        let mut held = Vec::with_capacity(ends.len());
        for (stream, resumption) in ends {
            // A reset: what a crash or a lost network is to the relay.
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            held.push(resumption);
        }
        let (resumed, _) = self.storm(&server, Some(&held), interrupt)?;
        progress.clear();
        server.stop()?;
        Ok(BackReport { agents: self.agents, full, resumed })
    }

    fn storm(
        &self,
        server: &Server,
        held: Option<&[Resumption]>,
        interrupt: &Interrupt,
    ) -> Result<(Storm, Vec<(TcpStream, Resumption)>)> {
        let mut ends = Vec::with_capacity(self.agents);
        let (before, began) = (process::cpu_time(server.pid())?, Instant::now());
        for number in 0..self.agents {
            interrupt.check()?;
            let mut stream = TcpStream::connect(server.addr())?;
            stream.set_nodelay(true)?;
            let held = held.map(|held| &held[number]);
            let (_, held) = End::shake(&mut stream, number as u64, held)
                .with_context(|| server.said(&format!("agent {number}")))?;
            ends.push((stream, held));
        }
        let seconds = began.elapsed().as_secs_f64();
        let spent = process::cpu_between(&before, &process::cpu_time(server.pid())?);
        let cpu_us = spent.ns as f64 / 1e3 / self.agents as f64;
        Ok((Storm { seconds, cpu_us }, ends))
    }
}

impl fmt::Display for BackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agents, full, resumed } = self;
        writeln!(f, "{agents} agents, one after the other:")?;
        for (way, storm) in [("full handshakes", full), ("resumes", resumed)] {
            let Storm { seconds, cpu_us } = storm;
            writeln!(f, "  {way:<16} {seconds:>7.3} s, {cpu_us:>7.1} us of the relay each")?;
        }
        Ok(())
    }
}
