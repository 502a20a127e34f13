//! Files that hold a secret key, and where they are kept when nobody says where: PROTOCOL.md 2.2.4.
//!
//! A key file is the 32-byte seed as 64 hexadecimal digits and a newline, and nobody's to read but
//! its owner's.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use wardline_core::native::{Identity, SigningKey};
use zeroize::Zeroizing;

use crate::clock;

/// The relay's key, in the state directory.
pub const SERVER_KEY: &str = "server.key";

/// The key of the client commands, in the state directory.
pub const CLIENT_KEY: &str = "client.key";

/// More than a key with comfortable white space; a file that is longer is something else.
const FILE_BYTES_MAX: u64 = 256;

/// Where this user's Wardline keeps what must outlive it: what systemd gives the service, else
/// `$XDG_STATE_HOME/wardline`, else `~/.local/state/wardline`. `None` where there is no home.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    state_directory_in(|name| std::env::var_os(name))
}

fn state_directory_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // What is relative would be another directory each time.
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let named = |name: &str| variable(name).map(PathBuf::from).and_then(absolute);
    // Of several directories the service's first is its own.
    let given = variable("STATE_DIRECTORY").and_then(|all| std::env::split_paths(&all).next());
    let of_home = |home: PathBuf| home.join(".local/state");
    given
        .and_then(absolute)
        .or_else(|| named("XDG_STATE_HOME").map(|state| state.join("wardline")))
        .or_else(|| named("LOCALAPPDATA").filter(|_| cfg!(windows)).map(|it| it.join("wardline")))
        .or_else(|| named("HOME").map(|home| of_home(home).join("wardline")))
}

/// Keys that this process began to make, so that no two of its threads write one file.
static MADE: AtomicU32 = AtomicU32::new(0);

/// An identity as people write it: 64 hexadecimal digits.
#[must_use]
pub fn hex(identity: &Identity) -> String {
    to_hex(identity.as_bytes()).as_str().to_owned()
}

/// The identity of 64 hexadecimal digits, with or without `ed25519:` before them.
///
/// # Errors
/// The writer's: a sentence that says what it must be.
pub fn parse_identity(text: &str) -> Result<Identity, String> {
    let digits = text.strip_prefix("ed25519:").unwrap_or(text);
    let bytes = from_hex(digits).ok_or("must be a key: 64 hexadecimal digits")?;
    Identity::new(&bytes).map_err(|fault| format!("is not a key: {}", fault.sentence()))
}

/// A key file that cannot be used, in a sentence that says what to do.
#[derive(Debug)]
pub struct KeyError {
    path: PathBuf,
    wrong: Wrong,
}

#[derive(Debug)]
enum Wrong {
    Missing,
    Exists,
    Open(u32),
    NoKey,
    System(&'static str, io::Error),
    Entropy(clock::EntropyError),
}

impl KeyError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.wrong, Wrong::Missing)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.wrong {
            Wrong::Missing => {
                write!(f, "{path}: there is no such file; make one with: wardline keygen {path}")
            }
            Wrong::Exists => write!(f, "{path}: there is a file already, and it stays as it is"),
            Wrong::Open(mode) => write!(
                f,
                "{path}: others than its owner may use it (mode {mode:04o}); what is in it is \
                 secret: chmod 600 {path}"
            ),
            Wrong::NoKey => write!(f, "{path}: must hold a key: 64 hexadecimal digits, a newline"),
            Wrong::System(what, error) => write!(f, "{path}: cannot {what} it: {error}"),
            Wrong::Entropy(error) => write!(f, "{path}: {error}"),
        }
    }
}

impl std::error::Error for KeyError {}

/// Reads a key.
///
/// # Errors
/// The operator's: there is none, others may read it, or it is something else.
pub fn read(path: &Path) -> Result<SigningKey, KeyError> {
    let failed = |wrong| KeyError { path: path.to_owned(), wrong };
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => failed(Wrong::Missing),
        _ => failed(Wrong::System("read", error)),
    })?;
    // Of the file that is open, and not of what may have taken its name.
    let about = file.metadata().map_err(|error| failed(Wrong::System("read", error)))?;
    if !about.is_file() {
        return Err(failed(Wrong::NoKey));
    }
    if let Some(mode) = open_to_others(&about) {
        return Err(failed(Wrong::Open(mode)));
    }
    // Not grown while it is read: what a grown one leaves behind would not be wiped.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|error| failed(Wrong::System("read", error)))?;
    let seed = std::str::from_utf8(&text).ok().and_then(|text| from_hex(text.trim()));
    let seed = Zeroizing::new(seed.ok_or_else(|| failed(Wrong::NoKey))?);
    Ok(SigningKey::from_seed(&seed))
}

