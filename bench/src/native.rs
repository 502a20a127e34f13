//! Wardline's native dialect, from the load's side: the handshake, and between the wire and what
//! the other wires have, lines.
//!
//! What is sent is sealed as a client has to; what is received is taken apart as it comes, without
//! a look at its tags: those cost the load as much as they cost the relay, and it is the relay that
//! is measured. That the tags are right is what the tests of clients are for.

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use wardline_core::Instant;
use wardline_core::native::handshake::client::Resumption;
use wardline_core::native::{
    ClientControl, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, FrameWriter, Next,
    RECORD_HEADER_BYTES, Record, Records, ServerControl, Start, digest,
};

use crate::wire::Role;

pub mod join;

/// The largest body of a record that is sent: one of the largest frames that the relay takes.
const BODY_BYTES_MAX: usize = 64 << 10;
/// The time of all records: none of these connections lives long enough for another key.
const NOW: Instant = Instant::from_nanos(1);

/// To whom a publisher's messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everybody on a topic of this number.
    Topic(u32),
    /// The session of this handle.
    Peer(u64),
}

/// One end of a native connection.
#[derive(Debug)]
pub struct End {
    records: Records,
    /// The session's handle.
    pub handle: u64,
    /// Where what it sends goes; a reader sends nothing.
    target: Option<Target>,
    mid: u64,
    /// Frames in one record, at most.
    frames_max: usize,
    body: Vec<u8>,
    sealed: Vec<u8>,
    taking: Taking,
}

/// What the next bytes are that come.
#[derive(Debug)]
struct Taking {
    /// A header that has begun.
    header: Vec<u8>,
    /// Bytes of the record's body that are still to come; frames, or something else.
    body: usize,
    frames: bool,
    /// Bytes of the frame's payload that are still to come.
    payload: usize,
}

impl End {
    /// Shakes hands on a blocking stream and takes a place: a reader subscribes, or, where messages
    /// go to peers, waits; a publisher opens the topic, or sends to `peer`.
    ///
    /// # Errors
    /// The relay refuses, or says something else.
    pub fn join(
        stream: &mut TcpStream,
        number: u64,
        role: Role,
        topic: &str,
        peer: Option<Option<u64>>,
    ) -> Result<Self> {
        let (mut end, _) = Self::shake(stream, number, None)?;
        end.take_place(stream, role, topic, peer)?;
        Ok(end)
    }

    /// Shakes hands on a blocking stream: for a new session, or to have one back. Gives what is
    /// needed to have it back again.
    ///
    /// # Errors
    /// The relay refuses, says something else, or does not hold the session any more.
    pub fn shake(
        stream: &mut TcpStream,
        number: u64,
        resume: Option<&Resumption>,
    ) -> Result<(Self, Resumption)> {
        let key = join::key_of(number);
        let (hello, waiting) = join::first_words(&key, number, resume);
        stream.write_all(hello.as_bytes())?;
        let answer = waiting.answer(stream)?;
        ensure!(answer.is_resumed() == resume.is_some(), "the relay does not hold the session");
        Self::settle(stream, answer)
    }

    /// The last step of a handshake, to the relay's `Taken`.
    ///
    /// # Errors
    /// The relay refuses, is not who it says, or says something else.
    pub fn settle(stream: &mut TcpStream, answer: join::Answer) -> Result<(Self, Resumption)> {
        let (connected, records) = answer.settled(stream)?;
        let mut end = Self {
            records,
            handle: connected.handle(),
            target: None,
            mid: 1,
            frames_max: usize::MAX,
            body: Vec::new(),
            sealed: Vec::new(),
            taking: Taking { header: Vec::new(), body: 0, frames: false, payload: 0 },
        };
        end.wait_for(stream, |value| matches!(value, ServerControl::Taken { .. }).then_some(()))?;
        Ok((end, connected.resumption()))
    }

