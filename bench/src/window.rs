//! Who received what of one topic, and how much each publisher may therefore send.

use crate::line::{OWN, Walked};

/// Counts of every receiver and publisher. The first receivers are the readers; behind them stand
/// the publishers' own connections, which receive what other publishers send, or nothing.
#[derive(Debug)]
pub struct Tally {
    readers: usize,
    /// Who gets a line: all the readers, and perhaps the other publishers.
    others: u64,
    /// The next sequence of each publisher at each receiver: `[receiver * publishers + publisher]`.
    next: Vec<u64>,
    /// How many lines each publisher sent.
    sent: Vec<u64>,
    /// What every reader received of each publisher: never above any reader's count.
    floor: Vec<u64>,
    /// How many readers stand at the floor; at zero it has to be found anew.
    at_floor: Vec<usize>,
    /// One receiver's counts before a change.
    before: Vec<u64>,
    delivered: u64,
}

impl Tally {
    /// Nothing sent yet; `listen` says whether publishers hear each other.
    pub fn new(readers: usize, publishers: usize, listen: bool) -> Self {
        let mut next = vec![0; (readers + publishers) * publishers];
        for publisher in 0..publishers {
            let own = &mut next[(readers + publisher) * publishers..][..publishers];
            if listen {
                own[publisher] = OWN;
            } else {
                own.fill(OWN);
            }
        }
        let others = if listen { readers + publishers - 1 } else { readers };
        Self {
            readers,
            others: others as u64,
            next,
            sent: vec![0; publishers],
            floor: vec![0; publishers],
            at_floor: vec![readers; publishers],
            before: vec![0; publishers],
            delivered: 0,
        }
    }

    /// How many lines a publisher sent.
    pub fn sent(&self, publisher: usize) -> u64 {
        self.sent[publisher]
    }

    /// How many lines all receivers got together.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// How many they must get of what was sent.
    pub fn due(&self) -> u64 {
        self.sent.iter().sum::<u64>() * self.others
    }

    /// How many lines a publisher may send: the window less what some reader did not yet get.
    #[inline]
    pub fn room(&mut self, publisher: usize, window: u64) -> u64 {
        if self.at_floor[publisher] == 0 {
            self.find_floor(publisher);
        }
        window - (self.sent[publisher] - self.floor[publisher]).min(window)
    }

    /// A publisher sent `lines` more.
    pub fn add_sent(&mut self, publisher: usize, lines: u64) {
        self.sent[publisher] += lines;
    }

    /// A receiver's counts are brought up to date by `walk`, which returns what it saw.
    #[inline]
    pub fn receive<E>(
        &mut self,
        receiver: usize,
        walk: impl FnOnce(&mut [u64]) -> Result<Walked, E>,
    ) -> Result<Walked, E> {
        let publishers = self.sent.len();
        let next = &mut self.next[receiver * publishers..][..publishers];
        self.before.copy_from_slice(next);
        let walked = walk(next)?;
        self.delivered += walked.lines;
        if receiver < self.readers {
            let counts = self.before.iter().zip(next.iter()).zip(&self.floor);
            for (((before, now), floor), at_floor) in counts.zip(&mut self.at_floor) {
                *at_floor -= usize::from(before != now && before == floor);
            }
        }
        Ok(walked)
    }

    /// The first receiver that misses something, and what: `(receiver, publisher, got, sent)`.
    pub fn missing(&self) -> Option<(usize, usize, u64, u64)> {
        let publishers = self.sent.len();
        self.next.iter().enumerate().find_map(|(at, &got)| {
            let (receiver, publisher) = (at / publishers, at % publishers);
            let sent = self.sent[publisher];
            (got != OWN && got != sent).then_some((receiver, publisher, got, sent))
        })
    }

    fn find_floor(&mut self, publisher: usize) {
        let publishers = self.sent.len();
        let counts = || self.next[publisher..].iter().step_by(publishers).take(self.readers);
        let floor = counts().min().copied().unwrap_or(0);
        let at_floor = counts().filter(|&&count| count == floor).count();
        self.floor[publisher] = floor;
        self.at_floor[publisher] = at_floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(tally: &mut Tally, receiver: usize, publisher: usize, lines: u64) {
        tally
            .receive(receiver, |next| -> Result<Walked, ()> {
                next[publisher] += lines;
                Ok(Walked { lines, ..Walked::default() })
            })
            .unwrap();
    }

    #[test]
    fn the_slowest_reader_decides_the_room() {
        let mut tally = Tally::new(3, 1, true);
        assert_eq!(tally.room(0, 8), 8);
        tally.add_sent(0, 8);
        assert_eq!(tally.room(0, 8), 0);
        receive(&mut tally, 0, 0, 8);
        receive(&mut tally, 1, 0, 5);
        assert_eq!(tally.room(0, 8), 0);
        receive(&mut tally, 2, 0, 3);
        assert_eq!(tally.room(0, 8), 3);
        receive(&mut tally, 2, 0, 5);
        assert_eq!(tally.room(0, 8), 5);
        assert_eq!(tally.missing(), Some((1, 0, 5, 8)));
        receive(&mut tally, 1, 0, 3);
        assert_eq!((tally.room(0, 8), tally.missing()), (8, None));
        assert_eq!((tally.delivered(), tally.due()), (24, 24));
    }

    #[test]
    fn publishers_receive_from_others_and_hold_nobody_up() {
        let mut tally = Tally::new(1, 2, true);
        tally.add_sent(0, 2);
        receive(&mut tally, 0, 0, 2);
        assert_eq!((tally.room(0, 2), tally.room(1, 2)), (2, 2));
        assert_eq!(tally.missing(), Some((2, 0, 0, 2)), "publisher 1 did not get it yet");
        receive(&mut tally, 2, 0, 2);
        assert_eq!((tally.missing(), tally.delivered(), tally.due()), (None, 4, 4));
    }

    #[test]
    fn publishers_that_only_send_are_due_nothing() {
        let mut tally = Tally::new(2, 2, false);
        tally.add_sent(0, 3);
        assert_eq!(tally.due(), 6);
        receive(&mut tally, 0, 0, 3);
        receive(&mut tally, 1, 0, 3);
        assert_eq!((tally.missing(), tally.delivered(), tally.room(0, 4)), (None, 6, 4));
    }
}
