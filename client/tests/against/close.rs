//! Ends, both ways.

use wardline_client::{Code, Ended, Error, From, Report};

use super::server::Server;
use super::*;

#[test]
fn a_close_that_covers_everything_is_a_success() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        for nth in 0..500 {
            alice.publish("chat", nth.to_string()).await.unwrap();
        }
        let other = alice.clone();
        alice.close().await.unwrap();
        assert_eq!(server.log("chat").len(), 500);
        assert!(matches!(other.publish("chat", "x").await, Err(Error::Ended(Ended::Closed))));
        assert!(matches!(other.ping().await, Err(Error::Ended(Ended::Closed))));
        assert_eq!(other.ended(), Some(Ended::Closed));
        other.close().await.unwrap();
    });
}

#[test]
fn a_close_without_an_answer_is_none() {
    run(async {
        let server = Server::start(1);
        server.world().knobs.no_close = true;
        let alice = client(&server, 11).await;
        alice.publish_taken("chat", "x").await.unwrap();
        let error = alice.close().await.unwrap_err();
        assert_eq!((error.unsure, error.unsent), (0, 0));
        // Nothing under way, and no connection: what was not known is known.
        let alice = client(&server, 11).await;
        alice.publish("chat", "y").await.unwrap();
        alice.ping().await.unwrap();
        server.world().knobs.alert = Some((Code::Overloaded, 0));
        server.cut();
        until(|| !alice.is_connected()).await;
        for _ in 0..3 {
            alice.publish("chat", "z").await.unwrap();
        }
        let error = alice.close().await.unwrap_err();
        assert_eq!((error.unsure, error.unsent), (0, 3), "{error}");
    });
}

#[test]
fn who_leaves_is_not_held_up_by_what_is_not_read() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        let builder = builder(&server.url(), 12).events_max(2);
        let bob = builder.connect().await.unwrap();
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        for nth in 0..100 {
            alice.publish("chat", nth.to_string()).await.unwrap();
        }
        alice.ping().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let began = std::time::Instant::now();
        bob.publish("chat", "last").await.unwrap();
        bob.close().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(8));
        assert_eq!(server.log("chat").len(), 101);
        assert_eq!((text(&mut chat).await, text(&mut chat).await), ("0".into(), "1".into()));
        assert_eq!(chat.recv().await, None);
    });
}

#[test]
fn what_came_before_the_end_is_read_before_it() {
    run(async {
        let server = Server::start(1);
        let builder = builder(&server.url(), 12).events_max(2);
        let bob = builder.connect().await.unwrap();
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let texts: Vec<String> = (0..10).map(|nth: u32| nth.to_string()).collect();
        let batch: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        server.world().lines_say("chat", &batch);
        server.close(Code::Superseded, 0);
        tokio::time::sleep(Duration::from_millis(50)).await;
        for text in texts {
            assert_eq!(super::text(&mut chat).await, text);
        }
        assert_eq!(chat.recv().await, None);
        assert!(matches!(bob.ended(), Some(Ended::Close(_))));
    });
}

#[test]
fn who_drops_everything_still_says_goodbye() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        let chat = alice.subscribe("chat", From::Now, false).await.unwrap();
        alice.publish("chat", "x").await.unwrap();
        drop(alice);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.world().conns.len(), 1, "a subscription keeps it alive");
        drop(chat);
        until(|| server.world().conns.is_empty()).await;
        assert_eq!(server.log("chat"), ["x"]);
    });
}

#[test]
fn codes_decide_who_comes_back() {
    run(async {
        for (code, comes_back) in [
            (Code::Normal, false),
            (Code::Superseded, false),
            (Code::BadValue, false),
            (Code::Refused, false),
            (Code::GoingAway, true),
            (Code::SlowReader, true),
            (Code::Internal, true),
        ] {
            let server = Server::start(1);
            let alice = client(&server, 11).await;
            let mut reports = alice.reports();
            let mut chat = alice.subscribe("chat", From::Now, true).await.unwrap();
            alice.publish_taken("chat", "one").await.unwrap();
            assert_eq!(text(&mut chat).await, "one");
            server.close(code, 0);
            if comes_back {
                let again = event(&mut chat).await;
                let resumed = code == Code::SlowReader;
                let wanted = if resumed { Event::Resumed } else { Event::Reconnected };
                assert_eq!(again, wanted, "{code:?}");
                alice.publish_taken("chat", "two").await.unwrap();
                assert_eq!(text(&mut chat).await, "two");
            } else {
                assert_eq!(chat.recv().await, None, "{code:?}");
                let Some(Ended::Close(refusal)) = alice.ended() else { panic!("{code:?}") };
                assert_eq!(refusal.code(), Some(code));
                let error = alice.publish_taken("chat", "two").await.unwrap_err();
                assert_eq!(error.code(), Some(code), "{error}");
                let mut last = None;
                while let Some((report, _)) = reports.recv().await {
                    last = Some(report);
                }
                assert!(matches!(last, Some(Report::Ended(Ended::Close(_)))));
                assert!(alice.close().await.is_err());
            }
        }
    });
}
