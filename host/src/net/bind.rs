//! Bound sockets.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use wardline_core::Limits;

use super::listen::Listen;

/// Connections that the kernel completes before the relay takes them; it holds fewer where
/// `net.core.somaxconn` says so. A room of agents that all reconnect at once fits.
const BACKLOG: i32 = 4096;

/// Bytes that may wait in the kernel without having been sent. What waits in the log instead can
/// still be dropped, counted and shared between readers.
const NOT_SENT_BYTES: u32 = 128 << 10;

/// The same, for the plan.
pub(crate) const NOT_SENT_BYTES_MAX: u64 = NOT_SENT_BYTES as u64;

/// After so long in silence the kernel asks whether the peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// And asks again so often.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(15);

/// The kernel gives a peer up that acknowledges nothing for so long. The relay's own rules come
/// first, because they can say why.
#[cfg(all(target_os = "linux", not(wardline_portable)))]
const GIVE_UP_MIN: Duration = Duration::from_secs(120);

/// A socket that listens, and the topic of its connections.
#[derive(Debug)]
pub struct Listener {
    /// What it is bound to: the address and port that it got.
    pub listen: Listen,
    /// The same as an address.
    pub addr: SocketAddr,
    /// The socket, nonblocking.
    pub socket: TcpListener,
}

/// A listener that could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// What was asked for.
    pub listen: Listen,
    /// What the system said.
    pub source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}", self.listen, self.source)?;
        match self.source.kind() {
            io::ErrorKind::AddrInUse => f.write_str("; another process has that port"),
            io::ErrorKind::PermissionDenied => f.write_str("; ports below 1024 are privileged"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for BindError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The options of a connection's socket.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    give_up: Duration,
}

impl Tuning {
    /// The options that go with a relay's limits.
    #[must_use]
    pub fn for_limits(limits: &Limits) -> Self {
        let progress = limits.progress.as_millis().max(limits.progress_blind.as_millis());
        Self { give_up: Duration::from_millis(progress.saturating_mul(2)) }
    }

    /// Sets the options that a connection did not inherit from its listener: none on Linux.
    ///
    /// # Errors
    /// The system's; the connection works without, only less well.
    pub fn accepted<'s, S>(&self, socket: &'s S) -> io::Result<()>
    where
        SockRef<'s>: From<&'s S>,
    {
        match cfg!(all(target_os = "linux", not(wardline_portable))) {
            true => Ok(()),
            false => self.apply(&SockRef::from(socket)),
        }
    }

    fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(true)?;
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
        socket.set_tcp_keepalive(&keepalive.with_interval(KEEPALIVE_EVERY))?;
        self.apply_linux(socket)
    }

    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    fn apply_linux(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
        socket.set_tcp_user_timeout(Some(self.give_up.max(GIVE_UP_MIN)))
    }

    #[cfg(not(all(target_os = "linux", not(wardline_portable))))]
    #[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
    fn apply_linux(&self, _: &Socket) -> io::Result<()> {
        let _ = self.give_up;
        Ok(())
    }
}

/// Binds every listener, or none.
///
/// # Errors
/// The operator's or the system's: the first that cannot be bound.
pub fn bind_all(listens: &[Listen], tuning: &Tuning) -> Result<Vec<Listener>, BindError> {
    let failed = |listen: &Listen, source| BindError { listen: listen.clone(), source };
    let mut listeners = Vec::with_capacity(listens.len());
    for listen in listens {
        let only_v6 = beside_v4_wildcard(listen, listens);
        let socket =
            bind(listen, tuning, only_v6, false).map_err(|source| failed(listen, source))?;
        let addr = socket.local_addr().map_err(|source| failed(listen, source))?;
        listeners.push(Listener { listen: listen.bound_at(addr), addr, socket });
    }
    Ok(listeners)
}

/// Whether several shards can listen on one port.
const CAN_SHARE: bool = cfg!(all(target_os = "linux", not(wardline_portable)));

/// The listeners of one of several shards: first those of the settings, which it shares with the
/// others, then those that lead to it alone.
#[derive(Debug, Default)]
pub struct ShardListeners {
    /// In the order of the settings. Those that take native clients only the first shard has where
    /// it is home to all sessions. Where the system cannot share ports it alone has the others,
    /// too, and hands connections on.
    pub shared: Vec<Listener>,
    /// In the same order, on ports that the system chose; if they were asked for. None for those
    /// that only the first shard has.
    pub own: Vec<Listener>,
}

