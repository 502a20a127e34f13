//! The client's half of a session, above handshake and records: what must survive a reconnect, so
//! that nothing is lost silently and nothing is said twice. PROTOCOL.md 2.2.8, 2.3.3, 2.3.4, 2.4.4.
//!
//! ```text
//!   handshake::client --Connected--> Session::handle_connected
//!       bytes that came -----------> Session::handle_input     what is to be acted upon
//!       Session::enqueue ----------> a message's id
//!       Session::next_unsent ------> which message goes into the next record
//!       Session::frames -----------> the header of that record
//!       Session::poll_output ------> PONG, PING, REKEY, CLOSE
//!       Session::poll_settled <----- what became of a message
//!       Session::handle_lost           and once more from the top, after Backoff::wait
//! ```
//!
//! The caller has the socket, the clock, the entropy, and the messages' bytes, by their ids; it
//! lends the memory: as many [`Slot`]s as it wants messages under way.

mod backoff;
mod session;
mod unsure;

pub use backoff::{BACKOFF_FIRST, BACKOFF_MAX, Backoff, Loss};
pub use session::{
    CLOSE_PATIENCE, DirectLost, End, Got, PING_EVERY, Ready, SILENCE_MAX, Session, Small, Took,
};
pub use unsure::{Fate, Slot, UNSURE_MAX, Unsure};

#[cfg(test)]
mod tests;
