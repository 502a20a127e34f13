//! Links between shards: what a relay keeps of each other shard, and the records that travel in
//! the rings between them.
//!
//! ```text
//!  shard A                                                        home shard of the topic
//!  publish ---> out (blocks) ---publish ring---> append, in the home's order ---> log
//!                                                                                  |  cursor
//!  readers <--- replica log <------log ring-------------------------------------- feed
//! ```
//! The log ring is always drained by its receiver; so bans travel in it, too. The publish ring may
//! stall; then those who publish to that home are not read. A record is a header of [`HEADER`]
//! bytes, little endian, and its bytes; it never leaves the process.

use bytemuck::Zeroable;

use crate::chain::Chain;
use crate::id::Ref;
use crate::prefix::Prefix;
use crate::storage::copy;
use crate::time::Duration;

/// Shards of a process at most: each other shard takes one of the [`RESERVE`](crate::RESERVE)
/// sessions, and half of those are to stay.
pub const SHARDS_MAX: u8 = 16;

/// Bytes of a record before its content.
pub const HEADER: usize = 32;

/// Runs of lines that can wait for one other shard.
pub(crate) const RUNS: usize = 64;
/// Answers that can wait for one other shard: what asks for one is taken only where it has a place.
pub(crate) const ANSWERS: usize = 256;
/// Bans that can wait for one other shard; where there are more, the weakest give way.
pub(crate) const BANS: usize = 32;
/// Bytes of lines that wait for one other shard, before those who wrote them are not read.
pub(crate) const OUT_BYTES_MAX: u64 = 256 << 10;
/// What a topic puts into a log ring before the next one's turn.
pub(crate) const FEED_BYTES: usize = 64 << 10;
/// How often a shard that does not take what waits for it is looked at.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// So many looks on end without a sign of life, and it is dead. Counted in looks and not in time:
/// a process that was stopped as a whole, and goes on, has no dead shard.
pub(crate) const TICKS_MAX: u8 = 10;

/// Which of the two rings from one shard to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// From a home to a replica; to any: answers, notes, and bans. Always drained.
    Log,
    /// To a home: what is said, who reads; to any: what is asked. It may stall.
    Publish,
}

/// Which shard gives a topic its order. The same for all shards of a process: they find out for
/// themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Homes {
    /// Each topic has one by its name: [`home_of`].
    #[default]
    ByName,
    /// The first shard is home to all. So it is where the native dialect is spoken: its topics come
    /// and go, and the one that makes them gives them their slots.
    First,
}

impl Homes {
    /// The home of a topic.
    #[must_use]
    pub const fn home_of(self, name: &[u8], shards: u8) -> u8 {
        match self {
            Self::ByName => home_of(name, shards),
            Self::First => 0,
        }
    }
}

/// What became of the bytes that a ring brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTaken {
    /// How many of them were taken: whole records.
    pub bytes: usize,
    /// The others are to be brought again in the next turn, which is to come at once.
    pub again: bool,
}

/// The tables of a relay that is one of several shards, each valid as zeros.
#[derive(Debug, Default)]
pub struct LinkSlots<'s> {
    /// One for each shard, this one too.
    pub peers: &'s mut [Peer],
    /// `topics * shards` of them, and as many again with [`Homes::First`], for frames. A cursor is
    /// lent beyond those of the sessions for each of another shard.
    pub feeds: &'s mut [Feed],
    /// `topics` of them.
    pub fars: &'s mut [Far],
}

/// The home shard of a topic: the FNV-1a hash (64 bits) of its name, mixed by two steps of the end
/// of MurmurHash3, modulo the shards.
#[must_use]
pub const fn home_of(name: &[u8], shards: u8) -> u8 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    let mut rest = name;
    while let Some((byte, after)) = rest.split_first() {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0000_0100_0000_01B3);
        rest = after;
    }
    // Short names leave its high bits unmixed, and long ones its low bits: MurmurHash3's last step.
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^= hash >> 33;
    match hash.checked_rem(shards as u64) {
        Some(home) => home as u8,
        None => 0,
    }
}

/// In which shape a log holds what was said: a topic may have a log of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Lines,
    Frames,
}

/// Lines or frames of one sender on one topic, on their way to its home; or something else that
/// may not overtake them.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct OutRun {
    pub(crate) kind: u32,
    pub(crate) topic: Ref,
    pub(crate) author: Ref,
    /// Which connection of that slot wrote them.
    pub(crate) generation: u32,
    pub(crate) messages: u32,
    pub(crate) bytes: u32,
    /// What it says besides.
    pub(crate) number: u64,
}

