//! The blind relay over io_uring: the algorithm of [`blind`], by the ring's means.
//!
//! Each turn (one `io_uring_enter` that submits everything and waits for one completion):
//!
//! 1. a receive of up to 64 KiB stands in the ring for each connection;
//! 2. one copy of what it brought into the output buffer of every other connection;
//! 3. at the end of the turn one send for each connection that has output and none in the ring.
//!
//! While a send is in the ring the kernel reads its buffer, so a connection has two: `out` is the
//! kernel's meanwhile, `next` is what gathers behind it. What the ring has to offer beyond this
//! (provided buffers, receives that stay, registered descriptors) is left to the engines.
//!
//! # Safety
//!
//! All unsafe code of the crate stands here. What the ring is given are addresses: of `inbox` while
//! `receiving`, and of `out` while `sending`. The rule that makes this sound: while the flag is
//! set, that buffer is not touched, and its slot is not freed. The flag is set where the entry is
//! made and cleared where its completion is seen, and nowhere else. Slots are never dropped, not
//! even with the relay: the kernel may still write after the ring is closed.

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

use std::fmt;
use std::mem::ManuallyDrop;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, bail};
use io_uring::squeue::Entry;
use io_uring::{IoUring, cqueue, opcode, types};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown, sockopt};

use crate::blind;

/// What one receive may bring: as the blind relay's.
const READ_BYTES: usize = 64 * 1024;
/// Entries that are given to the kernel together: a thousand sends of a turn, and more.
const ENTRIES: u32 = 4096;
/// Completions that fit until they are looked at.
const COMPLETIONS: u32 = 4 * ENTRIES;
/// A connection whose unsent output passes this is closed, as the blind relay closes it.
const UNSENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Which operation a completion ends; its connection's slot, or its listener's room, stands below.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1 << 32;
const SEND: u64 = 2 << 32;
const SLOT: u64 = RECEIVE - 1;

/// The relay: one thread, one ring, three buffers for each connection.
pub struct BlindRing {
    ring: IoUring,
    /// By room, as the blind relay's.
    listeners: Vec<TcpListener>,
    /// Never dropped: see the module's safety rule.
    slots: ManuallyDrop<Vec<Option<Conn>>>,
    /// By room: slots of connections that are not at their end, in no order.
    live: Vec<Vec<u32>>,
    /// Slots that have output to send at this turn's end.
    pending: Vec<u32>,
    free: Vec<u32>,
    /// The completions of a turn: key, result, flags.
    done: Vec<(u64, i32, u32)>,
}

/// One connection.
#[derive(Debug)]
struct Conn {
    socket: OwnedFd,
    /// The kernel's while `receiving`.
    inbox: Vec<u8>,
    /// The kernel's while `sending`.
    out: Vec<u8>,
    /// How much of `out` was sent.
    sent: usize,
    next: Vec<u8>,
    receiving: bool,
    sending: bool,
    /// It stands in the relay's list of those that have output to send.
    pending: bool,
    /// At which listener it came.
    room: u32,
    /// Where in its room's `live` it stands; nowhere once it has ended.
    live_at: Option<u32>,
}

impl BlindRing {
    /// Binds, listens, once for each room, and makes the ring, which only this thread may use.
    pub fn bind(addr: SocketAddr, rooms: usize) -> Result<Self> {
        let listeners = blind::listen_all(addr, rooms)?;
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(ENTRIES)
            .context("no io_uring here, or an old one")?;
        let (live, pending, free) = (vec![Vec::new(); rooms], Vec::new(), Vec::new());
        let slots = ManuallyDrop::new(Vec::new());
        let mut relay = Self { ring, listeners, slots, live, pending, free, done: Vec::new() };
        for room in 0..rooms {
            relay.accept_more(room as u32)?;
        }
        Ok(relay)
    }

