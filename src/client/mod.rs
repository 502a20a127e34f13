//! The commands that are clients of a relay: over `wardline-client`, and with nothing of the
//! relay's own.

pub(crate) mod args;
mod ask;
mod bench;
mod connect;
mod keygen;
mod publish;
mod reply;
mod reports;
mod show;
mod subscribe;
mod words;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use wardline_client::Client;

use crate::exit::Failure;

pub(crate) use ask::{req, rtt, who};
pub(crate) use bench::bench;
pub(crate) use keygen::keygen;
pub(crate) use publish::publish;
pub(crate) use reply::reply;
pub(crate) use subscribe::subscribe;

/// How long a goodbye may take where nothing hangs on it.
const GOODBYE: Duration = Duration::from_secs(2);

/// Does what a command is, on a runtime that ends with it.
fn run(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Runtime(format!("cannot start a runtime: {error}")))?;
    let done = runtime.block_on(work);
    // A thread that reads standard input would be waited for until somebody types something.
    runtime.shutdown_background();
    done
}

/// Does it within that time, where one is said.
async fn within(
    time: Option<Duration>,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let Some(time) = time else { return work.await };
    match tokio::time::timeout(time, work).await {
        Ok(done) => done,
        Err(_) => Err(Failure::TimedOut(format!("not done within {time:?}"))),
    }
}

/// Which of two was first.
#[derive(Debug, PartialEq, Eq)]
enum First<A, B> {
    A(A),
    B(B),
}

/// The first of two to be done; where both are, `a`.
async fn first<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> First<A, B> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|context| {
        if let Poll::Ready(done) = a.as_mut().poll(context) {
            return Poll::Ready(First::A(done));
        }
        b.as_mut().poll(context).map(First::B)
    })
    .await
}

/// What asks this process to end: INT, TERM, or the terminal that goes. From when it is made.
#[derive(Debug)]
struct Ending {
    #[cfg(unix)]
    kinds: Vec<tokio::signal::unix::Signal>,
}

impl Ending {
    #[cfg(unix)]
    fn catch() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        // What cannot be caught ends the process as it always did.
        Self { kinds: kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect() }
    }

    #[cfg(not(unix))]
    fn catch() -> Self {
        Self {}
    }

    /// Until it is asked for.
    #[cfg(unix)]
    async fn asked(&mut self) {
        poll_fn(|context| {
            let came = self.kinds.iter_mut().any(|kind| kind.poll_recv(context).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    #[cfg(not(unix))]
    async fn asked(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Says goodbye, and does not wait long for an answer.
async fn leave(client: Client) {
    // Whatever comes of it: there is nothing that could have been lost.
    let _ = tokio::time::timeout(GOODBYE, client.close()).await;
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[test]
    fn the_first_of_two_is_the_one_that_is_done() {
        run(async {
            assert_eq!(first(ready(1), pending::<()>()).await, First::A(1));
            assert_eq!(first(pending::<()>(), ready(2)).await, First::B(2));
            assert_eq!(first(ready(1), ready(2)).await, First::A(1));
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn what_takes_too_long_is_said() {
        let slow = within(Some(Duration::from_millis(5)), pending());
        let failure = run(slow).unwrap_err();
        assert_eq!((failure.code(), failure.to_string().as_str()), (124, "not done within 5ms"));
        assert!(run(within(None, ready(Ok(())))).is_ok());
    }
}
