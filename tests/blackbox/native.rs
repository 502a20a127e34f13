//! The commands that are clients, and a relay that takes them.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wardline_core::native::Class;

use crate::commands::{Home, fails};
use crate::harness::{
    Background, Client, Dial, Launch, Outcome, Relay, on_each_engine, wait_until,
};

/// A relay with one native listener and one for both, and somebody who uses it.
pub(crate) struct Stage {
    relay: Relay,
    pub(crate) home: Home,
}

impl Stage {
    pub(crate) fn new(engine: &'static str) -> Self {
        Self::with(engine, |launch| launch)
    }

    fn with(engine: &'static str, more: impl FnOnce(Launch) -> Launch) -> Self {
        let home = Home::new();
        let state = home.state().join("relay").to_str().expect("UTF-8").to_owned();
        let launch = Launch::talkative(engine)
            .environment("STATE_DIRECTORY", &state)
            .listen("native://127.0.0.1:0")
            .listen("mixed://127.0.0.1:0/main");
        Self { relay: more(launch).start(), home }
    }

    fn url(&self) -> &str {
        &self.relay.urls()[0]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Before what is the command's of `reply`.
        let (own, rest) = match arguments.iter().position(|word| *word == "--") {
            Some(at) => arguments.split_at(at),
            None => (arguments, &[][..]),
        };
        self.home.command(&[own, &["-s", self.url()], rest].concat())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments))
    }

    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// A reader of a topic, once it reads.
    pub(crate) fn reader(&self, topic: &str, more: &[&str]) -> Background {
        let reader = Background::start(&mut self.command(&[&["sub", topic], more].concat()));
        reader.wait_until_said(&format!("reading {topic}"));
        reader
    }

    /// What answers, once it does, and who it is.
    pub(crate) fn replier(&self, arguments: &[&str]) -> (Background, String) {
        let replier = Background::start(&mut self.command(arguments));
        // The whole line: it is written part by part.
        let said = || {
            let stderr = replier.stderr();
            let after = stderr.split_once("answering as ed25519:")?.1;
            after.contains('\n').then(|| after[..64].to_owned())
        };
        wait_until("who answers", || said().is_some());
        let identity = said().expect("it is there");
        (replier, identity)
    }
}

pub(crate) fn ended_well(outcome: &Outcome) -> &str {
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    &outcome.stdout
}

pub(crate) fn objects(lines: &str) -> Vec<Value> {
    lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn what_one_publishes_the_other_reads() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let reader = stage.reader("chat", &["--count", "5"]);
        stage.good(&["pub", "chat", "hello"]);
        let mut lines = Background::start(&mut stage.command(&["pub", "chat"]));
        lines.input("one\r\nzwei äöü\n\nlast".as_bytes());
        ended_well(&lines.outcome());
        let read = reader.outcome();
        assert_eq!(ended_well(&read), "hello\none\nzwei äöü\n\nlast\n");
    });
}

#[test]
fn all_of_standard_input_can_be_one_message() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let reader = stage.reader("t", &["--count", "1", "--raw"]);
        let mut whole = Background::start(&mut stage.command(&["pub", "t", "--raw"]));
        whole.input(b"a\nb\0\x01\n");
        ended_well(&whole.outcome());
        assert_eq!(ended_well(&reader.outcome()), "a\nb\0\x01\n");
        let mut long = Background::start(&mut stage.command(&["pub", "t", "--raw"]));
        long.input(&vec![b'x'; 70_000]);
        fails(&long.outcome(), 1, &["over the limit of 65536 bytes"]);
        let mut long = Background::start(&mut stage.command(&["pub", "t"]));
        long.input(&[&b"short\n"[..], &vec![b'x'; 70_000]].concat());
        fails(&long.outcome(), 1, &["line 2 is over the limit of 65536 bytes"]);
    });
}

