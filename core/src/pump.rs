//! The drain loop: what every frontend does after it has handed over what came in.

use core::net::SocketAddr;

use crate::event::Event;
use crate::id::ConnId;
#[cfg(feature = "native-sessions")]
use crate::relay::Handover;
use crate::relay::{Gather, Output, Relay};
use crate::storage::Pool;
use crate::time::Instant;

/// What became of a send that a carrier was told to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It is over: so many bytes were taken. Fewer than were given, or none, means that the socket
    /// is full; the carrier will gather again once it can take more.
    Done(usize),
    /// It is under way: [`Relay::handle_sent`] will follow, and before it
    /// [`Relay::handle_send_waits`] where its end was looked for and not found.
    UnderWay,
    /// The socket is broken.
    Failed,
}

/// What a frontend does on the relay's word. None of these may block.
pub trait Carrier<P> {
    /// Whether the socket is known to be full. Then nothing is gathered: once it can take more,
    /// the frontend calls [`send`] for the connection.
    fn is_full(&mut self, conn: ConnId) -> bool;
    /// Sends what `gather` names, out of `pool`, which stays as it is until the send is over.
    fn start_send(&mut self, conn: ConnId, gather: &Gather, pool: &P) -> Started;
    /// Cancels the send under way; its end is reported all the same.
    fn cancel_send(&mut self, conn: ConnId);
    /// Reads no more from the connection.
    fn pause(&mut self, conn: ConnId);
    /// Reads from it again.
    fn resume(&mut self, conn: ConnId);
    /// Bytes that the peer has not acknowledged yet; none where that cannot be told.
    fn probe(&mut self, conn: ConnId) -> Option<u32>;
    /// Ends the stream to the peer, and reads on.
    fn finish(&mut self, conn: ConnId);
    /// Closes the socket. Gives whether that is done at once; else [`Relay::handle_closed`]
    /// follows, once nothing of it is under way.
    fn close(&mut self, conn: ConnId) -> bool;
    /// The connection goes to another shard of the process, with its socket, once nothing of it is
    /// under way here; for the rest it is as if it were closed. Of a frontend that does not have
    /// its relay spread sessions ([`Relay::spread_sessions`]) this is never asked.
    #[cfg(feature = "native-sessions")]
    fn hand_over(&mut self, conn: ConnId, handover: Handover) -> bool;
    /// Tells the operator. `remote`: where the peer is of whom the event speaks, as the relay was
    /// told when it took the connection, or by its proxy; the socket of one that was reset does not
    /// know any more.
    fn event(&mut self, event: Event, remote: Option<SocketAddr>);
}

/// What a frontend does after [`pump`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look at the inputs, and come back at once.
    Again,
    /// Wait for input, at most until then.
    Wait(Option<Instant>),
}

/// Does all that the relay wants done, at most a turn's bytes.
pub fn pump<P: Pool, C: Carrier<P>>(
    relay: &mut Relay<'_, P>,
    carrier: &mut C,
    gather: &mut Gather,
    now: Instant,
) -> Next {
    relay.handle_timeout(now);
    let bytes_max = u64::from(relay.limits().turn_sent_bytes);
    let bytes_before = relay.stats().bytes_out.value();
    loop {
        match relay.poll_output() {
            Output::Send(conn) => {
                if !carrier.is_full(conn) {
                    send(relay, carrier, gather, now, conn);
                }
                let bytes = relay.stats().bytes_out.value().wrapping_sub(bytes_before);
                if bytes >= bytes_max {
                    return Next::Again;
                }
            }
            Output::CancelSend(conn) => carrier.cancel_send(conn),
            Output::Pause(conn) => carrier.pause(conn),
            Output::Resume(conn) => carrier.resume(conn),
            Output::Probe(conn) => {
                let unacknowledged = carrier.probe(conn);
                relay.handle_probe(now, conn, unacknowledged);
            }
            Output::Finish(conn) => carrier.finish(conn),
            Output::Close(conn) => {
                if carrier.close(conn) {
                    relay.handle_closed(now, conn);
                }
            }
            Output::Handover(conn) => hand_over(relay, carrier, now, conn),
            Output::Event(event) => {
                carrier.event(event, event.conn().and_then(|conn| relay.remote(conn)));
            }
            Output::Wait(at) => {
                return if at.is_some_and(|at| at <= now) { Next::Again } else { Next::Wait(at) };
            }
        }
    }
}

/// Has a connection go to another shard.
#[cfg(feature = "native-sessions")]
fn hand_over<P: Pool, C: Carrier<P>>(
    relay: &mut Relay<'_, P>,
    carrier: &mut C,
    now: Instant,
    conn: ConnId,
) {
    let gone = match relay.take_handover(now, conn) {
        Some(handover) => carrier.hand_over(conn, handover),
        None => carrier.close(conn),
    };
    if gone {
        relay.handle_closed(now, conn);
    }
}

/// Never reached: only native connections go.
#[cfg(not(feature = "native-sessions"))]
fn hand_over<P: Pool, C: Carrier<P>>(_: &mut Relay<'_, P>, _: &mut C, _: Instant, _: ConnId) {}

/// Gathers for a connection whose socket can take more, and starts the send.
pub fn send<P: Pool, C: Carrier<P>>(
    relay: &mut Relay<'_, P>,
    carrier: &mut C,
    gather: &mut Gather,
    now: Instant,
    conn: ConnId,
) {
    let wanted = relay.gather(conn, gather);
    if wanted == 0 {
        return;
    }
    match carrier.start_send(conn, gather, relay.pool()) {
        Started::Done(bytes) => relay.handle_sent(now, conn, bytes, bytes == wanted),
        Started::UnderWay => {}
        Started::Failed => relay.handle_send_failed(now, conn),
    }
}
