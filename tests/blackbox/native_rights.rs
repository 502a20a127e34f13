//! Who may come, who may do what, and how long that holds.
#![cfg(unix)]

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use tempfile::TempDir;
use wardline_core::native::client::Fate;
use wardline_core::native::{Code, FrameKind, ServerControl, Start};

use crate::harness::native::{Turned, identity};
use crate::harness::{Launch, Relay, on_each_engine, wait_until};

/// A relay that lets in who stands in a file.
struct Stage {
    relay: Relay,
    list: PathBuf,
    _dir: TempDir,
}

impl Stage {
    fn new(engine: &'static str, keys: &[(u64, &str)]) -> Self {
        Self::with(engine, keys, |launch| launch)
    }

    fn with(
        engine: &'static str,
        keys: &[(u64, &str)],
        more: impl FnOnce(Launch) -> Launch,
    ) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let list = dir.path().join("keys");
        fs::write(&list, text(keys)).expect("it is ours");
        let launch = Launch::of_both(engine)
            .set("native.open", "never")
            .set("native.authorized_keys", list.to_str().expect("UTF-8"));
        Self { relay: more(launch).start(), list, _dir: dir }
    }

    /// Has the relay read other rights, and waits until it has.
    fn rewrite(&self, keys: &[(u64, &str)]) {
        fs::write(&self.list, text(keys)).expect("it is ours");
        let took = || self.relay.log().matches("took over native.authorized_keys").count();
        let before = took();
        self.relay.signal(Signal::HUP);
        wait_until("the rights to be read again", || took() > before);
    }
}

fn text(keys: &[(u64, &str)]) -> String {
    keys.iter().map(|(number, rights)| format!("{:?} {rights}\n", identity(*number))).collect()
}

#[test]
fn each_key_may_do_what_stands_behind_it() {
    on_each_engine(|engine| {
        let stage = Stage::new(
            engine,
            &[
                (1, "publish=in/*"),
                (2, "subscribe=in/a,out"),
                (3, "publish=out who=out request"),
                (4, ""),
            ],
        );
        let relay = &stage.relay;
        let (mut one, mut two) = (relay.native(1), relay.native(2));
        assert_eq!(two.open("in/a"), Err(Code::Forbidden));
        assert_eq!(one.open("out"), Err(Code::Forbidden));
        assert_eq!(one.open("in"), Err(Code::Forbidden));
        assert_eq!(one.try_subscribe("in/a", Start::Now).unwrap_err(), Code::Forbidden);
        assert_eq!(two.try_subscribe("in/b", Start::Now).unwrap_err(), Code::Forbidden);
        two.subscribe("in/a", Start::Now);
        one.open("in/a").expect("it may");
        one.publish("in/a", b"hello");
        assert_eq!(two.expect(b"hello").peer, one.handle());
        // Who may read does not publish.
        let mid = two.publish("in/a", b"me too");
        assert_eq!(two.nacked(mid), Code::Forbidden);
        // Nor does who may publish ask.
        let mid = one.send_to(FrameKind::Request, (two.handle(), 0), b"?");
        assert_eq!(one.nacked(mid), Code::Forbidden);
        let mut three = relay.native(3);
        three.send_to(FrameKind::Direct, (two.handle(), 0), b"psst");
        two.expect(b"psst");
        // Without a word behind it, a key may do all of that.
        let mut four = relay.native(4);
        four.subscribe("in/a", Start::Now);
        four.publish("in/a", b"all");
        two.expect(b"all");
        assert!(one.barrier() && three.barrier() && four.barrier());
    });
}

#[test]
fn who_alone_is_enough_to_ask_who_reads() {
    on_each_engine(|engine| {
        let keys = [(1, "who=t"), (2, "subscribe=t"), (3, "publish=other")];
        let stage = Stage::new(engine, &keys);
        let relay = &stage.relay;
        let (mut one, mut two, mut three) = (relay.native(1), relay.native(2), relay.native(3));
        two.subscribe("t", Start::Now);
        let topic = one.open("t").expect("it may");
        assert_eq!(one.who(topic), Ok(vec![two.handle()]));
        // A number is no right; and of what there is not, nothing else is said.
        let mid = one.publish("t", b"x");
        assert_eq!(one.nacked(mid), Code::Forbidden);
        assert_eq!(one.try_subscribe("t", Start::Now).unwrap_err(), Code::Forbidden);
        for (client, name) in [(&mut one, "none"), (&mut two, "t"), (&mut three, "t")] {
            assert_eq!(client.open(name), Err(Code::Forbidden));
        }
        let other = three.open("other").expect("it may");
        assert_eq!(three.who(other), Err(Code::Forbidden));
        // Asked each time, not only when it was opened.
        stage.rewrite(&[(1, "publish=t"), (2, "subscribe=t")]);
        assert_eq!(one.who(topic), Err(Code::Forbidden));
        one.publish("t", b"now");
        two.expect(b"now");
    });
}