/// Binds every listener for `shards` shards, or none. `own`: each shard gets a port of its own for
/// each listener, beside. `spread`: all take native clients, not the first alone.
///
/// # Errors
/// The operator's or the system's: the first that cannot be bound.
pub fn bind_shards(
    listens: &[Listen],
    tuning: &Tuning,
    shards: u8,
    (own, spread): (bool, bool),
) -> Result<Vec<ShardListeners>, BindError> {
    let failed = |listen: &Listen, source| BindError { listen: listen.clone(), source };
    let mut all: Vec<_> = (0..shards).map(|_| ShardListeners::default()).collect();
    for listen in listens {
        let only_v6 = beside_v4_wildcard(listen, listens);
        let listener = |listen: &Listen, shared| {
            let socket = bind(listen, tuning, only_v6, shared)?;
            let addr = socket.local_addr()?;
            Ok(Listener { listen: listen.bound_at(addr), addr, socket })
        };
        let failed = |source| failed(listen, source);
        // A port that is shared may be taken by another process of the same user, and half of its
        // connections would go there: so it must be free for one alone, first.
        let first = listener(listen, false).map_err(failed)?;
        let (bound, ip) = (first.listen.clone(), first.addr.ip());
        let alone = shards > 1 && listen.dialects().native() && !spread;
        let mut first = Some(first);
        if CAN_SHARE && shards > 1 && !alone {
            first = None;
        }
        for shard in &mut all {
            match first.take() {
                Some(only) => shard.shared.push(only),
                None if CAN_SHARE && !alone => {
                    shard.shared.push(listener(&bound, true).map_err(failed)?);
                }
                None => {}
            }
            if own && !alone {
                let anywhere = SocketAddr::new(ip, 0);
                shard.own.push(listener(&bound.bound_at(anywhere), false).map_err(failed)?);
            }
        }
    }
    Ok(all)
}

