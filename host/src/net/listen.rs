//! The URL of a listener: `line://HOST:PORT/TOPIC?coalesce=SPAN`, `native://HOST:PORT`, and
//! `mixed://` with all that `line://` has.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde_json::Value;
use wardline_core::{ConfigError, Duration};

use crate::settings::{Setting, Span, read_text};

/// The topic of a listener that names none.
pub const DEFAULT_TOPIC: &str = "main";

/// Longest name of a topic, in bytes.
const TOPIC_BYTES_MAX: usize = 64;

/// The scheme that belongs to Wardline and is not in this version.
const LATER: &str = "unix";

/// Which dialects a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialects {
    /// The line dialect alone.
    Line,
    /// The native dialect alone.
    Native,
    /// Both: the first byte of a connection decides.
    Mixed,
}

impl Dialects {
    const ALL: [Self; 3] = [Self::Line, Self::Native, Self::Mixed];

    /// Whether clients of the line dialect may come.
    #[must_use]
    pub const fn line(self) -> bool {
        matches!(self, Self::Line | Self::Mixed)
    }

    /// Whether clients of the native dialect may come.
    #[must_use]
    pub const fn native(self) -> bool {
        matches!(self, Self::Native | Self::Mixed)
    }

    /// The scheme of a URL.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Line => "line",
            Self::Native => "native",
            Self::Mixed => "mixed",
        }
    }
}

/// A listener: where it binds, what is spoken there, and which topic its line clients are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    dialects: Dialects,
    host: String,
    port: u16,
    /// Empty of one that is native alone.
    topic: String,
    coalesce: Option<Span>,
}

impl Listen {
    /// A listener at a host that is written apart from its port, on [`DEFAULT_TOPIC`].
    ///
    /// # Errors
    /// The operator's, for a host that is neither an address nor a name.
    pub fn at_host(host: &str, port: u16) -> Result<Self, ListenError> {
        let literal = host.parse::<Ipv6Addr>().is_ok();
        if !literal {
            check_host(host)?;
        }
        Ok(Self { host: host.to_owned(), port, ..Self::default() })
    }

    /// The native listener that there is where none is named: on loopback, at 8889.
    #[must_use]
    pub fn native_default() -> Self {
        let (dialects, topic) = (Dialects::Native, String::new());
        Self { dialects, port: 8889, topic, ..Self::default() }
    }

    /// What is spoken there.
    #[must_use]
    pub fn dialects(&self) -> Dialects {
        self.dialects
    }

    /// The address or name, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 asks for any.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The topic of its line clients; empty where it takes none: native clients name theirs.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The same topic at the address that a bound socket has.
    #[must_use]
    pub fn bound_at(&self, addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port(), ..self.clone() }
    }

    /// How long what the topic's readers are sent may wait for more, if the URL says so.
    #[must_use]
    pub fn coalesce(&self) -> Option<Duration> {
        self.coalesce.map(|span| span.0)
    }

    /// Whether only this machine reaches it, as far as the URL tells.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// Whether this is every address of IPv4 (`0.0.0.0`) or of IPv6 (`::`).
    pub(super) fn wildcard(&self) -> Option<IpAddr> {
        self.host.parse().ok().filter(IpAddr::is_unspecified)
    }
}

impl Default for Listen {
    fn default() -> Self {
        let (host, topic) = ("127.0.0.1".to_owned(), DEFAULT_TOPIC.to_owned());
        Self { dialects: Dialects::Line, host, port: 8888, topic, coalesce: None }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dialects, host, port, topic, coalesce } = self;
        let scheme = dialects.scheme();
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")?;
        } else {
            write!(f, "{scheme}://{host}:{port}")?;
        }
        if dialects.line() {
            write!(f, "/{topic}")?;
        }
        match coalesce {
            Some(span) => write!(f, "?coalesce={}", span.shown()),
            None => Ok(()),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(url: &str) -> Result<Self, ListenError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            let sentence = "must be line://HOST:PORT/TOPIC or native://HOST:PORT";
            return Err(ListenError::new(sentence, url));
        };
        if scheme == LATER {
            let sentence = "unix:// is not in this version; it has line://, native:// and mixed://";
            return Err(ListenError::new(sentence, url));
        }
        let Some(dialects) = Dialects::ALL.into_iter().find(|known| known.scheme() == scheme)
        else {
            let sentence = "must begin with line://, native:// or mixed://";
            return Err(ListenError::new(sentence, url));
        };
        let (rest, query) = match rest.rsplit_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let coalesce = query.map(read_query).transpose();
        let coalesce = coalesce.map_err(|sentence| ListenError::new(&sentence, url))?;
        let (authority, topic) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = split_authority(authority, url)?;
        let Ok(port) = port.parse::<u16>() else {
            return Err(ListenError::new("needs a port of 0 to 65535", url));
        };
        let topic = match (dialects.line(), topic) {
            (true, "") => DEFAULT_TOPIC,
            (true, topic) => topic,
            (false, "") if coalesce.is_none() => "",
            (false, _) => {
                let sentence = "may have nothing behind its port: native clients name their topics";
                return Err(ListenError::new(sentence, url));
            }
        };
        if dialects.line() {
            check_topic(topic).map_err(|wrong| ListenError::new(&wrong.0, url))?;
        }
        Ok(Self { dialects, host: host.to_owned(), port, topic: topic.to_owned(), coalesce })
    }
}

