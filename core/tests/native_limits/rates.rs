//! Senders of lines that are over their rate, and that were.

use super::*;

const AT: [u8; 4] = [10, 0, 0, 1];

struct Sender {
    world: World,
    conn: ConnId,
}

impl Sender {
    fn new() -> Self {
        let mut world = World::new(NativeLimits::DEFAULT);
        let topic = world.relay.listen("main").expect("a topic");
        let addr = SocketAddr::new(IpAddr::from(AT), 9);
        let conn = world.relay.handle_accept(world.now, Remote { addr, topic }).expect("a room");
        Self { world, conn }
    }

    /// Says so many lines a second for so long, or until it was struck so often.
    fn say(&mut self, per_second: u64, seconds: u64, strikes: u64) {
        for _ in 0..per_second * seconds {
            if self.strikes() >= strikes {
                return;
            }
            let span = Duration::from_nanos(1_000_000_000 / per_second);
            self.world.now = self.world.now.after(span);
            self.world.relay.handle_timeout(self.world.now);
            self.world.feed(self.conn, b"hello\n");
        }
    }

    fn strikes(&self) -> u64 {
        self.world.relay.stats().strikes.value()
    }
}

#[test]
fn who_was_struck_and_goes_on_at_its_rate_is_not_struck_again() {
    let mut sender = Sender::new();
    sender.say(12, 600, 1);
    assert_eq!(sender.strikes(), 1);
    let denied = sender.world.relay.stats().over_rate.value();
    // 300 a minute are five a second. A tenth of that is relayed for a minute.
    sender.say(5, 50, 2);
    assert!(sender.world.relay.stats().over_rate.value() > denied + 200);
    sender.say(5, 600, 2);
    assert_eq!(sender.strikes(), 1);
    let denied = sender.world.relay.stats().over_rate.value();
    sender.say(5, 60, 2);
    assert_eq!(sender.world.relay.stats().over_rate.value(), denied);
}

#[test]
fn who_was_struck_and_goes_on_over_its_rate_is_refused() {
    let mut sender = Sender::new();
    sender.say(12, 600, 2);
    assert_eq!(sender.strikes(), 2);
    let verdict = sender.world.relay.verdict(sender.world.now, IpAddr::from(AT));
    assert!(matches!(verdict, Verdict::Refused(_)), "{verdict:?}");
}
