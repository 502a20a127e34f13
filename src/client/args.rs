//! What is said to the commands that are clients.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use wardline_client::{Class, From, Identity, IdentityFault, Url, is_topic_name};
use wardline_host::settings::{Span, read_text};

/// What all of them are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Common {
    /// The relay: native://HOST:PORT
    #[arg(short, long, value_name = "URL", default_value = "native://127.0.0.1:8889")]
    pub(crate) server: Url,
    /// Your key [default: client.key in the state directory, made at the first use]
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Relays that were met before [default: known_hosts in the state directory]
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,
    /// The relay's identity: speak to this one alone, and note nothing
    #[arg(long, value_name = "HEX", conflicts_with = "known_hosts")]
    pub(crate) pin: Option<Identity>,
    /// As JSON, an object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct KeygenArgs {
    /// The file that is made [default: client.key in the state directory]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Say whose key a file holds, and make none
    #[arg(long)]
    pub(crate) show: bool,
    /// As JSON: whose it is, and the file
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PubArgs {
    /// The topic
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    /// What to say; without it, or with -, each line of standard input is a message
    pub(crate) message: Option<String>,
    /// All of standard input is one message
    #[arg(long, conflicts_with = "message")]
    pub(crate) raw: bool,
    /// Say the message so often
    #[arg(long, value_name = "N", requires = "message", value_parser = some())]
    pub(crate) count: Option<u64>,
    /// Say of each message for how many readers it was queued, before the next one goes out
    #[arg(long)]
    pub(crate) verdict: bool,
    /// Sign what you say, end to end: readers need not believe the relay who said it
    #[arg(long)]
    pub(crate) sign: bool,
    /// How urgent it is: where memory is short, the relay refuses bulk first
    #[arg(long, value_name = "CLASS", default_value = "normal", value_parser = class())]
    pub(crate) class: Class,
    /// How long it is worth anything, such as 5s: readers are told it, and the relay drops nothing
    #[arg(long, value_name = "SPAN", value_parser = ttl)]
    pub(crate) ttl: Option<Duration>,
    /// Give up after so long, such as 5s
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct SubArgs {
    /// The topic
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    /// Where to begin: now, last:N, or offset:EPOCH:OFFSET, as --json shows them
    #[arg(long, value_name = "WHERE", default_value = "now", value_parser = begin)]
    pub(crate) from: From,
    /// Payloads as they are, with nothing between them
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Say who comes and goes, too, by their handles, as `who` shows them
    #[arg(long)]
    pub(crate) presence: bool,
    /// Keep back what is not signed, and say so: nothing is believed on the relay's word
    #[arg(long)]
    pub(crate) signed_only: bool,
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = some())]
    pub(crate) count: Option<u64>,
    /// End after so long, such as 5s; with --count that is a failure (124)
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct ReqArgs {
    /// Who is asked: an identity, or the handle of one of its sessions
    #[arg(value_name = "IDENTITY|HANDLE", value_parser = asked)]
    pub(crate) to: Asked,
    /// What is asked; without it, or with -, all of standard input
    pub(crate) message: Option<String>,
    /// The answer as it is, with nothing behind it
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Sign what you ask, end to end: who answers need not believe the relay who asks
    #[arg(long)]
    pub(crate) sign: bool,
    /// Take no answer but one that is signed by who was asked
    #[arg(long)]
    pub(crate) signed_only: bool,
    /// How urgent it is: where memory is short, the relay refuses bulk first
    #[arg(long, value_name = "CLASS", default_value = "normal", value_parser = class())]
    pub(crate) class: Class,
    /// How long to wait for all of the answer
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct ReplyArgs {
    /// Commands that run at once; more requests wait, and more than 256 are not answered
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = whole::<u16>(1, 256))]
    pub(crate) jobs: u16,
    /// Sign the answers, end to end: who asks need not believe the relay who answers
    #[arg(long)]
    pub(crate) sign: bool,
    /// Answer no request but those that are signed
    #[arg(long)]
    pub(crate) signed_only: bool,
    /// End after so many requests
    #[arg(long, value_name = "N", value_parser = some())]
    pub(crate) count: Option<u64>,
    /// A command may take so long; no longer than who asks waits, in any case
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub(crate) timeout: Duration,
    /// What is run for each request: it reads the request and writes the answer
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct WhoArgs {
    /// The topic
    #[arg(value_parser = topic)]
    pub(crate) topic: String,
    /// Give up after so long
    #[arg(long, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct RttArgs {
    /// Ask so often
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole::<u64>(1, 1_000_000))]
    pub(crate) count: u64,
    /// Give up after so long
    #[arg(long, value_name = "SPAN", default_value = "30s", value_parser = span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// Connections that publish
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u16>(1, 1_024))]
    pub(crate) publishers: u16,
    /// Connections that read
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = whole::<u16>(0, 1_024))]
    pub(crate) readers: u16,
    /// Bytes of a message, at least 16
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 64,
        value_parser = whole::<u32>(16, 1 << 20)
    )]
    pub(crate) size: u32,
    /// Messages of each publisher in a second [default: as many as the relay takes]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1, 1_000_000))]
    pub(crate) rate: Option<u32>,
    /// How long to publish
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = whole::<u32>(1, 3_600))]
    pub(crate) seconds: u32,
    /// The topic [default: one of its own]
    #[arg(long, value_parser = topic)]
    pub(crate) topic: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Some session of this identity.
    Identity(Identity),
    /// The session of this handle.
    Handle(u64),
}

