extern crate std;
use std::vec::Vec;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::Identity as _;

use super::super::testing::{Rng, hex};
use super::*;

/// RFC 8032, 7.1: seed, public key, message, signature.
const RFC_8032: [(&str, &str, &str, &str); 4] = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
];

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|at| hex::<1>(&text[2 * at..2 * at + 2])[0]).collect()
}

#[test]
fn rfc_8032() {
    for (seed, public, message, signature) in RFC_8032 {
        let key = SigningKey::from_seed(&hex(seed));
        assert_eq!(*key.identity().as_bytes(), hex(public));
        assert_eq!(key.sign(&bytes(message)), hex(signature));
        let public = PublicKey::new(&hex(public)).expect("a key");
        assert!(public.verify(&bytes(message), &hex(signature)));
        for bit in 0..512 {
            let mut wrong: [u8; 64] = hex(signature);
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!public.verify(&bytes(message), &wrong), "{bit}");
        }
        assert!(!public.verify(&[bytes(message), [0].to_vec()].concat(), &hex(signature)));
    }
}

/// RFC 7748, 5.2 and 6.1.
#[test]
fn rfc_7748() {
    let end = |secret| Ephemeral::from_entropy(hex(secret));
    let alice = end("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = end("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let alices = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bobs = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    assert_eq!((alice.public(), bob.public()), (alices, bobs));
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(*alice.agree(&bobs).expect("contributory"), shared);
    assert_eq!(*bob.agree(&alices).expect("contributory"), shared);
    let scalar = hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    let u = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    let shared = Ephemeral::from_entropy(scalar).agree(&u).expect("contributory");
    assert_eq!(*shared, hex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"));
}

/// The group's order, little-endian.
const ORDER: &str = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";

fn challenge(r: &[u8; 32], a: &[u8; 32], message: &[u8]) -> Scalar {
    use sha2::{Digest, Sha512};
    let hash = Sha512::new().chain_update(r).chain_update(a).chain_update(message).finalize();
    Scalar::from_bytes_mod_order_wide(&hash.into())
}

fn joined(r: [u8; 32], s: [u8; 32]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(&s);
    signature
}

fn torsion() -> [EdwardsPoint; 8] {
    curve25519_dalek::constants::EIGHT_TORSION
}

/// The cases of "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko, 2020), made here: points
/// of small and of mixed order in A and R, S out of range, encodings that are not canonical.
#[test]
fn signatures_that_others_disagree_about() {
    let base = curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
    let secret = Scalar::from_bytes_mod_order([7; 32]);
    let honest = secret * base;
    let (nonce, message) = (Scalar::from_bytes_mod_order([5; 32]), b"taming");
    let sign = |r: EdwardsPoint, a: EdwardsPoint| {
        let (r, a) = (r.compress().to_bytes(), a.compress().to_bytes());
        (a, joined(r, (nonce + challenge(&r, &a, message) * secret).to_bytes()))
    };
    // As it should be, and with S + L, which others take for the same.
    let (a, good) = sign(nonce * base, honest);
    let key = PublicKey::new(&a).expect("a key");
    assert!(key.verify(message, &good));
    let mut carry = 0_u16;
    let mut high = good;
    for (byte, add) in high[32..].iter_mut().zip(hex::<32>(ORDER)) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry as u8;
        carry >>= 8;
    }
    assert!(!key.verify(message, &high), "S is out of range");
    high[63] |= 0xE0;
    assert!(!key.verify(message, &high), "S is far out of range");
    for small in torsion() {
        let is_zero = small == EdwardsPoint::identity();
        // A of small order: no key at all. S = 0, R = identity would verify otherwise.
        assert_eq!(PublicKey::new(&small.compress().to_bytes()), Err(KeyFault::SmallOrder));
        // R of small order, S such that the cofactored equation holds.
        let (r, a) = (small.compress().to_bytes(), honest.compress().to_bytes());
        let s = (challenge(&r, &a, message) * secret).to_bytes();
        assert!(!key.verify(message, &joined(r, s)), "R of small order");
        // R of mixed order: only the cofactored equation holds.
        let (_, mixed) = sign(nonce * base + small, honest);
        assert_eq!(key.verify(message, &mixed), is_zero, "R of mixed order");
        // A of mixed order: it is a key, and one identity, but what it signs counts only where
        // the equation holds without the cofactor.
        let (a, mixed) = sign(nonce * base, honest + small);
        let k = challenge(&good[..32].try_into().expect("32"), &a, message);
        let key = PublicKey::new(&a).expect("not of small order");
        let holds = (small * k) == EdwardsPoint::identity();
        assert_eq!(key.verify(message, &mixed), holds, "A of mixed order");
    }
    // R = identity, written so that y is p + 1: not canonical.
    let mut r = [0xFF; 32];
    (r[0], r[31]) = (0xEE, 0x7F);
    let s = (challenge(&r, &a, message) * secret).to_bytes();
    assert!(!key.verify(message, &joined(r, s)), "R is not canonical");
}

#[test]
fn a_key_has_one_encoding() {
    let mut rng = Rng::seeded(8);
    let mut points = 0;
    for _ in 0..2_000 {
        let mut text = [0; 32];
        rng.fill(&mut text);
        if rng.below(4) == 0 {
            // Near p, and over it.
            text[1..31].fill(0xFF);
            text[31] |= 0x7F;
            text[0] |= 0xE0;
        }
        let point = CompressedEdwardsY(text).decompress();
        let want = match &point {
            Some(point) if point.compress().to_bytes() != text => None,
            Some(point) if point.is_small_order() => None,
            Some(_) => Some(text),
            None => None,
        };
        assert_eq!(Identity::new(&text).ok().map(|key| *key.as_bytes()), want, "{text:x?}");
        points += usize::from(want.is_some());
    }
    assert!(points > 500, "{points}");
    assert_eq!(Identity::new(&[0; 32]), Err(KeyFault::SmallOrder), "a slot's zeros are nobody");
}

#[test]
fn tags_and_wiping() {
    let key = Key::new([1; 32]);
    let tag = key.tag(b"text");
    let bytes = tag.to_bytes();
    assert_eq!(bytes, blake3::keyed_hash(&[1; 32], b"text").as_bytes()[..16]);
    assert!(tag.matches(&bytes));
    for bit in 0..128 {
        let mut wrong = bytes;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert!(!tag.matches(&wrong));
    }
    let mut wiped = key;
    wiped.wipe();
    assert!(wiped.is_none() && !key.is_none());
    assert_eq!(*wiped.as_bytes(), [0; 32]);
}

/// BLAKE3's own test vectors for an input of one byte, 0 (CC0): hash, keyed hash, derived key.
#[test]
fn blake3_is_blake3() {
    let hash_of_zero = "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213";
    assert_eq!(hash(&[&[0]]), hex(hash_of_zero));
    assert_eq!(hash(&[&[], &[0], &[]]), hex(hash_of_zero));
    let empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    assert_eq!(hash(&[]), hex(empty));
    let mut out = [0; 40];
    derive("a context", &[b"ab", b"c"], &mut out);
    assert_eq!(out[..32], blake3::derive_key("a context", b"abc"));
}
