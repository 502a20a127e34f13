//! Files that are nobody else's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

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

/// Writes a file for the owner alone as a whole: who opens it sees the old content or the new.
pub(crate) fn write_private(path: &Path, content: &str) -> io::Result<()> {
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(io::Error::other)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.tmp", u64::from_le_bytes(number)));
    let temporary = Path::new(&temporary);
    let written = create_private(temporary).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(temporary, path)
    });
    if written.is_err() {
        // Whatever was wrong, nothing is to be left; the first error is the one to tell.
        let _ = fs::remove_file(temporary);
    }
    written
}

/// Whether others than the owner may read or change the file. Never, where the system cannot tell.
#[cfg(all(unix, not(wardline_portable)))]
pub(crate) fn is_open_to_others(file: &File) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
}

/// Whether others than the owner may read or change the file. Never, where the system cannot tell.
#[cfg(not(all(unix, not(wardline_portable))))]
pub(crate) fn is_open_to_others(_: &File) -> io::Result<bool> {
    Ok(false)
}
