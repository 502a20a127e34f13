//! One connection as the simulator has it: the client, the socket between, the model.

use std::collections::VecDeque;

use wardline_core::{ConnId, Range};

use crate::client::Client;
use crate::view::View;

/// A send under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    /// What it is made of.
    pub(crate) ranges: Vec<Range>,
    /// The bytes that stood there when it began.
    pub(crate) bytes: Vec<u8>,
    /// What its reader had of the topic before.
    pub(crate) from: u64,
    /// How many of them the socket took.
    pub(crate) taken: usize,
    /// The step in which it began.
    pub(crate) step: u64,
    /// Whether the relay was told that it waits, and when.
    pub(crate) waits: bool,
    pub(crate) told_ns: u64,
    /// Whether the relay wants it cancelled.
    pub(crate) cancelled: bool,
}

/// A send that was cut: where in the stream, and what is known of the place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// Bytes accepted up to there.
    pub(crate) at: u64,
    /// The send's number.
    pub(crate) nth: u64,
}

/// The socket of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    /// What it holds for the peer at most.
    pub(crate) bytes_max: usize,
    /// What the peer has not read.
    pub(crate) unread: usize,
    /// The frontend knows that it is full.
    pub(crate) full: bool,
    /// The frontend puts the next send off, as if it were full.
    pub(crate) put_off: bool,
    /// The send under way.
    pub(crate) flight: Option<Flight>,
    /// Bytes from the peer that were not received.
    pub(crate) wire: Vec<u8>,
    /// How many of those were.
    pub(crate) wire_done: usize,
    /// The peer has finished writing.
    pub(crate) fin: bool,
    /// The relay was told.
    pub(crate) fin_told: bool,
    /// The peer has reset it.
    pub(crate) reset: bool,
    /// The frontend may not read it.
    pub(crate) paused: bool,
    /// Receives that a ring still delivers after a pause.
    pub(crate) overrun: u32,
    /// The relay finished writing.
    pub(crate) finished: bool,
    /// The relay wants it closed.
    pub(crate) closing: bool,
    /// A probe is to be answered.
    pub(crate) probed: bool,
    /// It broke, and the relay was told so.
    pub(crate) broken: bool,
    /// Bytes accepted, and how many of them the model has seen.
    pub(crate) accepted: u64,
    pub(crate) seen: u64,
    pub(crate) unseen: Vec<u8>,
    pub(crate) cuts: Vec<Cut>,
    /// Where sends ended in the stream, and when, as far as the peer has not read so far.
    pub(crate) ends: VecDeque<(u64, u64)>,
    ends_from: u64,
    /// Sends that began.
    pub(crate) sends: u64,
}

impl Socket {
    /// A new one.
    #[must_use]
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            unread: 0,
            full: false,
            put_off: false,
            flight: None,
            wire: Vec::new(),
            wire_done: 0,
            fin: false,
            fin_told: false,
            reset: false,
            paused: false,
            overrun: 0,
            finished: false,
            closing: false,
            probed: false,
            broken: false,
            accepted: 0,
            seen: 0,
            unseen: Vec::new(),
            cuts: Vec::new(),
            ends: VecDeque::new(),
            ends_from: 0,
            sends: 0,
        }
    }

    /// How much it can take.
    #[must_use]
    pub(crate) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.unread)
    }

    /// The peer reads `len` bytes; gives when the last of them was sent, if that is known yet.
    pub(crate) fn read(&mut self, len: usize) -> Option<u64> {
        self.unread -= len;
        let read = self.accepted - self.unread as u64;
        let mut at = None;
        while let Some((end, sent)) = self.ends.front().copied() {
            if read > self.ends_from {
                at = Some(sent);
            }
            if end > read {
                break;
            }
            self.ends_from = end;
            self.ends.pop_front();
        }
        at
    }

    /// What the peer wrote and nobody received.
    #[must_use]
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.wire[self.wire_done..]
    }

    /// Takes `len` bytes of that.
    pub(crate) fn receive(&mut self, len: usize) -> Vec<u8> {
        let bytes = self.waiting()[..len].to_vec();
        self.wire_done += len;
        if self.wire_done == self.wire.len() {
            self.wire.clear();
            self.wire_done = 0;
        }
        bytes
    }
}

/// When things happened to a connection, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// It was taken.
    pub(crate) came: u64,
    /// A byte came from it.
    pub(crate) heard: u64,
    /// The relay was told that it has finished writing.
    pub(crate) ended: u64,
    /// It acknowledged a byte that the relay knows to be sent.
    pub(crate) acknowledged: u64,
    /// The last byte that it acknowledged had been sent.
    pub(crate) taken: u64,
    /// A send that took a byte ended.
    pub(crate) sent: u64,
    /// It was read again after a pause.
    pub(crate) resumed: u64,
    /// A probe was answered.
    pub(crate) answered: u64,
    /// A probe found that it had acknowledged something.
    pub(crate) probed: u64,
    /// Its last gap.
    pub(crate) gap: u64,
    /// A send of it was last started.
    pub(crate) started: u64,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its name at the relay.
    pub(crate) conn: ConnId,
    /// Who is at the other end.
    pub(crate) client: Client,
    /// What is between.
    pub(crate) socket: Socket,
    /// What the model thinks of it.
    pub(crate) view: View,
    /// When what happened.
    pub(crate) times: Times,
    /// Its last send was short or did not complete at once.
    pub(crate) slow: bool,
    /// Since when it is there though it should not be.
    pub(crate) late_ns: Option<u64>,
    /// It was slow, or a send of it was under way, since the relay's events were last all known.
    pub(crate) was_slow: bool,
    /// A send of it was cancelled.
    pub(crate) pressed: bool,
    /// The relay was told that it is closed.
    pub(crate) gone: bool,
}
