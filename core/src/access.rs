//! What an identity may do: asked in one place, before existence is told. PROTOCOL.md 2.5.

use core::net::IpAddr;

use crate::native::Identity;

/// One thing that somebody may do or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Have a session at all. Without a topic.
    Connect,
    /// Publish to a topic.
    Publish,
    /// Read a topic.
    Subscribe,
    /// Send to peers, and ask for them. Without a topic.
    Request,
    /// See who reads a topic, and how many.
    Who,
    /// Pass on what others said. Without a topic.
    Bridge,
}

/// Who decides it. The answer may change from one call to the next.
pub trait Access {
    /// Whether `who`, connected from `from`, may do this. `topic` is empty where the right has
    /// none.
    fn may(&self, who: &Identity, from: IpAddr, right: Right, topic: &[u8]) -> bool;

    /// Whether `who` is known to the operator: what it does wrong is charged to it, wherever it
    /// comes from, and not to its address.
    fn enrolled(&self, who: &Identity) -> bool {
        let _ = who;
        false
    }

    /// A number, not 0, that changes whenever an answer may have changed. An answer may be kept for
    /// as long as it stays.
    fn version(&self) -> u32;
}