#[test]
fn a_right_that_is_taken_away_is_gone_with_the_next_message() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine, &[(1, "publish=t"), (2, "subscribe=t"), (3, "publish=t")]);
        let relay = &stage.relay;
        let (mut one, mut two, mut three) = (relay.native(1), relay.native(2), relay.native(3));
        two.subscribe("t", Start::Now);
        one.open("t").expect("it may");
        three.open("t").expect("it may");
        one.publish("t", b"before");
        two.expect(b"before");
        stage.rewrite(&[(1, "publish=other"), (2, "subscribe=t"), (3, "publish=t")]);
        let mid = one.publish("t", b"after");
        assert_eq!(one.nacked(mid), Code::Forbidden);
        assert!(one.barrier());
        assert!(one.settled().contains(&(mid, Fate::Refused)));
        three.publish("t", b"may");
        two.expect(b"may");
        one.open("other").expect("it may do that now");
        // And given back.
        stage.rewrite(&[(1, "publish=t"), (2, "subscribe=t")]);
        one.publish("t", b"again");
        two.expect(b"again");
        // Whose key is gone does nothing more, and does not come back.
        let mid = three.publish("t", b"gone");
        assert_eq!(three.nacked(mid), Code::Forbidden);
        three.abort();
        assert_eq!(three.reconnect(true), Err(Turned::Alert(Code::Refused)));
        assert_eq!(three.reconnect(false), Err(Turned::Alert(Code::Refused)));
        one.publish("t", b"last");
        two.expect(b"last");
    });
}

#[test]
fn who_may_not_know_it_any_more_is_not_told_who_comes_and_goes() {
    on_each_engine(|engine| {
        let (may, not) = ("subscribe=t who=t", "subscribe=t");
        let stage = Stage::new(engine, &[(1, may), (2, may), (3, not)]);
        let relay = &stage.relay;
        let (mut one, mut two, mut guest) = (relay.native(1), relay.native(2), relay.native(3));
        assert_eq!(guest.watch("t").unwrap_err(), Code::Forbidden);
        let topic = one.watch("t").expect("it may").topic;
        two.watch("t").expect("it may");
        let (first, second) = (two.handle(), guest.handle());
        assert_eq!(one.presence(), ServerControl::Joined { topic, handle: first });
        guest.subscribe("t", Start::Now);
        for client in [&mut one, &mut two] {
            assert_eq!(client.presence(), ServerControl::Joined { topic, handle: second });
        }
        stage.rewrite(&[(1, not), (2, may), (3, not)]);
        drop(guest);
        assert_eq!(two.presence(), ServerControl::Left { topic, handle: second });
        assert!(one.barrier());
        let guest = {
            let mut guest = relay.native(3);
            stage.rewrite(&[(1, may), (2, may), (3, not)]);
            guest.subscribe("t", Start::Now);
            guest
        };
        // It has its right again; of what was between it heard nothing.
        let came = ServerControl::Joined { topic, handle: guest.handle() };
        assert_eq!(one.presence(), came);
        assert_eq!(two.presence(), came);
    });
}

#[test]
fn who_does_not_stand_in_the_file_is_refused() {
    on_each_engine(|engine| {
        let stage = Stage::new(engine, &[(1, "")]);
        let refused = |number| match stage.relay.native_dial(number).try_connect() {
            Err(turned) => turned,
            Ok(_) => panic!("{number} is let in"),
        };
        for number in 2..20 {
            assert_eq!(refused(number), Turned::Alert(Code::Refused));
        }
        stage.relay.native(1);
        // Lines need no key, and have no rights to be asked for.
        stage.relay.connect_to(1).say("hello");
        stage.rewrite(&[(2, "")]);
        assert_eq!(refused(1), Turned::Alert(Code::Refused));
        stage.relay.native(2);
    });
}

#[test]
fn who_was_struck_twice_solves_a_puzzle_and_then_is_refused() {
    on_each_engine(|engine| {
        let stage = Stage::with(engine, &[(1, ""), (2, "")], |launch| {
            // A bad frame is a strike.
            launch.set("quarantine.exempt", "[]").set("quarantine.threshold_points", "25")
        });
        let relay = &stage.relay;
        let offend = || {
            let mut client = relay.native(1);
            client.say_nonsense();
            assert!(client.closed().is_some(), "it is gone over that");
        };
        offend();
        offend();
        // Who it is was not known when the first puzzle was set.
        let turned = relay.native_dial(1).try_connect().expect_err("it solved none");
        assert_eq!(turned, Turned::Alert(Code::PuzzleRequired));
        let mut client = relay.native(1);
        assert!(client.barrier(), "it is heard");
        offend();
        let turned = relay.native_dial(1).try_connect().expect_err("it is refused");
        assert_eq!(turned, Turned::Alert(Code::Quarantined));
        // Nobody else is, of the same address.
        assert!(relay.native(2).barrier(), "it did nothing");
    });
}
