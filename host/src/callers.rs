//! Who has something to say to a shard in a turn: its sockets, its doors, the control thread and
//! the other shards. For engines whose sockets ring [`Bells`].

use std::ops::Range;
use std::sync::Arc;
use std::task::Waker;

use wardline_core::Instant;

use crate::bells::{Bell, Bells};
use crate::links::Links;
use crate::orders::Orders;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A socket, by its number.
    Socket {
        /// Which.
        number: u32,
        /// Whether it rang; else it is looked at again.
        rang: bool,
    },
    /// A listener, by its place.
    Door(usize),
    /// The control thread: there are orders.
    Control,
}

/// All of them.
#[derive(Debug)]
pub struct Callers {
    bells: Arc<Bells>,
    /// Numbers from here on are doors', in their order; then come the control's and the links'.
    doors: Range<u32>,
    control: Bell,
    /// Rung by the other shards.
    link: Bell,
    /// Those of this turn: first who rang, then who is looked at again.
    listed: Vec<u32>,
    rang: usize,
    at: usize,
    doors_open_at: Option<Instant>,
}

impl Callers {
    /// For sockets with the numbers up to `sockets`, and so many doors.
    #[must_use]
    pub fn new(sockets: u32, doors: usize) -> Self {
        let doors = sockets..sockets.saturating_add(u32::try_from(doors).unwrap_or(u32::MAX));
        let numbers = doors.end as usize + 2;
        let bells = Bells::new(numbers);
        Self {
            control: bells.bell(doors.end),
            link: bells.bell(doors.end.saturating_add(1)),
            bells,
            doors,
            // Each has rung, is looked at again, and is a door that opens.
            listed: Vec::with_capacity(3 * numbers),
            rang: 0,
            at: 0,
            doors_open_at: None,
        }
    }

    /// What sockets ring.
    #[must_use]
    pub fn bells(&self) -> &Arc<Bells> {
        &self.bells
    }

    /// How many callers there can be.
    #[must_use]
    pub fn numbers(&self) -> usize {
        self.doors.end as usize + 2
    }

    /// The numbers of the doors.
    #[must_use]
    pub fn doors(&self) -> Range<u32> {
        self.doors.clone()
    }

    /// The number of the door at this place, as one that is looked at again.
    #[must_use]
    pub fn door(&self, at: usize) -> u32 {
        self.doors.start.saturating_add(u32::try_from(at).unwrap_or(u32::MAX))
    }

    /// Has orders and the other shards wake this one.
    pub fn listen(&self, orders: &Orders, links: &Links) {
        orders.listen(self.control.waker().clone());
        links.listen(self.link.waker().clone());
    }

    /// Begins a turn: whoever has rung, and those that are to be looked at `again`, which is
    /// emptied. [`Callers::answer`] gives them.
    pub fn begin_turn(&mut self, again: &mut Vec<u32>, now: Instant) {
        self.listed.clear();
        self.bells.swap(&mut self.listed);
        (self.rang, self.at) = (self.listed.len(), 0);
        self.listed.append(again);
        if self.doors_open_at.is_some_and(|at| at <= now) {
            self.doors_open_at = None;
            self.listed.extend(self.doors.clone());
        }
    }

    /// The next one of this turn, heard. What other shards sent is not among them:
    /// [`Links::take_in`].
    #[inline]
    pub fn answer(&mut self) -> Option<Caller> {
        loop {
            let number = self.listed.get(self.at).copied()?;
            let rang = self.at < self.rang;
            self.at += 1;
            if number < self.doors.start {
                return Some(Caller::Socket { number, rang });
            } else if number < self.doors.end {
                return Some(Caller::Door((number - self.doors.start) as usize));
            } else if number == self.doors.end {
                self.control.answered();
                return Some(Caller::Control);
            }
            self.link.answered();
        }
    }

    /// Has the doors looked at again then, and not before.
    pub fn rest_doors(&mut self, until: Instant) {
        self.doors_open_at = Some(until);
    }

    /// Until when the doors rest.
    #[must_use]
    pub fn doors_open_at(&self) -> Option<Instant> {
        self.doors_open_at
    }

    /// Says whom to wake when somebody rings.
    pub fn register(&self, shard: &Waker) {
        self.bells.register(shard);
    }

    /// Whether nobody has rung since the turn began.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bells.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use wardline_core::Duration;

    use super::*;
    use crate::signals::Control;

    fn all(callers: &mut Callers) -> Vec<Caller> {
        std::iter::from_fn(|| callers.answer()).collect()
    }

    fn socket(number: u32, rang: bool) -> Caller {
        Caller::Socket { number, rang }
    }

    #[test]
    fn who_rang_comes_first_and_once() {
        let mut callers = Callers::new(4, 2);
        let bell = callers.bells().bell(3);
        let now = Instant::from_nanos(1);
        bell.waker().wake_by_ref();
        bell.waker().wake_by_ref();
        assert!(!callers.is_empty());
        let mut again = vec![1, 3, callers.door(1)];
        callers.begin_turn(&mut again, now);
        let expected = [socket(3, true), socket(1, false), socket(3, false), Caller::Door(1)];
        assert_eq!(all(&mut callers), expected);
        assert!(again.is_empty() && callers.is_empty());
        // It was not answered.
        bell.waker().wake_by_ref();
        callers.begin_turn(&mut again, now);
        assert_eq!(all(&mut callers), []);
        bell.answered();
        bell.waker().wake_by_ref();
        callers.begin_turn(&mut again, now);
        assert_eq!(all(&mut callers), [socket(3, true)]);
    }

    #[test]
    fn orders_ring_each_time_and_links_are_nobody() {
        let (orders, links) = (Orders::default(), Links::alone());
        let mut callers = Callers::new(4, 2);
        callers.listen(&orders, &links);
        for _ in 0..2 {
            orders.tell(Control::Dump);
            callers.link.waker().wake_by_ref();
            callers.begin_turn(&mut Vec::new(), Instant::from_nanos(1));
            assert_eq!(all(&mut callers), [Caller::Control]);
        }
    }

    #[test]
    fn doors_that_rest_are_looked_at_in_time() {
        let mut callers = Callers::new(4, 2);
        let now = Instant::from_nanos(1);
        let then = now.after(Duration::from_secs(1));
        callers.rest_doors(then);
        callers.begin_turn(&mut Vec::new(), now);
        assert_eq!((all(&mut callers), callers.doors_open_at()), (vec![], Some(then)));
        callers.begin_turn(&mut Vec::new(), then);
        let doors = vec![Caller::Door(0), Caller::Door(1)];
        assert_eq!((all(&mut callers), callers.doors_open_at()), (doors, None));
    }
}
