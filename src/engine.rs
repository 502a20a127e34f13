//! Which engine carries the sockets: what this build has, what this system lets run, and how each
//! is started.

use std::fmt::Write;
use std::net::TcpListener;

use wardline_core::{
    ConfigError, Homes, Limits, LinkSlots, NativeSlots, Network, Pool, Relay, Slots, TopicId,
};
use wardline_host::clock::{self, Clock};
use wardline_host::links::Links;
use wardline_host::net::{Listen, Listener, ShardListeners, Tuning};
use wardline_host::orders::Orders;
use wardline_host::plan::Item;
use wardline_host::settings::Engine;

use crate::exit::Failure;

/// All of them, best first: `auto` takes the first that can run.
pub(crate) const ENGINES: [Engine; 3] = [Engine::Ring, Engine::TokioUring, Engine::Tokio];

/// Why an engine cannot run of which there is nothing in the program.
const NOT_BUILT: &str = "it is not in this build";

/// Whether an engine can run here; else why not.
pub(crate) fn usable(engine: Engine) -> Result<(), String> {
    match engine {
        Engine::Ring => uring::ring(),
        Engine::TokioUring => uring::tokio_uring(),
        Engine::Tokio | Engine::Auto => Ok(()),
    }
}

/// What an engine keeps beside what the relay is lent; of `auto`, the one that it takes here.
pub(crate) fn memory(engine: Engine, limits: &Limits) -> (Engine, Vec<Item>) {
    let engine = if engine == Engine::Auto { best(usable).engine } else { engine };
    let items = match engine {
        Engine::Ring => uring::ring_memory(limits),
        Engine::TokioUring => uring::tokio_uring_memory(limits),
        Engine::Tokio | Engine::Auto => wardline_tokio::memory(limits),
    };
    (engine, items)
}

/// An engine that was chosen, and why that one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) engine: Engine,
    pub(crate) why: String,
}

/// The engine that the operator asks for.
pub(crate) fn choose(wanted: Engine) -> Result<Choice, Failure> {
    if wanted == Engine::Auto {
        return Ok(best(usable));
    }
    match usable(wanted) {
        Ok(()) => Ok(Choice { engine: wanted, why: "as the settings say".to_owned() }),
        Err(why) => {
            let name = wanted.name();
            Err(Failure::Settings(format!("server.engine: {name:?} cannot run here: {why}")))
        }
    }
}

/// Refuses an engine that no machine can run with this program; for `check`, whose settings may be
/// another machine's.
pub(crate) fn built(wanted: Engine) -> Result<(), Failure> {
    match usable(wanted) {
        Err(why) if why == NOT_BUILT => {
            Err(Failure::Settings(format!("server.engine: {:?}: {why}", wanted.name())))
        }
        Err(_) | Ok(()) => Ok(()),
    }
}

/// `wardline engines`: each engine, best first, and whether it can run here.
pub(crate) fn list(json: bool) -> String {
    let chosen = best(usable).engine;
    let mut words = String::new();
    let mut all = Vec::new();
    for engine in ENGINES {
        let (name, usable) = (engine.name(), usable(engine));
        all.push(serde_json::json!({
            "engine": name, "usable": usable.is_ok(), "why_not": usable.as_ref().err(),
            "auto": engine == chosen,
        }));
        let says = match &usable {
            Ok(()) if engine == chosen => "usable; what auto takes",
            Ok(()) => "usable",
            Err(why) => why,
        };
        // Writing to a string does not fail.
        let _ = writeln!(words, "{name:<12} {says}");
    }
    if json { format!("{:#}\n", serde_json::Value::from(all)) } else { words }
}

/// The first that can run, and what keeps those before it from it.
fn best(usable: impl Fn(Engine) -> Result<(), String>) -> Choice {
    let mut why = String::new();
    for engine in ENGINES {
        match usable(engine) {
            Ok(()) if why.is_empty() => {
                return Choice { engine, why: "the best of this build".to_owned() };
            }
            Ok(()) => return Choice { engine, why },
            Err(reason) => {
                let comma = if why.is_empty() { "" } else { "; " };
                // Writing to a string does not fail.
                let _ = write!(why, "{comma}{} cannot run: {reason}", engine.name());
            }
        }
    }
    // Not reached: the last one always can.
    Choice { engine: Engine::Tokio, why }
}

