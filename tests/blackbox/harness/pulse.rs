//! A round trip through the relay that nobody in the room notices.

use super::{Client, Relay};

/// Two clients of a topic of their own. When what one says has come to the other, the relay has
/// looked at its sockets since: what stood in them before was read. This is how a case makes two
/// writes two receives, without sleeping and hoping.
#[derive(Debug)]
pub(crate) struct Pulse {
    speaker: Client,
    listener: Client,
    beats: u64,
}

impl Pulse {
    /// On a listener of the relay whose topic nobody else uses.
    pub(crate) fn new(relay: &Relay, listener: usize) -> Self {
        let speaker = relay.connect_to(listener);
        let mut reader = relay.connect_to(listener);
        relay.seat_by(relay.connect_to(listener), [&mut reader]);
        Self { speaker, listener: reader, beats: 0 }
    }

    /// One round trip.
    pub(crate) fn beat(&mut self) {
        self.beats += 1;
        let content = format!("beat {}", self.beats);
        self.speaker.say(&content);
        let expected = self.speaker.envelope(&content);
        self.listener.expect(&expected);
    }

    /// Two round trips: one full turn of the relay lies between them, so what was sent before has
    /// been acted on too, if it was no more than a turn takes (some KiB).
    pub(crate) fn settle(&mut self) {
        self.beat();
        self.beat();
    }
}
