//! What goes to the program, and waits where it does not read.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::dialogue::{Direct, Request};
use crate::event::Event;

/// Something for somebody.
#[derive(Debug)]
pub(crate) enum Delivery {
    Event(mpsc::Sender<Event>, Event),
    Direct(mpsc::Sender<Direct>, Direct),
    Request(mpsc::Sender<Request>, Request),
}

impl Delivery {
    /// Hands it over, or back where there is no room. Where nobody reads any more it is dropped:
    /// a topic's end of that is seen by who owns the topic.
    fn hand(self) -> Option<Self> {
        match self {
            Self::Event(to, what) => full(to.try_send(what)).map(|what| Self::Event(to, what)),
            Self::Direct(to, what) => full(to.try_send(what)).map(|what| Self::Direct(to, what)),
            Self::Request(to, what) => full(to.try_send(what)).map(|what| Self::Request(to, what)),
        }
    }

    async fn wait(self) {
        // Where nobody reads any more, it is dropped.
        match self {
            Self::Event(to, what) => drop(to.send(what).await),
            Self::Direct(to, what) => drop(to.send(what).await),
            Self::Request(to, what) => drop(to.send(what).await),
        }
    }
}

fn full<T>(sent: Result<(), TrySendError<T>>) -> Option<T> {
    match sent {
        Err(TrySendError::Full(what)) => Some(what),
        Ok(()) | Err(TrySendError::Closed(_)) => None,
    }
}

/// What waits: at most what one record held, since nothing more is read meanwhile.
#[derive(Default)]
pub(crate) struct Deliveries {
    parked: VecDeque<Delivery>,
    first: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// The program leaves: what it does not read is not waited for.
    leaving: bool,
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deliveries({} wait)", self.parked.len() + usize::from(self.first.is_some()))
    }
}

impl Deliveries {
    /// Whether something waits: nothing may be read.
    pub(crate) fn is_stalled(&self) -> bool {
        self.first.is_some() || !self.parked.is_empty()
    }

    /// Hands over, or parks.
    pub(crate) fn give(&mut self, delivery: Delivery) {
        if self.is_stalled() {
            self.parked.push_back(delivery);
        } else if let Some(delivery) = delivery.hand()
            && !self.leaving
        {
            self.parked.push_back(delivery);
        }
    }

    /// From now on nobody is waited for.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.parked.clear();
        self.first = None;
    }

    /// Waits until all that is parked is read, or its readers are gone.
    pub(crate) async fn finish(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    /// Does `work`, and hands over meanwhile what is parked.
    pub(crate) async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // Whether it waits or not: this is not what is waited for.
            let _ = self.poll(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Ready once nothing waits.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(first) = &mut self.first {
                match first.as_mut().poll(cx) {
                    Poll::Ready(()) => self.first = None,
                    Poll::Pending => return Poll::Pending,
                }
            }
            match self.parked.pop_front() {
                Some(delivery) => {
                    if let Some(delivery) = delivery.hand() {
                        self.first = Some(Box::pin(delivery.wait()));
                    }
                }
                None => return Poll::Ready(()),
            }
        }
    }
}
