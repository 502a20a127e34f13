extern crate std;
use std::vec;
use std::vec::Vec;

use super::super::testing::{Rng, pair};
use super::*;

fn identity() -> [u8; 32] {
    *pair::client_key().identity().as_bytes()
}

fn asked() -> Vec<ClientControl<'static>> {
    let (ask, name) = (300, "main");
    vec![
        ClientControl::Subscribe { ask, name, from: Start::Now, echo: true, presence: false },
        ClientControl::Unsubscribe { topic: 5 },
        ClientControl::Open { ask, name },
        ClientControl::Resolve { ask, identity: identity() },
        ClientControl::Identify { ask, handle: u64::MAX },
        ClientControl::Who { ask, topic: 5, after: 0 },
        ClientControl::Credit { peer: 1, corr: 2, bytes: u32::MAX },
    ]
}

const SEEN: [u8; 128] = {
    let mut seen = [0; 128];
    seen[0] = 1;
    seen
};

fn told() -> Vec<ServerControl<'static>> {
    let (ask, topic, handle) = (300, 5, 1 << 56);
    vec![
        ServerControl::Taken { mid: 7, seen: &SEEN, direct: 0 },
        ServerControl::Subscribed { ask, topic, epoch: u64::MAX, next: 9, oldest: 1 },
        ServerControl::Opened { ask, topic },
        ServerControl::Refused { ask, code: 0x51, retry_ms: 0 },
        ServerControl::Nack { mid: 7, code: 0x40, retry_ms: 1_000 },
        ServerControl::Verdict { mid: 7, offset: 8, readers: 9 },
        ServerControl::Gap { topic, from: 1, to: 2, reason: 3 },
        ServerControl::Identity { ask, handle, identity: identity(), device: 8 },
        ServerControl::Done { ask, next: 0 },
        ServerControl::Joined { topic, handle },
        ServerControl::Left { topic, handle },
        ServerControl::Credit { peer: 1, corr: 2, bytes: 3 },
    ]
}

#[test]
fn a_variants_number_is_its_place() {
    for (place, value) in asked().into_iter().enumerate() {
        let bytes = value.encode().expect("good");
        assert_eq!(usize::from(bytes.as_bytes()[0]), place);
        assert_eq!(ClientControl::decode(bytes.as_bytes()), Ok(value));
    }
    for (place, value) in told().into_iter().enumerate() {
        let bytes = value.encode().expect("good");
        assert_eq!(usize::from(bytes.as_bytes()[0]), place);
        assert_eq!(ServerControl::decode(bytes.as_bytes()), Ok(value));
    }
    for place in [7, 8, 127, 128, 255] {
        assert!(ClientControl::decode(&[place, 0, 0, 0, 0]).is_err());
    }
    for place in [12, 13, 127, 128, 255] {
        assert!(ServerControl::decode(&[place, 0, 0, 0, 0]).is_err());
    }
}

#[test]
fn the_bytes_are_the_pages() {
    let value = ClientControl::Subscribe {
        ask: 300,
        name: "ab",
        from: Start::Offset { epoch: 128, offset: 1 },
        echo: true,
        presence: false,
    };
    let bytes = value.encode().expect("good");
    assert_eq!(bytes.as_bytes(), [0, 0xAC, 2, 2, b'a', b'b', 1, 0x80, 1, 1, 1, 0]);
    let value = ClientControl::Subscribe {
        ask: 0,
        name: "a",
        from: Start::Last(5),
        echo: false,
        presence: true,
    };
    assert_eq!(value.encode().expect("good").as_bytes(), [0, 0, 1, b'a', 2, 5, 0, 1]);
    let bytes = told()[0].encode().expect("good");
    assert_eq!(bytes.as_bytes()[..5], [0, 7, 0x80, 1, 1]);
    assert_eq!(bytes.as_bytes().len(), 1 + 1 + 2 + 128 + 1);
    let bytes = ServerControl::Refused { ask: 1, code: 0x151, retry_ms: 2 }.encode();
    assert_eq!(bytes.expect("good").as_bytes(), [3, 1, 0xD1, 2, 2]);
    let resolve = asked()[3].encode().expect("good");
    assert_eq!(resolve.as_bytes()[3..], identity(), "raw, without a length");
}

