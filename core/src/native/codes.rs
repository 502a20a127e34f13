//! The codes of the native dialect: what ends a connection, refuses a message, or answers no.
//! PROTOCOL.md 2.7.

use crate::time::Duration;

/// The longest a client waits because a CLOSE told it to.
pub const RETRY_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The same after an ALERT, which anybody can write.
pub const RETRY_UNPROVEN_MAX: Duration = Duration::from_secs(5 * 60);

/// One table: name, number, word for logs, sentence for people.
macro_rules! codes {
    ($($name:ident = $number:literal, $word:literal, $sentence:literal;)*) => {
        /// Why something ended or was refused, as on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Code {
            $(#[doc = concat!("`", $word, "`: ", $sentence, ".")] $name = $number,)*
        }

        impl Code {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// A word for logs and counters.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// What happened, in a sentence.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

codes! {
    Normal = 0x00, "normal", "the other end is done";
    GoingAway = 0x01, "going_away", "the relay shuts down";
    Idle = 0x02, "idle", "no record came for 90 s";
    HandshakeTimeout = 0x03, "handshake_timeout", "the handshake took too long";
    Superseded = 0x04, "superseded", "a later connection of the same identity and device is there";
    BadMagic = 0x10, "bad_magic", "the bytes are not of this dialect";
    BadVersion = 0x11, "bad_version", "the version is not spoken here";
    BadLength = 0x12, "bad_length", "a length is not what its type has";
    BadState = 0x13, "bad_state", "it came when it may not come, or there is no such type";
    ReservedBits = 0x14, "reserved_bits", "a reserved byte or an undefined flag is not zero";
    TooLarge = 0x15, "too_large", "it is larger than the limit";
    BadUtf8 = 0x16, "bad_utf8", "a text is not UTF-8";
    LineTooLong = 0x17, "line_too_long", "a line is over the limit";
    WrongDialect = 0x18, "wrong_dialect", "this listener does not take this dialect";
    BadValue = 0x19, "bad_value", "a field holds what it may not";
    AuthFailed = 0x20, "auth_failed", "the client did not prove who it is";
    Refused = 0x21, "refused", "the relay does not want this, whoever proves what";
    TooManySessions = 0x22, "too_many_sessions", "the identity holds too many sessions";
    BadTag = 0x30, "bad_tag", "a record's tag is wrong: its bytes were changed on the way";
    BadSeq = 0x31, "bad_seq", "a record's number is not the next one";
    ControlFlood = 0x33, "control_flood", "too many control values came";
    Rate = 0x40, "rate", "it came faster than allowed";
    Quarantined = 0x41, "quarantined", "the address is in quarantine";
    Overloaded = 0x42, "overloaded", "the relay has no memory or no time left";
    SlowReader = 0x43, "slow_reader", "it was read too slowly";
    TooManyConnections = 0x44, "too_many_connections", "the relay, or the address, is full";
    PuzzleRequired = 0x45, "puzzle_required", "the puzzle was not solved";
    NoRoute = 0x50, "no_route", "nobody has this handle";
    Forbidden = 0x51, "forbidden", "it is not allowed, or not there";
    Expired = 0x52, "expired", "its time to live was over";
    Duplicate = 0x53, "duplicate", "a message of this number was taken before";
    Busy = 0x54, "busy", "the peer cannot take it now";
    Stale = 0x55, "stale", "the number is below the window: delivered or not, nobody knows";
    Internal = 0x7F, "internal", "the relay's own fault";
}

/// What a client does by itself after a CLOSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComeBack {
    /// It does not come back unasked.
    No,
    /// After its own backoff: 1 s doubling to 5 min, with jitter.
    Backoff,
    /// Not before the CLOSE's `retry_ms`, up to [`RETRY_MAX`], nor before its own backoff.
    Told,
}

impl Code {
    /// The number on the wire.
    #[must_use]
    pub const fn wire(self) -> u16 {
        self as u16
    }

    /// The code of that number. None: no code of this version.
    #[must_use]
    pub fn from_wire(number: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.wire() == number)
    }

    /// Whether a session outlives a CLOSE of this code on its live connection and can be resumed.
    #[must_use]
    pub const fn session_survives(self) -> bool {
        matches!(
            self,
            Self::Idle | Self::BadTag | Self::BadSeq | Self::SlowReader | Self::TooManyConnections
        )
    }
}

impl ComeBack {
    /// After a CLOSE of that number. A number that this version does not know is followed by the
    /// client's own backoff; so are those that a CLOSE does not carry.
    #[must_use]
    pub const fn after_close(number: u16) -> Self {
        match number {
            0x00 | 0x04 | 0x10..=0x2F => Self::No,
            0x33 | 0x40..=0x4F => Self::Told,
            _ => Self::Backoff,
        }
    }

    /// After an ALERT, whatever its number: it is a hint that anybody can write. Its `retry_ms`
    /// counts up to [`RETRY_UNPROVEN_MAX`].
    #[must_use]
    pub const fn after_alert() -> Self {
        Self::Told
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn numbers_are_those_of_the_page_and_unique() {
        assert_eq!(Code::ALL.len(), 34);
        assert!(Code::ALL.is_sorted_by_key(|code| code.wire()));
        for number in 0..=u16::MAX {
            let listed = Code::ALL.iter().filter(|code| code.wire() == number).count();
            assert_eq!(listed, usize::from(Code::from_wire(number).is_some()), "{number:x}");
        }
        assert_eq!(Code::from_wire(0x32), None);
        for code in Code::ALL {
            assert!(!code.word().is_empty() && !code.sentence().ends_with('.'));
        }
    }

    #[test]
    fn who_comes_back_after_a_close() {
        let with = |wanted| {
            let numbers = Code::ALL.iter().map(|code| code.wire());
            numbers.filter(|number| ComeBack::after_close(*number) == wanted).collect::<Vec<_>>()
        };
        let told = [0x33, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45];
        assert_eq!(with(ComeBack::Told), told);
        let no = [0, 4].into_iter().chain(0x10..=0x19).chain(0x20..=0x22);
        assert_eq!(with(ComeBack::No), no.collect::<Vec<_>>());
        let rest = [1, 2, 3, 0x30, 0x31].into_iter().chain(0x50..=0x55).chain([0x7F]);
        assert_eq!(with(ComeBack::Backoff), rest.collect::<Vec<_>>());
        let survivors = Code::ALL.iter().filter(|code| code.session_survives());
        assert!(survivors.map(|code| code.wire()).eq([0x02, 0x30, 0x31, 0x43, 0x44]));
    }
}
