//! What went wrong between a client and its relay, in words that say what to do, and as an exit
//! code.

use std::path::Path;

use wardline_client::{Code, ConnectError, Ended, Error, Handshake, Identity, Refusal};

use crate::exit::Failure;

/// No connection.
pub(crate) fn not_connected(
    error: &ConnectError,
    url: &str,
    who: &Identity,
    known: Option<&Path>,
) -> Failure {
    let reason = match error {
        ConnectError::Url(error) => return Failure::Settings(error.to_string()),
        ConnectError::KnownHosts(error) => return Failure::Settings(error.to_string()),
        ConnectError::NoHome => return Failure::Settings(error.to_string()),
        ConnectError::NoKey | ConnectError::Entropy | ConnectError::EpochAhead => {
            return Failure::Runtime(error.to_string());
        }
        ConnectError::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!("{io}; is a relay running there? `wardline` starts one, with native://")
        }
        ConnectError::Alert(refusal) => refused(refusal, who),
        ConnectError::Cut | ConnectError::Handshake(Handshake::Fault(_)) => {
            format!("{error}; native clients go to a native:// listener, 8889 by default")
        }
        ConnectError::WrongServer { .. } => match known {
            Some(path) => format!("{error}\nKnown hosts: {}", path.display()),
            None => error.to_string(),
        },
        ConnectError::Io(_) | ConnectError::Timeout | ConnectError::Handshake(_) => {
            error.to_string()
        }
    };
    Failure::Connect(format!("cannot connect to {url}: {reason}"))
}

/// A relay's no to somebody who comes, and what its operator could do about it.
fn refused(refusal: &Refusal, who: &Identity) -> String {
    let more = match refusal.code() {
        Some(Code::AuthFailed | Code::Refused) => format!(
            "\nThe relay may not know this key, ed25519:{who}\nIts operator lets it in by a line in \
             native.authorized_keys, and a HUP:\n  {who} # {}",
            name()
        ),
        Some(Code::TooManySessions) => {
            format!("\nnative.sessions_per_identity bounds those of ed25519:{who}")
        }
        Some(Code::WrongDialect) => {
            "\nnative clients go to a native:// listener, 8889 by default".to_owned()
        }
        Some(_) | None => String::new(),
    };
    format!("the relay refuses: {refusal}{more}")
}

/// A name for the line: who asks, for people.
fn name() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("USERNAME"));
    let harmless = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    user.ok().filter(|user| user.chars().all(harmless)).unwrap_or_else(|| "a name".to_owned())
}

/// What a line of the relay's authorized keys needs.
pub(crate) fn needs(right: &str, who: &Identity) -> String {
    format!("The line of ed25519:{who} in the relay's native.authorized_keys needs: {right}")
}

