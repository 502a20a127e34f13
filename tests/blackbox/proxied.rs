//! Clients behind a proxy that speaks the PROXY protocol, version 2. On Linux every address of
//! 127/8 is ours to come from: 127.0.0.9 is the proxy.
#![cfg(target_os = "linux")]

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use wardline_core::native::{Code, Start};

use crate::harness::native::Turned;
use crate::harness::{
    Client, Dial, Heard, Launch, NativeDial, PATIENCE, Relay, on_each_engine, proxy_header,
};

const PROXY: [u8; 4] = [127, 0, 0, 9];

fn launch(engine: &'static str) -> Launch {
    Launch::talkative(engine)
        .set("server.trusted_proxies", "[\"127.0.0.9/32\"]")
        .set("quarantine.exempt", "[]")
}

/// Port `port` of a client of documentation's.
fn client(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], port))
}

/// A connection of the proxy that has said nothing yet.
fn proxy(to: SocketAddr) -> Client {
    Dial::new(to).from(PROXY.into()).connect()
}

fn behind(to: SocketAddr, client: SocketAddr) -> Client {
    Dial::new(to).from(PROXY.into()).for_client(client).connect()
}

/// A member of the room who comes directly, from an address that does nothing wrong.
fn host(relay: &Relay) -> Client {
    let mut host = relay.connect_from(2);
    relay.seat_by(relay.connect_from(3), [&mut host]);
    host
}

#[test]
fn the_envelope_shows_the_client() {
    on_each_engine(|engine| {
        let relay = launch(engine).start();
        let mut host = host(&relay);
        for from in ["192.0.2.7:5555", "[2001:db8::7]:5555", "[::ffff:192.0.2.8]:1"] {
            let from: SocketAddr = from.parse().expect("an address");
            let mut said = behind(relay.address(), from);
            said.say("here");
            let shown = SocketAddr::new(from.ip().to_canonical(), from.port());
            host.expect(&format!("{{\"content\":\"here\",\"remote_addr\":\"{shown}\"}}\n"));
            // The other way, too: it is a reader like any other.
            host.say("welcome");
            said.expect(&host.envelope("welcome"));
        }
    });
}

#[test]
fn a_header_may_come_in_pieces_and_with_what_follows_it() {
    on_each_engine(|engine| {
        let relay = launch(engine).start();
        let mut host = host(&relay);
        let header = proxy_header(client(7, 1), relay.address());
        let all = [&header[..], b"one\ntwo\nthr"].concat();
        for (nth, split) in
            [1, 11, 12, 13, 16, 20, 27, 28, header.len() - 1].into_iter().enumerate()
        {
            let mut pieces = proxy(relay.address());
            pieces.send(&all[..split]);
            thread::sleep(Duration::from_millis(30));
            pieces.send(&all[split..]);
            pieces.send(format!("ee {nth}\n").as_bytes());
            for content in ["one", "two", &format!("three {nth}")] {
                let from = client(7, 1);
                host.expect(&format!("{{\"content\":\"{content}\",\"remote_addr\":\"{from}\"}}\n"));
            }
        }
    });
}

#[test]
fn the_quarantine_hits_the_client_and_not_its_neighbours_behind_the_same_proxy() {
    on_each_engine(|engine| {
        let relay = launch(engine).set("quarantine.connects_per_minute", "100000").start();
        let mut host = host(&relay);
        let mut offences = 0;
        while is_welcome(&relay, client(66, 1), &mut host) {
            let mut offender = behind(relay.address(), client(66, 2));
            let _ = offender.try_send(b"\xff\n");
            offender.rest();
            offences += 1;
            assert!(offences <= 200, "200 offences and still welcome");
        }
        for port in 3..9 {
            assert!(!is_welcome(&relay, client(66, port), &mut host), "another port helps");
        }
        relay.wait_for_log("address struck");
        for line in relay.log().lines().filter(|line| line.contains("address struck")) {
            assert!(line.contains("192.0.2.66:") && !line.contains("127.0.0.9"), "{line}");
        }
        for innocent in [67, 68] {
            assert!(is_welcome(&relay, client(innocent, 1), &mut host), "192.0.2.{innocent}");
        }
        // Whoever comes directly from there would be refused as well: there is no second book. And
        // the proxy itself is welcome.
        let mut own = proxy(relay.address());
        own.send(&[&local()[..], b"I am well\n"].concat());
        let address = own.address();
        host.expect(&format!("{{\"content\":\"I am well\",\"remote_addr\":\"{address}\"}}\n"));
    });
}

