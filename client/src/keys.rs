//! Files that hold a secret key: the 32-byte seed as 64 hexadecimal digits and a newline, and
//! nobody's to read but its owner's.
//!
//! A file is never replaced, and one that others may read or change is not used: what others can
//! read is theirs, too.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wardline_core::native::{SigningKey, from_digits, to_digits};
use zeroize::Zeroizing;

use crate::files::{create_private, make_folder_of, open_to_others, temporary_of};

/// More than a key with comfortable white space; a file that is longer is something else.
const FILE_BYTES_MAX: usize = 256;

/// A key file that cannot be used or made, in a sentence that says what to do.
#[derive(Clone, Debug)]
pub struct KeyFileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: KeyFileFault,
}

/// What is wrong with a key file.
#[derive(Clone, Debug)]
pub enum KeyFileFault {
    /// There is none.
    Missing,
    /// There is one already: it is not replaced.
    Exists,
    /// Others than its owner may read or change it: its mode.
    OpenToOthers(u32),
    /// It is not 64 hexadecimal digits and a newline.
    Form,
    /// The system gives no entropy.
    Entropy,
    /// The system's: what could not be done, and why.
    Io(&'static str, Arc<io::Error>),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            KeyFileFault::Missing => {
                write!(f, "{path}: there is no such file; make one with: wardline keygen {path}")
            }
            KeyFileFault::Exists => {
                write!(f, "{path}: there is a file already, and it stays as it is")
            }
            KeyFileFault::OpenToOthers(mode) => write!(
                f,
                "{path}: others than its owner may use it (mode {mode:04o}); what is in it is \
                 secret: chmod 600 {path}"
            ),
            KeyFileFault::Form => {
                write!(f, "{path}: must hold a key: 64 hexadecimal digits, a newline")
            }
            KeyFileFault::Entropy => write!(f, "{path}: the system gives no entropy"),
            KeyFileFault::Io(what, error) => write!(f, "{path}: cannot {what} it: {error}"),
        }
    }
}

impl std::error::Error for KeyFileError {}

impl KeyFileFault {
    fn of(self, path: &Path) -> KeyFileError {
        KeyFileError { path: path.to_owned(), fault: self }
    }
}

/// Reads a key from its file.
///
/// # Errors
/// It is not there, others may read or change it, or it is no key.
pub fn load(path: &Path) -> Result<SigningKey, KeyFileError> {
    read(path).map_err(|fault| fault.of(path))
}

/// Makes a new key and its file; folders on the way are made, for the owner alone. No file is ever
/// replaced, and none is seen half written.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn generate(path: &Path) -> Result<SigningKey, KeyFileError> {
    make(path).map_err(|fault| fault.of(path))
}

/// Reads a key, or makes it where there is none; and whether it did.
///
/// # Errors
/// As those of [`load`] and [`generate`].
pub fn load_or_generate(path: &Path) -> Result<(SigningKey, bool), KeyFileError> {
    match load(path) {
        Err(KeyFileError { fault: KeyFileFault::Missing, .. }) => {}
        done => return done.map(|key| (key, false)),
    }
    match generate(path) {
        // Another process was first: it is its key now.
        Err(KeyFileError { fault: KeyFileFault::Exists, .. }) => load(path).map(|key| (key, false)),
        done => done.map(|key| (key, true)),
    }
}

fn read(path: &Path) -> Result<SigningKey, KeyFileFault> {
    let system = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => KeyFileFault::Missing,
        _ => KeyFileFault::Io("read", Arc::new(error)),
    };
    let mut file = File::open(path).map_err(system)?;
    // Of the file that is open, and not of what may have taken its name.
    let about = file.metadata().map_err(system)?;
    if !about.is_file() {
        return Err(KeyFileFault::Form);
    }
    if let Some(mode) = open_to_others(&about) {
        return Err(KeyFileFault::OpenToOthers(mode));
    }
    let mut text = Zeroizing::new([0; FILE_BYTES_MAX]);
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..]).map_err(system)? {
            0 => break,
            got => len += got,
        }
    }
    let seed = from_digits(text[..len].trim_ascii()).ok_or(KeyFileFault::Form)?;
    Ok(SigningKey::from_seed(&Zeroizing::new(seed)))
}