/// A call that came to nothing. `doing`: what, as in `publish to TOPIC`; `right`: what a line of
/// the relay's authorized keys needs for it.
pub(crate) fn failed(error: &Error, doing: &str, right: &str, who: &Identity) -> Failure {
    let what = format!("cannot {doing}: {error}");
    match error {
        Error::Deadline => Failure::TimedOut(what),
        Error::Refused(refusal) | Error::NotOpened(refusal)
            if refusal.code() == Some(Code::Forbidden) =>
        {
            Failure::Runtime(format!("{what}\n{}", needs(right, who)))
        }
        Error::Ended(Ended::Close(refusal)) => match refusal.code() {
            Some(Code::AuthFailed | Code::Refused | Code::TooManySessions) => {
                Failure::Connect(format!("cannot {doing}: {}", refused(refusal, who)))
            }
            Some(_) | None => Failure::Runtime(what),
        },
        Error::TooLarge { .. } => {
            Failure::Runtime(format!("{what}; the relay's native.max_payload says how much"))
        }
        Error::Refused(_)
        | Error::NotOpened(_)
        | Error::Untrusted(_)
        | Error::Unsure
        | Error::Expired
        | Error::SessionGone
        | Error::TopicName
        | Error::AlreadySubscribed
        | Error::TooMany
        | Error::NotRead
        | Error::Credit
        | Error::Ended(_) => Failure::Runtime(what),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use wardline_client::SigningKey;

    use super::*;

    fn who() -> Identity {
        SigningKey::from_seed(&[1; 32]).identity()
    }

    fn refusal(code: Code) -> Refusal {
        Refusal { number: code as u16, retry: None }
    }

    fn said(error: &ConnectError) -> (u8, String) {
        let known = Path::new("/s/known_hosts");
        let failure = not_connected(error, "native://h:1", &who(), Some(known));
        (failure.code(), failure.to_string())
    }

    #[test]
    fn who_is_not_known_is_told_which_line_to_add() {
        for code in [Code::AuthFailed, Code::Refused] {
            let (exit, words) = said(&ConnectError::Alert(refusal(code)));
            assert_eq!(exit, 5);
            let line = format!("\n  {} # ", who());
            assert!(words.contains(&line) && words.contains("native.authorized_keys"), "{words}");
        }
    }

    #[test]
    fn each_way_not_to_connect_has_its_code_and_its_hint() {
        let down = io::Error::from(io::ErrorKind::ConnectionRefused);
        let server = SigningKey::from_seed(&[2; 32]).identity();
        let retry = Some(std::time::Duration::from_secs(60));
        let quarantined = Refusal { retry, ..refusal(Code::Quarantined) };
        let changed = ConnectError::WrongServer {
            address: "h:1".to_owned(),
            expected: server,
            shown: *who().as_bytes(),
        };
        for (error, exit, hint) in [
            (ConnectError::Io(Arc::new(down)), 5, "is a relay running there?"),
            (ConnectError::Timeout, 5, "did not answer in time"),
            (ConnectError::Cut, 5, "native:// listener"),
            (changed.clone(), 5, "/s/known_hosts"),
            (changed, 5, "THE SERVER'S KEY IS NOT THE EXPECTED ONE"),
            (ConnectError::Alert(refusal(Code::WrongDialect)), 5, "native:// listener"),
            (ConnectError::Alert(refusal(Code::TooManySessions)), 5, "sessions_per_identity"),
            (ConnectError::Alert(refusal(Code::Overloaded)), 5, "overloaded"),
            (ConnectError::Alert(quarantined), 5, "in quarantine (try again in 60000 ms)"),
            (ConnectError::Alert(refusal(Code::TooManyConnections)), 5, "is full"),
            (ConnectError::Alert(refusal(Code::GoingAway)), 5, "shuts down"),
            (ConnectError::NoKey, 1, "no key"),
        ] {
            let (code, words) = said(&error);
            assert_eq!(code, exit, "{words}");
            assert!(words.contains(hint), "{words}");
        }
    }

    #[test]
    fn calls_fail_with_their_code() {
        let fail = |error: &Error| {
            let failure = failed(error, "publish to t", "publish=t", &who());
            (failure.code(), failure.to_string())
        };
        assert_eq!(fail(&Error::Deadline).0, 124);
        let (code, words) = fail(&Error::Refused(refusal(Code::Forbidden)));
        assert_eq!(code, 1);
        assert!(words.ends_with("native.authorized_keys needs: publish=t"), "{words}");
        assert!(words.starts_with("cannot publish to t: forbidden: "), "{words}");
        assert_eq!(fail(&Error::Ended(Ended::Close(refusal(Code::Refused)))).0, 5);
        assert_eq!(fail(&Error::Ended(Ended::Close(refusal(Code::BadValue)))).0, 1);
        assert_eq!(fail(&Error::Unsure).0, 1);
        let (code, words) = fail(&Error::NotOpened(refusal(Code::Forbidden)));
        assert!(code == 1 && words.contains("who may know its readers"), "{words}");
        let (code, words) = fail(&Error::Untrusted(wardline_client::EnvelopeFault::Missing));
        assert!(code == 1 && words.contains("it is not signed"), "{words}");
        let (code, words) = fail(&Error::TooLarge { bytes: 2, max: 1 });
        assert!(code == 1 && words.contains("native.max_payload"), "{words}");
    }
}
