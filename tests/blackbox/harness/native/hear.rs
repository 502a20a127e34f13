//! What a native client hears: bytes to records to what they say.

use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use wardline_core::native::client::{Got, Took};
use wardline_core::native::{Code, FrameHeader, FrameKind, ServerControl};

use super::{NativeClient, Said, is_timeout};
use crate::harness::PATIENCE;

impl NativeClient {
    /// What comes next within this time; None: nothing.
    pub(crate) fn hear(&mut self, within: Duration) -> Option<Said> {
        let deadline = Instant::now() + within;
        while self.heard.is_empty() && self.step(deadline) {}
        self.heard.pop_front()
    }

    /// The next message; a case that gets none fails.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> (FrameHeader, Vec<u8>) {
        match self.hear(PATIENCE) {
            Some(Said::Frame(header, payload)) => (header, payload),
            other => panic!("expected a message, but: {other:?}"),
        }
    }

    /// Demands that the next message is this one.
    #[track_caller]
    pub(crate) fn expect(&mut self, payload: &[u8]) -> FrameHeader {
        let (header, heard) = self.frame();
        assert!(
            heard == payload,
            "expected {:?}, heard {:?}",
            String::from_utf8_lossy(payload),
            String::from_utf8_lossy(&heard)
        );
        header
    }

    /// The code of the CLOSE with which the connection ends; messages before it do not matter.
    /// None: it ended without one.
    pub(crate) fn closed(&mut self) -> Option<Code> {
        loop {
            match self.hear(PATIENCE) {
                Some(Said::Close(code)) => return Some(code),
                Some(Said::End(_)) => return None,
                Some(Said::Frame(..) | Said::Control(_)) => {}
                None => panic!("not closed in {PATIENCE:?}"),
            }
        }
    }

    /// What the relay's CLOSE said besides its code.
    pub(crate) fn detail(&self) -> Option<Code> {
        (self.detail != 0).then(|| Code::from_wire(self.detail).expect("a code of this version"))
    }

    /// The code of the NACK for this message; what comes before it does not matter.
    #[track_caller]
    pub(crate) fn nacked(&mut self, mid: u64) -> Code {
        self.wait_for("a NACK", |said| match said {
            Said::Control(ServerControl::Nack { mid: of, code, .. }) if *of == mid => {
                Code::from_wire(*code)
            }
            _ => None,
        })
    }

    /// The first that is the one is taken from what was heard, or will be.
    #[track_caller]
    pub(crate) fn wait_for<T>(&mut self, what: &str, is: impl Fn(&Said) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        loop {
            while let Some(said) = self.heard.get(looked_at) {
                if let Some(found) = is(said) {
                    self.heard.remove(looked_at);
                    return found;
                }
                looked_at += 1;
            }
            let goes_on = self.step(deadline) || self.heard.len() > looked_at;
            assert!(goes_on, "no {what}: {:?}", self.heard.back());
        }
    }

    /// Sends what is owed, reads once, and takes all that is whole. False: the time is over, or the
    /// connection.
    pub(super) fn step(&mut self, deadline: Instant) -> bool {
        self.pay();
        let now = Instant::now();
        // Zero would mean for ever.
        let left = deadline.saturating_duration_since(now).max(Duration::from_millis(1));
        let Some(stream) = self.stream.as_mut().filter(|_| !self.ended) else { return false };
        stream.set_read_timeout(Some(left)).expect("a timeout can be set");
        self.unread.drain(..std::mem::take(&mut self.taken));
        let mut room = [0; 64 << 10];
        match stream.read(&mut room) {
            Ok(0) => self.end(true),
            Ok(len) => {
                self.unread.extend(&room[..len]);
                self.take();
                self.pay();
            }
            Err(e) if is_timeout(&e) => return false,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.end(false),
        }
        true
    }

    fn end(&mut self, in_order: bool) {
        self.ended = true;
        self.heard.push_back(Said::End(in_order));
    }

    /// What the session owes the relay.
    fn pay(&mut self) {
        while let Some(small) = self.session.poll_output(self.now()) {
            self.write(small.as_bytes());
            if self.session.is_closed()
                && let Some(stream) = &self.stream
            {
                // It may be gone.
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn take(&mut self) {
        let now = self.now();
        while !self.session.is_over() {
            let rest = &self.unread[self.taken..];
            let got = self.session.handle_input(now, rest);
            let (took, len) = match got.expect("the relay keeps to the protocol") {
                Got::More(_) => break,
                Got::Record(took, len) => (took, len),
            };
            match took {
                Took::Nothing => {}
                Took::Ready(ready) => {
                    self.resumed = ready.resumed;
                    self.first = rest[..len].to_vec();
                }
                Took::Pong(number, _) => self.ponged = number,
                Took::Frames(frames) => {
                    for frame in frames {
                        if frame.header.kind != FrameKind::Publish {
                            let lost = self.session.direct(&frame.header).expect("it goes on");
                            assert_eq!(lost, None, "messages with a peer were lost");
                        }
                        self.heard.push_back(Said::Frame(frame.header, frame.payload.to_vec()));
                    }
                }
                Took::Control(value) => self.heard.push_back(Said::Control(owned(value))),
                Took::Close(close) => {
                    let code = Code::from_wire(close.code).expect("a code of this version");
                    self.detail = close.detail;
                    self.heard.push_back(Said::Close(code));
                }
            }
            self.taken += len;
        }
        while let Some((mid, fate)) = self.session.poll_settled() {
            self.messages.remove(&mid);
            self.fates.push((mid, fate));
        }
    }

    pub(super) fn now(&self) -> wardline_core::Instant {
        let since = self.began.elapsed().as_nanos();
        wardline_core::Instant::from_nanos(u64::try_from(since).expect("some minutes"))
    }
}

/// The same value, of no bytes that came: only `Taken` has some, and the session keeps that.
fn owned(value: ServerControl<'_>) -> ServerControl<'static> {
    use ServerControl as S;
    match value {
        S::Taken { .. } => unreachable!("the session keeps it"),
        S::Subscribed { ask, topic, epoch, next, oldest } => {
            S::Subscribed { ask, topic, epoch, next, oldest }
        }
        S::Opened { ask, topic } => S::Opened { ask, topic },
        S::Refused { ask, code, retry_ms } => S::Refused { ask, code, retry_ms },
        S::Nack { mid, code, retry_ms } => S::Nack { mid, code, retry_ms },
        S::Verdict { mid, offset, readers } => S::Verdict { mid, offset, readers },
        S::Gap { topic, from, to, reason } => S::Gap { topic, from, to, reason },
        S::Identity { ask, handle, identity, device } => {
            S::Identity { ask, handle, identity, device }
        }
        S::Done { ask, next } => S::Done { ask, next },
        S::Joined { topic, handle } => S::Joined { topic, handle },
        S::Left { topic, handle } => S::Left { topic, handle },
        S::Credit { peer, corr, bytes } => S::Credit { peer, corr, bytes },
    }
}
