//! Publishing and reading while nothing goes wrong.

use std::time::Duration;

use wardline_client::{Client, Code, Error, From, UrlError};

use super::server::{Cut, Server};
use super::*;

#[test]
fn what_is_published_is_read() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        assert_eq!((alice.server(), alice.identity()), (server.identity(), key(11).identity()));
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        assert_eq!((chat.topic(), chat.next_offset(), chat.oldest_offset()), ("chat", 0, 0));
        alice.publish("chat", "one").await.unwrap();
        alice.publish_taken("chat", "two").await.unwrap();
        bob.publish_taken("chat", "my own").await.unwrap();
        alice.publish("chat", Vec::new()).await.unwrap();
        let one = message(&mut chat).await;
        assert_eq!((one.offset, one.sender, one.is_line()), (0, alice.handle(), false));
        assert_eq!((&*one.topic, &one.payload[..]), ("chat", &b"one"[..]));
        assert_eq!(text(&mut chat).await, "two");
        // Its own is left out, and its number with it.
        let empty = message(&mut chat).await;
        assert_eq!((empty.offset, empty.payload.len()), (3, 0));
        server.world().line_says("chat", b"a line");
        let line = message(&mut chat).await;
        assert!(line.is_line() && line.mid == 0);
        // With echo, and from before.
        let mut echo = alice.subscribe("chat", From::Last(2), true).await.unwrap();
        assert_eq!(message(&mut echo).await.offset, 3);
        assert!(message(&mut echo).await.is_line());
        alice.publish("chat", "mine").await.unwrap();
        assert_eq!(text(&mut echo).await, "mine");
        assert_eq!(server.log("chat"), ["one", "two", "my own", "", "a line", "mine"]);
    });
}

#[test]
fn a_subscription_ends_and_begins_again() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let first = bob.subscribe("chat", From::Now, false).await.unwrap();
        let again = bob.subscribe("chat", From::Now, false).await;
        assert!(matches!(again, Err(Error::AlreadySubscribed)));
        alice.publish_taken("chat", "unread").await.unwrap();
        let epoch = first.epoch();
        drop(first);
        let mut chat =
            bob.subscribe("chat", From::Offset { epoch, offset: 0 }, false).await.unwrap();
        assert_eq!(text(&mut chat).await, "unread");
        // Who reads no more can still publish.
        chat.unsubscribe().await;
        bob.publish_taken("chat", "on").await.unwrap();
        assert!(bob.who("chat").await.unwrap().is_empty());
        assert_eq!(server.log("chat"), ["unread", "on"]);
    });
}

#[test]
fn refusals_have_codes() {
    run(async {
        let server = Server::start(1);
        server.world().knobs.forbidden.push("secret".to_owned());
        server.world().knobs.nacks.insert(b"bad".to_vec(), (Code::Busy, 70));
        let alice = client(&server, 11).await;
        let mut reports = alice.reports();
        for error in [
            alice.open("secret").await.unwrap_err(),
            alice.publish_taken("secret", "x").await.unwrap_err(),
            alice.subscribe("secret", From::Now, false).await.map(drop).unwrap_err(),
            alice.who("secret").await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.code(), Some(Code::Forbidden), "{error}");
        }
        let Error::Refused(refusal) = alice.publish_taken("chat", "bad").await.unwrap_err() else {
            panic!("not refused")
        };
        assert_eq!(refusal.code(), Some(Code::Busy));
        assert_eq!(refusal.retry, Some(Duration::from_millis(70)));
        alice.open("chat").await.unwrap();
        // Nobody waits for this one: it is reported.
        alice.publish("chat", "bad").await.unwrap();
        alice.publish_taken("chat", "good").await.unwrap();
        loop {
            let (report, dropped) = reports.recv().await.unwrap();
            assert_eq!(dropped, 0);
            if let wardline_client::Report::Refused { topic, refusal, .. } = report {
                assert_eq!((topic.as_deref(), refusal.code()), (Some("chat"), Some(Code::Busy)));
                break;
            }
        }
        for name in ["", "a*b", "$sys", "a\nb", &"x".repeat(65)] {
            assert!(matches!(alice.publish(name, "x").await, Err(Error::TopicName)), "{name:?}");
        }
        let large = vec![0; alice.max_payload() + 1];
        assert!(matches!(alice.publish("chat", large).await, Err(Error::TooLarge { .. })));
        alice.publish_taken("chat", vec![b'x'; alice.max_payload()]).await.unwrap();
        assert_eq!(server.log("chat").len(), 2);
    });
}

