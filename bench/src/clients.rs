//! Many client connections to one server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::interrupt::Interrupt;
use crate::line::{LineFault, shown};
use crate::native;
use crate::process;
use crate::wire::{Format, Role};

/// Connections that may wait unaccepted: below any server's backlog.
const UNACCEPTED_MAX: usize = 64;
/// How long a server may take to accept them, or to answer a greeting.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How often one looks whether it did.
const LOOK_EVERY: Duration = Duration::from_micros(100);
/// Connections from one source address; the kernel has 28,232 ports for them by default.
const PER_SOURCE: usize = 20_000;

/// A connection, and what came on it behind the answer to its greeting.
#[derive(Debug)]
pub struct Client {
    /// The connection, not blocking.
    pub stream: TcpStream,
    /// Bytes that were received and are not looked at yet.
    pub begun: Vec<u8>,
    /// Its end of a native connection, where it is one.
    pub end: Option<Box<native::End>>,
}

/// Opens `count` nonblocking connections, each to the address that `addr` says, no faster than they
/// are accepted, which shows in the length of the listeners' queues.
pub fn connect_all(
    addr: impl Fn(usize) -> SocketAddr,
    count: usize,
    interrupt: &Interrupt,
) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    let mut ports = Vec::new();
    for index in 0..count {
        let addr = addr(index);
        let stream = connect(addr, source(addr, index))
            .with_context(|| format!("connection {index} to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
        if !ports.contains(&addr.port()) {
            ports.push(addr.port());
        }
        if streams.len() % UNACCEPTED_MAX == 0 || streams.len() == count {
            wait_accepted(&ports, interrupt)?;
            ports.clear();
        }
    }
    Ok(streams)
}

/// Says what a connection has to say first on this wire, on each, and waits until all were
/// answered; `place` gives each one's role and topic.
pub fn greet_all<'t>(
    streams: Vec<TcpStream>,
    format: Format,
    place: impl Fn(usize) -> (Role, &'t str),
    interrupt: &Interrupt,
) -> Result<Vec<Client>> {
    if format.is_native() {
        let mut streams = streams.into_iter();
        let count = streams.len();
        let next = |_| streams.next().context("a connection for each");
        return join_all(count, next, format, place, interrupt);
    }
    for (index, stream) in streams.iter().enumerate() {
        let (role, topic) = place(index);
        let greeting = format.greeting(role, topic);
        // It is short, and the first that is ever sent: the kernel takes it whole.
        let sent = net::send(stream, &greeting, SendFlags::NOSIGNAL)
            .with_context(|| format!("connection {index}"))?;
        anyhow::ensure!(sent == greeting.len(), "connection {index} took half a greeting");
    }
    let mut clients = Vec::with_capacity(streams.len());
    for (index, stream) in streams.into_iter().enumerate() {
        let (role, topic) = place(index);
        let begun = greeted(&stream, |bytes| format.greeted(role, topic, bytes), interrupt)
            .with_context(|| format!("connection {index}"))?;
        clients.push(Client { stream, begun, end: None });
    }
    Ok(clients)
}

/// Connects native clients to the addresses that `addr` says; each shakes hands at once, for the
/// relay does not wait long for that.
pub fn connect_native<'t>(
    addr: impl Fn(usize) -> SocketAddr,
    count: usize,
    format: Format,
    place: impl Fn(usize) -> (Role, &'t str),
    interrupt: &Interrupt,
) -> Result<Vec<Client>> {
    let next = |index| {
        let stream = TcpStream::connect(addr(index))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    join_all(count, next, format, place, interrupt)
}

/// Has native clients shake hands, one after the other. Of those that send to peers each sends to
/// the reader of its topic.
fn join_all<'t>(
    count: usize,
    mut next: impl FnMut(usize) -> Result<TcpStream>,
    format: Format,
    place: impl Fn(usize) -> (Role, &'t str),
    interrupt: &Interrupt,
) -> Result<Vec<Client>> {
    let mut clients: Vec<Client> = Vec::with_capacity(count);
    for index in 0..count {
        interrupt.check()?;
        let mut stream = next(index)?;
        let (role, topic) = place(index);
        // The readers of a topic stand before its publishers.
        let reader = clients.last().and_then(|client| client.end.as_ref()).map(|end| end.handle);
        let peer = (format == Format::Direct).then_some(reader);
        stream.set_nonblocking(false)?;
        let end = native::End::join(&mut stream, index as u64, role, topic, peer)
            .with_context(|| format!("connection {index}"))?;
        stream.set_nonblocking(true)?;
        clients.push(Client { stream, begun: Vec::new(), end: Some(Box::new(end)) });
    }
    Ok(clients)
}

/// Receives until the greeting is answered, and gives what came behind the answer.
fn greeted(
    stream: &TcpStream,
    answered: impl Fn(&[u8]) -> Result<Option<usize>, LineFault>,
    interrupt: &Interrupt,
) -> Result<Vec<u8>> {
    let end = Instant::now() + ANSWER_MAX;
    let (mut bytes, mut inbox) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(used) = answered(&bytes)? {
            bytes.drain(..used);
            return Ok(bytes);
        }
        match net::recv(stream, inbox.as_mut_slice(), RecvFlags::empty()) {
            Ok((0, _)) => bail!("the server closed it after {:?}", shown(&bytes)),
            Ok((got, _)) => bytes.extend_from_slice(&inbox[..got]),
            Err(Errno::AGAIN | Errno::INTR) => {
                interrupt.check()?;
                if Instant::now() > end {
                    bail!("the server answered the greeting only with {:?}", shown(&bytes));
                }
                std::thread::sleep(LOOK_EVERY);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The source address for the connection with this number, where the kernel's choice runs out.
fn source(addr: SocketAddr, index: usize) -> Option<SocketAddr> {
    let group = (index / PER_SOURCE) as u8;
    let ours = addr.ip().is_loopback() && addr.is_ipv4() && group > 0;
    ours.then(|| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + group)), 0))
}

fn connect(addr: SocketAddr, source: Option<SocketAddr>) -> Result<TcpStream> {
    let Some(source) = source else { return Ok(TcpStream::connect(addr)?) };
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &source)?;
    net::connect(&socket, &addr)?;
    Ok(TcpStream::from(socket))
}

/// Waits until nothing stands in the queues of the listeners at these ports.
pub(crate) fn wait_accepted(ports: &[u16], interrupt: &Interrupt) -> Result<()> {
    let end = Instant::now() + ANSWER_MAX;
    loop {
        let waiting = process::unaccepted(ports)?;
        if waiting == 0 {
            return Ok(());
        }
        interrupt.check()?;
        if Instant::now() > end {
            bail!("the server leaves {waiting} connections unaccepted");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn sources_change_only_when_ports_run_out() {
        let v4: SocketAddr = "127.0.0.1:80".parse().unwrap();
        assert_eq!(source(v4, PER_SOURCE - 1), None);
        assert_eq!(source(v4, PER_SOURCE), Some("127.0.0.2:0".parse().unwrap()));
        assert_eq!(source("[::1]:80".parse().unwrap(), PER_SOURCE), None);
        assert_eq!(source("10.1.1.1:80".parse().unwrap(), PER_SOURCE), None);
    }

    #[test]
    fn a_connection_can_come_from_another_loopback_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = connect(addr, source(addr, PER_SOURCE)).unwrap();
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer, stream.local_addr().unwrap());
        assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 0, 2));
    }

    #[test]
    fn it_waits_for_a_listener_that_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let stream = TcpStream::connect(addr).unwrap();
        let waits = || process::unaccepted(&[addr.port()]).unwrap() == 1;
        // The last packet of three may take its time.
        assert!((0..500).any(|_| waits() || {
            std::thread::sleep(Duration::from_millis(10));
            false
        }));
        let accepting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            listener.accept().unwrap();
            listener
        });
        wait_accepted(&[addr.port()], &Interrupt::default()).unwrap();
        assert_eq!(process::unaccepted(&[addr.port()]).unwrap(), 0);
        drop((accepting.join().unwrap(), stream));
    }
}