    fn take_place(
        &mut self,
        stream: &mut TcpStream,
        role: Role,
        topic: &str,
        peer: Option<Option<u64>>,
    ) -> Result<()> {
        match (role, peer) {
            (Role::Reader, Some(_)) => {}
            (Role::Publisher, Some(peer)) => {
                self.target = Some(Target::Peer(peer.context("a publisher without a peer")?));
            }
            (Role::Reader, None) => {
                let from = Start::Now;
                let ask = ClientControl::Subscribe {
                    ask: 1,
                    name: topic,
                    from,
                    echo: false,
                    presence: false,
                };
                self.ask(stream, &ask)?;
                self.wait_for(stream, |value| {
                    matches!(value, ServerControl::Subscribed { ask: 1, .. }).then_some(())
                })?;
            }
            (Role::Publisher, None) => {
                self.ask(stream, &ClientControl::Open { ask: 2, name: topic })?;
                let number = self.wait_for(stream, |value| match value {
                    ServerControl::Opened { ask: 2, topic } => Some(*topic),
                    _ => None,
                })?;
                self.target = Some(Target::Topic(number));
            }
        }
        Ok(())
    }

    fn ask(&mut self, stream: &mut TcpStream, value: &ClientControl<'_>) -> Result<()> {
        let value = value.encode().map_err(|code| anyhow::anyhow!("{code:?}"))?;
        let header = self.records.sending.control(value.as_bytes());
        let header = header.map_err(|code| anyhow::anyhow!("{code:?}"))?;
        stream.write_all(&header)?;
        Ok(stream.write_all(value.as_bytes())?)
    }

    /// The first control value that is the one.
    fn wait_for<T>(
        &mut self,
        stream: &mut TcpStream,
        is: impl Fn(&ServerControl<'_>) -> Option<T>,
    ) -> Result<T> {
        let mut bytes = Vec::new();
        loop {
            match self.records.next(NOW, &bytes) {
                Ok(Next::More(more)) => {
                    let at = bytes.len();
                    bytes.resize(at + more, 0);
                    stream.read_exact(&mut bytes[at..])?;
                }
                Ok(Next::Record(Record::Control(value), _)) => {
                    let value = ServerControl::decode(value);
                    let value = value.map_err(|code| anyhow::anyhow!("{code:?}"))?;
                    return is(&value).with_context(|| format!("the relay says {value:?}"));
                }
                other => bail!("the relay says {other:?}"),
            }
        }
    }

    /// Seals lines as messages, and puts them in their place.
    ///
    /// # Panics
    /// Where this end has nobody to send to, or a line is over the limit.
    pub fn seal(&mut self, lines: &mut Vec<u8>) {
        let target = self.target.expect("somebody to send to");
        self.sealed.clear();
        let mut frames = 0;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let full = self.body.len() + FRAME_HEADER_BYTES + line.len() > BODY_BYTES_MAX;
            if full || frames == self.frames_max {
                self.flush();
                frames = 0;
            }
            frames += 1;
            let (kind, topic, peer) = match target {
                Target::Topic(number) => (FrameKind::Publish, number, 0),
                Target::Peer(handle) => (FrameKind::Direct, 0, handle),
            };
            self.put((kind, topic, peer, 0), line);
        }
        self.flush();
        std::mem::swap(lines, &mut self.sealed);
    }

    /// Puts a frame behind those that are to be sealed: its kind, topic, peer and request. Gives
    /// its id.
    fn put(&mut self, to: (FrameKind, u32, u64, u64), payload: &[u8]) -> u64 {
        let (kind, topic, peer, corr) = to;
        let mid = self.mid;
        let header = FrameHeader { topic, peer, mid, corr, ..FrameHeader::new(kind) };
        self.mid += 1;
        let at = self.body.len();
        self.body.resize(at + FRAME_HEADER_BYTES + payload.len(), 0);
        assert!(FrameWriter::new(&mut self.body[at..]).put(&header, payload), "it fits");
        mid
    }

    /// Has each record that is sealed hold so many frames at most; 0: as many as fit.
    pub fn set_frames_max(&mut self, frames: usize) {
        self.frames_max = if frames == 0 { usize::MAX } else { frames };
    }

