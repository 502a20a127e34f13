//! One to one: messages, requests, answers in pieces.

use wardline_client::{Code, EnvelopeFault, Error, From, Policy, Report};
use wardline_core::native::flags;

use super::server::Server;
use super::*;

#[test]
fn who_is_there() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let bob2 = client(&server, 12).await;
        let mut wanted = [(bob.handle(), bob.device()), (bob2.handle(), bob2.device())];
        wanted.sort_unstable();
        let found = alice.resolve(bob.identity()).await.unwrap();
        assert!(found.iter().map(|peer| (peer.handle, peer.device)).eq(wanted));
        assert!(found.iter().all(|peer| peer.identity == Some(bob.identity())));
        assert!(alice.resolve(key(99).identity()).await.unwrap().is_empty());
        let peer = alice.identify(bob.handle()).await.unwrap().unwrap();
        assert_eq!(peer.identity, Some(bob.identity()));
        assert_eq!(alice.identify(77).await.unwrap(), None);
        let _chat = bob.subscribe("chat", From::Now, false).await.unwrap();
        let who = alice.who("chat").await.unwrap();
        assert!(who.iter().map(|peer| peer.handle).eq([bob.handle()]));
        // Without a number there is no question; who reads the topic has one.
        server.world().knobs.forbidden.push("chat".to_owned());
        let carol = client(&server, 13).await;
        let error = carol.who("chat").await.unwrap_err();
        assert!(matches!(error, Error::NotOpened(_)), "{error}");
        assert_eq!(error.code(), Some(Code::Forbidden));
        assert_eq!(bob.who("chat").await.unwrap().len(), 1);
    });
}

#[test]
fn direct_messages() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut reports = bob.reports();
        alice.direct_taken(bob.handle(), "nobody reads it").await.unwrap();
        loop {
            if let Report::Unwanted { sender } = reports.recv().await.unwrap().0 {
                assert_eq!(sender, alice.handle());
                break;
            }
        }
        let mut directs = bob.directs().await.unwrap();
        alice.direct(bob.handle(), "hello").await.unwrap();
        let direct = directs.recv().await.unwrap();
        assert_eq!((direct.sender, &direct.payload[..]), (alice.handle(), &b"hello"[..]));
        let error = alice.direct_taken(77, "x").await.unwrap_err();
        assert_eq!(error.code(), Some(Code::NoRoute));
    });
}

#[test]
fn requests_and_replies() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut requests = bob.requests().await.unwrap();
        let to = bob.handle();
        let ten = Duration::from_secs(10);
        let answering = tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                assert!(request.patience() > Some(Duration::ZERO));
                let answer = [request.payload(), b"!"].concat();
                match request.payload() {
                    b"silence" => {}
                    b"pieces" => {
                        let mut pieces = request.stream();
                        for nth in 0..100_u8 {
                            pieces.send(vec![nth; 10_000]).await.unwrap();
                        }
                        pieces.end().await.unwrap();
                    }
                    _ => request.reply(answer).await.unwrap(),
                }
            }
        });
        let reply = alice.request(to, "ping", ten).await.unwrap();
        assert_eq!((reply.sender, &reply.payload[..]), (to, &b"ping!"[..]));
        let silence = alice.request(to, "silence", Duration::from_millis(50)).await;
        assert!(matches!(silence, Err(Error::Deadline)));
        let nobody = alice.request(77, "x", ten).await.unwrap_err();
        assert_eq!(nobody.code(), Some(Code::NoRoute));
        // A million bytes in pieces, four times what may be under way.
        let whole = alice.request(to, "pieces", ten * 2).await.unwrap();
        assert_eq!(whole.payload.len(), 1_000_000);
        assert!((0..100).all(|nth| whole.payload[nth * 10_000 + 9_999] == nth as u8));
        // One that is not read waits, and goes on.
        let mut answer = alice.request_stream(to, "pieces", ten * 2).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut bytes = 0;
        while let Some(piece) = answer.next().await.unwrap() {
            bytes += piece.len();
        }
        assert_eq!(bytes, 1_000_000);
        assert!(matches!(answer.next().await, Ok(None)));
        // Several at once.
        let all = (0..50).map(|nth: u32| alice.request(to, nth.to_string(), ten));
        for (nth, asked) in all.enumerate() {
            assert_eq!(asked.await.unwrap().payload, format!("{nth}!").into_bytes());
        }
        answering.abort();
    });
}

