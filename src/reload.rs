//! Settings that change while the relay runs.

use std::sync::Arc;

use wardline_host::access::Keyring;
use wardline_host::logging::{Log, LogOptions, Terminal};
use wardline_host::settings::{Loaded, Problems, Sources};
use wardline_host::signals::Control;

use crate::native;

/// What of a running process is not its engine's: settings and logs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) sources: Sources,
    /// The settings at the start.
    pub(crate) started: Loaded,
    /// The settings that were taken over last.
    pub(crate) applied: Loaded,
    pub(crate) log: Log,
    pub(crate) terminal: Terminal,
    /// Who may do what, where native clients are served.
    pub(crate) keyring: Option<Arc<Keyring>>,
}

impl Running {
    /// Does what is asked for, and gives on what is the engine's to do.
    pub(crate) fn obey(&mut self, control: Control) -> Option<Control> {
        match control {
            Control::Reload => {
                self.reload(self.sources.load());
                None
            }
            Control::ReopenLogs => {
                self.log.reopen();
                match &self.applied.settings.log.file {
                    Some(path) => tracing::info!("opening {} again", path.display()),
                    None => tracing::info!("no log file to open again"),
                }
                None
            }
            Control::Drain => {
                let limits = self.started.limits;
                let seconds = (limits.drain_spread.as_secs())
                    .saturating_add(limits.drain.as_secs())
                    .saturating_add(limits.linger.as_secs());
                tracing::info!("draining, for {seconds} s at most; once more to end at once");
                Some(control)
            }
            Control::Stop => {
                tracing::warn!("ending at once");
                Some(control)
            }
            Control::LameDuck => {
                tracing::info!("taking no new connections");
                Some(control)
            }
            Control::Dump => Some(control),
        }
    }

    /// The same for who has read the settings file for it, where that was to be read.
    #[cfg(all(target_os = "linux", not(wardline_portable)))]
    pub(crate) fn obey_with(
        &mut self,
        control: Control,
        file: Option<std::io::Result<String>>,
    ) -> Option<Control> {
        match (control, file) {
            (Control::Reload, Some(file)) => {
                self.reload(self.sources.load_with(Some(file)));
                None
            }
            (control, _) => self.obey(control),
        }
    }

