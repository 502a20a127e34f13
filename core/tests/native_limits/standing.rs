//! Who is charged with what it does, and what becomes of an identity that is struck.

use super::*;

/// A puzzle of struck identities that takes no time.
const STRUCK: NativeLimits = NativeLimits { puzzle_bits_struck: 9, ..NativeLimits::DEFAULT };

impl World {
    /// The bits of the puzzle that a newcomer from there is set.
    fn bits(&mut self, ip: [u8; 4]) -> u8 {
        let (conn, bits) = self.begin(ip);
        self.gone(conn);
        bits.expect("a CHALLENGE")
    }

    fn gone(&mut self, conn: ConnId) {
        self.relay.handle_closed(self.now, conn);
        self.turn();
    }

    /// What it is told instead of being let in, and when it may come back.
    fn refused(&mut self, key: &SigningKey, ip: [u8; 4]) -> (u16, u32) {
        self.ask_in(key, 0, ip).map(|client| client.conn).expect_err("it is refused")
    }

    /// Says AUTH, with a solution or a number that is none, and as somebody else if told so; the
    /// code of the ALERT.
    fn auth(&mut self, key: &SigningKey, ip: [u8; 4], solved: bool, who: Option<Identity>) -> u16 {
        let conn = self.connect(ip);
        let (hello, wait) = attempt(key, self.port).hello();
        self.feed(conn, hello.as_bytes());
        let answered = wait.answer(&self.had(conn), self.now).expect("an answer");
        let Answered::Challenged(challenged) = answered else { panic!("it was not challenged") };
        let puzzle = challenged.puzzle();
        let find = |wanted| (0..1 << 22).find(|nth| puzzle.is_solved_by(*nth) == wanted);
        let (solution, said) = (find(true).expect("one"), find(solved).expect("one"));
        let (auth, _) = challenged.auth(solution, 0, self.epoch_ms).expect("keys");
        let mut auth = *auth.as_bytes();
        auth[8..16].copy_from_slice(&said.to_le_bytes());
        if let Some(who) = who {
            auth[16..48].copy_from_slice(who.as_bytes());
        }
        self.feed(conn, &auth);
        let had = self.had(conn);
        self.gone(conn);
        assert_eq!(had[4], ALERT);
        u16::from_le_bytes([had[8], had[9]])
    }

    /// Has a known identity struck so often, each time from addresses of its own.
    fn strike(&mut self, key: &SigningKey, times: u8) {
        for nth in 0..times * 4 {
            let ip = [10, 0, 1, nth];
            let client = match self.ask_in(key, 0, ip) {
                Ok(client) => client,
                Err((code, _)) if code == Code::PuzzleRequired.wire() => self.join(key, 0, ip),
                Err(other) => panic!("{other:?}"),
            };
            self.offend(client);
        }
        assert_eq!(self.relay.stats().strikes.value(), u64::from(times));
    }
}

#[test]
fn who_is_known_is_charged_itself_wherever_it_comes_from() {
    let mut world = World::new(STRUCK);
    let known = SigningKey::from_seed(&ENROLLED);
    let from = |nth: u8| [10, 0, nth, 1];
    for nth in 0..4 {
        let client = world.join(&known, 0, from(nth));
        world.offend(client);
    }
    // The first strike slows it: what it says costs ten times as much.
    let mut slow = world.join(&known, 0, from(4));
    let topic = world.open(&mut slow);
    world.say(&mut slow, publish(topic, 1), 250);
    let published = world.relay.stats().published.value();
    assert_eq!(published, 199, "2,000 at once, at ten times the price, and an Open");
    world.gone(slow.conn);
    // Its puzzle is as easy as anybody's still.
    assert_eq!(world.bits(from(5)), 0);
    for nth in 5..9 {
        let client = world.join(&known, 0, from(nth));
        world.offend(client);
    }
    // The second sets it a puzzle; its addresses have done nothing, and others come in from there.
    assert_eq!(world.refused(&known, from(9)), (Code::PuzzleRequired.wire(), 0));
    let stranger = SigningKey::from_seed(&STRANGER);
    assert!(world.try_join(&stranger, 0, from(9)).is_ok());
    world.now = world.now.after(Duration::from_secs(10));
    let mut slow = world.join(&known, 0, from(9));
    let topic = world.open(&mut slow);
    world.say(&mut slow, publish(topic, 1), 250);
    assert_eq!(world.relay.stats().published.value(), published + 199, "and it pays as much");
    assert!((0..10).all(|nth| world.is_free(from(nth))));
    assert_eq!(world.relay.stats().identity_points.value(), 200);
    assert_eq!(world.relay.stats().offence_points.value(), 0);
}

