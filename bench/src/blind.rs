//! The blind relay: what comes in goes out to all others, with no protocol at all.
//!
//! **Frozen.** It is the limit that every budget is measured against, so a change here changes the
//! meaning of every figure ever published. What it does, each turn (one `epoll_wait`):
//!
//! 1. one `recv` of up to 64 KiB for each readable socket;
//! 2. one copy of what came into the output buffer of every other connection;
//! 3. at the end of the turn one `send` for each connection that has output and is not full.
//!
//! It knows no lines, so where a read ends in the middle of one, another sender's bytes may follow:
//! with several publishers only windows far below a read (see [`UNCUT_BYTES_MAX`]) stay whole.
//!
//! It may have several rooms, a listener each: then "every other connection" is every other one of
//! the same room. With one it is what it always was.
//!
//! A short send keeps the rest and waits for `EPOLLOUT`. Nothing allocates once the buffers have
//! grown to what the load needs, and no system call is made beyond those above.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::poll::Poller;
use crate::traffic::topic_name;

/// What one receive may bring, as the definition of the baseline has it.
const READ_BYTES: usize = 64 * 1024;
/// What each of several publishers may have in flight through it so that no line is cut: half a
/// read, since a receive window that is nearly full cuts as well.
pub const UNCUT_BYTES_MAX: u64 = READ_BYTES as u64 / 2;
/// The longest queue of unaccepted connections that is asked for; the kernel lowers it to its own.
const BACKLOG: i32 = 4096;
/// Rooms that may be asked for: as many as a workload has topics.
pub const ROOMS_MAX: usize = 4_000;
/// A connection whose unsent output passes this is closed, so that a stuck reader cannot eat the
/// machine. Far above any window that `load` uses, and looked at only after a short send.
const UNSENT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The first room's listener's token; connections use their slot's number.
const LISTENER: u64 = 1 << 32;

/// The relay: one thread, one epoll, one output buffer for each connection.
#[derive(Debug)]
pub struct Blind {
    poller: Poller,
    /// By room.
    listeners: Vec<TcpListener>,
    slots: Vec<Option<Conn>>,
    /// By room: slots that hold a connection, in no order.
    live: Vec<Vec<u32>>,
    /// Slots that have output to try at this turn's end.
    pending: Vec<u32>,
    free: Vec<u32>,
    /// Slots closed in this turn; free only after it, since its later events may still name them.
    closed: Vec<u32>,
    inbox: Vec<u8>,
}

/// One connection.
#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    out: Vec<u8>,
    /// How much of `out` the kernel took already; not zero only while `blocked`.
    sent: usize,
    /// The last send was short: `EPOLLOUT` is asked for, and nothing is tried before it.
    blocked: bool,
    /// At which listener it came.
    room: u32,
    /// Where in its room's `live` this connection's slot stands.
    live_at: u32,
}

impl Blind {
    /// Binds and listens, once for each room; those behind the first take any port.
    pub fn bind(addr: SocketAddr, rooms: usize) -> Result<Self> {
        let listeners = listen_all(addr, rooms)?;
        let poller = Poller::new()?;
        for (token, listener) in (LISTENER..).zip(&listeners) {
            poller.add(listener, token, EventFlags::IN)?;
        }
        Ok(Self {
            poller,
            live: vec![Vec::new(); listeners.len()],
            listeners,
            slots: Vec::new(),
            pending: Vec::new(),
            free: Vec::new(),
            closed: Vec::new(),
            inbox: vec![0; READ_BYTES],
        })
    }