/// Binds the first address of the host that can be bound.
fn bind(listen: &Listen, tuning: &Tuning, only_v6: bool, shared: bool) -> io::Result<TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for addr in (listen.host(), listen.port()).to_socket_addrs()? {
        match bind_addr(addr, tuning, only_v6, shared) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind_addr(
    addr: SocketAddr,
    tuning: &Tuning,
    only_v6: bool,
    shared: bool,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Elsewhere than on Unix this option lets another process take the port over.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    if shared {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(all(target_os = "linux", not(wardline_portable))))]
    let _ = shared;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    // Connections inherit these on Linux, which saves four system calls on each.
    tuning.apply(&socket)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// `[::]` takes IPv4 too, unless `0.0.0.0` on the same port is to be bound beside it.
fn beside_v4_wildcard(listen: &Listen, all: &[Listen]) -> bool {
    let v4 = |other: &Listen| matches!(other.wildcard(), Some(IpAddr::V4(_)));
    matches!(listen.wildcard(), Some(IpAddr::V6(_)))
        && listen.port() != 0
        && all.iter().any(|other| v4(other) && other.port() == listen.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn tuning() -> Tuning {
        Tuning::for_limits(&Limits::DEFAULT)
    }

    fn listens(urls: &[&str]) -> Vec<Listen> {
        urls.iter().map(|url| url.parse().unwrap()).collect()
    }

    #[test]
    fn port_0_becomes_a_real_one() {
        let asked = listens(&["line://127.0.0.1:0/a", "line://localhost:0/b"]);
        let bound = bind_all(&asked, &tuning()).unwrap();
        assert_eq!(bound.len(), 2);
        for (listener, topic) in bound.iter().zip(["a", "b"]) {
            assert_ne!(listener.addr.port(), 0);
            assert_eq!(listener.listen.port(), listener.addr.port());
            assert_eq!(listener.listen.topic(), topic);
            assert_eq!(listener.socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
            TcpStream::connect(listener.addr).unwrap();
        }
    }

    #[test]
    fn shards_share_ports_and_have_their_own() {
        let asked = listens(&["line://127.0.0.1:0/a", "line://127.0.0.1:0/b"]);
        let bound = bind_shards(&asked, &tuning(), 3, (true, false)).unwrap();
        assert_eq!(bound.len(), 3);
        let mut own = std::collections::BTreeSet::new();
        for (nth, shard) in bound.iter().enumerate() {
            let shared = if CAN_SHARE || nth == 0 { 2 } else { 0 };
            assert_eq!((shard.shared.len(), shard.own.len()), (shared, 2));
            for (here, first) in shard.shared.iter().zip(&bound[0].shared) {
                assert_eq!(here.addr, first.addr);
            }
            assert!(shard.own.iter().all(|listener| own.insert(listener.addr)));
            assert_eq!(shard.own[1].listen.topic(), "b");
        }
        let taken = vec![bound[0].shared[0].listen.clone()];
        let wrong = bind_shards(&taken, &tuning(), 2, (false, false)).unwrap_err();
        assert_eq!(wrong.source.kind(), io::ErrorKind::AddrInUse, "another process has that port");
    }

    #[test]
    fn only_the_first_shard_takes_native_clients() {
        let urls = ["native://127.0.0.1:0", "line://127.0.0.1:0/a", "mixed://127.0.0.1:0/b"];
        let bound = bind_shards(&listens(&urls), &tuning(), 2, (true, false)).unwrap();
        let shown = |listeners: &[Listener]| -> Vec<String> {
            let named = |listener: &Listener| listener.listen.to_string();
            listeners.iter().map(named).map(|url| url[..4].to_owned()).collect()
        };
        assert_eq!(shown(&bound[0].shared), ["nati", "line", "mixe"]);
        assert_eq!(shown(&bound[1].shared), if CAN_SHARE { vec!["line"] } else { vec![] });
        assert!(bound.iter().all(|shard| shown(&shard.own) == ["line"]));
        // Nobody else can take the port over.
        let taken = vec![bound[0].shared[0].listen.clone()];
        let wrong = bind_shards(&taken, &tuning(), 2, (false, false)).unwrap_err();
        assert_eq!(wrong.source.kind(), io::ErrorKind::AddrInUse);
        let alone = bind_shards(&listens(&urls), &tuning(), 1, (false, false)).unwrap();
        assert_eq!(alone[0].shared.len(), 3);
    }

    #[test]
    fn a_taken_port_is_named() {
        let first = bind_all(&listens(&["line://127.0.0.1:0"]), &tuning()).unwrap();
        let again = vec![first[0].listen.clone()];
        let wrong = bind_all(&again, &tuning()).unwrap_err();
        assert_eq!(wrong.source.kind(), io::ErrorKind::AddrInUse);
        let said = wrong.to_string();
        assert!(said.contains(&first[0].listen.to_string()), "{said}");
        assert!(said.contains("another process"), "{said}");
    }

    #[test]
    fn a_host_that_does_not_exist_is_named() {
        let wrong = bind_all(&listens(&["line://192.0.2.1:0"]), &tuning()).unwrap_err();
        assert!(wrong.to_string().contains("192.0.2.1"), "{wrong}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_connection_inherits_what_its_listener_has() {
        let bound = bind_all(&listens(&["line://127.0.0.1:0"]), &tuning()).unwrap();
        let _client = TcpStream::connect(bound[0].addr).unwrap();
        bound[0].socket.set_nonblocking(false).unwrap();
        let (accepted, _) = bound[0].socket.accept().unwrap();
        tuning().accepted(&accepted).unwrap();
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_AFTER);
        #[cfg(not(wardline_portable))]
        {
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOT_SENT_BYTES);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(GIVE_UP_MIN));
        }
    }

    #[test]
    fn both_wildcards_share_a_port_number() {
        let attempt = || {
            let v4 = bind_all(&listens(&["line://0.0.0.0:0"]), &tuning()).unwrap();
            let port = v4[0].addr.port();
            drop(v4);
            let both = [format!("line://0.0.0.0:{port}"), format!("line://[::]:{port}")];
            let asked = listens(&both.each_ref().map(String::as_str));
            match bind_all(&asked, &tuning()) {
                Ok(bound) => bound[0].addr.port() == bound[1].addr.port(),
                // A machine without IPv6 has nothing to show here.
                Err(wrong) => wrong.source.kind() != io::ErrorKind::AddrInUse,
            }
        };
        // Another test may take the port in between; not five times.
        assert!((0..5).any(|_| attempt()));
    }
}
