//! What a client is told before it connects.

use std::path::PathBuf;

use wardline_core::native::{Identity, SigningKey};

use crate::client::Client;
use crate::envelopes::Policy;
use crate::error::ConnectError;
use crate::known_hosts::KnownHosts;
use crate::state;
use crate::task;
use crate::url::Url;

/// How the server is known. PROTOCOL.md 2.2.6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// By its key, and nobody else.
    Pin(Identity),
    /// By a file of `host:port key`: who is in it is expected, and a server that is met for the
    /// first time is noted there once it has proved who it is.
    KnownHosts(PathBuf),
    /// **Whoever answers first**, at each start; from then on that one, as long as the client
    /// lives. Who stands in between at a start is not noticed: for tests, and for relays whose key
    /// is new each time.
    FirstUse,
}

/// A client that does not yet exist.
#[derive(Debug)]
pub struct Builder {
    url: String,
    key: Option<SigningKey>,
    device: Option<u32>,
    last_epoch_ms: u64,
    server: Option<Server>,
    recv_max: u32,
    events_max: usize,
    policy: Policy,
}

/// All that the task has to know.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) url: Url,
    pub(crate) key: SigningKey,
    pub(crate) device: u32,
    /// The program said which device it is: another start of it may be remembered.
    pub(crate) has_own_device: bool,
    pub(crate) last_epoch_ms: u64,
    /// Who is expected; None: whoever comes.
    pub(crate) pin: Option<Identity>,
    /// Where who came is noted.
    pub(crate) known: Option<KnownHosts>,
    pub(crate) recv_max: u32,
    pub(crate) events_max: usize,
    pub(crate) policy: Policy,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            key: None,
            device: None,
            last_epoch_ms: 0,
            server: None,
            // A frame of 64 KiB, the largest payload that a relay takes by default.
            recv_max: 65_536 + 48,
            events_max: 256,
            policy: Policy::OPEN,
        }
    }

    /// Who the client is.
    #[must_use]
    pub fn key(mut self, key: SigningKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Which of its devices: a program of the same key and device that connects later takes the
    /// session over. Without it, a random number. With it, see [`epoch_ms`](Self::epoch_ms).
    #[must_use]
    pub const fn device(mut self, device: u32) -> Self {
        self.device = Some(device);
        self
    }

    /// The epoch of this device's last start, as [`Client::epoch_ms`] said it then: this start's
    /// will be greater. Who names a [`device`](Self::device) keeps that number, and gives it back
    /// here.
    ///
    /// Without it the clock decides, which may have been set back since. Then the relay refuses
    /// the start as long as it holds the session of before
    /// ([`ConnectError::Alert`], `REFUSED`), and whoever remembers what the device has signed
    /// drops what it signs now. Within one process the epochs of a named device never go back.
    #[must_use]
    pub const fn epoch_ms(mut self, last: u64) -> Self {
        self.last_epoch_ms = last;
        self
    }

    /// How the server is known. Without it, by the file [`state::KNOWN_HOSTS`] in the state
    /// directory of this user, which the commands use, too.
    #[must_use]
    pub fn server(mut self, server: Server) -> Self {
        self.server = Some(server);
        self
    }

    /// The most bytes of a record that are taken, at least 1,024: a message that is larger is a
    /// gap. Without it, 65,584.
    #[must_use]
    pub const fn recv_max(mut self, bytes: u32) -> Self {
        self.recv_max = bytes;
        self
    }

    /// How many events can wait in a subscription, or in another stream, before the socket is read
    /// no further; at least 1. Without it, 256.
    #[must_use]
    pub const fn events_max(mut self, events: usize) -> Self {
        self.events_max = events;
        self
    }

    /// What is signed, and what is demanded of others. Without it, [`Policy::OPEN`].
    ///
    /// A client remembers whom it has heard as long as it lives. A new one refuses what was signed
    /// before it began, so that nothing can be said twice to a program that is started again; and
    /// it needs a clock that is right: what was signed more than 300 s from now is refused.
    #[must_use]
    pub const fn envelopes(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Connects. What goes wrong now is not tried again; what goes wrong later is. Needs a tokio
    /// runtime with I/O and timers, on which the client's task then runs.
    ///
    /// # Errors
    /// There is no relay, it is not the expected one, or it says no.
    pub async fn connect(self) -> Result<Client, ConnectError> {
        let url: Url = self.url.parse()?;
        let key = self.key.ok_or(ConnectError::NoKey)?;
        let (has_own_device, last_epoch_ms) = (self.device.is_some(), self.last_epoch_ms);
        let device = match self.device {
            Some(device) => device,
            None => u32::from_le_bytes(task::entropy()?),
        };
        let (pin, known) = match self.server.or_else(of_this_user).ok_or(ConnectError::NoHome)? {
            Server::Pin(pin) => (Some(pin), None),
            Server::FirstUse => (None, None),
            Server::KnownHosts(path) => {
                let known = KnownHosts::new(path);
                (known.find(&url.address())?, Some(known))
            }
        };
        let (recv_max, events_max) = (self.recv_max.max(1_024), self.events_max.max(1));
        let policy = self.policy;
        let plan = Plan {
            url,
            key,
            device,
            has_own_device,
            last_epoch_ms,
            pin,
            known,
            recv_max,
            events_max,
            policy,
        };
        task::start(plan).await
    }
}

/// How a server is known where nothing was said of it.
fn of_this_user() -> Option<Server> {
    state::state_directory().map(|state| Server::KnownHosts(state.join(state::KNOWN_HOSTS)))
}
