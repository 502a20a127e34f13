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

use bytemuck::Zeroable;

use super::greet::{HELLO_BYTES, Step};
use super::slots::Stage;
use crate::fault::Refusal;
use crate::id::{ConnId, Ref};
use crate::native::handshake::server::{Answer, ParkedVerified};
use crate::relay::{Relay, Remote};
use crate::session::{Flags, Pending, Phase};
use crate::storage::{Pool, Purpose};
use crate::time::Instant;

/// What goes with the socket of a connection to another shard of the process. Its keys are wiped
/// where they lie once it was taken, or is dropped: whoever keeps many does not move them about,
/// but keeps each in a box.
#[derive(Debug)]
pub struct Handover {
    /// Which one.
    pub to: u8,
    /// Where its peer is.
    pub addr: SocketAddr,
    /// When the connection began.
    born_at: Instant,
    hello: [u8; HELLO_BYTES],
    /// All zeros where nothing was proved.
    verified: ParkedVerified,
    key: u8,
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.verified.wipe();
    }
}

impl<P: Pool> Relay<'_, P> {
    /// A connection is another shard's; `hello` is what that is to hear of it, if anything.
    pub(super) fn hand_over(&mut self, slot: Ref, to: u8, hello: &[u8]) -> Step<'static> {
        self.no_stranger(slot);
        // It does not give way any more: it has proved more than who comes.
        self.leave_row(slot);
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
        let (to, half, born_at) = (native.moves_to.checked_sub(1)?, native.half, native.born_at);
        let mut hello = [0; HELLO_BYTES];
        let session = self.sessions.at(slot);
        let addr = session.remote();
        let said = session.input.copy_to(&self.memory, &mut hello);
        let (verified, key) = match half.some().map(|half| self.natives.halves.at_mut(half)) {
            Some(half) => (half.verified.take(), half.key),
            None => (ParkedVerified::zeroed(), 0),
        };
        // The place is another's from here on, however long the socket is closed.
        self.drop_half(slot);
        let handover = Handover { to, addr, born_at, hello, verified, key };
        if handover.verified.is_none() && said < HELLO_BYTES {
            return None;
        }
        self.stats.handed_over.bump();
        Some(handover)
    }

    /// A connection was closed on its way: too many wait for the other shard.
    pub const fn handle_lost_on_the_way(&mut self) {
        self.stats.lost_on_the_way.bump();
    }

    /// A connection that another shard took, and that is this one's. Whose it is, its proxy has
    /// said there, where it has one.
    ///
    /// # Errors
    /// The door's, as of [`Relay::handle_accept`].
    pub fn handle_handover(
        &mut self,
        now: Instant,
        handover: &mut Handover,
    ) -> Result<ConnId, Refusal> {
        self.enter(now);
        let topic = self.listen_native().map_err(|_| Refusal::NoListener);
        let admitted = topic.and_then(|topic| {
            let remote = Remote { addr: handover.addr, topic };
            self.has_place(topic)?;
            match handover.verified.is_none() {
                true => self.admit_client(remote),
                false => self.admit_proved(remote),
            }
        });
        let conn = self.count_admitted(admitted)?;
        let slot = conn.slot();
        self.natives.conn_mut(slot).born_at = handover.born_at;
        self.arm(slot);
        match handover.verified.unpark() {
            None => {
                // What it said was counted where it came in.
                self.native_input(slot, &handover.hello);
            }
            Some(verified) => {
                self.sessions.at_mut(slot).flags.set(Flags::SPOKE);
                let answer = self.home_budget(slot);
                let ended = match answer {
                    Answer::Yes => self.accept(slot, handover.key, verified),
                    Answer::No(ended) => Err(ended),
                };
                if let Err(ended) = ended {
                    self.turn_away(slot, ended);
                }
            }
        }
        Ok(conn)
    }
}