#[test]
fn records_are_no_larger_than_the_relay_takes() {
    run(async {
        let server = Server::start(1);
        server.world().knobs.max_payload = Some(1_024);
        let alice = client(&server, 11).await;
        let said: Vec<String> = (0..20).map(|nth| format!("{nth:0>700}")).collect();
        for text in &said {
            alice.publish("chat", text.as_bytes()).await.unwrap();
        }
        alice.ping().await.unwrap();
        assert_eq!(server.log("chat"), said);
        assert_eq!(server.sessions(), (0, 1));
    });
}

#[test]
fn what_the_relay_of_now_does_not_take_is_refused_and_not_sent_again() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        alice.open("chat").await.unwrap();
        server.world().knobs.cuts = vec![Cut::Before(1)];
        server.world().knobs.max_payload = Some(1_024);
        let error = alice.publish_taken("chat", vec![b'x'; 1_025]).await.unwrap_err();
        assert_eq!(error.code(), Some(Code::TooLarge));
        alice.publish_taken("chat", "small").await.unwrap();
        assert_eq!(server.log("chat"), ["small"]);
        assert_eq!(server.sessions(), (1, 1));
    });
}

#[test]
fn ten_thousand_messages_arrive_in_order() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let sending = tokio::spawn(async move {
            for nth in 0..10_000 {
                alice.publish("chat", nth.to_string()).await.unwrap();
            }
            alice.close().await.unwrap();
        });
        for nth in 0..10_000 {
            let message = message(&mut chat).await;
            assert_eq!(message.offset, nth);
            assert_eq!(message.payload, nth.to_string().into_bytes());
        }
        sending.await.unwrap();
    });
}

#[test]
fn who_does_not_read_is_not_sent_to_and_loses_nothing() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        let builder = builder(&server.url(), 12).events_max(10);
        let bob = builder.connect().await.unwrap();
        let mut chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let mut log = bob.subscribe("log", From::Now, false).await.unwrap();
        for nth in 0..2_000_u32 {
            alice.publish("chat", vec![nth as u8; 4_096]).await.unwrap();
        }
        alice.publish_taken("log", "after").await.unwrap();
        // The answer stands behind what is not read.
        let began = std::time::Instant::now();
        assert!(matches!(bob.ping().await, Err(Error::NotRead)));
        assert!(began.elapsed() >= Duration::from_secs(9));
        for nth in 0..2_000_u32 {
            assert_eq!(message(&mut chat).await.payload, vec![nth as u8; 4_096]);
        }
        assert_eq!(text(&mut log).await, "after");
        bob.ping().await.unwrap();
        bob.close().await.unwrap();
        assert_eq!(server.world().fulls, 2, "the connection held");
    });
}

#[test]
fn what_is_no_relay() {
    run(async {
        use wardline_client::{ConnectError, Handshake};

        let connect = |url: String| async move { builder(&url, 11).connect().await };
        let error = connect("line://127.0.0.1:1".to_owned()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Url(UrlError::Scheme)));
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("native://{}", free.local_addr().unwrap());
        let answers = std::thread::spawn(move || {
            for answer in [&b"Warning: no\n"[..], b""] {
                use std::io::{Read, Write};
                let (mut stream, _) = free.accept().unwrap();
                stream.read_exact(&mut [0; 128]).unwrap();
                stream.write_all(answer).unwrap();
            }
        });
        let error = connect(url.clone()).await.unwrap_err();
        let magic = ConnectError::Handshake(Handshake::Fault(Code::BadMagic));
        assert_eq!(error.to_string(), magic.to_string());
        let error = connect(url.clone()).await.unwrap_err();
        assert!(matches!(error, ConnectError::Cut | ConnectError::Io(_)), "{error}");
        answers.join().unwrap();
        let error = connect(url).await.unwrap_err();
        assert!(matches!(error, ConnectError::Io(_)), "{error}");
        let error = Client::builder("native://h:1").connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::NoKey));
    });
}