/// All that a shard needs to begin, but for its pool: each engine has a kind of its own.
pub(crate) struct Stage<'s> {
    pub(crate) limits: Limits,
    pub(crate) slots: Slots<'s>,
    pub(crate) tables: LinkSlots<'s>,
    pub(crate) homes: Homes,
    /// What native clients are served with, where some can come.
    pub(crate) native: Option<NativeSlots<'s>>,
    pub(crate) seed: [u8; 32],
    pub(crate) native_seed: [u8; 32],
    /// Networks whose word is taken on who connects.
    pub(crate) proxies: &'s [Network],
    /// Native sessions are on all shards.
    pub(crate) spread: bool,
    pub(crate) listens: &'s [Listen],
    pub(crate) listeners: ShardListeners,
    pub(crate) clock: Clock,
    pub(crate) tuning: Tuning,
    pub(crate) orders: &'s Orders,
    pub(crate) links: Links,
}

/// Serves on that engine until the end; `started` is called once, when connections are taken.
pub(crate) fn serve(
    engine: Engine,
    stage: Stage<'_>,
    pool: &mut [u8],
    started: impl FnOnce(),
) -> Result<(), Failure> {
    let served = match engine {
        Engine::Ring => uring::serve_ring(stage, pool, started)?,
        Engine::TokioUring => uring::serve_tokio_uring(stage, pool, started)?,
        Engine::Tokio | Engine::Auto => {
            let (relay, doors, rest) = stage.relay(pool)?;
            let Rest { clock, tuning, orders, links } = rest;
            wardline_tokio::serve(relay, doors, clock, tuning, orders, links, started)
        }
    };
    served.map_err(|error| Failure::Runtime(format!("engine {}: {error}", engine.name())))
}

/// A relay, and its listeners with their topics; and what an engine is handed beside them.
type Made<'s, P> = (Relay<'s, P>, Vec<(TcpListener, TopicId)>, Rest<'s>);

struct Rest<'s> {
    clock: Clock,
    tuning: Tuning,
    orders: &'s Orders,
    links: Links,
}

impl<'s> Stage<'s> {
    fn relay<P: Pool>(self, pool: P) -> Result<Made<'s, P>, Failure> {
        let unfit = |error: ConfigError| Failure::Settings(error.to_string());
        let Self { clock, tuning, orders, links, .. } = self;
        let mut relay =
            Relay::new(self.limits, self.slots, pool, self.seed, clock.now()).map_err(unfit)?;
        if !self.tables.peers.is_empty() {
            relay.join(links.shard(), self.tables, self.homes).map_err(unfit)?;
        }
        if let Some(native) = self.native {
            relay.speak_native(native, self.native_seed, clock::unix_ms()).map_err(unfit)?;
            if self.spread {
                relay.spread_sessions();
            }
        }
        relay.trust_proxies(self.proxies);
        // The same names in the same order everywhere, whether the shard listens there or not.
        for listen in self.listens.iter().filter(|listen| listen.dialects().line()) {
            let topic = relay.listen(listen.topic()).map_err(unfit)?;
            if let Some(coalesce) = listen.coalesce() {
                relay.set_coalesce(topic, coalesce).map_err(unfit)?;
            }
        }
        let ShardListeners { shared, own } = self.listeners;
        let mut doors = Vec::with_capacity(shared.len() + own.len());
        for Listener { listen, socket, .. } in shared.into_iter().chain(own) {
            doors.push((socket, door(&mut relay, &listen).map_err(unfit)?));
        }
        Ok((relay, doors, Rest { clock, tuning, orders, links }))
    }
}

/// The topic of a listener's connections.
fn door<P: Pool>(relay: &mut Relay<'_, P>, listen: &Listen) -> Result<TopicId, ConfigError> {
    let dialects = listen.dialects();
    if !dialects.line() {
        return relay.listen_native();
    }
    let topic = relay.listen(listen.topic())?;
    Ok(if dialects.native() { topic.mixed() } else { topic })
}