    /// The addresses that are listened on, with their real ports.
    pub fn local_addrs(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Relays until an error that is the relay's own.
    pub fn serve(&mut self) -> Result<()> {
        loop {
            self.turn()?;
        }
    }

    fn turn(&mut self) -> Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error).context("io_uring_enter"),
        }
        let mut done = std::mem::take(&mut self.done);
        let completions = self.ring.completion();
        done.extend(completions.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for (key, result, flags) in done.drain(..) {
            let slot = (key & SLOT) as u32;
            match key & !SLOT {
                ACCEPT => self.accepted(slot, result, cqueue::more(flags))?,
                RECEIVE => self.received(slot, result)?,
                SEND => self.sent(slot, result)?,
                _ => bail!("a completion that nobody asked for: {key:#x}"),
            }
        }
        self.done = done;
        self.flush()
    }

    fn accept_more(&mut self, room: u32) -> Result<()> {
        let listener = types::Fd(self.listeners[room as usize].as_raw_fd());
        let key = ACCEPT | u64::from(room);
        let entry = opcode::AcceptMulti::new(listener).build().user_data(key);
        // SAFETY: it names no memory, and the listeners live as long as the ring.
        unsafe { self.push(&entry) }
    }

    fn accepted(&mut self, room: u32, result: i32, more: bool) -> Result<()> {
        if !more {
            self.accept_more(room)?;
        }
        let Some(fd) = taken(result).context("cannot accept")? else { return Ok(()) };
        // SAFETY: the kernel opened it for this completion, so nobody else owns it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        sockopt::set_tcp_nodelay(&socket, true)?;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            (self.slots.len() - 1) as u32
        });
        let live = &mut self.live[room as usize];
        let live_at = Some(live.len() as u32);
        live.push(slot);
        self.slots[slot as usize] = Some(Conn {
            socket,
            inbox: vec![0; READ_BYTES],
            out: Vec::new(),
            sent: 0,
            next: Vec::new(),
            receiving: false,
            sending: false,
            pending: false,
            room,
            live_at,
        });
        self.receive(slot)
    }

    /// Asks for the next bytes of a connection.
    fn receive(&mut self, slot: u32) -> Result<()> {
        let Some(conn) = &mut self.slots[slot as usize] else { return Ok(()) };
        assert!(!conn.receiving, "two receives into one buffer");
        conn.receiving = true;
        let (fd, at) = (types::Fd(conn.socket.as_raw_fd()), conn.inbox.as_mut_ptr());
        let entry = opcode::Recv::new(fd, at, conn.inbox.len() as u32)
            .build()
            .user_data(RECEIVE | u64::from(slot));
        // SAFETY: `at` is valid for the length of `inbox`, which nobody touches and which is not
        // freed while `receiving`; its descriptor is not closed before, either.
        unsafe { self.push(&entry) }
    }

    /// The copies of what one receive brought.
    fn received(&mut self, from: u32, result: i32) -> Result<()> {
        let Some(conn) = &mut self.slots[from as usize] else {
            bail!("a receive of an empty slot");
        };
        conn.receiving = false;
        let got = match taken(result) {
            Ok(None) => return self.receive(from),
            Ok(Some(0)) | Err(_) => return self.leave(from),
            Ok(Some(got)) => got,
        };
        // Taken out for the copies, so that the slots are free to change; put back behind them.
        let inbox = std::mem::take(&mut conn.inbox);
        for &slot in &self.live[conn.room as usize] {
            if slot == from {
                continue;
            }
            let Some(conn) = &mut self.slots[slot as usize] else { continue };
            if !conn.sending && !conn.pending {
                conn.pending = true;
                self.pending.push(slot);
            }
            conn.next.extend_from_slice(&inbox[..got]);
            if conn.next.len() > UNSENT_BYTES_MAX {
                // Its receive ends by this, and then it leaves.
                let _ = shutdown(&conn.socket, Shutdown::Both);
            }
        }
        if let Some(conn) = &mut self.slots[from as usize] {
            conn.inbox = inbox;
        }
        self.receive(from)
    }

    fn sent(&mut self, slot: u32, result: i32) -> Result<()> {
        let Some(conn) = &mut self.slots[slot as usize] else { bail!("a send of an empty slot") };
        conn.sending = false;
        match taken(result) {
            Ok(sent) => conn.sent += sent.unwrap_or(0),
            Err(_) => {
                // Its receive ends by this, and then it leaves.
                let _ = shutdown(&conn.socket, Shutdown::Both);
                conn.sent = conn.out.len();
                conn.next.clear();
            }
        }
        if conn.live_at.is_none() {
            self.free_if_quiet(slot);
        } else if conn.sent < conn.out.len() || !conn.next.is_empty() {
            conn.pending = true;
            self.pending.push(slot);
        }
        Ok(())
    }

    /// One send for each connection that has output.
    fn flush(&mut self) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        for slot in pending.drain(..) {
            let Some(conn) = &mut self.slots[slot as usize] else { continue };
            conn.pending = false;
            assert!(!conn.sending, "two sends of one connection");
            if conn.live_at.is_none() {
                continue;
            }
            if conn.sent == conn.out.len() {
                conn.out.clear();
                conn.sent = 0;
                std::mem::swap(&mut conn.out, &mut conn.next);
            }
            conn.sending = true;
            let rest = &conn.out[conn.sent..];
            let (fd, at) = (types::Fd(conn.socket.as_raw_fd()), rest.as_ptr());
            let entry = opcode::Send::new(fd, at, rest.len() as u32)
                .build()
                .user_data(SEND | u64::from(slot));
            // SAFETY: `at` is valid for the rest of `out`, which nobody touches and which is not
            // freed while `sending`; its descriptor is not closed before, either.
            unsafe { self.push(&entry)? };
        }
        self.pending = pending;
        Ok(())
    }

    /// Gives the kernel an entry; at the latest with the next turn.
    ///
    /// # Safety
    ///
    /// What the entry names stays valid until its completion was seen.
    unsafe fn push(&mut self, entry: &Entry) -> Result<()> {
        loop {
            // SAFETY: the caller's.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.ring.submit().context("io_uring_enter")?;
        }
    }

    /// A connection has ended: nothing more is written to it.
    fn leave(&mut self, slot: u32) -> Result<()> {
        let Some(conn) = &mut self.slots[slot as usize] else { return Ok(()) };
        if let Some(live_at) = conn.live_at.take() {
            if conn.sending {
                // A send to a peer that does not read would not end by itself.
                let _ = shutdown(&conn.socket, Shutdown::Both);
            }
            let live = &mut self.live[conn.room as usize];
            live.swap_remove(live_at as usize);
            if let Some(&moved) = live.get(live_at as usize)
                && let Some(moved) = &mut self.slots[moved as usize]
            {
                moved.live_at = Some(live_at);
            }
        }
        self.free_if_quiet(slot);
        Ok(())
    }

    /// A slot is free once nothing of it is in the ring.
    fn free_if_quiet(&mut self, slot: u32) {
        let quiet = |conn: &Conn| !conn.receiving && !conn.sending;
        if self.slots[slot as usize].as_ref().is_some_and(quiet) {
            self.slots[slot as usize] = None;
            // Who comes to this slot in the same turn has nothing to send yet.
            self.pending.retain(|&pending| pending != slot);
            self.free.push(slot);
        }
    }
}

