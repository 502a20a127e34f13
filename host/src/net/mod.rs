//! Where to listen, how to bind it, and which networks are exempt.

mod accept;
mod bind;
mod listen;
mod network;

pub use accept::{AcceptErrors, admit};
pub(crate) use bind::NOT_SENT_BYTES_MAX;
pub use bind::{BindError, Listener, ShardListeners, Tuning, bind_all, bind_shards};
pub use listen::{DEFAULT_TOPIC, Dialects, Listen, ListenError};
pub use network::parse_network;