#[test]
fn who_comes_later_reads_what_is_retained() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        // Somebody has to read it for the topic to be.
        let _reader = stage.reader("t", &[]);
        let said = stage.good(&["pub", "t", "again", "--count", "7", "--json"]);
        assert_eq!(objects(&said)[0]["taken"], 7);
        let read = stage.good(&["sub", "t", "--from", "last:3", "--count", "3", "--json"]);
        let read = objects(&read);
        let subscribed = &read[0]["subscribed"];
        assert_eq!((&subscribed["topic"], &subscribed["next"]), (&"t".into(), &7.into()));
        let offsets: Vec<_> = read[1..].iter().map(|it| it["offset"].as_u64()).collect();
        assert_eq!(offsets, [Some(4), Some(5), Some(6)]);
        assert!(read[1..].iter().all(|it| it["payload"] == "again" && it["line"] == false));
        // What a message says of where it stands can be read from.
        let from = read[2]["from"].as_str().expect("text");
        let read = stage.good(&["sub", "t", "--from", from, "--count", "2", "--json"]);
        assert_eq!(objects(&read)[1]["offset"], 5);
    });
}

#[test]
fn a_message_says_how_urgent_it_is_and_how_long_it_is_worth_anything() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let reader = stage.reader("t", &["--count", "2", "--json"]);
        stage.good(&["pub", "t", "plain"]);
        stage.good(&["pub", "t", "soon", "--class", "urgent", "--ttl", "60s", "--sign"]);
        let read = objects(ended_well(&reader.outcome()));
        assert_eq!((&read[1]["class"], &read[1]["ttl_ms"]), (&json!("normal"), &Value::Null));
        // What it waited to go out is over.
        let left = read[2]["ttl_ms"].as_u64().expect("it has one");
        assert!(read[2]["class"] == "urgent" && (30_000..=60_000).contains(&left), "{read:?}");
        // Who asks says how long it waits, as ever.
        let mut asked = stage.relay.native(1);
        let handle = format!("{:016x}", asked.handle());
        let call = ["req", &handle, "x", "--class", "bulk", "--timeout", "3s"];
        fails(&stage.run(&call), 124, &[]);
        let request = asked.expect(b"x");
        assert_eq!(request.class, Class::Bulk);
        assert!((1..=3_000).contains(&request.ttl_ms), "{} ms", request.ttl_ms);
    });
}

#[test]
fn a_reader_ends_when_it_is_told_or_its_time_is_over() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let started = Instant::now();
        fails(&stage.run(&["sub", "t", "--count", "1", "--timeout", "3s"]), 124, &["1 messages"]);
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(stage.good(&["sub", "t", "--timeout", "3s"]), "");
        #[cfg(all(unix, not(wardline_portable)))]
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
            let reader = stage.reader("t", &[]);
            reader.signal(signal);
            ended_well(&reader.outcome());
        }
    });
}

#[test]
fn a_reader_comes_back_to_a_relay_that_is_started_again() {
    on_each_engine(|engine| {
        let mut stage = Stage::new(engine);
        let reader = stage.reader("t", &["--count", "2"]);
        stage.good(&["pub", "t", "before"]);
        wait_until("the first message", || reader.stdout() == "before\n");
        stage.relay.end();
        reader.wait_until_said("coming back");
        let url = stage.url().to_owned();
        let state = stage.home.state().join("relay").to_str().expect("UTF-8").to_owned();
        stage.relay =
            Launch::new(engine).environment("STATE_DIRECTORY", &state).listen(&url).start();
        reader.wait_until_said("connected again");
        // What it missed, if there was anything, cannot be had from a relay that forgot it.
        reader.wait_until_said("begins anew");
        stage.good(&["pub", "t", "after"]);
        assert_eq!(ended_well(&reader.outcome()), "before\nafter\n");
    });
}

