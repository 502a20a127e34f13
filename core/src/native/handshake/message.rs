//! The six messages of the handshake: exact layouts, strict decoding. PROTOCOL.md 2.2.1.

use crate::native::bytes::{get, is_zero, put, u8_at, u16_at, u32_at, u64_at};
use crate::native::codes::Code;

/// What every message begins with; the first byte tells this dialect from a line.
pub const MAGIC: [u8; 4] = *b"\xF5WDL";
/// The version of this page.
pub const VERSION: u8 = 1;
/// Bytes of the header: magic, type, version, length.
pub const HEADER_BYTES: usize = 8;
/// The fewest bytes that a client may say it takes as a record's body.
pub const RECV_MAX_MIN: u32 = 1_024;
/// The hardest puzzle that a client solves: about a second of one core.
pub const PUZZLE_BITS_MAX: u8 = 22;
/// The feature bits that this version defines.
pub const FEATURES: u32 = 0;

/// The types of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Type {
    /// From the client: keys of this attempt, who it expects, what it wants back.
    Hello = 1,
    /// From the server: who it is, its keys of this attempt, a puzzle.
    Challenge = 2,
    /// From the client: who it is, proved.
    Auth = 3,
    /// From the server: the session, proved.
    Accept = 4,
    /// From the server: the old session, proved by its secret.
    Resumed = 5,
    /// From the server, unproved: no.
    Alert = 0x7F,
}

impl Type {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Hello, Self::Challenge, Self::Auth, Self::Accept, Self::Resumed, Self::Alert];

    /// The bytes of a message of this type, header included.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Hello => Hello::SIZE,
            Self::Challenge => Challenge::SIZE,
            Self::Auth => Auth::SIZE,
            Self::Accept => Accept::SIZE,
            Self::Resumed => Resumed::SIZE,
            Self::Alert => Alert::SIZE,
        }
    }
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// So many more bytes are needed at least.
    More(usize),
    /// It is whole: its type, which says its size.
    Whole(Type),
}

/// Looks at the beginning of a stream where one of `expected` must come. Says what is wrong as
/// soon as it can be known, byte by byte: cheap enough to be asked at every receive.
///
/// # Errors
/// `BAD_MAGIC`, `BAD_STATE` (another type), `BAD_VERSION`, `BAD_LENGTH`: the sender's.
pub fn progress(bytes: &[u8], expected: &[Type]) -> Result<Progress, Code> {
    for (byte, magic) in bytes.iter().zip(&MAGIC) {
        if byte != magic {
            return Err(Code::BadMagic);
        }
    }
    let Some(number) = bytes.get(4) else {
        return Ok(Progress::More(HEADER_BYTES.saturating_sub(bytes.len())));
    };
    let found = expected.iter().copied().find(|kind| *kind as u8 == *number);
    let kind = found.ok_or(Code::BadState)?;
    if bytes.get(5).is_some_and(|version| *version != VERSION) {
        return Err(Code::BadVersion);
    }
    let size = kind.size();
    if bytes.len() >= HEADER_BYTES && usize::from(u16_at(bytes, 6)) != size {
        return Err(Code::BadLength);
    }
    match size.checked_sub(bytes.len()) {
        Some(missing) if missing > 0 && bytes.len() < HEADER_BYTES => {
            Ok(Progress::More(HEADER_BYTES.saturating_sub(bytes.len())))
        }
        Some(missing) if missing > 0 => Ok(Progress::More(missing)),
        Some(_) | None => Ok(Progress::Whole(kind)),
    }
}

/// The session's limits, as the server grants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// The largest payload of a frame that the client may send.
    pub max_payload: u32,
    /// How long the server waits for a record.
    pub idle_ms: u32,
    /// Messages a second that it takes.
    pub msgs_per_s: u32,
    /// Bytes a second that it takes.
    pub bytes_per_s: u32,
}

impl Granted {
    fn read(bytes: &[u8], at: usize) -> Self {
        let field = |nth: usize| u32_at(bytes, at.saturating_add(nth.saturating_mul(4)));
        Self {
            max_payload: field(0),
            idle_ms: field(1),
            msgs_per_s: field(2),
            bytes_per_s: field(3),
        }
    }

    fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        put(&mut bytes, 0, &self.max_payload.to_le_bytes());
        put(&mut bytes, 4, &self.idle_ms.to_le_bytes());
        put(&mut bytes, 8, &self.msgs_per_s.to_le_bytes());
        put(&mut bytes, 12, &self.bytes_per_s.to_le_bytes());
        bytes
    }
}

/// A message: its bytes, whose header holds.
macro_rules! message {
    ($name:ident, $size:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name {
            bytes: [u8; $size],
        }

        impl $name {
            /// Its bytes, header included.
            pub const SIZE: usize = $size;

            /// A message of this type that is all zeros behind its header.
            fn blank() -> Self {
                let mut bytes = [0; $size];
                put(&mut bytes, 0, &MAGIC);
                put(&mut bytes, 4, &[Type::$name as u8, VERSION]);
                put(&mut bytes, 6, &($size as u16).to_le_bytes());
                Self { bytes }
            }

            /// The message that `bytes` begin with.
            ///
            /// # Errors
            /// Those of [`progress`], `BAD_LENGTH` where bytes are missing, and what the fields of
            /// this type may not hold: the sender's.
            pub fn decode(bytes: &[u8]) -> Result<Self, Code> {
                match progress(bytes, &[Type::$name])? {
                    Progress::More(_) => Err(Code::BadLength),
                    Progress::Whole(_) => {
                        let message = Self { bytes: get(bytes, 0) };
                        message.check().map(|()| message)
                    }
                }
            }

            /// As it goes over the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.bytes
            }
        }
    };
}

message!(Hello, 128, "HELLO: the client's first message.");
message!(Challenge, 112, "CHALLENGE: the server's answer to a HELLO.");
message!(Auth, 144, "AUTH: the client's proof.");
message!(Accept, 112, "ACCEPT: the server's proof, and the session.");
message!(Resumed, 64, "RESUMED: the old session goes on.");
message!(Alert, 24, "ALERT: no. A hint, since anybody can write it.");

impl Hello {
    pub(crate) fn new(features: u32, e_c: &[u8; 32], n_c: &[u8; 16], hint: &[u8; 32]) -> Self {
        let mut hello = Self::blank();
        put(&mut hello.bytes, 8, &[VERSION]);
        put(&mut hello.bytes, 12, &features.to_le_bytes());
        put(&mut hello.bytes, 16, e_c);
        put(&mut hello.bytes, 48, n_c);
        put(&mut hello.bytes, 64, hint);
        hello
    }

    pub(crate) fn set_resume(&mut self, sid: &[u8; 16]) {
        put(&mut self.bytes, 96, sid);
    }

    pub(crate) fn set_proof(&mut self, proof: &[u8; 16]) {
        put(&mut self.bytes, 112, proof);
    }

    fn check(&self) -> Result<(), Code> {
        if !is_zero(&self.bytes, 9, 3) {
            return Err(Code::ReservedBits);
        }
        // The header's version is the highest that the client speaks, this one the lowest.
        if self.ver_min() == 0 || self.ver_min() > VERSION {
            return Err(Code::BadValue);
        }
        Ok(())
    }

    /// The lowest version that the client speaks.
    #[must_use]
    pub fn ver_min(&self) -> u8 {
        u8_at(&self.bytes, 8)
    }

    /// The features that it offers, unknown ones among them.
    #[must_use]
    pub fn features(&self) -> u32 {
        u32_at(&self.bytes, 12)
    }

    /// Its X25519 key of this attempt.
    #[must_use]
    pub fn e_c(&self) -> [u8; 32] {
        get(&self.bytes, 16)
    }

    /// Its nonce of this attempt.
    #[must_use]
    pub fn n_c(&self) -> [u8; 16] {
        get(&self.bytes, 48)
    }

    /// The server that it expects; zeros: any.
    #[must_use]
    pub fn hint(&self) -> [u8; 32] {
        get(&self.bytes, 64)
    }

    /// The session that it wants back; zeros: none.
    #[must_use]
    pub fn resume_sid(&self) -> [u8; 16] {
        get(&self.bytes, 96)
    }

