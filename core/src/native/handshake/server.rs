//! The server's half of the handshake, cheapest checks first. PROTOCOL.md 2.2.5.
//!
//! Where the machine cannot know the answer it asks its caller: the address, the CPU budget,
//! permission, ban, sessions. Each of these is a state of its own that goes on only with an
//! [`Answer`].

use bytemuck::Zeroable;
use zeroize::Zeroizing;

use super::message::{
    Accept, Alert, Auth, Challenge, FEATURES, Granted, Hello, Progress, RECV_MAX_MIN, Type,
    progress,
};
use super::puzzle::Puzzle;
pub use super::resume::{FirstRecord, Held, ParkedResume, ProvenResume, ResumedSession, Waiting};
use super::schedule::{self, Early, SessionId};
use crate::native::bytes::all_zero;
use crate::native::codes::Code;
use crate::native::key::{Ephemeral, Identity, Key, PublicKey, SigningKey};
use crate::native::record::{Directions, Records, Side};
use crate::time::Instant;

/// A handshake that came to nothing: what the stranger is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub code: Code,
    /// When it may come back, in milliseconds; 0: not said.
    pub retry_ms: u32,
}

impl Ended {
    /// As it is sent.
    #[must_use]
    pub fn alert(&self) -> Alert {
        Alert::new(self.code, self.retry_ms)
    }
}

impl From<Code> for Ended {
    fn from(code: Code) -> Self {
        Self { code, retry_ms: 0 }
    }
}

/// What the caller says where it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Go on.
    Yes,
    /// Not so: why, and when it may come back.
    No(Ended),
}

impl Answer {
    /// No, without a word about when.
    #[must_use]
    pub const fn no(code: Code) -> Self {
        Self::No(Ended { code, retry_ms: 0 })
    }

    /// What is asked next, where this is yes.
    #[must_use]
    pub fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Yes => next(),
            Self::No(_) => self,
        }
    }

    pub(super) const fn ask(self) -> Result<(), Ended> {
        match self {
            Self::Yes => Ok(()),
            Self::No(ended) => Err(ended),
        }
    }
}

/// How much of a message is still to come, or that it is whole.
fn needs(bytes: &[u8], kind: Type) -> Result<usize, Ended> {
    match progress(bytes, &[kind])? {
        Progress::More(missing) => Ok(missing),
        Progress::Whole(_) => Ok(0),
    }
}

/// Nothing has come.
#[derive(Debug, Default)]
pub struct AwaitHello(());

impl AwaitHello {
    /// A connection that has said nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(())
    }

    /// How many bytes more are needed at least; 0: it is whole. Cheap: to be asked at each
    /// receive.
    ///
    /// # Errors
    /// What can be known to be wrong already: the stranger's.
    pub fn needs(&self, bytes: &[u8]) -> Result<usize, Ended> {
        needs(bytes, Type::Hello)
    }

    /// Lengths and header.
    ///
    /// # Errors
    /// The stranger's.
    pub fn hello(self, bytes: &[u8]) -> Result<Greeted, Ended> {
        Ok(Greeted { hello: Hello::decode(bytes)? })
    }
}

/// A HELLO whose form is right. Next: the address.
#[derive(Debug)]
pub struct Greeted {
    hello: Hello,
}

impl Greeted {
    /// Whether its address may try at all, whatever it proves.
    ///
    /// # Errors
    /// The caller's no.
    pub fn address(self, answer: Answer) -> Result<Admitted, Ended> {
        answer.ask()?;
        Ok(Admitted { hello: self.hello })
    }
}

/// Its address may try. Next: what it wants back.
#[derive(Debug)]
pub struct Admitted {
    hello: Hello,
}

/// What the proof in a HELLO comes to.
#[derive(Debug)]
pub enum Wants {
    /// A session that is held, and it has its secret.
    Resume(ProvenResume),
    /// A new one, whatever else it asked for.
    Full(Unproven),
}

