//! Who is over its rate, and who is only slowed.

use std::collections::VecDeque;

use super::*;

/// Who sends, and what its socket has not been rid of.
struct Sender {
    client: Client,
    topic: u32,
    mid: u64,
    waits: VecDeque<u8>,
}

impl World {
    /// 10 ms pass in which each sends so many more messages, as far as it is read.
    fn press(&mut self, senders: &mut [(&mut Sender, u64)]) {
        self.now = self.now.after(Duration::from_millis(10));
        self.turn();
        for (sender, count) in senders {
            for _ in 0..*count {
                let header = publish(sender.topic, sender.mid);
                sender.mid += 1;
                let bytes = record(&mut sender.client, header, 1);
                sender.waits.extend(bytes);
            }
            let conn = sender.client.conn;
            while !sender.waits.is_empty() && !self.net.paused.contains(&conn) {
                let most = sender.waits.len().min(16 << 10);
                let bytes: Vec<u8> = sender.waits.drain(..most).collect();
                self.feed(conn, &bytes);
            }
            self.net.down.clear();
        }
    }

    fn sender(&mut self, key: &SigningKey, device: u32, ip: [u8; 4]) -> Sender {
        let mut client = self.join(key, device, ip);
        let topic = self.open(&mut client);
        Sender { client, topic, mid: 1, waits: VecDeque::new() }
    }

    fn rate_offences(&self) -> u64 {
        self.relay.stats().rate_offences.value()
    }
}

/// A hundred messages a second, two hundred at once, and nothing else that holds anybody.
const HUNDRED: NativeLimits = NativeLimits {
    messages_per_second: 100,
    bytes_per_second: 0,
    identity_messages_per_second: 0,
    identity_bytes_per_second: 0,
    deliveries_per_second: 0,
    ..NativeLimits::DEFAULT
};

/// Whoever it is, and where it comes from.
fn somebody() -> (SigningKey, [u8; 4]) {
    (SigningKey::from_seed(&STRANGER), [10, 0, 0, 1])
}

#[test]
fn who_stays_over_its_rate_is_slowed_and_then_charged_by_the_second() {
    let mut world = World::new(HUNDRED);
    let (key, ip) = somebody();
    let mut sender = world.sender(&key, 0, ip);
    // 200 at once, which are gone within half a second; then ten seconds are free.
    let mut offences = Vec::new();
    for second in 0..35 {
        (0..100).for_each(|_| world.press(&mut [(&mut sender, 5)]));
        offences.push(world.rate_offences());
        assert_eq!(world.is_free(ip), second < 30, "at {second}");
    }
    assert_eq!(offences[9..14], [0, 1, 2, 3, 4]);
    // Twenty-one are a strike, for points leak; who pays for one is not charged for being slow.
    assert_eq!(offences[28..], [19, 20, 21, 21, 21, 21, 21]);
    assert!(matches!(world.relay.verdict(world.now, IpAddr::from(ip)), Verdict::Throttled(_)));
    assert_eq!(world.relay.stats().offence_points.value(), 105);
    assert_eq!(world.relay.stats().strikes.value(), 1);
    // Nothing is dropped.
    assert_eq!(world.relay.stats().nacks.value(), 0);
    (0..6_500).for_each(|_| world.press(&mut [(&mut sender, 0)]));
    assert_eq!(world.rate_offences(), 21);
    (0..4_000).for_each(|_| world.press(&mut [(&mut sender, 2)]));
    assert!(world.rate_offences() > 21, "it learned nothing");
}

#[test]
fn who_is_known_pays_for_its_rate_itself() {
    let mut world = World::new(HUNDRED);
    let mut sender = world.sender(&SigningKey::from_seed(&ENROLLED), 0, [10, 0, 0, 1]);
    (0..3_500).for_each(|_| world.press(&mut [(&mut sender, 5)]));
    assert_eq!((world.rate_offences(), world.relay.stats().identity_points.value()), (21, 105));
    assert_eq!(world.relay.stats().offence_points.value(), 0);
    assert!(world.is_free([10, 0, 0, 1]));
    // At an exempt address nobody pays.
    let mut world = World::new(HUNDRED);
    let mut sender = world.sender(&SigningKey::from_seed(&ENROLLED), 0, [127, 0, 0, 1]);
    (0..3_500).for_each(|_| world.press(&mut [(&mut sender, 5)]));
    let stats = world.relay.stats();
    assert_eq!((stats.identity_points.value(), stats.strikes.value()), (0, 0));
}