/// Makes a new key and its file, in a directory that is made where it is missing. No file is ever
/// replaced, and none is seen half written.
///
/// # Errors
/// The operator's or the system's: there is a file, or none can be written.
pub fn make(path: &Path) -> Result<SigningKey, KeyError> {
    let failed = |wrong| KeyError { path: path.to_owned(), wrong };
    let system = |what| move |error| failed(Wrong::System(what, error));
    if path.symlink_metadata().is_ok() {
        return Err(failed(Wrong::Exists));
    }
    let mut seed = Zeroizing::new([0; 32]);
    clock::fill(&mut seed[..]).map_err(|error| failed(Wrong::Entropy(error)))?;
    if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_directory(directory).map_err(system("make the directory of"))?;
    }
    let mut temporary = OsString::from(path);
    let nth = MADE.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}-{nth}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = write_private(&temporary, &seed);
    // A link, unlike a renaming, does not replace what another process has put there meanwhile.
    let linked = written.and_then(|()| fs::hard_link(&temporary, path));
    let _ = fs::remove_file(&temporary);
    match linked {
        Ok(()) => Ok(SigningKey::from_seed(&seed)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.exists() => {
            Err(failed(Wrong::Exists))
        }
        Err(error) => Err(failed(Wrong::System("write", error))),
    }
}

/// Reads a key, or makes it where there is none; and whether it did.
///
/// # Errors
/// As those of [`read`] and [`make`].
pub fn read_or_make(path: &Path) -> Result<(SigningKey, bool), KeyError> {
    match read(path) {
        Err(error) if error.is_missing() => {}
        done => return done.map(|key| (key, false)),
    }
    match make(path) {
        // Another process was first: it is its key now.
        Err(KeyError { wrong: Wrong::Exists, .. }) => read(path).map(|key| (key, false)),
        done => done.map(|key| (key, true)),
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(all(unix, not(wardline_portable)))]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn write_private(path: &Path, seed: &[u8; 32]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(all(unix, not(wardline_portable)))]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let digits = to_hex(seed);
    file.write_all(digits.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

/// The mode of a file that others than its owner may read or change.
#[cfg(all(unix, not(wardline_portable)))]
fn open_to_others(about: &fs::Metadata) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Elsewhere the directory's rules are what keeps it: a user's own is nobody else's.
#[cfg(not(all(unix, not(wardline_portable))))]
fn open_to_others(_: &fs::Metadata) -> Option<u32> {
    None
}

fn to_hex(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut digits = Zeroizing::new(String::with_capacity(64));
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            digits.push(char::from_digit(u32::from(nibble), 16).unwrap_or_default());
        }
    }
    digits
}