#[test]
fn who_is_struck_twice_solves_a_puzzle_and_thrice_is_refused() {
    let mut world = World::new(STRUCK);
    let known = SigningKey::from_seed(&ENROLLED);
    let [here, there] = [[10, 0, 2, 1], [10, 0, 2, 2]];
    world.strike(&known, 2);
    // Who it is was not known when the first one was set.
    assert_eq!(world.bits(here), 0);
    assert_eq!(world.refused(&known, here), (Code::PuzzleRequired.wire(), 0));
    assert_eq!((world.bits(here), world.bits(there)), (9, 0), "no other address");
    let client = world.join(&known, 0, here);
    // It has its session back without one, wherever it is.
    world.cut(&client);
    assert!(world.resumes_from(&known, &client, there));
    // Three minutes later it is asked still, and its address, and six minutes later neither.
    world.now = world.now.after(Duration::from_secs(180));
    assert_eq!(world.bits(here), 9);
    assert_eq!(world.refused(&known, there), (Code::PuzzleRequired.wire(), 0));
    world.now = world.now.after(Duration::from_secs(180));
    assert_eq!((world.bits(here), world.bits(there)), (0, 0));
    let client = world.join(&known, 0, here);
    world.offend(client);
    for nth in 0..3 {
        let client = world.join(&known, 0, [10, 0, 3, nth]);
        world.offend(client);
    }
    let (code, retry_ms) = world.refused(&known, here);
    assert_eq!(code, Code::Quarantined.wire());
    assert!((959_000..=1_201_000).contains(&retry_ms), "{retry_ms}");
    assert_eq!(world.bits(here), 0, "who is refused has others solve nothing");
    world.now = world.now.after(Duration::from_millis(u64::from(retry_ms) + 1_000));
    assert!(world.try_join(&known, 0, here).is_ok());
}

#[test]
fn who_only_claims_to_be_struck_learns_nothing_and_changes_nothing() {
    let mut world = World::new(STRUCK);
    let known = SigningKey::from_seed(&ENROLLED);
    world.strike(&known, 2);
    let liar = SigningKey::from_seed(&STRANGER);
    let ip = [10, 0, 2, 1];
    let told = world.auth(&liar, ip, true, Some(known.identity()));
    assert_eq!(told, Code::AuthFailed.wire());
    assert_eq!(world.bits(ip), 0, "nobody's word is taken");
}

#[test]
fn a_puzzle_that_was_not_solved_is_charged_and_one_that_was_never_set_is_not() {
    let mut world = World::new(STRUCK);
    let known = SigningKey::from_seed(&ENROLLED);
    world.strike(&known, 2);
    let (ip, wanted) = ([10, 0, 2, 1], world.relay.stats().puzzles_wanted.value());
    assert_eq!(world.auth(&known, ip, true, None), Code::PuzzleRequired.wire());
    assert_eq!(world.relay.stats().puzzles_wanted.value(), wanted + 1);
    assert_eq!(world.relay.stats().offence_points.value(), 0);
    // Now it is set, and somebody does not solve it.
    assert_eq!(world.auth(&known, ip, false, None), Code::PuzzleRequired.wire());
    assert_eq!(world.relay.stats().puzzles_wanted.value(), wanted + 1);
    assert_eq!(world.relay.stats().offence_points.value(), 20);
    // At an exempt address nobody is asked.
    assert!(world.try_join(&known, 0, [127, 0, 0, 1]).is_ok());
}

#[test]
fn who_is_not_known_is_charged_to_its_address_until_it_has_done_well_for_an_hour() {
    let mut world = World::new(NativeLimits::DEFAULT);
    let stranger = SigningKey::from_seed(&STRANGER);
    for nth in 0..4 {
        let client = world.join(&stranger, nth, [10, 0, 0, 1]);
        world.offend(client);
    }
    assert!(!world.is_free([10, 0, 0, 1]) && world.is_free([10, 0, 0, 2]));
    assert_eq!(world.relay.stats().identity_points.value(), 0);
    assert_eq!(world.relay.stats().offence_points.value(), 100);
    // At an exempt address nobody is charged.
    let client = world.join(&stranger, 0, [127, 0, 0, 1]);
    world.offend(client);
    assert_eq!(world.relay.stats().offence_points.value(), 100);
    let mut client = world.join(&stranger, 0, [10, 0, 0, 2]);
    for _ in 0..61 {
        world.now = world.now.after(Duration::from_secs(60));
        let ping = client.records.ping([7; 8]).expect("a record");
        world.feed(client.conn, &ping);
        assert!(world.told(&mut client).contains(&Told::Pong));
    }
    world.offend(client);
    assert_eq!(world.relay.stats().identity_points.value(), 25);
    assert_eq!(world.relay.stats().offence_points.value(), 100);
}
