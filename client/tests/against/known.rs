//! Who the server is.

use std::path::Path;
use std::process::{Child, Command};

use wardline_client::{Client, Code, ConnectError, Handshake, Identity, KnownHosts};

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
            builder(&server.url(), 11).server(known).connect()
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
        let connect = |pin| builder(&server.url(), 11).server(Known::Pin(pin)).connect();
        assert_eq!(connect(server.identity()).await.unwrap().server(), server.identity());
        let error = connect(key(2).identity()).await.unwrap_err();
        assert!(matches!(error, ConnectError::WrongServer { .. }));
        // The server's own key is nobody else's.
        let own = builder(&server.url(), 1).connect().await.unwrap_err();
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
        let error = builder(&server.url(), 11).connect().await.unwrap_err();
        assert!(matches!(error, ConnectError::Handshake(Handshake::Puzzle(23))));
        server.world().knobs.alert = Some((Code::Quarantined, 4_000));
        let error = builder(&server.url(), 11).connect().await.unwrap_err();
        let ConnectError::Alert(refusal) = error else { panic!("{error}") };
        assert_eq!(refusal.code(), Some(Code::Quarantined));
        assert_eq!(refusal.retry, Some(Duration::from_secs(4)));
    });
}

/// What a process of its own is told, and ends well by.
const URL: &str = "WARDLINE_TEST_URL";
const WANTED: &str = "WARDLINE_TEST_WANTED";

/// A program that says nothing of how its server is known, with its home at `home`.
fn program(url: &str, home: Option<&Path>, wanted: &str) -> Child {
    let mut program = Command::new(std::env::current_exe().unwrap());
    program.args(["--exact", "known::a_program_of_its_own", "--include-ignored"]);
    for name in ["STATE_DIRECTORY", "XDG_STATE_HOME", "LOCALAPPDATA", "HOME"] {
        program.env_remove(name);
    }
    program.envs(home.map(|home| ("XDG_STATE_HOME", home)));
    program.env(URL, url).env(WANTED, wanted).spawn().unwrap()
}

#[test]
#[ignore = "a part of the test below, which starts it"]
fn a_program_of_its_own() {
    let (Ok(url), Ok(wanted)) = (std::env::var(URL), std::env::var(WANTED)) else { return };
    run(async {
        let met = match Client::connect(&url, key(11)).await {
            Ok(client) => client.server().to_string(),
            Err(ConnectError::WrongServer { .. }) => "another".to_owned(),
            Err(ConnectError::NoHome) => "no home".to_owned(),
            Err(error) => panic!("{error}"),
        };
        assert_eq!(met, wanted);
    });
}

#[test]
fn without_a_word_a_server_is_known_from_one_start_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let home = Some(dir.path());
    let servers = [Server::start(1), Server::start(2), Server::start(3)];
    let ends_well = |mut program: Child| assert!(program.wait().unwrap().success());
    let named = |server: &Server| server.identity().to_string();
    // Three first meetings at once, each in a process of its own.
    let programs = servers.each_ref().map(|each| program(&each.url(), home, &named(each)));
    programs.into_iter().for_each(ends_well);
    let known = KnownHosts::new(dir.path().join("wardline/known_hosts"));
    let noted = |server: &Server| known.find(&server.addr.to_string()).unwrap();
    let all: [Option<Identity>; 3] = servers.each_ref().map(noted);
    assert_eq!(all, servers.each_ref().map(|server| Some(server.identity())));
    // The next start expects who was met, and trusts nobody else.
    ends_well(program(&servers[0].url(), home, &named(&servers[0])));
    servers[0].change_key(4);
    ends_well(program(&servers[0].url(), home, "another"));
    assert_eq!(noted(&servers[0]), all[0]);
    // Where nothing can be kept, nobody is trusted either.
    ends_well(program(&servers[1].url(), None, "no home"));
}

#[test]
fn who_is_asked_for_a_harder_puzzle_comes_again_once() {
    run(async {
        let server = Server::start(1);
        server.world().knobs.alert = Some((Code::PuzzleRequired, 0));
        let error = Client::connect(&server.url(), key(11)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Alert(refusal)
            if refusal.code() == Some(Code::PuzzleRequired)));
        {
            let mut world = server.world();
            // However late it is told to come: who calls waits for it.
            world.knobs.alert = Some((Code::PuzzleRequired, u32::MAX));
            world.knobs.alert_once = true;
            world.knobs.puzzle_bits = 12;
        }
        let began = std::time::Instant::now();
        let client = Client::connect(&server.url(), key(11)).await.unwrap();
        // Not at once: anybody on the path can say so.
        assert!(began.elapsed() >= Duration::from_millis(500));
        client.publish_taken("chat", "x").await.unwrap();
    });
}
