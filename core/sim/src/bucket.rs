//! A token bucket, told naively: tokens come back with time, up to the burst. And what may be
//! known of one from outside, where its cost is not.

/// A struck address pays so many times as much.
const DEAR: u64 = 10;
/// For at least so long.
const STRUCK_NS: u64 = 60_000_000_000;

/// Nanoseconds of refill that a bucket holds: at least, at most.
type Held = (u64, u64);

/// The rate of a sender: its address may be throttled, and nobody says until when.
#[derive(Clone, Debug)]
pub(crate) struct Guess {
    /// What one message costs; 0: nothing.
    cost_ns: u64,
    /// What a full bucket holds.
    full_ns: u64,
    at_ns: u64,
    /// If it pays as others do.
    cheap: Option<Held>,
    /// If it pays for a strike.
    dear: Option<Held>,
    /// When the strike is over, if that was told.
    until_ns: Option<u64>,
}

impl Guess {
    /// A full bucket of `per_minute`; 0: no limit. `unknown`: it may pay for a strike.
    #[must_use]
    pub(crate) fn new(per_minute: u32, unknown: bool, now_ns: u64) -> Self {
        let cost_ns = 60_000_000_000_u64.checked_div(u64::from(per_minute)).unwrap_or(0);
        let full_ns = cost_ns * u64::from(per_minute);
        let full = Some((full_ns, full_ns));
        let dear = if unknown { full } else { None };
        Self { cost_ns, full_ns, at_ns: now_ns, cheap: full, dear, until_ns: None }
    }

    /// It was struck, and pays for it from now on: a minute at least.
    pub(crate) fn strike(&mut self, now_ns: u64, seconds: u32) {
        self.go_on(now_ns);
        self.dear = either(self.dear, self.cheap.take());
        self.until_ns = Some(now_ns + (u64::from(seconds) * 1_000_000_000).max(STRUCK_NS));
    }

    fn go_on(&mut self, now_ns: u64) {
        let more = now_ns.saturating_sub(self.at_ns);
        self.at_ns = now_ns;
        for (least, most) in self.cheap.iter_mut().chain(&mut self.dear) {
            *least = (*least + more).min(self.full_ns);
            *most = (*most + more).min(self.full_ns);
        }
        match self.until_ns {
            Some(until) if now_ns < until => {}
            Some(_) => self.cheap = either(self.cheap, self.dear.take()),
            None => self.cheap = either(self.cheap, self.dear),
        }
    }

    fn costs(&self) -> (u64, u64) {
        (self.cost_ns, (self.cost_ns * DEAR).min(self.full_ns))
    }

    /// A message was taken; gives whether that can be.
    #[must_use]
    pub(crate) fn taken(&mut self, now_ns: u64) -> bool {
        self.go_on(now_ns);
        let pay = |held: Option<Held>, cost: u64| {
            let (least, most) = held?;
            Some((least.max(cost) - cost, most.checked_sub(cost)?))
        };
        let (cheap, dear) = self.costs();
        self.cheap = pay(self.cheap, cheap);
        self.dear = pay(self.dear, dear);
        self.cost_ns == 0 || self.cheap.or(self.dear).is_some()
    }

    /// A message was denied; gives whether that can be.
    #[must_use]
    pub(crate) fn denied(&mut self, now_ns: u64) -> bool {
        self.go_on(now_ns);
        let lack = |held: Option<Held>, cost: u64| {
            let (least, most) = held?;
            (least < cost).then(|| (least, most.min(cost - 1)))
        };
        let (cheap, dear) = self.costs();
        self.cheap = lack(self.cheap, cheap);
        self.dear = lack(self.dear, dear);
        self.cheap.or(self.dear).is_some()
    }
}

/// What is held where it is one or the other.
fn either(one: Option<Held>, other: Option<Held>) -> Option<Held> {
    match (one, other) {
        (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::Guess;

    #[test]
    fn a_minute_is_the_burst() {
        let mut guess = Guess::new(60, false, 0);
        assert!((0..60).all(|_| guess.taken(0)));
        assert!(guess.clone().denied(999_999_999) && !guess.clone().taken(999_999_999));
        assert!(guess.taken(1_000_000_000));
        assert!(guess.denied(1_000_000_000));
        guess.strike(1_000_000_000, 0);
        assert!(guess.clone().denied(10_999_999_999) && guess.clone().taken(11_000_000_000));
        assert!((0..60).all(|_| guess.taken(61_000_000_000)));
        assert!(!guess.taken(61_000_000_000));
    }

    #[test]
    fn what_happens_tells_what_it_costs() {
        let mut guess = Guess::new(60, true, 0);
        assert!((0..6).all(|_| guess.taken(0)));
        let (mut cheap, mut dear) = (guess.clone(), guess);
        assert!((0..54).all(|_| cheap.taken(0)) && !cheap.taken(0));
        assert!(dear.denied(0) && dear.taken(1));
        assert!(Guess::new(0, false, 0).taken(0) && !Guess::new(0, true, 0).denied(0));
    }
}
