//! Files of signing keys: a seed of 32 bytes in hexadecimal and a newline, for the owner alone.
//!
//! A file is never overwritten, and one that others may read is not used: a key that others can
//! read is theirs, too.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wardline_core::native::{Identity, SigningKey};
use zeroize::Zeroizing;

use crate::files::{create_private, is_open_to_others, make_folder_of};

/// Hexadecimal digits of a seed.
const DIGITS: usize = 64;

/// Why a key file cannot be used or made.
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
    /// There is one already: it is not overwritten.
    Exists,
    /// Others than its owner may read it.
    OpenToOthers,
    /// It is not 64 hexadecimal digits and a newline.
    Form,
    /// The system gives no entropy.
    Entropy,
    /// The system's.
    Io(Arc<io::Error>),
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.fault {
            KeyFileFault::Exists => write!(f, "{path} is there already; it is not overwritten"),
            KeyFileFault::OpenToOthers => write!(
                f,
                "{path} can be read by others, so it is not used: chmod 600 it, and think about \
                 who may have read it"
            ),
            KeyFileFault::Form => write!(f, "{path} is not a key: 64 hexadecimal digits"),
            KeyFileFault::Entropy => f.write_str("the system gives no entropy"),
            KeyFileFault::Io(error) => write!(f, "{path}: {error}"),
        }
    }
}

impl std::error::Error for KeyFileError {}

impl From<io::Error> for KeyFileFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists,
            _ => Self::Io(Arc::new(error)),
        }
    }
}

/// Makes a key and writes it to a new file; folders on the way are made, for the owner alone.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn generate(path: &Path) -> Result<Identity, KeyFileError> {
    let error = |fault| KeyFileError { path: path.to_owned(), fault };
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|_| error(KeyFileFault::Entropy))?;
    let mut text = Zeroizing::new([b'\n'; DIGITS + 1]);
    for (digits, byte) in text.chunks_mut(2).zip(seed.iter()) {
        for (digit, value) in digits.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef"[usize::from(value)];
        }
    }
    make_folder_of(path).map_err(|fault| error(fault.into()))?;
    let mut file = create_private(path).map_err(|fault| error(fault.into()))?;
    let written = file.write_all(&*text).and_then(|()| file.sync_all());
    if let Err(fault) = written {
        // Half a key is none; the first error is the one to tell.
        let _ = std::fs::remove_file(path);
        return Err(error(fault.into()));
    }
    Ok(SigningKey::from_seed(&seed).identity())
}

/// Reads a key from its file.
///
/// # Errors
/// It is not there, can be read by others, or is no key.
pub fn load(path: &Path) -> Result<SigningKey, KeyFileError> {
    read(path).map_err(|fault| KeyFileError { path: path.to_owned(), fault })
}

fn read(path: &Path) -> Result<SigningKey, KeyFileFault> {
    let mut file = File::open(path)?;
    if is_open_to_others(&file)? {
        return Err(KeyFileFault::OpenToOthers);
    }
    // A byte more than there may be, to see whether there is.
    let mut text = Zeroizing::new([0; DIGITS + 3]);
    let mut len = 0;
    while len < text.len() {
        match file.read(&mut text[len..])? {
            0 => break,
            got => len += got,
        }
    }
    let seed = unhex(text[..len].trim_ascii_end()).ok_or(KeyFileFault::Form)?;
    Ok(SigningKey::from_seed(&Zeroizing::new(seed)))
}

/// 32 bytes in hexadecimal, as identities are shown.
#[must_use]
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An identity from 64 hexadecimal digits. None: no such thing, or no key that somebody alone can
/// sign with.
#[must_use]
pub fn identity(text: &str) -> Option<Identity> {
    Identity::new(&unhex(text.as_bytes())?).ok()
}

fn unhex(text: &[u8]) -> Option<[u8; 32]> {
    if text.len() != DIGITS {
        return None;
    }
    let value =
        |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.chunks(2)) {
        let [high, low] = digits else { return None };
        *byte = value(*high)? << 4 | value(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_key_is_what_was_generated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/agent.key");
        let identity = generate(&path).unwrap();
        assert_eq!(load(&path).unwrap().identity(), identity);
        assert_eq!(super::identity(&format!("{identity:?}")), Some(identity));
        assert_eq!(hex(identity.as_bytes()), format!("{identity:?}"));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() == 65 && text.ends_with('\n'));
        let again = generate(&path).unwrap_err();
        assert!(matches!(again.fault, KeyFileFault::Exists), "{again}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_ne!(generate(&dir.path().join("other.key")).unwrap(), identity);
    }

    #[cfg(all(unix, not(wardline_portable)))]
    #[test]
    fn what_others_can_read_is_no_key() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/agent.key");
        generate(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        for open in [0o640, 0o604, 0o620, 0o601, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
            let error = load(&path).unwrap_err();
            assert!(matches!(error.fault, KeyFileFault::OpenToOthers), "{open:o}: {error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        load(&path).unwrap();
    }

    #[test]
    fn what_is_no_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.key");
        assert!(matches!(load(&path).unwrap_err().fault, KeyFileFault::Io(_)));
        let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
        for (text, good) in [
            (format!("{digits}\n"), true),
            (digits.clone(), true),
            (format!("{digits}\r\n"), true),
            (format!("{digits}0\n"), false),
            (format!("{digits}\n{digits}\n"), false),
            (format!(" {digits}"), false),
            (digits.replace('a', "g"), false),
            (digits.replace('a', "ä"), false),
            (digits[..63].to_owned(), false),
            (String::new(), false),
        ] {
            let _ = fs::remove_file(&path);
            create_private(&path).unwrap().write_all(text.as_bytes()).unwrap();
            match load(&path) {
                Ok(_) => assert!(good, "{text:?}"),
                Err(error) => {
                    assert!(!good && matches!(error.fault, KeyFileFault::Form), "{text:?}");
                    assert!(!error.to_string().contains("0123456789"), "{error}");
                }
            }
        }
    }
}
