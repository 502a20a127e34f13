//! Topics by name, by place and by the relay's number; and who reads them.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use wardline_core::native::Start;

use super::asks::{Asks, Wish};
use super::letters::When;
use super::{Joined, Page, Question};
use crate::error::Error;
use crate::event::{Event, From, Reading};

/// Topics that a client may have used: what a relay has by default.
const TOPICS_MAX: usize = 4_096;

/// A topic.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    /// On this connection.
    pub(crate) number: Option<u32>,
    /// A Subscribe or an Open is wished or under way.
    pub(crate) asked: bool,
    /// Who waits until it can be published to.
    pub(crate) openers: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Who asks about it, and waits for its number.
    pub(crate) askers: Vec<(Question, oneshot::Sender<Result<Page, Error>>)>,
    pub(crate) reader: Option<Reader>,
}

/// Who reads a topic, and how far it has come.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) id: u64,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) reading: Reading,
    /// Who waits for the first answer.
    pub(crate) joining: Option<oneshot::Sender<Result<Joined, Error>>>,
    /// The topic's life. None: it was not yet joined.
    pub(crate) epoch: Option<u64>,
    /// The next message.
    pub(crate) next: u64,
    /// What is before this, in the topic's life, was there before the reader.
    pub(crate) began: u64,
    /// What is before this was said before the topic was joined on this connection.
    pub(crate) rejoined: u64,
    /// What is to be told first, once the topic is read again.
    pub(crate) news: Option<Event>,
}

impl Reader {
    /// One that has not yet joined.
    pub(crate) const fn new(
        id: u64,
        reading: Reading,
        events: mpsc::Sender<Event>,
        joining: Option<oneshot::Sender<Result<Joined, Error>>>,
    ) -> Self {
        let (epoch, news) = (None, None);
        Self { id, events, reading, joining, epoch, next: 0, began: 0, rejoined: 0, news }
    }

    /// When a message was said, as far as the relay says it.
    pub(crate) const fn when(&self, offset: u64) -> When {
        if offset < self.began {
            When::Before
        } else if offset < self.rejoined {
            When::Missed
        } else {
            When::Now
        }
    }

    /// Where it goes on.
    pub(crate) const fn start(&self) -> Start {
        match self.epoch {
            Some(epoch) => Start::Offset { epoch, offset: self.next },
            None => self.reading.from.start(),
        }
    }

    /// The relay's answer: what is to be told because of it.
    pub(crate) fn joined(&mut self, epoch: u64, next: u64, oldest: u64) -> Vec<Event> {
        let mut events = Vec::new();
        events.extend(self.news.take());
        match self.epoch {
            Some(was) if was != epoch => {
                let lost = crate::event::LostWhy::Epoch { was, is: epoch, next: self.next };
                events.push(Event::Lost(lost));
                self.next = oldest;
                // All of the new life was said since.
                self.began = 0;
            }
            Some(_) => {}
            None => {
                self.began = next;
                self.next = match self.reading.from {
                    From::Now => next,
                    From::Offset { epoch: wanted, offset } if wanted == epoch => offset,
                    From::Offset { .. } => oldest,
                    From::Last(count) => next.saturating_sub(u64::from(count)).max(oldest),
                };
            }
        }
        self.epoch = Some(epoch);
        self.rejoined = next;
        events
    }
}

/// All topics that this client has used.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    topics: Vec<Topic>,
    by_name: HashMap<Arc<str>, usize>,
    by_number: HashMap<u32, usize>,
    readers: u64,
}

impl Topics {
    /// The place of a topic.
    pub(crate) fn place(&mut self, name: &Arc<str>) -> Result<usize, Error> {
        if let Some(at) = self.by_name.get(name) {
            return Ok(*at);
        }
        if self.topics.len() >= TOPICS_MAX {
            return Err(Error::TooMany);
        }
        let at = self.topics.len();
        self.by_name.insert(name.clone(), at);
        self.topics.push(Topic {
            name: name.clone(),
            number: None,
            asked: false,
            openers: Vec::new(),
            askers: Vec::new(),
            reader: None,
        });
        Ok(at)
    }

    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn at(&mut self, place: usize) -> Option<&mut Topic> {
        self.topics.get_mut(place)
    }