impl Admitted {
    /// The session that it wants back, to be looked up by its handle. None: a new one.
    #[must_use]
    pub fn wants(&self) -> Option<SessionId> {
        Some(self.hello.resume_sid()).filter(|sid| !all_zero(sid))
    }

    /// The proof, against the session of that id, if it is held.
    #[must_use]
    pub fn resume(self, held: Option<&Held>) -> Wants {
        match held.and_then(|held| ProvenResume::prove(self.hello, held)) {
            Some(proven) => Wants::Resume(proven),
            None => Wants::Full(Unproven { hello: self.hello }),
        }
    }
}

/// Somebody who wants a new session. Next: the CPU budget.
#[derive(Debug)]
pub struct Unproven {
    hello: Hello,
}

impl Unproven {
    /// What its address may begin, and the CPU budget for a key agreement and what follows it.
    ///
    /// # Errors
    /// The caller's no.
    pub fn budget(self, answer: Answer) -> Result<Budgeted, Ended> {
        answer.ask()?;
        Ok(Budgeted { hello: self.hello })
    }
}

/// There is time for it. Next: CHALLENGE.
#[derive(Debug)]
pub struct Budgeted {
    hello: Hello,
}

impl Budgeted {
    /// Which of the relay's keys is to answer: the one that the client expects, else the first.
    #[must_use]
    pub fn key_wanted(&self, keys: &[Identity]) -> usize {
        let hint = self.hello.hint();
        keys.iter().position(|key| *key.as_bytes() == hint).unwrap_or(0)
    }

    /// CHALLENGE. `e_s` may serve for a second while puzzles are on, `n_s` for this one only.
    #[must_use]
    pub fn challenge(
        self,
        server: &Identity,
        e_s: &Ephemeral,
        n_s: &[u8; 16],
        puzzle_bits: u8,
        time_ms: u64,
    ) -> (Challenge, AwaitAuth) {
        let features = self.hello.features() & FEATURES;
        let public = e_s.public();
        let server = server.as_bytes();
        let challenge = Challenge::new(features, puzzle_bits, &public, n_s, server, time_ms);
        let e_s = Zeroizing::new(e_s.to_key());
        (challenge, AwaitAuth { hello: self.hello, challenge, e_s })
    }
}

/// CHALLENGE is out. Next: AUTH.
#[derive(Debug)]
pub struct AwaitAuth {
    hello: Hello,
    challenge: Challenge,
    e_s: Zeroizing<Key>,
}

impl AwaitAuth {
    /// As [`AwaitHello::needs`].
    ///
    /// # Errors
    /// What can be known to be wrong already: the stranger's.
    pub fn needs(&self, bytes: &[u8]) -> Result<usize, Ended> {
        needs(bytes, Type::Auth)
    }

    /// Lengths, header, puzzle.
    ///
    /// # Errors
    /// The stranger's.
    pub fn auth(self, bytes: &[u8]) -> Result<Claimed, Ended> {
        let auth = Auth::decode(bytes)?;
        let bits = self.challenge.puzzle_bits();
        let puzzle = Puzzle::new(&self.challenge.n_s(), &auth.client_id(), bits);
        if !puzzle.is_solved_by(auth.solution()) {
            return Err(Code::PuzzleRequired.into());
        }
        Ok(Claimed { waited: self, auth })
    }

    /// To be kept in a slot: 272 bytes.
    #[must_use]
    pub fn park(self) -> ParkedAuth {
        ParkedAuth {
            hello: *self.hello.as_bytes(),
            challenge: *self.challenge.as_bytes(),
            e_s: *self.e_s,
        }
    }
}

/// An [`AwaitAuth`] in a slot. All zeros is none.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct ParkedAuth {
    hello: [u8; Hello::SIZE],
    challenge: [u8; Challenge::SIZE],
    e_s: Key,
}

const _: () = assert!(size_of::<ParkedAuth>() == 272);

impl ParkedAuth {
    /// Takes it out; the slot holds no key any more.
    #[must_use]
    pub fn unpark(&mut self) -> Option<AwaitAuth> {
        let e_s = Zeroizing::new(self.e_s);
        let hello = Hello::decode(&self.hello).ok()?;
        let challenge = Challenge::decode(&self.challenge).ok()?;
        self.wipe();
        Some(AwaitAuth { hello, challenge, e_s })
    }

