//! The relay and its eight clients, and what a test does to them. Time is a number here.

use core::hint::black_box;

use wardline_core::{
    ConnId, Duration, Gather, Instant, Network, Next, Refusal, Relay, Remote, Slots, Tap, TopicId,
    pump, send,
};

use crate::clients::{Client, Clients, Takes};
use crate::fail;
use crate::script::{Bytes, Chapter, LINE_BYTES_MAX, address, author, put_line};
use crate::storage::{Events, LIMITS, Storage};

/// Rounds of the loop after which something must have gone wrong.
const ROUNDS_MAX: u32 = 10_000;

/// Addresses that are never refused.
const EXEMPT: &[Network] =
    &[Network { ip: core::net::IpAddr::V4(core::net::Ipv4Addr::LOCALHOST), bits: 8 }];

/// Everything.
#[derive(Debug)]
pub struct World {
    /// The relay.
    pub relay: Relay<'static, &'static mut [u8]>,
    /// The clients.
    pub clients: Clients,
    /// The topic that all are on.
    pub topic: TopicId,
    /// The time.
    pub now: Instant,
    /// The message that is said next.
    pub next: u64,
    gather: Gather,
}

impl World {
    /// A relay in lent memory, with nobody connected.
    pub fn new((storage, events): (&'static mut Storage, &'static mut Events)) -> Self {
        let slots = Slots {
            sessions: &mut storage.sessions,
            cursors: &mut storage.cursors,
            prefixes: &mut storage.prefixes,
            prefix_buckets: &mut storage.prefix_buckets,
            topics: &mut storage.topics,
            links: &mut storage.links,
            bans_v4: &mut storage.bans_v4,
            bans_v6: &mut storage.bans_v6,
            bans_parents: &mut storage.bans_parents,
            wheel: &mut storage.wheel,
            events,
            scratch: &mut storage.scratch,
            exempt: EXEMPT,
            tap: Tap::NONE,
        };
        let now = Instant::from_nanos(1_000_000_000);
        let pool = storage.pool.as_mut_slice();
        // The compiler is not to know them, or it would leave out what they do not ask for.
        let Ok(mut relay) = Relay::new(black_box(LIMITS), slots, pool, [7; 32], now) else {
            fail("the relay does not take its memory");
        };
        let Ok(topic) = relay.listen("main") else { fail("the relay does not take its topic") };
        Self { relay, clients: Clients::new(), topic, now, next: 0, gather: Gather::new() }
    }

    /// Somebody connects from `remote`.
    pub fn accept(&mut self, remote: core::net::SocketAddr) -> Result<ConnId, Refusal> {
        self.relay.handle_accept(self.now, Remote { addr: remote, topic: self.topic })
    }

    /// Client `index` connects; it is to read what is said from now on.
    pub fn connect(&mut self, index: usize, takes: Takes) {
        let conn = match self.accept(address(index)) {
            Ok(conn) => conn,
            Err(_) => fail("a client is not taken"),
        };
        let next = self.next;
        if let Some(client) = self.clients.at(index) {
            *client = Client::connected(conn, takes, next);
        }
    }

    /// Client `index` sends bytes, in receives of at most `most`.
    pub fn say(&mut self, index: usize, bytes: &[u8], most: usize) {
        let conn = self.clients.at(index).and_then(|client| client.conn);
        let Some(conn) = conn else { return };
        let mut rest = bytes;
        for _ in 0..ROUNDS_MAX {
            if rest.is_empty() {
                return;
            }
            let budget = self.relay.read_budget(conn).min(most).min(rest.len());
            let (now, later) = rest.split_at_checked(budget).unwrap_or((rest, &[]));
            if !now.is_empty() {
                self.relay.handle_input(self.now, conn, now);
                rest = later;
            }
            self.settle();
            if budget == 0 {
                self.pass(Duration::from_millis(10));
            }
        }
        fail("a client cannot send");
    }

    /// The next message is said, in receives of at most `most` bytes.
    pub fn say_next(&mut self, most: usize) {
        let mut line = Bytes::<LINE_BYTES_MAX>::new();
        put_line(self.next, &mut line);
        let author = author(self.next);
        self.next += 1;
        self.say(author, line.as_slice(), most);
    }

    /// Another chapter begins, once everybody has read the one before.
    pub fn begin(&mut self, chapter: Chapter) {
        self.next = chapter.start();
        for (_, client) in self.clients.iter() {
            client.next = chapter.start();
        }
    }

    /// Everything that is to be done now is done: sends, completions, sockets that can take more.
    pub fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let next = pump(&mut self.relay, &mut self.clients, &mut self.gather, self.now);
            if let Some(conn) = self.clients.writable() {
                send(&mut self.relay, &mut self.clients, &mut self.gather, self.now, conn);
            } else if !self.clients.complete(&mut self.relay, self.now)
                && matches!(next, Next::Wait(_))
            {
                self.relay.check();
                return;
            }
        }
        fail("the relay does not come to rest");
    }

    /// Time passes.
    pub fn pass(&mut self, span: Duration) {
        self.now = self.now.after(span);
        self.settle();
    }

    /// A client's peer, having read the end of the stream, ends its own.
    pub fn hang_up_finished(&mut self) {
        for index in 0..crate::storage::CLIENTS {
            let ended = self.clients.at(index).filter(|c| c.finished).and_then(|c| c.conn);
            if let Some(conn) = ended {
                self.relay.handle_eof(self.now, conn);
            }
        }
        self.settle();
    }
}