/// What a session of another shard asked, and is to be told.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct Answer {
    /// The kind of its record.
    pub(crate) kind: u32,
    pub(crate) asker: u32,
    pub(crate) generation: u32,
    pub(crate) topic: u32,
    /// What was asked: the number of the ask, or the message.
    pub(crate) about: u64,
    /// The offset of the message; of one for a peer, whose it is, or how many were taken; of a
    /// question, the handle that it is about, or where it goes on.
    pub(crate) value: u64,
    /// The message's readers; of one for a peer, the code with which it was refused, or 0.
    pub(crate) count: u32,
    /// Of a question about an identity, that.
    pub(crate) identity: [u8; 32],
}

impl Answer {
    /// An answer to what a record says.
    #[cfg(feature = "native-sessions")]
    pub(crate) fn of(kind: u32, header: &Header) -> Self {
        let Header { author: asker, epoch: generation, number: about, .. } = *header;
        Self { kind, asker, generation, about, ..Self::default() }
    }
}

/// Something that another shard is told and that is not answered, in 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg(feature = "native-sessions")]
pub(crate) struct Note {
    /// A session.
    pub(crate) handle: u64,
    /// A message of it; or the epoch of a topic.
    pub(crate) about: u64,
    /// A code; or a topic.
    pub(crate) what: u32,
    /// It came.
    pub(crate) came: bool,
}

/// Bytes of a [`Note`].
pub(crate) const NOTE: usize = 24;

#[cfg(feature = "native-sessions")]
impl Note {
    pub(crate) fn to_bytes(self) -> [u8; NOTE] {
        let mut bytes = [0; NOTE];
        let words = [self.handle, self.about, u64::from(self.what) << 1 | u64::from(self.came)];
        for (word, room) in words.iter().zip(bytes.as_chunks_mut::<8>().0) {
            *room = word.to_le_bytes();
        }
        bytes
    }

    /// Those of a record.
    pub(crate) fn all(content: &[u8]) -> impl Iterator<Item = Self> {
        content.as_chunks::<NOTE>().0.iter().map(|bytes| {
            let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
            let mut next = || words.next().unwrap_or(0);
            let (handle, about, rest) = (next(), next(), next());
            Self { handle, about, what: (rest >> 1) as u32, came: rest & 1 != 0 }
        })
    }
}

/// What notes are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notes {
    /// Messages that came to nothing after they were taken.
    Returned,
    /// Who came to topics, and who left them.
    Presence,
}

/// Both, in the order in which they go out.
pub(crate) const NOTES: [Notes; 2] = [Notes::Returned, Notes::Presence];

/// A ban that another shard is to be told; of no strikes, that who comes from there is set the
/// puzzle of an identity that was struck.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub(crate) struct BanNote {
    pub(crate) key: Prefix,
    pub(crate) seconds: u32,
    pub(crate) strikes: u32,
}

/// A first in, first out row in a slot; all zeros is empty.
#[derive(Clone, Copy, Debug, Zeroable)]
pub(crate) struct Row<T, const N: usize>
where
    [T; N]: Zeroable,
{
    items: [T; N],
    first: u32,
    len: u32,
}

impl<T: Copy, const N: usize> Row<T, N>
where
    [T; N]: Zeroable,
{
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn index(&self, nth: u32) -> usize {
        let at = (self.first as usize).saturating_add(nth as usize);
        at.checked_rem(N).unwrap_or(0)
    }

    /// Whether there was room.
    #[must_use]
    pub(crate) fn push(&mut self, item: T) -> bool {
        let at = self.index(self.len);
        match self.items.get_mut(at) {
            Some(place) if (self.len as usize) < N => *place = item,
            Some(_) | None => return false,
        }
        self.len = self.len.saturating_add(1);
        true
    }

    pub(crate) fn front(&self) -> Option<&T> {
        if self.is_empty() { None } else { self.items.get(self.index(0)) }
    }

    /// All of them, oldest first.
    fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|nth| self.items.get(self.index(nth)))
    }

    fn nth_mut(&mut self, nth: usize) -> Option<&mut T> {
        let nth = u32::try_from(nth).ok().filter(|nth| *nth < self.len)?;
        let at = self.index(nth);
        self.items.get_mut(at)
    }

    /// Takes one out of the middle.
    fn remove(&mut self, nth: usize) {
        for at in 0..self.len as usize {
            if let Some(item) = self.pop().filter(|_| at != nth) {
                // There is room: it stood here.
                let _ = self.push(item);
            }
        }
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        let at = self.index(self.len.checked_sub(1)?);
        self.items.get_mut(at)
    }

    pub(crate) const fn is_full(&self) -> bool {
        self.len as usize >= N
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = *self.front()?;
        self.first = u32::try_from(self.index(1)).unwrap_or(0);
        self.len = self.len.saturating_sub(1);
        Some(item)
    }
}

