//! What the tokio-uring engine asks of the kernel, in typed words.
//!
//! tokio-uring takes any submission that it is handed, with any pointer in it. Here stand the only
//! ones that this crate hands to it; each keeps alive what it points to until its end has come,
//! also where its future is dropped before: tokio-uring keeps a dropped future's data until then,
//! but not over the end of its runtime. So the engine ends each before that, or leaks it.

mod log_range;
mod ops;
mod watch;

pub(crate) use log_range::Message;
pub(crate) use ops::{Fd, Nop, PollOne, Receive, Send, nop, poll_writable, receive, send};
pub(crate) use watch::watch;
