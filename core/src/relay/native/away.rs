//! From a session of one shard to one of another, and what is asked about those. PROTOCOL.md 2.4.4.
//!
//! ```text
//!  message: marked --PASS--> judged there, as of a session there --PASSED--> nothing, or a NACK
//!  question: waits --ASK---> looked up when the answer goes out --TOLD--> told, and gone on with
//!  who came, who left: notes --PRESENCE--> watchers          messages that came back: RETURNED
//!  (both in the log ring, behind answers: who is told to have left is in no later answer)
//! ```
//! A message is taken once it is in the link; one that is refused beyond it comes back as one does
//! that was queued for a peer which ended. The PING behind it waits until that is known.

use super::control::{Found, Question, Session};
use super::entries::split;
use super::publish::Outcome;
use super::slots::Asked;
use crate::fault::invariant_failed;
use crate::id::Ref;
use crate::link::{Answer, HEADER, Header, Note, Notes, OutRun, kind};
use crate::native::{Code, Frame, Frames, Identity};
use crate::relay::Relay;
use crate::relay::input::Stop;
use crate::relay::link_in::Later;
use crate::session::Pending;
use crate::storage::{Pool, Purpose, copy};

/// Bytes of credit in a record: whose, for what, how much.
const CREDIT: usize = 20;
/// Bytes of a question, and of a session in its answer: a handle, an identity, a device.
const QUESTION: usize = 40;
const SESSION: usize = 44;
/// Bytes of notes that wait for a shard before nobody comes to a topic.
const NOTES_MAX: u32 = 16 << 10;

/// Kinds of questions.
const IDENTIFY: u32 = 1;
const RESOLVE: u32 = 2;
const WHO: u32 = 3;

