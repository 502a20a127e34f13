//! `load away`: how much longer a message takes when it is published on another shard than the one
//! that orders its topic, or read there.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::server::{Launch, Server, Spec};
use crate::stats::Spread;

/// Shards of the server: one that is home to the topic, and one that is not.
pub const SHARDS: usize = 2;
/// Messages of a round that are not counted.
const WARM_UP: usize = 200;
/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(5);
const LINE: &[u8; 65] = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// A measurement of messages between shards, one in flight.
#[derive(Debug, Clone)]
pub struct Away {
    /// The server.
    pub spec: Spec,
    /// How it is started, with [`SHARDS`] shards.
    pub launch: Launch,
    /// Messages of a round, each way.
    pub messages: usize,
    /// How many rounds.
    pub rounds: usize,
}

/// One way: from a publisher on a shard to a reader on one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Way {
    /// The publisher's shard.
    pub from: usize,
    /// The reader's.
    pub to: usize,
    /// Median of a round's messages, in microseconds, over the rounds.
    pub p50_us: Spread,
    /// The same for the 99th percentile.
    pub p99_us: Spread,
}

/// What each way took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AwayReport {
    /// All four.
    pub ways: Vec<Way>,
    /// Messages of a round.
    pub messages: usize,
}

impl Away {
    /// Runs the rounds on one server, the ways in turn within each.
    pub fn measure(&self, interrupt: &Interrupt, progress: &Progress) -> Result<AwayReport> {
        let server = Server::start(&self.launch, &self.spec)?;
        let measured = self.with(&server, interrupt, progress);
        progress.clear();
        let report = measured.with_context(|| server.said("relayed between shards"))?;
        server.stop()?;
        Ok(report)
    }

    fn with(&self, server: &Server, stop: &Interrupt, progress: &Progress) -> Result<AwayReport> {
        let addrs = &server.place().addrs;
        if addrs.len() != SHARDS {
            bail!("it has {} listeners, and not one for each of {SHARDS} shards", addrs.len());
        }
        let ways = || (0..SHARDS).flat_map(|from| (0..SHARDS).map(move |to| (from, to)));
        let mut times: Vec<Vec<Vec<f64>>> = ways().map(|_| Vec::new()).collect();
        for round in 0..self.rounds {
            progress.show(&format!("round {}/{}", round + 1, self.rounds));
            for (at, (from, to)) in ways().enumerate() {
                stop.check()?;
                times[at].push(self.round(addrs[from], addrs[to])?);
            }
        }
        let ways = ways().zip(times).map(|((from, to), rounds)| {
            let of = |part: f64| Spread::of(rounds.iter().map(|times| percentile(times, part)));
            Way { from, to, p50_us: of(0.5), p99_us: of(0.99) }
        });
        Ok(AwayReport { ways: ways.collect(), messages: self.messages })
    }

    /// The times of one round's messages, in microseconds, in ascending order.
    fn round(&self, from: SocketAddr, to: SocketAddr) -> Result<Vec<f64>> {
        let mut publisher = connect(from)?;
        let mut reader = connect(to)?;
        // A connection that stands is not yet a member: only hearing shows it.
        let begin = Instant::now();
        reader.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut first = [0];
        loop {
            publisher.write_all(LINE)?;
            if matches!(reader.read(&mut first), Ok(1)) {
                break;
            }
            if begin.elapsed() > PATIENCE {
                bail!("a message from {from} never came to {to}");
            }
        }
        // What else was said until then comes too, and then nothing.
        while reader.read(&mut [0; 4_096]).is_ok_and(|len| len > 0) {}
        reader.set_read_timeout(Some(PATIENCE))?;
        let mut times = Vec::with_capacity(self.messages);
        let mut buffer = [0; 512];
        for number in 0..WARM_UP + self.messages {
            let began = Instant::now();
            publisher.write_all(LINE)?;
            let mut len = 0;
            while !buffer[..len].ends_with(b"\n") {
                match reader.read(&mut buffer[len..])? {
                    0 => bail!("the server closed a reader"),
                    more => len += more,
                }
            }
            if number >= WARM_UP {
                times.push(began.elapsed().as_secs_f64() * 1e6);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

fn connect(addr: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Of ascending values, of which there are some.
fn percentile(values: &[f64], part: f64) -> f64 {
    values[((values.len() - 1) as f64 * part) as usize]
}

impl fmt::Display for AwayReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "64 bytes, one message in flight, {} of them a round;", self.messages)?;
        writeln!(f, "median of the rounds [least .. most]")?;
        for Way { from, to, p50_us, p99_us } in &self.ways {
            let shown = |s: &Spread| format!("{:.1} [{:.1} .. {:.1}]", s.median, s.min, s.max);
            let (p50, p99) = (shown(p50_us), shown(p99_us));
            writeln!(f, "  shard {from} -> shard {to}   p50 us {p50:<26} p99 us {p99}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!((percentile(&values, 0.5), percentile(&values, 0.99)), (49.0, 98.0));
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }
}
