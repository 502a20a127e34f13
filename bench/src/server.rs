//! Servers under test: started as processes of their own, found by their ports file, ended.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::TempDir;

use crate::line::Format;
use crate::process;

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM before it is killed.
const END_MAX: Duration = Duration::from_secs(3);
/// How often the ports file is looked for: finer than a tenth of the start budget by far.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// Which kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The blind relay: the limit.
    Blind,
    /// The relay itself.
    Wardline,
}

impl Kind {
    /// How its lines look to a reader.
    pub fn format(self) -> Format {
        match self {
            Self::Blind => Format::Plain,
            Self::Wardline => Format::Envelope,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blind => "blind",
            Self::Wardline => "wardline",
        })
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "blind" => Ok(Self::Blind),
            "wardline" => Ok(Self::Wardline),
            other => Err(format!("no server `{other}`; there are `blind` and `wardline`")),
        }
    }
}

/// A server as named on the command line: `KIND` or `KIND=PROGRAM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Which kind.
    pub kind: Kind,
    /// The program to start, when it is not the usual one.
    pub program: Option<PathBuf>,
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, program) = match text.split_once('=') {
            Some((_, "")) => return Err(format!("`{text}` names no program after `=`")),
            Some((kind, program)) => (kind, Some(PathBuf::from(program))),
            None => (text, None),
        };
        Ok(Self { kind: kind.parse()?, program })
    }
}

/// How servers are started.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The `wardline` program, unless a [`Spec`] names another.
    pub server_bin: Option<PathBuf>,
    /// The engine that `wardline` is told to use.
    pub engine: String,
    /// Settings beyond those of the measurement, as `a.b=c`.
    pub settings: Vec<String>,
    /// The core that the server is tied to.
    pub core: Option<usize>,
    /// Whether rate limit and idle timeout are switched off; not for start times.
    pub unlimited: bool,
}

impl Launch {
    /// The program that `spec` means.
    pub fn program(&self, spec: &Spec) -> Result<PathBuf> {
        if let Some(program) = &spec.program {
            return Ok(program.clone());
        }
        let own = std::env::current_exe().context("where is this program?")?;
        match spec.kind {
            Kind::Blind => Ok(own),
            Kind::Wardline => match &self.server_bin {
                Some(program) => Ok(program.clone()),
                None => find_wardline(&own),
            },
        }
    }

    fn command(&self, spec: &Spec, program: &Path, ports_file: &Path) -> Command {
        let mut command = Command::new(program);
        match spec.kind {
            Kind::Blind => {
                command.args(["blind", "--listen", "127.0.0.1:0"]);
            }
            Kind::Wardline => {
                command.args(["serve", "--listen", "line://127.0.0.1:0/main"]);
                command.args(["--engine", &self.engine]);
                if self.unlimited {
                    command.args(["--set", "line.rate_limit_msgs_per_minute=0"]);
                    command.args(["--set", "line.client_timeout_secs=0"]);
                }
                for setting in &self.settings {
                    command.args(["--set", setting]);
                }
            }
        }
        command.args([OsStr::new("--ports-file"), ports_file.as_os_str()]);
        command
    }
}

/// `wardline` beside this program, or where a release build from the project's root puts it.
fn find_wardline(own: &Path) -> Result<PathBuf> {
    let beside = own.with_file_name("wardline");
    let candidates = [beside, PathBuf::from("target/release/wardline")];
    match candidates.iter().find(|path| path.is_file()) {
        Some(found) => Ok(found.clone()),
        None => bail!(
            "no `wardline` at {} nor {}: build it with `cargo build --release`, or name it with \
             --server-bin",
            candidates[0].display(),
            candidates[1].display()
        ),
    }
}

/// A running server; dropped, it is killed if this program started it.
#[derive(Debug)]
pub struct Server {
    pid: u32,
    addr: SocketAddr,
    child: Option<Child>,
    /// Holds the ports file and the server's output; none of a server that ran before.
    dir: Option<TempDir>,
}

impl Server {
    /// Starts a server and waits until it listens.
    pub fn start(launch: &Launch, spec: &Spec) -> Result<Self> {
        Ok(Self::spawn(launch, spec)?.0)
    }

