//! Who hears whom: listeners and their topics.

use std::net::TcpListener;

use crate::harness::{Client, Launch, on_each_engine};

#[test]
fn two_topics_do_not_mix() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .listen("line://127.0.0.1:0/red")
            .listen("line://127.0.0.1:0/blue")
            .start();
        let [mut red, mut blue] = [0, 1].map(|topic| {
            let mut pair = [relay.connect_to(topic), relay.connect_to(topic)];
            relay.seat_by(relay.connect_to(topic), &mut pair);
            pair
        });
        for i in 0..20 {
            // Both are on their way at the same time; each pair hears its own alone.
            red[0].say(&format!("red {i}"));
            blue[0].say(&format!("blue {i}"));
            let (of_red, of_blue) = (&red[0], &blue[0]);
            let (r, b) =
                (of_red.envelope(&format!("red {i}")), of_blue.envelope(&format!("blue {i}")));
            red[1].expect(&r);
            blue[1].expect(&b);
        }
    });
}

#[test]
fn two_listeners_of_one_topic_do_mix() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .listen("line://127.0.0.1:0/room")
            .listen("line://127.0.0.1:0/room")
            .start();
        let [mut a, mut b] = [relay.connect_to(0), relay.connect_to(1)];
        relay.seat([&mut a, &mut b]);
        answers(&mut a, &mut b);
    });
}

#[test]
fn main_is_the_topic_of_a_listener_that_names_none() {
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .listen("line://127.0.0.1:0")
            .listen("line://127.0.0.1:0/main")
            .start();
        assert!(relay.urls().iter().all(|url| url.ends_with("/main")), "{:?}", relay.urls());
        let [mut a, mut b] = [relay.connect_to(0), relay.connect_to(1)];
        relay.seat([&mut a, &mut b]);
        answers(&mut a, &mut b);
    });
}

#[test]
fn ipv6_senders_are_written_in_brackets() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("not tried: this machine has no IPv6 loopback");
        return;
    }
    on_each_engine(|engine| {
        let relay = Launch::new(engine)
            .listen("line://[::1]:0/room")
            .listen("line://127.0.0.1:0/room")
            .start();
        let [mut six, mut four] = [relay.connect_to(0), relay.connect_to(1)];
        relay.seat([&mut six, &mut four]);
        six.say("from six");
        let port = six.address().port();
        let expected = format!("{{\"content\":\"from six\",\"remote_addr\":\"[::1]:{port}\"}}\n");
        four.expect(&expected);
        answers(&mut four, &mut six);
    });
}

#[test]
fn a_room_of_one_speaks_to_nobody_and_is_not_harmed() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let mut alone = relay.connect();
        for i in 0..1000 {
            alone.say(&format!("anybody? {i}"));
        }
        let mut late = relay.connect();
        relay.seat([&mut alone, &mut late]);
        // Some of what was said alone may be heard by who came late: it was not taken before.
        alone.say("that was all");
        let last = alone.envelope("that was all");
        while late.line() != last {}
        answers(&mut alone, &mut late);
    });
}

fn answers(a: &mut Client, b: &mut Client) {
    a.say("question");
    b.expect(&a.envelope("question"));
    b.say("answer");
    a.expect(&b.envelope("answer"));
}
