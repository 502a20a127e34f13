//! A client of the native dialect: the core's client half on a blocking socket, and never for
//! longer than it was told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::Socket;
use wardline_core::native::client::{Fate, Session, Slot, UNSURE_MAX};
use wardline_core::native::{
    Class, Code, FRAME_HEADER_BYTES, FrameHeader, FrameKind, FrameWriter, ServerControl,
};

mod asks;
mod dial;
mod hear;

#[cfg(all(unix, not(wardline_portable)))]
pub(crate) use dial::identity;
pub(crate) use dial::{NativeDial, Turned, alert, key, message};

use super::PATIENCE;

/// The most bytes of frames in one record of several.
const BODY_BYTES: usize = 16 << 10;

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A message.
    Frame(FrameHeader, Vec<u8>),
    /// A control value, which is not `Taken`.
    Control(ServerControl<'static>),
    /// The relay closes.
    Close(Code),
    /// The end of the stream, and whether it came without a reset.
    End(bool),
}

/// A message that may have to be sent again: to a topic by its name, since numbers change.
#[derive(Debug)]
struct Message {
    header: FrameHeader,
    topic: Option<String>,
    payload: Vec<u8>,
}

/// One connection, or one after the other.
#[derive(Debug)]
pub(crate) struct NativeClient {
    dial: NativeDial,
    /// None: it was reset by us.
    stream: Option<TcpStream>,
    session: Session<Vec<Slot>>,
    messages: BTreeMap<u64, Message>,
    /// What became of them.
    fates: Vec<(u64, Fate)>,
    /// Numbers of topics on this connection.
    topics: BTreeMap<String, u32>,
    unread: Vec<u8>,
    /// How much of `unread` was taken.
    taken: usize,
    heard: VecDeque<Said>,
    /// The highest PING that was answered.
    ponged: u64,
    asks: u32,
    ended: bool,
    /// Of the relay's last CLOSE.
    detail: u16,
    /// The session is the one of before.
    resumed: bool,
    /// The first record of this connection, as it came.
    first: Vec<u8>,
    began: Instant,
}

impl NativeClient {
    pub(super) fn new(dial: NativeDial) -> Result<Self, Turned> {
        let stream = Some(dial.stream()?);
        let mids = u64::from_le_bytes(*dial::entropy().first_chunk().expect("32 bytes"));
        let mut client = Self {
            dial,
            stream,
            session: Session::new(vec![Slot::default(); UNSURE_MAX], mids),
            messages: BTreeMap::new(),
            fates: Vec::new(),
            topics: BTreeMap::new(),
            unread: Vec::new(),
            taken: 0,
            heard: VecDeque::new(),
            ponged: 0,
            asks: 0,
            ended: false,
            detail: 0,
            resumed: false,
            first: Vec::new(),
            began: Instant::now(),
        };
        client.shake(true)?;
        Ok(client)
    }

    /// Connects again after an end: to have the session back, or for a new one of the same device.
    /// Topics are to be subscribed to and opened again; then [`NativeClient::flush`].
    pub(crate) fn reconnect(&mut self, resume: bool) -> Result<(), Turned> {
        self.abort();
        self.stream = Some(self.dial.stream()?);
        self.topics.clear();
        self.unread.clear();
        self.taken = 0;
        self.ponged = 0;
        self.ended = false;
        // An attempt that was turned away has ended, too; that was told by its outcome.
        self.heard.retain(|said| !matches!(said, Said::End(_)));
        self.shake(resume)
    }

    /// From here on it comes by another listener.
    pub(crate) fn turn_to(&mut self, listener: SocketAddr) {
        self.dial.to = listener;
    }

    /// Ends the connection with a reset, whatever is under way.
    pub(crate) fn abort(&mut self) {
        if let Some(stream) = self.stream.take() {
            let socket = Socket::from(stream);
            socket.set_linger(Some(Duration::ZERO)).expect("lingering can be set");
        }
        self.session.handle_lost();
        self.ended = true;
    }

    fn shake(&mut self, resume: bool) -> Result<(), Turned> {
        let resumption = self.session.resumption().filter(|_| resume).copied();
        let stream = self.stream.as_mut().ok_or(Turned::Closed)?;
        let connected = self.dial.shake(stream, resumption.as_ref())?;
        self.session.handle_connected(self.now(), &connected);
        let deadline = Instant::now() + PATIENCE;
        while !self.session.is_ready() {
            if !self.step(deadline) {
                return Err(Turned::Closed);
            }
        }
        Ok(())
    }

    /// Our end, as the relay sees it.
    pub(crate) fn address(&self) -> SocketAddr {
        let stream = self.stream.as_ref().expect("connected");
        stream.local_addr().expect("connected")
    }

    /// Its own handle.
    pub(crate) fn handle(&self) -> u64 {
        self.session.handle()
    }

