//! What comes of `accept`: a connection, or an error.

use std::io;

use socket2::SockRef;
use wardline_core::{ConnId, Duration, Handover, Instant, Pool, Relay, Remote};

use super::Tuning;

/// How long a listener rests after an error such as "too many open files".
const BACKOFF: Duration = Duration::from_millis(100);

/// How often errors of `accept` are told.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// Has the relay take a connection, which may come from another shard. One that it refuses is told
/// so by `warn` in the dialect of the listener, as far as its socket takes it, and is gone.
pub fn admit<P: Pool, S>(
    relay: &mut Relay<'_, P>,
    tuning: Tuning,
    (stream, remote): (S, Remote),
    handover: Option<Box<Handover>>,
    now: Instant,
    warn: impl FnOnce(&S, &[u8]),
) -> Option<(ConnId, S)>
where
    for<'s> SockRef<'s>: From<&'s S>,
{
    let Remote { addr, topic } = remote;
    let taken = match handover {
        Some(mut handover) => relay.handle_handover(now, &mut handover),
        None => relay.handle_accept(now, remote),
    };
    match taken {
        Ok(conn) => {
            if let Err(error) = tuning.accepted(&stream) {
                tracing::debug!(%conn, %error, "socket options not set");
            }
            tracing::debug!(%conn, %addr, "accepted");
            Some((conn, stream))
        }
        Err(refusal) => {
            if topic.is_native() {
                warn(&stream, refusal.alert().as_bytes());
            } else {
                warn(&stream, refusal.warning().as_bytes());
            }
            tracing::debug!(%addr, code = refusal.code(), "refused");
            None
        }
    }
}

/// Errors of `accept`, told once a minute however often they happen.
#[derive(Debug, Default)]
pub struct AcceptErrors {
    untold: u64,
    told: Option<Instant>,
}

impl AcceptErrors {
    /// Counts an error, and tells of it if it is time. Gives until when the listener rests; `None`
    /// where the error speaks of the connection that it would have taken, not of us.
    pub fn rest_until(&mut self, error: &io::Error, now: Instant) -> Option<Instant> {
        if is_of_one_connection(error) {
            return None;
        }
        self.untold += 1;
        if self.told.is_none_or(|told| now.since(told) >= TOLD_EVERY) {
            let errors = std::mem::take(&mut self.untold);
            tracing::warn!(%error, code = "accept", errors, "cannot accept; trying on");
            self.told = Some(now);
        }
        Some(now.after(BACKOFF))
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_makes_the_listener_rest() {
        let mut errors = AcceptErrors::default();
        let now = Instant::from_nanos(5);
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(errors.rest_until(&aborted, now), None);
        let full = io::Error::other("too many open files");
        assert_eq!(errors.rest_until(&full, now), Some(now.after(BACKOFF)));
        assert_eq!(errors.untold, 0, "the first is told");
        assert_eq!(errors.rest_until(&full, now), Some(now.after(BACKOFF)));
        assert_eq!(errors.untold, 1, "the next waits for its minute");
    }
}
