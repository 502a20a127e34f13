//! Who is let in: addresses that many share, addresses that were struck, and floods.

use wardline_core::{NativeLimits, Refusal};

use super::*;

const NAT: [u8; 4] = [10, 0, 0, 1];

impl World {
    fn try_connect(&mut self, ip: [u8; 4]) -> Result<ConnId, Refusal> {
        self.port += 1;
        let addr = SocketAddr::new(IpAddr::from(ip), self.port);
        self.relay.handle_accept(self.now, Remote { addr, topic: self.door })
    }

    fn closed(&mut self, conn: ConnId) {
        self.relay.handle_closed(self.now, conn);
        self.turn();
    }

    /// Comes back over a new connection; the first of what it is told.
    fn hello_again(&mut self, key: &SigningKey, before: &Client) -> (ConnId, Option<Records>) {
        let conn = self.connect(NAT);
        let again = Attempt { resume: Some(&before.resumption), ..attempt(key, self.port) };
        let (hello, wait) = again.hello();
        self.feed(conn, hello.as_bytes());
        match wait.answer(&self.had(conn), self.now) {
            Ok(Answered::Resumed(connected)) => (conn, Some(connected.records())),
            _ => (conn, None),
        }
    }

    /// Says what is no handshake, until the address is refused.
    fn have_refused(&mut self, ip: [u8; 4]) {
        for _ in 0..8 {
            let conn = self.connect(ip);
            self.feed(conn, b"\xF5WDL\x02\x01\x80\x00");
            self.closed(conn);
        }
        let verdict = self.relay.verdict(self.now, IpAddr::from(ip));
        assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
    }
}

fn agent(nth: u8) -> SigningKey {
    SigningKey::from_seed(&[20 + nth; 32])
}

#[test]
fn sixty_of_one_address_come_back_at_once_and_nobody_is_punished() {
    let mut world = World::sized(NativeLimits::DEFAULT, 200);
    let mut agents = Vec::new();
    for nth in 0..60 {
        agents.push(world.join(&agent(nth), 0, NAT));
        world.now = world.now.after(Duration::from_millis(50));
    }
    let before = *world.relay.stats();
    assert!(world.is_free(NAT), "most of them do nothing wrong");
    // Of half of them the relay does not know yet.
    for gone in agents.iter().step_by(2) {
        world.closed(gone.conn);
    }
    let back: Vec<_> = agents
        .iter()
        .enumerate()
        .map(|(nth, before)| world.hello_again(&agent(nth as u8), before))
        .collect();
    for (nth, (conn, records)) in back.into_iter().enumerate() {
        let mut records = records.unwrap_or_else(|| panic!("agent {nth} was not resumed"));
        let ping = records.ping([nth as u8; 8]).expect("a record");
        world.feed(conn, &ping);
        let resumption = agents[nth].resumption;
        let mut client = Client { conn, records, handle: agents[nth].handle, resumption };
        assert_eq!(world.told(&mut client), [Told::Other, Told::Pong], "agent {nth}");
    }
    let after = world.relay.stats();
    assert_eq!(after.resumes.value(), 60);
    assert_eq!(after.flapping, before.flapping);
    assert_eq!((after.strikes.value(), after.handshakes_refused.value()), (0, 0));
}

#[test]
fn a_refused_address_takes_who_is_known_and_who_has_a_session() {
    let mut world = World::new(NativeLimits { half_open_per_prefix: 2, ..NativeLimits::DEFAULT });
    let (known, stranger) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    let before = world.join(&stranger, 0, NAT);
    world.closed(before.conn);
    world.have_refused(NAT);
    let handshakes = world.relay.stats().handshakes;
    let retry_ms = world.try_join(&stranger, 1, NAT).map(|it| it.handle).expect_err("a stranger");
    assert!((239_000..=301_000).contains(&retry_ms), "{retry_ms}");
    assert_eq!(world.relay.stats().handshakes, handshakes, "its signature was not looked at");
    let (conn, records) = world.hello_again(&stranger, &before);
    let ping = records.expect("it has a session").ping([1; 8]).expect("a record");
    world.feed(conn, &ping);
    assert_eq!(world.relay.stats().resumes.value(), 1);
    // Who is known pays what it always pays.
    let mut client = world.join(&known, 0, NAT);
    let topic = world.open(&mut client);
    world.say(&mut client, publish(topic, 1), 300);
    assert_eq!(world.relay.stats().published.value(), 300);
    // Of those who say nothing only a few are waited for; others are not hurt.
    let points = world.relay.stats().offence_points;
    let silent = [world.connect(NAT), world.connect(NAT)];
    assert!(matches!(world.try_connect(NAT), Err(Refusal::Quarantined(_))));
    assert!(world.try_connect([10, 0, 0, 2]).is_ok());
    world.closed(silent[0]);
    assert!(world.try_connect(NAT).is_ok());
    assert_eq!(world.relay.stats().offence_points, points, "to ask again costs nothing");
}

#[test]
fn who_connects_and_says_nothing_flaps() {
    let mut world = World::new(NativeLimits::DEFAULT);
    for _ in 0..20 {
        let conn = world.connect(NAT);
        world.closed(conn);
    }
    assert_eq!(world.relay.stats().flapping.value(), 5);
    assert!(!world.is_free(NAT));
    // A handshake that is begun counts once, however it ends.
    let mut world = World::new(NativeLimits::DEFAULT);
    for _ in 0..15 {
        let (conn, kind, _) = world.hello(NAT);
        assert_eq!(kind, CHALLENGE);
        world.closed(conn);
    }
    assert_eq!(world.relay.stats().flapping.value(), 0);
}

#[test]
fn at_a_door_of_both_dialects_an_address_is_refused_once_it_speaks_lines() {
    let mut world = World::new(NativeLimits::DEFAULT);
    world.have_refused(NAT);
    world.door = world.relay.listen("main").expect("a topic").mixed();
    let line = world.connect(NAT);
    world.feed(line, b"hello\n");
    let warning = Refusal::Quarantined(Duration::ZERO).warning();
    assert_eq!(String::from_utf8_lossy(&world.had(line)), warning);
    world.closed(line);
    // Silence is the line dialect, too.
    let line = world.connect(NAT);
    world.now = world.now.after(Duration::from_millis(3_100));
    world.relay.handle_timeout(world.now);
    world.turn();
    assert_eq!(String::from_utf8_lossy(&world.had(line)), warning);
    world.closed(line);
    assert_eq!(world.relay.stats().published.value(), 0);
    world.join(&SigningKey::from_seed(&ENROLLED), 0, NAT);
    let line = world.connect([10, 0, 0, 2]);
    world.feed(line, b"hello\n");
    assert_eq!(world.had(line), []);
}