/// The result of an operation; nothing if it has to be tried again.
fn taken(result: i32) -> Result<Option<usize>, Errno> {
    match usize::try_from(result) {
        Ok(count) => Ok(Some(count)),
        Err(_) => match Errno::from_raw_os_error(-result) {
            Errno::INTR | Errno::AGAIN | Errno::CONNABORTED => Ok(None),
            errno => Err(errno),
        },
    }
}

impl fmt::Debug for BlindRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlindRing")
            .field("listeners", &self.listeners)
            .field("live", &self.live.iter().map(Vec::len).sum::<usize>())
            .finish_non_exhaustive()
    }
}

/// `load blind --engine ring`: binds, writes the ports file as the relay does, and serves.
pub fn run(listen: SocketAddr, rooms: usize, ports_file: Option<&Path>) -> Result<()> {
    crate::process::raise_descriptors_max()?;
    let mut relay = BlindRing::bind(listen, rooms)?;
    blind::tell(&relay.local_addrs()?, ports_file)?;
    relay.serve()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::time::Duration;

    const ROOMS: usize = 2;

    /// A relay on a thread of its own, which runs until the tests end; none where the kernel, or
    /// who started it, forbids io_uring to everybody.
    fn start() -> Option<SocketAddr> {
        Some(start_rooms()?[0])
    }

    fn start_rooms() -> Option<Vec<SocketAddr>> {
        if let Err(error) = IoUring::new(2) {
            eprintln!("not tested: no io_uring here: {error}");
            return None;
        }
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut relay = BlindRing::bind("127.0.0.1:0".parse().unwrap(), ROOMS).unwrap();
            tell.send(relay.local_addrs().unwrap()).unwrap();
            relay.serve().unwrap();
        });
        Some(told.recv().unwrap())
    }

    /// Connections that all hear each other by now.
    fn connect(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..count {
            let stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            streams.push(stream);
        }
        crate::clients::wait_accepted(&[addr.port()], &crate::interrupt::Interrupt::default())
            .unwrap();
        // Accepted is not yet live; a turn later it is.
        std::thread::sleep(Duration::from_millis(20));
        streams
    }

    #[test]
    fn others_get_it_and_the_sender_does_not() {
        let Some(addr) = start() else { return };
        let mut streams = connect(addr, 3);
        streams[0].write_all(b"hello\n").unwrap();
        let mut got = [0; 6];
        for reader in [1, 2] {
            streams[reader].read_exact(&mut got).unwrap();
            assert_eq!(&got, b"hello\n");
        }
        streams[1].write_all(b"back!\n").unwrap();
        streams[0].read_exact(&mut got).unwrap();
        assert_eq!(&got, b"back!\n");
    }

    #[test]
    fn a_room_hears_its_own_alone() {
        let Some(addrs) = start_rooms() else { return };
        let mut rooms: Vec<_> = addrs.iter().map(|addr| connect(*addr, 2)).collect();
        for (room, streams) in rooms.iter_mut().enumerate() {
            streams[0].write_all(&[room as u8]).unwrap();
        }
        for (room, streams) in rooms.iter_mut().enumerate() {
            let mut got = [9; 2];
            assert_eq!((streams[1].read(&mut got).unwrap(), got[0]), (1, room as u8));
            // What came to the other room by then would stand here.
            streams[0].write_all(b"!").unwrap();
            assert_eq!((streams[1].read(&mut got).unwrap(), got[0]), (1, b'!'));
        }
    }

    #[test]
    fn a_full_socket_keeps_the_rest_in_order() {
        const TOTAL: usize = 24 * 1024 * 1024;
        let Some(addr) = start() else { return };
        let mut streams = connect(addr, 2);
        let (mut to, mut from) = (streams.pop().unwrap(), streams.pop().unwrap());
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..TOTAL).map(|at| (at / 7) as u8).collect();
            from.write_all(&bytes).unwrap();
            from
        });
        // The sockets fill up before anything is read.
        std::thread::sleep(Duration::from_millis(100));
        let mut bytes = vec![0; TOTAL];
        to.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().enumerate().all(|(at, &byte)| byte == (at / 7) as u8), "damaged");
        drop(writer.join().unwrap());
    }

    #[test]
    fn those_who_leave_in_the_middle_of_a_send_hold_nobody_up() {
        let Some(addr) = start() else { return };
        let mut streams = connect(addr, 3);
        let stuck = streams.remove(1);
        // Fills what the stuck one does not read, so that a send of it is in the ring.
        let line = [b'x'; 64 * 1024];
        for _ in 0..128 {
            streams[0].write_all(&line).unwrap();
            let mut got = vec![0; line.len()];
            streams[1].read_exact(&mut got).unwrap();
        }
        drop(stuck);
        let mut more = connect(addr, 1);
        streams[0].write_all(b"still\n").unwrap();
        let mut got = [0; 6];
        for reader in [&mut streams[1], &mut more[0]] {
            reader.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"still\n");
        }
    }
}
