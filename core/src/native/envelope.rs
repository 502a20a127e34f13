//! Envelopes: end to end, from one key to another, the relay not trusted. PROTOCOL.md 2.6.
//!
//! What was checked is a type: a [`Fresh`] may be acted upon, a [`Shown`] only shown.

use bytemuck::Zeroable;

use super::bytes::{get, is_zero, put, u8_at, u32_at, u64_at};
use super::frame::{FrameHeader, FrameKind, flags};
use super::handshake::schedule::ENVELOPE as LABEL;
use super::key::{Identity, PublicKey, SigningKey, derive};
use super::window::{Sight, Window1024};

/// Bytes of an envelope; the payload follows.
pub const ENVELOPE_BYTES: usize = 176;
/// How far two clocks may be apart.
pub const CLOCKS_APART_MS: u64 = 300_000;

const VERSION: u8 = 1;
const TOPIC: u8 = 1;
const SEALED: u8 = 2;
const END: u8 = 4;
/// Bytes that the signature covers, with those of the label and the payload's hash around them.
const SIGNED: usize = 112;
const MESSAGE: usize = 32 + SIGNED + 32;

/// Whom an envelope is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience<'a> {
    /// The readers of a topic of that name.
    Topic(&'a str),
    /// One receiver, and which of its devices; 0: any.
    Peer(Identity, u32),
}

impl Audience<'_> {
    fn key(&self) -> [u8; 32] {
        match self {
            Self::Topic(name) => {
                let mut key = [0; 32];
                derive("wardline 2026-11 v1 topic", &[name.as_bytes()], &mut key);
                key
            }
            Self::Peer(identity, _) => *identity.as_bytes(),
        }
    }
}

/// What a sender says of a message.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// For whom.
    pub audience: Audience<'a>,
    /// Which of the sender's devices.
    pub device: u32,
    /// That device's epoch: [`next_epoch`].
    pub epoch_ms: u64,
    /// The number of this message for this audience in this epoch; from 1, never twice.
    pub counter: u64,
    /// The sender's clock, in milliseconds since 1970.
    pub issued_ms: u64,
    /// Of a STREAM, which piece of its answer it is, from 0; else 0.
    pub piece: u32,
}

/// The envelope of `payload`, which goes before it into a frame with this header.
#[must_use]
pub fn make(
    key: &SigningKey,
    frame: &FrameHeader,
    letter: &Letter<'_>,
    payload: &[u8],
) -> [u8; ENVELOPE_BYTES] {
    let mut bytes = [0; ENVELOPE_BYTES];
    let (topic, to_device) = match letter.audience {
        Audience::Topic(_) => (TOPIC, 0),
        Audience::Peer(_, device) => (0, device),
    };
    put(&mut bytes, 0, &[VERSION, topic | marks(frame), frame.kind as u8]);
    put(&mut bytes, 4, &letter.device.to_le_bytes());
    put(&mut bytes, 8, key.identity().as_bytes());
    put(&mut bytes, 40, &letter.audience.key());
    put(&mut bytes, 72, &letter.epoch_ms.to_le_bytes());
    put(&mut bytes, 80, &letter.counter.to_le_bytes());
    put(&mut bytes, 88, &letter.issued_ms.to_le_bytes());
    put(&mut bytes, 96, &corr(frame).to_le_bytes());
    put(&mut bytes, 104, &to_device.to_le_bytes());
    put(&mut bytes, 108, &letter.piece.to_le_bytes());
    let signature = key.sign(&signed(&bytes, payload));
    put(&mut bytes, SIGNED, &signature);
    bytes
}

/// The frame's flags that are signed with it.
const fn marks(frame: &FrameHeader) -> u8 {
    let sealed = if frame.has(flags::SEALED) { SEALED } else { 0 };
    let end = if frame.has(flags::END) { END } else { 0 };
    sealed | end
}

/// What an envelope says of a frame's place in a dialogue: of a REQUEST its id.
const fn corr(frame: &FrameHeader) -> u64 {
    match frame.kind {
        FrameKind::Request => frame.mid,
        FrameKind::Publish | FrameKind::Direct | FrameKind::Reply | FrameKind::Stream => frame.corr,
    }
}

