//! What happened, as lines of the log.

use std::net::SocketAddr;

use wardline_core::{ConnId, Event, Pool, Reason, Relay};

/// The connection that an event speaks of.
pub(crate) fn conn(event: Event) -> Option<ConnId> {
    match event {
        Event::None => None,
        Event::Leaving { conn, .. }
        | Event::Published { conn, .. }
        | Event::NotRelayed { conn, .. }
        | Event::Gap { conn, .. }
        | Event::Paced { conn, .. }
        | Event::Struck { conn, .. } => Some(conn),
    }
}

/// Logs an event. No byte of a client stands in it.
pub(crate) fn log<P: Pool>(relay: &Relay<'_, P>, event: Event, addr: Option<SocketAddr>) {
    let addr = addr.map_or_else(String::new, |addr| addr.to_string());
    match event {
        Event::None | Event::Published { .. } | Event::NotRelayed { .. } => {}
        Event::Leaving { conn, reason: Reason::Peer } => {
            tracing::debug!(%conn, addr, code = "closed", "connection ends");
        }
        Event::Leaving { conn, reason: Reason::Shutdown } => {
            tracing::debug!(%conn, addr, code = "shutdown", "connection ends");
        }
        Event::Leaving { conn, reason: Reason::Fault(fault) } => {
            let code = fault.code();
            tracing::info!(%conn, addr, code, "connection ends: {}", fault.sentence());
        }
        Event::Gap { conn, from, to } => {
            tracing::info!(%conn, addr, code = "gap", from, to, "messages dropped");
        }
        Event::Paced { conn, topic } => {
            let topic = String::from_utf8_lossy(relay.topic_name(topic)).into_owned();
            tracing::info!(%conn, addr, code = "pace", topic, "senders are slowed");
        }
        Event::Struck { conn, strikes, seconds } => {
            tracing::warn!(
                %conn, addr, code = "quarantine", strikes, seconds,
                "address struck"
            );
        }
    }
}
