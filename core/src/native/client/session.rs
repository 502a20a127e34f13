//! A client's session over all its connections.

use super::unsure::{Fate, Slot, Unsure};
use crate::native::codes::Code;
use crate::native::control::{ClientControl, ControlBytes, ServerControl};
use crate::native::frame::{FrameHeader, Frames};
use crate::native::handshake::client::{Connected, Resumption};
use crate::native::handshake::{Granted, SessionId};
use crate::native::record::{Close, Next, RECORD_HEADER_BYTES, Record, Records, digest};
use crate::time::{Duration, Instant};

/// How often a client asks whether the relay is there.
pub const PING_EVERY: Duration = Duration::from_secs(30);
/// How long no record may come before the relay is taken for gone: two PINGs were missed.
pub const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How long the other end's CLOSE is waited for.
pub const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// What must survive a reconnect, and the connection that there is now. The caller lends the slots:
/// an array, a slice, or a box of them.
#[derive(Debug)]
pub struct Session<S> {
    unsure: Unsure<S>,
    /// None: there is nothing to be had back.
    resumption: Option<Resumption>,
    /// The session of the last connection that was ready: what is under way went out in it, and
    /// handles are known from it. One whose `Taken` never came is not it, and may yet be resumed.
    known: Option<SessionId>,
    /// The next number of the kinds with a peer. None: no relay has said one.
    direct: Option<u64>,
    live: Option<Live>,
}

/// A connection.
#[derive(Debug)]
struct Live {
    records: Records,
    granted: Granted,
    handle: u64,
    sid: SessionId,
    /// `Taken` is in: frames may go out.
    ready: bool,
    /// When the last record came, or the connection began.
    heard: Instant,
    /// When the last PING went out, or the connection began.
    pinged: Instant,
    /// A PING is under way: it covers the messages below this id.
    ping_covers: Option<u64>,
    /// PINGs that went out.
    pings: u64,
    /// A PING is to go out up to this number.
    barrier: u64,
    /// A PONG is owed.
    pong: Option<[u8; 8]>,
    /// A CLOSE is to go out, of that code and detail.
    closing: Option<(Code, u16)>,
    /// Ours went out.
    closed: Option<Instant>,
    /// The relay's CLOSE counts all that was said before ours.
    covered: bool,
}

/// What the bytes at hand come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got<'b> {
    /// So many more bytes are needed at least; nothing has changed.
    More(usize),
    /// A record of so many bytes.
    Record(Took<'b>, usize),
}

/// What a record asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Took<'b> {
    /// Nothing.
    Nothing,
    /// Frames may go out from now on. The first of each connection that is not [`Took::Nothing`],
    /// or [`Took::Close`].
    Ready(Ready),
    /// The PING of that number was answered, after so long: see [`Session::barrier`].
    Pong(u64, Duration),
    /// Frames. Those of a kind with a peer are to be shown to [`Session::direct`].
    Frames(Frames<'b>),
    /// A control value, which is no `Taken`. A `Nack` and a `Verdict` are noted already.
    Control(ServerControl<'b>),
    /// The relay's CLOSE. What it had taken is noted, and the answer is owed.
    Close(Close),
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The session of before goes on, and handles that were known hold.
    pub resumed: bool,
    /// What was meant for this client and lost on the way.
    pub lost: Option<DirectLost>,
}

/// Frames of the kinds with a peer that were lost: `from..to`, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectLost {
    /// The first.
    pub from: u64,
    /// The first that was not lost.
    pub to: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both have said CLOSE.
    Clean,
    /// No record came for [`SILENCE_MAX`].
    Silent,
    /// Our CLOSE was not answered within [`CLOSE_PATIENCE`].
    Unanswered,
}

/// A whole record, at most 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Small {
    bytes: [u8; 48],
    len: usize,
}

impl Small {
    fn new(record: &[u8]) -> Self {
        let mut bytes = [0; 48];
        crate::native::bytes::put(&mut bytes, 0, record);
        Self { bytes, len: record.len() }
    }

    /// The record.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<S> Drop for Session<S> {
    fn drop(&mut self) {
        if let Some(resumption) = &mut self.resumption {
            resumption.rms.wipe();
        }
        if let Some(live) = &mut self.live {
            live.records.wipe();
        }
    }
}

impl<S: AsRef<[Slot]> + AsMut<[Slot]>> Session<S> {
    /// A session of which nothing was said. `entropy`: where message ids begin.
    #[must_use]
    pub fn new(slots: S, entropy: u64) -> Self {
        let unsure = Unsure::new(slots, entropy);
        Self { unsure, resumption: None, known: None, direct: None, live: None }
    }