impl Setting for Listen {
    fn read(value: &Value) -> Result<Self, String> {
        let Some(url) = value.as_str() else {
            return Err("must be a URL such as \"line://127.0.0.1:8888/main\"".to_owned());
        };
        url.parse().map_err(|wrong: ListenError| wrong.0)
    }

    fn show(&self) -> Option<Value> {
        Some(Value::from(self.to_string()))
    }
}

/// A URL that is no listener, in a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenError(String);

impl ListenError {
    fn new(sentence: &str, url: &str) -> Self {
        Self(format!("{sentence}, in {url:?}"))
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ListenError {}

/// Splits `HOST:PORT` or `[IPV6]:PORT`.
fn split_authority<'u>(authority: &'u str, url: &str) -> Result<(&'u str, &'u str), ListenError> {
    const NEEDS_PORT: &str = "needs a port, as in line://127.0.0.1:8888";
    if let Some(rest) = authority.strip_prefix('[') {
        let Some((host, after)) = rest.split_once(']') else {
            return Err(ListenError::new("lacks the ] after the IPv6 address", url));
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(ListenError::new("needs an IPv6 address between [ and ]", url));
        }
        let port = after.strip_prefix(':').ok_or_else(|| ListenError::new(NEEDS_PORT, url))?;
        return Ok((host, port));
    }
    let Some((host, port)) = authority.rsplit_once(':') else {
        return Err(ListenError::new(NEEDS_PORT, url));
    };
    if host.contains(':') {
        return Err(ListenError::new("needs [ and ] around an IPv6 address", url));
    }
    check_host(host).map_err(|wrong| ListenError::new(&wrong.0, url))?;
    Ok((host, port))
}

/// What stands behind the topic: the one parameter that there is.
fn read_query(query: &str) -> Result<Span, String> {
    match query.split_once('=') {
        Some(("coalesce", span)) => {
            read_text(span).map_err(|wrong| format!("needs a right coalesce: {wrong}"))
        }
        _ => Err("may only have coalesce=SPAN behind its ?".to_owned()),
    }
}

/// An IPv4 address or a host name.
fn check_host(host: &str) -> Result<(), ListenError> {
    if host.is_empty() {
        return Err(ListenError("needs a host; 0.0.0.0 is every IPv4 address".to_owned()));
    }
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if host.chars().all(name) {
        Ok(())
    } else {
        Err(ListenError(format!("needs an address or a host name, not {host:?}")))
    }
}

fn check_topic(topic: &str) -> Result<(), ListenError> {
    let forbidden = |c: char| c.is_control() || matches!(c, '*' | '>' | '+' | '#');
    let good = !topic.is_empty()
        && topic.len() <= TOPIC_BYTES_MAX
        && !topic.starts_with('$')
        && !topic.contains(forbidden);
    if good { Ok(()) } else { Err(ListenError(ConfigError::TopicName.sentence().to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_urls() {
        let cases = [
            ("line://127.0.0.1:8888/main", "127.0.0.1", 8888, "main"),
            ("line://127.0.0.1:8888", "127.0.0.1", 8888, "main"),
            ("line://127.0.0.1:0/", "127.0.0.1", 0, "main"),
            ("line://[::1]:0", "::1", 0, "main"),
            ("line://[::]:65535/a/b c", "::", 65535, "a/b c"),
            ("line://localhost:1/räume", "localhost", 1, "räume"),
            ("line://my_host.example:1/x$", "my_host.example", 1, "x$"),
        ];
        for (url, host, port, topic) in cases {
            let listen: Listen = url.parse().unwrap();
            assert_eq!((listen.host(), listen.port(), listen.topic()), (host, port, topic));
            assert_eq!(listen.to_string().parse::<Listen>().unwrap(), listen, "{url}");
        }
        assert_eq!(Listen::default().to_string(), "line://127.0.0.1:8888/main");
        let longest = format!("line://h:1/{}", "t".repeat(64));
        assert_eq!(longest.parse::<Listen>().unwrap().topic().len(), 64);
    }

    #[test]
    fn bad_urls_say_what_is_wrong() {
        let long = format!("line://h:1/{}", "t".repeat(65));
        let cases = [
            ("", "must be line://"),
            ("127.0.0.1:8888", "must be line://"),
            ("tcp://127.0.0.1:8888", "must begin with line://, native:// or mixed://"),
            ("LINE://127.0.0.1:8888", "must begin with line://"),
            ("native://[::1]:8889/main", "may have nothing behind its port"),
            ("native://[::1]:8889?coalesce=1ms", "may have nothing behind its port"),
            ("native://[::1]", "needs a port"),
            ("mixed://[::1]:8889/a*", "topic's name"),
            ("unix:///run/x", "unix:// is not in this version"),
            ("line://", "needs a port"),
            ("line://127.0.0.1", "needs a port"),
            ("line://127.0.0.1:", "port of 0 to 65535"),
            ("line://127.0.0.1:65536", "port of 0 to 65535"),
            ("line://127.0.0.1:x", "port of 0 to 65535"),
            ("line://:8888", "needs a host"),
            ("line://::1:8888", "needs [ and ]"),
            ("line://[::1:8888", "lacks the ]"),
            ("line://[::1]", "needs a port"),
            ("line://[::1]8888", "needs a port"),
            ("line://[nonsense]:1", "needs an IPv6 address"),
            ("line://a b:1", "address or a host name"),
            ("line://u@h:1", "address or a host name"),
            ("line://h:1/$sys", "topic's name"),
            ("line://h:1/a*", "topic's name"),
            ("line://h:1/a>b", "topic's name"),
            ("line://h:1/a+b", "topic's name"),
            ("line://h:1/a#b", "topic's name"),
            ("line://h:1/a\tb", "topic's name"),
            ("line://h:1/a?", "may only have coalesce="),
            ("line://h:1/a?colaesce=1ms", "may only have coalesce="),
            ("line://h:1/a?coalesce=1", "a time with its unit"),
            (long.as_str(), "topic's name"),
        ];
        for (url, says) in cases {
            let wrong = url.parse::<Listen>().unwrap_err().to_string();
            assert!(wrong.contains(says), "{url}: {wrong}");
            assert!(wrong.contains(&format!("{url:?}")), "{url}: {wrong}");
        }
    }

    #[test]
    fn each_scheme_says_what_is_spoken() {
        let cases = [
            ("line://h:1/a", Dialects::Line, "a", "line://h:1/a"),
            ("native://h:1", Dialects::Native, "", "native://h:1"),
            ("native://[::1]:0/", Dialects::Native, "", "native://[::1]:0"),
            ("mixed://h:1", Dialects::Mixed, "main", "mixed://h:1/main"),
            ("mixed://h:1/a?coalesce=1ms", Dialects::Mixed, "a", "mixed://h:1/a?coalesce=1ms"),
        ];
        for (url, dialects, topic, shown) in cases {
            let listen: Listen = url.parse().unwrap();
            assert_eq!((listen.dialects(), listen.topic()), (dialects, topic), "{url}");
            assert_eq!(listen.to_string(), shown);
            assert_eq!(shown.parse::<Listen>().unwrap(), listen);
        }
        assert_eq!(Listen::native_default().to_string(), "native://127.0.0.1:8889");
        assert_eq!(Listen::default().dialects(), Dialects::Line);
    }

    #[test]
    fn a_topic_may_be_patient() {
        let listen: Listen = "line://h:1/a?coalesce=10ms".parse().unwrap();
        assert_eq!(listen.topic(), "a");
        assert_eq!(listen.coalesce(), Some(Duration::from_millis(10)));
        assert_eq!(listen.to_string(), "line://h:1/a?coalesce=10ms");
        let bound = listen.bound_at("[::1]:9".parse().unwrap());
        assert_eq!(bound.to_string(), "line://[::1]:9/a?coalesce=10ms");
        let plain: Listen = "line://h:1?coalesce=0".parse().unwrap();
        assert_eq!((plain.topic(), plain.coalesce()), ("main", Some(Duration::ZERO)));
    }

    #[test]
    fn hosts_apart_from_their_port() {
        assert_eq!(Listen::at_host("::1", 7).unwrap().to_string(), "line://[::1]:7/main");
        assert_eq!(Listen::at_host("0.0.0.0", 7).unwrap().to_string(), "line://0.0.0.0:7/main");
        assert!(Listen::at_host("", 7).is_err());
        assert!(Listen::at_host("a/b", 7).is_err());
    }

    #[test]
    fn a_bound_address_replaces_the_name() {
        let listen: Listen = "line://localhost:0/t".parse().unwrap();
        let bound = listen.bound_at("[::1]:9".parse().unwrap());
        assert_eq!(bound.to_string(), "line://[::1]:9/t");
    }
}