impl<P: Pool> Relay<'_, P> {
    /// The other shard that a handle names.
    pub(super) const fn away_of(&self, handle: u64) -> Option<u8> {
        let (shard, ..) = split(handle);
        if shard != self.links.shard && shard < self.links.shards { Some(shard) } else { None }
    }

    /// A message for a session of another shard.
    pub(super) fn pass_away(
        &mut self,
        slot: Ref,
        to: u8,
        frame: &Frame<'_>,
    ) -> Result<Outcome, Stop> {
        let len = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let from = self.handle_of_entry(self.natives.conn(slot).entry);
        let run = OutRun { number: from, ..self.run_of(kind::PASS, Ref::NONE, slot, len) };
        self.has_room_out(slot, to, &run)?;
        self.put_out(to, run, &[frame.bytes]);
        let conn = self.natives.conn_mut(slot);
        conn.due = conn.due.saturating_add(1);
        Ok(Outcome::Taken)
    }

    /// Messages of a session of another shard for some of this one.
    pub(in crate::relay) fn take_pass(
        &mut self,
        from: u8,
        header: &Header,
        content: &[u8],
    ) -> Result<(), Later> {
        let lobby = self.natives.lobby;
        self.enter_topic(lobby)?;
        let done = self.links.peer(from).partly;
        for frame in Frames::of_shards(content).skip(done as usize) {
            if self.links.peer(from).answers.is_full() {
                return Err(Later::Freed);
            }
            let answer = Answer::of(kind::PASSED, header);
            let answer = match self.pass(header.number, &frame) {
                Ok(()) => Answer { value: 1, ..answer },
                Err(code) => Answer {
                    value: header.number,
                    about: frame.header.mid,
                    count: code.wire().into(),
                    ..answer
                },
            };
            let peer = self.links.peer_mut(from);
            peer.partly = peer.partly.saturating_add(1);
            let same = |last: &&mut Answer| {
                let of = |it: &Answer| (it.kind, it.asker, it.generation, it.count);
                of(last) == of(&answer) && answer.count == 0
            };
            match peer.answers.last_mut().filter(same) {
                Some(last) => last.value = last.value.saturating_add(1),
                None => self.give_answer(from, answer),
            }
        }
        self.links.peer_mut(from).partly = 0;
        self.charge_topic(lobby, header);
        Ok(())
    }

    /// A message of a session of another shard came to nothing after it was taken there.
    pub(super) fn give_back_away(&mut self, to: u8, handle: u64, mid: u64, code: Code) {
        let note = Note { handle, about: mid, what: code.wire().into(), came: false };
        self.note_for(to, Notes::Returned, note);
    }

    /// What other shards give back.
    pub(in crate::relay) fn take_returned(&mut self, content: &[u8]) {
        for Note { handle, about: mid, what, .. } in Note::all(content) {
            let Some(code) = Code::from_wire(what as u16) else {
                invariant_failed("a message came back for no reason")
            };
            self.give_back(handle, mid, code);
        }
    }

    fn note_for(&mut self, to: u8, of: Notes, note: Note) {
        let mut notes = *self.links.peer(to).notes(of);
        let note = note.to_bytes();
        let mut said = notes.push(&mut self.memory, Purpose::Output, &note).is_ok();
        if !said && self.drop_retention() {
            said = notes.push(&mut self.memory, Purpose::Output, &note).is_ok();
        }
        *self.links.peer_mut(to).notes_mut(of) = notes;
        if !said {
            self.stats.notes_lost.bump();
            self.links.peer_mut(to).unsure |= u8::from(of == Notes::Presence);
        }
    }

    /// Who comes to a topic waits while other shards have not heard of those before.
    pub(super) fn waits_for_notes(&self) -> Result<(), Stop> {
        let full = |shard| self.links.peer(shard).notes(Notes::Presence).len() > NOTES_MAX;
        if self.others().any(full) { Err(Stop::Link) } else { Ok(()) }
    }

    /// Other shards are told who came to a topic, or left it.
    pub(super) fn tell_presence_away(&mut self, topic: Ref, handle: u64, came: bool) {
        if cfg!(wardline_mutant = "presence_stays_home") {
            return;
        }
        let about = self.topics.at(topic).epoch;
        let note = Note { handle, about, what: topic.index(), came };
        for other in self.others() {
            self.note_for(other, Notes::Presence, note);
        }
    }

    /// Who came and left on another shard; nothing, where that could not be kept.
    pub(in crate::relay) fn take_presence(&mut self, content: &[u8]) {
        if content.is_empty() {
            self.doom_watchers();
        }
        for Note { handle, about: epoch, what, came } in Note::all(content) {
            let topic = Ref::of(what);
            // It may be another one by now.
            let there = what < self.topics.touched() && self.topics.at(topic).epoch == epoch;
            if there && self.topics.at(topic).watchers > 0 {
                self.tell_watchers(topic, Ref::NONE, handle, came);
            }
        }
    }

    /// Who watches cannot be told all that it asked for.
    fn doom_watchers(&mut self) {
        for topic in (0..self.topics.touched()).map(Ref::of) {
            let item = self.topics.at(topic);
            let (watching, count) = (item.watching, item.watchers as usize);
            for cursor in watching.into_iter().take(count) {
                let slot = self.cursors.at(cursor).session;
                self.natives.conn_mut(slot).doomed = 1;
                self.mark(slot, Pending::SEND);
            }
        }
    }

    pub(super) fn credit_away(
        &mut self,
        slot: Ref,
        to: u8,
        from: u64,
        (peer, corr, bytes): (u64, u64, u32),
    ) -> Result<(), Stop> {
        let run = self.run_of(kind::CREDIT, Ref::NONE, slot, CREDIT as u32);
        let run = OutRun { number: from, ..run };
        self.has_room_out(slot, to, &run)?;
        self.put_out(to, run, &[&peer.to_le_bytes(), &corr.to_le_bytes(), &bytes.to_le_bytes()]);
        Ok(())
    }

    pub(in crate::relay) fn take_credit(&mut self, header: &Header, content: &[u8]) {
        let (words, bytes) = content.as_chunks::<8>();
        let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
        let (peer, corr) = (words.next().unwrap_or(0), words.next().unwrap_or(0));
        let bytes = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        self.give_credit(header.number, (peer, corr, bytes));
    }

    /// A connection asks something that another shard knows. An error: it waits for the answer,
    /// which it is told as it comes; then there is nothing left to be done.
    pub(super) fn ask_away(
        &mut self,
        slot: Ref,
        to: u8,
        ask: u32,
        question: &Question,
    ) -> Result<(), Stop> {
        if self.natives.conn(slot).asked() == Asked::Yes {
            return Err(Stop::Link);
        }
        let (what, topic, value, identity) = match question {
            Question::Identify(handle) => (IDENTIFY, Ref::NONE, *handle, [0; 32]),
            Question::Resolve(identity) => (RESOLVE, Ref::NONE, 0, *identity.as_bytes()),
            Question::Who(topic, after) => (WHO, *topic, *after, [0; 32]),
        };
        let run = self.run_of(kind::ASK, topic, slot, QUESTION as u32);
        let run = OutRun { messages: what, number: ask.into(), ..run };
        self.has_room_out(slot, to, &run)?;
        self.put_out(to, run, &[&value.to_le_bytes(), &identity]);
        self.natives.conn_mut(slot).asks(ask);
        Err(Stop::Link)
    }

    /// A question of another shard: it is looked at once its answer is to go out.
    pub(in crate::relay) fn take_ask(
        &mut self,
        from: u8,
        header: &Header,
        content: &[u8],
    ) -> Result<(), Later> {
        let lobby = self.natives.lobby;
        self.enter_topic(lobby)?;
        if self.links.peer(from).answers.is_full() {
            return Err(Later::Freed);
        }
        let lobby = self.topics.at_mut(lobby);
        lobby.taken = lobby.taken.saturating_add(super::control::WHO_COST);
        let (value, identity) = content.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let answer = Answer {
            topic: header.topic,
            count: header.messages,
            value: u64::from_le_bytes(*value),
            identity: identity.first_chunk().copied().unwrap_or_default(),
            ..Answer::of(kind::TOLD, header)
        };
        self.give_answer(from, answer);
        Ok(())
    }

    /// The answer to a question as a record; 0: no room for it.
    pub(in crate::relay) fn write_told(&self, answer: &Answer, room: &mut [u8]) -> usize {
        let Some(question) =
            question_of(answer.count, answer.topic, answer.value, &answer.identity)
        else {
            invariant_failed("a question of no kind")
        };
        let Found { sessions, next } = self.find_sessions(&question);
        let Answer { kind, asker: author, generation: epoch, topic, .. } = *answer;
        let len = sessions.len().saturating_mul(SESSION).saturating_add(8);
        let Some((head, rest)) = room.split_at_mut_checked(HEADER) else { return 0 };
        let Some(rest) = rest.get_mut(..len) else { return 0 };
        let (messages, number) = (answer.count, answer.about);
        Header { kind, topic, author, messages, len: len as u32, epoch, number }.write(head);
        copy(rest, &next.to_le_bytes());
        let rest = rest.get_mut(8..).unwrap_or_default();
        for (session, room) in sessions.iter().zip(rest.chunks_exact_mut(SESSION)) {
            copy(room, &session.handle.to_le_bytes());
            copy(room.get_mut(8..).unwrap_or_default(), &session.identity);
            copy(room.get_mut(40..).unwrap_or_default(), &session.device.to_le_bytes());
        }
        HEADER.saturating_add(len)
    }

    /// What another shard knew is told to who asked for it.
    pub(super) fn take_told(&mut self, slot: Ref, header: &Header, content: &[u8]) {
        // Which of those that end in the same way does not matter here.
        let question = match header.messages {
            IDENTIFY => Question::Identify(0),
            _ => Question::Who(Ref::NONE, 0),
        };
        let (next, rest) = content.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let mut found = Found { next: u64::from_le_bytes(*next), ..Found::default() };
        for session in rest.as_chunks::<SESSION>().0 {
            let (handle, rest) = session.split_first_chunk().unwrap_or((&[0; 8], &[]));
            let (identity, device) = rest.split_first_chunk().unwrap_or((&[0; 32], &[]));
            let handle = u64::from_le_bytes(*handle);
            let device = device.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            found.push(Session { handle, identity: *identity, device });
        }
        let ask = u32::try_from(header.number).unwrap_or(0);
        if self.natives.conn(slot).waits_for(header.number) {
            self.tell_found(slot, ask, &question, found);
            self.has_asked(slot, header.number, Asked::Answered);
        }
    }
}

/// A question as it was asked.
fn question_of(what: u32, topic: u32, value: u64, identity: &[u8; 32]) -> Option<Question> {
    match what {
        IDENTIFY => Some(Question::Identify(value)),
        RESOLVE => Identity::new(identity).ok().map(Question::Resolve),
        WHO => Some(Question::Who(Ref::of(topic), value)),
        _ => None,
    }
}