fn signed(envelope: &[u8; ENVELOPE_BYTES], payload: &[u8]) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    put(&mut message, 0, &LABEL);
    put(&mut message, 32, &get::<SIGNED>(envelope, 0));
    put(&mut message, 32 + SIGNED, blake3::hash(payload).as_bytes());
    message
}

/// A device's epoch for a new start: its clock, or one more than the last one. None: the last one
/// is so far ahead of the clock that receivers would refuse it; take a new device.
#[must_use]
pub const fn next_epoch(stored_ms: u64, clock_ms: u64) -> Option<u64> {
    let next = stored_ms.saturating_add(1);
    let epoch = if next > clock_ms { next } else { clock_ms };
    if epoch.saturating_sub(clock_ms) > CLOCKS_APART_MS { None } else { Some(epoch) }
}

/// Why an envelope is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeFault {
    /// The frame carries none.
    Missing,
    /// Too short, another version, or reserved bits.
    Form,
    /// It was made for another kind of frame, or for another flag: such as for no END.
    Kind,
    /// It was made for another dialogue.
    Corr,
    /// It is for somebody else.
    Audience,
    /// It is by somebody else than who was asked.
    Sender,
    /// It is not the piece of an answer that follows the one before it.
    Piece,
    /// It was issued more than 300 s from now.
    Clock,
    /// Its epoch is more than 300 s ahead, or before one that was seen.
    Epoch,
    /// Its number was seen before.
    Replayed,
    /// Its number is below the window, or 0.
    Stale,
    /// It was issued before anything is known: before the receiver's start, or no later than what
    /// had to be forgotten.
    BeforeFloor,
    /// The sender's key is none, or the signature is not its.
    Signature,
}

impl EnvelopeFault {
    /// What is wrong, in a sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Missing => "it is not signed",
            Self::Form => "its envelope is none of this version",
            Self::Kind => "it was signed as another kind of message",
            Self::Corr => "it was signed for another dialogue",
            Self::Audience => "it was signed for somebody else",
            Self::Sender => "it was signed by somebody else than who was asked",
            Self::Piece => "pieces of the answer are missing before it",
            Self::Clock => "it was signed more than 300 s from now, by the sender's clock",
            Self::Epoch => "its sender's epoch is over, or more than 300 s ahead",
            Self::Replayed => "it came before",
            Self::Stale => "its number is too old to say whether it came before",
            Self::BeforeFloor => "it was signed before anything is known of its sender",
            Self::Signature => "its signature is wrong: it was changed, or forged",
        }
    }
}

/// What a receiver knows of itself and of the frame, to check an envelope against.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The frame's header, as it came.
    pub frame: &'a FrameHeader,
    /// Who receives it, and by which device.
    pub receiver: (Identity, u32),
    /// The name of the frame's topic; of a kind with a peer: none.
    pub topic: Option<&'a str>,
    /// Who must have said it: of an answer, who was asked. None: whoever signs it.
    pub sender: Option<Identity>,
    /// The frame answers a REQUEST that is open with its peer.
    pub answers: bool,
}

/// What was said in an envelope: its signature is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<'b> {
    /// By whom.
    pub sender: Identity,
    /// By which of its devices.
    pub device: u32,
    /// In which epoch.
    pub epoch_ms: u64,
    /// Under which number.
    pub counter: u64,
    /// When, by the sender's clock.
    pub issued_ms: u64,
    /// Of a STREAM, which piece of its answer, from 0.
    pub piece: u32,
    /// What.
    pub payload: &'b [u8],
}

/// A message that was not seen before: it may be acted upon, once.
#[derive(Debug, PartialEq, Eq)]
pub struct Fresh<'b>(Said<'b>);

/// A message of the past: it may be shown, never acted upon.
#[derive(Debug, PartialEq, Eq)]
pub struct Shown<'b>(Said<'b>);

impl<'b> Fresh<'b> {
    /// What it says.
    #[must_use]
    pub const fn said(&self) -> &Said<'b> {
        &self.0
    }
}

impl<'b> Shown<'b> {
    /// What it says.
    #[must_use]
    pub const fn said(&self) -> &Said<'b> {
        &self.0
    }
}

/// An envelope whose form and whose place are right.
struct Placed<'b> {
    bytes: &'b [u8; ENVELOPE_BYTES],
    payload: &'b [u8],
}