fn make(path: &Path) -> Result<SigningKey, KeyFileFault> {
    if path.symlink_metadata().is_ok() {
        return Err(KeyFileFault::Exists);
    }
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|_| KeyFileFault::Entropy)?;
    let cannot = |what| move |error| KeyFileFault::Io(what, Arc::new(error));
    make_folder_of(path).map_err(cannot("make the directory of"))?;
    let temporary = temporary_of(path).map_err(|_| KeyFileFault::Entropy)?;
    let written = create_private(&temporary).and_then(|mut file| {
        file.write_all(&*Zeroizing::new(to_digits(&seed)))?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    // A link, unlike a renaming, does not replace what another process has put there meanwhile.
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(SigningKey::from_seed(&seed)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.exists() => {
            Err(KeyFileFault::Exists)
        }
        Err(error) => Err(cannot("write")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn private(path: &Path, text: &str) {
        let _ = fs::remove_file(path);
        create_private(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn a_file_holds_a_seed() {
        let dir = folder();
        let path = dir.path().join("k");
        for text in [format!("{SEED}\n"), SEED.to_uppercase(), format!(" {SEED}\r\n")] {
            private(&path, &text);
            assert_eq!(load(&path).unwrap().identity().to_string(), PUBLIC);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_said() {
        let dir = folder();
        let path = dir.path().join("k");
        let (long, twice) = ("0".repeat(1 << 20), format!("{SEED}\n{SEED}\n"));
        let padded = format!("{SEED}{}", " ".repeat(FILE_BYTES_MAX));
        let (no_hex, umlaut) = (SEED.replace('9', "g"), SEED.replace('9', "ä"));
        let short = &SEED[1..];
        let more = format!("{SEED}0");
        for text in ["", "\n", short, &more, &twice, &no_hex, &umlaut, &long] {
            private(&path, text);
            let wrong = load(&path).unwrap_err();
            assert!(matches!(wrong.fault, KeyFileFault::Form), "{wrong}");
            let wrong = wrong.to_string();
            let ends = "must hold a key: 64 hexadecimal digits, a newline";
            assert!(wrong.ends_with(ends) && !wrong.contains("61b1"), "{wrong}");
        }
        private(&path, &padded);
        assert!(load(&path).is_ok(), "white space");
        let missing = load(&dir.path().join("none")).unwrap_err();
        assert!(matches!(missing.fault, KeyFileFault::Missing));
        assert!(missing.to_string().contains("make one with: wardline keygen "), "{missing}");
        assert!(load(dir.path()).is_err());
    }

    #[cfg(all(unix, not(wardline_portable)))]
    #[test]
    fn others_may_not_read_it() {
        use std::os::unix::fs::PermissionsExt;

        let dir = folder();
        let path = dir.path().join("a/b/agent.key");
        generate(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o640, 0o604, 0o620, 0o601, 0o644, 0o660] {
            set(open);
            let wrong = load(&path).unwrap_err();
            assert!(matches!(wrong.fault, KeyFileFault::OpenToOthers(mode) if mode == open));
            let wrong = wrong.to_string();
            assert!(wrong.contains(&format!("(mode {open:04o})")), "{wrong}");
            assert!(wrong.ends_with(&format!("chmod 600 {}", path.display())), "{wrong}");
        }
        set(0o400);
        assert!(load(&path).is_ok());
    }

    #[test]
    fn a_key_is_made_once_and_never_replaced() {
        let dir = folder();
        let path = dir.path().join("state/server.key");
        let (key, made) = load_or_generate(&path).unwrap();
        assert!(made);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true));
        let (again, made) = load_or_generate(&path).unwrap();
        assert_eq!((again.identity(), made), (key.identity(), false));
        let wrong = generate(&path).unwrap_err();
        assert!(matches!(wrong.fault, KeyFileFault::Exists), "{wrong}");
        assert!(wrong.to_string().ends_with("there is a file already, and it stays as it is"));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // Nothing else is left.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        assert_ne!(generate(&dir.path().join("other")).unwrap().identity(), key.identity());
    }

    #[test]
    fn several_that_make_it_at_once_have_the_same() {
        let dir = folder();
        let path = dir.path().join("state/client.key");
        let all: Vec<_> = std::thread::scope(|scope| {
            let make = || scope.spawn(|| load_or_generate(&path));
            let threads: Vec<_> = (0..8).map(|_| make()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.iter().filter(|(_, made)| *made).count(), 1);
        let read = load(&path).unwrap().identity();
        assert!(all.iter().all(|(key, _)| key.identity() == read));
    }

    #[test]
    fn a_directory_that_cannot_be_had_is_said() {
        let dir = folder();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let wrong = load_or_generate(&file.join("server.key")).unwrap_err().to_string();
        assert!(wrong.contains("cannot "), "{wrong}");
    }
}
