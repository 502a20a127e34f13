//! The command line of `load`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::away::{self, Away};
use crate::back::Back;
use crate::cli_compare::{self, CompareArgs};
use crate::idle::Idle;
use crate::interrupt::Interrupt;
use crate::line::{PAYLOAD_MIN, PUBLISHERS_MAX};
use crate::process;
use crate::progress::Progress;
use crate::report::write_json;
use crate::run::{Run, Target};
use crate::server::{Kind, Launch, Spec, parse_url};
use crate::start::{Start, StartBudgets};
use crate::traffic::{Until, Workload};
use crate::wire::Format;
use crate::{blind, blind_ring, stats};

const EXAMPLES: &str = "\
Examples:
  load run --readers 100                      wardline against blind, ten paired rounds
  load run --readers 100 --budget 1.25        the same; exit status 1 if it costs more
  load run --a blind --b blind                the noise floor of this machine
  load run --a wardline=old --b wardline=new  two builds against each other
  load run --server wardline --rounds 1 --seconds 30   one alone, to profile it
  load run --attach 127.0.0.1:8888 --pid 4711 --server wardline   one that runs already
  load compare                                everything on this machine, in turns
  load compare --budgets                      the project's budgets
  load back --engine ring --budget             10,000 native agents come, and come back
  load idle --connections 10000 --budget 2KiB
  load start --budget-ms 10 --budget-rss 8MB --budget-program 6MB
  load blind --listen 127.0.0.1:9999          the blind relay by itself

Exit status: 0 done and within budget, 1 over budget or failed, 2 wrong usage.
A server with its own CPU beside the load needs two cores; build with --release.";

const RUN_HELP: &str = "\
Each round starts each server anew, ties it to one core and the load to another, connects everybody,
makes sure that every reader hears every publisher, warms up, and then counts. CPU time is the sum
over the server's threads of the kernel's nanoseconds; deliveries are the lines that all connections
received, each counted and checked. Lost, repeated or foreign lines fail the run.

A ratio counts with ten rounds or more, if the medians of deliveries/s are at least 0.85 x and of
p50 and p99 at most 1.25 x the first server's: a relay that naps is cheap too. With --budget and
fewer rounds (a smoke) only the CPU ratio decides.

`busy` is the share of time that the server, and the load, were on their cores; behind each `+` what
others (programs, or the machine's host) took of that core. Figures with much of that are noise.";

/// The load generator of Wardline and the blind relay that it measures against.
#[derive(Debug, Parser)]
#[command(name = "load", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as the blind relay: what comes in goes out to all others, with no protocol.
    Blind(BlindArgs),
    /// Send lines through one server, or through two in turns, and compare.
    #[command(after_help = RUN_HELP)]
    Run(RunArgs),
    /// Everything there is on this machine, in turns, over many workloads.
    #[command(after_help = cli_compare::HELP)]
    Compare(Box<CompareArgs>),
    /// Measure how much longer a message takes between two shards.
    Away(AwayArgs),
    /// Measure how fast native agents are back that lost their connections all at once.
    Back(BackArgs),
    /// Measure the private memory that an idle connection costs the server.
    Idle(IdleArgs),
    /// Measure the time from start to listening, memory at rest, and the program's size.
    Start(StartArgs),
}

#[derive(Debug, Args)]
struct BlindArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many rooms, a listener each: who comes to one hears those of that one.
    #[arg(long, default_value_t = 1)]
    rooms: usize,
    /// File that gets the URLs with the real ports, once it listens.
    #[arg(long, value_name = "FILE")]
    ports_file: Option<PathBuf>,
    /// By which means: the frozen epoll loop, or the same over io_uring.
    #[arg(long, value_enum, default_value_t = BlindEngine::Epoll)]
    engine: BlindEngine,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BlindEngine {
    Epoll,
    Ring,
}

