//! `wardline serve`: from settings to a relay that listens, and to its end.

use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wardline_core::native::Identity;
use wardline_host::clock::Clock;
use wardline_host::files::{PidFile, write_ports, write_shard_ports};
use wardline_host::logging::{Log, LogOptions, Terminal};
use wardline_host::net::{Listener, ShardListeners, Tuning, bind_shards};
use wardline_host::open_files;
use wardline_host::orders::Orders;
use wardline_host::pin;
use wardline_host::settings::{Engine, Loaded, Settings, Shards};
use wardline_host::signals::Signals;

use crate::cli::ServeArgs;
use crate::engine::{self, Choice};
use crate::exit::Failure;
use crate::native::{self, Native, Said};
use crate::reload::Running;
use crate::shards::{self, Common};
use crate::show::print;

/// How long the end waits for the last lines of the log.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Relays until it is told to end.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let sources = args.settings.sources();
    let mut loaded = sources.load()?;
    engine::built(loaded.settings.server.engine)?;
    if args.test_config {
        native::check(&loaded.settings.native)?;
        return print(b"the settings are right\n");
    }
    let runtime = |what: &'static str| move |error| Failure::Runtime(format!("{what}: {error}"));
    // Before anything else can be in the middle of something.
    let signals = Signals::catch().map_err(runtime("cannot catch signals"))?;
    let terminal = Terminal::of_process();
    let log = Log::start(LogOptions::from_settings(&loaded.settings, terminal))
        .map_err(|error| Failure::Settings(error.to_string()))?;
    flush_before_panic(log.clone());
    // As the settings say it, and not as it can be had: that is what a reload compares with.
    let started = loaded.clone();
    let result = native::prepare(&mut loaded).and_then(|(native, said)| {
        let keyring = native.as_ref().map(|native| native.keyring.clone());
        let (applied, log) = (started.clone(), log.clone());
        let running = Running { sources, applied, started, log, terminal, keyring };
        serve(&loaded, native.as_ref(), &said, running, signals)
    });
    if let Err(failure) = &result {
        // Standard error is told of it in plain words; a file would not hear of it.
        if loaded.settings.log.file.is_some() {
            tracing::error!("{failure}");
        }
    }
    log.flush(LOG_PATIENCE);
    result
}

fn serve(
    loaded: &Loaded,
    native: Option<&Native>,
    said: &Said,
    running: Running,
    signals: Signals,
) -> Result<(), Failure> {
    let Loaded { settings, limits, .. } = loaded;
    let choice = engine::choose(settings.server.engine)?;
    let shards = settings.server.shards.count();
    let tuning = Tuning::for_limits(limits);
    // Who wants to know the ports may want to reach one shard, and nobody else does.
    let own = shards > 1 && settings.server.ports_file.is_some();
    let listeners =
        bind_shards(&settings.server.listen, &tuning, shards, (own, choice.engine.hands_over()))
            .map_err(|error| Failure::Bind(error.to_string()))?;
    let first = listeners.first().map(|first| &first.shared[..]).unwrap_or_default();
    let started = start_line(first, choice.engine, shards, said.identity.as_ref());
    let _pid_file = write_pid_file(settings)?;
    write_ports_file(settings, choice.engine, &listeners)?;
    let fewer = open_files::allow(limits.connections);
    let orders = deliver(choice.engine, signals, running, shards)
        .map_err(|error| Failure::Runtime(error.to_string()))?;
    let common = Common {
        settings,
        limits: *limits,
        engine: choice.engine,
        tuning,
        clock: Clock::start(),
        shards,
        native,
        orders: &orders,
    };
    // Of the process, and not of the thread that tells: that one is kept on a core of its own.
    let cores = pin::cores();
    shards::run(&common, listeners, || {
        tell(loaded, &choice, &started, fewer, cores);
        said.notes.iter().for_each(|note| tracing::info!("{note}"));
        said.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    })?;
    tracing::info!("ended");
    Ok(())
}

/// What the operator should know once connections are taken. `fewer`: connections that the system
/// allows, where those are not enough.
fn tell(loaded: &Loaded, choice: &Choice, started: &str, fewer: Option<u64>, cores: usize) {
    let shards = loaded.settings.server.shards;
    tracing::info!("engine {}: {}", choice.engine.name(), choice.why);
    tracing::info!("{started}");
    if shards == Shards::AUTO {
        tracing::info!("server.shards: auto is 1 until a measurement shows a gain from more");
    }
    if usize::from(shards.count()) > cores {
        let shards = shards.count();
        tracing::warn!("server.shards: {shards} shards share {cores} cores: that is slower");
    }
    if !loaded.without_meaning.is_empty() {
        let names = loaded.without_meaning.join(", ");
        tracing::warn!("settings without meaning here: {names}");
    }
    if let Some(fewer) = fewer {
        let wanted = loaded.limits.connections;
        tracing::warn!("the open files allowed are enough for {fewer} connections, not {wanted}");
    }
}

/// Writes the file with this process's number; it goes when it is dropped.
fn write_pid_file(settings: &Settings) -> Result<Option<PidFile>, Failure> {
    let written = settings.server.pid_file.as_deref().map(PidFile::write).transpose();
    written.map_err(|error| unwritten("server.pid_file", &error))
}

fn write_ports_file(
    settings: &Settings,
    engine: Engine,
    listeners: &[ShardListeners],
) -> Result<(), Failure> {
    let Some(path) = &settings.server.ports_file else { return Ok(()) };
    let written = match listeners {
        [only] => write_ports(path, &only.shared),
        shards => write_shard_ports(path, shards, engine.hands_over()),
    };
    written.map_err(|error| unwritten("server.ports_file", &error))
}

