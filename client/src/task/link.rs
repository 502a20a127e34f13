//! A socket, what came from it and what is to go out.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What is read at once.
const READ_BYTES: usize = 32 * 1_024;
/// More is not written ahead: what waits here can no longer be overtaken by a PONG or a CLOSE.
pub(crate) const AHEAD_BYTES: usize = 64 * 1_024;

/// A connection's socket and buffers.
///
/// ```text
///   input   | taken | start .. end: whole records and the beginning of one | room |
///   output  | written | to be written                                      |
/// ```
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    input: Vec<u8>,
    start: usize,
    end: usize,
    /// The most that `input` grows to: a record and what is read at once.
    input_max: usize,
    /// Bytes that the record at `start` needs at least; 0: not known.
    pub(crate) missing: usize,
    pub(crate) output: Vec<u8>,
    written: usize,
    shut: bool,
}

/// How a socket ends.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The other end's stream is over.
    Eof,
    /// An error: reset, unreachable.
    Error,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Error
    }
}

impl Link {
    /// A socket after its handshake; `rest` came after that.
    pub(crate) fn new(stream: TcpStream, rest: &[u8], record_bytes_max: usize) -> Self {
        let mut input = vec![0; READ_BYTES.max(rest.len())];
        input[..rest.len()].copy_from_slice(rest);
        Self {
            stream,
            input,
            start: 0,
            end: rest.len(),
            input_max: record_bytes_max.saturating_add(READ_BYTES),
            missing: 0,
            output: Vec::new(),
            written: 0,
            shut: false,
        }
    }

    /// What came and was not taken.
    pub(crate) fn arrived(&self) -> &[u8] {
        &self.input[self.start..self.end]
    }

    /// So many bytes of it are taken.
    pub(crate) fn take(&mut self, bytes: usize) {
        self.start += bytes;
        self.missing = 0;
        debug_assert!(self.start <= self.end && self.end <= self.input.len());
    }

    /// Whether more is to be read before anything can be taken.
    pub(crate) fn wants_more(&self) -> bool {
        self.start == self.end || self.missing > 0
    }

    /// Reads once.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.make_room();
        let mut room = ReadBuf::new(&mut self.input[self.end..]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
        let got = room.filled().len();
        if got == 0 {
            return Poll::Ready(Err(Broken::Eof));
        }
        self.end += got;
        self.missing = self.missing.saturating_sub(got);
        Poll::Ready(Ok(()))
    }

    fn make_room(&mut self) {
        let wanted = (self.end - self.start + self.missing).max(1) + READ_BYTES / 2;
        if self.start > 0 && (self.start == self.end || self.start + wanted > self.input.len()) {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if wanted > self.input.len() {
            self.input.resize(wanted.min(self.input_max).max(self.end + 1), 0);
        }
    }

    /// Bytes that wait to be written.
    pub(crate) fn waiting(&self) -> usize {
        self.output.len() - self.written
    }

    /// Writes what there is; ready once all of it is written.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.written < self.output.len() {
            let rest = &self.output[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(Broken::Error)),
                wrote => self.written += wrote,
            }
        }
        self.output.clear();
        self.written = 0;
        Poll::Ready(Ok(()))
    }

    /// Writes what the socket takes at once: the last words to a relay that is at fault.
    pub(crate) fn write_now(&mut self) {
        // What it does not take is lost with the connection.
        let _ = self.stream.try_write(&self.output[self.written..]);
    }

    /// Ends the own stream, once.
    pub(crate) fn poll_shut(&mut self, cx: &mut Context<'_>) {
        if !self.shut {
            // Whatever comes of it: the other end is read on, or is gone.
            self.shut = Pin::new(&mut self.stream).poll_shutdown(cx).is_ready();
        }
    }
}
