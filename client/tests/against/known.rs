//! Who the server is.

use wardline_client::{Client, Code, ConnectError, Handshake, KnownHosts, Server as Known};

use super::server::Server;
use super::*;

#[test]
fn a_server_that_was_met_is_known_and_another_is_refused_loudly() {
    run(async {
        let server = Server::start(1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wardline/known_hosts");
        let connect = || {
            let known = Known::KnownHosts(path.clone());
            Client::builder(&server.url()).key(key(11)).server(known).connect()
        };
        drop(connect().await.unwrap());
        let address = server.addr.to_string();
        let first = server.identity();
        assert_eq!(KnownHosts::new(&path).find(&address).unwrap(), Some(first));
        drop(connect().await.unwrap());
        server.change_key(2);
        let error = connect().await.unwrap_err();
        let ConnectError::WrongServer { expected, shown, .. } = &error else { panic!("{error}") };
        assert_eq!((*expected, shown), (first, server.identity().as_bytes()));
        let said = error.to_string();
        for word in [format!("{first:?}"), format!("{:?}", server.identity()), address.clone()] {
            assert!(said.contains(&word), "{said}");
        }
        // Nothing was learned from it.
        assert_eq!(KnownHosts::new(&path).find(&address).unwrap(), Some(first));
        std::fs::write(&path, "nonsense\n").unwrap();
        assert!(matches!(connect().await, Err(ConnectError::KnownHosts(_))));
    });
}

#[test]
fn a_pin_is_a_pin() {
    run(async {
        let server = Server::start(1);
        let connect =
            |pin| Client::builder(&server.url()).key(key(11)).server(Known::Pin(pin)).connect();
        assert_eq!(connect(server.identity()).await.unwrap().server(), server.identity());
        let error = connect(key(2).identity()).await.unwrap_err();
        assert!(matches!(error, ConnectError::WrongServer { .. }));
        // The server's own key is nobody else's.
        let own = Client::builder(&server.url()).key(key(1)).connect().await.unwrap_err();
        assert!(matches!(own, ConnectError::Handshake(Handshake::OwnKey)));
    });
}

#[test]
fn a_server_that_changes_while_the_client_lives_is_not_spoken_to() {
    run(async {
        let server = Server::start(1);
        let alice = client(&server, 11).await;
        alice.publish_taken("chat", "one").await.unwrap();
        let mut reports = alice.reports();
        server.change_key(2);
        server.forget();
        loop {
            match reports.recv().await.unwrap().0 {
                wardline_client::Report::NotReached(ConnectError::WrongServer { .. }, _) => break,
                wardline_client::Report::Reconnected => panic!("it spoke to somebody else"),
                _ => {}
            }
        }
        assert!(!alice.is_connected());
        // The right one is back.
        server.change_key(1);
        alice.publish_taken("chat", "two").await.unwrap();
        assert_eq!(server.log("chat"), ["two"]);
    });
}

#[test]
fn puzzles_are_solved_and_alerts_are_told() {
    run(async {
        let server = Server::start(1);
        server.world().knobs.puzzle_bits = 12;
        client(&server, 11).await.publish_taken("chat", "x").await.unwrap();
        server.world().knobs.puzzle_bits = 23;
        let error = Client::connect(&server.url(), key(11)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Handshake(Handshake::Puzzle(23))));
        server.world().knobs.alert = Some((Code::Quarantined, 4_000));
        let error = Client::connect(&server.url(), key(11)).await.unwrap_err();
        let ConnectError::Alert(refusal) = error else { panic!("{error}") };
        assert_eq!(refusal.code(), Some(Code::Quarantined));
        assert_eq!(refusal.retry, Some(Duration::from_secs(4)));
    });
}