#[test]
fn a_request_is_answered_by_a_command() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let (key, own) = stage.home.key("replier.key");
        let script = "tr a-z A-Z; printf ' %s' \"$WARDLINE_IDENTITY\"";
        let (_replier, identity) =
            stage.replier(&["reply", "--key", &key, "--", "sh", "-c", script]);
        assert_eq!(identity, own);
        let asker = stage.home.run(&["keygen"]).stdout;
        let answer = stage.good(&["req", &identity, "hello"]);
        assert_eq!(answer, format!("HELLO {}\n", asker.trim()));
        let answer = stage.good(&["req", &identity, "hello", "--raw"]);
        assert_eq!(answer, format!("HELLO {}", asker.trim()));
        let mut long = Background::start(&mut stage.command(&["req", &identity, "--json"]));
        long.input("grüße\n".repeat(9).as_bytes());
        let answer = objects(ended_well(&long.outcome())).remove(0);
        let answer = answer["payload"].as_str().expect("text");
        assert!(answer.starts_with(&"GRüßE\n".repeat(9)), "{answer}");
    });
}

#[test]
fn a_long_answer_comes_in_pieces() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let script = "head -c 1000000 /dev/zero | tr '\\0' x";
        let (key, _) = stage.home.key("replier.key");
        let (_replier, identity) =
            stage.replier(&["reply", "--key", &key, "--", "sh", "-c", script]);
        let answer = stage.good(&["req", &identity, "", "--raw", "--timeout", "20s"]);
        assert_eq!((answer.len(), answer.trim_end_matches('x')), (1_000_000, ""));
    });
}

#[test]
fn no_answer_is_a_failure_that_says_which() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let nobody = stage.home.key("nobody.key").1;
        fails(&stage.run(&["req", &nobody, "x"]), 1, &[&nobody, "is not connected"]);
        fails(&stage.run(&["req", "12345", "x"]), 1, &["nobody has that handle"]);
        let (key, _) = stage.home.key("replier.key");
        let (slow, identity) = stage.replier(&["reply", "--key", &key, "--", "sleep", "600"]);
        fails(&stage.run(&["req", &identity, "x", "--timeout", "2s"]), 124, &["in time"]);
        wait_until("the command's end", || slow.stderr().contains("was not done within"));
        drop(slow);
        let (failing, identity) = stage.replier(&["reply", "--key", &key, "--", "false"]);
        fails(&stage.run(&["req", &identity, "x", "--timeout", "2s"]), 124, &["in time"]);
        wait_until("the failure", || failing.stderr().contains("the command ended with"));
    });
}

#[test]
fn requests_are_answered_side_by_side_up_to_a_bound() {
    on_each_engine(|engine| {
        let stage = Stage::with(engine, |launch| launch.set("native.sessions_per_identity", "16"));
        let (key, _) = stage.home.key("replier.key");
        let command =
            ["reply", "--key", &key, "--jobs", "2", "--count", "6", "--json", "--", "sleep", "0.3"];
        let (replier, identity) = stage.replier(&command);
        let started = Instant::now();
        let ask = || Background::start(&mut stage.command(&["req", &identity, "x"]));
        let asked: Vec<_> = (0..6).map(|_| ask()).collect();
        for asked in asked {
            ended_well(&asked.outcome());
        }
        // Three rounds of two.
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
        let replied = replier.outcome();
        assert_eq!(objects(ended_well(&replied)).len(), 6, "{replied:?}");
    });
}

#[test]
fn who_reads_and_how_far_the_relay_is() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let (key, identity) = stage.home.key("reader.key");
        let _reader = stage.reader("t", &["--key", &key]);
        let listed = stage.good(&["who", "t"]);
        assert!(listed.contains(&identity) && listed.ends_with("1 reader\n"), "{listed}");
        let listed = objects(&stage.good(&["who", "t", "--json"]));
        assert_eq!((listed.len(), &listed[0]["identity"]), (1, &Value::from(identity)));
        let handle = listed[0]["handle"].as_str().expect("text");
        assert_eq!(handle.len(), 16);
        let times = stage.good(&["rtt", "--count", "3"]);
        assert_eq!(times.lines().count(), 4, "{times}");
        let times = objects(&stage.good(&["rtt", "--count", "3", "--json"]));
        assert!(times[3]["median_us"].as_u64() >= times[3]["min_us"].as_u64());
        assert_eq!(times[3]["count"], 3);
    });
}

