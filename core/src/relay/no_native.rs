//! A relay that speaks the line dialect alone: what stands in the place of native sessions where
//! they are not built in. No connection is ever native, so of all of this only the answers to "is
//! there anything?" are ever asked for.

use super::{Gather, Relay};
use crate::fault::invariant_failed;
use crate::id::{Dialects, Ref};
use crate::line::Envelope;
use crate::link::{Answer, Header};
use crate::log::{Log, NoRoom};
use crate::relay::input::Stop;
use crate::relay::link_in::Later;
use crate::session::{Farewell, Flight};
use crate::storage::{Memory, Pool};
use crate::time::Instant;

/// There are none.
#[derive(Debug)]
pub(super) struct Natives<'s> {
    pub(super) lobby: Ref,
    pub(super) sweep_at: Instant,
    lent: core::marker::PhantomData<&'s ()>,
}

impl Natives<'_> {
    pub(super) const fn none() -> Self {
        Self { lobby: Ref::NONE, sweep_at: Instant::NEVER, lent: core::marker::PhantomData }
    }
}

/// No bytes are.
pub(super) const fn is_hello(_: &[u8]) -> bool {
    false
}

/// Nobody asks for any.
pub(super) fn whole_frames(_: &[u8]) -> (usize, u32) {
    nobody()
}

/// The same.
pub(super) fn oldest_frame<P: Pool>(_: &Memory<'_, P>, _: &Log) -> (Option<(Ref, u64)>, u64) {
    nobody()
}

fn nobody() -> ! {
    invariant_failed("a native connection of a relay that has none")
}

impl<P: Pool> Relay<'_, P> {
    pub(super) fn enter_name(&mut self, _: Ref) {}

    pub(super) fn sweep(&mut self) {}

    pub(super) fn check_natives(&self) -> (u32, u32) {
        (0, 0)
    }

    pub(super) fn native_deadline(&self, _: Ref) -> Instant {
        nobody()
    }

    pub(super) fn expire_native(&mut self, _: Ref) -> bool {
        nobody()
    }

    pub(super) fn await_hello(&mut self, _: Ref, _: Ref, _: Dialects) {
        nobody()
    }

    pub(super) fn decide(&mut self, _: Ref, _: u8) {
        nobody()
    }

    pub(super) fn wrong_dialect(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn puzzle_from(&mut self, _: crate::prefix::Prefix, _: u32) {
        nobody()
    }

    pub(super) fn feed_native(&mut self, _: Ref, _: &[u8]) {
        nobody()
    }

    pub(super) fn continue_native(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn forget_native(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn native_leaves(&mut self, _: Ref, _: Farewell) {
        nobody()
    }

    pub(super) fn native_lost(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn last_words(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn drop_subs(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn jump_native(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn jump_or_drop_native(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn has_session(&self, _: Ref) -> bool {
        nobody()
    }

    pub(super) fn is_known(&self, _: Ref) -> bool {
        nobody()
    }

    pub(super) fn give_way(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn is_doomed(&self, _: Ref) -> bool {
        nobody()
    }

    pub(super) fn has_native_output(&self, _: Ref) -> bool {
        nobody()
    }

    pub(super) fn native_lag(&self, _: Ref) -> u64 {
        nobody()
    }

    pub(super) fn compose_native(&mut self, _: Ref, _: u32, _: &mut Gather) -> Flight {
        nobody()
    }

    pub(super) fn sent_native(&mut self, _: Ref, _: u32) {
        nobody()
    }

    pub(super) fn trim_frames(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn begin_replica(&self, _: u8, _: Ref, _: u64, _: &mut [u8]) -> usize {
        nobody()
    }

    pub(super) fn take_open(&mut self, _: u8, _: &Header, _: &[u8]) -> Result<(), Later> {
        nobody()
    }

    pub(super) fn take_shut(&mut self, _: u8, _: &Header) {
        nobody()
    }

    pub(super) fn take_said(&mut self, _: u8, _: &Header, _: &[u8]) -> Result<(), Later> {
        nobody()
    }

    pub(super) fn take_begin(&mut self, _: &Header, _: &[u8]) -> Result<(), Later> {
        nobody()
    }

    pub(super) fn take_frames(&mut self, _: &Header, _: &[u8]) -> Result<(), Later> {
        nobody()
    }

    pub(super) fn take_answer(&mut self, _: &Header, _: &[u8]) {
        nobody()
    }

    pub(super) fn write_told(&mut self, _: &Answer, _: &mut [u8]) -> usize {
        nobody()
    }

    pub(super) fn take_pass(&mut self, _: u8, _: &Header, _: &[u8]) -> Result<(), Later> {
        nobody()
    }

    pub(super) fn take_ask(&mut self, _: u8, _: &Header, _: &[u8]) -> Result<(), Later> {
        nobody()
    }

    pub(super) fn take_credit(&mut self, _: &Header, _: &[u8]) {
        nobody()
    }

    pub(super) fn take_presence(&mut self, _: &[u8]) {
        nobody()
    }

    pub(super) fn take_returned(&mut self, _: &[u8]) {
        nobody()
    }

    pub(super) fn lose_mirror(&mut self, _: Ref) {
        nobody()
    }

    pub(super) fn append_far_lines(
        &mut self,
        _: Ref,
        _: u8,
        _: &Header,
        _: &[u8],
    ) -> Result<(), NoRoom> {
        nobody()
    }

    pub(super) fn publish_line_to_both(
        &mut self,
        _: Ref,
        _: &Envelope<'_>,
        _: bool,
    ) -> Result<(), Stop> {
        nobody()
    }
}