#[test]
fn an_answer_with_a_hole_is_not_taken_for_whole() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut requests = bob.requests().await.unwrap();
        let to = bob.handle();
        let ask = || {
            let alice = alice.clone();
            let twenty = Duration::from_secs(20);
            tokio::spawn(async move { alice.request(to, "x", twenty).await })
        };
        // A piece is refused: the answer is not ended, and its author is told.
        server.world().knobs.nacks.insert(b"two".to_vec(), (Code::Busy, 100));
        let asking = ask();
        let mut pieces = requests.recv().await.unwrap().stream();
        pieces.send("one").await.unwrap();
        pieces.send("two").await.unwrap();
        let error = pieces.end().await.unwrap_err();
        assert_eq!(error.code(), Some(Code::Busy));
        asking.abort();
        // A piece is lost on the way, and the session goes on.
        let asking = ask();
        let mut pieces = requests.recv().await.unwrap().stream();
        pieces.send("one").await.unwrap();
        bob.ping().await.unwrap();
        alice.ping().await.unwrap();
        let handle = alice.handle();
        {
            let mut world = server.world();
            let conn = world.conns.get_mut(&handle).unwrap();
            conn.mute = true;
        }
        pieces.send("three").await.unwrap();
        bob.ping().await.unwrap();
        let conn = server.world().conns.remove(&handle).unwrap();
        conn.stream.shutdown(std::net::Shutdown::Both).unwrap();
        let asked = asking.await.unwrap();
        assert!(matches!(asked, Err(Error::Unsure)), "{asked:?}");
    });
}

/// A relay that is not honest: it ends an answer early, late or not at all, or leaves pieces out.
#[test]
fn a_signed_answer_is_not_cut_short_unseen() {
    use EnvelopeFault::{Kind, Missing, Piece};
    const END: u16 = flags::END;
    run(async {
        let server = Server::start(1);
        let signing = async |seed| {
            let builder = Client::builder(&server.url()).key(key(seed));
            builder.envelopes(Policy::OPEN.sign()).connect().await.expect("connected")
        };
        let (alice, bob) = (signing(11).await, signing(12).await);
        // What is signed next is signed after both began: clocks have milliseconds.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut requests = bob.requests().await.unwrap();
        let (done, mut answered) = tokio::sync::mpsc::channel(1);
        let answering = tokio::spawn(async move {
            while let Some(request) = requests.recv().await {
                let mut pieces = request.stream();
                pieces.send("one").await.unwrap();
                pieces.send("two").await.unwrap();
                pieces.end().await.unwrap();
                done.send(()).await.unwrap();
            }
        });
        // What the relay does to the pieces "one", "two" and the end.
        type Case = (&'static [Option<u16>], Option<EnvelopeFault>);
        let cases: &[Case] = &[
            (&[], None),
            (&[Some(END)], Some(Kind)),
            (&[Some(0), Some(END)], Some(Kind)),
            (&[Some(0), Some(0), Some(END)], Some(Kind)),
            (&[Some(0), Some(0), Some(flags::ENVELOPE)], Some(Missing)),
            (&[None], Some(Piece)),
            (&[Some(0), None], Some(Piece)),
            (&[None, None], Some(Piece)),
        ];
        for (pieces, wrong) in cases {
            server.world().knobs.pieces.extend(*pieces);
            let asked = alice.request(bob.handle(), "x", Duration::from_secs(20)).await;
            match (asked, wrong) {
                (Ok(reply), None) => assert_eq!(reply.payload, b"onetwo"),
                (Err(Error::Untrusted(fault)), Some(wrong)) => assert_eq!(fault, *wrong),
                (asked, wrong) => panic!("{pieces:?}: {asked:?}, not {wrong:?}"),
            }
            answered.recv().await.unwrap();
            server.world().knobs.pieces.clear();
        }
        // Without its end it is waited for in vain.
        server.world().knobs.pieces.extend([Some(0), Some(0), None]);
        let asked = alice.request(bob.handle(), "x", Duration::from_millis(200)).await;
        assert!(matches!(asked, Err(Error::Deadline)), "{asked:?}");
        answering.abort();
    });
}

#[test]
fn handles_are_void_in_a_new_session() {
    run(async {
        let server = Server::start(1);
        let (alice, bob) = (client(&server, 11).await, client(&server, 12).await);
        let mut requests = bob.requests().await.unwrap();
        let to = bob.handle();
        let asker = alice.clone();
        let asking =
            tokio::spawn(async move { asker.request(to, "x", Duration::from_secs(20)).await });
        let request = requests.recv().await.unwrap();
        server.forget();
        let asked = asking.await.unwrap();
        assert!(matches!(asked, Err(Error::SessionGone)), "{asked:?}");
        drop(request);
        let error = alice.direct_taken(to, "x").await.unwrap_err();
        assert_eq!(error.code(), Some(Code::NoRoute));
    });
}