    /// Takes new settings over, all that can be or none.
    fn reload(&mut self, new: Result<Loaded, Problems>) {
        let new = match new {
            Ok(new) => new,
            Err(problems) => {
                for problem in &problems.0 {
                    tracing::error!("settings stay as they were: {problem}");
                }
                return;
            }
        };
        let rules = match native::rules(&new.settings.native) {
            Ok(rules) => rules,
            Err(failure) => {
                tracing::error!("settings stay as they were: {failure}");
                return;
            }
        };
        let mut live = self.applied.changes(&new).live;
        let restart = self.started.changes(&new).restart;
        if !live.is_empty() {
            let options = LogOptions::from_settings(&new.settings, self.terminal);
            if let Err(error) = self.log.apply(options) {
                tracing::error!("settings stay as they were: {error}");
                return;
            }
        }
        let keys = rules.keys();
        if self.keyring.as_ref().is_some_and(|keyring| keyring.replace(rules)) {
            tracing::info!("keys that may connect: {keys}");
            // What stands in the file may change while its name does not.
            if !live.iter().any(|key| key.starts_with("native.")) {
                live.push("native.authorized_keys");
            }
        }
        self.applied = new;
        if live.is_empty() && restart.is_empty() {
            tracing::info!("settings read again: nothing changed");
        }
        if !live.is_empty() {
            tracing::info!("settings read again: took over {}", live.join(", "));
        }
        if !restart.is_empty() {
            tracing::warn!("settings read again: need a restart: {}", restart.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use wardline_core::{Access, Right};

    use super::*;

    /// A process that logs to `log`, with the settings `text` in `file`.
    fn running(file: &Path) -> Running {
        let sources = Sources { file: Some(file.to_owned()), ..Sources::default() };
        let started = sources.load().unwrap();
        let terminal = Terminal { is_terminal: false, no_color: true };
        let log = Log::start(LogOptions::from_settings(&started.settings, terminal)).unwrap();
        let rules = native::rules(&started.settings.native).unwrap();
        let keyring = Some(Arc::new(Keyring::new(rules)));
        Running { sources, applied: started.clone(), started, log, terminal, keyring }
    }

    #[test]
    fn a_reload_is_all_or_nothing_and_says_what_needs_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (file, log) = (dir.path().join("w.toml"), dir.path().join("w.log"));
        let write = |level: &str, more: &str| {
            let text = format!(
                "[log]\nstderr = false\nfile = \"{}\"\nfile_template = \"%(message)s\"\n\
                 level = \"{level}\"\n{more}",
                log.display()
            );
            fs::write(&file, text).unwrap();
        };
        write("info", "");
        let mut running = running(&file);
        let said = |running: &mut Running| {
            let before = fs::read_to_string(&log).unwrap().len();
            assert_eq!(running.obey(Control::Reload), None);
            running.log.flush(Duration::from_secs(10));
            fs::read_to_string(&log).unwrap()[before..].to_owned()
        };
        assert_eq!(said(&mut running), "settings read again: nothing changed\n");
        write("debug", "[limits]\ntopics = 7\n");
        let expected = "settings read again: took over log.level\n\
                        settings read again: need a restart: limits.topics\n";
        assert_eq!(said(&mut running), expected);
        // What needs a restart goes on needing it.
        assert_eq!(said(&mut running), "settings read again: need a restart: limits.topics\n");
        write("warn", "[limits]\ntopic = 7\n");
        let wrong = said(&mut running);
        assert!(wrong.starts_with("settings stay as they were: "), "{wrong}");
        assert!(wrong.contains("did you mean limits.topics?"), "{wrong}");
        // The level did not change either.
        tracing::debug!("still debug");
        running.log.flush(Duration::from_secs(10));
        assert!(fs::read_to_string(&log).unwrap().ends_with("still debug\n"));
        write("debug", "");
        assert_eq!(said(&mut running), "settings read again: nothing changed\n");
        let ring = running.keyring.clone().unwrap();
        keys_are_read_again(&ring, dir.path(), |more| write("debug", more), || said(&mut running));
        for control in [Control::Drain, Control::Stop, Control::LameDuck, Control::Dump] {
            assert_eq!(running.obey(control), Some(control));
        }
        assert_eq!(running.obey(Control::ReopenLogs), None);
        running.log.flush(Duration::from_secs(10));
    }

    /// The rest of the test above: there is one log in a process.
    fn keys_are_read_again(
        ring: &Keyring,
        dir: &Path,
        write: impl Fn(&str),
        mut said: impl FnMut() -> String,
    ) {
        let list = dir.join("keys");
        let keys = [1, 2].map(|n| wardline_core::native::SigningKey::from_seed(&[n; 32]));
        let identities = keys.map(|key| key.identity());
        let hex = identities.map(|identity| identity.to_string());
        let open = |open: &str| {
            let list = list.display();
            write(&format!("[native]\nauthorized_keys = \"{list}\"\nopen = \"{open}\"\n"));
        };
        let may = || {
            let home = std::net::Ipv4Addr::LOCALHOST.into();
            identities.map(|who| ring.may(&who, home, Right::Connect, b""))
        };
        open("never");
        fs::write(&list, &hex[0]).unwrap();
        let took = "keys that may connect: 1\n\
                    settings read again: took over native.authorized_keys, native.open\n";
        assert_eq!((said().as_str(), may()), (took, [true, false]));
        assert_eq!(said(), "settings read again: nothing changed\n");
        fs::write(&list, format!("{}\n{} who\n", hex[0], hex[1])).unwrap();
        let took =
            "keys that may connect: 2\nsettings read again: took over native.authorized_keys\n";
        assert_eq!((said().as_str(), may()), (took, [true, true]));
        // A file that is half wrong is not half taken, and neither are settings beside it.
        fs::write(&list, format!("{}\nx\n", hex[1])).unwrap();
        open("always");
        let wrong = said();
        let stays = "settings stay as they were: native.authorized_keys: ";
        assert!(wrong.starts_with(stays) && wrong.contains("keys:2:1: must be a key"), "{wrong}");
        fs::write(&list, &hex[1]).unwrap();
        open("never");
        let took =
            "keys that may connect: 1\nsettings read again: took over native.authorized_keys\n";
        assert_eq!((said().as_str(), may()), (took, [false, true]));
    }
}
