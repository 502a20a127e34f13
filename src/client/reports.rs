//! What happens to a client on its way, said on standard error; and what was not taken, counted.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use wardline_client::{Client, Code, Refusal, Report};

use super::GOODBYE;
use super::show::handle;

/// What nobody waited for and was not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Messages that the relay refused.
    pub(crate) refused: u64,
    /// Why, of the last.
    pub(crate) why: Option<Refusal>,
    /// Messages of which nobody knows.
    pub(crate) unsure: u64,
    /// Reports that nobody heard; each may be one of those.
    pub(crate) unheard: u64,
}

/// Listens to the reports of a client until its end.
#[derive(Debug)]
pub(crate) struct Listening {
    tally: Arc<Mutex<Tally>>,
    task: JoinHandle<()>,
}

impl Listening {
    pub(crate) fn to(client: &Client) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut reports = client.reports();
        let shared = tally.clone();
        let task = tokio::spawn(async move {
            let mut told = Told::default();
            while let Some((report, dropped)) = reports.recv().await {
                if let Some(words) = told.words(&report) {
                    eprintln!("wardline: {words}");
                }
                let mut tally = shared.lock().unwrap_or_else(PoisonError::into_inner);
                tally.unheard += dropped;
                tally.count(&report);
            }
        });
        Self { tally, task }
    }

    /// What there was, once the client is over.
    pub(crate) async fn tally(self) -> Tally {
        // The last report is the client's end; it comes at once where the client is over.
        let _ = tokio::time::timeout(GOODBYE, self.task).await;
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn count(&mut self, report: &Report) {
        match report {
            Report::Refused { refusal, .. } => {
                self.refused += 1;
                self.why = Some(*refusal);
            }
            Report::Expired { .. } => {
                self.refused += 1;
                self.why = Some(Refusal { number: Code::Expired.wire(), retry: None });
            }
            Report::Unsure { .. } | Report::SessionGone { .. } => self.unsure += 1,
            Report::Cut
            | Report::Closed(_)
            | Report::NotReached(..)
            | Report::Resumed
            | Report::Reconnected
            | Report::DirectLost { .. }
            | Report::Untrusted { .. }
            | Report::Late { .. }
            | Report::Unwanted { .. }
            | Report::Clock(_)
            | Report::Ended(_) => {}
        }
    }
}

/// What somebody at a terminal was told, so as not to be told it again and again.
#[derive(Debug, Default)]
struct Told {
    /// That the connection was lost.
    lost: bool,
    /// Why there is none.
    why: Option<String>,
}

impl Told {
    /// A report in words, where it is worth some.
    fn words(&mut self, report: &Report) -> Option<String> {
        match report {
            Report::NotReached(error, wait) => {
                let (why, seconds) = (error.to_string(), wait.as_secs_f32());
                let said = match self.why.as_ref() == Some(&why) {
                    true => format!("still no connection; trying again in {seconds:.1} s"),
                    false => format!("no connection: {why}; trying again in {seconds:.1} s"),
                };
                self.why = Some(why);
                return Some(said);
            }
            Report::Cut | Report::Closed(_) => self.lost = true,
            Report::Resumed | Report::Reconnected => {
                self.why = None;
                // The first connection is a new session, too; nobody has to hear of that.
                if !std::mem::take(&mut self.lost) {
                    return None;
                }
            }
            Report::Refused { .. }
            | Report::Unsure { .. }
            | Report::SessionGone { .. }
            | Report::DirectLost { .. }
            | Report::Expired { .. }
            | Report::Untrusted { .. }
            | Report::Late { .. }
            | Report::Unwanted { .. }
            | Report::Clock(_)
            | Report::Ended(_) => {}
        }
        words(report)
    }
}

/// A report that somebody at a terminal wants to hear of.
fn words(report: &Report) -> Option<String> {
    match report {
        Report::Cut => Some("the connection was lost; coming back".to_owned()),
        Report::Closed(refusal) => {
            Some(format!("the relay closed the connection: {refusal}; coming back"))
        }
        Report::NotReached(..) => None,
        Report::Resumed => Some("connected again; the session goes on".to_owned()),
        Report::Reconnected => Some("connected again, as a new session".to_owned()),
        Report::DirectLost { from, to } => {
            let lost = to.saturating_sub(*from);
            Some(format!("{lost} messages to this client were lost on the way"))
        }
        Report::Untrusted { sender, fault, .. } => {
            let (sender, why) = (handle(*sender), fault.sentence());
            Some(format!("a message of {sender} is kept back: {why}"))
        }
        Report::Late { sender, .. } => {
            Some(format!("a message of {} came after its time to live", handle(*sender)))
        }
        Report::Clock(ms) => {
            let (seconds, way) =
                (ms.unsigned_abs() / 1_000, if *ms > 0 { "ahead" } else { "behind" });
            Some(format!(
                "the relay's clock is {seconds} s {way} of this one: one of them is wrong"
            ))
        }
        // Counted; or said by who asked.
        Report::Refused { .. } | Report::Unsure { .. } | Report::SessionGone { .. } => None,
        Report::Expired { .. } => None,
        Report::Unwanted { .. } | Report::Ended(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use wardline_client::ConnectError;

    use super::*;

    #[test]
    fn what_was_not_taken_is_counted() {
        let mut tally = Tally::default();
        let refusal = Refusal { number: Code::Rate as u16, retry: None };
        tally.count(&Report::Refused { topic: None, mid: 1, refusal });
        tally.count(&Report::Unsure { topic: None, mid: 2 });
        tally.count(&Report::Resumed);
        let expected = Tally { refused: 1, why: Some(refusal), unsure: 1, unheard: 0 };
        assert_eq!(tally, expected);
        tally.count(&Report::Expired { topic: None, mid: 3 });
        assert_eq!((tally.refused, tally.why.and_then(|why| why.code())), (2, Some(Code::Expired)));
    }

    #[test]
    fn what_a_person_should_hear_is_said() {
        assert!(words(&Report::Clock(-90_500)).unwrap().contains("90 s behind"));
        assert!(words(&Report::Cut).unwrap().contains("coming back"));
        assert_eq!(words(&Report::Unwanted { sender: 1 }), None);
    }

    #[test]
    fn nothing_is_said_again_and_again() {
        let mut told = Told::default();
        assert_eq!(told.words(&Report::Reconnected), None);
        assert!(told.words(&Report::Cut).is_some());
        let mut down = || {
            let report = Report::NotReached(ConnectError::Timeout, Duration::from_millis(1_500));
            told.words(&report).unwrap()
        };
        let first = "no connection: the server did not answer in time; trying again in 1.5 s";
        assert_eq!(down(), first);
        assert_eq!(down(), "still no connection; trying again in 1.5 s");
        assert!(told.words(&Report::Resumed).is_some());
        assert_eq!(told.words(&Report::Resumed), None);
    }
}
