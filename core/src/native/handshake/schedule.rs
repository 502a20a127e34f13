//! Which key follows from what. PROTOCOL.md 2.2.2.

use zeroize::Zeroizing;

use super::message::{Accept, Auth, Challenge, Hello, Resumed};
use crate::native::bytes::{put, until};
use crate::native::key::{Key, Tag, derive, hash};

/// L_c: what a client's signature begins with.
const CLIENT_AUTH: [u8; 32] = label(b"wardline v1 client auth");
/// L_s: what a server's signature begins with.
const SERVER_AUTH: [u8; 32] = label(b"wardline v1 server auth");
/// L_e: what an envelope's signature begins with.
pub(crate) const ENVELOPE: [u8; 32] = label(b"wardline v1 envelope");

/// F5, the words, zeros to 32 bytes: no two uses of a key sign the same bytes.
const fn label(words: &[u8]) -> [u8; 32] {
    let mut label = [0; 32];
    let Some(([first], mut rest)) = label.split_first_chunk_mut::<1>() else { return label };
    *first = 0xF5;
    let mut words = words;
    while let (Some((word, more_words)), Some((byte, more))) =
        (words.split_first(), rest.split_first_mut())
    {
        *byte = *word;
        words = more_words;
        rest = more;
    }
    label
}

/// A session's id: its handle and 8 bytes that nobody can guess.
pub type SessionId = [u8; 16];

/// The keys before anybody has proved who he is.
pub(crate) struct Early {
    k_cc: Zeroizing<Key>,
    k_cs: Zeroizing<Key>,
    ms: Zeroizing<Key>,
}

impl Early {
    /// As they lie in a slot.
    pub(crate) fn park(&self) -> [Key; 3] {
        [*self.k_cc, *self.k_cs, *self.ms]
    }

    /// Takes them out of one.
    pub(crate) fn unpark(keys: &mut [Key; 3]) -> Self {
        let [k_cc, k_cs, ms] = keys.map(Zeroizing::new);
        keys.iter_mut().for_each(Key::wipe);
        Self { k_cc, k_cs, ms }
    }
}

/// What a full handshake comes to.
pub(crate) struct Agreed {
    pub(crate) k_c2s: Key,
    pub(crate) k_s2c: Key,
    pub(crate) rms: Key,
    pub(crate) sid: SessionId,
}

/// Cuts keys of 32 bytes, in order.
fn keys<const N: usize>(output: &[u8]) -> [Key; N] {
    let mut rest = output;
    core::array::from_fn(|_| {
        let (key, more) = rest.split_first_chunk().unwrap_or((&[0; 32], &[]));
        rest = more;
        Key::new(*key)
    })
}

impl Early {
    /// `dh`: the shared secret of both ephemeral keys.
    pub(crate) fn new(dh: &[u8; 32], hello: &Hello, challenge: &Challenge) -> Self {
        let th1 = hash(&[hello.as_bytes(), challenge.as_bytes()]);
        let mut output = Zeroizing::new([0; 96]);
        derive("wardline 2026-11 v1 handshake", &[dh, &th1], output.as_mut_slice());
        let [k_cc, k_cs, ms] = keys(output.as_slice()).map(Zeroizing::new);
        Self { k_cc, k_cs, ms }
    }

    pub(crate) fn mac_c(&self, hello: &Hello, challenge: &Challenge, auth: &Auth) -> Tag {
        let parts = [
            hello.as_bytes().as_slice(),
            challenge.as_bytes(),
            until(auth.as_bytes(), Auth::TAGGED),
        ];
        self.k_cc.tag(&hash(&parts))
    }

    pub(crate) fn mac_s(
        &self,
        hello: &Hello,
        challenge: &Challenge,
        auth: &Auth,
        accept: &Accept,
    ) -> Tag {
        let accept = until(accept.as_bytes(), Accept::TAGGED);
        let parts = [hello.as_bytes().as_slice(), challenge.as_bytes(), auth.as_bytes(), accept];
        self.k_cs.tag(&hash(&parts))
    }

    /// All keys, once ACCEPT is complete.
    pub(crate) fn agreed(
        &self,
        hello: &Hello,
        challenge: &Challenge,
        auth: &Auth,
        accept: &Accept,
    ) -> Agreed {
        let parts: [&[u8]; 4] =
            [hello.as_bytes(), challenge.as_bytes(), auth.as_bytes(), accept.as_bytes()];
        let mut output = Zeroizing::new([0; 104]);
        let ikm: [&[u8]; 2] = [self.ms.as_bytes(), &hash(&parts)];
        derive("wardline 2026-11 v1 session", &ikm, output.as_mut_slice());
        let [k_c2s, k_s2c, rms] = keys(output.as_slice());
        let mut sid = [0; 16];
        put(&mut sid, 0, &accept.handle().to_le_bytes());
        put(&mut sid, 8, output.get(96..).unwrap_or_default());
        Agreed { k_c2s, k_s2c, rms, sid }
    }
}

/// What `sig_c` is over.
pub(crate) fn client_signs(hello: &Hello, challenge: &Challenge, auth: &Auth) -> [u8; 64] {
    let auth = until(auth.as_bytes(), Auth::SIGNED);
    labelled(&CLIENT_AUTH, &hash(&[hello.as_bytes(), challenge.as_bytes(), auth]))
}

/// What `sig_s` is over.
pub(crate) fn server_signs(
    hello: &Hello,
    challenge: &Challenge,
    auth: &Auth,
    accept: &Accept,
) -> [u8; 64] {
    let accept = until(accept.as_bytes(), Accept::SIGNED);
    let parts = [hello.as_bytes().as_slice(), challenge.as_bytes(), auth.as_bytes(), accept];
    labelled(&SERVER_AUTH, &hash(&parts))
}

fn labelled(label: &[u8; 32], hash: &[u8; 32]) -> [u8; 64] {
    let mut message = [0; 64];
    put(&mut message, 0, label);
    put(&mut message, 32, hash);
    message
}

/// The proof that a client has a session's secret.
pub(crate) fn resume_proof(rms: &Key, hello: &Hello) -> Tag {
    let mut key = Zeroizing::new([0; 32]);
    derive("wardline 2026-11 v1 resume proof", &[rms.as_bytes()], key.as_mut_slice());
    Zeroizing::new(Key::new(*key)).tag(until(hello.as_bytes(), 112))
}

/// What a resume comes to: `mac_s`, and the new keys.
pub(crate) fn resume(rms: &Key, hello: &Hello, resumed: &Resumed) -> (Tag, Key, Key) {
    let th_r = hash(&[hello.as_bytes(), until(resumed.as_bytes(), Resumed::TAGGED)]);
    let mut output = Zeroizing::new([0; 96]);
    derive("wardline 2026-11 v1 resume", &[rms.as_bytes(), &th_r], output.as_mut_slice());
    let [k_rs, k_c2s, k_s2c] = keys(output.as_slice());
    let k_rs = Zeroizing::new(k_rs);
    (k_rs.tag(&th_r), k_c2s, k_s2c)
}
