//! All memory that the relay is lent: static, and nothing is added to it.

use bytemuck::Zeroable;
use wardline_core::{
    Ban, Cursor, Event, Limits, LineLimits, Link, PrefixBucket, PrefixSlot, QuarantineLimits,
    RESERVE, Session, Topic, WheelSlot,
};

use crate::machine::STACK_BYTES;

/// The clients at once.
pub const CLIENTS: usize = 8;

/// All RAM that the program may have: what is lent, the stack, and whatever the compiler adds.
const RAM_BYTES: usize = 64 << 10;

/// Room for what is not lent and not stack: the few variables of the program itself.
const SPARE_BYTES: usize = 1 << 10;

/// What a relay for 8 connections is built to on a small device.
pub const LIMITS: Limits = Limits {
    connections: CLIENTS as u32,
    topics: 2,
    block_bytes: 256,
    blocks: 40,
    segment_bytes: 2 << 10,
    segments: 6,
    quiet_log_bytes: 1 << 10,
    topic_turn_bytes: 4 << 10,
    share_bytes: 512,
    receive_bytes: 1 << 10,
    backlog_bytes: 1 << 10,
    turn_sent_bytes: 32 << 10,
    send_bytes: 4 << 10,
    slow_send_bytes: 1 << 10,
    line: LineLimits { line_bytes_max: 1 << 10, envelope_bytes_max: 2 << 10, ..LINE },
    quarantine: QuarantineLimits { ..QUARANTINE },
    ..Limits::DEFAULT
};
const LINE: LineLimits = Limits::DEFAULT.line;
const QUARANTINE: QuarantineLimits = Limits::DEFAULT.quarantine;

const SESSIONS: usize = CLIENTS + RESERVE as usize;
const LINKS: usize = (LIMITS.blocks + LIMITS.segments) as usize;

/// Where events wait. Apart from the rest, which is zeros and so needs no image in a program.
pub type Events = [Event; 16];

/// The tables and the pool.
#[derive(Debug)]
pub struct Storage {
    /// See [`wardline_core::Slots`], as for all that follow but the last.
    pub sessions: [Session; SESSIONS],
    /// Positions in logs.
    pub cursors: [Cursor; SESSIONS],
    /// Addresses.
    pub prefixes: [PrefixSlot; SESSIONS],
    /// Where their table begins.
    pub prefix_buckets: [PrefixBucket; 16],
    /// Topics.
    pub topics: [Topic; LIMITS.topics as usize],
    /// Pieces of the pool.
    pub links: [Link; LINKS],
    /// The quarantine.
    pub bans_v4: [Ban; 16],
    /// The quarantine of IPv6.
    pub bans_v6: [Ban; 8],
    /// The quarantine of neighbourhoods.
    pub bans_parents: [Ban; 8],
    /// Deadlines.
    pub wheel: [WheelSlot; 64],
    /// Where lines are made whole.
    pub scratch: [u8; LIMITS.scratch_bytes() as usize],
    /// The byte memory.
    pub pool: [u8; LIMITS.pool_bytes() as usize],
}

const _: () = assert!(LIMITS.check().is_ok());
const _: () =
    assert!(size_of::<Storage>() + size_of::<Events>() + STACK_BYTES + SPARE_BYTES <= RAM_BYTES);

/// Slots as they are lent: zeros.
const fn zeros<T: Zeroable, const N: usize>() -> [T; N] {
    // SAFETY: that zeros are a value of it is what `Zeroable` says of a type.
    unsafe { core::mem::zeroed() }
}

/// The storage, all zeros. Once: the second caller gets none.
pub fn lend() -> Option<(&'static mut Storage, &'static mut Events)> {
    static mut LENT: bool = false;
    static mut EVENTS: Events = [Event::None; _];
    static mut STORAGE: Storage = Storage {
        sessions: zeros(),
        cursors: zeros(),
        prefixes: zeros(),
        prefix_buckets: zeros(),
        topics: zeros(),
        links: zeros(),
        bans_v4: zeros(),
        bans_v6: zeros(),
        bans_parents: zeros(),
        wheel: zeros(),
        scratch: zeros(),
        pool: zeros(),
    };
    let (lent, storage, events) = (&raw mut LENT, &raw mut STORAGE, &raw mut EVENTS);
    // SAFETY: there is one thread and no signal handler, and `LENT` is used nowhere else.
    if unsafe { lent.replace(true) } {
        return None;
    }
    // SAFETY: nobody else has, had, or will have a reference to them.
    Some(unsafe { (&mut *storage, &mut *events) })
}
