//! Keys: who somebody is, what proves it, and what must be wiped. PROTOCOL.md 2.2.4.
//!
//! Secrets that live for a function or a handshake step are wiped when they are dropped. A
//! [`Key`] lies in slots, which do not drop: whoever frees the slot calls [`Key::wipe`].

use bytemuck::Zeroable;
use ed25519_dalek::{Signature, Signer};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Why 32 bytes are not somebody's public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFault {
    /// Its y is not below 2^255 - 19: another way to write some other key.
    NotCanonical,
    /// No point of the curve has this y.
    NotAPoint,
    /// A point of small order: everybody can sign for it.
    SmallOrder,
}

impl KeyFault {
    /// What is wrong, in a sentence.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::NotCanonical => "the key's y is not below 2^255 - 19",
            Self::NotAPoint => "the key is not a point of the curve",
            Self::SmallOrder => "the key is of small order: everybody can sign for it",
        }
    }
}

/// Who somebody is: the 32 bytes of an Ed25519 public key, each identity with one encoding. Made
/// only by way of [`PublicKey`]. All zeros, a slot's beginning, is nobody: it is no valid key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Zeroable)]
#[repr(transparent)]
pub struct Identity([u8; 32]);

impl Identity {
    /// The identity of those bytes.
    ///
    /// # Errors
    /// They are no key that somebody alone can sign with.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, KeyFault> {
        PublicKey::new(bytes).map(|key| key.identity())
    }

    /// Its bytes, as on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl core::fmt::Debug for Identity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// An identity with its point at hand, to verify with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// The key of those bytes: canonical, a point, and not of small order.
    ///
    /// # Errors
    /// Which of these it is not.
    pub fn new(bytes: &[u8; 32]) -> Result<Self, KeyFault> {
        if !is_canonical(bytes) {
            return Err(KeyFault::NotCanonical);
        }
        let key =
            ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyFault::NotAPoint)?;
        if key.is_weak() { Err(KeyFault::SmallOrder) } else { Ok(Self(key)) }
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity(*self.0.as_bytes())
    }

    /// Whether `signature` is this key's over `message`, by the strict rules: a canonical R that is
    /// not of small order, an S below the group's order, no cofactor.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(signature)).is_ok()
    }
}

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.identity().fmt(f)
    }
}

/// Whether the y of an encoded point, little-endian and without the sign bit, is below 2^255 - 19.
fn is_canonical(bytes: &[u8; 32]) -> bool {
    let (first, rest) = (bytes[0], &bytes[1..31]);
    first < 0xED || bytes[31] & 0x7F != 0x7F || rest.iter().any(|byte| *byte != 0xFF)
}

/// What signs: an Ed25519 key. Wiped when dropped; it does nothing else than sign.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// The key of a 32-byte seed (RFC 8032's private key).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.public().identity()
    }

    /// Signs. Always the same signature for the same message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl core::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningKey({:?})", self.identity())
    }
}

/// An X25519 secret: one connection attempt's, or a relay's for at most a second. Wiped when
/// dropped.
pub struct Ephemeral(x25519_dalek::StaticSecret);

impl Ephemeral {
    /// The secret of 32 bytes of entropy.
    #[must_use]
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(x25519_dalek::StaticSecret::from(entropy))
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        x25519_dalek::PublicKey::from(&self.0).to_bytes()
    }

    /// The secret shared with the owner of `other`. None: not contributory, whatever ours is.
    #[must_use]
    pub fn agree(&self, other: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = self.0.diffie_hellman(&x25519_dalek::PublicKey::from(*other));
        shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))
    }

    /// The secret's bytes, to be kept in a slot while a handshake waits.
    pub(crate) fn to_key(&self) -> Key {
        Key(self.0.to_bytes())
    }
}

impl core::fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Ephemeral(..)")
    }
}

/// A symmetric key of 32 bytes. Copied into slots, so it is not wiped by itself: [`Key::wipe`].
/// All zeros is no key.
#[derive(Clone, Copy, Zeroable)]
#[repr(transparent)]
pub struct Key([u8; 32]);

impl Key {
    pub(crate) const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The tag of `message`: BLAKE3's keyed hash, the first 16 bytes.
    pub(crate) fn tag(&self, message: &[u8]) -> Tag {
        Tag(super::bytes::get(blake3::keyed_hash(&self.0, message).as_bytes(), 0))
    }

    /// Makes zeros of it, in a way that the compiler does not leave out.
    pub fn wipe(&mut self) {
        self.0.zeroize();
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        bool::from(self.0.ct_eq(&[0; 32]))
    }
}

impl Zeroize for Key {
    fn zeroize(&mut self) {
        self.wipe();
    }
}

impl core::fmt::Debug for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A tag that was computed here. Compared with what came in constant time, and in no other way.
#[derive(Clone, Copy, Debug)]
pub struct Tag([u8; 16]);

impl Tag {
    /// Whether these are its bytes, in constant time.
    #[must_use]
    pub fn matches(&self, bytes: &[u8; 16]) -> bool {
        // Two words, their differences joined, and one comparison: byte by byte it is 16 of them.
        let [own, other] = [&self.0, bytes].map(|tag| u128::from_le_bytes(*tag));
        let differs = own ^ other;
        let joined = (differs as u64) | ((differs >> 64) as u64);
        bool::from(joined.ct_eq(&0))
    }

    /// To be sent.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

/// H: BLAKE3 of all parts, one after the other.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// DK: BLAKE3's key derivation, as much output as `out` takes.
pub(crate) fn derive(context: &str, parts: &[&[u8]], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize_xof().fill(out);
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;
