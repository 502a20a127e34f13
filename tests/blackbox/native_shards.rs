//! Native clients on several shards, beside lines: a session is on the shard of its identity, and
//! whoever it is, wherever it comes in, it is one relay. With the tokio-uring engine all sessions
//! are on the first shard.

use std::io::Write;
use std::thread;

use serde_json::Value;
use wardline_core::home_of;
use wardline_core::native::client::Fate;
use wardline_core::native::{Code, FrameKind, ServerControl, Start, flags};

use crate::harness::{
    Client, Launch, NativeClient, NativeDial, Outcome, PATIENCE, Relay, Said, key, on_each_engine,
    wardline,
};

/// What each client says.
const LINES: usize = 300;

/// The shard that a session is to be on.
fn home_of_key(relay: &Relay, number: u64, shards: u8) -> u64 {
    let home = home_of(key(number).identity().as_bytes(), shards);
    if relay.hands_over() { home.into() } else { 0 }
}

/// A native client that comes in at that shard. It is on the one of its key, wherever that is.
fn come_in(relay: &Relay, number: u64, shard: usize, shards: u8) -> NativeClient {
    let client = NativeDial::new(relay.native_door(shard), number).connect();
    assert_eq!(client.handle() >> 56, home_of_key(relay, number, shards), "key {number}");
    client
}

/// Two clients, each at home on another of two shards, and each let in by the other's.
fn two_strangers(relay: &Relay) -> [NativeClient; 2] {
    let of = |shard: u8| {
        let mut numbers = 1_u64..;
        numbers.find(|number| home_of(key(*number).identity().as_bytes(), 2) == shard)
    };
    let [first, second] = [of(0), of(1)].map(|number| number.expect("there are many"));
    [come_in(relay, first, 1, 2), come_in(relay, second, 0, 2)]
}

/// Two shards with so little memory that who does not read lags soon.
fn two_small_shards(engine: &'static str) -> Relay {
    Launch::of_both(engine)
        .shards(2)
        .set("pressure.lag_bytes", "1MiB")
        .set("limits.segments", "8MiB")
        .start()
}

/// Clients of lines on each shard, all of them in the room.
fn lines_everywhere(relay: &Relay, shards: usize) -> Vec<Client> {
    let mut clients: Vec<Client> =
        (0..shards * 2).map(|nth| relay.dial_shard(nth % shards).connect()).collect();
    relay.seat_by(relay.dial_shard(0).connect(), &mut clients);
    clients
}

/// Says its lines while it hears those of all others, of both dialects.
fn talk(mut client: Client, who: usize, others: usize) -> Vec<String> {
    let mut writer = client.writer();
    let said: String = (0..LINES).map(|n| format!("{who} \"line\\\" {n}\n")).collect();
    let talks = thread::spawn(move || {
        // In pieces, so that they come between each other.
        for piece in said.as_bytes().chunks(97) {
            writer.write_all(piece).expect("it is read");
            thread::yield_now();
        }
    });
    let heard = (0..others * LINES).map(|_| content_of(&client.line())).collect();
    talks.join().expect("all was said");
    heard
}

fn content_of(line: &str) -> String {
    let value: Value = serde_json::from_str(line).expect("an envelope");
    value["content"].as_str().expect("content").to_owned()
}

/// The same over the native dialect; it hears itself, too.
fn talk_native(mut client: NativeClient, who: usize, all: usize) -> Vec<String> {
    let mut heard = Vec::new();
    for n in 0..LINES {
        client.enqueue("main", format!("{who} native {n}").as_bytes());
        client.flush();
        while let Some(said) = client.hear(std::time::Duration::ZERO) {
            heard.extend(text_of(said));
        }
    }
    while heard.len() < all * LINES {
        heard.extend(client.hear(PATIENCE).and_then(text_of));
    }
    heard
}