    /// Whether the session of before goes on.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// The first record that the relay sent on this connection.
    pub(crate) fn first_record(&self) -> &[u8] {
        &self.first
    }

    /// Whether it can have its session back.
    pub(crate) fn can_resume(&self) -> bool {
        self.session.resumption().is_some()
    }

    /// Publishes to a topic that it has opened or reads: the message's id.
    pub(crate) fn publish(&mut self, name: &str, payload: &[u8]) -> u64 {
        let mid = self.enqueue(name, payload);
        self.flush();
        mid
    }

    /// The same, once something else is sent.
    pub(crate) fn enqueue(&mut self, name: &str, payload: &[u8]) -> u64 {
        self.enqueue_as(FrameKind::Publish, Some(name), (0, 0), payload)
    }

    /// A message of a kind with a peer.
    pub(crate) fn send_to(
        &mut self,
        kind: FrameKind,
        (peer, corr): (u64, u64),
        payload: &[u8],
    ) -> u64 {
        let mid = self.enqueue_as(kind, None, (peer, corr), payload);
        self.flush();
        mid
    }

    fn enqueue_as(
        &mut self,
        kind: FrameKind,
        topic: Option<&str>,
        (peer, corr): (u64, u64),
        payload: &[u8],
    ) -> u64 {
        if self.session.room() == 0 {
            self.barrier();
        }
        let mid = self.session.enqueue().expect("there is room");
        let class = Class::Normal;
        let (flags, ttl_ms, offset) = (0, 0, 0);
        let header = FrameHeader { kind, class, flags, topic: 0, ttl_ms, peer, mid, offset, corr };
        let topic = topic.map(str::to_owned);
        self.messages.insert(mid, Message { header, topic, payload: payload.to_vec() });
        mid
    }

    /// Sends what waits to be sent, again or for the first time.
    pub(crate) fn flush(&mut self) {
        while let Some(record) = self.seal() {
            self.write(&record);
        }
    }

    /// The next record of frames, which is not sent.
    pub(crate) fn seal(&mut self) -> Option<Vec<u8>> {
        let mut next = self.session.next_unsent();
        let (mut body, mut last) = (Vec::new(), next?);
        while let Some(mid) = next {
            let Message { header, topic, payload } = &self.messages[&mid];
            let at = body.len();
            if at > 0 && at + payload.len() > BODY_BYTES {
                break;
            }
            let topic = topic.as_ref().map_or(0, |name| self.topics[name]);
            body.resize(at + FRAME_HEADER_BYTES + payload.len(), 0);
            let header = FrameHeader { topic, ..*header };
            assert!(FrameWriter::new(&mut body[at..]).put(&header, payload), "it fits");
            last = mid;
            next = self.session.next_unsent_after(mid);
        }
        let header = self.session.frames(last, &body).expect("a record that may be sent");
        Some([&header[..], &body].concat())
    }

    /// Says a frame that is none, in a record that is right.
    #[cfg(all(unix, not(wardline_portable)))]
    pub(crate) fn say_nonsense(&mut self) {
        let mid = self.session.enqueue().expect("there is room");
        let body = [0xFF; FRAME_HEADER_BYTES];
        let header = self.session.frames(mid, &body).expect("a record that may be sent");
        self.write(&[&header[..], &body].concat());
    }

    /// Writes bytes to a relay that may have closed.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if let Some(stream) = &mut self.stream
            && let Err(e) = stream.write_all(bytes)
        {
            assert!(!is_timeout(&e), "the relay took nothing for {PATIENCE:?}");
        }
    }

    /// Waits until all that was sent is taken or refused. False: the connection has ended.
    pub(crate) fn barrier(&mut self) -> bool {
        let number = self.session.barrier();
        let deadline = Instant::now() + PATIENCE;
        while self.ponged < number {
            if !self.step(deadline) {
                assert!(self.ended, "a PING was not answered in {PATIENCE:?}");
                return false;
            }
        }
        true
    }

    /// What became known of messages since the last call.
    pub(crate) fn settled(&mut self) -> Vec<(u64, Fate)> {
        std::mem::take(&mut self.fates)
    }

    /// Messages of which nothing is known yet.
    pub(crate) fn unsettled(&self) -> usize {
        self.messages.len()
    }

    /// The number of a topic that it has, on this connection.
    pub(crate) fn number(&self, name: &str) -> u32 {
        self.topics[name]
    }

    /// The socket, to write what one likes.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.stream.expect("connected")
    }

    /// Says CLOSE, and waits for the relay's.
    pub(crate) fn close(mut self) {
        self.session.close(Code::Normal);
        let close = |said: &Said| matches!(said, Said::Close(_)).then_some(());
        self.wait_for("the relay's CLOSE", close);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
