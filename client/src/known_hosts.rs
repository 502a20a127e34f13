//! Servers that were seen before: a file of `host:port key`, a line each. PROTOCOL.md 2.2.6.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use wardline_core::native::Identity;

use crate::files::{lock_beside, make_folder_of, write_private};

/// A file of known servers. Lines that are empty or begin with `#` are passed over, and kept.
#[derive(Clone, Debug)]
pub struct KnownHosts {
    path: PathBuf,
}

/// What is wrong with a file of known servers. Nothing is connected to while it is.
#[derive(Clone, Debug)]
pub enum KnownHostsError {
    /// A line that is no `host:port key`, or whose key is none.
    Line {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        line: usize,
    },
    /// Two lines of one server name different keys.
    Twice {
        /// The file.
        path: PathBuf,
        /// The second one, from 1.
        line: usize,
    },
    /// Somebody else noted another key for the server meanwhile.
    Changed {
        /// The file.
        path: PathBuf,
        /// The key that stands there.
        noted: Identity,
        /// The key of the server that was met.
        met: Identity,
    },
    /// The system's.
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: Arc<io::Error>,
    },
}

impl fmt::Display for KnownHostsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { path, line } => {
                write!(f, "{}:{line}: not a line of HOST:PORT KEY", path.display())
            }
            Self::Twice { path, line } => {
                write!(f, "{}:{line}: another key for the same server", path.display())
            }
            Self::Changed { path, noted, met } => write!(
                f,
                "{}: another key was noted meanwhile: {noted:?}, while {met:?} was met",
                path.display()
            ),
            Self::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for KnownHostsError {}

impl KnownHosts {
    /// The file at `path`; where there is none, nobody is known.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Who was at `address` (`host:port`).
    ///
    /// # Errors
    /// The file cannot be read, or not be understood.
    pub fn find(&self, address: &str) -> Result<Option<Identity>, KnownHostsError> {
        self.look(&self.read()?, address)
    }

    /// Notes who is at `address`, unless that is noted already. Of several that note something at
    /// once, in this process or in others, each finds what the others noted; they wait for each
    /// other by the lock of a file beside this one, which is left there.
    ///
    /// # Errors
    /// Another key is noted, or the file cannot be written.
    pub fn note(&self, address: &str, met: Identity) -> Result<(), KnownHostsError> {
        make_folder_of(&self.path).map_err(|error| self.io(error))?;
        let _lock = lock_beside(&self.path).map_err(|error| self.io(error))?;
        let mut text = self.read()?;
        match self.look(&text, address)? {
            Some(noted) if noted == met => return Ok(()),
            Some(noted) => {
                return Err(KnownHostsError::Changed { path: self.path.clone(), noted, met });
            }
            None => {}
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&format!("{address} {met:?}\n"));
        write_private(&self.path, &text).map_err(|error| self.io(error))
    }

    fn io(&self, error: io::Error) -> KnownHostsError {
        KnownHostsError::Io { path: self.path.clone(), error: Arc::new(error) }
    }

