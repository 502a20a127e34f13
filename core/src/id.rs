//! Names of things: connections, topics, listeners, and slots inside the lent tables.

use bytemuck::Zeroable;

/// A connection. Carries a generation, so that a completion that comes late for a slot which is
/// in use again is recognised, not guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    pub(crate) const fn new(slot: Ref, generation: u32) -> Self {
        Self { slot: slot.0, generation }
    }

    pub(crate) const fn slot(self) -> Ref {
        Ref(self.slot)
    }

    pub(crate) const fn generation(self) -> u32 {
        self.generation
    }

    /// A small number, unique among living connections, below `limits.connections + RESERVE`: an
    /// index for a frontend's own table.
    #[must_use]
    pub const fn index(self) -> usize {
        self.slot.saturating_sub(1) as usize
    }

    /// The connection as one number, for logs and for completions.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    /// The connection of [`ConnId::to_bits`]. Any number is safe: a wrong one names nobody.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: (bits & 0xFFFF_FFFF) as u32, generation: (bits >> 32) as u32 }
    }
}

impl core::fmt::Display for ConnId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A topic of this relay; as a listener's it says which dialects the listener takes, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId {
    pub(crate) slot: Ref,
    pub(crate) dialects: Dialects,
}

impl TopicId {
    pub(crate) const fn new(slot: Ref) -> Self {
        Self { slot, dialects: Dialects::Line }
    }

    /// The same topic, for a listener that takes both dialects.
    #[must_use]
    pub const fn mixed(self) -> Self {
        Self { dialects: Dialects::Mixed, ..self }
    }

    /// Whether the listener takes the native dialect alone.
    #[must_use]
    pub const fn is_native(self) -> bool {
        matches!(self.dialects, Dialects::Native)
    }
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dialects {
    Line,
    Native,
    Mixed,
}

/// A slot of a lent table, or none. All zeros is none, so that zeroed memory is an empty list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Zeroable)]
#[repr(transparent)]
pub(crate) struct Ref(pub(crate) u32);

impl Ref {
    pub(crate) const NONE: Self = Self(0);

    /// The slot at `index`.
    pub(crate) const fn of(index: u32) -> Self {
        Self(index.saturating_add(1))
    }

    /// Its index; only of a slot that is some.
    pub(crate) const fn index(self) -> u32 {
        self.0.wrapping_sub(1)
    }

    pub(crate) const fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(crate) const fn is_some(self) -> bool {
        self.0 != 0
    }

    /// As an option, for `while let`.
    pub(crate) const fn some(self) -> Option<Self> {
        if self.is_none() { None } else { Some(self) }
    }
}
