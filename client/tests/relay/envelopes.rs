//! Envelopes over the relay: what was changed, said before, or is for somebody else is kept back,
//! and told; and what is good comes with who signed it.
//!
//! The relay takes an envelope only from who is named in it. So whoever would say alice's again
//! is here another device of hers, which makes its envelopes itself.

use std::time::SystemTime;

use wardline_client::{EnvelopeFault, Payload, Peer, Reports};
use wardline_core::native::envelope::{Audience, Letter, make};
use wardline_core::native::{FrameHeader, FrameKind, flags};

use super::*;

const TEN: Duration = Duration::from_secs(10);

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

/// An envelope of alice's and its payload, made by hand: its epoch, its number, when it is signed.
fn letter(kind: FrameKind, audience: Audience<'_>, numbers: (u64, u64), issued_ms: u64) -> Payload {
    let (epoch_ms, counter) = numbers;
    let frame = FrameHeader { flags: flags::ENVELOPE, ..FrameHeader::new(kind) };
    let letter = Letter { audience, device: 3, epoch_ms, counter, issued_ms, piece: 0 };
    let envelope = make(&key(11), &frame, &letter, b"text");
    Payload::new([envelope.as_slice(), b"text"].concat()).in_envelope()
}

async fn fault(subscription: &mut Subscription) -> EnvelopeFault {
    match event(subscription).await {
        Event::Untrusted { fault, .. } => fault,
        other => panic!("{other:?}"),
    }
}

