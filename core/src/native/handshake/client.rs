//! The client's half of the handshake. PROTOCOL.md 2.2.6.

use zeroize::Zeroizing;

use super::message::{
    Accept, Alert, Auth, Challenge, Granted, Hello, Progress, RECV_MAX_MIN, Resumed, Type, VERSION,
    progress,
};
use super::puzzle::Puzzle;
use super::schedule::{self, Early, SessionId};
use crate::native::codes::Code;
use crate::native::key::{Ephemeral, Identity, Key, KeyFault, PublicKey, SigningKey};
use crate::native::record::{Directions, Records, Side};
use crate::time::Instant;

/// Why an attempt came to nothing. Whatever it was, the client never comes back with less: the
/// same dialect, version and pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The server says no, or somebody on the path does: a hint. Come back after
    /// [`ComeBack::after_alert`](crate::native::ComeBack::after_alert).
    Alert(Alert),
    /// What came is not what may come.
    Fault(Code),
    /// Not the server that is pinned. To be shown loudly, both keys.
    WrongServer {
        /// The pinned one.
        expected: Identity,
        /// Who answered, unproved.
        shown: [u8; 32],
    },
    /// The server's key is none.
    ServerKey(KeyFault),
    /// The server says that it is us.
    OwnKey,
    /// The server chose features that were not offered: these.
    Features(u32),
    /// The server asks for more work than 22 bits.
    Puzzle(u8),
    /// The server does not speak this version, by its own range, or both could speak a higher one.
    Version(u8, u8),
    /// The keys' agreement would not depend on ours.
    NotContributory,
    /// The server did not prove who it is.
    NotProved,
}

impl From<Code> for Ended {
    fn from(code: Code) -> Self {
        Self::Fault(code)
    }
}

/// A session that the client had, to be had back.
#[derive(Clone, Copy, Debug)]
pub struct Resumption {
    /// Its id.
    pub sid: SessionId,
    /// Its secret.
    pub rms: Key,
    /// The features in use.
    pub features: u32,
    /// What AUTH said that the client takes.
    pub recv_max: u32,
    /// The server that it was with.
    pub server: Identity,
}

/// What an attempt begins with. The entropy is new for each.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// Who the client is.
    pub key: &'a SigningKey,
    /// The server that is expected; None: trust on first use, or the one of `resume`.
    pub pin: Option<Identity>,
    /// The features that are offered.
    pub features: u32,
    /// The largest record body that is taken; at least 1,024 is said whatever this is.
    pub recv_max: u32,
    /// The session to have back.
    pub resume: Option<&'a Resumption>,
    /// Entropy.
    pub e_c: Ephemeral,
    /// Entropy.
    pub n_c: [u8; 16],
}

impl<'a> Attempt<'a> {
    /// HELLO.
    #[must_use]
    pub fn hello(self) -> (Hello, AwaitAnswer<'a>) {
        let hint = self.pin.map_or([0; 32], |pin| *pin.as_bytes());
        let mut hello = Hello::new(self.features, &self.e_c.public(), &self.n_c, &hint);
        if let Some(resume) = self.resume {
            hello.set_resume_sid(&resume.sid);
            hello.set_proof(&schedule::resume_proof(&resume.rms, &hello).to_bytes());
        }
        // Never with less than it had: a session's server is known, whether or not it was named.
        let pin = self.pin.or(self.resume.map(|resume| resume.server));
        (hello, AwaitAnswer { attempt: Self { pin, ..self }, hello })
    }
}

/// HELLO is out. Next: CHALLENGE, or RESUMED.
#[derive(Debug)]
pub struct AwaitAnswer<'a> {
    attempt: Attempt<'a>,
    hello: Hello,
}

/// What the server answered to a HELLO.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is no heap to put one of them into")]
pub enum Answered<'a> {
    /// Who are you?
    Challenged(Challenged<'a>),
    /// The session goes on: to be proved by a PING at once.
    Resumed(Connected),
}