    /// The addresses that are listened on, with their real ports.
    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Relays until an error that is the relay's own.
    pub fn serve(&mut self) -> Result<()> {
        loop {
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<()> {
        let ready = self.poller.wait(None)?;
        for index in 0..ready {
            let (token, flags) = self.poller.event(index);
            if token >= LISTENER {
                self.accept((token - LISTENER) as u32)?;
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.unblocked(token as u32);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(token as u32);
            }
        }
        self.flush()?;
        self.free.append(&mut self.closed);
        Ok(())
    }

    fn accept(&mut self, room: u32) -> Result<()> {
        loop {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match net::accept_with(&self.listeners[room as usize], flags) {
                Ok(socket) => socket,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => bail!("cannot accept: {error}"),
            };
            sockopt::set_tcp_nodelay(&socket, true)?;
            let slot = self.free.pop().unwrap_or_else(|| {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            });
            self.poller.add(&socket, u64::from(slot), EventFlags::IN)?;
            let live = &mut self.live[room as usize];
            let live_at = live.len() as u32;
            live.push(slot);
            let out = Vec::new();
            let conn = Conn { socket, out, sent: 0, blocked: false, room, live_at };
            self.slots[slot as usize] = Some(conn);
        }
    }

    /// One receive, and the copies of what it brought.
    fn receive(&mut self, from: u32) {
        let Some(conn) = &self.slots[from as usize] else { return };
        let got = match net::recv(&conn.socket, self.inbox.as_mut_slice(), RecvFlags::empty()) {
            Ok((0, _)) => return self.close(from),
            Ok((got, _)) => got,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => return self.close(from),
        };
        let bytes = &self.inbox[..got];
        for &slot in &self.live[conn.room as usize] {
            if slot == from {
                continue;
            }
            if let Some(conn) = &mut self.slots[slot as usize] {
                if conn.out.is_empty() {
                    self.pending.push(slot);
                }
                conn.out.extend_from_slice(bytes);
            }
        }
    }

    /// The kernel has room again for a connection that was full.
    fn unblocked(&mut self, slot: u32) {
        if self.slots[slot as usize].as_ref().is_some_and(|conn| conn.blocked) {
            self.pending.push(slot);
        }
    }

    /// One send for each connection that has output; it is never in `pending` twice, because only
    /// an empty buffer that gets its first bytes, or a full one that has room again, enters it.
    fn flush(&mut self) -> io::Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        for slot in pending.drain(..) {
            let Some(conn) = &mut self.slots[slot as usize] else { continue };
            match net::send(&conn.socket, &conn.out[conn.sent..], SendFlags::NOSIGNAL) {
                Ok(sent) => conn.sent += sent,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    self.close(slot);
                    continue;
                }
            }
            if conn.sent < conn.out.len() {
                self.keep_rest(slot)?;
                continue;
            }
            conn.out.clear();
            conn.sent = 0;
            if conn.blocked {
                conn.blocked = false;
                self.poller.modify(&conn.socket, u64::from(slot), EventFlags::IN)?;
            }
        }
        self.pending = pending;
        Ok(())
    }

    /// After a short send: what is left waits for `EPOLLOUT`.
    fn keep_rest(&mut self, slot: u32) -> io::Result<()> {
        let Some(conn) = &mut self.slots[slot as usize] else { return Ok(()) };
        if conn.out.len() - conn.sent > UNSENT_BYTES_MAX {
            self.close(slot);
            return Ok(());
        }
        if conn.sent > conn.out.len() / 2 {
            conn.out.drain(..conn.sent);
            conn.sent = 0;
        }
        if !conn.blocked {
            conn.blocked = true;
            let both = EventFlags::IN | EventFlags::OUT;
            self.poller.modify(&conn.socket, u64::from(slot), both)?;
        }
        Ok(())
    }

    fn close(&mut self, slot: u32) {
        let Some(conn) = self.slots[slot as usize].take() else { return };
        let live = &mut self.live[conn.room as usize];
        live.swap_remove(conn.live_at as usize);
        if let Some(&moved) = live.get(conn.live_at as usize)
            && let Some(moved) = &mut self.slots[moved as usize]
        {
            moved.live_at = conn.live_at;
        }
        self.closed.push(slot);
    }
}

/// `load blind`: binds, writes the ports file as the relay does, and serves.
pub fn run(listen: SocketAddr, rooms: usize, ports_file: Option<&Path>) -> Result<()> {
    crate::process::raise_descriptors_max()?;
    let mut blind = Blind::bind(listen, rooms)?;
    tell(&blind.local_addrs()?, ports_file)?;
    blind.serve()
}

/// Says where a blind relay listens: in the ports file, and to people the first of it.
pub(crate) fn tell(addrs: &[SocketAddr], ports_file: Option<&Path>) -> Result<()> {
    let topic = |room: usize| if addrs.len() == 1 { "main".to_owned() } else { topic_name(room) };
    let urls =
        addrs.iter().enumerate().map(|(room, addr)| format!("line://{addr}/{}", topic(room)));
    let urls: Vec<String> = urls.collect();
    if let Some(path) = ports_file {
        write_ports_file(path, &urls.join("\n"))?;
    }
    let more = if urls.len() == 1 { String::new() } else { format!(", {} rooms", urls.len()) };
    eprintln!("blind relay on {}{more}", urls.first().map_or("nothing", String::as_str));
    Ok(())
}

/// A listener for each room: the first at `addr`, the others at ports that are free.
pub(crate) fn listen_all(addr: SocketAddr, rooms: usize) -> Result<Vec<TcpListener>> {
    let free = SocketAddr::new(addr.ip(), 0);
    (0..rooms).map(|room| listen(if room == 0 { addr } else { free })).collect()
}

