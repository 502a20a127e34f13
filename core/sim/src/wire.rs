//! A ring between two relays of a simulation.

use wardline_core::Ring;

/// The two rings of each direction, as relays name them.
pub(crate) const RINGS: [Ring; 2] = [Ring::Log, Ring::Publish];

/// One ring.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) bytes: Vec<u8>,
    pub(crate) bytes_max: usize,
    pub(crate) skipped: u32,
    /// Brought and not taken: it is brought again once there is more, or the relay says so.
    pub(crate) left: usize,
}

impl Wire {
    /// An empty one that holds so much.
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), bytes_max, skipped: 0, left: 0 }
    }
}
