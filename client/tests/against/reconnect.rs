//! Cuts, resumes, relays that forget.

use wardline_client::{Code, ConnectError, Error, From, LostWhy, Policy, Report};

use super::server::{Cut, Server, Stored};
use super::*;

#[test]
fn what_was_taken_before_a_cut_is_not_sent_again_and_what_was_not_is() {
    run(async {
        for (cut, taken) in [(Cut::After(3), 3), (Cut::Before(3), 2)] {
            let server = Server::start(1);
            let alice = client(&server, 11).await;
            let mut reports = alice.reports();
            server.world().knobs.cuts.push(cut);
            for text in ["one", "two", "three"] {
                alice.publish_taken("chat", text).await.unwrap();
            }
            assert_eq!(server.log("chat"), ["one", "two", "three"], "{cut:?}");
            let again = u64::from(taken == 2);
            assert_eq!(server.world().came, 3 + again, "{cut:?}");
            assert_eq!(server.sessions(), (1, 1));
            assert!(matches!(reports.recv().await, Some((Report::Cut, 0))));
            assert!(matches!(reports.recv().await, Some((Report::Resumed, 0))));
        }
    });
}

#[test]
fn with_many_cuts_each_message_is_taken_once_and_in_order() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        // Two cuts: the second comes back after a second.
        server.world().knobs.cuts.extend([Cut::Before(400), Cut::After(1_500)]);
        for nth in 0..2_000 {
            alice.publish("chat", nth.to_string()).await.unwrap();
        }
        alice.close().await.unwrap();
        let wanted: Vec<String> = (0..2_000).map(|nth: u32| nth.to_string()).collect();
        assert_eq!(server.log("chat"), wanted);
        for text in wanted {
            assert_eq!(super::text(&mut chat).await, text);
        }
        assert_eq!(server.world().resumes, 2);
    });
}

#[test]
fn a_topic_is_read_on_where_it_was_left() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let mut idle = bob.subscribe("idle", From::Now, false).await.unwrap();
        alice.publish_taken("chat", "one").await.unwrap();
        assert_eq!(text(&mut chat).await, "one");
        let old = bob.handle();
        bob.publish_taken("chat", "own").await.unwrap();
        // Only Bob is cut, and stays away while Alice goes on.
        {
            let mut world = server.world();
            world.knobs.alert = Some((Code::Overloaded, 0));
            let conn = world.conns.remove(&old).unwrap();
            conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        alice.publish_taken("chat", "two").await.unwrap();
        alice.publish_taken("idle", "first").await.unwrap();
        server.world().knobs.alert = None;
        alice.publish_taken("chat", "three").await.unwrap();
        assert_eq!(event(&mut chat).await, Event::Resumed);
        assert_eq!(text(&mut chat).await, "two");
        assert_eq!(text(&mut chat).await, "three");
        assert_eq!(event(&mut idle).await, Event::Resumed);
        assert_eq!(text(&mut idle).await, "first");
        assert_ne!(bob.handle(), old);
    });
}

#[test]
fn what_is_no_longer_retained_is_a_gap() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let handle = bob.handle();
        alice.publish_taken("chat", "one").await.unwrap();
        assert_eq!(text(&mut chat).await, "one");
        {
            let mut world = server.world();
            let conn = world.conns.remove(&handle).unwrap();
            let log = &mut world.topics[0].log;
            for payload in [b"2", b"3", b"4"] {
                let payload = payload.to_vec();
                log.push(Stored { author: 7, mid: 1, flags: 0, ttl_ms: 0, payload });
            }
            world.topics[0].oldest = 3;
            conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
        }
        assert_eq!(event(&mut chat).await, Event::Resumed);
        let reason = wardline_client::GapReason::Retention;
        assert_eq!(event(&mut chat).await, Event::Gap { from: 1, to: 3, reason });
        assert_eq!(text(&mut chat).await, "4");
    });
}

#[test]
fn a_relay_that_forgot_leaves_it_unsure_and_says_so() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut reports = alice.reports();
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        bob.publish_taken("chat", "zero").await.unwrap();
        alice.publish_taken("chat", "one").await.unwrap();
        assert_eq!(text(&mut chat).await, "one");
        let (handle, was) = (bob.handle(), chat.epoch());
        // It takes the message, and is started anew before it can say so.
        server.world().knobs.cuts.push(Cut::After(3));
        server.world().knobs.alert = Some((Code::Overloaded, 0));
        let publisher = alice.clone();
        let taken = tokio::spawn(async move { publisher.publish_taken("chat", "two").await });
        until(|| server.world().came == 3).await;
        assert_eq!(text(&mut chat).await, "two");
        server.forget();
        server.world().knobs.alert = None;
        alice.publish("chat", "three").await.unwrap();
        let taken = taken.await.unwrap();
        assert!(matches!(taken, Err(Error::Unsure)), "{taken:?}");
        alice.publish_taken("chat", "four").await.unwrap();
        assert_eq!(server.log("chat"), ["three", "four"], "the unsure one was not sent again");
        while !matches!(reports.recv().await, Some((Report::Reconnected, 0))) {}
        assert_eq!(event(&mut chat).await, Event::Reconnected);
        let Event::Lost(LostWhy::Epoch { was: before, is, next }) = event(&mut chat).await else {
            panic!("nothing is said to be lost")
        };
        assert_eq!((before, next), (was, 3));
        assert_ne!(is, was);
        assert_eq!(text(&mut chat).await, "three");
        assert_eq!(text(&mut chat).await, "four");
        assert_ne!(bob.handle(), handle);
    });
}