    /// Makes zeros of the key, and nobody of it.
    pub fn wipe(&mut self) {
        self.e_s.wipe();
        self.hello = [0; Hello::SIZE];
    }
}

/// Somebody claims to be somebody, and has done the work that was asked. Next: the CPU budget.
#[derive(Debug)]
pub struct Claimed {
    waited: AwaitAuth,
    auth: Auth,
}

impl Claimed {
    /// Whom it claims to be. Anybody can: nobody may be charged for it.
    #[must_use]
    pub fn client_id(&self) -> [u8; 32] {
        self.auth.client_id()
    }

    /// The quarantine of its address, and the CPU budget for the key agreement and a signature each
    /// way.
    ///
    /// # Errors
    /// The caller's no.
    pub fn budget(self, answer: Answer) -> Result<Funded, Ended> {
        answer.ask()?;
        Ok(Funded(self))
    }
}

/// There is time for the expensive part. Next: it.
#[derive(Debug)]
pub struct Funded(Claimed);

impl Funded {
    /// Key agreement, tag, and signature.
    ///
    /// # Errors
    /// `AUTH_FAILED`, whatever it was; `BAD_VALUE` only from somebody who proved who it is.
    pub fn verify(self) -> Result<Verified, Ended> {
        let Self(Claimed { waited, auth }) = self;
        let AwaitAuth { hello, challenge, e_s } = waited;
        let dh = Ephemeral::from_entropy(*e_s.as_bytes())
            .agree(&hello.e_c())
            .ok_or(Ended::from(Code::AuthFailed))?;
        let early = Early::new(&dh, &hello, &challenge);
        if !early.mac_c(&hello, &challenge, &auth).matches(&auth.mac_c()) {
            return Err(Code::AuthFailed.into());
        }
        let client_id = auth.client_id();
        if client_id == challenge.server_id() {
            return Err(Code::AuthFailed.into());
        }
        let client = PublicKey::new(&client_id).map_err(|_| Ended::from(Code::AuthFailed))?;
        if !client.verify(&schedule::client_signs(&hello, &challenge, &auth), &auth.sig_c()) {
            return Err(Code::AuthFailed.into());
        }
        if auth.recv_max() < RECV_MAX_MIN {
            return Err(Code::BadValue.into());
        }
        Ok(Verified { hello, challenge, auth, early, client: client.identity() })
    }
}

/// The client is who it says. Next: whether it may.
pub struct Verified {
    hello: Hello,
    challenge: Challenge,
    auth: Auth,
    early: Early,
    client: Identity,
}

impl core::fmt::Debug for Verified {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Verified({:?})", self.client)
    }
}

/// A [`Verified`] in a slot, on its way to the shard of its client. All zeros is none.
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct ParkedVerified {
    hello: [u8; Hello::SIZE],
    challenge: [u8; Challenge::SIZE],
    auth: [u8; Auth::SIZE],
    early: [Key; 3],
    client: Identity,
}

impl ParkedVerified {
    /// Takes it out; the slot holds no key any more.
    #[must_use]
    pub fn unpark(&mut self) -> Option<Verified> {
        let early = Early::unpark(&mut self.early);
        let hello = Hello::decode(&self.hello).ok()?;
        let challenge = Challenge::decode(&self.challenge).ok()?;
        let auth = Auth::decode(&self.auth).ok()?;
        self.hello = [0; Hello::SIZE];
        Some(Verified { hello, challenge, auth, early, client: self.client })
    }

    /// Takes it out as it is; the slot holds no key any more.
    #[must_use]
    pub fn take(&mut self) -> Self {
        let taken = *self;
        self.wipe();
        taken
    }

    /// Whether it is nobody.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.hello == [0; Hello::SIZE]
    }

    /// Makes zeros of the keys, and nobody of it.
    pub fn wipe(&mut self) {
        self.early.iter_mut().for_each(Key::wipe);
        self.hello = [0; Hello::SIZE];
    }
}

