//! Many client connections to one server.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::interrupt::Interrupt;
use crate::process;

/// Connections that may wait unaccepted: below any server's backlog.
const UNACCEPTED_MAX: usize = 64;
/// How long a server may take to accept them.
const ACCEPT_MAX: Duration = Duration::from_secs(10);
/// Descriptors of its own that a server may close meanwhile; the pace is not finer than this.
const OWN_MAX: usize = 4;
/// Connections from one source address; the kernel has 28,232 ports for them by default.
const PER_SOURCE: usize = 20_000;

/// Opens `count` nonblocking connections to `addr`, no faster than the process `pid` accepts them,
/// which shows in the number of its descriptors.
pub fn connect_all(
    addr: SocketAddr,
    count: usize,
    pid: u32,
    interrupt: &Interrupt,
) -> Result<Vec<TcpStream>> {
    let at_first = process::descriptors(pid)?;
    let mut streams = Vec::with_capacity(count);
    for index in 0..count {
        let stream = connect(addr, source(addr, index))
            .with_context(|| format!("connection {index} to {addr}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        streams.push(stream);
        if streams.len() % UNACCEPTED_MAX == 0 || streams.len() == count {
            wait_accepted(pid, (at_first + streams.len()).saturating_sub(OWN_MAX), interrupt)?;
        }
    }
    Ok(streams)
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

/// Waits until a process has at least so many descriptors open.
fn wait_accepted(pid: u32, descriptors: usize, interrupt: &Interrupt) -> Result<()> {
    let end = Instant::now() + ACCEPT_MAX;
    loop {
        let now = process::descriptors(pid)?;
        if now >= descriptors {
            return Ok(());
        }
        interrupt.check()?;
        if Instant::now() > end {
            bail!("the server has {now} descriptors open where {descriptors} were expected");
        }
        std::thread::sleep(Duration::from_micros(200));
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
}
