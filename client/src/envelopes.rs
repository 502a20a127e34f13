//! Envelopes as a program sees them: what is signed, what is demanded, who signed.

use wardline_core::native::Identity;
use wardline_core::native::envelope::Said;

/// What is signed, and what is believed. PROTOCOL.md 2.6.
///
/// An envelope is end to end: whoever runs the relay can neither change what is said in it, nor
/// say it again, to somebody else, on another topic, or in another's name. It hides nothing.
///
/// ```
/// use wardline_client::Policy;
///
/// let signs = Policy::OPEN.sign();
/// let trusts_nobody = Policy::OPEN.sign().demand();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(crate) opens: bool,
    pub(crate) signs: bool,
    pub(crate) demands: bool,
}

impl Policy {
    /// Nothing is signed, and nothing is opened: what comes in an envelope is handed out with it
    /// in front, unchecked.
    pub const OFF: Self = Self { opens: false, signs: false, demands: false };

    /// What comes in an envelope is checked, opened, and handed out with who signed it; what does
    /// not verify is refused, and told. What comes without one is handed out as it is. The policy
    /// of a client that was told none.
    pub const OPEN: Self = Self { opens: true, signs: false, demands: false };

    /// What this client says is signed: 176 bytes more, each.
    #[must_use]
    pub const fn sign(self) -> Self {
        Self { opens: true, signs: true, ..self }
    }

    /// What comes without an envelope is refused, and told.
    #[must_use]
    pub const fn demand(self) -> Self {
        Self { opens: true, demands: true, ..self }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::OPEN
    }
}

/// Who signed a message, verified here: nobody's word was taken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// By whom.
    pub sender: Identity,
    /// By which of its devices.
    pub device: u32,
    /// When, by the sender's clock: milliseconds since 1970.
    pub issued_ms: u64,
    /// Of which start of that device.
    pub(crate) epoch_ms: u64,
    /// Which piece of an answer it is.
    pub(crate) piece: u32,
}

impl Signed {
    pub(crate) const fn of(said: &Said<'_>) -> Self {
        let Said { sender, device, epoch_ms, issued_ms, piece, .. } = *said;
        Self { sender, device, issued_ms, epoch_ms, piece }
    }

    /// Whether it is by the same device, since the same start.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        let party = |signed: &Self| (signed.sender, signed.device, signed.epoch_ms);
        party(self) == party(other)
    }
}
