//! What the relay tells beside messages: verdicts, who comes and goes, who reads.

use wardline_client::{Class, Payload, Reading, Verdict};

use super::*;

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn verdicts_say_where_it_stands_and_for_how_many() {
    run(async {
        let relay = Relay::start();
        let (alice, bob, carol) =
            (relay.client(11).await, relay.client(12).await, relay.client(13).await);
        let nobody = alice.publish_verdict("chat", "zero").await.unwrap();
        assert_eq!(nobody, Some(Verdict { offset: 0, readers: 0 }));
        let mut reads = bob.subscribe("chat", From::Now, false).await.unwrap();
        let _also = carol.subscribe("chat", From::Now, false).await.unwrap();
        let said = alice.publish_verdict("chat", "one").await.unwrap();
        assert_eq!(said, Some(Verdict { offset: 1, readers: 2 }));
        let message = message(&mut reads).await;
        assert_eq!((message.offset, &message.payload[..]), (1, &b"one"[..]));
        // A verdict is a settled message, too: nothing is left to be waited for.
        alice.close().await.unwrap();
        let error = bob.publish_verdict("a*", "x").await.unwrap_err();
        assert!(matches!(error, Error::TopicName));
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn who_comes_and_goes_is_told_to_who_wants_it() {
    run(async {
        let relay = Relay::start();
        let (alice, bob) = (relay.client(11).await, relay.client(12).await);
        let reading = Reading::new(From::Now).presence();
        let mut chat = bob.subscribe_with("chat", reading).await.unwrap();
        let mut plain = alice.subscribe("chat", From::Now, false).await.unwrap();
        let handle = alice.handle();
        assert_eq!(event(&mut chat).await, Event::Joined(handle));
        let peer = bob.identify(handle).await.unwrap().unwrap();
        assert_eq!(peer.identity, Some(alice.identity()));
        // Who reads is asked by the number that reading it gave.
        assert_eq!(bob.who("chat").await.unwrap().len(), 2);
        bob.publish_taken("chat", "hello").await.unwrap();
        assert_eq!(text(&mut plain).await, "hello");
        plain.unsubscribe().await;
        assert_eq!(event(&mut chat).await, Event::Left(handle));
        let _again = alice.subscribe("chat", From::Now, false).await.unwrap();
        assert_eq!(event(&mut chat).await, Event::Joined(handle));
        alice.close().await.unwrap();
        assert_eq!(event(&mut chat).await, Event::Left(handle));
    });
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn a_payload_says_how_it_is_carried() {
    run(async {
        let relay = Relay::start();
        let (alice, bob) = (relay.client(11).await, relay.client(12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        for class in [Class::Urgent, Class::Normal, Class::Bulk] {
            let payload = Payload::new("x").class(class).ttl(Duration::from_secs(5)).sealed();
            alice.publish_taken("chat", payload).await.unwrap();
            let message = message(&mut chat).await;
            assert!(message.flags & 4 != 0 && message.signed.is_none(), "{message:?}");
        }
        let mut directs = bob.directs().await.unwrap();
        let payload = Payload::new("y").ttl(Duration::from_secs(5));
        alice.direct_taken(bob.handle(), payload).await.unwrap();
        assert_eq!(directs.recv().await.unwrap().payload, b"y");
        let mut requests = bob.requests().await.unwrap();
        let ttl = Duration::from_secs(3);
        let asks = alice.request(bob.handle(), Payload::new("z").ttl(ttl), Duration::from_secs(9));
        let answers = async {
            let request = requests.recv().await.unwrap();
            // What is left of it as it goes out.
            let patience = request.patience().unwrap();
            assert!(patience > ttl / 2 && patience <= ttl, "{patience:?}");
            request.reply("!").await.unwrap();
        };
        let (reply, ()) = both(asks, answers).await;
        assert_eq!(reply.unwrap().payload, b"!");
    });
}
