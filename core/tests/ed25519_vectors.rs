//! Published vectors through our own entry points: what is a key, what is a signature, what is a
//! shared secret. Others than those in `core/src/native/key_tests.rs`; the Python tests check the
//! same file, with another library and with the curve's own arithmetic.
//!
//! - `rfc_8032`: section 7.1, TEST 1024.
//! - `speccheck`: the twelve cases of "Taming the many EdDSAs" (Chalkias, Garillot, Nikolaenko,
//!   2020), as published. Strictly, and without the cofactor, one of them is good.
//! - `small_orders`: the eight points whose order divides 8, in their canonical encodings.
//! - `x25519`, `x25519_iterated`: RFC 7748, 5.2.
//! - `x25519_zero`: each u whose shared secret is zero, the top bit clear and set.
//! - `x25519_only_unmasked`: values that would be such if the top bit counted, which it does not.

use serde_json::Value;
use wardline_core::native::{Ephemeral, Identity, KeyFault, PublicKey, SigningKey};

fn vectors() -> Value {
    serde_json::from_str(include_str!("data/keys.json")).expect("JSON")
}

fn list<'a>(all: &'a Value, name: &str, len: usize) -> &'a [Value] {
    let list = all[name].as_array().expect("a list");
    assert_eq!(list.len(), len, "{name}");
    list
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("a text");
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("so many bytes")
}

fn agree(secret: [u8; 32], public: &[u8; 32]) -> Option<[u8; 32]> {
    Ephemeral::from_entropy(secret).agree(public).map(|shared| *shared)
}

#[test]
fn a_long_message() {
    for one in list(&vectors(), "rfc_8032", 1) {
        let (message, signature) = (bytes(&one["message"]), array(&one["signature"]));
        assert_eq!(message.len(), 1_023);
        let key = SigningKey::from_seed(&array(&one["seed"]));
        assert_eq!(key.identity().as_bytes(), &array(&one["key"]));
        assert_eq!(key.sign(&message), signature);
        assert!(key.public().verify(&message, &signature));
        for byte in 0..message.len() {
            let mut wrong = message.clone();
            wrong[byte] ^= 0x10;
            assert!(!key.public().verify(&wrong, &signature), "{byte}");
        }
    }
}

#[test]
fn taming_the_many_eddsas() {
    for (nth, one) in list(&vectors(), "speccheck", 12).iter().enumerate() {
        let key = PublicKey::new(&array(&one["key"]));
        // Those with an A of small order are no keys, so that nothing is ever verified with them.
        let no_key = matches!(nth, 0 | 1 | 10 | 11);
        assert_eq!(key.err(), no_key.then_some(KeyFault::SmallOrder), "{nth}");
        let message = bytes(&one["message"]);
        let good = key.is_ok_and(|key| key.verify(&message, &array(&one["signature"])));
        assert_eq!(Some(good), one["good"].as_bool(), "{nth}: {}", one["why"]);
        assert_eq!(good, nth == 3, "{nth}");
    }
}

#[test]
fn points_of_small_order_are_nobody() {
    let all = vectors();
    for one in list(&all, "small_orders", 8) {
        assert_eq!(Identity::new(&array(one)), Err(KeyFault::SmallOrder), "{one}");
    }
    // Two of them have x = 0: with the other sign they are the same point once more.
    for (first, last) in [(0x01, 0x80), (0xEC, 0xFF)] {
        let mut key = [if first == 0x01 { 0 } else { 0xFF }; 32];
        (key[0], key[31]) = (first, last);
        assert!(Identity::new(&key).is_err(), "{first:x}");
    }
    // No signature is a small R's, whatever S is, for a key that is good.
    let key = SigningKey::from_seed(&[7; 32]).public();
    for one in list(&all, "small_orders", 8) {
        for s in [0_u8, 1, 2, 8] {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&array::<32>(one));
            signature[32] = s;
            assert!(!key.verify(b"", &signature), "{one} {s}");
        }
    }
}

#[test]
fn a_y_over_p_is_no_key_and_no_r() {
    let good = SigningKey::from_seed(&[7; 32]);
    let signature = good.sign(b"text");
    for low in 0xED..=0xFF_u8 {
        for top in [0x7F, 0xFF] {
            let mut text = [0xFF; 32];
            (text[0], text[31]) = (low, top);
            assert_eq!(Identity::new(&text), Err(KeyFault::NotCanonical), "{low:x} {top:x}");
            let mut wrong = signature;
            wrong[..32].copy_from_slice(&text);
            assert!(!good.public().verify(b"text", &wrong), "{low:x} {top:x}");
        }
    }
}

#[test]
fn x25519() {
    let all = vectors();
    for one in list(&all, "x25519", 1) {
        let shared = agree(array(&one["secret"]), &array(&one["public"]));
        assert_eq!(shared, Some(array(&one["shared"])));
    }
    let (mut k, mut u) = ([0; 32], [0; 32]);
    (k[0], u[0]) = (9, 9);
    for count in 1..=1_000 {
        let next = agree(k, &u).expect("contributory");
        (k, u) = (next, k);
        let want = &all["x25519_iterated"][&count.to_string()];
        if !want.is_null() {
            assert_eq!(k, array(want), "{count}");
        }
    }
    assert_eq!(k, array(&all["x25519_iterated"]["1000"]));
}

#[test]
fn a_secret_that_is_zero_is_none() {
    let all = vectors();
    for secret in [[0; 32], [1; 32], [0x55; 32], [0xFF; 32]] {
        for one in list(&all, "x25519_zero", 14) {
            assert_eq!(agree(secret, &array(one)), None, "{one}");
        }
        for one in list(&all, "x25519_only_unmasked", 5) {
            let mut masked: [u8; 32] = array(one);
            let shared = agree(secret, &masked);
            assert!(shared.is_some(), "{one}");
            masked[31] &= 0x7F;
            assert_eq!(agree(secret, &masked), shared, "{one}");
        }
    }
}
