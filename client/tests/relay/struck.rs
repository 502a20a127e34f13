//! An identity that the relay struck, for what another program did in its name.

use std::time::Instant;

use wardline_core::native::Ephemeral;
use wardline_core::native::handshake::client::{Answered, Attempt};

use super::*;

/// Says a value that is none, in a record that is right.
fn offend(addr: SocketAddr, key: &SigningKey) {
    let mut stream = TcpStream::connect(addr).unwrap();
    let attempt = Attempt {
        key,
        pin: None,
        features: 0,
        recv_max: 65_584,
        resume: None,
        e_c: Ephemeral::from_entropy([7; 32]),
        n_c: [8; 16],
    };
    let (hello, wait) = attempt.hello();
    stream.write_all(hello.as_bytes()).unwrap();
    let mut message = [0; 112];
    stream.read_exact(&mut message).unwrap();
    let now = wardline_core::Instant::ZERO;
    let Ok(Answered::Challenged(challenged)) = wait.answer(&message, now) else { panic!() };
    assert_eq!(challenged.puzzle().bits(), 0);
    let (auth, wait) = challenged.auth(0, 9, 1).unwrap();
    stream.write_all(auth.as_bytes()).unwrap();
    stream.read_exact(&mut message).unwrap();
    let mut records = wait.accept(&message, now).unwrap().records();
    let value = [0xFF; 3];
    let header = records.sending.control(&value).unwrap();
    stream.write_all(&[&header[..], &value].concat()).unwrap();
    // Its CLOSE, and the end.
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
#[ignore = "needs the relay's binary, which WARDLINE_RELAY names"]
fn who_was_struck_twice_solves_the_puzzle_by_itself() {
    run(async {
        let keys = tempfile::NamedTempFile::new().unwrap();
        fs::write(keys.path(), format!("{:?}\n", key(11).identity())).unwrap();
        let keys = format!("native.authorized_keys={}", keys.path().display());
        // A fault is a strike.
        let threshold = "quarantine.threshold_points=25";
        let relay = Relay::with(&[&keys, "quarantine.exempt=[]", threshold]);
        offend(relay.native, &key(11));
        let alice = relay.client(11).await;
        offend(relay.native, &key(11));
        let began = Instant::now();
        // Another device. It is told so, waits, and solves twenty bits.
        let bob = relay.client(11).await;
        assert!(began.elapsed() >= Duration::from_millis(500), "not at once");
        bob.publish_taken("chat", "x").await.unwrap();
        // Who has a session already has it still.
        alice.publish_taken("chat", "x").await.unwrap();
        // From now on whoever comes from that address solves it.
        relay.client(12).await.publish_taken("chat", "x").await.unwrap();
    });
}