impl<'b> Placed<'b> {
    /// Form, kind, corr, flags, audience, sender.
    fn new(expected: &Expected<'_>, payload: &'b [u8]) -> Result<Self, EnvelopeFault> {
        let frame = expected.frame;
        if !frame.has(flags::ENVELOPE) {
            return Err(EnvelopeFault::Missing);
        }
        let (bytes, payload) =
            payload.split_first_chunk::<ENVELOPE_BYTES>().ok_or(EnvelopeFault::Form)?;
        let said = u8_at(bytes, 1);
        let unknown = said & !(TOPIC | SEALED | END) != 0;
        let numbered = u32_at(bytes, 108) != 0 && u8_at(bytes, 2) != FrameKind::Stream as u8;
        if u8_at(bytes, 0) != VERSION || unknown || numbered || !is_zero(bytes, 3, 1) {
            return Err(EnvelopeFault::Form);
        }
        if u8_at(bytes, 2) != frame.kind as u8 || said & (SEALED | END) != marks(frame) {
            return Err(EnvelopeFault::Kind);
        }
        if u64_at(bytes, 96) != corr(frame) {
            return Err(EnvelopeFault::Corr);
        }
        let (me, device) = expected.receiver;
        let publish = frame.kind == FrameKind::Publish;
        let to_device = u32_at(bytes, 104);
        let audience = match expected.topic {
            Some(name) if publish && said & TOPIC != 0 => Audience::Topic(name),
            None if !publish && said & TOPIC == 0 => Audience::Peer(me, device),
            Some(_) | None => return Err(EnvelopeFault::Audience),
        };
        if get::<32>(bytes, 40) != audience.key()
            || (to_device != 0 && (publish || to_device != device))
        {
            return Err(EnvelopeFault::Audience);
        }
        if expected.sender.is_some_and(|sender| *sender.as_bytes() != get::<32>(bytes, 8)) {
            return Err(EnvelopeFault::Sender);
        }
        Ok(Self { bytes, payload })
    }

    fn epoch_ms(&self) -> u64 {
        u64_at(self.bytes, 72)
    }

    fn counter(&self) -> u64 {
        u64_at(self.bytes, 80)
    }

    fn issued_ms(&self) -> u64 {
        u64_at(self.bytes, 88)
    }

    /// Whose window it belongs to: sender, audience, device.
    fn party(&self) -> Party {
        Party {
            sender: get(self.bytes, 8),
            audience: get(self.bytes, 40),
            device: u32_at(self.bytes, 4),
        }
    }

    /// The sender's key and signature: what costs.
    fn verify(&self) -> Result<Said<'b>, EnvelopeFault> {
        let key = PublicKey::new(&get(self.bytes, 8)).map_err(|_| EnvelopeFault::Signature)?;
        if !key.verify(&signed(self.bytes, self.payload), &get(self.bytes, SIGNED)) {
            return Err(EnvelopeFault::Signature);
        }
        Ok(Said {
            sender: key.identity(),
            device: u32_at(self.bytes, 4),
            epoch_ms: self.epoch_ms(),
            counter: self.counter(),
            issued_ms: self.issued_ms(),
            piece: u32_at(self.bytes, 108),
            payload: self.payload,
        })
    }
}

/// Whom a window is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Zeroable)]
struct Party {
    sender: [u8; 32],
    audience: [u8; 32],
    device: u32,
}

/// What a receiver remembers of one sender, device and audience. All zeros is free.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Remembered {
    party: Party,
    used: bool,
    epoch_ms: u64,
    /// The newest time at which a message of it was issued.
    issued_ms: u64,
    /// What was issued up to then may have been seen before there was this entry.
    floor_ms: u64,
    window: Window1024,
}

impl Remembered {
    /// Nothing: what a table is made of.
    pub const FREE: Self = Self {
        party: Party { sender: [0; 32], audience: [0; 32], device: 0 },
        used: false,
        epoch_ms: 0,
        issued_ms: 0,
        floor_ms: 0,
        window: Window1024::NEW,
    };
}

/// What a receiver has seen, in memory that is lent: a slice, an array, or a box of entries.
/// PROTOCOL.md 2.6.3.
#[derive(Debug)]
pub struct Memory<S> {
    table: S,
    /// What was issued up to then may have been seen by this program before it was started anew.
    start_ms: u64,
    /// The newest message of all entries that had to give way.
    dropped_ms: u64,
}

