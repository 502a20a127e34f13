//! `load back`: native agents that all come at once, lose their connections, and all come back: how
//! long that takes, and what it costs the relay.
//!
//! They come in waves: while the relay works on some, the others do their own part on the load's
//! core. Keys and first messages are made beforehand. Who comes from this machine is exempt from
//! the limits of an address; the limit of all is lifted, and whoever is refused fails the run: so
//! what is measured is never a limit.

use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;
use serde::Serialize;
use wardline_core::native::SigningKey;
use wardline_core::native::handshake::client::Resumption;

use crate::connects::wait_quiet;
use crate::interrupt::Interrupt;
use crate::native::End;
use crate::native::join::{Hello, Waiting, first_words, key_of};
use crate::process;
use crate::progress::Progress;
use crate::server::{Kind, Launch, Server, Spec};
use crate::stats::Spread;

/// Agents of a wave: below any backlog, and below the handshakes that a relay has under way.
const WAVE: usize = 256;
/// Handshakes per second are not what is asked here.
const NO_LIMIT: &str = "native.handshakes_total_per_second=1000000";
/// Files open beside the agents' connections.
const DESCRIPTORS_SPARE: u64 = 64;
/// What it may take, an agent: 10,000 have come in 6 s, and are back in 2 s.
const FULL_MAX: Duration = Duration::from_micros(600);
const RESUME_MAX: Duration = Duration::from_micros(200);

/// A storm of so many.
#[derive(Debug, Clone)]
pub struct Back {
    /// How the relay is started.
    pub launch: Launch,
    /// How many agents.
    pub agents: usize,
    /// How often: each time with a relay of its own.
    pub rounds: usize,
    /// The core of the agents.
    pub load_core: Option<usize>,
    /// Whether it fails where it takes too long.
    pub budget: bool,
}

/// How long one way took, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Storm {
    /// From the first connect to the last agent that has its session, in seconds.
    pub seconds: Spread,
    /// CPU time of the relay for all of them, in seconds.
    pub cpu_seconds: Spread,
    /// The most seconds that keep the budget.
    pub most: f64,
}

/// What it came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BackReport {
    /// How many agents.
    pub agents: usize,
    /// How often.
    pub rounds: usize,
    /// Full handshakes.
    pub full: Storm,
    /// The same agents by resume, after all connections were lost.
    pub resumed: Storm,
    /// Whether it fails where it takes too long.
    pub budget: bool,
}

/// Seconds, and those of the relay's CPU.
type Took = (f64, f64);

impl Back {
    /// Lets them come, go, and come back.
    ///
    /// # Errors
    /// An agent that is refused, or whose session is not held any more; too few open files.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<BackReport> {
        let limit = process::raise_descriptors_max()?;
        if limit < self.agents as u64 + DESCRIPTORS_SPARE {
            bail!("only {limit} files may be open here: too few for {} agents", self.agents);
        }
        if let Some(core) = self.load_core {
            process::pin_self(core)?;
        }
        let keys: Vec<SigningKey> = (0..self.agents as u64).map(key_of).collect();
        let (mut full, mut resumed) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let done = format!("round {}/{}: {} agents", round + 1, self.rounds, self.agents);
            let (came, back) = self.round(&keys, &done, interrupt, progress)?;
            full.push(came);
            resumed.push(back);
        }
        progress.clear();
        let storm = |took: &[Took], each: Duration| Storm {
            seconds: Spread::of(took.iter().map(|(seconds, _)| *seconds)),
            cpu_seconds: Spread::of(took.iter().map(|(_, cpu)| *cpu)),
            most: each.as_secs_f64() * self.agents as f64,
        };
        let Self { agents, rounds, budget, .. } = *self;
        let (full, resumed) = (storm(&full, FULL_MAX), storm(&resumed, RESUME_MAX));
        Ok(BackReport { agents, rounds, full, resumed, budget })
    }

    fn round(
        &self,
        keys: &[SigningKey],
        done: &str,
        interrupt: &Interrupt,
        progress: &Progress,
    ) -> Result<(Took, Took)> {
        let mut launch = self.launch.clone();
        launch.settings.push(NO_LIMIT.to_owned());
        let server = Server::start(&launch, &Spec { kind: Kind::Native, program: None })?;
        progress.show(&format!("{done} come"));
        let (came, ends) = storm(&server, keys, None, interrupt)?;
        progress.show(&format!("{done} lose their connections, and come back"));
        let mut held = Vec::with_capacity(ends.len());
        for (stream, resumption) in ends {
            // A reset: what a crash or a lost network is to the relay.
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
            held.push(resumption);
        }
        wait_quiet(server.pid(), interrupt)?;
        let (back, _) = storm(&server, keys, Some(&held), interrupt)?;
        server.stop()?;
        Ok((came, back))
    }
}

