//! Servers under test: started as processes of their own, found by their ports file or at the port
//! that they were given, ended.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tempfile::TempDir;

use crate::peer::Peer;
use crate::process;
use crate::traffic::{Place, topic_name};
use crate::wire::Format;

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(10);
/// How long a server may take to end after SIGTERM before it is killed.
const END_MAX: Duration = Duration::from_secs(3);
/// Where in its directory a server writes its listeners.
const PORTS_FILE: &str = "ports";
/// How often the ports file is looked for: finer than a tenth of the start budget by far.
const LOOK_EVERY: Duration = Duration::from_micros(50);

/// Which kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The blind relay: the limit.
    Blind,
    /// The same algorithm over io_uring.
    #[serde(rename = "blind-ring")]
    BlindRing,
    /// The relay itself.
    Wardline,
    /// The relay itself, in its native dialect.
    Native,
    /// The same, from peer to peer.
    Direct,
    /// nats-server.
    Nats,
    /// redis-server.
    Redis,
    /// mosquitto.
    Mosquitto,
}

/// The servers by name.
const KINDS: [(&str, Kind); 8] = [
    ("blind", Kind::Blind),
    ("blind-ring", Kind::BlindRing),
    ("wardline", Kind::Wardline),
    ("wardline-native", Kind::Native),
    ("wardline-direct", Kind::Direct),
    ("nats", Kind::Nats),
    ("redis", Kind::Redis),
    ("mosquitto", Kind::Mosquitto),
];
/// How often a server may find the free port taken that it was given.
const PORTS_TRIED: usize = 3;

impl Kind {
    /// How its messages look.
    pub fn format(self) -> Format {
        match self.peer() {
            Some(peer) => peer.format(),
            None if self == Self::Wardline => Format::Envelope,
            None if self == Self::Native => Format::Native,
            None if self == Self::Direct => Format::Direct,
            None => Format::Plain,
        }
    }

    /// Whether it is Wardline or a blind relay.
    pub fn is_ours(self) -> bool {
        self.peer().is_none()
    }