/// What a relay keeps of another shard.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Peer {
    /// The session that stands for it: the reader of what it replicates, and a timer.
    pub(crate) session: Ref,
    /// The bytes of `runs`, one after the other.
    pub(crate) out: Chain,
    pub(crate) runs: Row<OutRun, RUNS>,
    pub(crate) bans: Row<BanNote, BANS>,
    pub(crate) answers: Row<Answer, ANSWERS>,
    /// What it is told by each ring and does not answer: [`Note`]s.
    returned: Chain,
    presence: Chain,
    /// Who came and went could not all be noted: it is to be told that.
    pub(crate) unsure: u8,
    /// Of the record at the front of its publish ring, the frames that were appended already.
    pub(crate) partly: u32,
    /// Feeds that are behind, by their index.
    pub(crate) feeds_first: Ref,
    pub(crate) feeds_last: Ref,
    /// Topics whose home it is and which may have to be told whether we read them.
    pub(crate) control_first: Ref,
    pub(crate) control_last: Ref,
    /// Bytes of our logs that it has not had.
    pub(crate) lag: u64,
    /// Looks on end without a sign of life.
    pub(crate) ticks: u8,
    /// A sign of life is to be asked for; is to be given.
    pub(crate) ping: u8,
    pub(crate) pong: u8,
    /// The turn, plus one, since which a record of it finds no room and nobody to give way; 0:
    /// none does.
    pub(crate) pressed: u64,
    /// It is dead, as far as is known; and it is yet to be told so.
    pub(crate) dead: u8,
    pub(crate) lost: u8,
}

impl Peer {
    pub(crate) const fn notes(&self, of: Notes) -> &Chain {
        match of {
            Notes::Returned => &self.returned,
            Notes::Presence => &self.presence,
        }
    }

    pub(crate) const fn notes_mut(&mut self, of: Notes) -> &mut Chain {
        match of {
            Notes::Returned => &mut self.returned,
            Notes::Presence => &mut self.presence,
        }
    }

    /// Notes a ban that the shard is to be told. Where too many wait, the weakest gives way, of
    /// equals the oldest: who refuses nobody before who does. Gives whether nothing was lost.
    pub(crate) fn note_ban(&mut self, note: BanNote) -> bool {
        let asks = |of: &BanNote| (of.key, of.strikes == 0);
        let same = self.bans.iter().position(|known| asks(known) == asks(&note));
        if let Some(known) = same.and_then(|nth| self.bans.nth_mut(nth)) {
            known.seconds = known.seconds.max(note.seconds);
            known.strikes = known.strikes.max(note.strikes);
            return true;
        }
        if self.bans.push(note) {
            return true;
        }
        let weight = |of: &BanNote| (of.strikes != 0, of.seconds);
        let weakest = self.bans.iter().enumerate().min_by_key(|(_, known)| weight(known));
        if let Some((nth, known)) = weakest
            && weight(known) <= weight(&note)
        {
            self.bans.remove(nth);
            let _ = self.bans.push(note);
        }
        false
    }
}

/// The cursor by which another shard reads a topic of ours.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub struct Feed {
    /// None: it does not.
    pub(crate) cursor: Ref,
    pub(crate) next: Ref,
    /// It is in the row of those that are behind.
    pub(crate) listed: u8,
    /// It is yet to be told where its replica begins.
    pub(crate) start: u8,
    /// Which of its subscriptions this is.
    pub(crate) epoch: u32,
    /// The number of the next message that it is sent.
    pub(crate) number: u64,
    /// Bytes that it lags, as counted into its shard's.
    pub(crate) lag: u64,
    /// Of lines: readers of both dialects there, as far as that shard has told.
    pub(crate) readers: u32,
}

/// Where the replica of a topic of another shard stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replica {
    /// There is none.
    No,
    /// It was asked for: what comes before its start is of an older one.
    Asked,
    /// What the home appends is appended.
    Live,
}

/// What a relay keeps of a topic whose home is another shard.
#[derive(Clone, Copy, Debug, Default, Zeroable)]
pub struct Far {
    pub(crate) next: Ref,
    /// It is in the row of those that may have something to tell.
    pub(crate) listed: u8,
    replica: u8,
    pub(crate) epoch: u32,
    /// Messages of this shard: taken; put into the ring; come back.
    pub(crate) sent: u64,
    pub(crate) emitted: u64,
    pub(crate) returned: u64,
    /// Readers of it here, as its home was told last.
    pub(crate) told: u32,
}

