//! `wardline pub`: messages to a topic. It succeeds where the relay has taken the last of them.

use std::io::{self, BufRead, Read};

use serde_json::json;
use tokio::sync::mpsc;
use wardline_client::{Client, CloseError, Code, Error, Payload, Refusal, Verdict};

use super::args::PubArgs;
use super::connect::connect_trusting;
use super::reports::{Listening, Tally};
use super::show::{Out, Shape};
use super::{run, within, words};
use crate::exit::Failure;

/// Lines that were read and not yet given to the client.
const LINES_MAX: usize = 64;

/// Publishes.
pub(crate) fn publish(args: &PubArgs) -> Result<(), Failure> {
    run(within(args.timeout, work(args)))
}

async fn work(args: &PubArgs) -> Result<(), Failure> {
    let client = connect_trusting(&args.common, args.sign, false).await?;
    let listening = Listening::to(&client);
    let (topic, who) = (&args.topic, client.identity());
    let failed = |error: &Error| {
        words::failed(error, &format!("publish to {topic}"), &format!("publish={topic}"), &who)
    };
    client.open(topic).await.map_err(|error| failed(&error))?;
    let out = Out::new(Shape::of(false, args.common.json));
    let said = say(args, &client, &out).await;
    let closed = client.close().await;
    let tally = listening.tally().await;
    // What was said before something went wrong was sent nonetheless, and counts.
    let count = match said {
        Ok(count) => count,
        Err(Said::Relay(error)) => return Err(failed(&error)),
        Err(Said::Input(what)) => return Err(Failure::Runtime(what)),
        Err(Said::Output(failure)) => return Err(failure),
    };
    if let Some(what) = not_taken(count, &tally, closed.err()) {
        let forbidden = |why: &Refusal| why.code() == Some(Code::Forbidden);
        let needs = tally.why.filter(forbidden).map(|_| {
            // It may ask who reads the topic, or could not have opened it.
            format!("\n{}", words::needs(&format!("publish={topic}"), &who))
        });
        let needs = needs.unwrap_or_default();
        return Err(Failure::Runtime(format!("cannot publish to {topic}: {what}{needs}")));
    }
    if args.common.json {
        let _ = out.json(&json!({ "topic": topic, "taken": count }))?;
    }
    Ok(())
}

/// Why not everything was said.
#[derive(Debug)]
enum Said {
    Relay(Error),
    Input(String),
    Output(Failure),
}

/// Says everything; gives how many messages that were.
async fn say(args: &PubArgs, client: &Client, out: &Out) -> Result<u64, Said> {
    let say = async |bytes: Vec<u8>| {
        let payload = Payload::new(bytes).class(args.class);
        let payload = match args.ttl {
            Some(ttl) => payload.ttl(ttl),
            None => payload,
        };
        if !args.verdict {
            return client.publish(&args.topic, payload).await.map_err(Said::Relay);
        }
        let verdict = client.publish_verdict(&args.topic, payload).await.map_err(Said::Relay)?;
        judged(out, &args.topic, verdict).map_err(Said::Output)
    };
    let max = client.max_payload();
    match args.message.as_deref() {
        Some(message) if message != "-" => {
            let count = args.count.unwrap_or(1);
            for _ in 0..count {
                say(message.as_bytes().to_vec()).await?;
            }
            Ok(count)
        }
        _ if args.raw => {
            let (sender, mut whole) = mpsc::channel(1);
            tokio::task::spawn_blocking(move || sender.blocking_send(read_whole(max)));
            let payload = whole.recv().await.unwrap_or_else(|| Ok(Vec::new()));
            say(payload.map_err(Said::Input)?).await.map(|()| 1)
        }
        _ => {
            let (sender, mut lines) = mpsc::channel(LINES_MAX);
            tokio::task::spawn_blocking(move || {
                read_lines(io::stdin().lock(), max, |line| sender.blocking_send(line).is_ok());
            });
            let mut count = 0;
            while let Some(line) = lines.recv().await {
                say(line.map_err(Said::Input)?).await?;
                count += 1;
            }
            Ok(count)
        }
    }
}