/// A listener of a blind relay: it does not block.
fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &addr).with_context(|| format!("cannot bind {addr}"))?;
    net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Written beside and renamed, so that whoever sees the file sees all of it.
fn write_ports_file(path: &Path, urls: &str) -> Result<()> {
    let unfinished = path.with_extension("unfinished");
    std::fs::write(&unfinished, format!("{urls}\n"))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    fn connect(blind: &mut Blind) -> TcpStream {
        connect_to(blind, 0)
    }

    fn connect_to(blind: &mut Blind, room: usize) -> TcpStream {
        let stream = TcpStream::connect(blind.local_addrs().unwrap()[room]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        blind.turn().unwrap();
        stream
    }

    fn blind() -> Blind {
        Blind::bind("127.0.0.1:0".parse().unwrap(), 1).unwrap()
    }

    #[test]
    fn others_get_it_and_the_sender_does_not() {
        let mut blind = blind();
        let (mut a, mut b, mut c) = (connect(&mut blind), connect(&mut blind), connect(&mut blind));
        a.write_all(b"hello\n").unwrap();
        blind.turn().unwrap();
        b.write_all(b"back\n").unwrap();
        blind.turn().unwrap();
        let (mut at_a, mut at_b, mut at_c) = ([0; 5], [0; 6], [0; 11]);
        a.read_exact(&mut at_a).unwrap();
        b.read_exact(&mut at_b).unwrap();
        c.read_exact(&mut at_c).unwrap();
        assert_eq!((&at_a, &at_b, &at_c), (b"back\n", b"hello\n", b"hello\nback\n"));
    }

    #[test]
    fn a_room_hears_its_own_alone() {
        let mut blind = Blind::bind("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let mut pairs: Vec<_> =
            (0..3).map(|room| [room; 2].map(|room| connect_to(&mut blind, room))).collect();
        for (room, [from, _]) in pairs.iter_mut().enumerate() {
            from.write_all(&[room as u8]).unwrap();
        }
        for _ in 0..3 {
            if blind.poller.wait(Some(Duration::ZERO)).unwrap() > 0 {
                blind.turn().unwrap();
            }
        }
        for (room, [from, to]) in pairs.iter_mut().enumerate() {
            let mut one = [9; 2];
            assert_eq!((to.read(&mut one).unwrap(), one[0]), (1, room as u8));
            for stream in [from, to] {
                stream.set_nonblocking(true).unwrap();
                assert!(stream.read(&mut one).is_err(), "something else came in room {room}");
            }
        }
    }

    #[test]
    fn a_full_socket_keeps_the_rest_in_order() {
        const TOTAL: usize = 24 * 1024 * 1024;
        let mut blind = blind();
        let (mut from, mut to) = (connect(&mut blind), connect(&mut blind));
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..TOTAL).map(|at| (at / 7) as u8).collect();
            from.write_all(&bytes).unwrap();
            from
        });
        let mut blocked = false;
        while !blocked {
            blind.turn().unwrap();
            blocked = blind.slots[1].as_ref().is_some_and(|conn| conn.blocked);
        }
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; TOTAL];
            to.read_exact(&mut bytes).unwrap();
            bytes.iter().enumerate().all(|(at, &byte)| byte == (at / 7) as u8)
        });
        while !reader.is_finished() {
            blind.poller.wait(Some(Duration::from_millis(1))).unwrap();
            if blind.poller.wait(Some(Duration::ZERO)).unwrap() > 0 {
                blind.turn().unwrap();
            }
        }
        assert!(reader.join().unwrap(), "the bytes came damaged");
        drop(writer.join().unwrap());
        assert!(blind.slots[1].as_ref().is_none_or(|conn| !conn.blocked && conn.out.is_empty()));
    }

    #[test]
    fn a_closed_slot_is_used_again_and_the_rest_go_on() {
        let mut blind = blind();
        let (mut a, b, mut c) = (connect(&mut blind), connect(&mut blind), connect(&mut blind));
        drop(b);
        blind.turn().unwrap();
        assert_eq!((blind.live[0].len(), blind.free.as_slice()), (2, &[1][..]));
        let mut d = connect(&mut blind);
        assert_eq!((blind.live[0].len(), blind.slots.len()), (3, 3));
        a.write_all(b"x").unwrap();
        blind.turn().unwrap();
        let mut one = [0; 1];
        c.read_exact(&mut one).unwrap();
        d.read_exact(&mut one).unwrap();
        assert_eq!(&one, b"x");
    }
}