impl Far {
    pub(crate) const fn replica(&self) -> Replica {
        match self.replica {
            1 => Replica::Asked,
            2 => Replica::Live,
            _ => Replica::No,
        }
    }

    pub(crate) const fn set_replica(&mut self, replica: Replica) {
        self.replica = match replica {
            Replica::No => 0,
            Replica::Asked => 1,
            Replica::Live => 2,
        };
    }
}

/// Kinds of records.
pub(crate) mod kind {
    /// Publish ring: lines of one sender.
    pub(crate) const LINES: u32 = 1;
    /// Publish ring: this shard has readers of a topic, so many.
    pub(crate) const SUBSCRIBE: u32 = 2;
    /// Publish ring: it has none any more.
    pub(crate) const UNSUBSCRIBE: u32 = 3;
    /// Log ring: an address was struck.
    pub(crate) const BAN: u32 = 4;
    /// Log ring: a replica begins.
    pub(crate) const START: u32 = 5;
    /// Log ring: messages in the home's order.
    pub(crate) const LOG: u32 = 6;
    /// Log ring: you were dead, your replicas have holes.
    pub(crate) const LOST: u32 = 7;
    /// Log ring: are you there?
    pub(crate) const PING: u32 = 8;
    /// Log ring: yes.
    pub(crate) const PONG: u32 = 9;
    /// Publish ring: this shard wants the frames of a topic, by its name.
    pub(crate) const OPEN: u32 = 10;
    /// Publish ring: it wants them no more.
    pub(crate) const SHUT: u32 = 11;
    /// Publish ring: frames of one session, behind the address that it comes from.
    pub(crate) const SAID: u32 = 12;
    /// Log ring: a replica of frames begins.
    pub(crate) const BEGIN: u32 = 13;
    /// Log ring: frames in the home's order.
    pub(crate) const FRAMES: u32 = 14;
    /// Log ring: a topic that was asked for cannot be had.
    pub(crate) const REFUSED: u32 = 15;
    /// Log ring: how many readers a message has.
    pub(crate) const VERDICT: u32 = 16;
    /// Publish ring: frames of one session for sessions there.
    pub(crate) const PASS: u32 = 17;
    /// Log ring: what became of one of them, or of some.
    pub(crate) const PASSED: u32 = 18;
    /// Log ring: messages that were queued for a peer came to nothing.
    pub(crate) const RETURNED: u32 = 19;
    /// Publish ring: credit for a session there.
    pub(crate) const CREDIT: u32 = 20;
    /// Publish ring: a question about sessions there.
    pub(crate) const ASK: u32 = 21;
    /// Log ring: its answer.
    pub(crate) const TOLD: u32 = 22;
    /// Log ring: who came to topics, and left them.
    pub(crate) const PRESENCE: u32 = 23;
    /// Publish ring: how many readers a topic has there.
    pub(crate) const READERS: u32 = 24;
}

/// What stands before the content of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: u32,
    pub(crate) topic: u32,
    /// A session of the shard that is to read it, or 0: none of its own.
    pub(crate) author: u32,
    pub(crate) messages: u32,
    /// Bytes of content.
    pub(crate) len: u32,
    /// Which subscription; of lines, which connection the author's slot had then.
    pub(crate) epoch: u32,
    pub(crate) number: u64,
}

impl Header {
    pub(crate) fn write(&self, room: &mut [u8]) {
        let words = [self.kind, self.topic, self.author, self.messages, self.len, self.epoch];
        let mut rest = room;
        for word in words {
            let (here, after) = rest.split_at_mut_checked(4).unwrap_or_default();
            copy(here, &word.to_le_bytes());
            rest = after;
        }
        copy(rest, &self.number.to_le_bytes());
    }

    /// `None`: it is not whole yet.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, _) = bytes.split_first_chunk::<HEADER>()?;
        let (words, _) = head.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        Some(Self {
            kind: next(),
            topic: next(),
            author: next(),
            messages: next(),
            len: next(),
            epoch: next(),
            number: u64::from(next()) | (u64::from(next()) << 32),
        })
    }
}

/// The same author, of whom no session is known.
#[cfg(feature = "native-sessions")]
pub(crate) const fn nobody_of(author: Ref) -> Ref {
    if author.0 >> 24 == 0 { author } else { Ref(author.0 & 0xFF00_0000) }
}

