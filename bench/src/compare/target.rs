//! What is compared: the engines, the blind relays, and whichever of the others is here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};

use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::server::{Kind, Launch, Server, Spec};
use crate::traffic::topic_name;
use crate::wire::{Format, Role};
use crate::{clients, process};

/// All targets that are known, by name: which server, and which of Wardline's engines.
pub const ALL: [(&str, Kind, &str); 12] = [
    ("blind", Kind::Blind, ""),
    ("blind-ring", Kind::BlindRing, ""),
    ("tokio", Kind::Wardline, "tokio"),
    ("ring", Kind::Wardline, "ring"),
    ("tokio-uring", Kind::Wardline, "tokio-uring"),
    ("native-ring", Kind::Native, "ring"),
    ("native-tokio", Kind::Native, "tokio"),
    ("direct-ring", Kind::Direct, "ring"),
    ("direct-tokio", Kind::Direct, "tokio"),
    ("nats", Kind::Nats, ""),
    ("redis", Kind::Redis, ""),
    ("mosquitto", Kind::Mosquitto, ""),
];

/// One of them, perhaps with a program of its own, perhaps set up in a special way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name in tables.
    pub label: String,
    /// The server.
    pub spec: Spec,
    /// Wardline's engine.
    pub engine: String,
    /// More settings of Wardline, as `a.b=c`.
    pub settings: Vec<String>,
    /// Wardline's shards, if it is told how many.
    pub shards: Option<usize>,
}

impl Target {
    /// The target with this name.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn named(name: &str) -> Self {
        let known = name.parse();
        known.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same with one more setting, under another name.
    #[must_use]
    pub fn with(mut self, label: &str, setting: Option<&str>, shards: Option<usize>) -> Self {
        label.clone_into(&mut self.label);
        self.settings.extend(setting.map(ToOwned::to_owned));
        self.shards = shards;
        self
    }

    /// How its messages look.
    pub fn format(&self) -> Format {
        self.spec.kind.format()
    }

    /// Whether it is Wardline or a blind relay: what may not fail.
    pub fn is_ours(&self) -> bool {
        self.spec.kind.is_ours()
    }

    /// How it is started; `base` is what is the same for all.
    pub fn launch(&self, base: &Launch) -> Launch {
        let mut launch = base.clone();
        launch.engine.clone_from(&self.engine);
        launch.settings.extend(self.settings.iter().cloned());
        launch.shards = self.shards;
        launch
    }

    /// Starts it once, connects, ends it: whether it is on this machine.
    fn probe(&self, base: &Launch, interrupt: &Interrupt) -> Result<()> {
        let server = Server::start(&self.launch(base), &self.spec)?;
        let addr = server.addr();
        let topic = topic_name(0);
        let answered = clients::connect_all(|_| addr, 1, interrupt).and_then(|streams| {
            let seat = |_| (Role::Reader, topic.as_str());
            clients::greet_all(streams, self.format(), seat, interrupt)
        });
        answered.with_context(|| server.said("was greeted"))?;
        server.stop()
    }
}

/// Those of the targets that are on this machine, and what is wrong with each of the rest.
///
/// # Errors
/// An interrupt; that this program may not be tied to its core.
pub fn present(
    targets: &[Target],
    base: &Launch,
    load_core: Option<usize>,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<(Vec<Target>, Vec<Missing>)> {
    process::raise_descriptors_max()?;
    if let Some(core) = load_core {
        process::pin_self(core)?;
    }
    let (mut here, mut missing) = (Vec::new(), Vec::new());
    for target in targets {
        progress.show(&format!("is {} on this machine?", target.label));
        match target.probe(base, interrupt) {
            Ok(()) => here.push(target.clone()),
            Err(error) => {
                interrupt.check()?;
                let why = format!("{error:#}");
                missing.push(Missing { label: target.label.clone(), why });
            }
        }
    }
    progress.clear();
    Ok((here, missing))
}

/// A target that is not on this machine.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// Its name.
    pub label: String,
    /// What it said, or how to get it.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NOT ON THIS MACHINE: {}: {}", self.label, self.why)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, program) = match text.split_once('=') {
            Some((_, "")) => return Err(format!("`{text}` names no program after `=`")),
            Some((name, program)) => (name, Some(PathBuf::from(program))),
            None => (text, None),
        };
        let Some((_, kind, engine)) = ALL.iter().find(|(known, ..)| *known == name) else {
            let known = ALL.map(|(known, ..)| known).join(", ");
            return Err(format!("no target `{name}`; there are {known}"));
        };
        Ok(Self {
            label: name.to_owned(),
            spec: Spec { kind: *kind, program },
            engine: (*engine).to_owned(),
            settings: Vec::new(),
            shards: None,
        })
    }
}

/// Gives targets that have one name numbers, so that each can be told in a table.
pub fn number(targets: &mut [Target]) {
    for at in 1..targets.len() {
        let (before, this) = targets.split_at_mut(at);
        let target = &mut this[0];
        let name = target.label.clone();
        let same = |other: &&Target| other.label.split('#').next() == Some(name.as_str());
        let earlier = before.iter().filter(same).count();
        if earlier > 0 {
            target.label = format!("{name}#{}", earlier + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_known() {
        for (name, kind, engine) in ALL {
            let target = Target::named(name);
            assert_eq!((target.spec.kind, target.engine.as_str()), (kind, engine));
        }
        let own: Target = "ring=/opt/wardline".parse().unwrap();
        assert_eq!(own.label, "ring");
        assert_eq!((own.engine.as_str(), own.spec.kind), ("ring", Kind::Wardline));
        assert!("kafka".parse::<Target>().is_err() && "ring=".parse::<Target>().is_err());
    }

    #[test]
    fn doubles_are_numbered() {
        let mut targets = ["blind", "ring", "blind", "blind"].map(Target::named);
        number(&mut targets);
        assert_eq!(targets.map(|target| target.label), ["blind", "ring", "blind#2", "blind#3"]);
    }
}