impl<'a> AwaitAnswer<'a> {
    fn expected(&self) -> &'static [Type] {
        match self.attempt.resume {
            Some(_) => &[Type::Challenge, Type::Resumed, Type::Alert],
            None => &[Type::Challenge, Type::Alert],
        }
    }

    /// How many bytes more are needed at least; 0: it is whole.
    ///
    /// # Errors
    /// What can be known to be wrong already: the server's, or somebody's on the path.
    pub fn needs(&self, bytes: &[u8]) -> Result<usize, Ended> {
        needs(bytes, self.expected())
    }

    /// The answer.
    ///
    /// # Errors
    /// The server's, or somebody's on the path.
    pub fn answer(self, bytes: &[u8], now: Instant) -> Result<Answered<'a>, Ended> {
        match progress(bytes, self.expected())? {
            Progress::Whole(Type::Challenge) => {
                let challenge = Challenge::decode(bytes)?;
                self.challenged(challenge).map(Answered::Challenged)
            }
            Progress::Whole(Type::Resumed) => {
                self.resumed(&Resumed::decode(bytes)?, now).map(Answered::Resumed)
            }
            Progress::Whole(Type::Alert) => Err(Ended::Alert(Alert::decode(bytes)?)),
            Progress::Whole(Type::Hello | Type::Auth | Type::Accept) => Err(Code::BadState.into()),
            Progress::More(_) => Err(Code::BadLength.into()),
        }
    }

    /// The rules before AUTH: nothing is proved yet, and nothing of ours is said.
    fn challenged(self, challenge: Challenge) -> Result<Challenged<'a>, Ended> {
        let Self { attempt, hello } = self;
        let shown = challenge.server_id();
        if let Some(expected) = attempt.pin
            && *expected.as_bytes() != shown
        {
            return Err(Ended::WrongServer { expected, shown });
        }
        let server = PublicKey::new(&shown).map_err(Ended::ServerKey)?;
        if server.identity() == attempt.key.identity() {
            return Err(Ended::OwnKey);
        }
        let unoffered = challenge.features() & !attempt.features;
        if unoffered != 0 {
            return Err(Ended::Features(unoffered));
        }
        // This is the highest version that we speak, so more in the range is no step down.
        if challenge.ver_min() > VERSION || challenge.ver_max() < VERSION {
            return Err(Ended::Version(challenge.ver_min(), challenge.ver_max()));
        }
        let client = attempt.key.identity();
        let puzzle = Puzzle::new(&challenge.n_s(), client.as_bytes(), challenge.puzzle_bits());
        if !puzzle.is_reasonable() {
            return Err(Ended::Puzzle(puzzle.bits()));
        }
        Ok(Challenged { attempt, hello, challenge, server, puzzle })
    }

    fn resumed(self, resumed: &Resumed, now: Instant) -> Result<Connected, Ended> {
        let Some(resume) = self.attempt.resume else { return Err(Code::BadState.into()) };
        let (mac_s, k_c2s, k_s2c) = schedule::resume(&resume.rms, &self.hello, resumed);
        let keys = Zeroizing::new([k_c2s, k_s2c]);
        if !mac_s.matches(&resumed.mac_s()) {
            return Err(Ended::NotProved);
        }
        if resumed.handle() == 0 {
            return Err(Code::BadValue.into());
        }
        let [k_c2s, k_s2c] = *keys;
        let granted = resumed.granted();
        let limits = (granted.max_payload, resume.recv_max);
        let keys = Directions { k_c2s, k_s2c };
        Ok(Connected {
            server: resume.server,
            first_seen: false,
            handle: resumed.handle(),
            granted,
            features: resume.features,
            recv_max: resume.recv_max,
            time_ms: None,
            sid: resume.sid,
            rms: resume.rms,
            records: Records::new(Side::Client, keys, resume.sid, limits, now),
        })
    }
}

fn needs(bytes: &[u8], expected: &[Type]) -> Result<usize, Ended> {
    match progress(bytes, expected)? {
        Progress::More(missing) => Ok(missing),
        Progress::Whole(_) => Ok(0),
    }
}

/// A CHALLENGE that keeps the rules. Next: solve its puzzle, and AUTH.
#[derive(Debug)]
pub struct Challenged<'a> {
    attempt: Attempt<'a>,
    hello: Hello,
    challenge: Challenge,
    server: PublicKey,
    puzzle: Puzzle,
}

impl<'a> Challenged<'a> {
    /// The puzzle to be solved; one of 0 bits is solved by anything.
    #[must_use]
    pub const fn puzzle(&self) -> &Puzzle {
        &self.puzzle
    }

    /// AUTH. `epoch_ms`: the program's start, see [`next_epoch`](crate::native::next_epoch).
    ///
    /// # Errors
    /// [`Ended::NotContributory`]: the server's. `PUZZLE_REQUIRED`: the caller's, whose `solution`
    /// is none.
    pub fn auth(
        self,
        solution: u64,
        device: u32,
        epoch_ms: u64,
    ) -> Result<(Auth, AwaitAccept), Ended> {
        let Self { attempt, hello, challenge, server, puzzle } = self;
        if !puzzle.is_solved_by(solution) {
            return Err(Code::PuzzleRequired.into());
        }
        let dh = attempt.e_c.agree(&challenge.e_s()).ok_or(Ended::NotContributory)?;
        let early = Early::new(&dh, &hello, &challenge);
        let client = attempt.key.identity();
        let recv_max = attempt.recv_max.max(RECV_MAX_MIN);
        let mut auth = Auth::new(solution, client.as_bytes(), device, recv_max, epoch_ms);
        let signed = schedule::client_signs(&hello, &challenge, &auth);
        auth.set_sig_c(&attempt.key.sign(&signed));
        auth.set_mac_c(&early.mac_c(&hello, &challenge, &auth).to_bytes());
        let first_seen = attempt.pin.is_none();
        Ok((auth, AwaitAccept { hello, challenge, auth, early, server, first_seen }))
    }
}