    /// The proof that it has that session's secret.
    #[must_use]
    pub fn proof(&self) -> [u8; 16] {
        get(&self.bytes, 112)
    }
}

impl Challenge {
    pub(crate) fn new(
        features: u32,
        puzzle_bits: u8,
        e_s: &[u8; 32],
        n_s: &[u8; 16],
        server: &[u8; 32],
        time_ms: u64,
    ) -> Self {
        let mut challenge = Self::blank();
        put(&mut challenge.bytes, 8, &features.to_le_bytes());
        put(&mut challenge.bytes, 12, &[puzzle_bits, VERSION, VERSION]);
        put(&mut challenge.bytes, 16, e_s);
        put(&mut challenge.bytes, 48, n_s);
        put(&mut challenge.bytes, 64, server);
        put(&mut challenge.bytes, 96, &time_ms.to_le_bytes());
        challenge
    }

    fn check(&self) -> Result<(), Code> {
        if is_zero(&self.bytes, 15, 1) && is_zero(&self.bytes, 104, 8) {
            Ok(())
        } else {
            Err(Code::ReservedBits)
        }
    }

    /// The features that the server chose of those offered.
    #[must_use]
    pub fn features(&self) -> u32 {
        u32_at(&self.bytes, 8)
    }

    /// How many zero bits a solution begins with.
    #[must_use]
    pub fn puzzle_bits(&self) -> u8 {
        u8_at(&self.bytes, 12)
    }

    /// The lowest version that the server speaks.
    #[must_use]
    pub fn ver_min(&self) -> u8 {
        u8_at(&self.bytes, 13)
    }

    /// The highest version that the server speaks.
    #[must_use]
    pub fn ver_max(&self) -> u8 {
        u8_at(&self.bytes, 14)
    }

    /// The server's X25519 key.
    #[must_use]
    pub fn e_s(&self) -> [u8; 32] {
        get(&self.bytes, 16)
    }

    /// The server's nonce of this attempt.
    #[must_use]
    pub fn n_s(&self) -> [u8; 16] {
        get(&self.bytes, 48)
    }

    /// Who the server says it is.
    #[must_use]
    pub fn server_id(&self) -> [u8; 32] {
        get(&self.bytes, 64)
    }

    /// The server's clock, in milliseconds since 1970. Believed only once the server proved itself.
    pub(crate) fn time_ms(&self) -> u64 {
        u64_at(&self.bytes, 96)
    }
}

impl Auth {
    /// Where the part ends that `sig_c` covers.
    pub(crate) const SIGNED: usize = 64;
    /// Where the part ends that `mac_c` covers.
    pub(crate) const TAGGED: usize = 128;

    pub(crate) fn new(
        solution: u64,
        client: &[u8; 32],
        device: u32,
        recv_max: u32,
        epoch_ms: u64,
    ) -> Self {
        let mut auth = Self::blank();
        put(&mut auth.bytes, 8, &solution.to_le_bytes());
        put(&mut auth.bytes, 16, client);
        put(&mut auth.bytes, 48, &device.to_le_bytes());
        put(&mut auth.bytes, 52, &recv_max.to_le_bytes());
        put(&mut auth.bytes, 56, &epoch_ms.to_le_bytes());
        auth
    }

    pub(crate) fn set_sig_c(&mut self, signature: &[u8; 64]) {
        put(&mut self.bytes, 64, signature);
    }