    /// Which of the others' relays it is.
    fn peer(self) -> Option<Peer> {
        match self {
            Self::Blind | Self::BlindRing | Self::Wardline | Self::Native | Self::Direct => None,
            Self::Nats => Some(Peer::Nats),
            Self::Redis => Some(Peer::Redis),
            Self::Mosquitto => Some(Peer::Mosquitto),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = KINDS.iter().find(|(_, kind)| kind == self);
        f.write_str(named.map_or("?", |(name, _)| name))
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match KINDS.iter().find(|(name, _)| *name == text) {
            Some((_, kind)) => Ok(*kind),
            None => {
                let names = KINDS.map(|(name, _)| name).join(", ");
                Err(format!("no server `{text}`; there are {names}"))
            }
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
    /// How many topics it serves, where each is a listener of its own.
    pub topics: usize,
    /// How many shards `wardline` is told to have; nothing is said of it otherwise.
    pub shards: Option<usize>,
}

impl Launch {
    /// The program that `spec` means.
    pub fn program(&self, spec: &Spec) -> Result<PathBuf> {
        if let Some(program) = &spec.program {
            return Ok(program.clone());
        }
        let own = std::env::current_exe().context("where is this program?")?;
        match spec.kind {
            Kind::Blind | Kind::BlindRing => Ok(own),
            Kind::Nats | Kind::Redis | Kind::Mosquitto => {
                spec.kind.peer().context("a relay of others")?.find()
            }
            Kind::Wardline | Kind::Native | Kind::Direct => match &self.server_bin {
                Some(program) => Ok(program.clone()),
                None => find_wardline(&own),
            },
        }
    }

    /// The command that starts it, and the port where it will be if it writes no ports file.
    fn command(&self, spec: &Spec, program: &Path, dir: &Path) -> Result<(Command, Option<u16>)> {
        let mut command = Command::new(program);
        match spec.kind {
            Kind::Blind => self.blind(&mut command, "epoll"),
            Kind::BlindRing => self.blind(&mut command, "ring"),
            Kind::Wardline => self.wardline(&mut command),
            Kind::Native | Kind::Direct => self.native(&mut command, dir)?,
            Kind::Nats | Kind::Redis | Kind::Mosquitto => {
                let peer = spec.kind.peer().context("a relay of others")?;
                let port = free_port()?;
                return Ok((peer.command(program, dir, port)?, Some(port)));
            }
        }
        command.args([OsStr::new("--ports-file"), dir.join(PORTS_FILE).as_os_str()]);
        Ok((command, None))
    }

    fn blind(&self, command: &mut Command, engine: &str) {
        command.args(["blind", "--engine", engine, "--listen", "127.0.0.1:0"]);
        if self.topics > 1 {
            command.args(["--rooms", &self.topics.to_string()]);
        }
    }

    fn native(&self, command: &mut Command, dir: &Path) -> Result<()> {
        // Whose key it is does not matter, but that nobody else can read it.
        let key = dir.join("server.key");
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key)?;
        writeln!(file, "{}", "17".repeat(32))?;
        command.args(["serve", "--listen", "native://127.0.0.1:0"]);
        command.args([OsStr::new("--key"), key.as_os_str()]);
        self.same_for_all(command);
        if self.unlimited {
            for none in ["messages", "bytes", "deliveries", "identity_messages", "identity_bytes"] {
                command.args(["--set", &format!("native.{none}_per_second=0")]);
            }
        }
        Ok(())
    }

    fn wardline(&self, command: &mut Command) {
        command.arg("serve");
        if self.topics == 1 {
            command.args(["--listen", "line://127.0.0.1:0/main"]);
        } else {
            for topic in (0..self.topics).map(topic_name) {
                command.args(["--listen", &format!("line://127.0.0.1:0/{topic}")]);
            }
        }
        self.same_for_all(command);
        if self.unlimited {
            command.args(["--set", "line.rate_limit_msgs_per_minute=0"]);
            command.args(["--set", "line.client_timeout_secs=0"]);
        }
    }

    fn same_for_all(&self, command: &mut Command) {
        command.args(["--engine", &self.engine]);
        if let Some(shards) = self.shards {
            command.args(["--shards", &shards.to_string()]);
        }
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?.port())
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
    place: Place,
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
        drop(TcpStream::connect(server.addr()).with_context(|| server.said("does not answer"))?);
        Ok((server, began.elapsed()))
    }

    /// Beside the server the moment before it was spawned.
    fn spawn(launch: &Launch, spec: &Spec) -> Result<(Self, Instant)> {
        let mut tried = 1;
        loop {
            match Self::spawn_once(launch, spec) {
                Err(_) if tried < PORTS_TRIED && spec.kind.peer().is_some() => tried += 1,
                started => return started,
            }
        }
    }

    fn spawn_once(launch: &Launch, spec: &Spec) -> Result<(Self, Instant)> {
        let program = launch.program(spec)?;
        let dir = TempDir::with_prefix("wardline-load-").context("no temporary directory")?;
        let output = fs::File::create(dir.path().join("output"))?;
        let (mut command, port) = launch.command(spec, &program, dir.path())?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let began = Instant::now();
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let place = Place { addrs: Vec::new(), format: spec.kind.format() };
        let mut server = Self { pid: child.id(), place, child: Some(child), dir: Some(dir) };
        if let Some(core) = launch.core {
            process::pin(server.pid, core)?;
        }
        server.place.addrs = server.wait_until_it_listens(port, began + START_MAX)?;
        if let Some(core) = launch.core {
            process::pin(server.pid, core)?;
        }
        Ok((server, began))
    }

    /// A server that runs already and stays when the measurement ends.
    pub fn attach(addr: SocketAddr, format: Format, pid: u32, core: Option<usize>) -> Result<Self> {
        process::threads(pid)?;
        if let Some(core) = core {
            process::pin(pid, core)?;
        }
        let place = Place { addrs: vec![addr], format };
        Ok(Self { pid, place, child: None, dir: None })
    }

    /// The number of its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens, first of all.
    pub fn addr(&self) -> SocketAddr {
        self.place.addrs[0]
    }

    /// Where it listens, and how one talks there.
    pub fn place(&self) -> &Place {
        &self.place
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

    /// Waits for its ports file, or until the port that it was given answers.
    fn wait_until_it_listens(
        &mut self,
        port: Option<u16>,
        end: Instant,
    ) -> Result<Vec<SocketAddr>> {
        let ports_file = self.dir.as_ref().map(|dir| dir.path().join(PORTS_FILE));
        loop {
            // First of all: at a port that was given, somebody else may listen.
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!(self.said(&format!("ended at once ({status})")));
            }
            if let Some(port) = port {
                let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                if TcpStream::connect(addr).is_ok() {
                    return Ok(vec![addr]);
                }
            } else if let Some(text) =
                ports_file.as_ref().and_then(|path| fs::read_to_string(path).ok())
            {
                return parse_ports(&text)
                    .with_context(|| self.said("wrote a ports file that is not understood"));
            }
            if Instant::now() > end {
                bail!(self.said("does not say where it listens"));
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

/// The addresses of the listeners in a ports file, `line://HOST:PORT/TOPIC` each; where shards have
/// ports of their own, ` shard-N` behind, those alone.
fn parse_ports(text: &str) -> Result<Vec<SocketAddr>> {
    let of_shards = text.lines().any(|line| line.contains(' '));
    let listed = text.lines().filter(|line| !of_shards || line.contains(' '));
    let urls = listed.filter_map(|line| line.split(' ').next());
    let addrs: Vec<SocketAddr> = urls.map(parse_url).collect::<Result<_>>()?;
    if addrs.is_empty() {
        bail!("it is empty");
    }
    Ok(addrs)
}

/// The address in `line://HOST:PORT/TOPIC`, in `native://HOST:PORT`, or in a bare `HOST:PORT`.
pub fn parse_url(url: &str) -> Result<SocketAddr> {
    let rest = url.strip_prefix("line://").or_else(|| url.strip_prefix("native://"));
    let rest = rest.unwrap_or(url);
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
        assert_eq!("redis".parse::<Spec>().unwrap().kind.to_string(), "redis");
        assert!("kafka".parse::<Spec>().unwrap_err().contains("`kafka`"));
        assert!("blind=".parse::<Spec>().is_err());
    }

    #[test]
    fn ports_files() {
        let v4 = parse_ports("line://127.0.0.1:45123/main\nline://127.0.0.1:2/b\n").unwrap();
        assert_eq!(v4, ["127.0.0.1:45123".parse().unwrap(), "127.0.0.1:2".parse().unwrap()]);
        let v6 = parse_ports("line://[::1]:7/main\n").unwrap();
        assert_eq!(v6, ["[::1]:7".parse().unwrap()]);
        assert_eq!(parse_url("127.0.0.1:80").unwrap(), "127.0.0.1:80".parse().unwrap());
        let shards =
            "line://[::1]:7/main\nline://[::1]:8/main shard-0\nline://[::1]:9/main shard-1\n";
        let ports: Vec<_> = parse_ports(shards).unwrap().iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [8, 9]);
        assert!(parse_ports("").is_err());
        assert!(parse_ports("line:///main\n").is_err());
    }
}
