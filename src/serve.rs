//! `wardline serve`: from settings to a relay that listens, and to its end.

use std::fmt::{Display, Write};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wardline_core::{ConfigError, Relay, Tap};
use wardline_host::clock::{self, Clock};
use wardline_host::files::{PidFile, write_ports};
use wardline_host::logging::{Log, LogOptions, Terminal};
use wardline_host::messages::MessageLog;
use wardline_host::net::{Listener, Tuning, bind_all};
use wardline_host::open_files;
use wardline_host::orders::Orders;
use wardline_host::settings::{Loaded, Settings};
use wardline_host::signals::Signals;
use wardline_host::storage::{Lent, Sizes};

use crate::cli::ServeArgs;
use crate::exit::Failure;
use crate::reload::Running;
use crate::show::print;

/// How long the end waits for the last lines of the log.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Relays until it is told to end.
pub(crate) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let sources = args.settings.sources();
    let loaded = sources.load()?;
    if args.test_config {
        return print(b"the settings are right\n");
    }
    let runtime = |what: &'static str| move |error| Failure::Runtime(format!("{what}: {error}"));
    // Before anything else can be in the middle of something.
    let signals = Signals::catch().map_err(runtime("cannot catch signals"))?;
    let terminal = Terminal::of_process();
    let log = Log::start(LogOptions::from_settings(&loaded.settings, terminal))
        .map_err(|error| Failure::Settings(error.to_string()))?;
    flush_before_panic(log.clone());
    let running = Running {
        sources,
        applied: loaded.clone(),
        started: loaded.clone(),
        log: log.clone(),
        terminal,
    };
    let result = serve(&loaded, running, signals);
    if let Err(failure) = &result {
        // Standard error is told of it in plain words; a file would not hear of it.
        if loaded.settings.log.file.is_some() {
            tracing::error!("{failure}");
        }
    }
    log.flush(LOG_PATIENCE);
    result
}

fn serve(loaded: &Loaded, running: Running, signals: Signals) -> Result<(), Failure> {
    let Loaded { settings, limits, .. } = loaded;
    let failed = |error: &dyn Display| Failure::Runtime(error.to_string());
    let sizes = Sizes::of(limits, settings);
    let mut lent = Lent::reserve(&sizes, &settings.quarantine.exempt).map_err(|e| failed(&e))?;
    let tuning = Tuning::for_limits(limits);
    let listeners = bind_all(&settings.server.listen, &tuning)
        .map_err(|error| Failure::Bind(error.to_string()))?;
    let started = start_line(&listeners, settings.server.engine.name());
    let _pid_file = write_files(settings, &listeners)?;

    let clock = Clock::start();
    let log = &settings.log;
    let messages = MessageLog { enabled: log.messages, keys: log.keys.clone() };
    let mut show = move |sender: SocketAddr, line: &[u8]| messages.log(sender, line);
    let (mut slots, pool) = lent.lend();
    if log.messages {
        slots.tap = Tap::new(&mut show);
    }
    let seed = clock::seed().map_err(|e| failed(&e))?;
    let unfit = |error: ConfigError| Failure::Settings(error.to_string());
    let mut relay = Relay::new(*limits, slots, pool, seed, clock.now()).map_err(unfit)?;
    let mut doors = Vec::with_capacity(listeners.len());
    for Listener { listen, socket, .. } in listeners {
        let topic = relay.listen(listen.topic()).map_err(unfit)?;
        if let Some(coalesce) = listen.coalesce() {
            relay.set_coalesce(topic, coalesce).map_err(unfit)?;
        }
        doors.push((socket, topic));
    }
    let fewer = open_files::allow(limits.connections);
    let orders = deliver(signals, running).map_err(|e| failed(&e))?;
    let tell = || {
        tracing::info!("{started}");
        if !loaded.without_meaning.is_empty() {
            let names = loaded.without_meaning.join(", ");
            tracing::warn!("settings without meaning here: {names}");
        }
        if let Some(fewer) = fewer {
            let wanted = limits.connections;
            tracing::warn!(
                "the open files allowed are enough for {fewer} connections, not {wanted}"
            );
        }
    };
    wardline_tokio::serve(relay, doors, clock, tuning, &orders, tell).map_err(|e| failed(&e))?;
    tracing::info!("ended");
    Ok(())
}

/// Writes the files that tell others of this process; the first goes when it is dropped.
fn write_files(settings: &Settings, listeners: &[Listener]) -> Result<Option<PidFile>, Failure> {
    let failed = |key: &str, error| Failure::Runtime(format!("{key}: cannot write it: {error}"));
    let pid_file = settings.server.pid_file.as_deref().map(PidFile::write).transpose();
    let pid_file = pid_file.map_err(|error| failed("server.pid_file", error))?;
    if let Some(path) = &settings.server.ports_file {
        write_ports(path, listeners).map_err(|error| failed("server.ports_file", error))?;
    }
    Ok(pid_file)
}

/// Has the operator's requests done, and those that are the engine's told to it.
fn deliver(signals: Signals, mut running: Running) -> io::Result<Arc<Orders>> {
    let orders = Arc::new(Orders::default());
    let told = Arc::clone(&orders);
    signals.deliver_to(move |control| {
        if let Some(control) = running.obey(control) {
            told.tell(control);
        }
    })?;
    Ok(orders)
}

/// Where it listens, with what, and how to try it.
fn start_line(listeners: &[Listener], engine: &str) -> String {
    let mut line = String::from("listening on ");
    for (n, listener) in listeners.iter().enumerate() {
        let comma = if n == 0 { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(line, "{comma}{}", listener.listen);
    }
    let _ = write!(line, "; engine {engine}");
    if let Some(first) = listeners.first() {
        let (host, port) = reachable(first.addr);
        let _ = write!(line, "; try: nc {host} {port}");
    }
    line
}

/// The address at which a listener is reached from its own machine.
fn reachable(addr: SocketAddr) -> (IpAddr, u16) {
    let host = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    (host, addr.port())
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
        assert_eq!(start_line(&listeners, "tokio"), expected);
    }

    #[test]
    fn every_address_is_tried_at_loopback() {
        for (addr, host) in
            [("0.0.0.0:7", "127.0.0.1"), ("[::]:7", "::1"), ("192.0.2.1:7", "192.0.2.1")]
        {
            let (reached, port) = reachable(addr.parse().unwrap());
            assert_eq!((reached.to_string().as_str(), port), (host, 7));
        }
    }
}
