//! Requests that are open, either way, and who takes what comes from peers.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use wardline_core::native::envelope::EnvelopeFault;
use wardline_core::native::{FrameHeader, FrameKind, Identity, flags};

use super::letters::Opened;
use crate::dialogue::{Credit, Direct, Piece, Request};
use crate::envelopes::Signed;
use crate::error::Error;

/// Requests of this client that are open.
const OPEN_MAX: usize = 1_024;
/// Requests to this client that are not answered.
const ANSWERING_MAX: usize = 4_096;

/// A request of this client.
#[derive(Debug)]
struct Open {
    peer: u64,
    /// Whose the peer is, as far as that is known.
    who: Option<Identity>,
    /// Who signed the last piece of the answer.
    signed: Option<Signed>,
    pieces: mpsc::Sender<Result<Piece, Error>>,
    /// What the peer may still send in pieces.
    credit: u64,
    /// A piece of the answer came.
    begun: bool,
    /// Something for this client was lost since it asked: perhaps a piece.
    holed: bool,
}

/// Dialogues with peers.
#[derive(Debug, Default)]
pub(crate) struct Dialogues {
    open: HashMap<u64, Open>,
    answering: HashMap<(u64, u64), Weak<Credit>>,
    pub(crate) requests: Option<mpsc::Sender<Request>>,
    pub(crate) directs: Option<mpsc::Sender<Direct>>,
}

impl Dialogues {
    /// Whether another request may be made.
    pub(crate) fn has_room(&mut self) -> bool {
        if self.open.len() >= OPEN_MAX {
            self.open.retain(|_, open| !open.pieces.is_closed());
        }
        self.open.len() < OPEN_MAX
    }

    /// A request of this client goes out.
    pub(crate) fn ask(
        &mut self,
        mid: u64,
        (peer, who): (u64, Option<Identity>),
        pieces: mpsc::Sender<Result<Piece, Error>>,
    ) {
        let (signed, credit, begun, holed) = (None, 0, false, false);
        self.open.insert(mid, Open { peer, who, signed, pieces, credit, begun, holed });
    }

    /// Whether an answer belongs to a request that is open with that peer; and whose that is, as
    /// far as it is known.
    pub(crate) fn asked_of(&self, header: &FrameHeader) -> Option<Option<Identity>> {
        let open = self.open.get(&header.corr).filter(|open| open.peer == header.peer)?;
        Some(open.who)
    }

    /// The peer is to be given so much. False: nobody waits for that answer.
    pub(crate) fn grant(&mut self, mid: u64, bytes: u32) -> bool {
        match self.open.get_mut(&mid) {
            Some(open) => {
                open.credit = open.credit.saturating_add(u64::from(bytes));
                true
            }
            None => false,
        }
    }

    /// Whether somebody waits for the answer to that request.
    pub(crate) fn is_waited_for(&self, mid: u64) -> bool {
        self.open.get(&mid).is_some_and(|open| !open.pieces.is_closed())
    }

    pub(crate) fn forget(&mut self, mid: u64) {
        self.open.remove(&mid);
    }

    /// A request of this client came to nothing. False: it is none that is open.
    pub(crate) fn fail(&mut self, mid: u64, error: Error) -> bool {
        match self.open.remove(&mid) {
            Some(open) => {
                // Full, it ends without the reason; who no longer waits does not want to know.
                let _ = open.pieces.try_send(Err(error));
                true
            }
            None => false,
        }
    }

    /// All of them did.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        for (_, open) in self.open.drain() {
            // As above.
            let _ = open.pieces.try_send(Err(error.clone()));
        }
    }

    /// Something for this client was lost on the way: an answer that comes in pieces may have a
    /// hole, and nobody would see it.
    pub(crate) fn lost(&mut self) {
        for open in self.open.values_mut() {
            open.holed = true;
        }
        let begun: Vec<u64> =
            self.open.iter().filter(|(_, open)| open.begun).map(|(mid, _)| *mid).collect();
        for mid in begun {
            self.fail(mid, Error::Unsure);
        }
    }

    /// A REPLY or STREAM: taken only where the request is open with that peer.
    ///
    /// # Errors
    /// It does not follow the pieces before it, by their signatures.
    pub(crate) fn answer(
        &mut self,
        header: &FrameHeader,
        opened: &Opened<'_>,
    ) -> Result<(), EnvelopeFault> {
        let mid = header.corr;
        let Some(open) = self.open.get_mut(&mid).filter(|open| open.peer == header.peer) else {
            return Ok(());
        };
        let stream = header.kind == FrameKind::Stream;
        let bytes = opened.payload.len() as u64;
        if stream && open.holed {
            self.fail(mid, Error::Unsure);
            return Ok(());
        }
        follows(open.begun.then_some(open.signed.as_ref()), opened.signed.as_ref())?;
        open.signed = opened.signed;
        if stream && open.credit < bytes {
            self.fail(mid, Error::Credit);
            return Ok(());
        }
        if stream {
            open.begun = true;
            open.credit -= bytes;
        }
        let last = !stream || header.has(flags::END);
        let piece = Piece { payload: opened.payload.to_vec(), signed: opened.signed, last };
        // As many empty pieces as there is room for are more than anybody needs.
        if open.pieces.try_send(Ok(piece)).is_err() || last {
            self.open.remove(&mid);
        }
        Ok(())
    }

    /// A request to this client: what its answer may send. None: too many are not answered.
    pub(crate) fn asked(&mut self, peer: u64, mid: u64) -> Option<Arc<Credit>> {
        if self.answering.len() >= ANSWERING_MAX {
            self.answering.retain(|_, credit| credit.strong_count() > 0);
        }
        if self.answering.len() >= ANSWERING_MAX {
            return None;
        }
        let credit = Arc::new(Credit::default());
        self.answering.insert((peer, mid), Arc::downgrade(&credit));
        Some(credit)
    }

    /// A peer gives room for more of an answer.
    pub(crate) fn credit(&mut self, peer: u64, corr: u64, bytes: u32) {
        match self.answering.get(&(peer, corr)).and_then(Weak::upgrade) {
            Some(credit) => credit.grant(bytes),
            None => {
                self.answering.remove(&(peer, corr));
            }
        }
    }

    /// The client is over.
    pub(crate) fn end(&mut self) {
        self.open.clear();
        for (_, credit) in self.answering.drain() {
            if let Some(credit) = credit.upgrade() {
                credit.close();
            }
        }
        self.requests = None;
        self.directs = None;
    }
}