fn text_of(said: Said) -> Option<String> {
    match said {
        Said::Frame(_, payload) => Some(String::from_utf8(payload).expect("text")),
        Said::Control(ServerControl::Verdict { .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn readers_of_both_dialects_on_all_shards_see_one_order() {
    on_each_engine(|engine| {
        for shards in [2, 3] {
            let relay = Launch::of_both(engine).shards(shards).start();
            let lines = lines_everywhere(&relay, shards);
            let natives: Vec<NativeClient> = (0..5)
                .map(|number| {
                    let shard = number as usize % shards;
                    let mut native = come_in(&relay, number, shard, shards as u8);
                    assert_eq!(native.subscribe("main", Start::Now).next, 0);
                    native
                })
                .collect();
            let all = lines.len() + natives.len();
            let (first, others) = (lines.len(), all - 1);
            let spoken = lines.into_iter().enumerate();
            let spoken: Vec<_> = spoken
                .map(|(who, client)| thread::spawn(move || talk(client, who, others)))
                .collect();
            let framed = natives.into_iter().enumerate();
            let framed: Vec<_> = framed
                .map(|(nth, client)| thread::spawn(move || talk_native(client, first + nth, all)))
                .collect();
            let heard: Vec<Vec<String>> = spoken
                .into_iter()
                .chain(framed)
                .map(|talk| talk.join().expect("it hears all"))
                .collect();
            assert_one_order(&heard, first);
        }
    });
}

/// What others of `heard` hear is what a native client hears, without their own lines.
fn assert_one_order(heard: &[Vec<String>], first_native: usize) {
    let order = &heard[first_native];
    let sender = |line: &str| -> usize {
        line.split(' ').next().and_then(|who| who.parse().ok()).expect("its sender")
    };
    let mut next = vec![0; heard.len()];
    for line in order {
        let nth = &mut next[sender(line)];
        assert!(line.ends_with(&format!(" {nth}")), "{line} is not the {nth}th");
        *nth += 1;
    }
    assert!(next.iter().all(|said| *said == LINES), "{next:?} of each were heard");
    for (who, lines) in heard.iter().enumerate() {
        let own = |line: &&String| who < first_native && sender(line) == who;
        assert!(order.iter().filter(|line| !own(line)).eq(lines), "{who} heard another order");
    }
}

#[test]
fn a_line_from_another_shard_has_a_handle_that_says_so() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(2).start();
        let mut native = relay.native(1);
        native.subscribe("main", Start::Now);
        let mut handles = Vec::new();
        for shard in [1, 0, 1] {
            let mut line = relay.dial_shard(shard).connect();
            line.say("here");
            let header = native.expect(b"here");
            assert!(header.has(flags::LINE) && header.peer >> 56 == shard as u64);
            assert_ne!(header.peer & 1 << 23, 0, "of a client of lines");
            assert_eq!(native.identify(header.peer), Ok([0; 32]));
            handles.push(header.peer);
        }
        handles.sort_unstable();
        handles.dedup();
        assert_eq!(handles.len(), 3, "three connections");
    });
}

#[test]
fn who_never_reads_on_another_shard_does_not_disturb_native_clients() {
    on_each_engine(|engine| {
        let relay = two_small_shards(engine);
        let mut stuck = relay.dial_shard(1).receive_buffer(4096).connect();
        let mut witness = relay.dial_shard(1).connect();
        relay.seat_by(relay.dial_shard(0).connect(), [&mut stuck, &mut witness]);
        let (mut speaker, mut reader) = (relay.native(1), relay.native(2));
        speaker.open("main").expect("it may");
        reader.subscribe("main", Start::Now);
        let body = "x".repeat(4 << 10);
        for n in 0..4_000 {
            let content = format!("{n} {body}");
            speaker.publish("main", content.as_bytes());
            reader.expect(content.as_bytes());
            assert_eq!(content_of(&witness.line()), content);
        }
        let (heard, _) = stuck.rest();
        let whole = heard.iter().filter(|byte| **byte == b'\n').count();
        assert!(whole < 4_000, "who never read was sent everything");
    });
}

#[test]
fn messages_and_questions_go_between_sessions_of_two_shards() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(2).start();
        let [mut near, mut far] = two_strangers(&relay);
        for nth in 0..100 {
            let text = format!("psst {nth}");
            near.send_to(FrameKind::Direct, (far.handle(), 0), text.as_bytes());
            let header = far.expect(text.as_bytes());
            assert_eq!((header.kind, header.peer), (FrameKind::Direct, near.handle()));
            let mid = far.send_to(FrameKind::Request, (near.handle(), 0), b"what did you say?");
            let asked = near.expect(b"what did you say?");
            assert_eq!((asked.kind, asked.mid), (FrameKind::Request, mid));
            near.send_to(FrameKind::Reply, (asked.peer, asked.mid), text.as_bytes());
            let answer = far.expect(text.as_bytes());
            assert_eq!((answer.kind, answer.corr), (FrameKind::Reply, mid));
            assert_eq!(answer.peer, near.handle());
        }
        for (client, said) in [(&mut near, 200), (&mut far, 100)] {
            assert!(client.barrier());
            let fates = client.settled();
            assert_eq!(fates.len(), said);
            assert!(fates.iter().all(|(_, fate)| *fate == Fate::Taken));
        }
        let handles = [near.handle(), far.handle()];
        for handle in handles {
            let is = near.identify(handle).expect("a session's");
            assert_ne!(is, [0; 32]);
            assert_eq!(far.identify(handle), Ok(is));
        }
        // Who is not there any more.
        let gone = far.handle();
        far.close();
        for kind in [FrameKind::Direct, FrameKind::Request] {
            let mid = near.send_to(kind, (gone, 0), b"anybody?");
            assert_eq!(near.nacked(mid), Code::NoRoute);
        }
        assert_eq!(near.identify(gone), Err(Code::NoRoute));
    });
}

