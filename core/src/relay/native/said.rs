//! What sessions of one shard publish to topics of another. PROTOCOL.md 2.4.
//!
//! All that its sender may be told is found where the sender is: rights, ids, rates, the limit of
//! lines. What goes into the link then is taken, since links lose nothing; where one is full, its
//! senders wait. The home gives it its place, and shows it to line clients as of the address that
//! its sender has.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::publish::Outcome;
use crate::access::Right;
use crate::cursor::sub;
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::link::{Answer, Header, foreign, kind};
use crate::native::{Code, Frame, FrameHeader, Frames, flags};
use crate::relay::input::Stop;
use crate::relay::link_in::Later;
use crate::relay::{Relay, Tap};
use crate::storage::{Pool, copy};

/// Bytes of an address: port, kind, and 16 more.
const ADDRESS: usize = 20;

impl<P: Pool> Relay<'_, P> {
    /// A frame for a topic of another shard.
    pub(super) fn say_away(
        &mut self,
        slot: Ref,
        topic: Ref,
        frame: &Frame<'_>,
        peer: u64,
    ) -> Result<Outcome, Stop> {
        let item = self.topics.at(topic);
        let home = self.home_shard(topic);
        let remote = self.sessions.at(slot).remote();
        // Whoever may read lines there is not known here.
        if item.bound != 0 && self.is_long_line(remote, frame.payload) {
            return Ok(Outcome::Refused(Code::TooLarge, 0));
        }
        let len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let mut run = self.run_of(kind::SAID, topic, slot, len);
        let begins = self.same_run(home, &run).is_none();
        if begins {
            run.bytes = len.saturating_add(ADDRESS as u32);
        }
        self.has_room_out(slot, home, &run)?;
        let header = FrameHeader { peer, ..frame.header };
        let header = header.to_bytes(u32::try_from(frame.payload.len()).unwrap_or(u32::MAX));
        let address = to_bytes(remote);
        let front: &[u8] = if begins { &address } else { &[] };
        self.put_out(home, run, &[front, &header, frame.payload]);
        if frame.header.has(flags::VERDICT) {
            let conn = self.natives.conn_mut(slot);
            conn.due = conn.due.saturating_add(1);
        }
        self.stats.published.bump();
        if let Tap(Some(show)) = &mut self.tap {
            show(remote, frame.payload);
        }
        Ok(Outcome::Taken)
    }

    /// At home: frames of a session of another shard get their places.
    pub(in crate::relay) fn take_said(
        &mut self,
        from: u8,
        header: &Header,
        content: &[u8],
    ) -> Result<(), Later> {
        let topic = self.enter_home(header)?;
        let (remote, frames) = content.split_at_checked(ADDRESS).unwrap_or_default();
        let remote = from_bytes(remote);
        let author = foreign(from, header.author);
        let done = self.links.peer(from).partly;
        for frame in Frames::of_shards(frames).skip(done as usize) {
            let asks = frame.header.has(flags::VERDICT);
            if asks && self.links.peer(from).answers.is_full() {
                return Err(Later::Freed);
            }
            let readers = self.topics.at(topic).all_readers();
            let Ok((put, _)) = self.append_said(topic, author, remote, &frame, frame.header.peer)
            else {
                self.stats.log_full.bump();
                return Err(if self.evict_for_memory() { Later::Again } else { Later::Freed });
            };
            let peer = self.links.peer_mut(from);
            peer.partly = peer.partly.saturating_add(1);
            let Some(offset) = put else { invariant_failed("a frame whose line was not measured") };
            if asks {
                let (kind, about) = (kind::VERDICT, frame.header.mid);
                let topic = header.topic;
                let (value, count) = (offset, readers);
                let answer = Answer { topic, about, value, count, ..Answer::of(kind, header) };
                self.give_answer(from, answer);
            }
        }
        self.links.peer_mut(from).partly = 0;
        self.charge_topic(topic, header);
        self.stats.from_shards.add(u64::from(header.messages));
        Ok(())
    }

    /// How many others a message of a connection was queued for, of so many in all that read its
    /// topic, where it may know that.
    pub(super) fn others_of(&self, slot: Ref, topic: Ref, readers: u32) -> u32 {
        let cursor = self.sub_on(slot, topic);
        let own = cursor.is_some_and(|cursor| self.cursors.at(cursor).sub & sub::READS != 0);
        let may = self.may_on(slot, Right::Who, topic) || cfg!(wardline_mutant = "verdict_unasked");
        if may { readers.saturating_sub(u32::from(own)) } else { 0 }
    }
}

fn to_bytes(of: SocketAddr) -> [u8; ADDRESS] {
    let mut bytes = [0; ADDRESS];
    let (kind, ip) = match of {
        SocketAddr::V4(of) => (4, of.ip().to_ipv6_mapped()),
        SocketAddr::V6(of) => (6, *of.ip()),
    };
    copy(&mut bytes, &of.port().to_le_bytes());
    copy(bytes.get_mut(2..).unwrap_or_default(), &[kind]);
    copy(bytes.get_mut(4..).unwrap_or_default(), &ip.octets());
    bytes
}

fn from_bytes(bytes: &[u8]) -> SocketAddr {
    let port = bytes.first_chunk().map_or(0, |port| u16::from_le_bytes(*port));
    let ip = bytes.last_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |ip| Ipv6Addr::from(*ip));
    if bytes.get(2) == Some(&4) {
        SocketAddr::from((ip.to_ipv4_mapped().unwrap_or(Ipv4Addr::UNSPECIFIED), port))
    } else {
        SocketAddr::from((ip, port))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn an_address_comes_home_as_it_went() {
        for of in ["1.2.3.4:5", "[::ffff:1.2.3.4]:5", "[2001:db8::1]:65535", "[::]:0"] {
            let of: SocketAddr = of.parse().expect(of);
            assert_eq!(from_bytes(&to_bytes(of)), of);
        }
    }
}
