//! Native clients of addresses that many share, that were struck, or that flood the door. On Linux
//! every address of 127/8 is ours to come from.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::thread;

use tempfile::TempDir;
use wardline_core::native::Code;

use crate::harness::native::{NativeDial, Turned, identity};
use crate::harness::{Dial, Launch, NativeClient, Relay, on_each_engine};

const NAT: [u8; 4] = [127, 0, 0, 5];
/// Who comes back at once after a link of all of them was lost.
const AGENTS: u64 = 60;

fn strict(engine: &'static str) -> Launch {
    Launch::of_both(engine)
        .set("quarantine.exempt", "[]")
        .set("native.handshakes_per_second", "1000")
}

fn dial(relay: &Relay, number: u64, ip: [u8; 4]) -> NativeDial {
    relay.native_dial(number).from(IpAddr::from(ip))
}

/// Says what is no handshake until the address is refused, though a session of it may live still.
fn have_refused(relay: &Relay, ip: [u8; 4]) {
    for _ in 0..24 {
        let mut stream = dial(relay, 0, ip).stream().expect("it listens");
        stream.write_all(b"\xF5WDL\x02\x01\x80\x00").expect("it reads");
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

#[test]
fn agents_of_one_address_come_back_together_and_nobody_is_punished() {
    on_each_engine(|engine| {
        let relay = strict(engine).start();
        let agents = 0..AGENTS;
        let mut agents: Vec<NativeClient> =
            agents.map(|number| dial(&relay, number, NAT).connect()).collect();
        for _ in 0..3 {
            agents.iter_mut().for_each(NativeClient::abort);
            thread::scope(|scope| {
                for agent in &mut agents {
                    scope.spawn(|| agent.reconnect(true).expect("its session is there"));
                }
            });
            for agent in &mut agents {
                assert!(agent.is_resumed() && agent.barrier());
            }
        }
        assert!(dial(&relay, AGENTS, NAT).try_connect().is_ok(), "the address was struck");
    });
}

#[test]
fn a_refused_address_takes_who_is_known_and_who_has_a_session() {
    on_each_engine(|engine| {
        let dir = TempDir::new().expect("a temporary directory");
        let list = dir.path().join("keys");
        fs::write(&list, format!("{:?}\n", identity(1))).expect("it is ours");
        let relay = strict(engine)
            .set("native.open", "always")
            .set("native.authorized_keys", list.to_str().expect("UTF-8"))
            .start();
        let mut agent = dial(&relay, 2, NAT).connect();
        agent.abort();
        have_refused(&relay, NAT);
        let quarantined = Turned::Alert(Code::Quarantined);
        assert_eq!(dial(&relay, 3, NAT).try_connect().err(), Some(quarantined));
        assert!(dial(&relay, 3, [127, 0, 0, 6]).try_connect().is_ok(), "it did nothing");
        agent.reconnect(true).expect("its session is there");
        assert!(agent.is_resumed() && agent.barrier());
        let mut known = dial(&relay, 1, NAT).connect();
        assert!(known.barrier());
        // At a listener of both dialects it is refused once it speaks lines.
        let mut line = Dial::new(relay.address_of(2)).from(IpAddr::from(NAT)).connect();
        line.send(b"hello\n");
        assert_eq!(
            line.expect_warning(),
            "Warning: Your address is refused for a while. Please come back later.\n"
        );
        line.expect_closed();
    });
}