#[derive(Debug, Args)]
struct LaunchArgs {
    /// The `wardline` program [default: beside this one, then target/release/wardline].
    #[arg(long, value_name = "PATH")]
    server_bin: Option<PathBuf>,
    /// The engine that wardline is told to use.
    #[arg(long, value_name = "NAME", default_value = "tokio")]
    engine: String,
    /// One more setting for wardline, as `a.b=c`; may be repeated.
    #[arg(long = "set", value_name = "A.B=C")]
    settings: Vec<String>,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// The server to compare with: KIND or KIND=PROGRAM, where KIND is wardline, blind,
    /// blind-ring, nats, redis or mosquitto.
    #[arg(long, value_name = "SERVER", default_value = "blind")]
    a: Spec,
    /// The server to judge.
    #[arg(long, value_name = "SERVER", default_value = "wardline")]
    b: Spec,
    /// Only this server, compared with nothing.
    #[arg(long, value_name = "SERVER", conflicts_with_all = ["a", "b", "budget"])]
    server: Option<Spec>,
    /// Only the server that runs at this address, with --pid; --server says which kind it is.
    #[arg(long, value_name = "ADDR", requires = "pid", conflicts_with_all = ["a", "b", "budget"])]
    attach: Option<String>,
    /// The process of the server at --attach.
    #[arg(long, requires = "attach")]
    pid: Option<u32>,
    #[command(flatten)]
    launch: LaunchArgs,
    /// Connections that send.
    #[arg(long, default_value_t = 1)]
    publishers: usize,
    /// Connections that only receive.
    #[arg(long, default_value_t = 100)]
    readers: usize,
    /// Lines of a publisher that some reader did not get yet, at most.
    #[arg(long, default_value_t = 256)]
    window: u64,
    /// Payload bytes of a line, without its newline.
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    size: usize,
    /// How often each server is measured [default: 10; of one server alone: 1].
    #[arg(long)]
    rounds: Option<usize>,
    /// How long a round counts.
    #[arg(long, default_value_t = 1.0, conflicts_with = "messages")]
    seconds: f64,
    /// Instead: how many lines of each publisher a round counts.
    #[arg(long)]
    messages: Option<u64>,
    /// Seconds of the same work before a round counts.
    #[arg(long, default_value_t = 0.25)]
    warmup: f64,
    /// The core for the server.
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    server_core: usize,
    /// The core for the load.
    #[arg(long, value_name = "CORE", default_value_t = 1)]
    load_core: usize,
    /// Leave all on whatever core the kernel likes.
    #[arg(long)]
    no_pin: bool,
    /// Fail if the median CPU ratio is above this, or if the ratio does not count.
    #[arg(long, value_name = "RATIO")]
    budget: Option<f64>,
    /// Write all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct AwayArgs {
    /// The server: KIND or KIND=PROGRAM.
    #[arg(long, value_name = "SERVER", default_value = "wardline")]
    server: Spec,
    #[command(flatten)]
    launch: LaunchArgs,
    /// Messages of a round, each way.
    #[arg(long, default_value_t = 2_000)]
    messages: usize,
    /// How many rounds.
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Write all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct BackArgs {
    #[command(flatten)]
    launch: LaunchArgs,
    /// How many agents.
    #[arg(long, default_value_t = 10_000)]
    agents: usize,
    /// How often, each time with a relay of its own.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Fail if they take longer than 600 us each to come (6 s for 10,000), or 200 us to come back.
    #[arg(long)]
    budget: bool,
    /// Leave all on whatever core the kernel likes.
    #[arg(long)]
    no_pin: bool,
    /// Write all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct IdleArgs {
    /// The server: KIND or KIND=PROGRAM.
    #[arg(long, value_name = "SERVER", default_value = "wardline")]
    server: Spec,
    #[command(flatten)]
    launch: LaunchArgs,
    /// How many connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Fail if a connection costs more, such as 2KiB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    budget: Option<u64>,
    /// Write all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StartArgs {
    /// The server: KIND or KIND=PROGRAM.
    #[arg(long, value_name = "SERVER", default_value = "wardline")]
    server: Spec,
    #[command(flatten)]
    launch: LaunchArgs,
    /// How many starts.
    #[arg(long, default_value_t = 20)]
    times: usize,
    /// Fail if the median time to listening is longer, in milliseconds.
    #[arg(long, value_name = "MS")]
    budget_ms: Option<f64>,
    /// Fail if more is resident at rest, such as 8MB (a megabyte is 1,000,000 bytes, a MiB 2^20).
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    budget_rss: Option<u64>,
    /// Fail if the program is bigger, such as 6MB.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    budget_program: Option<u64>,
    /// Write all figures there, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl LaunchArgs {
    fn launch(self, unlimited: bool, core: Option<usize>) -> Launch {
        let Self { server_bin, engine, settings } = self;
        Launch { server_bin, engine, settings, core, unlimited, topics: 1, shards: None }
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<bool> {
    let progress = Progress::new();
    match cli.command {
        Command::Blind(BlindArgs { listen, rooms, ports_file, engine }) => {
            if !(1..=blind::ROOMS_MAX).contains(&rooms) {
                refuse(&anyhow!("--rooms is 1 to {}", blind::ROOMS_MAX));
            }
            match engine {
                BlindEngine::Epoll => blind::run(listen, rooms, ports_file.as_deref())?,
                BlindEngine::Ring => blind_ring::run(listen, rooms, ports_file.as_deref())?,
            }
            Ok(true)
        }
        Command::Run(args) => {
            let json = args.json.clone();
            let run = args.run().unwrap_or_else(|error| refuse(&error));
            let report = run.measure(&Interrupt::install()?, &progress)?;
            finish(&report, report.passed(), json)
        }
        Command::Compare(args) => args.run(&progress),
        Command::Away(args) => {
            let AwayArgs { server: spec, launch, messages, rounds, json } = args;
            if messages == 0 || rounds == 0 {
                refuse(&anyhow!("--messages 0 and --rounds 0 measure nothing"));
            }
            let launch = Launch { shards: Some(away::SHARDS), ..launch.launch(true, None) };
            let away = Away { spec, launch, messages, rounds };
            finish(&away.measure(&Interrupt::install()?, &progress)?, true, json)
        }
        Command::Back(args) => {
            let json = args.json.clone();
            let back = args.back().unwrap_or_else(|error| refuse(&error));
            let report = back.measure(&Interrupt::install()?, &progress)?;
            finish(&report, report.passed(), json)
        }
        Command::Idle(args) => {
            let IdleArgs { server: spec, launch, connections, budget, json } = args;
            let launch = launch.launch(true, None);
            let idle = Idle { spec, launch, connections, budget_bytes: budget };
            if connections == 0 {
                refuse(&anyhow!("--connections 0 measures nothing"));
            }
            let report = idle.measure(&Interrupt::install()?, &progress)?;
            finish(&report, report.passed(), json)
        }
        Command::Start(args) => {
            let budgets = StartBudgets {
                ms: args.budget_ms,
                rss_bytes: args.budget_rss,
                program_bytes: args.budget_program,
            };
            let launch = args.launch.launch(false, None);
            let start = Start { spec: args.server, launch, times: args.times, budgets };
            if args.times == 0 {
                refuse(&anyhow!("--times 0 measures nothing"));
            }
            let report = start.measure(&Interrupt::install()?, &progress)?;
            finish(&report, report.passed(), args.json)
        }
    }
}

/// Ends as clap does where the command line makes no sense.
pub(crate) fn refuse(error: &anyhow::Error) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, format!("{error:#}")).exit()
}

fn finish<R: std::fmt::Display + Serialize>(
    report: &R,
    passed: bool,
    json: Option<PathBuf>,
) -> Result<bool> {
    print!("{report}");
    if let Some(path) = json {
        write_json(&path, report)?;
    }
    Ok(passed)
}

impl BackArgs {
    fn back(self) -> Result<Back> {
        let Self { launch, agents, rounds, budget, no_pin, json: _ } = self;
        if agents == 0 || rounds == 0 {
            bail!("--agents 0 and --rounds 0 measure nothing");
        }
        let (server_core, load_core) = cores(no_pin, 0, 1)?;
        let launch = launch.launch(true, server_core);
        Ok(Back { launch, agents, rounds, load_core, budget })
    }
}

impl RunArgs {
    fn run(self) -> Result<Run> {
        let (server_core, load_core) = cores(self.no_pin, self.server_core, self.load_core)?;
        let workload = self.workload()?;
        let until = match self.messages {
            Some(0) => bail!("--messages 0 measures nothing"),
            Some(messages) => Until::Messages(messages),
            None => Until::Elapsed(seconds("--seconds", self.seconds)?),
        };
        let warmup = seconds("--warmup", self.warmup)?;
        let targets = match (self.attach, self.server) {
            (Some(attach), server) => {
                let addr = parse_url(&attach)?;
                let kind = server.map_or(Kind::Wardline, |spec| spec.kind);
                let pid = self.pid.context("--attach needs --pid")?;
                vec![Target::Attached { addr, pid, format: kind.format() }]
            }
            (None, Some(server)) => vec![Target::Started(server)],
            (None, None) => vec![Target::Started(self.a), Target::Started(self.b)],
        };
        let plain = |target: &Target| target.format() == Format::Plain;
        let in_flight = workload.window.saturating_mul(workload.size as u64 + 1);
        if workload.publishers > 1
            && in_flight > blind::UNCUT_BYTES_MAX
            && targets.iter().any(plain)
        {
            bail!(
                "the blind relay knows no lines and would cut them: with several publishers, \
                 window x line is at most {} bytes, not {in_flight}",
                blind::UNCUT_BYTES_MAX
            );
        }
        let rounds = self.rounds.unwrap_or(if targets.len() == 1 { 1 } else { stats::ROUNDS_MIN });
        if rounds == 0 {
            bail!("--rounds 0 measures nothing");
        }
        let launch = self.launch.launch(true, server_core);
        let budget = self.budget;
        Ok(Run { targets, workload, warmup, until, rounds, launch, load_core, budget })
    }

