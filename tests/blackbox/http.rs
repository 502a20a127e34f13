//! A web page must not be able to speak to the relay.

use crate::harness::{Launch, Pulse, on_each_engine};

const METHODS: [&str; 9] =
    ["GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH", "CONNECT", "TRACE"];

fn request(method: &str) -> String {
    let body = "{\"_version\":\"1\",\"_payload\":\"from a web page\"}\n";
    format!(
        "{method} /wardline HTTP/1.1\r\nHost: localhost:8888\r\nOrigin: http://example.org\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_request_of_any_method_is_refused_and_closed_and_nothing_of_it_relayed() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut speaker, mut listener] = relay.room();
        for method in METHODS {
            let mut page = relay.connect();
            page.send(request(method).as_bytes());
            page.expect_closed_perhaps_warned();
            speaker.say(method);
            listener.expect(&speaker.envelope(method));
        }
    });
}

#[test]
fn a_request_that_comes_in_pieces_is_refused_too() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine)
            .listen("line://127.0.0.1:0")
            .listen("line://127.0.0.1:0/pulse")
            .start();
        let mut pulse = Pulse::new(&relay, 1);
        let [mut speaker, mut listener] = relay.room();
        let request = request("POST");
        let first_line = request.find('\n').expect("it has lines") + 1;
        for cut in 1..first_line {
            let mut page = relay.connect();
            page.send(&request.as_bytes()[..cut]);
            pulse.beat();
            // It may be closed already: enough is known after the method.
            let _ = page.try_send(&request.as_bytes()[cut..]);
            page.expect_closed_perhaps_warned();
            pulse.settle();
            speaker.say("nothing came of it");
            listener.expect(&speaker.envelope("nothing came of it"));
        }
    });
}

#[test]
fn a_request_in_a_later_line_is_only_text() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut speaker, mut listener] = relay.room();
        for line in ["hello", "GET / HTTP/1.1", "POST /x HTTP/1.1", "Host: localhost"] {
            speaker.say(line);
            listener.expect(&speaker.envelope(line));
        }
    });
}

#[test]
fn a_first_line_that_merely_begins_alike_is_text() {
    on_each_engine(|engine| {
        let relay = Launch::talkative(engine).start();
        let [mut listener] = relay.room();
        for line in ["Getting started", "get / http", "PO", "OPTIONAL", "", "{\"GET\":1}"] {
            let mut speaker = relay.connect();
            speaker.say(line);
            listener.expect(&speaker.envelope(line));
        }
    });
}
