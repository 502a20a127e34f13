//! The table of sessions: who may have one, who waits for its client, what is left of who left.

use super::*;

/// Sessions in all.
const ENTRIES: usize = 80;
/// Sessions of one identity that may wait.
const LOST_MAX: u32 = 64;

#[test]
fn a_session_that_is_over_is_not_had_back_by_who_was_promised_it_before() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let key = SigningKey::from_seed(&[3; 32]);
    let before = world.join(&key, 8, [10, 0, 0, 1]);
    let resume = NativeLimits::DEFAULT.resume;
    world.relay.handle_closed(world.now, before.conn);
    // It is promised at the last moment, and there is a new one before the promise is kept.
    world.now = world.now.after(resume).before(Duration::from_millis(1));
    let conn = world.connect([10, 0, 0, 1]);
    let promised = Attempt { resume: Some(&before.resumption), ..attempt(&key, world.port) };
    let (hello, wait) = promised.hello();
    world.feed(conn, hello.as_bytes());
    let answered = wait.answer(&world.had(conn), world.now).expect("an answer");
    let Answered::Resumed(resumed) = answered else { panic!("it was there") };
    world.now = world.now.after(Duration::from_millis(2));
    let mut client = world.join(&key, 8, [10, 0, 0, 1]);
    let ping = resumed.records().ping([0; 8]).expect("a record");
    world.feed(conn, &ping);
    assert_eq!(world.had(conn), [0; 0], "it is over");
    world.relay.handle_closed(world.now, conn);
    world.turn();
    let ping = client.records.ping([1; 8]).expect("a record");
    world.feed(client.conn, &ping);
    assert_eq!(world.told(&mut client), [Told::Pong], "the new one lives");
}

#[test]
fn an_identity_has_so_many_sessions_that_live_whatever_it_left_behind() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let key = SigningKey::from_seed(&ENROLLED);
    let at = [127, 0, 0, 1];
    let mut lost = Vec::new();
    for nth in 0..10 {
        for device in nth * 4..nth * 4 + 4 {
            lost.push(world.join(&key, device, at));
        }
        lost.iter().skip(nth as usize * 4).for_each(|client| world.cut(client));
    }
    // Each has a session that waits for it; and yet only so many may live.
    let full = Err(Code::TooManySessions.wire());
    let mut ask = |device| {
        let asked = world.ask_in(&key, device, at);
        asked.map(|client| client.conn).map_err(|(code, _)| code)
    };
    let live: Vec<ConnId> = (0..4).map(|device| ask(device).expect("it is let in")).collect();
    for device in 4..42 {
        assert_eq!(ask(device), full, "{device}");
    }
    // Who lives already takes its own session over.
    let again = ask(3).expect("it is let in");
    assert_eq!(ask(4), full);
    world.relay.handle_broken(world.now, live[0]);
    world.turn();
    assert!(world.ask_in(&key, 4, at).is_ok() && again != live[3]);
}

#[test]
fn sessions_that_wait_refuse_nobody_and_the_oldest_gives_way() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let key = SigningKey::from_seed(&ENROLLED);
    let first = world.join(&key, 0, [127, 0, 0, 1]);
    world.cut(&first);
    for device in 1..LOST_MAX {
        world.now = world.now.after(Duration::from_millis(1));
        let client = world.join(&key, device, [127, 0, 0, 1]);
        world.cut(&client);
    }
    assert!(world.resumes(&key, &first), "as many as may wait");
    world.now = world.now.after(Duration::from_millis(1));
    let more = world.join(&key, LOST_MAX, [127, 0, 0, 1]);
    assert!(!world.resumes(&key, &first) && world.relay.stats().sessions_evicted.value() == 1);
    world.cut(&more);
    assert!(world.resumes(&key, &more));
}

