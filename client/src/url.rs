//! `native://HOST:PORT`.

use std::fmt;
use std::str::FromStr;

use crate::error::UrlError;

/// Where a relay is: `native://HOST:PORT`, an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Url {
    /// `host:port`, as it stands in the file of known servers.
    #[must_use]
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "native://{}", self.address())
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("native://").ok_or(UrlError::Scheme)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(UrlError::Rest);
        }
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once("]:").ok_or(UrlError::Port)?,
            None => rest.rsplit_once(':').ok_or(UrlError::Port)?,
        };
        let bracketed = rest.starts_with('[');
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '[' | ']' | '@');
        if host.is_empty() || host.contains(odd) || host.contains(':') != bracketed {
            return Err(UrlError::Host);
        }
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(Self { host: host.to_ascii_lowercase(), port }),
            Ok(_) | Err(_) => Err(UrlError::Port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let good = [
            ("native://127.0.0.1:8889", "127.0.0.1:8889"),
            ("native://Relay.Example:1/", "relay.example:1"),
            ("native://[::1]:65535", "[::1]:65535"),
        ];
        for (text, address) in good {
            let url: Url = text.parse().unwrap();
            assert_eq!(url.address(), address);
            assert_eq!(url.to_string().parse(), Ok(url));
        }
        let bad = [
            ("line://127.0.0.1:8888", UrlError::Scheme),
            ("127.0.0.1:8889", UrlError::Scheme),
            ("native://127.0.0.1", UrlError::Port),
            ("native://:8889", UrlError::Host),
            ("native://::1:8889", UrlError::Host),
            ("native://[h]:8889", UrlError::Host),
            ("native://a@b:8889", UrlError::Host),
            ("native://a b:8889", UrlError::Host),
            ("native://h:0", UrlError::Port),
            ("native://h:+80", UrlError::Port),
            ("native://h:65536", UrlError::Port),
            ("native://[::1]", UrlError::Port),
            ("native://h:80/chat", UrlError::Rest),
        ];
        for (text, error) in bad {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }
}
