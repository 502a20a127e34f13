//! Small files that tell other programs about this process.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::net::{Listener, ShardListeners};

/// Writes a file as a whole: who opens it sees the old content or the new, and never a piece.
///
/// # Errors
/// The system's; the old content stays.
pub fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let mut temporary = OsString::from(path);
    // Two processes that are given the same path do not write into each other's.
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Whatever was wrong, nothing is to be left; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Writes the URL of each listener with the port that it got, a line each.
///
/// # Errors
/// The system's.
pub fn write_ports(path: &Path, listeners: &[Listener]) -> io::Result<()> {
    let urls: String = listeners.iter().map(|listener| format!("{}\n", listener.listen)).collect();
    write_whole(path, &urls)
}

/// The same for shards: first the listeners of the settings, as for one, then each shard's own.
/// What leads to one shard alone is followed by its name: `line://127.0.0.1:4711/main shard-0`. So
/// do listeners that take native clients where those are not on all shards (`spread`), and no shard
/// has own ones for them then.
///
/// # Errors
/// The system's.
pub fn write_shard_ports(path: &Path, shards: &[ShardListeners], spread: bool) -> io::Result<()> {
    let mut urls = String::new();
    for listener in shards.first().map(|first| &first.shared[..]).unwrap_or_default() {
        let alone = listener.listen.dialects().native() && !spread;
        let only = if alone { " shard-0" } else { "" };
        urls.push_str(&format!("{}{only}\n", listener.listen));
    }
    for (nth, shard) in shards.iter().enumerate() {
        for listener in &shard.own {
            urls.push_str(&format!("{} shard-{nth}\n", listener.listen));
        }
    }
    write_whole(path, &urls)
}

/// A file that holds this process's number, and is removed when this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    content: String,
}

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// The system's.
    pub fn write(path: &Path) -> io::Result<Self> {
        let content = format!("{}\n", std::process::id());
        write_whole(path, &content)?;
        Ok(Self { path: path.to_owned(), content })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A process that was started after this one may have taken the path over.
        if fs::read_to_string(&self.path).is_ok_and(|content| content == self.content) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use wardline_core::Limits;

    use super::*;
    use crate::net::{Tuning, bind_all};
    use crate::scratch::Scratch;

    #[test]
    fn a_pid_file_goes_with_its_process() {
        let dir = Scratch::new();
        let path = dir.path("w.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_pid_file_of_another_process_stays() {
        let dir = Scratch::new();
        let path = dir.path("w.pid");
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n");
    }

    #[test]
    fn the_ports_file_has_a_line_for_each_listener() {
        let dir = Scratch::new();
        let path =
            dir.file("ports", "old content that is longer than the new content will be ......");
        let asked =
            ["line://127.0.0.1:0", "line://127.0.0.1:0/two"].map(|url| url.parse().unwrap());
        let bound = bind_all(&asked, &Tuning::for_limits(&Limits::DEFAULT)).unwrap();
        write_ports(&path, &bound).unwrap();
        let (one, two) = (bound[0].addr.port(), bound[1].addr.port());
        let expected = format!("line://127.0.0.1:{one}/main\nline://127.0.0.1:{two}/two\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_written_leaves_nothing_behind() {
        let dir = Scratch::new();
        fs::create_dir(dir.path("taken")).unwrap();
        assert!(write_whole(&dir.path("taken"), "x").is_err());
        assert!(write_whole(&dir.path("missing/file"), "x").is_err());
        assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 1);
    }
}
