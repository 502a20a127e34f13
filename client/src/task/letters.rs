//! Envelopes around what goes out, and off what comes in.

use wardline_core::native::envelope::{
    Audience, ENVELOPE_BYTES, EnvelopeFault, Expected, Letter, Memory, Remembered, make,
    open_history,
};
use wardline_core::native::{Frame, FrameHeader, Identity, SigningKey, flags};

use crate::envelopes::{Policy, Signed};

/// Senders, by device and audience, of whom it is remembered what came: a quarter of a megabyte,
/// once the first comes.
const REMEMBERED_MAX: usize = 1_024;

/// When a message of a topic was said, as far as the relay says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Now.
    Now,
    /// While the connection was lost.
    Missed,
    /// Before the subscription.
    Before,
}

/// What there is of a frame without its envelope.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened<'b> {
    pub(crate) payload: &'b [u8],
    pub(crate) signed: Option<Signed>,
    /// It may be shown, not acted upon.
    pub(crate) history: bool,
}

/// What a frame is checked against, beside itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The name of its topic.
    pub(crate) topic: Option<&'a str>,
    pub(crate) when: When,
    /// Who must have said it.
    pub(crate) sender: Option<Identity>,
    /// It answers a request that is open.
    pub(crate) answers: bool,
}

impl Place<'_> {
    /// Of a message to this client alone.
    pub(crate) const DIRECT: Self =
        Self { topic: None, when: When::Now, sender: None, answers: false };
}

/// The policy, and what it has to remember.
#[derive(Debug)]
pub(crate) struct Letters {
    policy: Policy,
    /// Who this is.
    own: (Identity, u32),
    epoch_ms: u64,
    /// The number of the last message that was signed. One count for all audiences: at most 1,024
    /// messages are under way, so none falls out of a receiver's window.
    counter: u64,
    start_ms: u64,
    memory: Option<Memory<Box<[Remembered]>>>,
}

impl Letters {
    pub(crate) const fn new(
        policy: Policy,
        own: (Identity, u32),
        epoch_ms: u64,
        start_ms: u64,
    ) -> Self {
        Self { policy, own, epoch_ms, counter: 0, start_ms, memory: None }
    }

    /// The number of another message that is signed.
    pub(crate) const fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// The envelope of a message, as it goes out: for whom, under which number, and which piece of
    /// an answer it is.
    pub(crate) fn make(
        &self,
        key: &SigningKey,
        frame: &FrameHeader,
        (audience, (counter, piece)): (Audience<'_>, (u64, u32)),
        payload: &[u8],
        now_ms: u64,
    ) -> [u8; ENVELOPE_BYTES] {
        let (device, epoch_ms) = (self.own.1, self.epoch_ms);
        let letter = Letter { audience, device, epoch_ms, counter, issued_ms: now_ms, piece };
        make(key, frame, &letter, payload)
    }

    /// What came, as far as it is to be believed.
    ///
    /// # Errors
    /// Why it is not: the sender's, or the relay's.
    pub(crate) fn open<'b>(
        &mut self,
        frame: &Frame<'b>,
        place: Place<'_>,
        now_ms: u64,
    ) -> Result<Opened<'b>, EnvelopeFault> {
        let before = place.when == When::Before;
        let enveloped = frame.header.has(flags::ENVELOPE);
        if !self.policy.opens || (!enveloped && !self.policy.demands) {
            return Ok(Opened { payload: frame.payload, signed: None, history: before });
        }
        let Place { topic, sender, answers, .. } = place;
        let expected =
            Expected { frame: &frame.header, receiver: self.own, topic, sender, answers };
        if before {
            return history(&expected, frame);
        }
        match self.memory().open(&expected, frame.payload, now_ms) {
            Ok(fresh) => {
                let signed = Some(Signed::of(fresh.said()));
                Ok(Opened { payload: fresh.said().payload, signed, history: false })
            }
            // It waited for longer than clocks may be apart: nothing says that it is new.
            Err(EnvelopeFault::Clock) if place.when == When::Missed => history(&expected, frame),
            Err(fault) => Err(fault),
        }
    }

    fn memory(&mut self) -> &mut Memory<Box<[Remembered]>> {
        let start_ms = self.start_ms;
        self.memory.get_or_insert_with(|| {
            Memory::new(vec![Remembered::FREE; REMEMBERED_MAX].into_boxed_slice(), start_ms)
        })
    }
}

fn history<'b>(expected: &Expected<'_>, frame: &Frame<'b>) -> Result<Opened<'b>, EnvelopeFault> {
    let shown = open_history(expected, frame.payload)?;
    let signed = Some(Signed::of(shown.said()));
    Ok(Opened { payload: shown.said().payload, signed, history: true })
}

#[cfg(test)]
#[path = "letters_tests.rs"]
mod tests;