fn unwritten(key: &str, error: &io::Error) -> Failure {
    Failure::Runtime(format!("{key}: cannot write it: {error}"))
}

/// Has the operator's requests done, and those that are the engines' told to each shard.
fn deliver(
    engine: Engine,
    signals: Signals,
    mut running: Running,
    shards: u8,
) -> io::Result<Vec<Arc<Orders>>> {
    let orders: Vec<Arc<Orders>> = (0..shards).map(|_| Arc::default()).collect();
    let told = orders.clone();
    let tell = move |control| told.iter().for_each(|orders| orders.tell(control));
    match engine {
        #[cfg(all(target_os = "linux", not(wardline_portable)))]
        Engine::Ring | Engine::TokioUring => {
            let file = running.sources.file.clone();
            wardline_uring::control::deliver(signals, file, move |control, file| {
                if let Some(control) = running.obey_with(control, file) {
                    tell(control);
                }
            })?;
        }
        #[cfg(not(all(target_os = "linux", not(wardline_portable))))]
        Engine::Ring | Engine::TokioUring => return Err(io::ErrorKind::Unsupported.into()),
        Engine::Tokio | Engine::Auto => signals.deliver_to(move |control| {
            if let Some(control) = running.obey(control) {
                tell(control);
            }
        })?,
    }
    Ok(orders)
}

/// Where it listens, with what, who it is, and how to try it.
fn start_line(
    listeners: &[Listener],
    engine: Engine,
    shards: u8,
    identity: Option<&Identity>,
) -> String {
    let mut line = String::from("listening on ");
    for (n, listener) in listeners.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(line, "{comma}{}", listener.listen);
    }
    let _ = write!(line, "; engine {}", engine.name());
    if shards > 1 {
        let _ = write!(line, "; {shards} shards");
        let native = listeners.iter().any(|listener| listener.listen.dialects().native());
        if native && !engine.hands_over() {
            line.push_str(", native sessions on shard 0");
        }
    }
    if let Some(identity) = identity {
        let _ = write!(line, "; identity ed25519:{identity}");
    }
    let with_lines = listeners.iter().find(|listener| listener.listen.dialects().line());
    if let Some(first) = with_lines.or(listeners.first()) {
        let addr = reachable(first.addr);
        let _ = match with_lines {
            Some(_) => write!(line, "; try: nc {} {}", addr.ip(), addr.port()),
            None => write!(line, "; try: wardline sub main -s native://{addr}"),
        };
    }
    line
}

/// The address at which a listener is reached from its own machine.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let host: IpAddr = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(host, addr.port())
}

/// The lines that led to a panic are worth more than those before any other end.
fn flush_before_panic(log: Log) {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        log.flush(LOG_PATIENCE);
        tell(panic);
    }));
}

#[cfg(test)]
mod tests {
    use wardline_core::Limits;
    use wardline_core::native::SigningKey;

    use wardline_host::net::bind_all;

    use super::*;

    #[test]
    fn the_start_line_says_where_with_what_and_how_to_try() {
        let urls = ["line://127.0.0.1:0/a", "line://127.0.0.1:0/b"].map(|url| url.parse().unwrap());
        let listeners = bind_all(&urls, &Tuning::for_limits(&Limits::DEFAULT)).unwrap();
        let (a, b) = (listeners[0].addr.port(), listeners[1].addr.port());
        let expected = format!(
            "listening on line://127.0.0.1:{a}/a, line://127.0.0.1:{b}/b; engine tokio; \
             try: nc 127.0.0.1 {a}"
        );
        assert_eq!(start_line(&listeners, Engine::Tokio, 1, None), expected);
        assert!(
            start_line(&listeners, Engine::Ring, 3, None)
                .contains("; engine ring; 3 shards; try: ")
        );
    }

    #[test]
    fn the_start_line_says_who_it_is_and_how_native_clients_try() {
        let urls = ["native://127.0.0.1:0", "mixed://127.0.0.1:0"].map(|url| url.parse().unwrap());
        let listeners = bind_all(&urls, &Tuning::for_limits(&Limits::DEFAULT)).unwrap();
        let key = SigningKey::from_seed(&[7; 32]).identity();
        let (native, mixed) = (listeners[0].addr, listeners[1].addr.port());
        let line = start_line(&listeners, Engine::Ring, 1, Some(&key));
        let ends = format!("; identity ed25519:{key}; try: nc 127.0.0.1 {mixed}");
        assert!(line.ends_with(&ends), "{line}");
        let line = start_line(&listeners[..1], Engine::Ring, 1, Some(&key));
        assert!(
            line.ends_with(&format!("; try: wardline sub main -s native://{native}")),
            "{line}"
        );
        let line = start_line(&listeners, Engine::Ring, 2, Some(&key));
        assert!(line.contains("; 2 shards; identity "), "{line}");
        let line = start_line(&listeners, Engine::TokioUring, 2, Some(&key));
        assert!(line.contains("; 2 shards, native sessions on shard 0; identity "), "{line}");
    }

    #[test]
    fn every_address_is_tried_at_loopback() {
        for (addr, host) in
            [("0.0.0.0:7", "127.0.0.1"), ("[::]:7", "::1"), ("192.0.2.1:7", "192.0.2.1")]
        {
            let reached = reachable(addr.parse().unwrap());
            assert_eq!((reached.ip().to_string().as_str(), reached.port()), (host, 7));
        }
    }
}