#[test]
fn a_later_login_of_a_device_ends_the_one_before_wherever_it_came_in() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(2).start();
        for number in 0..4 {
            let mut before = come_in(&relay, number, 0, 2);
            let after = come_in(&relay, number, 1, 2);
            assert_eq!(before.closed(), Some(Code::Superseded), "key {number}");
            assert_ne!(before.handle(), after.handle());
            after.close();
        }
    });
}

#[test]
fn a_session_is_resumed_by_any_shard() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(2).start();
        for mut client in two_strangers(&relay) {
            let mut other = relay.native(100);
            other.open("news").expect("it may");
            let handle = client.handle();
            let place = client.subscribe("news", Start::Now);
            let mut next = place.next;
            for round in 0..10 {
                client.abort();
                let news = format!("round {round}");
                other.publish("news", news.as_bytes());
                assert!(other.barrier());
                client.turn_to(relay.native_door(round % 2));
                client.reconnect(true).expect("its session waits for it");
                assert!(client.is_resumed());
                assert_eq!(client.handle(), handle);
                let again =
                    client.subscribe("news", Start::Offset { epoch: place.epoch, offset: next });
                assert_eq!(again.epoch, place.epoch);
                assert_eq!(client.expect(news.as_bytes()).offset, next);
                // Taken once: nothing that was said before is said again.
                client.publish("news", b"heard");
                assert_eq!(client.expect(b"heard").offset, next + 1);
                next += 2;
            }
            assert!(client.barrier());
            let fates = client.settled();
            assert!(fates.len() == 10 && fates.iter().all(|(_, fate)| *fate == Fate::Taken));
            client.close();
            other.close();
        }
    });
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn who_reads_a_topic_is_known_on_all_shards() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(3).start();
        let mut clients: Vec<NativeClient> =
            (0..6).map(|number| come_in(&relay, number, number as usize % 3, 3)).collect();
        let mut handles = Vec::new();
        for at in 0..clients.len() {
            let topic = clients[at].watch("t").expect("it may").topic;
            let handle = clients[at].handle();
            handles.push(handle);
            for (client, other) in clients.iter_mut().zip(handles.clone()) {
                if other != handle {
                    let topic = client.number("t");
                    assert_eq!(client.presence(), ServerControl::Joined { topic, handle });
                }
            }
            let mut found = clients[at].who(topic).expect("it may");
            found.sort_unstable();
            let mut expected = handles.clone();
            expected.sort_unstable();
            assert_eq!(found, expected, "each of them once");
        }
        while let Some(gone) = clients.pop() {
            let handle = gone.handle();
            gone.close();
            for client in &mut clients {
                let topic = client.number("t");
                assert_eq!(client.presence(), ServerControl::Left { topic, handle });
            }
        }
    });
}