/// AUTH is out. Next: ACCEPT.
pub struct AwaitAccept {
    hello: Hello,
    challenge: Challenge,
    auth: Auth,
    early: Early,
    server: PublicKey,
    first_seen: bool,
}

impl core::fmt::Debug for AwaitAccept {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "AwaitAccept({:?})", self.server)
    }
}

impl AwaitAccept {
    const EXPECTED: &'static [Type] = &[Type::Accept, Type::Alert];

    /// As [`AwaitAnswer::needs`].
    ///
    /// # Errors
    /// What can be known to be wrong already: the server's, or somebody's on the path.
    pub fn needs(&self, bytes: &[u8]) -> Result<usize, Ended> {
        needs(bytes, Self::EXPECTED)
    }

    /// The server's proof.
    ///
    /// # Errors
    /// The server's, or somebody's on the path.
    pub fn accept(self, bytes: &[u8], now: Instant) -> Result<Connected, Ended> {
        let accept = match progress(bytes, Self::EXPECTED)? {
            Progress::Whole(Type::Alert) => return Err(Ended::Alert(Alert::decode(bytes)?)),
            Progress::Whole(_) => Accept::decode(bytes)?,
            Progress::More(_) => return Err(Code::BadLength.into()),
        };
        let Self { hello, challenge, auth, early, server, first_seen } = self;
        let signed = schedule::server_signs(&hello, &challenge, &auth, &accept);
        if !early.mac_s(&hello, &challenge, &auth, &accept).matches(&accept.mac_s())
            || !server.verify(&signed, &accept.sig_s())
        {
            return Err(Ended::NotProved);
        }
        if accept.handle() == 0 {
            return Err(Code::BadValue.into());
        }
        let agreed = early.agreed(&hello, &challenge, &auth, &accept);
        let granted = accept.granted();
        let keys = Directions { k_c2s: agreed.k_c2s, k_s2c: agreed.k_s2c };
        let limits = (granted.max_payload, auth.recv_max());
        Ok(Connected {
            server: server.identity(),
            first_seen,
            handle: accept.handle(),
            granted,
            features: challenge.features(),
            recv_max: auth.recv_max(),
            time_ms: Some(challenge.time_ms()),
            sid: agreed.sid,
            rms: agreed.rms,
            records: Records::new(Side::Client, keys, agreed.sid, limits, now),
        })
    }
}

/// A session with a server that has proved who it is. Wiped when dropped: keys are copied from it.
#[derive(Debug)]
pub struct Connected {
    server: Identity,
    first_seen: bool,
    handle: u64,
    granted: Granted,
    features: u32,
    recv_max: u32,
    time_ms: Option<u64>,
    sid: SessionId,
    rms: Key,
    records: Records,
}

impl Connected {
    /// Who the server is.
    #[must_use]
    pub const fn server(&self) -> Identity {
        self.server
    }

    /// Whether nobody had said who it would be: to be remembered now, and pinned from now on.
    #[must_use]
    pub const fn is_first_seen(&self) -> bool {
        self.first_seen
    }

    /// The client's own handle.
    #[must_use]
    pub const fn handle(&self) -> u64 {
        self.handle
    }

    /// What the server grants.
    #[must_use]
    pub const fn granted(&self) -> Granted {
        self.granted
    }

    /// By how many milliseconds the server's clock is ahead of `now_ms`, to warn of a wrong clock
    /// and for nothing else. None after a resume.
    #[must_use]
    pub fn clock_offset_ms(&self, now_ms: u64) -> Option<i64> {
        let ahead = |time_ms: u64| i128::from(time_ms).saturating_sub(i128::from(now_ms));
        self.time_ms.map(|time_ms| match i64::try_from(ahead(time_ms)) {
            Ok(offset) => offset,
            Err(_) if time_ms > now_ms => i64::MAX,
            Err(_) => i64::MIN,
        })
    }

    /// What a resume needs.
    #[must_use]
    pub const fn resumption(&self) -> Resumption {
        Resumption {
            sid: self.sid,
            rms: self.rms,
            features: self.features,
            recv_max: self.recv_max,
            server: self.server,
        }
    }

    /// Both directions of this connection.
    #[must_use]
    pub const fn records(&self) -> Records {
        self.records
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.rms.wipe();
        self.records.wipe();
    }
}
