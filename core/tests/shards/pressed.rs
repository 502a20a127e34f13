//! What must hold between sessions of two shards where lines are long, memory is short, or much is
//! asked.

use wardline_core::native::{ClientControl, FrameKind, Start, flags};
use wardline_core::{ConnId, Ring};

use super::native::{Both, Client, HERE};
use super::process::{NOW, accept, carry_into, limits, settle_into};

#[test]
fn a_line_that_is_longer_as_a_frame_goes_to_other_shards() {
    let mut limits = limits();
    limits.native.payload_bytes_max = 16 << 10;
    let mut both = Both::new(limits);
    let mut reader = Client::at(&mut both, 1, 2);
    reader.subscribe(&mut both, true, Start::Now);
    let near = both.line(0);
    // Its envelope is as long as one may be: 43 bytes more, with an address as short as this.
    let line = vec![b'x'; (64 << 10) - 43];
    both.say(0, near, &line);
    both.settle();
    reader.hear(&mut both);
    assert_eq!(reader.heard(), [line]);
    assert_eq!(both.home.stats().envelope_too_long.value(), 0);
}

#[test]
fn a_verdict_counts_each_reader_of_each_shard() {
    let mut both = Both::new(limits());
    let mut speakers = [Client::at(&mut both, 1, 1), Client::new(&mut both, 5)];
    let mut readers =
        [(1, 2), (1, 3), (0, 4)].map(|(shard, seed)| Client::at(&mut both, shard, seed));
    let lines = [0, 1, 1].map(|shard| both.line(shard));
    for client in speakers.iter_mut().chain(&mut readers) {
        client.subscribe(&mut both, false, Start::Now);
        client.values.clear();
    }
    for speaker in &mut speakers {
        speaker.say(&mut both, b"how many?", flags::VERDICT);
        both.settle();
        speaker.hear(&mut both);
        assert!(speaker.values[0].contains("readers: 7"), "{:?}", speaker.values);
    }
    for reader in &mut readers {
        reader.hear(&mut both);
        assert_eq!(reader.heard().len(), 2);
    }
    // One native client and one of lines go.
    let [gone, ..] = readers;
    both.far.handle_closed(NOW, gone.conn);
    both.far.handle_closed(NOW, lines[1]);
    both.settle();
    for speaker in &mut speakers {
        speaker.values.clear();
        speaker.say(&mut both, b"and now?", flags::VERDICT);
        both.settle();
        speaker.hear(&mut both);
        assert!(speaker.values[0].contains("readers: 5"), "{:?}", speaker.values);
    }
}

#[test]
fn who_left_is_in_no_answer_that_comes_after() {
    let mut both = Both::new(limits());
    let mut near = Client::new(&mut both, 1);
    let mut far = Client::at(&mut both, 1, 2);
    far.subscribe(&mut both, true, Start::Now);
    let (name, from) = ("main", Start::Now);
    near.ask(
        &mut both,
        &ClientControl::Subscribe { ask: 1, name, from, echo: true, presence: true },
    );
    let who = ClientControl::Who { ask: 3, topic: near.topic, after: 1 << 56 };
    let who = who.encode().expect("a value");
    let header = near.records.sending.control(who.as_bytes()).expect("open");
    both.home.handle_input(NOW, near.conn, &[&header[..], who.as_bytes()].concat());
    settle_into(&mut both.home, &[], &mut both.sent[0]);
    carry_into(&mut both.home, &mut both.far, Ring::Publish, &mut both.sent[1]);
    // The answer waits in a ring that its reader does not come to, and the session ends.
    let mut told = vec![0; both.far.limits().record_bytes_max()];
    let len = both.far.link_take(NOW, 0, Ring::Log, &mut told);
    assert!(len > 0);
    both.far.handle_closed(NOW, far.conn);
    settle_into(&mut both.far, &[], &mut both.sent[1]);
    carry_into(&mut both.far, &mut both.home, Ring::Publish, &mut both.sent[0]);
    assert_eq!(both.home.handle_link(NOW, 1, Ring::Log, &told[..len]).bytes, len);
    near.values.clear();
    both.settle();
    near.hear(&mut both);
    let at = |what: &str| near.values.iter().position(|it| it.starts_with(what));
    let (there, left) = (at("Identity").expect("it was there"), at("Left").expect("it left"));
    assert!(there < left, "{:?}", near.values);
}