    pub(crate) fn set_mac_c(&mut self, tag: &[u8; 16]) {
        put(&mut self.bytes, 128, tag);
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other messages'")]
    const fn check(&self) -> Result<(), Code> {
        // Nothing of it is reserved; what its fields hold is asked once it is proved whose it is.
        Ok(())
    }

    /// What solves the puzzle.
    #[must_use]
    pub fn solution(&self) -> u64 {
        u64_at(&self.bytes, 8)
    }

    /// Who the client says it is.
    #[must_use]
    pub fn client_id(&self) -> [u8; 32] {
        get(&self.bytes, 16)
    }

    /// Which of its devices.
    #[must_use]
    pub fn device(&self) -> u32 {
        u32_at(&self.bytes, 48)
    }

    /// The largest record body that it takes.
    #[must_use]
    pub fn recv_max(&self) -> u32 {
        u32_at(&self.bytes, 52)
    }

    /// When the program started, by its own clock; grows with each start.
    #[must_use]
    pub fn epoch_ms(&self) -> u64 {
        u64_at(&self.bytes, 56)
    }

    pub(crate) fn sig_c(&self) -> [u8; 64] {
        get(&self.bytes, 64)
    }

    pub(crate) fn mac_c(&self) -> [u8; 16] {
        get(&self.bytes, 128)
    }
}

impl Accept {
    /// Where the part ends that `sig_s` covers.
    pub(crate) const SIGNED: usize = 32;
    /// Where the part ends that `mac_s` covers.
    pub(crate) const TAGGED: usize = 96;

    pub(crate) fn new(handle: u64, granted: Granted) -> Self {
        let mut accept = Self::blank();
        put(&mut accept.bytes, 8, &handle.to_le_bytes());
        put(&mut accept.bytes, 16, &granted.to_bytes());
        accept
    }

    pub(crate) fn set_sig_s(&mut self, signature: &[u8; 64]) {
        put(&mut self.bytes, 32, signature);
    }

    pub(crate) fn set_mac_s(&mut self, tag: &[u8; 16]) {
        put(&mut self.bytes, 96, tag);
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other messages'")]
    const fn check(&self) -> Result<(), Code> {
        Ok(())
    }

    pub(crate) fn handle(&self) -> u64 {
        u64_at(&self.bytes, 8)
    }

    pub(crate) fn granted(&self) -> Granted {
        Granted::read(&self.bytes, 16)
    }

    pub(crate) fn sig_s(&self) -> [u8; 64] {
        get(&self.bytes, 32)
    }

    pub(crate) fn mac_s(&self) -> [u8; 16] {
        get(&self.bytes, 96)
    }
}

impl Resumed {
    /// Where the part ends that `mac_s` covers.
    pub(crate) const TAGGED: usize = 48;

    pub(crate) fn new(handle: u64, n_s: &[u8; 16], granted: Granted) -> Self {
        let mut resumed = Self::blank();
        put(&mut resumed.bytes, 8, &handle.to_le_bytes());
        put(&mut resumed.bytes, 16, n_s);
        put(&mut resumed.bytes, 32, &granted.to_bytes());
        resumed
    }

    pub(crate) fn set_mac_s(&mut self, tag: &[u8; 16]) {
        put(&mut self.bytes, 48, tag);
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other messages'")]
    const fn check(&self) -> Result<(), Code> {
        Ok(())
    }

    pub(crate) fn handle(&self) -> u64 {
        u64_at(&self.bytes, 8)
    }

    pub(crate) fn granted(&self) -> Granted {
        Granted::read(&self.bytes, 32)
    }

    pub(crate) fn mac_s(&self) -> [u8; 16] {
        get(&self.bytes, 48)
    }
}

impl Alert {
    /// The alert of a code. `retry_ms` 0: the client's own backoff.
    #[must_use]
    pub fn new(code: Code, retry_ms: u32) -> Self {
        let mut alert = Self::blank();
        put(&mut alert.bytes, 8, &code.wire().to_le_bytes());
        put(&mut alert.bytes, 10, &[VERSION, VERSION]);
        put(&mut alert.bytes, 12, &retry_ms.to_le_bytes());
        alert
    }

    fn check(&self) -> Result<(), Code> {
        if is_zero(&self.bytes, 16, 8) { Ok(()) } else { Err(Code::ReservedBits) }
    }

    /// Its number: a [`Code`]'s, or one that this version does not know.
    #[must_use]
    pub fn code(&self) -> u16 {
        u16_at(&self.bytes, 8)
    }

    /// The lowest and the highest version that the server speaks.
    #[must_use]
    pub fn versions(&self) -> (u8, u8) {
        (u8_at(&self.bytes, 10), u8_at(&self.bytes, 11))
    }

    /// When to come back; 0: not said.
    #[must_use]
    pub fn retry_ms(&self) -> u32 {
        u32_at(&self.bytes, 12)
    }
}