/// Whether a piece of an answer follows the one before it, if there was one: nothing of somebody
/// else's, and none left out.
fn follows(before: Option<Option<&Signed>>, piece: Option<&Signed>) -> Result<(), EnvelopeFault> {
    let next = match (before, piece) {
        (None | Some(None), None) => return Ok(()),
        (Some(Some(_)), None) => return Err(EnvelopeFault::Missing),
        (Some(None), Some(_)) => return Err(EnvelopeFault::Sender),
        (Some(Some(before)), Some(piece)) if !piece.is_of(before) => {
            return Err(EnvelopeFault::Sender);
        }
        (Some(Some(before)), Some(_)) => before.piece.checked_add(1),
        (None, Some(_)) => Some(0),
    };
    let is_next = piece.map(|piece| piece.piece) == next;
    if is_next { Ok(()) } else { Err(EnvelopeFault::Piece) }
}

#[cfg(test)]
mod tests {
    use wardline_core::native::SigningKey;

    use super::*;

    fn piece(kind: FrameKind, end: bool) -> FrameHeader {
        FrameHeader {
            flags: if end { flags::END } else { 0 },
            peer: 5,
            mid: 9,
            corr: 77,
            ..FrameHeader::new(kind)
        }
    }

    fn signed(seed: u8, piece: u32) -> Option<Signed> {
        let sender = SigningKey::from_seed(&[seed; 32]).identity();
        Some(Signed { sender, device: 1, issued_ms: 2, epoch_ms: 3, piece })
    }

    #[test]
    fn pieces_are_one_signers_and_none_is_left_out() {
        use EnvelopeFault::{Missing, Piece, Sender};
        // Who signed each piece, as which; and what is wrong with the last.
        type Case = (&'static [Option<(u8, u32)>], Result<(), EnvelopeFault>);
        let cases: &[Case] = &[
            (&[None, None, None], Ok(())),
            (&[Some((1, 0)), Some((1, 1)), Some((1, 2))], Ok(())),
            (&[Some((1, 1))], Err(Piece)),
            (&[Some((1, 0)), Some((1, 2))], Err(Piece)),
            (&[Some((1, 0)), Some((1, 1)), Some((1, 0))], Err(Piece)),
            (&[Some((1, 0)), Some((1, 0))], Err(Piece)),
            (&[Some((1, 0)), Some((2, 1))], Err(Sender)),
            (&[Some((1, 0)), None], Err(Missing)),
            (&[None, Some((1, 0))], Err(Sender)),
        ];
        for (pieces, wanted) in cases {
            let mut dialogues = Dialogues::default();
            let (sender, mut got) = mpsc::channel(9);
            dialogues.ask(77, (5, None), sender);
            assert!(dialogues.grant(77, 100));
            let said: Vec<_> = pieces
                .iter()
                .map(|who| {
                    let signed = who.and_then(|(seed, piece)| signed(seed, piece));
                    let opened = Opened { payload: b"x", signed, history: false };
                    dialogues.answer(&piece(FrameKind::Stream, false), &opened)
                })
                .collect();
            let (last, before) = said.split_last().unwrap();
            assert_eq!((last, before.iter().all(Result::is_ok)), (wanted, true), "{pieces:?}");
            let came = std::iter::from_fn(|| got.try_recv().ok()).count();
            assert_eq!(came, said.iter().filter(|said| said.is_ok()).count());
        }
    }

    #[test]
    fn answers_of_others_are_nobodys() {
        let mut dialogues = Dialogues::default();
        let (sender, mut got) = mpsc::channel(9);
        let who = SigningKey::from_seed(&[1; 32]).identity();
        dialogues.ask(77, (5, Some(who)), sender);
        let header = piece(FrameKind::Reply, false);
        assert_eq!(dialogues.asked_of(&header), Some(Some(who)));
        let opened = Opened { payload: b"x", signed: None, history: false };
        for other in [FrameHeader { peer: 6, ..header }, FrameHeader { corr: 78, ..header }] {
            assert_eq!(dialogues.asked_of(&other), None);
            assert_eq!(dialogues.answer(&other, &opened), Ok(()));
        }
        assert!(got.try_recv().is_err());
        assert_eq!(dialogues.answer(&header, &opened), Ok(()));
        assert!(matches!(got.try_recv(), Ok(Ok(Piece { last: true, .. }))));
        assert_eq!(dialogues.asked_of(&header), None);
    }
}