/// Everybody comes, wave after wave.
fn storm(
    server: &Server,
    keys: &[SigningKey],
    held: Option<&[Resumption]>,
    interrupt: &Interrupt,
) -> Result<(Took, Vec<(TcpStream, Resumption)>)> {
    let hellos = keys
        .iter()
        .enumerate()
        .map(|(number, key)| Some(first_words(key, number as u64, held.map(|held| &held[number]))));
    let mut hellos: Vec<Option<(Hello, Waiting<'_>)>> = hellos.collect();
    wait_quiet(server.pid(), interrupt)?;
    let mut ends = Vec::with_capacity(keys.len());
    let (before, began) = (process::cpu_time(server.pid())?, Instant::now());
    for (number, hellos) in hellos.chunks_mut(WAVE).enumerate() {
        interrupt.check()?;
        let came = wave(server, hellos, held.is_some());
        let of = || server.said(&format!("in the wave from agent {}", number * WAVE));
        ends.extend(came.with_context(of)?);
    }
    let seconds = began.elapsed().as_secs_f64();
    let spent = process::cpu_between(&before, &process::cpu_time(server.pid())?);
    Ok(((seconds, spent.ns as f64 / 1e9), ends))
}

/// Each says HELLO; then each proves who it is, as it is asked; then each is waited for.
fn wave(
    server: &Server,
    hellos: &mut [Option<(Hello, Waiting<'_>)>],
    resumes: bool,
) -> Result<Vec<(TcpStream, Resumption)>> {
    let mut under_way = Vec::with_capacity(hellos.len());
    for hello in hellos {
        let (hello, waiting) = hello.take().context("a first message for each")?;
        let mut stream = TcpStream::connect(server.addr())?;
        stream.set_nodelay(true)?;
        stream.write_all(hello.as_bytes())?;
        under_way.push((stream, waiting));
    }
    let mut answered = Vec::with_capacity(under_way.len());
    for (mut stream, waiting) in under_way {
        let answer = waiting.answer(&mut stream)?;
        ensure!(answer.is_resumed() == resumes, "the relay does not hold the session");
        answered.push((stream, answer));
    }
    let mut came = Vec::with_capacity(answered.len());
    for (mut stream, answer) in answered {
        let (_, resumption) = End::settle(&mut stream, answer)?;
        came.push((stream, resumption));
    }
    Ok(came)
}

impl BackReport {
    /// Whether it did not take too long, or nobody asked.
    pub fn passed(&self) -> bool {
        !self.budget || (self.full.kept() && self.resumed.kept())
    }
}

impl Storm {
    /// Whether the budget is kept.
    pub fn kept(&self) -> bool {
        self.seconds.median <= self.most
    }
}

impl fmt::Display for BackReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agents, rounds, full, resumed, .. } = self;
        writeln!(f, "{agents} agents, median of {rounds} rounds [least .. most]:")?;
        for (way, storm) in [("full handshakes", full), ("resumes", resumed)] {
            let Storm { seconds: Spread { median, min, max }, cpu_seconds, most } = storm;
            let kept = if storm.kept() { "kept" } else { "NOT KEPT" };
            let cpu_us = cpu_seconds.median * 1e6 / *agents as f64;
            write!(f, "  {way:<16} {median:>7.3} s [{min:.3} .. {max:.3}], at most {most:.3}: ")?;
            write!(f, "{kept}; of the relay {:.3} s of CPU, ", cpu_seconds.median)?;
            writeln!(f, "{cpu_us:.1} us each, {:.0} a second", 1e6 / cpu_us)?;
        }
        Ok(())
    }
}