#[test]
fn what_an_identity_spent_is_known_when_it_comes_back_and_of_deliveries_too() {
    let mut world = World::new(NativeLimits {
        messages_per_second: 0,
        identity_messages_per_second: 100,
        deliveries_per_second: 100,
        ..NativeLimits::DEFAULT
    });
    let (key, other) = (SigningKey::from_seed(&ENROLLED), SigningKey::from_seed(&STRANGER));
    for device in 0..2 {
        let mut reader = world.join(&other, device, [10, 0, 0, 2]);
        assert_eq!(world.ask(&mut reader, &subscribe(false)), [Told::Other]);
    }
    let published = |world: &World| world.relay.stats().published.value();
    // A hundred deliveries are fifty messages to two readers, whatever device says them.
    let mut devices: Vec<Client> =
        (0..2).map(|device| world.join(&key, device, [10, 0, 0, 1])).collect();
    for device in &mut devices {
        let topic = world.open(device);
        world.say(device, publish(topic, 1), 40);
    }
    assert_eq!(published(&world), 50);
    // All leave with a CLOSE. Who comes back has no more than before.
    for mut device in devices {
        let close = device.records.close(Code::Normal, 0, 0, 0).expect("a record");
        world.feed(device.conn, &close);
        world.relay.handle_closed(world.now, device.conn);
        world.turn();
    }
    for nth in 0..5 {
        let mut again = world.join(&key, nth, [10, 0, 0, 1]);
        let topic = world.open(&mut again);
        world.say(&mut again, publish(topic, 1), 40);
        let close = again.records.close(Code::Normal, 0, 0, 0).expect("a record");
        world.feed(again.conn, &close);
        world.relay.handle_closed(world.now, again.conn);
        world.turn();
    }
    assert_eq!(published(&world), 50);
    world.now = world.now.after(Duration::from_secs(10));
    world.turn();
    let mut again = world.join(&key, 0, [10, 0, 0, 1]);
    let topic = world.open(&mut again);
    world.say(&mut again, publish(topic, 1), 40);
    assert_eq!(published(&world), 90);
}

#[test]
fn where_all_sessions_are_taken_the_address_that_lost_most_loses_one() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let key = SigningKey::from_seed(&ENROLLED);
    let mine: Vec<Client> = (0..3).map(|nth| world.join(&key, nth, [127, 0, 0, 1])).collect();
    mine.iter().for_each(|client| world.cut(client));
    // Identities are free to make, addresses are not.
    let mut last = None;
    for nth in 0..160_u8 {
        world.now = world.now.after(Duration::from_millis(1));
        let stranger = SigningKey::from_seed(&[20 + nth; 32]);
        let client = world.join(&stranger, 0, [127, 0, 0, 2 + nth % 4]);
        world.cut(&client);
        last = Some((stranger, client));
    }
    assert_eq!(world.relay.stats().sessions_evicted.value(), 163 - ENTRIES as u64);
    assert!(mine.iter().all(|client| world.resumes(&key, client)));
    let (stranger, client) = last.expect("the last one");
    assert!(world.resumes(&stranger, &client), "the oldest goes first");
}

#[test]
fn a_slot_of_a_session_is_somebody_elses_after_the_others() {
    let mut world = World::new(NativeLimits::DEFAULT);
    world.epoch_ms = 0;
    let [key, other, third] = [&ENROLLED, &STRANGER, &[11; 32]].map(SigningKey::from_seed);
    let peer = world.join(&third, 0, [10, 0, 0, 3]);
    let mut clients: Vec<Client> =
        (0..4).map(|device| world.join(&key, device, [10, 0, 0, 1])).collect();
    world.net.full.insert(peer.conn);
    world.say(&mut clients[1], direct(peer.handle, 11), 1);
    // Both leave, and another session of their identity stays, so that their slots are free.
    for mut client in clients.drain(1..3) {
        let close = client.records.close(Code::Normal, 0, 0, 0).expect("a record");
        world.feed(client.conn, &close);
        world.relay.handle_closed(world.now, client.conn);
        world.turn();
    }
    let mut heir = world.join(&other, 0, [10, 0, 0, 2]);
    let slot = |handle: u64| handle & 0x00FF_FFFF;
    assert_eq!(slot(heir.handle), slot(clients[0].handle) + 1, "the one that was free first");
    world.say(&mut heir, direct(clients[0].handle, 11), 1);
    world.relay.handle_broken(world.now, peer.conn);
    world.turn();
    assert_eq!(world.told(&mut heir), [], "it was another's, of the same number");
    world.say(&mut heir, direct(clients[0].handle, 11), 1);
    assert_eq!(world.told(&mut heir), [Told::Nack(11, Code::Duplicate.wire())]);
}

