//! `wardline req`, `who` and `rtt`: one question, and its answer.

use std::fmt::Write;
use std::time::Duration;

use serde_json::json;
use wardline_client::{Client, Code, Error, Identity, Payload, Peer, Recipient};

use super::args::{Asked, ReqArgs, RttArgs, WhoArgs};
use super::connect::{connect, connect_trusting};
use super::publish::read_whole;
use super::reports::Listening;
use super::show::{Out, Read, Shape, handle, peer_json, signed_json, with_payload};
use super::{leave, run, within, words};
use crate::exit::Failure;

/// Between two questions of `rtt`.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest message that any relay takes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Asks a peer, and prints its answer.
pub(crate) fn req(args: &ReqArgs) -> Result<(), Failure> {
    // Before the clock runs, and before there is a connection to keep: somebody may be typing.
    let message = match args.message.as_deref() {
        Some(message) if message != "-" => message.as_bytes().to_vec(),
        _ => read_whole(MESSAGE_BYTES_MAX).map_err(Failure::Runtime)?,
    };
    let work = async {
        let client = connect_trusting(&args.common, args.sign, args.signed_only).await?;
        let _listening = Listening::to(&client);
        let asked = ask(args, message, &client).await;
        leave(client).await;
        asked
    };
    // The answer has a deadline of its own; this is for what comes before it.
    run(within(Some(args.timeout.saturating_add(Duration::from_secs(1))), work))
}

async fn ask(args: &ReqArgs, message: Vec<u8>, client: &Client) -> Result<(), Failure> {
    let who = client.identity();
    let failed = |error: &Error| match error.code() {
        Some(Code::NoRoute) => Failure::Runtime("nobody has that handle (any more)".to_owned()),
        _ => words::failed(error, "ask", "request", &who),
    };
    let to = match args.to {
        Asked::Handle(handle) => Recipient::from(handle),
        Asked::Identity(identity) => {
            let peers = client.resolve(identity).await.map_err(|error| failed(&error))?;
            a_session(&identity, &peers)?
        }
    };
    let message = Payload::new(message).class(args.class);
    let out = Out::new(Shape::of(args.raw, args.common.json));
    if out.shape() == Shape::Json {
        let reply = client.request(to, message, args.timeout).await;
        let reply = reply.map_err(|error| failed(&error))?;
        let signed = reply.signed.as_ref().map(signed_json);
        let object = json!({ "sender": handle(reply.sender), "signed": signed });
        let object = with_payload(object, &reply.payload);
        let _ = out.json(&object)?;
        return Ok(());
    }
    let answer = client.request_stream(to, message, args.timeout).await;
    let mut answer = answer.map_err(|error| failed(&error))?;
    let mut line = Vec::new();
    while let Some(piece) = answer.next().await.map_err(|error| failed(&error))? {
        if out.shape() == Shape::Lines {
            line.extend_from_slice(&piece);
        } else if out.payload(&piece)? == Read::Over {
            return Ok(());
        }
    }
    if out.shape() == Shape::Lines {
        let _ = out.lines(&line)?;
    }
    Ok(())
}

/// One of the sessions of an identity: of several, the first that the relay names.
fn a_session(identity: &Identity, peers: &[Peer]) -> Result<Recipient, Failure> {
    match peers {
        [] => Err(Failure::Runtime(format!("ed25519:{identity} is not connected"))),
        [only] => Ok(only.into()),
        [one, others @ ..] => {
            let (handle, others) = (handle(one.handle), others.len());
            eprintln!("wardline: ed25519:{identity} has {others} more sessions; asking {handle}");
            Ok(one.into())
        }
    }
}