/// What is shown of so many events of before, and what is kept back.
async fn history(
    subscription: &mut Subscription,
    events: u32,
) -> (Vec<String>, Vec<EnvelopeFault>) {
    let (mut shown, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..events {
        match event(subscription).await {
            Event::Message(message) => {
                assert!(message.history && message.signed.is_some(), "{message:?}");
                shown.push(String::from_utf8(message.payload).unwrap());
            }
            Event::Untrusted { fault, .. } => kept.push(fault),
            other => panic!("{other:?}"),
        }
    }
    (shown, kept)
}

/// The next report of something kept back.
async fn kept_back(reports: &mut Reports) -> EnvelopeFault {
    loop {
        if let Report::Untrusted { fault, .. } = reports.recv().await.unwrap().0 {
            return fault;
        }
    }
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn all_kinds_say_who_signed() {
    run(async {
        let relay = Relay::start();
        let policy = Policy::OPEN.sign().demand();
        let (alice, bob) = (relay.trusting(11, policy).await, relay.trusting(12, policy).await);
        let who = (alice.identity(), alice.device());
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let largest = vec![7; alice.max_payload()];
        for payload in [b"hello".to_vec(), Vec::new(), largest.clone()] {
            alice.publish_taken("chat", payload.clone()).await.unwrap();
            let message = message(&mut chat).await;
            let signed = message.signed.expect("signed");
            assert_eq!((signed.sender, signed.device), who);
            assert!(message.payload == payload && !message.history && message.has_envelope());
        }
        let more = alice.publish("chat", vec![7; largest.len() + 1]).await;
        assert!(matches!(more, Err(Error::TooLarge { max, .. }) if max == largest.len()));
        // To one: by what the program knows of the peer, and by a handle alone.
        let mut directs = bob.directs().await.unwrap();
        let peer = alice.resolve(bob.identity()).await.unwrap()[0];
        alice.direct_taken(peer, "known").await.unwrap();
        alice.direct_taken(peer.handle, "asked for").await.unwrap();
        for text in ["known", "asked for"] {
            let direct = directs.recv().await.unwrap();
            assert_eq!(direct.payload, text.as_bytes());
            assert_eq!(direct.signed.map(|signed| (signed.sender, signed.device)), Some(who));
        }
        let mut requests = bob.requests().await.unwrap();
        let answering = async {
            let request = requests.recv().await.unwrap();
            assert_eq!(request.signed().map(|signed| signed.sender), Some(who.0));
            request.reply("whole").await.unwrap();
            let mut pieces = requests.recv().await.unwrap().stream();
            for nth in 0..20_u8 {
                pieces.send(vec![nth; 30_000]).await.unwrap();
            }
            pieces.end().await.unwrap();
        };
        let asking = async {
            let reply = alice.request(peer, "one", TEN).await.unwrap();
            assert_eq!(reply.signed.map(|signed| signed.sender), Some(bob.identity()));
            assert_eq!(reply.payload, b"whole");
            let reply = alice.request(peer.handle, "many", TEN).await.unwrap();
            let wanted: Vec<u8> = (0..20_u8).flat_map(|nth| vec![nth; 30_000]).collect();
            assert!(reply.payload == wanted);
            assert_eq!(reply.signed.map(|signed| signed.sender), Some(bob.identity()));
        };
        both(answering, asking).await;
        assert_eq!((alice.untrusted(), bob.untrusted()), (0, 0));
        alice.close().await.unwrap();
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn what_was_changed_or_said_before_is_kept_back_over_cuts_and_starts() {
    use EnvelopeFault::{Audience, BeforeFloor, Missing, Replayed, Signature};
    run(async {
        let relay = Relay::start();
        let wire = Wire::to(relay.native);
        let alice = relay.trusting(11, Policy::OPEN.sign()).await;
        let demands = Policy::OPEN.demand();
        let bob = connect(wire.addr, 12, demands).await;
        let spy = relay.trusting(13, Policy::OFF).await;
        let other = relay.trusting(11, Policy::OFF).await;
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let mut main = bob.subscribe("main", From::Now, false).await.unwrap();
        let mut raw = spy.subscribe("chat", From::Now, false).await.unwrap();
        alice.publish_taken("chat", "pay 5").await.unwrap();
        assert_eq!(message(&mut chat).await.payload, b"pay 5");
        let seen = message(&mut raw).await;
        assert!(seen.has_envelope() && seen.signed.is_none() && seen.payload.ends_with(b"pay 5"));
        let again = Payload::new(seen.payload.clone()).in_envelope();
        // With a number that is new: that it came before is seen before the signature is looked at.
        let mut changed = seen.payload.clone();
        changed[81] ^= 1;
        *changed.last_mut().unwrap() = b'9';
        let changed = Payload::new(changed).in_envelope();
        // Nobody but alice can bring it to the relay at all.
        let refused = spy.publish_taken("chat", again.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::Forbidden));
        for (topic, payload, wanted) in [
            ("chat", again.clone(), Replayed),
            ("chat", changed, Signature),
            ("main", again.clone(), Audience),
            ("chat", "pay 9".into(), Missing),
        ] {
            other.publish_taken(topic, payload).await.unwrap();
            let reads = if topic == "chat" { &mut chat } else { &mut main };
            assert_eq!(fault(reads).await, wanted);
        }
        TcpStream::connect(relay.line).unwrap().write_all(b"a line\n").unwrap();
        assert_eq!(fault(&mut main).await, Missing);
        // Over a cut it is remembered; and what was said meanwhile is new.
        wire.cut();
        other.publish_taken("chat", again.clone()).await.unwrap();
        alice.publish_taken("chat", "pay 6").await.unwrap();
        let mut said = Vec::new();
        while said.len() < 2 {
            match event(&mut chat).await {
                Event::Resumed => {}
                other => said.push(other),
            }
        }
        assert!(matches!(said[0], Event::Untrusted { fault: Replayed, .. }), "{said:?}");
        assert!(matches!(&said[1], Event::Message(new) if new.payload == b"pay 6" && !new.history));
        assert_eq!(bob.untrusted(), 6);
        bob.close().await.unwrap();
        // Started anew it remembers nothing, and takes nothing that was signed before.
        let bob = connect(wire.addr, 12, demands).await;
        let mut chat = bob.subscribe("chat", From::Last(100), false).await.unwrap();
        let (shown, kept) = history(&mut chat, 6).await;
        // History shows what was said twice, twice: it is shown, not acted upon.
        assert_eq!(shown, ["pay 5", "pay 5", "pay 5", "pay 6"]);
        assert_eq!(kept, [Signature, Missing]);
        other.publish_taken("chat", again).await.unwrap();
        assert_eq!(fault(&mut chat).await, BeforeFloor);
        alice.publish_taken("chat", "pay 7").await.unwrap();
        assert_eq!(message(&mut chat).await.payload, b"pay 7");
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn clocks_numbers_and_devices() {
    use EnvelopeFault::{Audience as For, Clock, Replayed, Stale};
    run(async {
        let relay = Relay::start();
        let (other, bob) = (relay.trusting(11, Policy::OFF).await, relay.client(12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let now = now_ms();
        // Its number, when it was signed, and what is wrong.
        for (counter, at_ms, wrong) in [
            (2_000, now, None),
            (2_000, now, Some(Replayed)),
            (1_999, now, None),
            (976, now, Some(Stale)),
            (2_001, now - 301_000, Some(Clock)),
            (2_001, now + 310_000, Some(Clock)),
            (2_001, now + 290_000, None),
        ] {
            let payload =
                letter(FrameKind::Publish, Audience::Topic("chat"), (now, counter), at_ms);
            other.publish_taken("chat", payload).await.unwrap();
            match (event(&mut chat).await, wrong) {
                (Event::Message(message), None) => assert_eq!(message.payload, b"text"),
                (Event::Untrusted { fault, .. }, Some(wrong)) => assert_eq!(fault, wrong),
                (came, wrong) => panic!("{came:?}, wanted {wrong:?}: {counter}"),
            }
        }
        let mut directs = bob.directs().await.unwrap();
        let mut reports = bob.reports();
        let somebody = key(13).identity();
        for (audience, good) in [
            (Audience::Peer(somebody, bob.device()), false),
            (Audience::Peer(bob.identity(), bob.device() ^ 1), false),
            (Audience::Topic("chat"), false),
            (Audience::Peer(bob.identity(), bob.device()), true),
        ] {
            let payload = letter(FrameKind::Direct, audience, (now, 1), now_ms());
            other.direct_taken(bob.handle(), payload).await.unwrap();
            if good {
                assert_eq!(directs.recv().await.unwrap().payload, b"text");
            } else {
                assert_eq!(kept_back(&mut reports).await, For);
            }
        }
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn who_demands_is_asked_and_answered_with_signatures_alone() {
    use EnvelopeFault::{Audience, Missing, Sender};
    run(async {
        let relay = Relay::start();
        let (alice, bob) = (
            relay.trusting(11, Policy::OPEN.demand()).await,
            relay.trusting(12, Policy::OPEN.demand()).await,
        );
        let mut reports = bob.reports();
        let short = Duration::from_secs(2);
        let mut requests = bob.requests().await.unwrap();
        let _directs = bob.directs().await.unwrap();
        // Neither signs: bob keeps back what alice says.
        assert!(matches!(alice.request(bob.handle(), "x", short).await, Err(Error::Deadline)));
        assert_eq!(kept_back(&mut reports).await, Missing);
        alice.direct_taken(bob.handle(), "x").await.unwrap();
        assert_eq!(kept_back(&mut reports).await, Missing);
        // Alice signs, bob does not: his answer is nothing to her.
        let signing = relay.trusting(11, Policy::OPEN.sign().demand()).await;
        let (asked, ()) = both(signing.request(bob.handle(), "x", TEN), async {
            requests.recv().await.unwrap().reply("y").await.unwrap();
        })
        .await;
        assert!(matches!(asked, Err(Error::Untrusted(Missing))), "{asked:?}");
        assert_eq!(signing.untrusted(), 1);
        // A relay that says another's handle is bob's: what is signed for bob is nothing to her.
        let carol = relay.trusting(13, Policy::OPEN.sign()).await;
        let mut hers = carol.requests().await.unwrap();
        let mut her_reports = carol.reports();
        let lie = Peer { handle: carol.handle(), identity: Some(bob.identity()), device: 0 };
        assert!(matches!(signing.request(lie, "x", short).await, Err(Error::Deadline)));
        assert_eq!(kept_back(&mut her_reports).await, Audience);
        // And where the question is not signed, her answer is not taken for bob's.
        let (asked, ()) = both(alice.request(lie, "x", TEN), async {
            hers.recv().await.unwrap().reply("y").await.unwrap();
        })
        .await;
        assert!(matches!(asked, Err(Error::Untrusted(Sender))), "{asked:?}");
    });
}
