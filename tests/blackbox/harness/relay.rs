//! A relay process: how it is started, asked, signalled and ended.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{env, fs};

use tempfile::TempDir;

use super::{Client, Dial, NativeClient, NativeDial, PATIENCE, wait_until};

/// A command that runs the binary, without what the environment would tell it.
pub(crate) fn wardline() -> Command {
    let binary = env::var_os("WARDLINE_TEST_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_wardline")), PathBuf::from);
    let mut command = Command::new(binary);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("WARDLINE_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

/// What a command that ends by itself left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Runs the binary to its end; a command that does not end is killed and fails the case.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::of_spawned(command, Command::spawn)
    }

    /// The same, started in that way.
    pub(crate) fn of_spawned(
        command: &mut Command,
        spawn: fn(&mut Command) -> io::Result<Child>,
    ) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command).expect("the binary can be started");
        let stdout = Captured::of(child.stdout.take().expect("piped"));
        let stderr = Captured::of(child.stderr.take().expect("piped"));
        let status = wait_for(&mut child, PATIENCE);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let (stdout, stderr) = (stdout.finished(), stderr.finished());
        let Some(status) = status else {
            panic!("did not end in {PATIENCE:?}: {command:?}\n{stdout}\n{stderr}");
        };
        Self { code: status.code(), stdout, stderr }
    }

    /// Both streams, for what may stand on either.
    pub(crate) fn said(&self) -> String {
        format!("{}\n{}", self.stdout, self.stderr)
    }
}

/// How a relay is to be started.
#[derive(Debug)]
pub(crate) struct Launch {
    engine: &'static str,
    shards: usize,
    listen: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: Option<String>,
    spawn: fn(&mut Command) -> io::Result<Child>,
}

impl Launch {
    /// One listener on a free port of loopback, all else as a user would get it.
    pub(crate) fn new(engine: &'static str) -> Self {
        Self {
            engine,
            shards: 1,
            listen: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            config: None,
            spawn: Command::spawn,
        }
    }

    /// Without a limit of the rate, for cases that say many things.
    pub(crate) fn talkative(engine: &'static str) -> Self {
        Self::new(engine).set("line.rate_limit_msgs_per_minute", "0")
    }

    /// For both dialects and without limits of the rate: listeners of the native dialect, of lines
    /// on `main`, and of both on `main`.
    pub(crate) fn of_both(engine: &'static str) -> Self {
        Self::talkative(engine)
            .listen("native://127.0.0.1:0")
            .listen("line://127.0.0.1:0/main")
            .listen("mixed://127.0.0.1:0/main")
            .set("native.messages_per_second", "0")
            .set("native.bytes_per_second", "0")
            .set("native.deliveries_per_second", "0")
            .set("native.identity_messages_per_second", "0")
            .set("native.identity_bytes_per_second", "0")
    }

    /// So many shards; [`Relay::dial_shard`] reaches each.
    pub(crate) fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        let shards = shards.to_string();
        self.arguments(&["--shards", &shards])
    }

    /// One setting, as `--set key=value`.
    pub(crate) fn set(self, key: &str, value: &str) -> Self {
        self.arguments(&["--set", &format!("{key}={value}")])
    }

    /// A listener; the first replaces the default.
    pub(crate) fn listen(mut self, url: &str) -> Self {
        self.listen.push(url.to_owned());
        self
    }

    /// More arguments of `serve`.
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&a| a.to_owned()));
        self
    }

    /// An environment variable.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A settings file of this text; [`Relay::config_path`] says where it is.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Has it started in that way.
    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    pub(crate) fn spawned_by(mut self, spawn: fn(&mut Command) -> io::Result<Child>) -> Self {
        self.spawn = spawn;
        self
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self) -> Relay {
        let dir = TempDir::new().expect("a temporary directory");
        let ports_file = dir.path().join("ports");
        let mut command = wardline();
        command.arg("serve").args(["--engine", self.engine]).arg("--ports-file").arg(&ports_file);
        if let Some(toml) = &self.config {
            let path = dir.path().join("wardline.toml");
            fs::write(&path, toml).expect("the settings file can be written");
            command.arg("--config").arg(path);
        }
        let listen = if self.listen.is_empty() {
            vec!["line://127.0.0.1:0".to_owned()]
        } else {
            self.listen
        };
        for url in &listen {
            command.args(["--listen", url]);
        }
        // What it keeps goes with it, unless told otherwise.
        command.env("STATE_DIRECTORY", dir.path().join("state"));
        command.args(&self.arguments).envs(self.environment);
        command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = (self.spawn)(&mut command).expect("the binary can be started");
        let stdout = Captured::of(child.stdout.take().expect("piped"));
        let stderr = Captured::of(child.stderr.take().expect("piped"));
        let listeners = listen.len();
        // Where connections cannot be handed over, native clients are the first shard's alone.
        let spread = self.engine != "tokio-uring";
        let own = listen.iter().filter(|url| spread || url.starts_with("line:")).count();
        let all = if self.shards > 1 { listeners + self.shards * own } else { listeners };
        let urls = Vec::new();
        let mut relay = Relay { child, dir, urls, listeners, own, stdout, stderr, told: false };
        relay.urls = relay.wait_for_ports(&ports_file, all);
        relay
    }
}