#[test]
fn a_native_reader_that_never_reads_does_not_disturb_those_of_other_shards() {
    on_each_engine(|engine| {
        let relay = two_small_shards(engine);
        let [mut near, mut far] = two_strangers(&relay);
        let mut stuck: Vec<_> = (0..6)
            .map(|number| {
                let door = relay.native_door(number as usize % 2);
                let mut dial = NativeDial::new(door, 200 + number).receive_buffer(4096);
                dial = dial.recv_max(64 << 10);
                let mut client = dial.connect();
                client.subscribe("main", Start::Now);
                client
            })
            .collect();
        near.open("main").expect("it may");
        far.subscribe("main", Start::Now);
        let body = "x".repeat(4 << 10);
        for n in 0..4_000_u64 {
            let content = format!("{n} {body}");
            near.publish("main", content.as_bytes());
            assert_eq!(far.expect(content.as_bytes()).offset, n);
        }
        // What they were not sent, they are told of.
        for client in &mut stuck {
            let mut told = 0;
            while told < 4_000 {
                match client.hear(PATIENCE) {
                    Some(Said::Frame(header, _)) if header.offset == told => told += 1,
                    Some(Said::Control(ServerControl::Gap { from, to, .. })) if from == told => {
                        told = to;
                    }
                    Some(Said::Close(_) | Said::End(_)) => break,
                    other => panic!("after {told}: {other:?}"),
                }
            }
        }
    });
}

#[test]
fn it_says_where_native_clients_are_and_what_is_bound() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(2).start();
        let alone = !relay.hands_over();
        relay.wait_for_log(if alone {
            "2 shards, native sessions on shard 0"
        } else {
            "2 shards; "
        });
        let text = std::fs::read_to_string(relay.dir().join("ports")).expect("it is there");
        let shown = text.lines().map(|line| {
            let (url, shard) = line.split_once(' ').unwrap_or((line, "-"));
            format!("{} {shard}", url.split(':').next().expect("a scheme"))
        });
        let mut bound =
            vec!["native shard-0", "line -", "mixed shard-0", "line shard-0", "line shard-1"];
        if !alone {
            bound = vec!["native -", "line -", "mixed -"];
            bound.extend(["native shard-0", "line shard-0", "mixed shard-0"]);
            bound.extend(["native shard-1", "line shard-1", "mixed shard-1"]);
        }
        assert_eq!(Vec::from_iter(shown), bound);
        // A mixed listener takes both.
        let mut line = relay.connect_to(2);
        let mut far = relay.dial_shard(1).connect();
        relay.seat_by(relay.dial_shard(0).connect(), [&mut line, &mut far]);
        far.say("over there");
        line.expect(&far.envelope("over there"));
    });
}

#[test]
fn the_plan_divides_native_tables_among_shards() {
    let plan = |shards: &str| -> Value {
        let listen = "server.listen=native://127.0.0.1:1,line://127.0.0.1:2";
        let asked = ["plan", "--json", "--shards", shards, "--set", listen];
        let outcome = Outcome::of(wardline().args(asked));
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        serde_json::from_str(&outcome.stdout).expect("JSON")
    };
    let counts = |shards: &str, name: &str| -> u64 {
        let plan = plan(shards);
        let items = plan["items"].as_array().expect("items").clone();
        let item = items.iter().find(|item| item["name"] == name).expect("the table");
        item["count"].as_u64().expect("a number")
    };
    for shards in ["1", "2", "4"] {
        assert_eq!(counts(shards, "native connections"), counts(shards, "sessions"), "{shards}");
    }
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn a_drain_ends_sessions_and_lines_on_all_shards() {
    use crate::harness::SHUTDOWN_WARNING;
    use rustix::process::Signal;

    on_each_engine(|engine| {
        let mut relay = Launch::of_both(engine).shards(2).start();
        let mut lines = lines_everywhere(&relay, 2);
        let mut natives = two_strangers(&relay);
        for native in &mut natives {
            native.subscribe("main", Start::Now);
        }
        relay.signal(Signal::TERM);
        for native in &mut natives {
            assert_eq!(native.closed(), Some(Code::GoingAway));
        }
        for client in &mut lines {
            let (rest, _) = client.rest();
            let rest = String::from_utf8(rest).expect("UTF-8");
            assert!(rest.ends_with(SHUTDOWN_WARNING), "not told: {rest:?}");
        }
        drop((lines, natives));
        assert_eq!(relay.wait(PATIENCE).code(), Some(0));
    });
}
