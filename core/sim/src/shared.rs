//! What the model knows of all shards together: the one order of each topic, and what is on its
//! way to it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use wardline_core::home_of;

use crate::places::Place;
use crate::side::Side;
use crate::view::Entry;

/// A message that a shard took.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// Where.
    pub(crate) shard: usize,
    /// From whom, there.
    pub(crate) sender: usize,
    /// As its how-manieth.
    pub(crate) nth: u64,
    /// The envelope.
    pub(crate) bytes: Rc<[u8]>,
}

/// The order of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Who makes it.
    pub(crate) home: usize,
    /// All messages that have a number, by it.
    pub(crate) messages: Vec<Sent>,
    /// On their way to it, by shard.
    pub(crate) away: Vec<VecDeque<Sent>>,
    /// Came there while nobody listened, by shard.
    unheard: Vec<Vec<Sent>>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    /// By topic.
    pub(crate) orders: Vec<Order>,
    /// Offences, anywhere.
    pub(crate) offences: u64,
    /// Who was stuck for so long that others may take it for dead.
    pub(crate) stuck: Vec<bool>,
    /// Who was taken for dead (the second) by whom (the first), and has not heard of it.
    pub(crate) dead: Vec<(usize, usize)>,
}

impl Shared {
    /// Nothing said yet.
    pub(crate) fn new(topics: &[&str], shards: usize) -> Rc<RefCell<Self>> {
        let order = |name: &&str| Order {
            home: usize::from(home_of(name.as_bytes(), shards as u8)),
            messages: Vec::new(),
            away: vec![VecDeque::new(); shards],
            unheard: vec![Vec::new(); shards],
        };
        let orders = topics.iter().map(order).collect();
        let (stuck, dead) = (vec![false; shards], Vec::new());
        Rc::new(RefCell::new(Self { orders, offences: 0, stuck, dead }))
    }
}