#[test]
fn a_verdict_that_is_lost_is_none_and_the_message_is_taken() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        let said = alice.publish_verdict("chat", "one").await.unwrap();
        assert_eq!(said, Some(wardline_client::Verdict { offset: 0, readers: 0 }));
        server.world().knobs.cuts = vec![Cut::After(2)];
        assert_eq!(alice.publish_verdict("chat", "two").await.unwrap(), None);
        server.world().knobs.nacks.insert(b"three".to_vec(), (Code::Busy, 0));
        let error = alice.publish_verdict("chat", "three").await.unwrap_err();
        assert_eq!(error.code(), Some(Code::Busy));
        assert_eq!(server.log("chat"), ["one", "two"]);
    });
}

#[test]
fn what_was_meddled_with_is_a_cut() {
    run(async {
        // Type, flags, reserved, length twice, number, tag, body.
        for at in [0, 1, 2, 4, 7, 8, 20, 35] {
            let server = Server::start(1);
            let alice = client(&server, 11).await;
            alice.open("chat").await.unwrap();
            server.world().knobs.spoil = Some(at);
            alice.publish_taken("chat", "one").await.unwrap();
            assert_eq!(server.log("chat"), ["one"]);
            assert_eq!(server.sessions(), (1, 1), "byte {at}");
        }
    });
}

#[test]
fn a_topic_that_may_no_longer_be_read_ends_with_a_word() {
    run(async {
        let server = Server::start(1);
        let bob = client(&server, 12).await;
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        server.world().knobs.forbidden.push("chat".to_owned());
        server.cut();
        let Event::Lost(LostWhy::Refused(refusal)) = event(&mut chat).await else {
            panic!("not refused")
        };
        assert_eq!(refusal.code(), Some(Code::Forbidden));
        assert_eq!(chat.recv().await, None);
        assert_eq!(bob.ended(), None);
    });
}

#[test]
fn a_topic_for_which_there_is_no_room_is_asked_for_again() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        alice.publish_taken("chat", "one").await.unwrap();
        assert_eq!(text(&mut chat).await, "one");
        server.world().knobs.busy = 1;
        let handle = bob.handle();
        let conn = server.world().conns.remove(&handle).unwrap();
        conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
        // What is published there does not wait for it.
        bob.publish_taken("chat", "own").await.unwrap();
        assert_eq!(server.world().knobs.busy, 0);
        assert!(server.world().conns.values().all(|conn| conn.reads.is_empty()));
        alice.publish_taken("chat", "two").await.unwrap();
        assert_eq!(event(&mut chat).await, Event::Resumed);
        assert_eq!(text(&mut chat).await, "two");
        // The first time, it is told.
        server.world().knobs.busy = 1;
        let error = bob.subscribe("other", From::Now, false).await.map(drop).unwrap_err();
        assert_eq!(error.code(), Some(Code::Overloaded));
        bob.subscribe("other", From::Now, false).await.unwrap();
    });
}

#[test]
fn a_device_of_ones_own_never_goes_back() {
    run(async {
        let server = Server::start(1);
        let url = server.url();
        let start = |last| builder(&url, 11).device(5).epoch_ms(last).connect();
        let last = start(0).await.unwrap().epoch_ms();
        // The clock was set back by a minute since the last start; and then by ten days.
        let minute = last + 60_000;
        for ahead in [minute, minute + 864_000_000] {
            let client = start(ahead).await.unwrap();
            assert_eq!(client.epoch_ms(), ahead + 1);
            assert!(server.world().sessions.iter().any(|each| each.epoch_ms == ahead + 1));
            // Nothing is said of the start before, and it was in this process.
            assert_eq!(start(0).await.unwrap().epoch_ms(), ahead + 2);
        }
        // Who would hear what it signs would not believe it.
        let signs = |builder: Builder| builder.envelopes(Policy::OPEN.sign());
        let refused = signs(builder(&url, 11).device(5)).connect().await;
        assert!(matches!(refused, Err(ConnectError::EpochAhead)), "{refused:?}");
        // Nobody else of this process goes ahead with it: no other device, and no other identity.
        for (seed, device) in [(11, 6), (12, 5)] {
            let other = signs(builder(&url, seed).device(device)).connect().await.unwrap();
            assert!(other.epoch_ms() < minute);
        }
        // Of a device that is drawn nobody remembers anything.
        let drawn = signs(builder(&url, 11)).connect().await.unwrap();
        assert!(drawn.epoch_ms() < minute);
    });
}