/// Prints who reads a topic.
pub(crate) fn who(args: &WhoArgs) -> Result<(), Failure> {
    let work = async {
        let client = connect(&args.common).await?;
        let (topic, who) = (&args.topic, client.identity());
        let peers = client.who(topic).await.map_err(|error| {
            let (doing, right) = (format!("see who reads {topic}"), format!("who={topic}"));
            words::failed(&error, &doing, &right, &who)
        });
        leave(client).await;
        let peers = peers?;
        let out = Out::new(Shape::of(false, args.common.json));
        if out.shape() != Shape::Json {
            return out.words(&table(&peers)).map(|_| ());
        }
        for peer in &peers {
            if out.json(&peer_json(peer))? == Read::Over {
                break;
            }
        }
        Ok(())
    };
    run(within(Some(args.timeout), work))
}

fn table(peers: &[Peer]) -> String {
    let mut table = String::new();
    for peer in peers {
        let identity = match &peer.identity {
            Some(identity) => format!("ed25519:{identity}"),
            None => "a line client, not authenticated".to_owned(),
        };
        let (handle, device) = (handle(peer.handle), peer.device);
        // Writing to a string does not fail.
        let _ = writeln!(table, "{handle}  {identity}  device {device}");
    }
    let readers = if peers.len() == 1 { "reader" } else { "readers" };
    let _ = writeln!(table, "{} {readers}", peers.len());
    table
}

/// Asks the relay for a sign of life, some times, and prints how long it takes.
pub(crate) fn rtt(args: &RttArgs) -> Result<(), Failure> {
    let work = async {
        let client = connect(&args.common).await?;
        let _listening = Listening::to(&client);
        let measured = measure(args, &client).await;
        leave(client).await;
        measured
    };
    run(within(Some(args.timeout), work))
}

async fn measure(args: &RttArgs, client: &Client) -> Result<(), Failure> {
    let who = client.identity();
    let out = Out::new(Shape::of(false, args.common.json));
    let mut times = Vec::new();
    for nth in 1..=args.count {
        if nth > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        let time = client.ping().await;
        let time = time.map_err(|error| words::failed(&error, "ping", "any right", &who))?;
        times.push(time);
        let read = match out.shape() {
            Shape::Json => out.json(&json!({ "nth": nth, "us": micros(time) }))?,
            Shape::Lines | Shape::Raw => out.words(&format!("{nth}: {}\n", shown(time)))?,
        };
        if read == Read::Over {
            return Ok(());
        }
    }
    times.sort_unstable();
    let (Some(least), Some(most)) = (times.first(), times.last()) else { return Ok(()) };
    let median = times[times.len() / 2];
    let _ = match out.shape() {
        Shape::Json => out.json(&json!({
            "count": times.len(), "min_us": micros(*least), "median_us": micros(median),
            "max_us": micros(*most),
        }))?,
        Shape::Lines | Shape::Raw => {
            let (least, median, most) = (shown(*least), shown(median), shown(*most));
            out.words(&format!("least {least}, median {median}, most {most}\n"))?
        }
    };
    Ok(())
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time in milliseconds and microseconds.
pub(super) fn shown(time: Duration) -> String {
    let us = micros(time);
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

#[cfg(test)]
mod tests {
    use wardline_client::SigningKey;

    use super::*;

    #[test]
    fn times_are_shown_in_milliseconds() {
        assert_eq!(shown(Duration::from_nanos(1_234_567)), "1.234 ms");
        assert_eq!(shown(Duration::from_micros(7)), "0.007 ms");
    }

    #[test]
    fn readers_are_a_table() {
        let identity = SigningKey::from_seed(&[1; 32]).identity();
        let peers = [
            Peer { handle: 0xA, identity: Some(identity), device: 7 },
            Peer { handle: 0xB, identity: None, device: 0 },
        ];
        let expected = format!(
            "000000000000000a  ed25519:{identity}  device 7\n\
             000000000000000b  a line client, not authenticated  device 0\n2 readers\n"
        );
        assert_eq!(table(&peers), expected);
        assert_eq!(table(&[]), "0 readers\n");
        assert_eq!(a_session(&identity, &peers).unwrap(), Recipient::from(peers[0]));
        assert_eq!(a_session(&identity, &[]).unwrap_err().code(), 1);
    }
}
