//! Who is let in: addresses that many share, addresses that were struck, and floods. All of it by
//! clients that come by themselves, and by such that a proxy names.

use wardline_core::QuarantineLimits;

use super::*;

const NAT: [u8; 4] = [10, 0, 0, 1];

/// Each of these for each way to come.
macro_rules! each_way {
    ($($test:ident)*) => {
        mod directly {
            $(#[test] fn $test() { super::$test(super::Way::Directly) })*
        }
        mod proxied {
            $(#[test] fn $test() { super::$test(super::Way::Proxied) })*
        }
    };
}
each_way! {
    sixty_of_one_address_come_back_at_once_and_nobody_is_punished
    a_refused_address_takes_who_is_known_and_who_has_a_session
    who_comes_back_to_a_refused_address_waits_for_the_strangers_there
    who_connects_and_says_nothing_flaps
    at_a_door_of_both_dialects_an_address_is_refused_once_it_speaks_lines
    a_neighbourhood_begins_only_so_many_handshakes
    exempt_callers_leave_the_handshakes_of_all_to_others
    where_all_places_are_taken_the_oldest_stranger_gives_way
    places_that_are_all_promised_go_to_who_proves_something
    an_address_has_so_many_native_connections_however_many_slots_are_free
    who_has_proved_nothing_gives_way_first_and_who_is_known_never
    a_client_of_lines_gives_way_before_a_session
    who_is_over_counts_for_its_address_and_gives_way_first
}

impl World {
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

    /// Says HELLO, whatever is answered.
    fn try_begin(&mut self, ip: [u8; 4]) -> Result<(), Refusal> {
        let conn = self.try_connect(ip)?;
        let key = SigningKey::from_seed(&[3; 32]);
        let (hello, _) = attempt(&key, self.port).hello();
        self.feed(conn, hello.as_bytes());
        Ok(())
    }

    /// Says what is no handshake, until the address is refused.
    pub(super) fn have_refused(&mut self, ip: [u8; 4]) {
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

fn sixty_of_one_address_come_back_at_once_and_nobody_is_punished(way: Way) {
    let mut world = World::sized(NativeLimits::DEFAULT, 200).by(way);
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

fn a_refused_address_takes_who_is_known_and_who_has_a_session(way: Way) {
    let mut world =
        World::new(NativeLimits { half_open_per_prefix: 2, ..NativeLimits::DEFAULT }).by(way);
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

fn who_comes_back_to_a_refused_address_waits_for_the_strangers_there(way: Way) {
    let mut world = World::new(NativeLimits::DEFAULT).by(way);
    let key = SigningKey::from_seed(&STRANGER);
    let before = world.join(&key, 0, NAT);
    world.closed(before.conn);
    world.have_refused(NAT);
    for nth in 0..NativeLimits::DEFAULT.half_open_per_prefix {
        let conn = world.connect(NAT);
        if nth % 2 == 0 {
            world.feed(conn, b"\xF5");
        }
    }
    assert!(matches!(world.try_connect(NAT), Err(Refusal::Quarantined(_))));
    assert!(world.resumes_from(&key, &before, [10, 0, 0, 2]), "from elsewhere it is not hurt");
    world.now = world.now.after(Duration::from_millis(1_900));
    world.turn();
    assert!(world.try_connect(NAT).is_err());
    world.now = world.now.after(Duration::from_millis(200));
    world.turn();
    let strangers = world.relay.connections();
    let (_, records) = world.hello_again(&key, &before);
    assert!(records.is_some(), "those that were silent are gone: {strangers} are left");
}

fn who_connects_and_says_nothing_flaps(way: Way) {
    let mut world = World::new(NativeLimits::DEFAULT).by(way);
    for _ in 0..20 {
        let conn = world.connect(NAT);
        world.closed(conn);
    }
    assert_eq!(world.relay.stats().flapping.value(), 5);
    assert!(!world.is_free(NAT));
    // A handshake that is begun counts once, however it ends.
    let mut world = World::new(NativeLimits::DEFAULT).by(way);
    for _ in 0..15 {
        let (conn, kind, _) = world.hello(NAT);
        assert_eq!(kind, CHALLENGE);
        world.closed(conn);
    }
    assert_eq!(world.relay.stats().flapping.value(), 0);
}

fn at_a_door_of_both_dialects_an_address_is_refused_once_it_speaks_lines(way: Way) {
    let mut world = World::new(NativeLimits::DEFAULT).by(way);
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

fn a_neighbourhood_begins_only_so_many_handshakes(way: Way) {
    let native =
        NativeLimits { handshakes_per_parent_second: 5, puzzle_bits: 1, ..NativeLimits::DEFAULT };
    let mut world = World::sized(native, 200).by(way);
    let rate = Err(Code::Rate.wire());
    for host in 0..12 {
        let begun = world.begin([10, 0, 7, host]).1;
        assert_eq!(begun, if host < 10 { Ok(1) } else { rate }, "host {host}");
    }
    assert_eq!(world.begin([10, 0, 8, 1]).1, Ok(1), "another neighbourhood");
    assert_eq!(world.begin([127, 0, 0, 1]).1, Ok(1), "an exempt address");
    world.now = world.now.after(Duration::from_millis(400));
    let begun: Vec<_> = (20..24).map(|host| world.begin([10, 0, 7, host]).1).collect();
    assert_eq!(begun, [Ok(1), Ok(1), rate, rate]);
}

fn exempt_callers_leave_the_handshakes_of_all_to_others(way: Way) {
    let native = NativeLimits { handshakes_total_per_second: 10, ..NativeLimits::DEFAULT };
    let mut world = World::sized(native, 200).by(way);
    for _ in 0..40 {
        let (conn, begun) = world.begin([127, 0, 0, 1]);
        assert_eq!(begun, Ok(0));
        world.closed(conn);
    }
    // Of twenty at once the second half is dear.
    for nth in 0..21 {
        let begun = world.begin([10, 1, nth, 1]).1;
        let expected = match nth {
            0..10 => Ok(0),
            10..20 => Ok(16),
            _ => Err(Code::Rate.wire()),
        };
        assert_eq!(begun, expected, "handshake {nth}");
    }
    world.now = world.now.after(Duration::from_secs(2));
    assert_eq!(world.begin([10, 2, 0, 1]).1, Ok(0));
}

fn where_all_places_are_taken_the_oldest_stranger_gives_way(way: Way) {
    let mut world = World::sized(NativeLimits::DEFAULT, 200).by(way);
    let places: u8 = 120;
    let before: Vec<Client> = (0..20).map(|nth| world.join(&agent(nth), 0, NAT)).collect();
    before.iter().for_each(|before| world.closed(before.conn));
    let mut strangers = Vec::new();
    for nth in 0..places {
        let (conn, begun) = world.begin([10, 1, nth, 1]);
        assert_eq!(begun, Ok(if nth < places / 2 { 0 } else { 16 }), "stranger {nth}");
        strangers.push(conn);
    }
    // A resume and a stranger, who each take the place of the one that has waited longest.
    let (_, records) = world.hello_again(&agent(0), &before[0]);
    assert!(records.is_some());
    assert_eq!(world.begin([10, 2, 0, 1]).1, Ok(16));
    for gone in &strangers[..2] {
        let had = world.had(*gone);
        let code = u16::from_le_bytes([had[8], had[9]]);
        assert_eq!((had[4], code), (ALERT, Code::Overloaded.wire()));
    }
    assert_eq!(world.had(strangers[2]), []);
    assert_eq!(world.relay.stats().half_open_evicted.value(), 2);
    assert_eq!(world.relay.stats().offence_points.value(), 100, "of the joins");
}

fn places_that_are_all_promised_go_to_who_proves_something(way: Way) {
    let native = NativeLimits { half_open_per_prefix: 1_000, ..NativeLimits::DEFAULT };
    let mut world = World::sized(native, 200).by(way);
    let before = world.join(&agent(0), 0, NAT);
    let mut first = None;
    for _ in 0..120 {
        let (conn, records) = world.hello_again(&agent(0), &before);
        assert!(records.is_some());
        first.get_or_insert(conn);
    }
    assert_eq!(world.begin([10, 2, 0, 1]).1, Err(Code::Overloaded.wire()));
    assert_eq!(world.relay.stats().half_open_full.value(), 1);
    let (conn, records) = world.hello_again(&agent(0), &before);
    let ping = records.expect("the oldest gives way").ping([1; 8]).expect("a record");
    assert_eq!(world.had(first.expect("there were some")), [], "and is told nothing");
    world.feed(conn, &ping);
    assert_eq!(world.relay.stats().resumes.value(), 1);
}

fn an_address_has_so_many_native_connections_however_many_slots_are_free(way: Way) {
    let quarantine = QuarantineLimits { connects_per_minute: 1_000, ..Limits::DEFAULT.quarantine };
    let mut world = World::of(Limits { blocks: 1_024, quarantine, ..small(600) }).by(way);
    let key = |nth: usize| SigningKey::from_seed(&[100 + (nth % 64) as u8; 32]);
    let mut clients = Vec::new();
    for nth in 0..256 {
        clients.push(world.join(&key(nth), nth as u32 / 64, NAT));
        world.now = world.now.after(Duration::from_millis(50));
    }
    assert_eq!(world.begin(NAT).1, Err(Code::TooManyConnections.wire()));
    assert_eq!(world.relay.stats().refused_per_address.value(), 1);
    assert_eq!(world.begin([10, 0, 0, 2]).1, Ok(0), "another address");
    // Those whose link was lost without a word come back in place of what they had.
    for (nth, before) in clients.iter().enumerate() {
        let (conn, records) = world.hello_again(&key(nth), before);
        let records = records.unwrap_or_else(|| panic!("client {nth} was not resumed"));
        let ping = { records }.ping([1; 8]).expect("a record");
        world.feed(conn, &ping);
        world.closed(before.conn);
    }
    assert_eq!(world.relay.stats().resumes.value(), 256);
    for _ in 0..32 {
        world.connect(NAT);
    }
    assert!(matches!(world.try_connect(NAT), Err(Refusal::TooManyFromAddress)));
    // Clients of lines are not counted so before the slots fill.
    world.door = world.relay.listen("main").expect("a topic");
    world.connect(NAT);
}

fn who_has_proved_nothing_gives_way_first_and_who_is_known_never(way: Way) {
    let mut world = World::sized(NativeLimits::DEFAULT, 4).by(way);
    let (known, other) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    let mut live = vec![world.join(&known, 0, NAT), world.join(&other, 0, NAT)];
    let (stranger, begun) = world.begin(NAT);
    assert_eq!(begun, Ok(0));
    live.push(world.join(&known, 1, NAT));
    let code = Code::TooManyConnections.wire();
    world.connect([10, 0, 0, 2]);
    world.turn();
    let had = world.had(stranger);
    assert_eq!((had[4], u16::from_le_bytes([had[8], had[9]])), (ALERT, code));
    world.closed(stranger);
    world.connect([10, 0, 0, 3]);
    world.turn();
    assert_eq!(world.told(&mut live[1]), [Told::Close(code, 1_000)]);
    world.closed(live[1].conn);
    assert_eq!(world.try_connect([10, 0, 0, 4]), Err(Refusal::TooManyConnections));
    for nth in [0, 2] {
        assert_eq!(world.told(&mut live[nth]), []);
    }
    assert_eq!(world.relay.stats().evicted_for_newcomer.value(), 2);
}

fn a_client_of_lines_gives_way_before_a_session(way: Way) {
    let mut world = World::sized(NativeLimits::DEFAULT, 3).by(way);
    let native = world.door;
    world.door = world.relay.listen("main").expect("a topic");
    let line = world.connect(NAT);
    world.door = native;
    let mut live = [0, 1].map(|device| world.join(&SigningKey::from_seed(&STRANGER), device, NAT));
    world.connect([10, 0, 0, 2]);
    world.turn();
    assert_eq!(world.relay.remote(line), None, "it is gone");
    assert!(live.iter_mut().all(|client| world.told(client).is_empty()));
}

fn who_is_over_counts_for_its_address_and_gives_way_first(way: Way) {
    let one_a_second = NativeLimits { handshakes_per_second: 1, ..NativeLimits::DEFAULT };
    let mut world = World::sized(one_a_second, 400).by(way);
    let mut refused = 0;
    for _ in 0..500 {
        // It is told that it is too quick, or one too many, and never closes.
        if let Err(refusal) = world.try_begin(NAT) {
            assert_eq!(refusal, Refusal::TooManyFromAddress);
            refused += 1;
        }
    }
    assert!(refused >= 240, "{refused} of 500");
    // Those of an address which fills all places, and have ended, make room for others.
    let mut world = World::sized(one_a_second, 100).by(way);
    let taken = (0..100).filter(|_| world.try_begin(NAT).is_ok()).count();
    assert!(taken > 90, "{taken}");
    let key = agent(1);
    world.join(&key, 0, [10, 0, 0, 2]);
}
