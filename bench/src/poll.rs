//! A level-triggered epoll with its buffer of events.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// How many events one wait can bring: a thousand readers that became ready together fit.
const EVENTS_MAX: usize = 1024;

/// An epoll instance and the events of its last wait.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    ready: usize,
}

impl Poller {
    /// Opens an epoll instance.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Ok(Self { epoll, events: vec![none; EVENTS_MAX], ready: 0 })
    }

    /// Watches a descriptor; its events carry `token`.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), interest)?)
    }

    /// Changes what a watched descriptor is watched for.
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), interest)?)
    }

    /// Waits once and says how many events there are; an interrupted wait brings none.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|limit| Timespec {
            tv_sec: limit.as_secs().min(3600) as i64,
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        self.ready = match epoll::wait(&self.epoll, self.events.as_mut_slice(), timeout.as_ref()) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(self.ready)
    }

    /// The token and the flags of one event of the last wait.
    ///
    /// # Panics
    ///
    /// When `index` is not below what the last wait returned.
    #[inline]
    pub fn event(&self, index: usize) -> (u64, EventFlags) {
        assert!(index < self.ready, "event {index} of {}", self.ready);
        let event = self.events[index];
        (event.data.u64(), event.flags)
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).field("ready", &self.ready).finish()
    }
}