#[test]
fn who_keeps_to_its_rate_is_never_charged_however_unevenly() {
    // So many messages each so many steps of 10 ms: a hundred a second.
    for (count, steps) in [(1, 1), (7, 7), (50, 50), (100, 100), (300, 300), (900, 900)] {
        let mut world = World::new(HUNDRED);
        let (key, ip) = somebody();
        let mut sender = world.sender(&key, 0, ip);
        // Its bucket is empty from the beginning, and a little more waits.
        world.press(&mut [(&mut sender, 240)]);
        for step in 1..20_000 {
            // Now too early, now too late.
            let late = (step / steps) % 3;
            let count = if step % steps == late % steps { count } else { 0 };
            world.press(&mut [(&mut sender, count)]);
        }
        assert!(world.relay.stats().native_held.value() > 0, "{count} each {steps}");
        assert_eq!(world.rate_offences(), 0, "{count} each {steps}");
    }
    // And who says more at once than ten seconds' worth, but not again.
    let mut world = World::new(HUNDRED);
    let (key, ip) = somebody();
    let mut sender = world.sender(&key, 0, ip);
    world.press(&mut [(&mut sender, 1_200)]);
    (0..2_000).for_each(|_| world.press(&mut [(&mut sender, 0)]));
    assert_eq!((world.rate_offences(), sender.waits.len()), (0, 0));
}

#[test]
fn what_others_cost_a_sender_is_not_its_offence() {
    // Its other devices: each keeps to what it was told, all together are slowed.
    let mut world = World::new(NativeLimits { identity_messages_per_second: 120, ..HUNDRED });
    let (key, ip) = somebody();
    let mut one = world.sender(&key, 0, ip);
    let mut other = world.sender(&key, 1, ip);
    for _ in 0..6_000 {
        world.press(&mut [(&mut one, 1), (&mut other, 1)]);
    }
    assert!(world.relay.stats().identity_held.value() > 1_000);
    assert_eq!(world.rate_offences(), 0);
    // The other goes; what has piled up is more than fifteen seconds' worth, and takes its time.
    assert!(one.waits.len() > 1_500 * 85);
    (0..24_000).for_each(|_| world.press(&mut [(&mut one, 1)]));
    assert_eq!(world.rate_offences(), 0);
    // Who goes on to send more is over its rate all the same.
    (0..130_000).for_each(|_| world.press(&mut [(&mut one, 2)]));
    assert!(world.rate_offences() > 0);
}

#[test]
fn what_readers_cost_a_sender_is_not_its_offence() {
    let mut world = World::new(NativeLimits { deliveries_per_second: 60, ..HUNDRED });
    let (key, ip) = somebody();
    let mut sender = world.sender(&key, 0, ip);
    let mut reader = world.join(&SigningKey::from_seed(&ENROLLED), 0, [10, 0, 0, 2]);
    let (from, echo, presence) = (Start::Now, false, false);
    let value = ClientControl::Subscribe { ask: 1, name: "t", from, echo, presence };
    let value = value.encode().expect("a value");
    let header = reader.records.sending.control(value.as_bytes()).expect("a record");
    world.feed(reader.conn, &[&header[..], value.as_bytes()].concat());
    (0..6_000).for_each(|_| world.press(&mut [(&mut sender, 1)]));
    world.relay.handle_closed(world.now, reader.conn);
    assert!(sender.waits.len() > 2_000 * 85);
    (0..30_000).for_each(|_| world.press(&mut [(&mut sender, 1)]));
    assert_eq!(world.rate_offences(), 0);
}
