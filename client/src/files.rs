//! Files that are nobody else's.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Makes the folder of a file, and those above it, for the owner alone. Folders that are there
/// stay as they are.
pub(crate) fn make_folder_of(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else {
        return Ok(());
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(all(unix, not(wardline_portable)))]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Makes a new file for the owner alone; one that is there is an error.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(all(unix, not(wardline_portable)))]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A name beside `path` that nobody else has.
pub(crate) fn temporary_of(path: &Path) -> Result<PathBuf, getrandom::Error> {
    let mut number = [0; 8];
    getrandom::fill(&mut number)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.tmp", u64::from_le_bytes(number)));
    Ok(temporary.into())
}

/// Keeps others that ask the same out, of this process and of all others, until it is dropped. The
/// lock is a file of its own beside `path`, which stays: `path` itself is replaced by its writers.
pub(crate) fn lock_beside(path: &Path) -> io::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(all(unix, not(wardline_portable)))]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(PathBuf::from(name))?;
    file.lock()?;
    Ok(file)
}

/// Writes a file for the owner alone as a whole: who opens it sees the old content or the new.
pub(crate) fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let temporary = temporary_of(path).map_err(io::Error::other)?;
    let written = create_private(&temporary).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if written.is_err() {
        // Whatever was wrong, nothing is to be left; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// The mode of a file that others than its owner may read or change.
#[cfg(all(unix, not(wardline_portable)))]
pub(crate) fn open_to_others(about: &Metadata) -> Option<u32> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// Elsewhere the directory's rules are what keeps it: a user's own is nobody else's.
#[cfg(not(all(unix, not(wardline_portable))))]
pub(crate) fn open_to_others(_: &Metadata) -> Option<u32> {
    None
}