/// Those of Linux.
#[cfg(all(target_os = "linux", not(wardline_portable)))]
mod uring {
    use std::io;

    use wardline_core::Limits;
    use wardline_host::plan::Item;
    use wardline_uring::{RawPool, compat, probe, ring};

    use super::{Failure, Rest, Stage};

    pub(super) fn ring() -> Result<(), String> {
        probe::ring().map_err(|why| why.to_string())
    }

    pub(super) fn ring_memory(limits: &Limits) -> Vec<Item> {
        ring::memory(limits)
    }

    pub(super) fn serve_ring(
        stage: Stage<'_>,
        pool: &mut [u8],
        started: impl FnOnce(),
    ) -> Result<io::Result<()>, Failure> {
        let (relay, doors, rest) = stage.relay(RawPool::new(pool))?;
        let Rest { clock, tuning, orders, links } = rest;
        Ok(ring::serve(relay, doors, clock, tuning, orders, links, started))
    }

    pub(super) fn tokio_uring() -> Result<(), String> {
        probe::tokio_uring().map_err(|why| why.to_string())
    }

    pub(super) fn tokio_uring_memory(limits: &Limits) -> Vec<Item> {
        compat::memory(limits)
    }

    pub(super) fn serve_tokio_uring(
        stage: Stage<'_>,
        pool: &mut [u8],
        started: impl FnOnce(),
    ) -> Result<io::Result<()>, Failure> {
        let (relay, doors, rest) = stage.relay(RawPool::new(pool))?;
        let Rest { clock, tuning, orders, links } = rest;
        Ok(compat::serve(relay, doors, clock, tuning, orders, links, started))
    }
}

/// Elsewhere there are none of them.
#[cfg(not(all(target_os = "linux", not(wardline_portable))))]
mod uring {
    use std::io;

    use wardline_core::Limits;
    use wardline_host::plan::Item;

    use super::{Failure, Stage};

    pub(super) fn ring() -> Result<(), String> {
        Err(super::NOT_BUILT.to_owned())
    }

    pub(super) use ring as tokio_uring;

    pub(super) fn ring_memory(_: &Limits) -> Vec<Item> {
        Vec::new()
    }

    pub(super) use ring_memory as tokio_uring_memory;

    pub(super) fn serve_ring(
        _: Stage<'_>,
        _: &mut [u8],
        _: impl FnOnce(),
    ) -> Result<io::Result<()>, Failure> {
        Err(Failure::Settings(super::NOT_BUILT.to_owned()))
    }

    pub(super) use serve_ring as serve_tokio_uring;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_can_run_is_taken_and_says_why() {
        let only = |can: &'static [Engine]| {
            best(|engine| if can.contains(&engine) { Ok(()) } else { Err("x".to_owned()) })
        };
        let all = only(&ENGINES);
        assert_eq!((all.engine, all.why.as_str()), (Engine::Ring, "the best of this build"));
        let second = only(&[Engine::TokioUring, Engine::Tokio]);
        assert_eq!(
            (second.engine, second.why.as_str()),
            (Engine::TokioUring, "ring cannot run: x")
        );
        let last = only(&[Engine::Tokio]);
        assert_eq!(last.engine, Engine::Tokio);
        assert_eq!(last.why, "ring cannot run: x; tokio-uring cannot run: x");
    }

    #[test]
    fn what_is_asked_for_by_name_is_had_or_refused() {
        assert_eq!(choose(Engine::Tokio).unwrap().engine, Engine::Tokio);
        assert_ne!(choose(Engine::Auto).unwrap().engine, Engine::Auto);
        for engine in ENGINES {
            match (usable(engine), choose(engine)) {
                (Ok(()), Ok(choice)) => assert_eq!(choice.engine, engine),
                (Err(why), Err(refused)) => {
                    assert_eq!(refused.code(), 3);
                    let said = refused.to_string();
                    assert!(said.contains(engine.name()) && said.ends_with(&why), "{said}");
                }
                (usable, chosen) => panic!("{usable:?}, but {chosen:?}"),
            }
        }
    }
}
