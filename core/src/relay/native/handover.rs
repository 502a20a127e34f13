//! A connection goes to the shard that its client is at home on: where the session is that it wants
//! to go on with, or where all sessions of its identity are. PROTOCOL.md 2.2.5.
//!
//! ```text
//!  HELLO with a sid of another shard ------------ the HELLO ------> begins there
//!  HELLO, CHALLENGE, AUTH: who it is is proved -- that, and keys -> ACCEPT, or an ALERT, there
//! ```
//! Nothing is under way to it then: it has had CHALLENGE whole, or nothing. And nothing comes from
//! it, for it has no keys before it is answered.

use core::net::SocketAddr;

use super::greet::{HELLO_BYTES, Step};
use super::slots::Stage;
use crate::fault::Refusal;
use crate::id::{ConnId, Ref};
use crate::native::handshake::server::Verified;
use crate::relay::{Relay, Remote};
use crate::session::{Flags, Pending, Phase};
use crate::storage::{Pool, Purpose};
use crate::time::Instant;

/// What goes with the socket of a connection to another shard of the process.
#[derive(Debug)]
pub struct Handover {
    /// Which one.
    pub to: u8,
    /// Where its peer is.
    pub addr: SocketAddr,
    hello: [u8; HELLO_BYTES],
    verified: Option<Verified>,
    key: u8,
}

impl<P: Pool> Relay<'_, P> {
    /// A connection is another shard's; `hello` is what that is to hear of it, if anything.
    pub(super) fn hand_over(&mut self, slot: Ref, to: u8, hello: &[u8]) -> Step<'static> {
        self.no_stranger(slot);
        let conn = self.natives.conn_mut(slot);
        conn.set_stage(Stage::Over);
        conn.moves_to = to.saturating_add(1);
        let session = self.sessions.at_mut(slot);
        session.set_phase(Phase::Closing);
        session.flags.clear(Flags::BACKLOG);
        let mut input = session.input;
        input.clear(&mut self.memory, Purpose::Input);
        let kept = input.push(&mut self.memory, Purpose::Input, hello).is_ok();
        self.sessions.at_mut(slot).input = input;
        self.mark(slot, if kept { Pending::HANDOVER } else { Pending::CLOSE });
        Step::Gone
    }

    /// What goes with a connection that is another shard's. None: it is nobody's any more.
    pub fn take_handover(&mut self, now: Instant, conn: ConnId) -> Option<Handover> {
        self.enter(now);
        let slot = self.find(conn)?;
        let native = self.natives.conn(slot);
        let (to, half) = (native.moves_to.checked_sub(1)?, native.half.some());
        let mut hello = [0; HELLO_BYTES];
        let session = self.sessions.at(slot);
        let addr = session.remote();
        let said = session.input.copy_to(&self.memory, &mut hello);
        let (verified, key) = match half.map(|half| self.natives.halves.at_mut(half)) {
            Some(half) => (half.verified.unpark(), half.key),
            None => (None, 0),
        };
        if verified.is_none() && said < HELLO_BYTES {
            return None;
        }
        self.stats.handed_over.bump();
        Some(Handover { to, addr, hello, verified, key })
    }

    /// A connection that another shard took, and that is this one's.
    ///
    /// # Errors
    /// The door's, as of [`Relay::handle_accept`].
    pub fn handle_handover(&mut self, now: Instant, handover: Handover) -> Result<ConnId, Refusal> {
        let Handover { addr, hello, verified, key, .. } = handover;
        let topic = self.listen_native().map_err(|_| Refusal::NoListener)?;
        let conn = self.handle_accept(now, Remote { addr, topic })?;
        match verified {
            None => self.handle_input(now, conn, &hello),
            Some(verified) => {
                let slot = conn.slot();
                self.sessions.at_mut(slot).flags.set(Flags::SPOKE);
                if let Err(ended) = self.accept(slot, key, verified) {
                    self.turn_away(slot, ended);
                }
            }
        }
        Ok(conn)
    }
}
