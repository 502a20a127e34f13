//! What is to be asked of the relay, and what was asked and is not answered.

use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot;
use wardline_core::{Duration, Instant};

use super::{Page, Question};
use crate::client::Peer;
use crate::error::Error;

/// Questions that wait or are under way.
const QUESTIONS_MAX: usize = 1_024;
/// The relay takes 100 control values a second and 256 at once; less is said here.
const PACE: Duration = Duration::from_millis(12);
const BURST: u64 = 128;
/// Sessions in one answer: more than a relay gives.
const PEERS_MAX: usize = 1_024;

/// What is to be said.
#[derive(Debug)]
pub(crate) enum Wish {
    Open(usize),
    Subscribe(usize),
    Unsubscribe(u32),
    Question(Question, oneshot::Sender<Result<Page, Error>>),
    Credit { peer: u64, corr: u64, bytes: u32 },
}

/// What was asked.
#[derive(Debug)]
pub(crate) enum Asked {
    Open(usize),
    /// The topic's place and the reader that it is for.
    Subscribe(usize, u64),
    Question(Question, oneshot::Sender<Result<Page, Error>>, Page),
}

/// Wishes and questions.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    wishes: VecDeque<Wish>,
    pending: HashMap<u32, Asked>,
    last: u32,
    /// When the allowance is whole again.
    whole: Instant,
}

impl Asks {
    pub(crate) fn wish(&mut self, wish: Wish) {
        match wish {
            Wish::Question(_, done) if self.wishes.len() + self.pending.len() >= QUESTIONS_MAX => {
                // Who no longer waits does not want to know.
                let _ = done.send(Err(Error::TooMany));
            }
            wish => self.wishes.push_back(wish),
        }
    }

    /// The next wish, if it may be said now. It counts as said.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Wish> {
        if self.wishes.is_empty() || self.ready_at() > now {
            return None;
        }
        self.whole = self.whole.max(now).after(PACE);
        self.wishes.pop_front()
    }

    /// When the next wish may be said; never, where there is none.
    pub(crate) fn deadline(&self) -> Instant {
        if self.wishes.is_empty() { Instant::NEVER } else { self.ready_at() }
    }

    fn ready_at(&self) -> Instant {
        self.whole.before(PACE.times(BURST))
    }

    /// A number for a question.
    pub(crate) fn ask(&mut self, asked: Asked) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            if !self.pending.contains_key(&self.last) {
                break;
            }
        }
        self.pending.insert(self.last, asked);
        self.last
    }

    /// The question of that number, answered.
    pub(crate) fn answered(&mut self, ask: u32) -> Option<Asked> {
        self.pending.remove(&ask)
    }

    /// One of the sessions that answer a question. An Identify has one.
    pub(crate) fn peer(&mut self, ask: u32, peer: Peer) {
        if let Some(Asked::Question(question, _, page)) = self.pending.get_mut(&ask) {
            if page.peers.len() < PEERS_MAX {
                page.peers.push(peer);
            }
            if matches!(question, Question::Identify(_)) {
                self.done(ask, 0);
            }
        }
    }

    /// That was all.
    pub(crate) fn done(&mut self, ask: u32, next: u64) {
        if let Some(Asked::Question(_, done, page)) = self.pending.remove(&ask) {
            // Who no longer waits does not want to know.
            let _ = done.send(Ok(Page { next, ..page }));
        }
    }

    /// The connection is gone: questions are asked again on the next one; topics are dealt with by
    /// who knows them. `resumed` is known only then, so credits wait for [`Asks::forget_credits`].
    pub(crate) fn lost(&mut self) {
        self.wishes.retain(|wish| matches!(wish, Wish::Question(..) | Wish::Credit { .. }));
        let mut again: Vec<_> = self.pending.drain().collect();
        again.sort_by_key(|(ask, _)| *ask);
        for (_, asked) in again.into_iter().rev() {
            if let Asked::Question(question, done, _) = asked {
                self.wishes.push_front(Wish::Question(question, done));
            }
        }
        self.whole = Instant::ZERO;
    }

    /// Handles are void, so that nobody has the requests that they were for.
    pub(crate) fn forget_credits(&mut self) {
        self.wishes.retain(|wish| !matches!(wish, Wish::Credit { .. }));
    }

    /// Nobody gets an answer for the time being.
    pub(crate) fn fail_questions(&mut self, error: &Error) {
        let pending = self.pending.extract_if(|_, asked| matches!(asked, Asked::Question(..)));
        for (_, asked) in pending {
            if let Asked::Question(_, done, _) = asked {
                // Who no longer waits does not want to know.
                let _ = done.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_speaks_no_faster_than_it_may() {
        let mut asks = Asks::default();
        for nth in 0..1_000 {
            asks.wish(Wish::Unsubscribe(nth));
        }
        let mut said = 0;
        let from = 5_000_000;
        for ms in 0..2_000 {
            let now = Instant::from_nanos((from + ms) * 1_000_000);
            while asks.next(now).is_some() {
                said += 1;
            }
            assert!(asks.deadline() > now);
            // The relay's rule: 256 at once and 100 a second.
            assert!(said <= 256 + ms / 10, "{said} after {ms} ms");
        }
        assert!((280..300).contains(&said), "{said}");
    }

    #[test]
    fn questions_are_bounded_and_asked_again() {
        let mut asks = Asks::default();
        let mut answers = Vec::new();
        for nth in 0..QUESTIONS_MAX as u64 + 1 {
            let (done, answer) = oneshot::channel();
            asks.wish(Wish::Question(Question::Identify(nth), done));
            answers.push(answer);
        }
        let last = answers.last_mut().unwrap().try_recv();
        assert!(matches!(last, Ok(Err(Error::TooMany))));
        for _ in 0..3 {
            let Some(Wish::Question(question, done)) = asks.next(Instant::ZERO) else { panic!() };
            asks.ask(Asked::Question(question, done, Page::default()));
        }
        asks.wish(Wish::Unsubscribe(7));
        asks.lost();
        for nth in 0..4 {
            let wish = asks.next(Instant::ZERO);
            let question = matches!(&wish, Some(Wish::Question(Question::Identify(of), _))
                if *of == nth);
            assert!(question, "{nth}: {wish:?}");
        }
        assert!(!asks.wishes.iter().any(|wish| matches!(wish, Wish::Unsubscribe(_))));
    }
}