/// A number of these bounds, both of them good.
fn whole<T: TryFrom<u64> + Clone + Send + Sync + 'static>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("must be a whole number of {least} to {most}"))
    }
}

/// A number, at least 1.
fn some() -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync + 'static {
    whole(1, u64::MAX)
}

fn topic(text: &str) -> Result<String, String> {
    if is_topic_name(text) {
        return Ok(text.to_owned());
    }
    let rule = "1 to 64 bytes without control characters, *, >, + or #, and no $ at the beginning";
    Err(format!("a topic's name is {rule}"))
}

fn span(text: &str) -> Result<Duration, String> {
    let span: Span = read_text(text)?;
    Ok(Duration::from_nanos(span.0.as_nanos()))
}

/// The names of classes, in the order of [`Class::ALL`].
pub(crate) const CLASSES: [&str; 4] = ["urgent", "interactive", "normal", "bulk"];

fn class() -> impl TypedValueParser<Value = Class> {
    let named = |name: String| CLASSES.iter().zip(Class::ALL).find(|(known, _)| **known == name);
    PossibleValuesParser::new(CLASSES)
        .map(move |name| named(name).map_or(Class::Normal, |(_, class)| class))
}

/// A span as the wire can say it: 0 would be for ever.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = span(text)?;
    let whole = (1..=u128::from(u32::MAX)).contains(&ttl.as_millis());
    whole.then_some(ttl).ok_or_else(|| "must be from 1ms to 49d".to_owned())
}

fn begin(text: &str) -> Result<From, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let parts: Vec<_> = text.split(':').collect();
    let begin = match parts[..] {
        ["now"] => Some(From::Now),
        ["last", count] => count.parse().ok().map(From::Last),
        ["offset", epoch, offset] => {
            number(epoch).zip(number(offset)).map(|(epoch, offset)| From::Offset { epoch, offset })
        }
        _ => None,
    };
    begin.ok_or_else(|| "must be now, last:N or offset:EPOCH:OFFSET".to_owned())
}

/// An identity is 64 hexadecimal digits; a handle is at most 16, as `who` shows it.
fn asked(text: &str) -> Result<Asked, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && digits.len() <= 16 {
        return match u64::from_str_radix(digits, 16) {
            Ok(0) | Err(_) => Err("no handle is 0".to_owned()),
            Ok(handle) => Ok(Asked::Handle(handle)),
        };
    }
    text.parse().map(Asked::Identity).map_err(|what: IdentityFault| {
        format!("{what}; or a handle: up to 16 hexadecimal digits, as `wardline who` shows them")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_begin() {
        let cases = [
            ("now", From::Now),
            ("last:0", From::Last(0)),
            ("last:4294967295", From::Last(u32::MAX)),
            ("offset:7:9", From::Offset { epoch: 7, offset: 9 }),
        ];
        for (text, expected) in cases {
            assert_eq!(begin(text), Ok(expected), "{text}");
        }
        for text in ["", "Now", "last", "last:", "last:-1", "last:4294967296", "offset:1", "7:9"] {
            assert!(begin(text).unwrap_err().contains("last:N"), "{text}");
        }
    }

    #[test]
    fn who_is_asked() {
        let hex = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let identity: Identity = hex.parse().unwrap();
        assert_eq!(asked(hex), Ok(Asked::Identity(identity)));
        assert_eq!(asked(&format!("ed25519:{hex}")), Ok(Asked::Identity(identity)));
        for (text, handle) in [("1", 1), ("0x1F", 31), ("ffffffffffffffff", u64::MAX)] {
            assert_eq!(asked(text), Ok(Asked::Handle(handle)), "{text}");
        }
        for text in ["", "0", "0x", "-1", "g", "12345678901234567", &hex[1..], "alice"] {
            assert!(asked(text).unwrap_err().contains("handle"), "{text}");
        }
    }

    #[test]
    fn how_long_it_is_worth_anything() {
        assert_eq!(ttl("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(ttl("49d"), Ok(Duration::from_secs(49 * 86_400)));
        for text in ["0s", "999us", "50d"] {
            assert_eq!(ttl(text), Err("must be from 1ms to 49d".to_owned()), "{text}");
        }
        assert!(ttl("5").unwrap_err().contains("a time with its unit"));
    }

    #[test]
    fn topics_and_spans() {
        assert_eq!(topic("a/b c"), Ok("a/b c".to_owned()));
        assert!(topic("a/*").is_err() && topic("").is_err());
        assert_eq!(span("1500ms"), Ok(Duration::from_millis(1_500)));
        assert!(span("5").unwrap_err().contains("a time with its unit"));
    }
}