/// Asks until its identity has nothing left to spend, and leaves with a CLOSE.
fn leave(world: &mut World, mut client: Client) {
    for _ in 0..4 {
        world.open(&mut client);
    }
    let close = client.records.close(Code::Normal, 0, 0, 0).expect("a record");
    world.feed(client.conn, &close);
    world.relay.handle_closed(world.now, client.conn);
    world.turn();
}

#[test]
fn what_is_left_of_who_left_pushes_out_no_session_that_waits() {
    let limits = NativeLimits { identity_messages_per_second: 2, ..NativeLimits::DEFAULT };
    let mut world = World::new(limits);
    let key = SigningKey::from_seed(&ENROLLED);
    let mine: Vec<Client> = (0..3).map(|nth| world.join(&key, nth, [127, 0, 0, 1])).collect();
    mine.iter().for_each(|client| world.cut(client));
    for nth in 0..200_u8 {
        let stranger = SigningKey::from_seed(&[20 + nth; 32]);
        let client = world.join(&stranger, 0, [127, 0, 0, 1]);
        leave(&mut world, client);
    }
    assert_eq!(world.relay.stats().sessions_evicted.value(), 0, "they are no sessions");
    assert!(mine.iter().all(|client| world.resumes(&key, client)));
    // The oldest of them gave way: what it spent is forgotten, and the youngest's is not.
    for (nth, published) in [(0, 1), (199, 1)] {
        let stranger = SigningKey::from_seed(&[20 + nth; 32]);
        let mut again = world.join(&stranger, 0, [127, 0, 0, 1]);
        let topic = world.open(&mut again);
        world.say(&mut again, publish(topic, 1), 1);
        assert_eq!(world.relay.stats().published.value(), published, "{nth}");
    }
}

#[test]
fn what_is_left_of_who_left_stands_for_as_long_as_it_owes() {
    let limits = NativeLimits { identity_messages_per_second: 2, ..NativeLimits::DEFAULT };
    let mut world = World::new(limits);
    let at = [127, 0, 0, 1];
    let held = |world: &World| world.relay.sessions_held();
    let client = world.join(&SigningKey::from_seed(&STRANGER), 0, at);
    leave(&mut world, client);
    assert_eq!(held(&world), 1);
    world.now = world.now.after(Duration::from_secs(5));
    world.relay.handle_timeout(world.now);
    assert_eq!(held(&world), 0, "its buckets are full again");
    // Who owes nothing is forgotten at once.
    let mut client = world.join(&SigningKey::from_seed(&STRANGER), 0, at);
    let close = client.records.close(Code::Normal, 0, 0, 0).expect("a record");
    world.feed(client.conn, &close);
    assert_eq!(held(&world), 0);
    // Who waits for its client stands for as long as ever.
    let client = world.join(&SigningKey::from_seed(&STRANGER), 0, at);
    world.cut(&client);
    world.now = world.now.after(Duration::from_secs(50));
    world.relay.handle_timeout(world.now);
    assert_eq!(held(&world), 1);
}

#[test]
fn who_knows_the_server_by_an_old_key_is_counted_by_that_key() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let key = SigningKey::from_seed(&STRANGER);
    let counted = |world: &World| {
        let stats = world.relay.stats();
        [stats.second_key_sessions, stats.third_key_sessions, stats.fourth_key_sessions]
            .map(Counter::value)
    };
    let pinned = |seed: &[u8; 32]| Some(SigningKey::from_seed(seed).identity());
    world.join(&key, 0, [10, 0, 0, 1]);
    world.pin = pinned(&NEW_KEY);
    world.join(&key, 1, [10, 0, 0, 1]);
    assert_eq!(counted(&world), [0, 0, 0]);
    world.pin = pinned(&OLD_KEY);
    let client = world.join(&key, 2, [10, 0, 0, 1]);
    assert_eq!(counted(&world), [1, 0, 0]);
    world.pin = pinned(&OLDER_KEY);
    world.join(&key, 3, [10, 0, 0, 1]);
    assert_eq!(counted(&world), [1, 1, 0]);
    // Whoever it has its session back from, it knows it by that one still.
    world.pin = None;
    world.cut(&client);
    world.come_back(&key, &client);
    assert_eq!(counted(&world), [2, 1, 0]);
}
