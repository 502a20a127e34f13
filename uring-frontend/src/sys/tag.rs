//! What a completion is of: the kind of the operation, and whose it was.

use wardline_core::ConnId;

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// To say, again and again, when a watched descriptor has something.
    Watch = 1,
    /// To receive again and again, into small buffers.
    Stream = 2,
    /// To receive once, into a large buffer.
    Once = 3,
    /// To send.
    Send = 4,
    /// To say once that a full socket can take more.
    Room = 5,
    /// To cancel another operation.
    Cancel = 6,
}

impl Kind {
    fn of(bits: u64) -> Option<Self> {
        let all = [Self::Stream, Self::Send, Self::Once, Self::Room, Self::Cancel, Self::Watch];
        all.into_iter().find(|kind| *kind as u64 == bits >> OWNER_BITS)
    }
}

/// The name of an operation: `{ kind: 8, generation: 24, slot: 32 }`. The generation tells a
/// completion that comes late for a slot which is in use again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(pub(super) u64);

const OWNER_BITS: u32 = 56;
const OWNER: u64 = (1 << OWNER_BITS) - 1;

impl Tag {
    /// Of an operation on a connection's socket.
    pub(crate) const fn of_conn(kind: Kind, conn: ConnId) -> Self {
        Self((kind as u64) << OWNER_BITS | (conn.to_bits() & OWNER))
    }

    /// Of an operation that is not a connection's.
    pub(crate) const fn of_number(kind: Kind, number: u32) -> Self {
        Self((kind as u64) << OWNER_BITS | number as u64)
    }

    /// What was asked. None: nobody asked it.
    pub(crate) fn kind(self) -> Option<Kind> {
        Kind::of(self.0)
    }

    /// The number given to [`Tag::of_number`].
    pub(crate) const fn number(self) -> u32 {
        (self.0 & 0xFFFF_FFFF) as u32
    }

    /// Where in a table by [`ConnId::index`] its connection stands.
    pub(crate) const fn index(self) -> usize {
        self.number().saturating_sub(1) as usize
    }

    /// Whether it is of that connection, and of no other that had its slot before.
    pub(crate) const fn is_of(self, conn: ConnId) -> bool {
        self.0 & OWNER == conn.to_bits() & OWNER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_says_what_and_whose() {
        let conn = ConnId::from_bits(0x0102_0304_0000_0007);
        for kind in [Kind::Watch, Kind::Stream, Kind::Once, Kind::Send, Kind::Room, Kind::Cancel] {
            let tag = Tag::of_conn(kind, conn);
            assert_eq!((tag.kind(), tag.index()), (Some(kind), conn.index()));
            assert!(tag.is_of(conn));
            assert!(!tag.is_of(ConnId::from_bits(0x0102_0305_0000_0007)), "another generation");
            assert!(!tag.is_of(ConnId::from_bits(0x0102_0304_0000_0008)), "another slot");
            assert_eq!(Tag::of_number(kind, 9).number(), 9);
        }
        assert_eq!(Tag(0).kind(), None);
        assert_eq!(Tag(u64::MAX).kind(), None);
    }
}
