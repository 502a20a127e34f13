//! The native dialect's wire, both halves: what a relay and a client say to each other, without a
//! socket, a clock, a source of entropy or a heap. PROTOCOL.md 2.
//!
//! A session in this order:
//!
//! 1. [`handshake`]: two machines of states that are consumed by value. The client makes an
//!    [`Attempt`](handshake::client::Attempt), the server an
//!    [`AwaitHello`](handshake::server::AwaitHello); each step takes the bytes that came and gives
//!    the next state and the message to send, or an end with its code. At their ends stand
//!    [`Connected`](handshake::client::Connected), [`Established`](handshake::server::Established)
//!    and, after a resume, [`Waiting`](handshake::server::Waiting): resumed, not yet proved.
//! 2. [`Records`]: both directions of a connection after its handshake. `next` reads records where
//!    they lie, whatever the receives were, and says how many bytes are missing; `sending` makes
//!    headers for bodies that it does not touch. A record's digest is computed once, by
//!    [`digest`], whoever many read it.
//! 3. [`Frames`]: the messages in a record, all checked before the first is handed out.
//!    [`FrameWriter`] writes them.
//! 4. [`ClientControl`], [`ServerControl`]: what clients ask and what the relay tells.
//! 5. [`Window`]: which message ids were taken; asked first, marked last.
//! 6. [`envelope`]: end to end, for who does not trust the relay.
//! 7. [`client`]: the client's half above all of these: what must survive a reconnect.
//!
//! ```text
//!   bytes --needs, hello, auth--> handshake --records()--> Records --next--> Record::Frames
//!                                                             |                each Frame
//!                                                             |              Record::Control
//!                                                             |                ClientControl
//!                                                             +--sending.frames--> a header
//! ```
//!
//! # Rules of this folder
//!
//! - Nothing that a stranger sends sizes memory, panics, or costs more than its bytes are worth;
//!   faults are [`Code`]s, and never charged to an identity.
//! - A check is a type: [`Frames`], [`Identity`], `Verified`, `Established`, `Fresh` can be had
//!   from their checks only. Types that lie in slots are valid as zeros and then nobody's:
//!   `ParkedAuth`, `ParkedResume`, [`Records`], [`Key`], [`Window`], `Remembered`.
//! - Tags are compared in constant time. Secrets wipe themselves when dropped; in slots, which do
//!   not drop, by `wipe`.
//! - Layouts are little-endian, packed, and written out once, next to the section that describes
//!   them.

mod bytes;
pub mod client;
mod codes;
mod control;
mod digits;
pub mod envelope;
mod frame;
pub mod handshake;
mod key;
mod record;
#[cfg(test)]
mod testing;
mod window;

pub use codes::{Code, ComeBack, RETRY_MAX, RETRY_UNPROVEN_MAX};
pub use control::{
    ClientControl, ControlBytes, GapReason, NAME_BYTES_MAX, SEEN_BYTES, ServerControl, Start,
    is_topic_name,
};
pub use digits::{IdentityFault, from_digits, to_digits};
pub use envelope::next_epoch;
pub use frame::{
    Class, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, FrameWriter, Frames, MID_END,
    Towards, flags,
};
pub use key::{Ephemeral, Identity, Key, KeyFault, PublicKey, SigningKey, Tag};
pub use record::{
    CONTROL_BYTES_MAX, Close, KEY_AGE_MAX, KEY_RECORDS_MAX, Kind, Next, RECORD_HEADER_BYTES,
    Receiving, Record, Records, SEQ_END, Sending, Side, digest,
};
pub use window::{Sight, Window, Window1024};