impl Verified {
    /// Puts it into a slot.
    #[must_use]
    pub fn park(self) -> ParkedVerified {
        ParkedVerified {
            hello: *self.hello.as_bytes(),
            challenge: *self.challenge.as_bytes(),
            auth: *self.auth.as_bytes(),
            early: self.early.park(),
            client: self.client,
        }
    }

    /// Who it is.
    #[must_use]
    pub const fn client(&self) -> Identity {
        self.client
    }

    /// Bits of the puzzle that it has solved.
    #[must_use]
    pub fn puzzle_bits(&self) -> u8 {
        self.challenge.puzzle_bits()
    }

    /// Which of its devices.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.auth.device()
    }

    /// Its epoch, to be compared with that of the session's entry, where one is held.
    #[must_use]
    pub fn epoch_ms(&self) -> u64 {
        self.auth.epoch_ms()
    }

    /// Permission, ban, and the sessions of the identity, asked in this order.
    ///
    /// # Errors
    /// The caller's first no.
    pub fn allow(
        self,
        permission: Answer,
        ban: Answer,
        sessions: Answer,
    ) -> Result<Allowed, Ended> {
        permission.ask()?;
        ban.ask()?;
        sessions.ask()?;
        Ok(Allowed(self))
    }
}

/// It may. Next: ACCEPT.
#[derive(Debug)]
pub struct Allowed(Verified);

impl Allowed {
    /// ACCEPT: signs, last of all.
    ///
    /// # Errors
    /// `INTERNAL`: `key` is not the one that CHALLENGE named, or `handle` is 0.
    pub fn accept(
        self,
        key: &SigningKey,
        handle: u64,
        granted: Granted,
        now: Instant,
    ) -> Result<(Accept, Established), Ended> {
        let Self(Verified { hello, challenge, auth, early, client }) = self;
        if handle == 0 || *key.identity().as_bytes() != challenge.server_id() {
            return Err(Code::Internal.into());
        }
        let mut accept = Accept::new(handle, granted);
        let signed = schedule::server_signs(&hello, &challenge, &auth, &accept);
        accept.set_sig_s(&key.sign(&signed));
        accept.set_mac_s(&early.mac_s(&hello, &challenge, &auth, &accept).to_bytes());
        let agreed = early.agreed(&hello, &challenge, &auth, &accept);
        let keys = Directions { k_c2s: agreed.k_c2s, k_s2c: agreed.k_s2c };
        let limits = (granted.max_payload, auth.recv_max());
        let records = Records::new(Side::Server, keys, agreed.sid, limits, now);
        let (rms, sid) = (agreed.rms, agreed.sid);
        Ok((
            accept,
            Established { client, auth, features: challenge.features(), sid, rms, records },
        ))
    }
}

/// A new session. Its secrets are copied into slots from here; this is wiped when dropped.
#[derive(Debug)]
pub struct Established {
    client: Identity,
    auth: Auth,
    features: u32,
    sid: SessionId,
    rms: Key,
    records: Records,
}

impl Established {
    /// Whose it is.
    #[must_use]
    pub const fn client(&self) -> Identity {
        self.client
    }

    /// Which of its devices.
    #[must_use]
    pub fn device(&self) -> u32 {
        self.auth.device()
    }

    /// Its epoch.
    #[must_use]
    pub fn epoch_ms(&self) -> u64 {
        self.auth.epoch_ms()
    }

    /// The features in use.
    #[must_use]
    pub const fn features(&self) -> u32 {
        self.features
    }

    /// What a resume needs, to be kept with the session.
    #[must_use]
    pub fn held(&self) -> Held {
        Held { sid: self.sid, rms: self.rms, recv_max: self.auth.recv_max() }
    }

    /// Both directions of this connection.
    #[must_use]
    pub const fn records(&self) -> Records {
        self.records
    }
}

impl Drop for Established {
    fn drop(&mut self) {
        self.rms.wipe();
        self.records.wipe();
    }
}