#[test]
fn what_many_peers_refuse_does_not_hold_a_shard_up() {
    let mut both = Both::new(limits());
    let near = Client::new(&mut both, 1);
    let mut far = Client::at(&mut both, 1, 2);
    far.hear(&mut both);
    for _ in 0..200 {
        // Nobody has that handle.
        far.say_to(&mut both, FrameKind::Direct, near.handle + (1 << 24), b"x");
    }
    settle_into(&mut both.far, &[], &mut both.sent[1]);
    let mut room = vec![0; both.far.limits().record_bytes_max()];
    let len = both.far.link_take(NOW, 0, Ring::Publish, &mut room);
    let taken = both.home.handle_link(NOW, 1, Ring::Publish, &room[..len]);
    assert_eq!((taken.bytes, both.home.stats().link_waits.value()), (len, 0));
}

/// Reads all records of a ring as they come, for a relay whose sockets `stuck` take nothing.
fn bring(both: &mut Both, ring: Ring, stuck: &[ConnId]) {
    let mut room = vec![0; both.home.limits().record_bytes_max()];
    loop {
        let (from, to, shard) = match ring {
            Ring::Publish => (&mut both.far, &mut both.home, 0),
            Ring::Log => (&mut both.home, &mut both.far, 1),
        };
        let len = from.link_take(NOW, shard, ring, &mut room);
        let mut done = 0;
        while done < len {
            done += to.handle_link(NOW, 1 - shard, ring, &room[done..len]).bytes;
            settle_into(to, stuck, &mut both.sent[usize::from(shard)]);
        }
        if len == 0 {
            break;
        }
    }
}

#[test]
fn messages_of_a_peer_that_is_gone_come_back_though_memory_is_short() {
    let mut limits = limits();
    limits.blocks = 256;
    limits.quarantine.connects_per_minute = 100_000;
    let mut both = Both::new(limits);
    let mut far = Client::at(&mut both, 1, 2);
    let peers = [Client::new(&mut both, 1), Client::new(&mut both, 3)];
    let topic = both.topic;
    let fillers = [(); 4].map(|()| accept(&mut both.home, topic, HERE));
    let stuck = [peers[0].conn, peers[1].conn];
    far.hear(&mut both);
    far.values.clear();
    for n in 0..60 {
        far.say_to(&mut both, FrameKind::Direct, peers[n % 2].handle, &[b'y'; 8_000]);
        settle_into(&mut both.far, &[], &mut both.sent[1]);
        bring(&mut both, Ring::Publish, &stuck);
        bring(&mut both, Ring::Log, &[]);
    }
    far.hear(&mut both);
    let refused = far.values.iter().filter(|it| it.starts_with("Nack")).count();
    assert_eq!(refused, far.values.len());
    // Unfinished lines take the rest.
    for conn in fillers.iter().cycle().take(4 * 31) {
        if both.home.memory_used().0 < limits.blocks {
            both.home.handle_input(NOW, *conn, &[b'z'; 2_048]);
        }
    }
    assert_eq!(both.home.memory_used().0, limits.blocks, "there is no more");
    both.home.handle_closed(NOW, peers[0].conn);
    bring(&mut both, Ring::Log, &[]);
    settle_into(&mut both.far, &[], &mut both.sent[1]);
    far.hear(&mut both);
    let told = far.values.len() - refused;
    assert_eq!((told > 20, both.home.stats().notes_lost.value()), (true, 0), "{told}");
}