    /// Starts a server; beside it the time from just before it was spawned to the first
    /// connection that it took.
    pub fn start_timed(launch: &Launch, spec: &Spec) -> Result<(Self, Duration)> {
        let (server, began) = Self::spawn(launch, spec)?;
        drop(TcpStream::connect(server.addr).with_context(|| server.said("does not answer"))?);
        Ok((server, began.elapsed()))
    }

    /// Beside the server the moment before it was spawned.
    fn spawn(launch: &Launch, spec: &Spec) -> Result<(Self, Instant)> {
        let program = launch.program(spec)?;
        let dir = TempDir::with_prefix("wardline-load-").context("no temporary directory")?;
        let ports_file = dir.path().join("ports");
        let output = fs::File::create(dir.path().join("output"))?;
        let mut command = launch.command(spec, &program, &ports_file);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let began = Instant::now();
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server =
            Self { pid: child.id(), addr: nowhere, child: Some(child), dir: Some(dir) };
        if let Some(core) = launch.core {
            process::pin(server.pid, core)?;
        }
        server.addr = server.wait_for_ports(&ports_file, began + START_MAX)?;
        if let Some(core) = launch.core {
            process::pin(server.pid, core)?;
        }
        Ok((server, began))
    }

    /// A server that runs already and stays when the measurement ends.
    pub fn attach(addr: SocketAddr, pid: u32, core: Option<usize>) -> Result<Self> {
        process::threads(pid)?;
        if let Some(core) = core {
            process::pin(pid, core)?;
        }
        Ok(Self { pid, addr, child: None, dir: None })
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Asks it to end and waits; kills it if it does not in time.
    pub fn stop(mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if let Some(pid) = Pid::from_raw(self.pid as i32) {
            // An error means that it ended already, which `wait` will say.
            let _ = kill_process(pid, Signal::TERM);
        }
        let end = Instant::now() + END_MAX;
        while child.try_wait()?.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A sentence about the server that ends with the last of what it wrote.
    pub fn said(&self, problem: &str) -> String {
        let output = self.dir.as_ref().map(|dir| dir.path().join("output"));
        let text = output.and_then(|path| fs::read(path).ok()).unwrap_or_default();
        let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).into_owned();
        format!("server {} {problem}; it wrote: {:?}", self.pid, tail.trim())
    }

    fn wait_for_ports(&mut self, ports_file: &Path, end: Instant) -> Result<SocketAddr> {
        loop {
            if let Ok(text) = fs::read_to_string(ports_file) {
                return parse_ports(&text)
                    .with_context(|| self.said("wrote a ports file that is not understood"));
            }
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!(self.said(&format!("ended at once ({status})")));
            }
            if Instant::now() > end {
                bail!(self.said("wrote no ports file"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Nothing to do about an error here: it ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The address of the first listener in a ports file, `line://HOST:PORT/TOPIC`.
fn parse_ports(text: &str) -> Result<SocketAddr> {
    let first = text.lines().next().context("it is empty")?;
    parse_url(first)
}

/// The address in `line://HOST:PORT/TOPIC`, or in a bare `HOST:PORT`.
pub fn parse_url(url: &str) -> Result<SocketAddr> {
    let rest = url.strip_prefix("line://").unwrap_or(url);
    let authority = rest.split('/').next().unwrap_or_default();
    let mut found =
        authority.to_socket_addrs().with_context(|| format!("`{url}` has no address"))?;
    found.next().with_context(|| format!("`{authority}` resolves to nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let plain: Spec = "blind".parse().unwrap();
        assert_eq!(plain, Spec { kind: Kind::Blind, program: None });
        let named: Spec = "wardline=/opt/w".parse().unwrap();
        assert_eq!(named, Spec { kind: Kind::Wardline, program: Some("/opt/w".into()) });
        assert!("nats".parse::<Spec>().unwrap_err().contains("`nats`"));
        assert!("blind=".parse::<Spec>().is_err());
    }

    #[test]
    fn ports_files() {
        let v4 = parse_ports("line://127.0.0.1:45123/main\nline://127.0.0.1:2/b\n").unwrap();
        assert_eq!(v4, "127.0.0.1:45123".parse().unwrap());
        let v6 = parse_ports("line://[::1]:7/main\n").unwrap();
        assert_eq!(v6, "[::1]:7".parse().unwrap());
        assert_eq!(parse_url("127.0.0.1:80").unwrap(), "127.0.0.1:80".parse().unwrap());
        assert!(parse_ports("").is_err());
        assert!(parse_ports("line:///main\n").is_err());
    }
}
