//! The shards: a relay each, with links between them; where there are several, each has a thread
//! and a core of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use wardline_core::{Homes, Limits, Tap};
use wardline_host::clock::{self, Clock};
use wardline_host::links::{self, Links};
use wardline_host::logging::name_shard;
use wardline_host::messages::MessageLog;
use wardline_host::net::{ShardListeners, Tuning};
use wardline_host::orders::Orders;
use wardline_host::pin;
use wardline_host::settings::{Engine, Settings};
use wardline_host::signals::Control;
use wardline_host::storage::{Lent, Loan, Sizes, per_shard};

use crate::engine::{self, Stage};
use crate::exit::Failure;
use crate::native::Native;

/// What all shards are built to.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) limits: Limits,
    pub(crate) engine: Engine,
    pub(crate) tuning: Tuning,
    pub(crate) clock: Clock,
    pub(crate) shards: u8,
    /// What native clients are served with, where some can come.
    pub(crate) native: Option<&'a Native>,
    /// One for each.
    pub(crate) orders: &'a [Arc<Orders>],
}

/// Runs the shards until the last of them has ended. `tell` is called once, when all of them take
/// connections.
///
/// # Errors
/// That of a shard that could not be started, or that panicked. The others are stopped then: what
/// one of them does not relay, no client can be left to wait for.
pub(crate) fn run(
    common: &Common<'_>,
    listeners: Vec<ShardListeners>,
    tell: impl Fn() + Sync,
) -> Result<(), Failure> {
    let limits = per_shard(&common.limits, common.shards);
    let links = links::connect(common.shards, &limits);
    let started = AtomicU8::new(0);
    let up = || {
        if started.fetch_add(1, Ordering::SeqCst) + 1 == common.shards {
            tell();
        }
    };
    let shards = links.into_iter().zip(listeners);
    let mut shards = shards.map(|(links, listeners)| Shard { common, limits, links, listeners });
    if common.shards == 1 {
        return shards.next().map_or(Ok(()), |only| only.run(&up));
    }
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for shard in shards {
            let name = format!("shard-{}", shard.links.shard());
            let run = || shard.run_in_thread(&up);
            match thread::Builder::new().name(name).spawn_scoped(scope, run) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    stop_all(common.orders);
                    return Err(Failure::Runtime(format!("cannot start a thread: {error}")));
                }
            }
        }
        let mut result = Ok(());
        for thread in threads {
            let ended = thread.join();
            let ended = ended.unwrap_or_else(|_| Err(Failure::Runtime("a shard failed".into())));
            result = result.and(ended);
        }
        result
    })
}

fn stop_all(orders: &[Arc<Orders>]) {
    for orders in orders {
        orders.tell(Control::Stop);
    }
}

/// Stops the others where a shard ends otherwise than all together do: by an error, or a panic.
struct StopOthers<'a>(&'a [Arc<Orders>]);

impl Drop for StopOthers<'_> {
    fn drop(&mut self) {
        stop_all(self.0);
    }
}

/// One of them.
struct Shard<'a> {
    common: &'a Common<'a>,
    limits: Limits,
    links: Links,
    listeners: ShardListeners,
}

impl Shard<'_> {
    /// Runs in a thread that is its own.
    fn run_in_thread(self, up: &(impl Fn() + Sync)) -> Result<(), Failure> {
        let _stop_others = StopOthers(self.common.orders);
        let shard = self.links.shard();
        name_shard(shard);
        if !pin::to_core(usize::from(shard)) {
            tracing::debug!("this thread is not kept on a core of its own");
        }
        self.run(up)
    }

    fn run(self, up: &(impl Fn() + Sync)) -> Result<(), Failure> {
        let Self { common, limits, mut links, listeners } = self;
        let Common { settings, engine, tuning, clock, shards, native, orders, .. } = *common;
        let failed = |error: &dyn std::fmt::Display| Failure::Runtime(error.to_string());
        // Here and not before, so that its memory is near its core where that makes a difference.
        let sizes = Sizes::of_shard(&limits, settings, shards);
        let exempt = &settings.quarantine.exempt;
        let mut lent = Lent::reserve(&sizes, exempt).map_err(|error| failed(&error))?;
        let log = &settings.log;
        let messages = MessageLog { enabled: log.messages, keys: log.keys.clone() };
        let mut show = move |sender: std::net::SocketAddr, line: &[u8]| messages.log(sender, line);
        let who = native.map(|native| {
            let access: &dyn wardline_core::Access = &*native.keyring;
            (&native.keys[..], access)
        });
        let Loan { mut slots, links: tables, native, pool } = lent.lend_all(who);
        if log.messages {
            slots.tap = Tap::new(&mut show);
        }
        let seed = clock::seed().map_err(|error| failed(&error))?;
        let native_seed = clock::seed().map_err(|error| failed(&error))?;
        let mine = orders.get(usize::from(links.shard()));
        let orders = mine.ok_or_else(|| failed(&"a shard without orders"))?;
        // Where sessions are all on the first shard, it keeps those who may have one.
        let spread = engine.hands_over();
        let shared = listeners.shared.iter().map(|it| spread || !it.listen.dialects().native());
        links.share_doors(shared);
        // The order of what sessions read and say is all on the first shard.
        let homes = if who.is_some() { Homes::First } else { Homes::ByName };
        let listens = &settings.server.listen;
        let proxies = &settings.server.trusted_proxies;
        let stage = Stage {
            limits,
            slots,
            tables,
            homes,
            native,
            seed,
            native_seed,
            proxies,
            spread,
            listens,
            listeners,
            clock,
            tuning,
            orders,
            links,
        };
        engine::serve(engine, stage, pool, up)
    }
}