    fn read(&self) -> Result<String, KnownHostsError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(self.io(error)),
        }
    }

    /// All lines are read, whichever is wanted: a file that is broken is not half trusted.
    fn look(&self, text: &str, address: &str) -> Result<Option<Identity>, KnownHostsError> {
        let mut found = None;
        for (at, line) in text.lines().enumerate() {
            let line_number = at + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (host, key) = line
                .split_once(' ')
                .and_then(|(host, key)| Some((host, key.trim().parse().ok()?)))
                .ok_or(KnownHostsError::Line { path: self.path.clone(), line: line_number })?;
            if host == address {
                if found.is_some_and(|found| found != key) {
                    let path = self.path.clone();
                    return Err(KnownHostsError::Twice { path, line: line_number });
                }
                found = Some(key);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use wardline_core::native::SigningKey;

    use super::*;

    fn somebody(seed: u8) -> Identity {
        SigningKey::from_seed(&[seed; 32]).identity()
    }

    #[test]
    fn who_was_met_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wardline/known_hosts");
        let hosts = KnownHosts::new(&path);
        assert_eq!(hosts.find("a:1").unwrap(), None);
        hosts.note("a:1", somebody(1)).unwrap();
        hosts.note("[::1]:2", somebody(2)).unwrap();
        hosts.note("a:1", somebody(1)).unwrap();
        assert_eq!(hosts.find("a:1").unwrap(), Some(somebody(1)));
        assert_eq!(hosts.find("[::1]:2").unwrap(), Some(somebody(2)));
        assert_eq!(hosts.find("a:11").unwrap(), None);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("a:1 {:?}\n[::1]:2 {:?}\n", somebody(1), somebody(2)));
        let error = hosts.note("a:1", somebody(3)).unwrap_err();
        assert!(matches!(error, KnownHostsError::Changed { .. }));
        for who in [1, 3] {
            assert!(error.to_string().contains(&format!("{:?}", somebody(who))), "{error}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        let beside = fs::read_dir(path.parent().unwrap()).unwrap();
        let mut names: Vec<_> = beside.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["known_hosts", "known_hosts.lock"]);
    }

    /// Two first meetings at once: a line that is lost is a server that is trusted unseen again.
    #[test]
    fn nothing_that_is_noted_at_once_is_lost() {
        const THREADS: u8 = 4;
        const HOSTS: u16 = 25;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let begin = std::sync::Barrier::new(usize::from(THREADS));
        std::thread::scope(|scope| {
            for seed in 1..=THREADS {
                let (path, begin) = (&path, &begin);
                scope.spawn(move || {
                    let hosts = KnownHosts::new(path);
                    begin.wait();
                    for port in 1..=HOSTS {
                        hosts.note(&format!("h{seed}:{port}"), somebody(seed)).unwrap();
                    }
                });
            }
        });
        let hosts = KnownHosts::new(&path);
        for seed in 1..=THREADS {
            for port in 1..=HOSTS {
                let found = hosts.find(&format!("h{seed}:{port}")).unwrap();
                assert_eq!(found, Some(somebody(seed)), "h{seed}:{port}");
            }
        }
        // Of two that meet different servers at one address, one is told.
        let begin = std::sync::Barrier::new(2);
        let noted = std::thread::scope(|scope| {
            let both = [1, 2].map(|seed| {
                let (hosts, begin) = (&hosts, &begin);
                scope.spawn(move || {
                    begin.wait();
                    hosts.note("one:1", somebody(seed)).is_ok()
                })
            });
            both.map(|thread| thread.join().unwrap())
        });
        assert_eq!(noted.iter().filter(|noted| **noted).count(), 1);
        assert!(hosts.find("one:1").unwrap().is_some());
    }

    #[cfg(all(unix, not(wardline_portable)))]
    #[test]
    fn it_is_the_owners_alone() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wardline/known_hosts");
        KnownHosts::new(&path).note("a:1", somebody(1)).unwrap();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path) & 0o777, 0o600);
        assert_eq!(mode(path.parent().unwrap()) & 0o777, 0o700);
    }

    #[test]
    fn a_file_that_is_broken_is_not_half_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known_hosts");
        let hosts = KnownHosts::new(&path);
        let (one, two) = (somebody(1), somebody(2));
        let kept = format!("# mine\n\na:1 {one:?}");
        fs::write(&path, &kept).unwrap();
        hosts.note("b:1", two).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{kept}\nb:1 {two:?}\n"));
        for (more, at) in [
            ("c:1\n".to_owned(), 5),
            (format!("c:1 {}\n", "0".repeat(64)), 5),
            (format!("c:1 {one:?}0\n"), 5),
            (format!("c:1 {one:?} x\n"), 5),
        ] {
            fs::write(&path, format!("{text}{more}")).unwrap();
            match hosts.find("a:1") {
                Err(KnownHostsError::Line { line, .. }) => assert_eq!(line, at),
                other => panic!("{more}: {other:?}"),
            }
            assert!(hosts.note("d:1", one).is_err());
        }
        fs::write(&path, format!("{text}a:1 {two:?}\n")).unwrap();
        assert!(matches!(hosts.find("a:1"), Err(KnownHostsError::Twice { line: 5, .. })));
        fs::write(&path, b"\xFF").unwrap();
        assert!(matches!(hosts.find("a:1"), Err(KnownHostsError::Io { .. })));
    }
}