#[test]
fn bench_says_what_came_through() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let call = ["bench", "--readers", "2", "--rate", "100", "--seconds", "3", "--json"];
        let said = stage.run(&call);
        let figures = objects(ended_well(&said)).remove(0);
        let figure = |name: &str| figures[name].as_u64().expect("a number");
        assert_eq!((figure("missing"), figure("delivered")), (0, 2 * figure("published")));
        assert!((50..=301).contains(&figure("published")), "{figures}");
        assert!(figure("median_us") > 0 && figure("median_us") <= figure("max_us"), "{figures}");
        assert!(said.stderr.contains("1 s: "), "{}", said.stderr);
    });
}

#[test]
fn both_dialects_meet_on_a_topic() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let mut line: Client = Dial::new(stage.relay.address_of(1)).connect();
        let reader = stage.reader("main", &["--count", "1", "--json"]);
        line.say("from a line client");
        let read = objects(ended_well(&reader.outcome()));
        assert_eq!(read[1]["payload"], "from a line client");
        assert_eq!(read[1]["line"], true);
        stage.good(&["pub", "main", "from a native client"]);
        let heard = line.line();
        assert!(heard.contains("from a native client"), "{heard}");
    });
}

#[test]
fn the_relay_is_who_it_was() {
    on_each_engine(|engine| {
        let mut stage = Stage::new(engine);
        let met = stage.run(&["rtt", "--count", "1"]);
        assert!(met.stderr.contains("for the first time"), "{met:?}");
        stage.relay.wait_for_log("identity ed25519:");
        let log = stage.relay.log();
        let identity = &log.split("identity ed25519:").nth(1).expect("it is there")[..64];
        assert!(met.stderr.contains(identity), "{met:?}");
        assert!(!stage.run(&["rtt", "--count", "1"]).stderr.contains("for the first time"));
        stage.good(&["rtt", "--count", "1", "--pin", identity]);
        // Another one at the same place.
        let other = stage.home.key("other.key").1;
        let pinned = stage.run(&["rtt", "--count", "1", "--pin", &other]);
        fails(&pinned, 5, &["THE SERVER'S KEY IS NOT THE EXPECTED ONE", identity, &other]);
        let hosts = stage.home.state().join("known_hosts");
        let changed = fs::read_to_string(&hosts).expect("it is there").replace(identity, &other);
        fs::write(&hosts, changed).expect("it is ours");
        let refused = stage.run(&["pub", "t", "secret"]);
        fails(&refused, 5, &["THE SERVER'S KEY IS NOT", "known_hosts", identity, &other]);
        // It has the same key when it is started again.
        stage.relay.end();
        let again = Launch::new(engine)
            .environment(
                "STATE_DIRECTORY",
                stage.home.state().join("relay").to_str().expect("UTF-8"),
            )
            .listen("native://127.0.0.1:0")
            .start();
        again.wait_for_log(identity);
    });
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn who_may_come_is_said_by_a_file_that_is_read_again() {
    on_each_engine(|engine| {
        let home = Home::new();
        let (mine, me) = home.key("me.key");
        let (theirs, them) = home.key("them.key");
        let list = home.path("keys");
        let (watching, watcher) = home.key("watcher.key");
        let rights = format!("{me} publish=a/* subscribe=a/*,b # me\n{watcher} who=a/*\n");
        fs::write(&list, rights).expect("ours");
        let authorized = list.to_str().expect("UTF-8").to_owned();
        let stage = Stage::with(engine, |launch| {
            launch.set("native.open", "never").set("native.authorized_keys", &authorized)
        });
        stage.good(&["pub", "a/1", "x", "--key", &mine]);
        let forbidden = stage.run(&["pub", "b", "x", "--key", &mine]);
        fails(&forbidden, 1, &["cannot publish to b", "forbidden", "needs: publish=b"]);
        let forbidden = stage.run(&["who", "a/1", "--key", &mine]);
        fails(&forbidden, 1, &["needs: who=a/1", &me]);
        // Who may see who reads need not publish, and may not.
        stage.good(&["who", "a/1", "--key", &watching]);
        let forbidden = stage.run(&["who", "b", "--key", &watching]);
        fails(&forbidden, 1, &["forbidden", "needs: who=b", &watcher]);
        for verdict in [&[][..], &["--verdict"]] {
            let call = [&["pub", "a/1", "x", "--key", &watching], verdict].concat();
            fails(
                &stage.run(&call),
                1,
                &["cannot publish to a/1", "forbidden", "needs: publish=a/1"],
            );
        }
        let unknown = ["pub", "a/1", "x", "--key", &theirs];
        fails(&stage.run(&unknown), 5, &["native.authorized_keys", &format!("  {them} # ")]);
        // As it says.
        let both = format!("{me} publish=a/*\n{them} # they\n");
        fs::write(&list, &both).expect("ours");
        stage.relay.signal(rustix::process::Signal::HUP);
        stage.relay.wait_for_log("took over native.authorized_keys");
        stage.good(&unknown);
        stage.good(&["pub", "b", "x", "--key", &theirs]);
        // What is wrong is not half taken.
        fs::write(&list, format!("{me}\nnonsense\n")).expect("ours");
        stage.relay.signal(rustix::process::Signal::HUP);
        stage.relay.wait_for_log("settings stay as they were");
        stage.relay.wait_for_log("keys:2:1");
        stage.good(&unknown);
    });
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn the_relays_key_is_made_once_and_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    on_each_engine(|engine| {
        let stage = Stage::new(engine);
        let key = stage.home.state().join("relay/server.key");
        let mode = |path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&key), mode(&stage.home.state().join("relay"))), (0o600, 0o700));
        stage.relay.wait_for_log("made this relay's key");
        let seed = fs::read_to_string(&key).expect("it is ours");
        assert!(!stage.relay.log().contains(seed.trim()));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("it is ours");
        let mut command = stage.home.command(&["serve", "-l", "native://127.0.0.1:0"]);
        command.env("STATE_DIRECTORY", stage.home.state().join("relay"));
        fails(&Outcome::of(&mut command), 3, &["native.key", "0640", "chmod 600"]);
    });
}