/// Shows what the relay made of a message. Who no longer reads that is no reason to say less.
fn judged(out: &Out, topic: &str, verdict: Option<Verdict>) -> Result<(), Failure> {
    let _ = match (out.shape(), verdict) {
        (Shape::Json, verdict) => {
            let (offset, readers) = (verdict.map(|it| it.offset), verdict.map(|it| it.readers));
            out.json(&json!({ "topic": topic, "offset": offset, "readers": readers }))?
        }
        (_, Some(Verdict { offset, readers: 1 })) => {
            out.words(&format!("message {offset}: 1 reader\n"))?
        }
        (_, Some(Verdict { offset, readers })) => {
            out.words(&format!("message {offset}: {readers} readers\n"))?
        }
        (_, None) => out.words("taken; the connection was lost before more could be said\n")?,
    };
    Ok(())
}

/// All of standard input, at most so much.
pub(super) fn read_whole(max: usize) -> Result<Vec<u8>, String> {
    let mut whole = Vec::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    match io::stdin().lock().take(limit).read_to_end(&mut whole) {
        Ok(read) if read > max => {
            Err(format!("standard input is over the limit of {max} bytes of a message"))
        }
        Ok(_) => Ok(whole),
        Err(error) => Err(format!("cannot read standard input: {error}")),
    }
}

/// Gives each line, without its ending; the last one may have none. A line that is too long is the
/// end. `give` says whether more is wanted.
fn read_lines(
    mut input: impl BufRead,
    max: usize,
    mut give: impl FnMut(Result<Vec<u8>, String>) -> bool,
) {
    // The ending does not count.
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(2);
    for number in 1_u64.. {
        let mut line = Vec::new();
        match input.by_ref().take(limit).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                give(Err(format!("cannot read standard input: {error}")));
                return;
            }
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        if line.len() > max {
            give(Err(format!("line {number} is over the limit of {max} bytes of a message")));
            return;
        }
        if !give(Ok(line)) {
            return;
        }
    }
}

/// What of `count` messages was not taken, or nobody knows of; in words.
fn not_taken(count: u64, tally: &Tally, closed: Option<CloseError>) -> Option<String> {
    let mut parts = Vec::new();
    if tally.refused > 0 {
        let why = tally.why.map(|why| format!(" ({why})")).unwrap_or_default();
        parts.push(format!("{} of {count} messages were refused{why}", tally.refused));
    }
    if tally.unsure > 0 {
        parts.push(format!("of {} of {count} nobody knows whether they were taken", tally.unsure));
    }
    if tally.unheard > 0 {
        parts.push(format!("{} reports were not heard", tally.unheard));
    }
    parts.extend(closed.map(|error| error.to_string()));
    (!parts.is_empty()).then(|| parts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &str, max: usize) -> Vec<Result<String, String>> {
        let mut lines = Vec::new();
        read_lines(input.as_bytes(), max, |line| {
            lines.push(line.map(|line| String::from_utf8(line).unwrap()));
            true
        });
        lines
    }

    #[test]
    fn lines_are_messages_without_their_endings() {
        let ok = |text: &str| Ok(text.to_owned());
        assert_eq!(lines("", 9), []);
        assert_eq!(lines("a\r\n\nb\rc\nlast", 9), [ok("a"), ok(""), ok("b\rc"), ok("last")]);
        assert_eq!(lines("1234\r\n1234\n1234", 4), [ok("1234"), ok("1234"), ok("1234")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_the_end() {
        for input in ["a\n12345\nb\n", "a\n12345", "a\n123456789\nb"] {
            let found = lines(input, 4);
            assert_eq!(found.len(), 2, "{input:?}");
            let wrong = found[1].as_ref().unwrap_err();
            assert_eq!(wrong, "line 2 is over the limit of 4 bytes of a message");
        }
    }

    #[test]
    fn who_wants_no_more_gets_no_more() {
        let mut got = 0;
        read_lines(&b"a\nb\nc\n"[..], 9, |_| {
            got += 1;
            got < 2
        });
        assert_eq!(got, 2);
    }

    #[test]
    fn only_what_was_taken_is_a_success() {
        assert_eq!(not_taken(3, &Tally::default(), None), None);
        let why = Some(Refusal { number: Code::Busy as u16, retry: None });
        let tally = Tally { refused: 2, why, unsure: 1, unheard: 0 };
        let said = not_taken(3, &tally, None).unwrap();
        assert!(said.starts_with("2 of 3 messages were refused (busy: "), "{said}");
        assert!(said.ends_with("of 1 of 3 nobody knows whether they were taken"), "{said}");
        let closed = CloseError { unsure: 1, unsent: 2, refusal: None };
        let said = not_taken(3, &Tally::default(), Some(closed)).unwrap();
        assert!(said.contains("1 messages taken or not, 2 not sent"), "{said}");
    }
}
