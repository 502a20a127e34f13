//! Listening sockets.
//!
//! The ring watches an epoll of them, and not them: the kernel takes a ring apart some time after
//! its process has gone, and what was asked of it holds its files until then; so who kills a relay
//! would find its port still taken. `accept` is called by ourselves, which costs one call for each
//! connection: a ring's would need one more to learn where it comes from.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use wardline_core::{Instant, TopicId};
use wardline_host::net::AcceptErrors;

/// Connections taken from one listener per turn.
const ACCEPTS_PER_TURN: usize = 64;

/// A listening socket and the topic that it is bound to.
#[derive(Debug)]
struct Door {
    listener: TcpListener,
    topic: TopicId,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Doors {
    doors: Vec<Door>,
    epoll: OwnedFd,
    /// Somebody may stand before one of them.
    pub(super) knocked: bool,
    /// They rest until then.
    rest_until: Option<Instant>,
    errors: AcceptErrors,
}

impl Doors {
    pub(super) fn new(listeners: Vec<(TcpListener, TopicId)>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut doors = Vec::with_capacity(listeners.len());
        for (listener, topic) in listeners {
            epoll::add(&epoll, &listener, EventData::new_u64(0), EventFlags::IN)?;
            doors.push(Door { listener, topic });
        }
        Ok(Self { doors, epoll, knocked: true, rest_until: None, errors: AcceptErrors::default() })
    }

    /// What the ring is to watch.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// When they are to be looked at, whatever the ring says.
    pub(super) const fn rest_until(&self) -> Option<Instant> {
        self.rest_until
    }

    /// Takes no more connections.
    pub(super) fn close(&mut self) {
        self.doors.clear();
        self.rest_until = None;
    }

    /// Gives each who stands before a door to `admit`, with that door's number, as many as a turn
    /// takes.
    pub(super) fn open(
        &mut self,
        now: Instant,
        mut admit: impl FnMut(usize, TcpStream, SocketAddr, TopicId),
    ) {
        if self.rest_until.is_some_and(|at| at <= now) {
            self.rest_until = None;
            self.knocked = true;
        }
        if !self.knocked || self.rest_until.is_some() {
            return;
        }
        self.knocked = false;
        for (number, door) in self.doors.iter().enumerate() {
            let mut left = ACCEPTS_PER_TURN;
            while left > 0 {
                left -= 1;
                match door.listener.accept() {
                    Ok((stream, addr)) => admit(number, stream, addr, door.topic),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        if let Some(until) = self.errors.rest_until(&error, now) {
                            self.rest_until = Some(until);
                            break;
                        }
                    }
                }
            }
            self.knocked |= left == 0;
        }
    }
}