#[test]
fn a_relay_changes_its_key_while_clients_expect_the_old_one() {
    on_each_engine(|engine| {
        let home = Home::new();
        let [(old, was), (new, is), (_, other)] =
            ["old.key", "new.key", "other.key"].map(|name| home.key(name));
        let stage = Stage::with(engine, |launch| launch.arguments(&["--key", &new, "--key", &old]));
        stage.relay.wait_for_log(&format!("identity ed25519:{is}"));
        stage.relay.wait_for_log(&format!("answers as ed25519:{was}, too"));
        for known in [&was, &is] {
            stage.good(&["pub", "t", "x", "--pin", known]);
        }
        let stranger = stage.run(&["pub", "t", "x", "--pin", &other]);
        fails(&stranger, 5, &["NOT THE EXPECTED ONE", &other]);
        // Who knows nobody yet learns the new one; who has learnt the old one goes on with it.
        let met = stage.run(&["pub", "t", "x"]);
        assert!(met.stderr.contains(&format!("it is ed25519:{is}")), "{met:?}");
        let hosts = stage.home.state().join("known_hosts");
        let learnt = fs::read_to_string(&hosts).expect("it is there");
        assert!(learnt.contains(&is), "{learnt}");
        fs::write(&hosts, learnt.replace(&is, &was)).expect("it is ours");
        stage.good(&["pub", "t", "x"]);
        // In a session of the old key, too, what is said arrives.
        let reader = stage.reader("chat", &["--count", "1", "--pin", &was]);
        stage.good(&["pub", "chat", "hello", "--pin", &is]);
        assert_eq!(ended_well(&reader.outcome()), "hello\n");
    });
}