impl<S: AsRef<[Remembered]> + AsMut<[Remembered]>> Memory<S> {
    /// Remembers in `table`, which must be fresh ([`Remembered::FREE`]). `start_ms`: the clock now,
    /// when the receiver starts.
    #[must_use]
    pub const fn new(table: S, start_ms: u64) -> Self {
        Self { table, start_ms, dropped_ms: 0 }
    }

    /// Checks an envelope, cheapest first, and notes its number: the same one is refused from now
    /// on.
    ///
    /// # Errors
    /// What is wrong: the sender's, or the relay's.
    pub fn open<'b>(
        &mut self,
        expected: &Expected<'_>,
        payload: &'b [u8],
        now_ms: u64,
    ) -> Result<Fresh<'b>, EnvelopeFault> {
        let placed = Placed::new(expected, payload)?;
        if now_ms.abs_diff(placed.issued_ms()) > CLOCKS_APART_MS {
            return Err(EnvelopeFault::Clock);
        }
        if placed.epoch_ms() > now_ms.saturating_add(CLOCKS_APART_MS) {
            return Err(EnvelopeFault::Epoch);
        }
        let answers = expected.answers && expected.frame.kind.is_answer();
        self.sight(&placed, answers)?;
        let said = placed.verify()?;
        self.note(&placed);
        Ok(Fresh(said))
    }

    /// Whether the number is new. Changes nothing. An answer belongs to a REQUEST of this run of
    /// the program, so it cannot have been seen before the start, whatever its sender's clock says.
    fn sight(&self, placed: &Placed<'_>, answers: bool) -> Result<(), EnvelopeFault> {
        let party = placed.party();
        let entry = self.table.as_ref().iter().find(|entry| entry.used && entry.party == party);
        let dropped = entry.map_or(self.dropped_ms, |entry| entry.floor_ms);
        let floor = if answers { dropped } else { dropped.max(self.start_ms) };
        if placed.issued_ms() <= floor {
            return Err(EnvelopeFault::BeforeFloor);
        }
        let window = match entry {
            Some(entry) if placed.epoch_ms() < entry.epoch_ms => return Err(EnvelopeFault::Epoch),
            Some(entry) if placed.epoch_ms() == entry.epoch_ms => &entry.window,
            Some(_) | None => &Window1024::NEW,
        };
        match window.check(placed.counter()) {
            Sight::New => Ok(()),
            Sight::Seen => Err(EnvelopeFault::Replayed),
            Sight::Below => Err(EnvelopeFault::Stale),
        }
    }

    /// Notes a number that was verified. The entry whose newest message is oldest gives way.
    fn note(&mut self, placed: &Placed<'_>) {
        let party = placed.party();
        let table = self.table.as_mut();
        let known = table.iter().position(|entry| entry.used && entry.party == party);
        let order = |(_, entry): &(usize, &Remembered)| (entry.used, entry.issued_ms);
        let place = known.or_else(|| table.iter().enumerate().min_by_key(order).map(|at| at.0));
        let Some(entry) = place.and_then(|place| table.get_mut(place)) else {
            // No memory at all: whatever came up to now is refused from now on.
            self.dropped_ms = self.dropped_ms.max(placed.issued_ms());
            return;
        };
        if known.is_none() {
            if entry.used {
                self.dropped_ms = self.dropped_ms.max(entry.issued_ms);
            }
            let floor_ms = self.dropped_ms;
            let (epoch_ms, issued_ms) = (placed.epoch_ms(), placed.issued_ms());
            let window = Window1024::NEW;
            *entry = Remembered { party, used: true, epoch_ms, issued_ms, floor_ms, window };
        }
        if placed.epoch_ms() > entry.epoch_ms {
            entry.epoch_ms = placed.epoch_ms();
            entry.window = Window1024::NEW;
        }
        entry.issued_ms = entry.issued_ms.max(placed.issued_ms());
        entry.window.mark(placed.counter());
    }
}

/// Checks the envelope of a message of the past, which Last or Offset brought: place and
/// signature. It may be shown; nothing says that it was not acted upon before.
///
/// # Errors
/// What is wrong: the sender's, or the relay's.
pub fn open_history<'b>(
    expected: &Expected<'_>,
    payload: &'b [u8],
) -> Result<Shown<'b>, EnvelopeFault> {
    Placed::new(expected, payload)?.verify().map(Shown)
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