#[test]
fn a_client_that_flaps_behind_a_proxy_is_refused_alone() {
    on_each_engine(|engine| {
        let relay = launch(engine).start();
        let mut host = host(&relay);
        let deadline = Instant::now() + PATIENCE;
        while is_welcome(&relay, client(66, 1), &mut host) {
            assert!(Instant::now() < deadline, "it comes and goes as it likes");
        }
        assert!(is_welcome(&relay, client(67, 1), &mut host), "its neighbour did nothing");
    });
}

#[test]
fn a_proxy_that_does_not_say_for_whom_is_closed_and_never_charged() {
    on_each_engine(|engine| {
        let relay = launch(engine).start();
        let mut host = host(&relay);
        let mut wrong: Vec<Vec<u8>> = vec![
            b"hello\n".to_vec(),
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 198.51.100.1 55555 8888\r\n".to_vec(),
        ];
        let good = proxy_header(client(7, 1), relay.address());
        for (at, byte) in [(0, 0x0A), (12, 0x11), (12, 0x22), (13, 0x41), (14, 0x02), (15, 11)] {
            let mut header = good.clone();
            header[at] = byte;
            wrong.push(header);
        }
        for bytes in wrong.iter().cycle().take(60) {
            let mut closed = proxy(relay.address());
            closed.send(bytes);
            let (heard, _) = closed.rest();
            assert_eq!(String::from_utf8_lossy(&heard), "", "it was answered");
        }
        relay.wait_for_log("no_proxy_header");
        assert!(is_welcome(&relay, client(7, 1), &mut host), "its proxy was charged");
        // Who breaks off, or says nothing, is waited for no longer than five seconds.
        let begun = Instant::now();
        let mut half = proxy(relay.address());
        half.send(&good[..20]);
        let mut silent = proxy(relay.address());
        for late in [&mut half, &mut silent] {
            assert_eq!(late.rest().0, b"", "it was answered");
        }
        assert!(begun.elapsed() > Duration::from_secs(4), "closed early");
        assert!(is_welcome(&relay, client(7, 2), &mut host), "its proxy was charged");
        assert!(!relay.log().contains("address struck"), "somebody was charged");
    });
}

#[test]
fn a_proxy_may_look_whether_the_relay_is_there_as_often_as_it_likes() {
    on_each_engine(|engine| {
        let relay = launch(engine).start();
        let mut host = host(&relay);
        for _ in 0..60 {
            let mut check = proxy(relay.address());
            check.send(&local());
            check.finish_writing();
            check.rest();
            // Or without a word.
            proxy(relay.address()).finish_writing();
        }
        assert!(is_welcome(&relay, client(7, 1), &mut host));
        // An address that is not understood: the proxy's stands for it.
        for family in [0x00, 0x12, 0x31] {
            let mut other = proxy(relay.address());
            let mut header = local();
            header[12..14].copy_from_slice(&[0x21, family]);
            other.send(&[&header[..], b"who am I?\n"].concat());
            let said = other.envelope("who am I?");
            host.expect(&said);
        }
    });
}

#[test]
fn nobody_else_is_believed() {
    on_each_engine(|engine| {
        let relay = launch(engine).start();
        let mut host = host(&relay);
        let mut liar = relay.connect_from(8);
        liar.send(&[&local()[..], b"hi\n"].concat());
        // The lines that these bytes are.
        for content in ["", "", "\0", "QUIT", " \0\0\0hi"] {
            let said = liar.envelope(content);
            host.expect(&said);
        }
        let mut liar = relay.connect_from(8);
        liar.send(&proxy_header(client(7, 7), relay.address()));
        liar.say("hi");
        thread::sleep(Duration::from_millis(200));
        while let Heard::Line(line) = host.hear(Duration::from_millis(100)) {
            assert!(!line.contains("192.0.2"), "{line}");
        }
    });
}