/// The author of a run that came from another shard: its shard in the high byte, which no session
/// of ours has.
pub(crate) const fn foreign(shard: u8, session: u32) -> Ref {
    Ref(((shard as u32).saturating_add(1) << 24) | (session & 0x00FF_FFFF))
}

/// The session of a run's author at `shard`; 0 where it is another's.
pub(crate) const fn session_at(author: Ref, shard: u8) -> u32 {
    let of = (author.0 >> 24) == (shard as u32).saturating_add(1);
    if of { author.0 & 0x00FF_FFFF } else { 0 }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = Header {
            kind: 6,
            topic: 7,
            author: 8,
            messages: 9,
            len: 10,
            epoch: 11,
            number: u64::MAX - 12,
        };
        let mut bytes = [0xA5; HEADER + 3];
        header.write(&mut bytes);
        assert_eq!(Header::read(&bytes), Some(header));
        assert_eq!(Header::read(&bytes[..HEADER - 1]), None);
        assert_eq!(bytes[HEADER..], [0xA5; 3]);
    }

    #[test]
    fn homes_are_fixed_and_spread() {
        assert_eq!(home_of(b"main", 1), 0);
        let homes = [&b"main"[..], b"a", b"b", b"c", b"d"].map(|name| home_of(name, 4));
        assert_eq!(homes, [0, 1, 0, 0, 0]);
        let mut counts = [0_u32; 4];
        for n in 0..4_000_u32 {
            counts[usize::from(home_of(std::format!("topic/{n}").as_bytes(), 4))] += 1;
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn authors_of_other_shards_are_told_apart() {
        let author = foreign(3, 77);
        assert_eq!((session_at(author, 3), session_at(author, 2)), (77, 0));
        assert_eq!(session_at(Ref(77), 0), 0);
        assert_ne!(foreign(0, 1), Ref(1));
    }

    #[test]
    fn rows_are_bounded_and_in_order() {
        let mut row = Row::<u32, 4>::zeroed();
        for round in 0..7 {
            for n in 0..4 {
                assert!(row.push(round * 10 + n));
            }
            assert!(!row.push(99));
            assert_eq!(row.last_mut(), Some(&mut (round * 10 + 3)));
            for n in 0..4 {
                assert_eq!(row.front(), Some(&(round * 10 + n)));
                assert_eq!(row.pop(), Some(round * 10 + n));
            }
            assert!(row.is_empty() && row.pop().is_none());
        }
    }

    fn note(n: u8, seconds: u32) -> BanNote {
        let key = Prefix::of([10, 0, 0, n].into());
        BanNote { key, seconds, strikes: 1 + u32::from(seconds > 0) }
    }

    fn waiting(peer: &Peer) -> std::vec::Vec<(Prefix, u32)> {
        peer.bans.iter().map(|note| (note.key, note.seconds)).collect()
    }

    #[test]
    fn where_too_many_bans_wait_the_oldest_of_the_weakest_gives_way() {
        let mut peer = Peer::zeroed();
        // Not from the first place on: what is left stays in order over the end of the row.
        assert!((0..9).all(|n| peer.note_ban(note(n, 0)) && peer.bans.pop().is_some()));
        assert!(peer.note_ban(note(0, 240)));
        assert!((1..32).all(|n| peer.note_ban(note(n, 0))));
        assert!(!peer.note_ban(note(32, 0)), "one of 33 is lost");
        assert!(!peer.note_ban(note(33, 960)));
        let mut due = std::vec![(note(0, 0).key, 240)];
        due.extend((3..33).map(|n| (note(n, 0).key, 0)));
        due.push((note(33, 0).key, 960));
        assert_eq!(waiting(&peer), due);
        // All of them are bans: a strike that only slows is the one that is lost.
        assert!((34..64).all(|n| !peer.note_ban(note(n, 240))));
        // A puzzle is less than any ban.
        assert!(!peer.note_ban(BanNote { strikes: 0, ..note(99, 300) }));
        let before = waiting(&peer);
        assert!(before.iter().all(|(_, seconds)| *seconds >= 240));
        assert!(!peer.note_ban(note(99, 0)));
        assert_eq!(waiting(&peer), before);
    }

    #[test]
    fn who_is_struck_again_has_one_place_and_the_longer_ban() {
        let mut peer = Peer::zeroed();
        assert!((0..100).all(|round| peer.note_ban(note(round % 4, u32::from(round)))));
        assert!(peer.note_ban(note(0, 7)));
        let due = [0, 1, 2, 3].map(|n| (note(n, 0).key, 96 + u32::from(n)));
        assert_eq!(waiting(&peer), due);
    }
}