/// 64 hexadecimal digits, of either case.
fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// RFC 8032, 7.1, test 1.
    const SEED: &str = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    fn private(dir: &Scratch, name: &str, text: &str) -> PathBuf {
        let path = dir.file(name, text);
        set_mode(&path, 0o600);
        path
    }

    #[cfg(all(unix, not(wardline_portable)))]
    fn set_mode(path: &Path, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[cfg(not(all(unix, not(wardline_portable))))]
    fn set_mode(_: &Path, _: u32) {}

    #[test]
    fn a_file_holds_a_seed() {
        let dir = Scratch::new();
        for text in [format!("{SEED}\n"), SEED.to_uppercase(), format!(" {SEED}\r\n")] {
            let key = read(&private(&dir, "k", &text)).unwrap();
            assert_eq!(hex(&key.identity()), PUBLIC);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_said() {
        let dir = Scratch::new();
        let long = "0".repeat(1 << 20);
        for text in ["", "\n", &SEED[1..], &format!("{SEED}0"), &SEED.replace('9', "g"), &long] {
            let wrong = read(&private(&dir, "k", text)).unwrap_err().to_string();
            assert!(
                wrong.ends_with("must hold a key: 64 hexadecimal digits, a newline"),
                "{wrong}"
            );
            assert!(!wrong.contains("9d61"), "{wrong}");
        }
        let missing = read(&dir.path("none")).unwrap_err();
        assert!(missing.is_missing());
        assert!(missing.to_string().contains("make one with: wardline keygen "), "{missing}");
        assert!(read(&dir.path("")).is_err());
    }

    #[cfg(all(unix, not(wardline_portable)))]
    #[test]
    fn others_may_not_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = Scratch::new();
        let path = private(&dir, "k", SEED);
        for mode in [0o640, 0o604, 0o660, 0o620] {
            set_mode(&path, mode);
            let wrong = read(&path).unwrap_err().to_string();
            assert!(wrong.contains(&format!("(mode {mode:04o})")), "{wrong}");
            assert!(wrong.ends_with(&format!("chmod 600 {}", path.display())), "{wrong}");
        }
        set_mode(&path, 0o400);
        assert!(read(&path).is_ok());
        let made = dir.path("a/b/server.key");
        make(&made).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&made), 0o600);
        assert_eq!(mode(made.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_key_is_made_once_and_never_replaced() {
        let dir = Scratch::new();
        let path = dir.path("state/server.key");
        let (key, made) = read_or_make(&path).unwrap();
        assert!(made);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with('\n')), (65, true));
        let (again, made) = read_or_make(&path).unwrap();
        assert_eq!((again.identity(), made), (key.identity(), false));
        let wrong = make(&path).unwrap_err().to_string();
        assert!(wrong.ends_with("there is a file already, and it stays as it is"), "{wrong}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        // Nothing else is left.
        assert_eq!(fs::read_dir(dir.path("state")).unwrap().count(), 1);
        assert_ne!(make(&dir.path("other")).unwrap().identity(), key.identity());
    }

    #[test]
    fn several_that_make_it_at_once_have_the_same() {
        let dir = Scratch::new();
        let path = dir.path("state/client.key");
        let all: Vec<_> = std::thread::scope(|scope| {
            let make = || scope.spawn(|| read_or_make(&path));
            let threads: Vec<_> = (0..8).map(|_| make()).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(all.iter().filter(|(_, made)| *made).count(), 1);
        let read = read(&path).unwrap().identity();
        assert!(all.iter().all(|(key, _)| key.identity() == read));
    }

    #[test]
    fn a_directory_that_cannot_be_had_is_said() {
        let dir = Scratch::new();
        let file = dir.file("file", "");
        let wrong = read_or_make(&file.join("server.key")).unwrap_err().to_string();
        assert!(wrong.contains("cannot "), "{wrong}");
    }

    #[test]
    fn the_state_directory_is_the_first_that_is_named() {
        let with = |pairs: &[(&str, &str)]| {
            let found = |name: &str| {
                let pair = pairs.iter().find(|(known, _)| *known == name);
                pair.map(|(_, value)| OsString::from(value))
            };
            state_directory_in(found)
        };
        let is = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/h");
        assert_eq!(with(&[home]), is("/h/.local/state/wardline"));
        let xdg = ("XDG_STATE_HOME", "/x");
        assert_eq!(with(&[home, xdg]), is("/x/wardline"));
        assert_eq!(with(&[home, ("XDG_STATE_HOME", "x")]), is("/h/.local/state/wardline"));
        let service = ("STATE_DIRECTORY", "/var/lib/wardline:/var/lib/other");
        assert_eq!(with(&[home, xdg, service]), is("/var/lib/wardline"));
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "")]), None);
    }

    #[test]
    fn identities_are_read_as_they_are_shown() {
        let identity = parse_identity(PUBLIC).unwrap();
        assert_eq!(hex(&identity), PUBLIC);
        assert_eq!(parse_identity(&format!("ed25519:{}", PUBLIC.to_uppercase())), Ok(identity));
        assert!(parse_identity("").unwrap_err().contains("64 hexadecimal digits"));
        assert!(parse_identity(&"é".repeat(32)).is_err());
        let small = format!("01{}", "0".repeat(62));
        assert!(parse_identity(&small).unwrap_err().contains("small order"));
    }
}
