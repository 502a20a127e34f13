//! A topic of the load: who sends to it, what came of it.

use std::net::SocketAddr;

use anyhow::Result;

use super::{Receiver, Workload};
use crate::line::{Lines, Stencil};
use crate::window::Tally;
use crate::wire::Format;

/// A topic with who sends to it and what they sent.
#[derive(Debug)]
pub(super) struct Topic {
    /// Its first receiver.
    pub(super) first: usize,
    pub(super) readers: usize,
    pub(super) publishers: Vec<Publisher>,
    pub(super) lines: Lines,
    pub(super) tally: Tally,
    /// While set, received lines only say who is there: by receiver each publisher's last round.
    pub(super) syncing: Option<Vec<u64>>,
}

/// A connection as what it sends.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) receiver: usize,
    pub(super) stencil: Stencil,
    pub(super) out: Vec<u8>,
    pub(super) written: usize,
    pub(super) blocked: bool,
}

impl Topic {
    /// A topic whose connections are `own`, the first of all of them with this number.
    pub(super) fn new(
        name: &str,
        format: Format,
        workload: Workload,
        own: &[Receiver],
        first: usize,
    ) -> Result<Self> {
        let Workload { publishers, size, .. } = workload;
        let readers = own.len() - publishers;
        let from: Vec<SocketAddr> = own[readers..]
            .iter()
            .map(|receiver| receiver.stream.local_addr())
            .collect::<Result<_, _>>()?;
        let publisher = |number: usize| Publisher {
            receiver: first + readers + number,
            stencil: Stencil::new(format, name, number, size),
            out: Vec::new(),
            written: 0,
            blocked: false,
        };
        Ok(Self {
            first,
            readers,
            publishers: (0..publishers).map(publisher).collect(),
            lines: Lines::new(format, name, &from, size),
            tally: Tally::new(readers, publishers, format.publishers_listen()),
            syncing: None,
        })
    }

    /// Whether this round of every publisher reached everybody else.
    pub(super) fn all_heard(&self, round: u64, format: Format) -> bool {
        let publishers = self.publishers.len();
        let Some(rounds) = &self.syncing else { return true };
        rounds.iter().enumerate().all(|(at, &heard)| {
            let (local, publisher) = (at / publishers, at % publishers);
            let own = match local.checked_sub(self.readers) {
                None => false,
                Some(number) => number == publisher || !format.publishers_listen(),
            };
            heard == round || own
        })
    }
}
