//! Native clients beside several shards: the first shard has them all, and lines are everywhere.

use std::io::Write;
use std::thread;

use serde_json::Value;
use wardline_core::native::{ServerControl, Start, flags};

use crate::harness::{
    Client, Launch, NativeClient, Outcome, Relay, Said, on_each_engine, wardline,
};

/// What each client says.
const LINES: usize = 300;

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
        heard.extend(client.hear(crate::harness::PATIENCE).and_then(text_of));
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
            let natives: Vec<NativeClient> = (1..3)
                .map(|number| {
                    let mut native = relay.native(number);
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
        let relay = Launch::of_both(engine)
            .shards(2)
            .set("pressure.lag_bytes", "1MiB")
            .set("limits.segments", "8MiB")
            .start();
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
fn it_says_where_native_clients_are_and_what_is_bound() {
    on_each_engine(|engine| {
        let relay = Launch::of_both(engine).shards(2).start();
        relay.wait_for_log("2 shards, native sessions on shard 0");
        let text = std::fs::read_to_string(relay.dir().join("ports")).expect("it is there");
        let shown = text.lines().map(|line| {
            let (url, shard) = line.split_once(' ').unwrap_or((line, "-"));
            format!("{} {shard}", url.split(':').next().expect("a scheme"))
        });
        let bound = ["native shard-0", "line -", "mixed shard-0", "line shard-0", "line shard-1"];
        assert_eq!(Vec::from_iter(shown), bound);
        // A mixed listener takes both, on that shard.
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
    use rustix::process::Signal;
    use wardline_core::native::Code;

    use crate::harness::{PATIENCE, SHUTDOWN_WARNING};

    on_each_engine(|engine| {
        let mut relay = Launch::of_both(engine).shards(2).start();
        let mut lines = lines_everywhere(&relay, 2);
        let mut native = relay.native(1);
        native.subscribe("main", Start::Now);
        relay.signal(Signal::TERM);
        assert_eq!(native.closed(), Some(Code::GoingAway));
        for client in &mut lines {
            let (rest, _) = client.rest();
            let rest = String::from_utf8(rest).expect("UTF-8");
            assert!(rest.ends_with(SHUTDOWN_WARNING), "not told: {rest:?}");
        }
        drop((lines, native));
        assert_eq!(relay.wait(PATIENCE).code(), Some(0));
    });
}