    fn workload(&self) -> Result<Workload> {
        let Self { publishers, readers, window, size, .. } = *self;
        if !(1..=PUBLISHERS_MAX).contains(&publishers) {
            bail!("--publishers is 1 to {PUBLISHERS_MAX}");
        }
        if readers == 0 || window == 0 {
            bail!("--readers and --window are at least 1");
        }
        if size < PAYLOAD_MIN {
            bail!("--size is at least {PAYLOAD_MIN}: number, sequence and time have to fit");
        }
        Ok(Workload { topics: 1, publishers, readers, window, size, frames: 0 })
    }
}

/// The cores of server and load, if they are to be tied to any.
pub(crate) fn cores(
    no_pin: bool,
    server: usize,
    load: usize,
) -> Result<(Option<usize>, Option<usize>)> {
    if no_pin {
        return Ok((None, None));
    }
    if server == load || !process::has_cores(server, load)? {
        bail!("cores {server} and {load} are not two cores of this machine; try --no-pin");
    }
    Ok((Some(server), Some(load)))
}

pub(crate) fn seconds(name: &str, value: f64) -> Result<Duration> {
    match Duration::try_from_secs_f64(value) {
        Ok(duration) if duration <= Duration::from_secs(3600) => Ok(duration),
        _ => bail!("{name} is 0 to 3600 seconds"),
    }
}

/// A number of bytes with an optional unit.
fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        other => return Err(format!("no unit `{other}`; there are B, kB, MB, KiB, MiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{digits}` is no number"))?;
    number.checked_mul(unit).ok_or_else(|| "too much".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_bytes("2048"), Ok(2048));
        assert_eq!(parse_bytes("2KiB"), Ok(2048));
        assert_eq!(parse_bytes("8MB"), Ok(8_000_000));
        assert!(parse_bytes("8 lots").is_err());
        assert!(parse_bytes("MB").is_err());
    }

    fn parse(line: &str) -> Result<Run> {
        let Command::Run(args) = Cli::try_parse_from(line.split(' '))?.command else {
            bail!("not a run");
        };
        args.run()
    }

    #[test]
    fn pairs_single_servers_and_attached_ones() {
        let pair = parse("load run --no-pin --readers 7").unwrap();
        let names: Vec<_> = pair.targets.iter().map(ToString::to_string).collect();
        assert_eq!((names, pair.rounds), (vec!["blind".into(), "wardline".into()], 10));
        let one = parse("load run --no-pin --server blind --messages 5").unwrap();
        assert_eq!((one.targets.len(), one.rounds, one.until), (1, 1, Until::Messages(5)));
        let own = std::process::id();
        let attached =
            parse(&format!("load run --no-pin --attach line://127.0.0.1:8888/x --pid {own}"));
        let name = attached.unwrap().targets[0].to_string();
        assert_eq!(name, format!("process {own} at 127.0.0.1:8888"));
    }

    #[test]
    fn storms_and_rooms_are_counted() {
        let back = |line: &str| match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Back(args) => args.back(),
            other => panic!("{other:?}"),
        };
        let storm =
            back("load back --no-pin --agents 7 --rounds 2 --budget --engine ring").unwrap();
        assert_eq!((storm.agents, storm.rounds, storm.budget), (7, 2, true));
        assert_eq!((storm.launch.engine.as_str(), storm.load_core), ("ring", None));
        assert_eq!(back("load back --no-pin").unwrap().agents, 10_000);
        assert!(back("load back --no-pin --agents 0").is_err());
        assert!(back("load back --no-pin --rounds 0").is_err());
        let blind = Cli::try_parse_from("load blind --rooms 3".split(' ')).unwrap();
        assert!(matches!(blind.command, Command::Blind(BlindArgs { rooms: 3, .. })));
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "--attach 127.0.0.1:1",
            "--server blind --budget 2",
            "--seconds 1 --messages 1",
            "--seconds -1",
            "--size 20",
            "--readers 0",
            "--rounds 0",
            "--b kafka",
            "--server-core 1",
        ] {
            let pin = if wrong.contains("core") { "" } else { "--no-pin " };
            assert!(parse(&format!("load run {pin}{wrong}")).is_err(), "{wrong}");
        }
    }
}
