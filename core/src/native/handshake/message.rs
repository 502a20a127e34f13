//! The six messages of the handshake: exact layouts, strict decoding. PROTOCOL.md 2.2.1.

use crate::native::bytes::{get, is_zero, put, u16_at};
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

/// A field of a layout: a number, little-endian, or so many bytes.
trait Field: Sized {
    fn read(bytes: &[u8], at: usize) -> Self;
    fn write(&self, bytes: &mut [u8], at: usize);
}

macro_rules! number {
    ($($name:ident)*) => {$(
        impl Field for $name {
            fn read(bytes: &[u8], at: usize) -> Self {
                Self::from_le_bytes(get(bytes, at))
            }

            fn write(&self, bytes: &mut [u8], at: usize) {
                put(bytes, at, &self.to_le_bytes());
            }
        }
    )*};
}

number!(u8 u16 u32 u64);

impl<const N: usize> Field for [u8; N] {
    fn read(bytes: &[u8], at: usize) -> Self {
        get(bytes, at)
    }

    fn write(&self, bytes: &mut [u8], at: usize) {
        put(bytes, at, self);
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

/// 16 bytes: its numbers in their order.
impl Field for Granted {
    fn read(bytes: &[u8], at: usize) -> Self {
        let field = |nth: usize| u32::read(bytes, at.saturating_add(nth.saturating_mul(4)));
        Self {
            max_payload: field(0),
            idle_ms: field(1),
            msgs_per_s: field(2),
            bytes_per_s: field(3),
        }
    }

    fn write(&self, bytes: &mut [u8], at: usize) {
        let fields = [self.max_payload, self.idle_ms, self.msgs_per_s, self.bytes_per_s];
        for (nth, field) in fields.iter().enumerate() {
            field.write(bytes, at.saturating_add(nth.saturating_mul(4)));
        }
    }
}

/// A message: its bytes, whose header holds, and its fields by their places, each with what reads
/// it and what writes it.
macro_rules! message {
    (
        $(#[$doc:meta])*
        $name:ident, $size:literal:
        $($(#[$field_doc:meta])* $at:literal $seen:vis $field:ident, $set:ident: $type:ty;)*
    ) => {
        $(#[$doc])*
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

            $(
                $(#[$field_doc])*
                #[must_use]
                $seen fn $field(&self) -> $type {
                    Field::read(&self.bytes, $at)
                }

                pub(crate) fn $set(&mut self, value: &$type) {
                    value.write(&mut self.bytes, $at);
                }
            )*
        }
    };
}

message! {
    /// HELLO: the client's first message.
    Hello, 128:
    /// The lowest version that the client speaks.
    8 pub ver_min, set_ver_min: u8;
    /// The features that it offers, unknown ones among them.
    12 pub features, set_features: u32;
    /// Its X25519 key of this attempt.
    16 pub e_c, set_e_c: [u8; 32];
    /// Its nonce of this attempt.
    48 pub n_c, set_n_c: [u8; 16];
    /// The server that it expects; zeros: any.
    64 pub hint, set_hint: [u8; 32];
    /// The session that it wants back; zeros: none.
    96 pub resume_sid, set_resume_sid: [u8; 16];
    /// The proof that it has that session's secret.
    112 pub proof, set_proof: [u8; 16];
}

impl Hello {
    pub(crate) fn new(features: u32, e_c: &[u8; 32], n_c: &[u8; 16], hint: &[u8; 32]) -> Self {
        let mut hello = Self::blank();
        hello.set_ver_min(&VERSION);
        hello.set_features(&features);
        hello.set_e_c(e_c);
        hello.set_n_c(n_c);
        hello.set_hint(hint);
        hello
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
}

message! {
    /// CHALLENGE: the server's answer to a HELLO.
    Challenge, 112:
    /// The features that the server chose of those offered.
    8 pub features, set_features: u32;
    /// How many zero bits a solution begins with.
    12 pub puzzle_bits, set_puzzle_bits: u8;
    /// The lowest version that the server speaks.
    13 pub ver_min, set_ver_min: u8;
    /// The highest version that the server speaks.
    14 pub ver_max, set_ver_max: u8;
    /// The server's X25519 key.
    16 pub e_s, set_e_s: [u8; 32];
    /// The server's nonce of this attempt.
    48 pub n_s, set_n_s: [u8; 16];
    /// Who the server says it is.
    64 pub server_id, set_server_id: [u8; 32];
    /// The server's clock, in milliseconds since 1970. Believed only once the server proved itself.
    96 pub(crate) time_ms, set_time_ms: u64;
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
        challenge.set_features(&features);
        challenge.set_puzzle_bits(&puzzle_bits);
        challenge.set_ver_min(&VERSION);
        challenge.set_ver_max(&VERSION);
        challenge.set_e_s(e_s);
        challenge.set_n_s(n_s);
        challenge.set_server_id(server);
        challenge.set_time_ms(&time_ms);
        challenge
    }

    fn check(&self) -> Result<(), Code> {
        if is_zero(&self.bytes, 15, 1) && is_zero(&self.bytes, 104, 8) {
            Ok(())
        } else {
            Err(Code::ReservedBits)
        }
    }
}

message! {
    /// AUTH: the client's proof.
    Auth, 144:
    /// What solves the puzzle.
    8 pub solution, set_solution: u64;
    /// Who the client says it is.
    16 pub client_id, set_client_id: [u8; 32];
    /// Which of its devices.
    48 pub device, set_device: u32;
    /// The largest record body that it takes.
    52 pub recv_max, set_recv_max: u32;
    /// When the program started, by its own clock; grows with each start.
    56 pub epoch_ms, set_epoch_ms: u64;
    64 pub(crate) sig_c, set_sig_c: [u8; 64];
    128 pub(crate) mac_c, set_mac_c: [u8; 16];
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
        auth.set_solution(&solution);
        auth.set_client_id(client);
        auth.set_device(&device);
        auth.set_recv_max(&recv_max);
        auth.set_epoch_ms(&epoch_ms);
        auth
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other messages'")]
    const fn check(&self) -> Result<(), Code> {
        // Nothing of it is reserved; what its fields hold is asked once it is proved whose it is.
        Ok(())
    }
}

message! {
    /// ACCEPT: the server's proof, and the session.
    Accept, 112:
    8 pub(crate) handle, set_handle: u64;
    16 pub(crate) granted, set_granted: Granted;
    32 pub(crate) sig_s, set_sig_s: [u8; 64];
    96 pub(crate) mac_s, set_mac_s: [u8; 16];
}

impl Accept {
    /// Where the part ends that `sig_s` covers.
    pub(crate) const SIGNED: usize = 32;
    /// Where the part ends that `mac_s` covers.
    pub(crate) const TAGGED: usize = 96;

    pub(crate) fn new(handle: u64, granted: Granted) -> Self {
        let mut accept = Self::blank();
        accept.set_handle(&handle);
        accept.set_granted(&granted);
        accept
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other messages'")]
    const fn check(&self) -> Result<(), Code> {
        Ok(())
    }
}

message! {
    /// RESUMED: the old session goes on.
    Resumed, 64:
    8 pub(crate) handle, set_handle: u64;
    /// The server's nonce of this attempt.
    16 pub n_s, set_n_s: [u8; 16];
    32 pub(crate) granted, set_granted: Granted;
    48 pub(crate) mac_s, set_mac_s: [u8; 16];
}

impl Resumed {
    /// Where the part ends that `mac_s` covers.
    pub(crate) const TAGGED: usize = 48;

    pub(crate) fn new(handle: u64, n_s: &[u8; 16], granted: Granted) -> Self {
        let mut resumed = Self::blank();
        resumed.set_handle(&handle);
        resumed.set_n_s(n_s);
        resumed.set_granted(&granted);
        resumed
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as the other messages'")]
    const fn check(&self) -> Result<(), Code> {
        Ok(())
    }
}

message! {
    /// ALERT: no. A hint, since anybody can write it.
    Alert, 24:
    /// Its number: a [`Code`]'s, or one that this version does not know.
    8 pub code, set_code: u16;
    /// The lowest and the highest version that the server speaks.
    10 pub versions, set_versions: [u8; 2];
    /// When to come back; 0: not said.
    12 pub retry_ms, set_retry_ms: u32;
}

impl Alert {
    /// The alert of a code. `retry_ms` 0: the client's own backoff.
    #[must_use]
    pub fn new(code: Code, retry_ms: u32) -> Self {
        let mut alert = Self::blank();
        alert.set_code(&code.wire());
        alert.set_versions(&[VERSION, VERSION]);
        alert.set_retry_ms(&retry_ms);
        alert
    }

    fn check(&self) -> Result<(), Code> {
        if is_zero(&self.bytes, 16, 8) { Ok(()) } else { Err(Code::ReservedBits) }
    }
}
