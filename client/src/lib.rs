//! A client of Wardline relays: the native dialect over TCP, on tokio. PROTOCOL.md 2.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use wardline_client::{Client, Event, From, keys};
//!
//! let key = keys::load("agent.key".as_ref())?;
//! let client = Client::connect("native://127.0.0.1:8889", key).await?;
//! let mut chat = client.subscribe("chat", From::Now, false).await?;
//! client.publish_taken("chat", "hello").await?;
//! while let Some(event) = chat.recv().await {
//!     match event {
//!         Event::Message(message) => println!("{}: {:?}", message.offset, message.payload),
//!         Event::Gap { from, to, reason } => println!("{from}..{to} are missing: {reason:?}"),
//!         Event::Untrusted { fault, .. } => println!("not to be trusted: {}", fault.sentence()),
//!         Event::Expired { offset, .. } => println!("{offset} came too late to matter"),
//!         Event::Joined(_) | Event::Left(_) => {}
//!         Event::Resumed | Event::Reconnected | Event::Lost(_) => {}
//!     }
//! }
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - It speaks to the server that it expects ([`Server`]), or to nobody. Who is met for the first
//!   time is believed, and noted in `known_hosts` in the state directory ([`state`]), for all
//!   programs of this user: from then on no other is taken for it. Who wants to be sure from the
//!   beginning pins the server's key.
//! - After a loss it comes back by itself: the session is resumed where the relay still has it,
//!   each topic is read on from the message after the last one, and what the relay says it had not
//!   taken goes out again, in its old order. What cannot be had back is told: [`Event::Gap`],
//!   [`Event::Lost`], [`Report`]. Only what a CLOSE forbids ends it: [`Ended`].
//! - Nothing grows without a bound: at most 1,024 messages wait to be known as taken, and calls
//!   wait where there is no room.
//!
//! # Envelopes
//!
//! The relay says who speaks, and is believed. Who does not want to believe it signs, end to end
//! ([`Builder::envelopes`]): then [`Message::signed`] says who it was, verified here, and a message
//! that was changed, was said before, or was for somebody else is kept back and told
//! ([`Event::Untrusted`], [`Report::Untrusted`], [`Error::Untrusted`], [`Client::untrusted`]).
//!
//! What is not promised: that nothing is kept back by the relay. Of an answer in pieces each piece
//! says which it is and whether it is the last, so one that is missing is seen; but a relay that
//! takes all envelopes away is refused by who demands them alone ([`Policy`]).
//!
//! # Back pressure
//!
//! One task owns the socket. It hands each message to its [`Subscription`], [`Requests`] or
//! [`Directs`]; where one of them is full, because nobody reads it, **the socket is read no further
//! until there is room again**, for all of them. The relay then sees a slow reader, and treats it
//! as one. So: read what you subscribed to, or drop it. And do not wait for an answer of the relay
//! (`publish_taken`, `request`, `ping`) in the task that reads a busy subscription: the answer
//! comes over the socket that waits for you. Such calls end with [`Error::NotRead`] after ten
//! seconds, rather than never.

#![forbid(unsafe_code)]

mod builder;
mod client;
mod dialogue;
mod envelopes;
mod error;
mod event;
mod files;
pub mod keys;
mod known_hosts;
mod payload;
pub mod state;
mod task;
mod url;

pub use builder::{Builder, Server};
pub use client::{Client, Peer};
pub use dialogue::{Answer, Direct, Directs, Pieces, Reply, Request, Requests};
pub use envelopes::{Policy, Signed};
pub use error::{CloseError, ConnectError, Ended, Error, Handshake, Refusal, UrlError};
pub use event::{Event, From, LostWhy, Message, Reading, Report, Reports, Subscription};
pub use known_hosts::{KnownHosts, KnownHostsError};
pub use payload::{Payload, Recipient, Verdict};
pub use url::Url;
pub use wardline_core::native::envelope::EnvelopeFault;
pub use wardline_core::native::{
    Class, Code, GapReason, Identity, IdentityFault, SigningKey, is_topic_name,
};
