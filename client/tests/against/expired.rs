//! What waits for longer than it is worth.

use wardline_client::{Error, From, Payload, Policy, Report};

use super::server::{Cut, Server};
use super::*;

const MOMENT: Duration = Duration::from_millis(50);

fn lasting(text: &str, ttl: Duration) -> Payload {
    Payload::new(text).ttl(ttl)
}

#[test]
fn what_waits_longer_than_its_time_is_given_up_and_told() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        alice.publish_taken("chat", lasting("first", MOMENT)).await.unwrap();
        let mut reports = alice.reports();
        away(&server, &alice);
        until(|| !alice.is_connected()).await;
        alice.publish("chat", "kept").await.unwrap();
        alice.publish("chat", lasting("unwaited", MOMENT)).await.unwrap();
        alice.publish("chat", lasting("in time", Duration::from_secs(60))).await.unwrap();
        // It is told when its time is over, and not once there is a connection.
        let late = alice.publish_taken("chat", lasting("late", MOMENT)).await;
        assert!(matches!(late, Err(Error::Expired)), "{late:?}");
        loop {
            match reports.recv().await.unwrap().0 {
                Report::Expired { topic, .. } => {
                    assert_eq!(topic.as_deref(), Some("chat"));
                    break;
                }
                Report::Cut | Report::NotReached(..) => {}
                other => panic!("{other:?}"),
            }
        }
        let asked = alice.request(77, lasting("?", MOMENT), Duration::from_secs(20)).await;
        assert!(matches!(asked, Err(Error::Expired)), "{asked:?}");
        assert!(!alice.is_connected());
        back(&server);
        alice.publish_taken("chat", "last").await.unwrap();
        assert_eq!(server.log("chat"), ["first", "kept", "in time", "last"]);
        alice.close().await.unwrap();
    });
}

#[test]
fn what_the_relay_did_not_take_goes_out_again_only_in_time() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        alice.publish_taken("chat", "first").await.unwrap();
        server.world().knobs.cuts.push(Cut::Before(2));
        server.world().knobs.alert = Some((Code::Overloaded, 0));
        let sending = tokio::spawn({
            let alice = alice.clone();
            async move { alice.publish_taken("chat", lasting("late", MOMENT)).await }
        });
        until(|| !alice.is_connected()).await;
        tokio::time::sleep(MOMENT * 2).await;
        back(&server);
        let late = sending.await.unwrap();
        assert!(matches!(late, Err(Error::Expired)), "{late:?}");
        alice.publish_taken("chat", "last").await.unwrap();
        assert_eq!(server.log("chat"), ["first", "last"]);
    });
}

/// A request whose asker has given up is not made: nobody would hear what it comes to.
#[test]
fn a_request_that_nobody_waits_for_is_not_sent() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut requests = bob.requests().await.unwrap();
        let to = bob.handle();
        let minute = Duration::from_secs(60);
        // It never went out; its own time is not over.
        away(&server, &alice);
        until(|| !alice.is_connected()).await;
        let asked = alice.request(to, lasting("one", minute), MOMENT).await;
        assert!(matches!(asked, Err(Error::Deadline)), "{asked:?}");
        // It went out, and was not taken.
        back(&server);
        until(|| alice.is_connected()).await;
        alice.ping().await.unwrap();
        let next = server.world().came + 1;
        server.world().knobs.cuts.push(Cut::Before(next));
        server.world().knobs.alert = Some((Code::Overloaded, 0));
        let asked = alice.request(to, lasting("two", minute), MOMENT * 4).await;
        assert!(matches!(asked, Err(Error::Deadline)), "{asked:?}");
        assert_eq!(server.world().came, next);
        back(&server);
        let asking = tokio::spawn({
            let alice = alice.clone();
            async move { alice.request(to, "three", Duration::from_secs(20)).await }
        });
        let request = requests.recv().await.unwrap();
        assert_eq!(request.payload(), b"three");
        assert!(request.patience().unwrap() <= Duration::from_secs(20));
        request.reply("!").await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap().payload, b"!");
        assert_eq!(server.world().came, next + 2);
    });
}

#[test]
fn what_is_signed_and_comes_too_late_is_kept_back() {
    run(async {
        let server = Server::start(1);
        let signs = |seed| builder(&server.url(), seed).envelopes(Policy::OPEN.sign()).connect();
        let (alice, bob) = (signs(11).await.unwrap(), client(&server, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        away(&server, &bob);
        until(|| !bob.is_connected()).await;
        alice.publish_taken("chat", lasting("late", MOMENT)).await.unwrap();
        alice.publish_taken("chat", lasting("in time", Duration::from_secs(60))).await.unwrap();
        tokio::time::sleep(MOMENT * 2).await;
        back(&server);
        assert_eq!(event(&mut chat).await, Event::Resumed);
        let sender = alice.handle();
        assert_eq!(event(&mut chat).await, Event::Expired { offset: 0, sender });
        assert_eq!(text(&mut chat).await, "in time");
    });
}