    pub(crate) fn number(&self, place: usize) -> Option<u32> {
        self.topics.get(place).and_then(|topic| topic.number)
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<usize> {
        self.by_number.get(&number).copied()
    }

    /// A number that no reader had yet.
    pub(crate) const fn reader_id(&mut self) -> u64 {
        self.readers += 1;
        self.readers
    }

    /// The relay gave a topic its number.
    pub(crate) fn numbered(&mut self, place: usize, number: u32, asks: &mut Asks) {
        let Some(topic) = self.topics.get_mut(place) else { return };
        topic.asked = false;
        if let Some(before) = topic.number.replace(number)
            && before != number
        {
            self.by_number.remove(&before);
        }
        self.by_number.insert(number, place);
        for opener in topic.openers.drain(..) {
            // Who no longer waits does not want to know.
            let _ = opener.send(Ok(()));
        }
        for (question, done) in topic.askers.drain(..) {
            asks.wish(Wish::Question(question, done));
        }
    }

    /// The number is given back.
    pub(crate) fn forget_number(&mut self, place: usize) -> Option<u32> {
        let number = self.topics.get_mut(place)?.number.take()?;
        self.by_number.remove(&number);
        Some(number)
    }

    /// The connection is gone, and all numbers with it.
    pub(crate) fn lost(&mut self) {
        self.by_number.clear();
        for topic in &mut self.topics {
            topic.number = None;
            topic.asked = false;
        }
    }

    /// The places of those that are read, or that somebody waits to open.
    pub(crate) fn wanted(&self) -> (Vec<usize>, Vec<usize>) {
        let places = |wants: &dyn Fn(&Topic) -> bool| {
            let all = self.topics.iter().enumerate();
            all.filter(|(_, topic)| wants(topic)).map(|(at, _)| at).collect()
        };
        let read = places(&|topic| topic.reader.is_some());
        let waits = |topic: &Topic| !topic.openers.is_empty() || !topic.askers.is_empty();
        let open = places(&|topic| topic.reader.is_none() && waits(topic));
        (read, open)
    }

    /// The client is over: whoever waits learns it from the closed channel.
    pub(crate) fn end(&mut self) {
        self.topics.clear();
        self.by_name.clear();
        self.by_number.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LostWhy;

    fn reader(from: From) -> Reader {
        let (events, _) = mpsc::channel(1);
        Reader::new(1, Reading::new(from), events, None)
    }

    #[test]
    fn where_a_reader_begins_and_goes_on() {
        let offset = |epoch, offset| From::Offset { epoch, offset };
        // From, and the next message after an answer of epoch 7, 10 to come, 4 the oldest.
        for (from, next) in [
            (From::Now, 10),
            (From::Last(3), 7),
            (From::Last(30), 4),
            (From::Last(0), 10),
            (offset(7, 5), 5),
            (offset(7, 2), 2),
            (offset(8, 9), 4),
        ] {
            let mut reader = reader(from);
            assert_eq!(reader.start(), from.start());
            assert_eq!(reader.joined(7, 10, 4), []);
            assert_eq!(reader.next, next, "{from:?}");
            assert_eq!([9, 10].map(|at| reader.when(at)), [When::Before, When::Now]);
            assert_eq!(reader.start(), Start::Offset { epoch: 7, offset: next });
            // The same life again: on from there; another one: from its oldest, and told.
            reader.news = Some(Event::Resumed);
            assert_eq!(reader.joined(7, 12, 11), [Event::Resumed]);
            assert_eq!(reader.next, next);
            let whens = [9, 10, 11, 12].map(|at| reader.when(at));
            assert_eq!(whens, [When::Before, When::Missed, When::Missed, When::Now]);
            reader.news = Some(Event::Reconnected);
            let lost = Event::Lost(LostWhy::Epoch { was: 7, is: 9, next });
            assert_eq!(reader.joined(9, 2, 1), [Event::Reconnected, lost]);
            assert_eq!(reader.next, 1);
            assert_eq!([1, 2].map(|at| reader.when(at)), [When::Missed, When::Now]);
        }
    }

    #[test]
    fn numbers_end_with_the_connection() {
        let mut topics = Topics::default();
        let (a, b) = (topics.place(&"a".into()).unwrap(), topics.place(&"b".into()).unwrap());
        assert_eq!((topics.place(&"a".into()).unwrap(), topics.find("b")), (a, Some(b)));
        let mut asks = Asks::default();
        for (place, number) in [(a, 5), (b, 6), (a, 7)] {
            topics.numbered(place, number, &mut asks);
        }
        assert_eq!((topics.by_number(5), topics.by_number(7)), (None, Some(a)));
        assert_eq!((topics.forget_number(b), topics.by_number(6)), (Some(6), None));
        topics.lost();
        assert_eq!((topics.number(a), topics.by_number(7)), (None, None));
        for nth in topics.topics.len()..TOPICS_MAX {
            topics.place(&format!("{nth}").into()).unwrap();
        }
        assert!(matches!(topics.place(&"more".into()), Err(Error::TooMany)));
        assert!(topics.place(&"a".into()).is_ok());
    }
}
