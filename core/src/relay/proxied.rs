//! Before the door: a proxy connects, and is yet to say for whom.
//!
//! Such a connection has a slot, a deadline and what came of its header, and nothing else. Then its
//! client comes to the door, by the rules that stand there, and has a place already.

use core::net::{IpAddr, SocketAddr};

use super::door::Vetted;
use super::{Relay, Remote};
use crate::event::{Event, Reason};
use crate::fault::{PeerFault, Refusal};
use crate::id::{ConnId, Ref, TopicId};
use crate::prefix::{Network, Prefix};
use crate::proxy::{self, HEADER_BYTES_MAX, NoHeader};
use crate::session::Phase;
use crate::storage::{Pool, Purpose, copy};
use crate::time::Duration;

impl<'s, P: Pool> Relay<'s, P> {
    /// Has whoever connects from these networks say first for whom: by a header of the PROXY
    /// protocol, version 2 ([`crate::proxy`]). The proxies themselves are never charged.
    pub fn trust_proxies(&mut self, proxies: &'s [Network]) {
        self.known.proxies = proxies;
    }
}

impl<P: Pool> Relay<'_, P> {
    /// Whether that address is a proxy's. (Where there are none, that is one comparison.)
    pub(super) fn is_proxy(&self, ip: IpAddr) -> bool {
        self.known.proxies.iter().any(|network| network.contains(ip))
    }

    /// A proxy connects. Until it has said for whom, that is nobody: nothing is charged, sent or
    /// read beyond its header.
    pub(super) fn admit_proxy(&mut self, remote: Remote) -> Result<ConnId, Refusal> {
        self.has_memory()?;
        let limits = self.limits.proxy;
        let prefix = self.prefixes.find_or_make(Prefix::of(remote.addr.ip()));
        // One proxy does not take what the others need.
        let mine = self.prefixes.at(prefix).waiting;
        if self.known.waiting >= limits.waiting || mine >= limits.waiting_each {
            return Err(Refusal::TooManyConnections);
        }
        let slot = self.take_slot(prefix, remote, Phase::Proxied)?;
        let close_at = self.now.after(limits.header);
        let session = self.sessions.at_mut(slot);
        session.set_listener(remote.topic);
        session.close_at = close_at;
        self.known.waiting = self.known.waiting.saturating_add(1);
        self.arm(slot);
        Ok(self.id(slot))
    }

    /// A connection is not one any more whose proxy has yet to say for whom it connects.
    pub(super) fn end_wait(&mut self, slot: Ref) {
        if self.sessions.at(slot).phase() == Phase::Proxied {
            self.known.waiting = self.known.waiting.saturating_sub(1);
            let prefix = self.prefixes.at_mut(self.sessions.at(slot).prefix);
            prefix.waiting = prefix.waiting.saturating_sub(1);
        }
    }

    /// Bytes of a proxy that has yet to say for whom it connects. Gives what follows its header,
    /// once that is whole and its client was taken.
    pub(super) fn hear_proxy<'b>(&mut self, slot: Ref, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let mut input = self.sessions.at(slot).input;
        let mut room = [0; HEADER_BYTES_MAX];
        let kept = input.copy_to(&self.memory, &mut room);
        let new = copy(room.get_mut(kept..).unwrap_or_default(), bytes);
        let header = match proxy::read(room.get(..kept.saturating_add(new)).unwrap_or_default()) {
            Ok(Some(header)) => header,
            Ok(None) => {
                if kept == 0 {
                    self.sessions.at_mut(slot).unfinished_since = self.now;
                }
                if !self.push_input(slot, bytes) {
                    self.stats.overloaded.bump();
                    self.close(slot, Reason::Fault(PeerFault::Overloaded));
                }
                return None;
            }
            Err(NoHeader) => {
                self.no_header(slot);
                return None;
            }
        };
        input.clear(&mut self.memory, Purpose::Input);
        self.sessions.at_mut(slot).input = input;
        let listener = self.sessions.at(slot).listener();
        if let Err(refusal) = self.name(slot, listener, header.client) {
            if listener.is_native() {
                self.turn_off(slot, refusal, refusal.alert().as_bytes());
            } else {
                self.turn_off(slot, refusal, refusal.warning().as_bytes());
            }
            return None;
        }
        bytes.get(header.bytes.saturating_sub(kept)..)
    }

    /// A proxy has said for whom it connects; nobody: itself. That one comes to the door now.
    fn name(
        &mut self,
        slot: Ref,
        listener: TopicId,
        client: Option<SocketAddr>,
    ) -> Result<(), Refusal> {
        self.end_wait(slot);
        self.stats.proxied.bump();
        let session = self.sessions.at_mut(slot);
        let proxy = session.remote();
        let remote = client.unwrap_or(proxy);
        session.set_remote(remote);
        session.set_phase(Phase::Open);
        let conn = self.id(slot);
        self.tell(Event::Proxied { conn });
        // It has a place already; only whose it is changes.
        self.delist(slot);
        let vetted = if cfg!(wardline_mutant = "proxied_not_vetted") {
            Ok(Vetted { exempt: false, throttled: Duration::ZERO })
        } else {
            self.serves(listener).and_then(|()| self.vet(remote.ip(), listener))
        };
        let whose = if cfg!(wardline_mutant = "proxied_is_its_proxy") { proxy } else { remote };
        let prefix = self.prefixes.find_or_make(Prefix::of(whose.ip()));
        let joins = vetted.and_then(|vetted| self.may_join(prefix, vetted, listener));
        self.enlist(slot, prefix);
        joins?;
        self.let_in(slot, listener, vetted?);
        Ok(())
    }

    /// A proxy did not say for whom it connects. Nobody is charged for that: its clients did not
    /// do it, and it is the operator's own.
    pub(super) fn no_header(&mut self, slot: Ref) {
        self.stats.no_proxy_header.bump();
        self.close(slot, Reason::Fault(PeerFault::NoProxyHeader));
    }
}