impl Side<'_> {
    /// Whether the order of a topic is made elsewhere.
    pub(crate) fn is_away(&self, topic: usize) -> bool {
        self.shared.borrow().orders[topic].home != self.shard
    }

    /// A connection of this shard said something that was taken.
    pub(crate) fn sent(&self, sender: usize, topic: usize, nth: u64, bytes: Rc<[u8]>) {
        if self.shards == 1 {
            return;
        }
        let sent = Sent { shard: self.shard, sender, nth, bytes };
        let mut shared = self.shared.borrow_mut();
        let order = &mut shared.orders[topic];
        if order.home == self.shard {
            order.messages.push(sent);
        } else {
            order.away[self.shard].push_back(sent);
        }
    }

    /// Messages of another shard came to their home, which is this one.
    pub(crate) fn ordered(&mut self, from: usize, topic: usize, number: Option<u64>, many: u32) {
        self.places.hit(Place::Ordered);
        for step in 0..u64::from(many) {
            let shared = Rc::clone(&self.shared);
            let mut shared = shared.borrow_mut();
            let order = &mut shared.orders[topic];
            assert_eq!(order.home, self.shard, "ordered away from home");
            let sent = order.away[from].pop_front().expect("a message that nobody sent");
            let Some(number) = number.map(|first| first + step) else {
                let nth = self.published;
                let topic_of = |peer: &usize| &self.peers[*peer].view;
                let there = self.live.iter().map(topic_of).find(|view| {
                    view.topic == topic && view.is_there(nth) && view.leaving.is_none()
                });
                assert!(there.is_none(), "nobody listens, and somebody does");
                self.published += 1;
                order.unheard[from].push(sent);
                continue;
            };
            assert_eq!(number, order.messages.len() as u64, "a number out of order");
            order.messages.push(sent.clone());
            drop(shared);
            self.deliver(topic, number, &sent);
        }
    }

    /// A message that has its number comes to the readers of this shard.
    fn deliver(&mut self, topic: usize, number: u64, sent: &Sent) {
        let nth = self.published;
        self.published += 1;
        let now_ns = self.now_ns;
        let view = &mut self.topics[topic];
        assert_eq!(number, view.next, "a hole in what a shard has of a topic");
        view.next += 1;
        view.head += sent.bytes.len() as u64;
        let entry = Entry { number, end: view.head, bytes: Rc::clone(&sent.bytes) };
        for reader in &self.live {
            let own = sent.shard == self.shard && *reader == sent.sender;
            let view = &mut self.peers[*reader].view;
            if own && view.is_there(nth) {
                self.places.hit(Place::OwnReturned);
            } else if view.topic == topic && view.is_there(nth) {
                view.push(entry.clone(), now_ns);
                *self.heard.entry(*reader).or_default() += 1;
            }
        }
    }

    /// A replica begins at a number: nobody here may have been there before.
    pub(crate) fn replica_begins(&mut self, topic: usize, number: u64) {
        let nth = self.published;
        let shared = Rc::clone(&self.shared);
        let shared = shared.borrow();
        let order = &shared.orders[topic];
        assert_ne!(order.home, self.shard, "a replica at home");
        assert!(number <= order.messages.len() as u64, "a replica that begins in the future");
        if self.topics[topic].next > 0 {
            self.places.hit(Place::ReplicaAgain);
        }
        let hole = number != self.topics[topic].next;
        for reader in &self.live {
            let view = &self.peers[*reader].view;
            if view.topic != topic || !view.is_there(nth) || view.leaving.is_some() {
                continue;
            }
            let served = view.last_number.is_some() || !view.queue.is_empty();
            assert!(!served || !hole, "a hole that a reader was not told: {}", self.brief(*reader));
            // Whatever this shard took after it had come, it is owed.
            let before = &order.messages[..number as usize];
            let missed = before.iter().rev().find(|sent| {
                sent.shard == self.shard && sent.nth >= view.joined && sent.sender != *reader
            });
            assert!(missed.is_none(), "a reader missed {missed:?}: {}", self.brief(*reader));
        }
        self.topics[topic].next = number;
    }

    /// Messages came to a replica.
    pub(crate) fn replicated(&mut self, topic: usize, number: u64, many: u32) {
        self.places.hit(Place::Replicated);
        for number in number..number + u64::from(many) {
            let sent = self.shared.borrow().orders[topic].messages.get(number as usize).cloned();
            self.deliver(topic, number, &sent.expect("a message that has no number yet"));
        }
    }

    /// What came to its home while nobody listened there: nobody here may have listened either.
    pub(crate) fn assert_unheard(&mut self) {
        let shared = Rc::clone(&self.shared);
        let mut shared = shared.borrow_mut();
        let dead = shared.dead.clone();
        for (topic, order) in shared.orders.iter_mut().enumerate() {
            let unheard = std::mem::take(&mut order.unheard[self.shard]);
            if dead.contains(&(order.home, self.shard)) {
                continue;
            }
            for sent in unheard {
                let missed = self.live.iter().find(|reader| {
                    let Some(peer) = self.peers.get(**reader) else { return false };
                    let there = peer.view.joined <= sent.nth && peer.view.leaving.is_none();
                    let open = there && !peer.gone && **reader != sent.sender;
                    open && peer.view.topic == topic
                });
                assert!(missed.is_none(), "a message to nobody, and somebody had come: {sent:?}");
            }
        }
    }

    /// Another shard is taken for dead.
    pub(crate) fn link_dead(&mut self, shard: usize) {
        self.places.hit(Place::LinkDead);
        let mut shared = self.shared.borrow_mut();
        assert!(shared.stuck[shard], "shard {shard} is taken for dead and was not stuck");
        shared.dead.push((self.shard, shard));
    }

    /// This shard hears that it was taken for dead.
    pub(crate) fn link_lost(&mut self, home: usize) {
        self.places.hit(Place::LinkLost);
        let mut shared = self.shared.borrow_mut();
        // It may have been dead twice before it heard of the first time.
        let known = shared.dead.iter().position(|dead| *dead == (home, self.shard));
        shared.dead.remove(known.expect("told that it was dead, and was not"));
    }
}

impl Side<'_> {
    /// Whether a line of a connection will be taken: nothing of it is unfinished or refused.
    pub(crate) fn may_say(&self, peer: usize) -> bool {
        let peer = &self.peers[peer];
        let limits = &self.plan.limits.line;
        let free = limits.messages_per_minute == 0 && limits.envelope_bytes_max >= 128;
        let quiet = !peer.view.is_unfinished() && peer.socket.waiting().is_empty();
        free && quiet && !peer.socket.reset
    }
}