    /// What the next attempt is to have back.
    #[must_use]
    pub const fn resumption(&self) -> Option<&Resumption> {
        self.resumption.as_ref()
    }

    /// A handshake came to its end.
    pub fn handle_connected(&mut self, now: Instant, connected: &Connected) {
        self.handle_lost();
        let resumption = connected.resumption();
        let resumed = self.resumption.is_some_and(|before| before.sid == resumption.sid);
        self.forget_resumption();
        self.resumption = Some(resumption);
        self.live = Some(Live {
            records: connected.records(),
            granted: connected.granted(),
            handle: connected.handle(),
            sid: resumption.sid,
            ready: false,
            heard: now,
            pinged: now,
            ping_covers: None,
            pings: 0,
            // A resume is proved by its first record.
            barrier: u64::from(resumed),
            pong: None,
            closing: None,
            closed: None,
            covered: false,
        });
    }

    /// The connection is gone. What was under way stays so.
    pub fn handle_lost(&mut self) {
        if let Some(mut live) = self.live.take() {
            live.records.wipe();
        }
    }

    /// What the bytes that came, from where a record begins, come to.
    ///
    /// # Errors
    /// The relay's, or somebody's on the path: the connection is over, and nothing after it is to
    /// be read. [`Session::fault`] with the code says so to the relay.
    pub fn handle_input<'b>(&mut self, now: Instant, bytes: &'b [u8]) -> Result<Got<'b>, Code> {
        let live = self.live.as_mut().ok_or(Code::BadState)?;
        let (record, len) = match live.records.next(now, bytes)? {
            Next::More(missing) => return Ok(Got::More(missing)),
            Next::Record(record, len) => (record, len),
        };
        live.heard = now;
        let took = match record {
            Record::Ping(nonce) => {
                live.pong = Some(nonce);
                Took::Nothing
            }
            Record::Pong => self.pong(now),
            Record::Close(close) => self.closed(close),
            Record::Rekeyed | Record::Dropped => Took::Nothing,
            Record::Control(value) => self.control_came(ServerControl::decode(value)?)?,
            Record::Frames(frames) if live.ready => Took::Frames(frames),
            Record::Frames(_) => return Err(Code::BadState),
        };
        Ok(Got::Record(took, len))
    }

    fn pong(&mut self, now: Instant) -> Took<'static> {
        let Some(live) = &mut self.live else { return Took::Nothing };
        let covers = live.ping_covers.take().unwrap_or(0);
        self.unsure.covered(covers);
        Took::Pong(live.pings, now.since(live.pinged))
    }

    fn closed(&mut self, close: Close) -> Took<'static> {
        let Some(live) = &mut self.live else { return Took::Nothing };
        let own = u64::from(live.closed.is_some());
        live.covered = close.taken >= live.records.sending.sent().saturating_sub(own);
        // Before `Taken`, what is under way went out over other connections.
        if live.ready {
            self.unsure.closed(close.taken);
        }
        // A session that survives the relay's CLOSE is not ended by the answer to it.
        let code = Code::from_wire(close.code).unwrap_or(Code::Normal);
        if !code.session_survives() {
            self.forget_resumption();
        }
        if let Some(live) = &mut self.live
            && live.closed.is_none()
        {
            live.closing = Some((code, 0));
        }
        Took::Close(close)
    }

    fn control_came<'b>(&mut self, value: ServerControl<'b>) -> Result<Took<'b>, Code> {
        let live = self.live.as_mut().ok_or(Code::BadState)?;
        match value {
            ServerControl::Taken { mid, seen, direct } if !live.ready => {
                live.ready = true;
                let resumed = self.known == Some(live.sid);
                self.known = Some(live.sid);
                self.unsure.taken(mid, seen, resumed)?;
                // A smaller number is a new count: what the old one would have come to, nobody
                // knows.
                let lost = self.direct.and_then(|from| lost_between(from, direct));
                self.direct = Some(direct);
                Ok(Took::Ready(Ready { resumed, lost }))
            }
            ServerControl::Taken { .. } => Err(Code::BadState),
            _ if !live.ready => Err(Code::BadState),
            ServerControl::Nack { mid, code, .. } => {
                let fate = match Code::from_wire(code) {
                    Some(Code::Duplicate) => Fate::Taken,
                    Some(Code::Stale) => Fate::Unsure,
                    Some(_) | None => Fate::Refused,
                };
                self.unsure.settle_one(mid, fate);
                Ok(Took::Control(value))
            }
            ServerControl::Verdict { mid, .. } => {
                self.echo(mid);
                Ok(Took::Control(value))
            }
            ServerControl::Subscribed { .. }
            | ServerControl::Opened { .. }
            | ServerControl::Refused { .. }
            | ServerControl::Gap { .. }
            | ServerControl::Identity { .. }
            | ServerControl::Done { .. }
            | ServerControl::Joined { .. }
            | ServerControl::Left { .. }
            | ServerControl::Credit { .. } => Ok(Took::Control(value)),
        }
    }

    /// A frame of a kind with a peer came: what was lost before it.
    ///
    /// # Errors
    /// `BAD_VALUE`: its number came before. The relay's.
    pub fn direct(&mut self, header: &FrameHeader) -> Result<Option<DirectLost>, Code> {
        let expected = self.direct.unwrap_or(header.offset);
        if header.offset < expected {
            return Err(Code::BadValue);
        }
        self.direct = Some(header.offset.saturating_add(1));
        Ok(lost_between(expected, header.offset))
    }

    /// A PUBLISH of this client came back, or a `Verdict` on it: it was taken.
    pub fn echo(&mut self, mid: u64) {
        if mid < self.unsure.unsent() {
            self.unsure.settle_one(mid, Fate::Taken);
        }
    }

    /// Whether frames may go out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.ready && live.closing.is_none())
            && !self.is_closed()
    }

    /// How many more messages may be under way.
    #[must_use]
    pub fn room(&self) -> usize {
        self.unsure.room()
    }

    /// How many messages were sent and are not settled, and how many are yet to be sent.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.unsure.counts()
    }

    /// Whether nothing is under way, nor waits to be told of.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.unsure.is_empty()
    }

    /// A message is to be sent: its id. None: there is no room; a [`Session::barrier`] makes some.
    pub fn enqueue(&mut self) -> Option<u64> {
        self.unsure.enqueue()
    }

    /// The next message to be sent, again or for the first time. None: there is none, or it may
    /// not go out now.
    pub fn next_unsent(&mut self) -> Option<u64> {
        if self.is_ready() { self.unsure.next_unsent() } else { None }
    }

    /// The message to be sent after `mid`: for more than one in a record.
    pub fn next_unsent_after(&mut self, mid: u64) -> Option<u64> {
        if self.is_ready() { self.unsure.next_unsent_after(mid) } else { None }
    }

    /// A message is not to be sent (again), or its sender no longer wants it: it is settled as
    /// refused.
    pub fn withdraw(&mut self, mid: u64) {
        self.unsure.settle_one(mid, Fate::Refused);
    }

    /// The oldest message, once it is known what became of it.
    pub fn poll_settled(&mut self) -> Option<(u64, Fate)> {
        self.unsure.pop()
    }

    /// The header of a record of frames: all messages to be sent up to and with `last`, in the
    /// order in which [`Session::next_unsent`] gave them.
    ///
    /// # Errors
    /// Our own: `BAD_STATE` where frames may not go out, and those of
    /// [`Sending::frames`](crate::native::Sending::frames).
    pub fn frames(&mut self, last: u64, body: &[u8]) -> Result<[u8; RECORD_HEADER_BYTES], Code> {
        if !self.is_ready() {
            return Err(Code::BadState);
        }
        let live = self.live.as_mut().ok_or(Code::BadState)?;
        let len = u32::try_from(body.len()).map_err(|_| Code::TooLarge)?;
        let record = live.records.sending.sent();
        let header = live.records.sending.frames(len, &digest(body))?;
        self.unsure.sent(last, record);
        Ok(header)
    }

    /// A record of one control value: header and body.
    ///
    /// # Errors
    /// As [`Session::frames`]; `BAD_VALUE` where a field holds what it may not.
    pub fn control(
        &mut self,
        value: &ClientControl<'_>,
    ) -> Result<([u8; RECORD_HEADER_BYTES], ControlBytes), Code> {
        if !self.is_ready() {
            return Err(Code::BadState);
        }
        let live = self.live.as_mut().ok_or(Code::BadState)?;
        let body = value.encode()?;
        let header = live.records.sending.control(body.as_bytes())?;
        Ok((header, body))
    }

    /// All that was said so far is to be known as taken or refused: the number of the PING whose
    /// PONG says so. Numbers are those of this connection.
    pub fn barrier(&mut self) -> u64 {
        let Some(live) = &mut self.live else { return 0 };
        live.barrier = live.pings.saturating_add(1);
        live.barrier
    }

    /// Ends the connection, after all that was said. The session can be resumed only where the code
    /// lets it survive.
    pub fn close(&mut self, code: Code) {
        self.close_with(code, 0);
    }

    /// The same for a fault that was found in what came last. The session goes on where anybody on
    /// the path can have caused it.
    pub fn fault(&mut self, fault: Code) {
        let blame = |live: &Live| live.records.receiving.blame(fault);
        let (code, detail) = self.live.as_ref().map_or((fault, 0), blame);
        self.close_with(code, detail);
    }

    fn close_with(&mut self, code: Code, detail: u16) {
        if !code.session_survives() {
            self.forget_resumption();
        }
        if let Some(live) = &mut self.live
            && live.closed.is_none()
        {
            live.closing = Some((code, detail));
        }
    }

    /// The next record that is owed: REKEY, PONG, PING, CLOSE. To be asked until it says None,
    /// before frames and after input, and at [`Session::deadline`].
    pub fn poll_output(&mut self, now: Instant) -> Option<Small> {
        let live = self.live.as_mut()?;
        let records = &mut live.records;
        if records.sending.is_closed() {
            return None;
        }
        if records.sending.rekey_due(now) {
            return records.sending.rekey(now).ok().map(|record| Small::new(&record));
        }
        if let Some(nonce) = live.pong.take() {
            return records.pong(nonce).ok().map(|record| Small::new(&record));
        }
        if live.ping_covers.is_none() && live.ping_due(now) {
            live.pings = live.pings.saturating_add(1);
            live.pinged = now;
            // Before `Taken`, nothing that is under way went out over this connection.
            live.ping_covers = Some(if live.ready { self.unsure.unsent() } else { 0 });
            let record = live.records.ping(live.pings.to_le_bytes()).ok()?;
            return Some(Small::new(&record));
        }
        let (code, detail) = live.closing?;
        live.closed = Some(now);
        let record = live.records.close(code, detail, 0, 0).ok()?;
        Some(Small::new(&record))
    }

    /// How the connection ended, if it did: its socket is to be closed.
    #[must_use]
    pub fn ended(&self, now: Instant) -> Option<End> {
        let live = self.live.as_ref()?;
        if live.records.is_clean() {
            return Some(End::Clean);
        }
        if live.closed.is_some_and(|at| now >= at.after(CLOSE_PATIENCE)) {
            return Some(End::Unanswered);
        }
        (now >= live.heard.after(SILENCE_MAX)).then_some(End::Silent)
    }

    /// Nothing was read meanwhile, by the caller's own will: the silence is not the relay's.
    pub fn not_reading(&mut self, now: Instant) {
        if let Some(live) = &mut self.live {
            live.heard = live.heard.max(now);
        }
    }

    /// When [`Session::poll_output`] or [`Session::ended`] may have something to say although
    /// nothing came.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let Some(live) = &self.live else { return Instant::NEVER };
        let silent = live.heard.after(SILENCE_MAX);
        match live.closed {
            Some(at) => silent.min(at.after(CLOSE_PATIENCE)),
            None if live.ping_covers.is_some() => silent,
            None => silent.min(live.pinged.after(PING_EVERY)),
        }
    }

    /// Whether our CLOSE went out: nothing follows it, and writing is to be shut down.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.closed.is_some())
    }

    /// Whether nothing more can come: the relay's CLOSE is in, or there was a fault. Nothing is to
    /// be read any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.records.receiving.is_over())
    }

    /// Whether the relay's CLOSE is in, and counts every record that was sent before ours: only
    /// then may a client that sends and leaves report success.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.covered)
    }

    /// The client's own handle on this connection; 0: there is none.
    #[must_use]
    pub fn handle(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.handle)
    }

    /// What the relay grants on this connection.
    #[must_use]
    pub fn granted(&self) -> Option<Granted> {
        self.live.as_ref().map(|live| live.granted)
    }

    /// The largest record that can come: what a caller needs room for.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.live.as_ref().map_or(0, |live| live.records.receiving.record_bytes_max())
    }

    fn forget_resumption(&mut self) {
        if let Some(mut before) = self.resumption.take() {
            before.rms.wipe();
        }
    }
}

impl Live {
    fn ping_due(&self, now: Instant) -> bool {
        self.pings < self.barrier || now >= self.pinged.after(PING_EVERY)
    }
}

fn lost_between(from: u64, to: u64) -> Option<DirectLost> {
    (from < to).then_some(DirectLost { from, to })
}