/// A running relay; killed when dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    child: Child,
    dir: TempDir,
    urls: Vec<String>,
    listeners: usize,
    /// How many ports each shard has of its own, where there are several.
    own: usize,
    stdout: Captured,
    stderr: Captured,
    told: bool,
}

impl Relay {
    /// The URL of each listener, with the real port.
    pub(crate) fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The address of the first listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address_of(0)
    }

    /// The address of a listener, in the order of `--listen`.
    pub(crate) fn address_of(&self, listener: usize) -> SocketAddr {
        let url = &self.urls[listener];
        let (_, rest) = url.split_once("://").expect("a URL");
        let authority = rest.split(['/', ' ']).next().expect("never empty");
        authority.parse().unwrap_or_else(|_| panic!("no address in {url:?}"))
    }

    /// How to connect to the first listener.
    pub(crate) fn dial(&self) -> Dial {
        Dial::new(self.address())
    }

    /// How to connect to the first listener of lines of one of several shards, and of no other.
    pub(crate) fn dial_shard(&self, shard: usize) -> Dial {
        Dial::new(self.address_at(shard, "line:"))
    }

    /// The first listener of native clients of one of several shards; where only the first shard
    /// takes those, that.
    pub(crate) fn native_door(&self, shard: usize) -> SocketAddr {
        if self.hands_over() { self.address_at(shard, "native:") } else { self.address() }
    }

    /// Whether native clients are on all shards.
    pub(crate) fn hands_over(&self) -> bool {
        self.own == self.listeners
    }

    /// Of a shard's own listeners, the first of that scheme.
    fn address_at(&self, shard: usize, scheme: &str) -> SocketAddr {
        let own = self.listeners + self.own * shard;
        let urls = &self.urls[own..own + self.own];
        let nth = urls.iter().position(|url| url.starts_with(scheme)).expect("it has one");
        let url = &urls[nth];
        assert!(url.ends_with(&format!(" shard-{shard}")), "{url:?} is not of shard {shard}");
        self.address_of(own + nth)
    }

    /// A client of the first listener.
    pub(crate) fn connect(&self) -> Client {
        self.dial().connect()
    }

    /// A client of another listener.
    pub(crate) fn connect_to(&self, listener: usize) -> Client {
        Dial::new(self.address_of(listener)).connect()
    }

    /// A native client of the first listener, with the key of that number.
    #[track_caller]
    pub(crate) fn native(&self, number: u64) -> NativeClient {
        self.native_dial(number).connect()
    }

    /// How to become one.
    pub(crate) fn native_dial(&self, number: u64) -> NativeDial {
        NativeDial::new(self.address(), number)
    }

    /// A client of the first listener that comes from `127.0.0.last`.
    #[cfg(target_os = "linux")]
    pub(crate) fn connect_from(&self, last: u8) -> Client {
        self.dial().from([127, 0, 0, last].into()).connect()
    }

    /// Clients of the first listener, all of them in the room.
    pub(crate) fn room<const N: usize>(&self) -> [Client; N] {
        let mut clients: [Client; N] = std::array::from_fn(|_| self.connect());
        self.seat(clients.iter_mut());
        clients
    }

    /// Waits until each of `clients` (of the first listener) hears what is said in the room, and
    /// has read all of that. A connection that stands is not yet a member: only hearing shows it.
    pub(crate) fn seat<'a>(&self, clients: impl IntoIterator<Item = &'a mut Client>) {
        self.seat_by(self.connect(), clients);
    }

    /// The same with an usher who stands at the right door.
    pub(crate) fn seat_by<'a>(
        &self,
        mut usher: Client,
        clients: impl IntoIterator<Item = &'a mut Client>,
    ) {
        let deadline = Instant::now() + PATIENCE;
        let mut clients: Vec<_> = clients.into_iter().collect();
        let mut missing: Vec<usize> = (0..clients.len()).collect();
        while !missing.is_empty() {
            assert!(Instant::now() < deadline, "clients {missing:?} never came into the room");
            usher.say("ready");
            let round = (Instant::now() + Duration::from_secs(2)).min(deadline);
            missing.retain(|&i| !clients[i].hears_by(round));
        }
        usher.say("seated");
        let seated = usher.envelope("seated");
        for client in &mut clients {
            while client.line() != seated {}
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A directory of this relay alone, its working directory.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the text of [`Launch::config`] stands.
    #[cfg(all(unix, not(wardline_portable)))]
    pub(crate) fn config_path(&self) -> PathBuf {
        self.dir.path().join("wardline.toml")
    }

    /// All that it has logged to stderr so far.
    pub(crate) fn log(&self) -> String {
        self.stderr.so_far()
    }

    /// The same, as bytes.
    pub(crate) fn log_bytes(&self) -> Vec<u8> {
        self.stderr.bytes()
    }

    /// Waits until the log has `text`.
    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    /// Whether the process still runs.
    #[cfg(unix)]
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the process to end by itself; its log is whole then.
    pub(crate) fn wait(&mut self, at_most: Duration) -> ExitStatus {
        let status = wait_for(&mut self.child, at_most)
            .unwrap_or_else(|| panic!("the relay did not end in {at_most:?}"));
        wait_until("the rest of its log", || self.stderr.reader.is_finished());
        status
    }

    /// Ends it, in order where that can be asked for, so that its log is whole.
    pub(crate) fn end(&mut self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::INT);
        #[cfg(not(unix))]
        self.child.kill().expect("it runs");
        self.wait(PATIENCE);
    }

    /// Sends a signal.
    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.expect("a process id"), signal).expect("it runs");
    }

    fn wait_for_ports(&mut self, path: &Path, listeners: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // It is renamed into place: once it is there, it is whole.
            if let Ok(text) = fs::read_to_string(path) {
                let urls: Vec<_> = text.lines().map(str::to_owned).collect();
                assert_eq!(urls.len(), listeners, "a line for each listener: {text:?}");
                return urls;
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the relay ended at once: {status}");
            }
            assert!(Instant::now() < deadline, "no ports file in {PATIENCE:?}");
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Shows what the process said, once, under a case that fails.
    fn tell(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            let (stdout, stderr) = (self.stdout.so_far(), self.stderr.so_far());
            eprintln!("--- the relay said:\n{}{}---", tail(&stdout), tail(&stderr));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let status = self.child.wait();
        if thread::panicking() {
            self.tell();
            eprintln!("--- and ended with {status:?}");
        }
    }
}

/// A stream of a child that is read as it comes, so that the child never waits for us.
#[derive(Debug)]
pub(super) struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Captured {
    pub(super) fn of(mut stream: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut buffer) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..n]);
            }
        });
        Self { bytes, reader }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    pub(super) fn finished(self) -> String {
        let _ = self.reader.join();
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(super) fn wait_for(child: &mut Child, at_most: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + at_most;
    loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(4000);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