#[test]
fn over_long_numbers_rests_and_odd_bools_are_refused() {
    // topic 5 in two bytes; a rest; a number that does not end; one over 32 bits.
    for bytes in [
        &[1, 0x85, 0][..],
        &[1, 5, 0],
        &[1, 0x85],
        &[1, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F],
        &[1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
        &[0x81, 0, 5],
        &[1],
    ] {
        assert_eq!(ClientControl::decode(bytes), Err(Code::BadValue), "{bytes:?}");
    }
    assert!(ClientControl::decode(&[1, 5]).is_ok());
    assert!(ClientControl::decode(&[1, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F]).is_ok());
    for odd in 2..=255 {
        assert!(ClientControl::decode(&[0, 0, 1, b'a', 0, odd, 0]).is_err());
        assert!(ClientControl::decode(&[0, 0, 1, b'a', 0, 0, odd]).is_err());
    }
    assert_eq!(ClientControl::decode(&[]), Err(Code::BadLength));
    assert_eq!(ClientControl::decode(&[0; 257]), Err(Code::BadLength));
    assert_eq!(ServerControl::decode(&[0; 257]), Err(Code::BadLength));
}

#[test]
fn each_prefix_and_each_rest_is_refused() {
    let values = asked().into_iter().map(|value| value.encode().expect("good"));
    for bytes in values {
        let bytes = bytes.as_bytes();
        for len in 0..bytes.len() {
            assert!(ClientControl::decode(&bytes[..len]).is_err());
        }
        for byte in 0..=255 {
            assert!(ClientControl::decode(&[bytes, &[byte]].concat()).is_err());
        }
    }
}

#[test]
fn names() {
    let longest = "x".repeat(64);
    let too_long = "x".repeat(65);
    let good = ["main", "a/b.c-d_e", "ünï", " ", "a$", longest.as_str()];
    let bad = ["", "$SYS", "$", "a*", "a>", "+", "#", "a\nb", "a\u{7f}", "\u{85}", &too_long];
    for name in good.into_iter().chain(bad) {
        let value = ClientControl::Open { ask: 0, name };
        assert_eq!(is_topic_name(name), good.contains(&name), "{name:?}");
        assert_eq!(value.encode().is_ok(), good.contains(&name), "{name:?}");
        let bytes = [&[2, 0, u8::try_from(name.len()).expect("short")], name.as_bytes()].concat();
        let want = if good.contains(&name) { Ok(value) } else { Err(Code::BadValue) };
        assert_eq!(ClientControl::decode(&bytes), want, "{name:?}");
        // One rule for both dialects.
        assert_eq!(crate::topic::Topic::named(name).is_ok(), is_topic_name(name), "{name:?}");
    }
    assert_eq!(ClientControl::decode(&[2, 0, 2, 0xC3, 0x28]), Err(Code::BadValue), "not UTF-8");
    assert!(ClientControl::decode(&[2, 0, 0xFF, 0xFF, 3]).is_err(), "longer than there is");
}

#[test]
fn fields_that_may_not_be_so() {
    let mut seen = [0; 128];
    assert!(ServerControl::Taken { mid: 0, seen: &seen, direct: 3 }.encode().is_ok());
    assert!(ServerControl::Taken { mid: 1, seen: &seen, direct: 3 }.encode().is_err());
    seen[127] = 0x80;
    assert!(ServerControl::Taken { mid: 0, seen: &seen, direct: 3 }.encode().is_err());
    assert!(ServerControl::Taken { mid: 7, seen: &SEEN[..127], direct: 3 }.encode().is_err());
    for len in [0_u8, 1, 127] {
        let bytes = [&[0, 7, len], &vec![1; usize::from(len)][..], &[0]].concat();
        assert_eq!(ServerControl::decode(&bytes), Err(Code::BadValue));
    }
    for reason in 0..=255 {
        let gap = ServerControl::Gap { topic: 1, from: 1, to: 2, reason };
        assert_eq!(gap.encode().is_ok(), reason < 4);
        assert_eq!(ServerControl::decode(&[6, 1, 1, 2, reason]).is_ok(), reason < 4);
    }
    assert!(ServerControl::decode(&[6, 1, 2, 2, 0]).is_err(), "a gap of nothing");
    for bad in crate::native::handshake::tests::bad_keys() {
        let value = ClientControl::Resolve { ask: 0, identity: bad };
        assert_eq!(value.encode().map(drop), Err(Code::BadValue));
        assert_eq!(ClientControl::decode(&[&[3, 0], &bad[..]].concat()), Err(Code::BadValue));
        let bytes = [&[7, 0, 1], &bad[..], &[0]].concat();
        let is_nobody = bad == [0; 32];
        assert_eq!(ServerControl::decode(&bytes).is_ok(), is_nobody, "{bad:x?}");
    }
    let nobody = ServerControl::Identity { ask: 0, handle: 1, identity: [0; 32], device: 0 };
    assert!(nobody.encode().is_ok(), "who speaks the line dialect");
}

#[test]
fn what_is_taken_from_noise_is_canonical() {
    let mut rng = Rng::seeded(5);
    let mut taken = 0;
    for _ in 0..400_000 {
        let mut bytes = [0; 24];
        rng.fill(&mut bytes);
        bytes[0] %= 14;
        let len = rng.below(24) as usize;
        for byte in &mut bytes[1..] {
            if rng.below(3) == 0 {
                *byte &= 0x83;
            }
        }
        let bytes = &bytes[..len];
        if let Ok(value) = ClientControl::decode(bytes) {
            assert_eq!(value.encode().expect("good").as_bytes(), bytes);
            taken += 1;
        }
        if let Ok(value) = ServerControl::decode(bytes) {
            assert_eq!(value.encode().expect("good").as_bytes(), bytes);
            taken += 1;
        }
    }
    assert!(taken > 1_000, "{taken}");
}

#[test]
fn each_bit_counts() {
    let values = asked().into_iter().map(|value| (value, value.encode().expect("good")));
    for (value, bytes) in values {
        for bit in 0..bytes.as_bytes().len() * 8 {
            let mut other = bytes.as_bytes().to_vec();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(ClientControl::decode(&other), Ok(value), "{bit}");
        }
    }
}
