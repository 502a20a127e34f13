//! Who may do what: everything, but for what was taken away and not given back yet.

use core::net::IpAddr;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use wardline_core::native::Identity;
use wardline_core::{Access, Right};

/// The rights that come and go.
pub(crate) const RIGHTS: [Right; 5] =
    [Right::Connect, Right::Publish, Right::Subscribe, Right::Request, Right::Who];

/// Since when a right is denied, and when it last was given back.
#[derive(Clone, Copy, Debug, Default)]
struct Denied {
    since: Option<u64>,
    until: Option<u64>,
}

/// Permissions with a memory of when they changed.
#[derive(Debug, Default)]
pub(crate) struct Rights {
    denied: RefCell<BTreeMap<([u8; 32], usize), Denied>>,
    /// Counts the changes.
    version: Cell<u32>,
    /// Who may bridge, from the beginning to the end.
    bridges: RefCell<BTreeSet<[u8; 32]>>,
    /// Whom the operator knows.
    known: RefCell<BTreeSet<[u8; 32]>>,
}

impl Rights {
    /// Takes a right away, or gives it back.
    pub(crate) fn set(&self, who: &Identity, right: usize, step: u64, may: bool) {
        self.version.set(self.version.get().wrapping_add(1));
        let mut denied = self.denied.borrow_mut();
        let item = denied.entry((*who.as_bytes(), right)).or_default();
        if !may && item.since.is_none() {
            item.since = Some(step);
        } else if may && item.since.take().is_some() {
            item.until = Some(step);
        }
    }

    /// Somebody may bridge, which is a right of few.
    pub(crate) fn let_bridge(&self, who: &Identity) {
        self.bridges.borrow_mut().insert(*who.as_bytes());
    }

    /// Whether somebody may.
    pub(crate) fn bridges(&self, who: &Identity) -> bool {
        self.bridges.borrow().contains(who.as_bytes())
    }

    /// The operator comes to know somebody.
    pub(crate) fn enroll(&self, who: &Identity) {
        self.known.borrow_mut().insert(*who.as_bytes());
    }

    /// Gives everything back.
    pub(crate) fn restore(&self, step: u64) {
        self.version.set(self.version.get().wrapping_add(1));
        for item in self.denied.borrow_mut().values_mut() {
            if item.since.take().is_some() {
                item.until = Some(step);
            }
        }
    }

    fn of(&self, who: &Identity, right: Right) -> Denied {
        self.denied.borrow().get(&(*who.as_bytes(), right as usize)).copied().unwrap_or_default()
    }

    /// Whether it may have been denied at or after a step.
    pub(crate) fn denied_after(&self, who: &Identity, right: Right, step: u64) -> bool {
        let Denied { since, until } = self.of(who, right);
        since.is_some() || until.is_some_and(|until| until >= step)
    }

    /// Whether it was denied all the time since a step.
    pub(crate) fn denied_since(&self, who: &Identity, right: Right, step: u64) -> bool {
        self.of(who, right).since.is_some_and(|since| since < step)
    }
}

impl Access for Rights {
    fn may(&self, who: &Identity, _: IpAddr, right: Right, _: &[u8]) -> bool {
        if right == Right::Bridge {
            return self.bridges(who);
        }
        self.of(who, right).since.is_none()
    }

    fn enrolled(&self, who: &Identity) -> bool {
        self.known.borrow().contains(who.as_bytes())
    }

    fn version(&self) -> u32 {
        self.version.get().wrapping_add(1)
    }
}
