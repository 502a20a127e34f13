//! The unsafe code of this crate, each block with its argument.
#![allow(unsafe_code, reason = "the only module that may")]

mod buffers;
pub(crate) mod compat;
mod messages;
mod outq;
mod pool;
mod ring;
mod tag;
pub(crate) mod trial;

pub(crate) use outq::unacknowledged;
pub use pool::RawPool;
pub(crate) use ring::{Completion, Ring, Wait};
pub(crate) use tag::Kind;