#[test]
fn on_every_shard() {
    on_each_engine(|engine| {
        let relay = launch(engine).listen("line://127.0.0.1:0/main").shards(2).start();
        let mut host = relay.dial_shard(0).from([127, 0, 0, 2].into()).connect();
        let usher = relay.dial_shard(1).from([127, 0, 0, 3].into()).connect();
        relay.seat_by(usher, [&mut host]);
        for shard in [0, 1] {
            let from = client(7, 1 + shard);
            let dial = relay.dial_shard(usize::from(shard)).from(PROXY.into());
            let mut said = dial.for_client(from).connect();
            said.say("here");
            let said = said.envelope("here");
            host.expect(&said);
        }
    });
}

#[test]
fn native_and_mixed_listeners_take_clients_of_proxies() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine)
            .set("server.trusted_proxies", "[\"127.0.0.9/32\"]")
            .set("native.open", "always")
            .start();
        let mut host = relay.native(9);
        host.subscribe("main", Start::Now);
        for (number, listener) in [(1, 0), (2, 2)] {
            let through = tiny_proxy(relay.address_of(listener), client(7, 7_000));
            let mut native = NativeDial::new(through, number).connect();
            native.open("main").expect("it may");
            native.publish("main", b"from afar");
            host.expect(b"from afar");
        }
        let mut line = behind(relay.address_of(2), client(8, 1));
        line.say("by lines");
        host.expect(b"by lines");
        let mut reader = relay.connect_to(1);
        relay.seat_by(relay.connect_to(1), [&mut reader]);
        line.say("again");
        reader.expect(&line.envelope("again"));
    });
}

/// `native.open` is for who comes from this machine, and a proxy's clients do not.
#[test]
fn a_client_of_a_proxy_on_this_machine_is_not_of_this_machine() {
    on_each_engine(|engine| {
        let relay =
            Launch::of_both(engine).set("server.trusted_proxies", "[\"127.0.0.9/32\"]").start();
        relay.native(1);
        let through = tiny_proxy(relay.address(), client(7, 7_000));
        let turned = NativeDial::new(through, 2).try_connect().expect_err("turned away");
        assert!(matches!(turned, Turned::Alert(Code::Refused)), "{turned:?}");
        let through = tiny_proxy(relay.address(), SocketAddr::from(([127, 0, 0, 1], 7_000)));
        NativeDial::new(through, 3).connect();
    });
}

/// What a proxy says that speaks for itself.
fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()
}

/// A proxy for one connection, which tells the relay that it is `client`'s.
fn tiny_proxy(relay: SocketAddr, client: SocketAddr) -> SocketAddr {
    let door = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = door.local_addr().expect("bound");
    thread::spawn(move || {
        let (inner, _) = door.accept().expect("somebody comes");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
            .expect("a socket");
        socket.bind(&SocketAddr::from((PROXY, 0)).into()).expect("the address is ours");
        socket.connect(&relay.into()).expect("it listens");
        let mut outer = TcpStream::from(socket);
        outer.write_all(&proxy_header(client, relay)).expect("it reads");
        let back = (outer.try_clone().expect("a handle"), inner.try_clone().expect("a handle"));
        let forth = thread::spawn(move || carry(inner, outer));
        carry(back.0, back.1);
        let _ = forth.join();
    });
    address
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut room = [0; 4096];
    let mut step = || -> io::Result<usize> {
        let len = from.read(&mut room)?;
        to.write_all(&room[..len])?;
        Ok(len)
    };
    while matches!(step(), Ok(1..)) {}
    let _ = to.shutdown(Shutdown::Write);
}

/// Whether a client of the proxy is let in: its line then comes to the host.
fn is_welcome(relay: &Relay, from: SocketAddr, host: &mut Client) -> bool {
    behind(relay.address(), from).is_let_in("here I am", host)
}