    /// Seals one message for a peer, which answers that one's request `corr`, or none; gives its
    /// id, and appends the record to `out`.
    ///
    /// # Panics
    /// Where the payload is over the limit.
    pub fn seal_for(
        &mut self,
        peer: u64,
        (kind, corr): (FrameKind, u64),
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> u64 {
        let mid = self.put((kind, 0, peer, corr), payload);
        self.sealed.clear();
        self.flush();
        out.extend_from_slice(&self.sealed);
        mid
    }

    /// Opens the whole records that `bytes` begin with, tags and all, and shows each frame. Gives
    /// how many bytes they were.
    ///
    /// # Errors
    /// A record that is not good, or holds something else than frames.
    pub fn open_frames(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&Frame<'_>) -> Result<()>,
    ) -> Result<usize> {
        let mut at = 0;
        loop {
            match self.records.next(NOW, &bytes[at..]) {
                Ok(Next::More(_)) => return Ok(at),
                Ok(Next::Record(Record::Frames(frames), len)) => {
                    at += len;
                    for frame in frames {
                        each(&frame)?;
                    }
                }
                other => bail!("the relay says {other:?}"),
            }
        }
    }

    fn flush(&mut self) {
        if self.body.is_empty() {
            return;
        }
        let len = u32::try_from(self.body.len()).expect("a body of 64 KiB");
        let header = self.records.sending.frames(len, &digest(&self.body));
        self.sealed.extend_from_slice(&header.expect("a record that may be sent"));
        self.sealed.append(&mut self.body);
    }

    /// Makes lines of what came, however it is cut, and appends them to `lines`.
    ///
    /// # Errors
    /// The relay closes the connection, or refuses a message.
    pub fn open(&mut self, mut bytes: &[u8], lines: &mut Vec<u8>) -> Result<()> {
        while !bytes.is_empty() {
            let Taking { header, body, frames, payload } = &mut self.taking;
            if *payload > 0 {
                let len = bytes.len().min(*payload);
                lines.extend_from_slice(&bytes[..len]);
                *payload -= len;
                *body -= len;
                bytes = &bytes[len..];
                if *payload == 0 {
                    lines.push(b'\n');
                }
                continue;
            }
            if *body > 0 && !*frames {
                let len = bytes.len().min(*body);
                *body -= len;
                bytes = &bytes[len..];
                continue;
            }
            let wanted = if *body > 0 { FRAME_HEADER_BYTES } else { RECORD_HEADER_BYTES };
            let len = bytes.len().min(wanted - header.len());
            header.extend_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
            if header.len() < wanted {
                return Ok(());
            }
            let number = |at: usize| {
                u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
            };
            if *body > 0 {
                *payload = number(0) as usize;
                *body -= FRAME_HEADER_BYTES;
            } else {
                ensure!(header[0] != 3, "the relay closes");
                ensure!(header[0] != 5, "the relay refuses a message, or tells of a gap");
                *frames = header[0] == 0x10;
                *body = number(4) as usize;
            }
            header.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end() -> End {
        let taking = Taking { header: Vec::new(), body: 0, frames: false, payload: 0 };
        let (body, sealed) = (Vec::new(), Vec::new());
        // Nobody's keys: what comes is not looked at by its tags.
        let records = bytemuck::Zeroable::zeroed();
        let frames_max = usize::MAX;
        End { records, handle: 1, target: None, mid: 1, frames_max, body, sealed, taking }
    }

    /// A record of that type, its tag and number left out.
    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut record = vec![0; RECORD_HEADER_BYTES];
        record[0] = kind;
        record[4..8].copy_from_slice(&u32::try_from(body.len()).unwrap().to_le_bytes());
        [record, body.to_vec()].concat()
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        let header = FrameHeader {
            topic: 1,
            peer: 1,
            mid: 1,
            offset: 1,
            ..FrameHeader::new(FrameKind::Publish)
        };
        [&header.to_bytes(u32::try_from(payload.len()).unwrap())[..], payload].concat()
    }

    #[test]
    fn what_comes_is_made_lines_of_however_it_is_cut() {
        let said: Vec<String> = (0..300).map(|n| format!("line {n} {n:0>60}")).collect();
        let mut wire = record(0x01, &[7; 8]);
        for some in said.chunks(70) {
            let body: Vec<u8> = some.iter().flat_map(|line| frame(line.as_bytes())).collect();
            wire.extend(record(0x10, &body));
        }
        let lines = said.join("\n") + "\n";
        for cut in [1, 7, 48, 1_000, wire.len()] {
            let (mut reader, mut opened) = (end(), Vec::new());
            for chunk in wire.chunks(cut) {
                reader.open(chunk, &mut opened).unwrap();
            }
            assert_eq!(opened, lines.as_bytes(), "cut at {cut}");
        }
        for kind in [3, 5] {
            assert!(end().open(&record(kind, &[0; 16]), &mut Vec::new()).is_err(), "type {kind}");
        }
    }
}
