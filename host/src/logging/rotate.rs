//! A log file that is bounded: at a size it becomes `FILE.1`, what was `FILE.1` becomes `FILE.2`,
//! and the oldest goes.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A file that rotates by size.
#[derive(Debug)]
pub struct RotatingFile {
    path: PathBuf,
    /// `None` after a failure to open it; the next write tries again.
    file: Option<File>,
    bytes: u64,
    /// 0: never rotates.
    bytes_max: u64,
    /// Older files that are kept.
    count: u32,
}

impl RotatingFile {
    /// Opens a file to append to, and makes the directory that it lies in.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, bytes_max: u64, count: u32) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent)?;
        }
        let mut log = Self { path: path.to_owned(), file: None, bytes: 0, bytes_max, count };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file of that name again: another process has moved the old one away.
    ///
    /// # Errors
    /// The system's; the file that was open stays open.
    pub fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// Appends whole lines, and rotates before a line that would pass the size. A line that is
    /// longer than the size has a file of its own.
    ///
    /// # Errors
    /// The system's. Lines not written are lost; the next call tries again.
    pub fn write_lines(&mut self, lines: &str) -> io::Result<()> {
        let mut rest = lines;
        while !rest.is_empty() {
            let fitting = self.fitting(rest);
            if fitting == 0 {
                self.rotate()?;
                continue;
            }
            let (now, later) = rest.split_at(fitting);
            if self.file.is_none() {
                self.reopen()?;
            }
            if let Some(file) = &mut self.file {
                file.write_all(now.as_bytes())?;
                self.bytes = self.bytes.saturating_add(now.len() as u64);
            }
            rest = later;
        }
        Ok(())
    }

    /// Bytes of whole lines that the file takes before it rotates; never 0 where it is empty.
    fn fitting(&self, lines: &str) -> usize {
        let room = self.bytes_max.saturating_sub(self.bytes);
        if self.bytes_max == 0 || lines.len() as u64 <= room {
            return lines.len();
        }
        let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
        match memrchr_newline(&lines.as_bytes()[..room]) {
            Some(at) => at + 1,
            None if self.bytes == 0 => lines.find('\n').map_or(lines.len(), |at| at + 1),
            None => 0,
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for n in (1..self.count).rev() {
            // It may not exist yet; and one that cannot be moved is written over by the next,
            // because a log that is bounded goes first.
            let _ = fs::rename(self.older(n), self.older(n + 1));
        }
        if self.count == 0 {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, self.older(1))?;
        }
        self.reopen()
    }

    fn older(&self, n: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{n}"));
        name.into()
    }
}

fn memrchr_newline(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn the_oldest_goes() {
        let dir = Scratch::new();
        let path = dir.path("deep/er/w.log");
        let mut log = RotatingFile::open(&path, 8, 2).unwrap();
        for line in ["1111\n", "2222\n", "3333\n", "4444\n"] {
            log.write_lines(line).unwrap();
        }
        assert_eq!(read(&path), "4444\n");
        assert_eq!(read(&dir.path("deep/er/w.log.1")), "3333\n");
        assert_eq!(read(&dir.path("deep/er/w.log.2")), "2222\n");
        assert!(!dir.path("deep/er/w.log.3").exists());
    }

    #[test]
    fn many_lines_at_once_are_parted_between_lines() {
        let dir = Scratch::new();
        let path = dir.path("w.log");
        let mut log = RotatingFile::open(&path, 10, 9).unwrap();
        log.write_lines("aaa\nbbb\nccc\na line longer than the size\nddd\n").unwrap();
        // The long line has a file of its own, and so has what follows.
        log.write_lines("eee\n").unwrap();
        assert_eq!(read(&path), "ddd\neee\n");
        assert_eq!(read(&dir.path("w.log.1")), "a line longer than the size\n");
        assert_eq!(read(&dir.path("w.log.2")), "ccc\n");
        assert_eq!(read(&dir.path("w.log.3")), "aaa\nbbb\n");
    }

    #[test]
    fn what_was_there_counts_and_zero_means_never() {
        let dir = Scratch::new();
        let path = dir.path("w.log");
        fs::write(&path, "12345678\n").unwrap();
        let mut log = RotatingFile::open(&path, 10, 1).unwrap();
        log.write_lines("new\n").unwrap();
        assert_eq!(read(&dir.path("w.log.1")), "12345678\n");
        let mut log = RotatingFile::open(&path, 0, 1).unwrap();
        log.write_lines(&"x\n".repeat(100)).unwrap();
        assert_eq!(read(&path).len(), 204);
    }

    #[test]
    fn no_older_file_is_kept_where_none_is_wanted() {
        let dir = Scratch::new();
        let path = dir.path("w.log");
        let mut log = RotatingFile::open(&path, 4, 0).unwrap();
        log.write_lines("one\ntwo\n").unwrap();
        assert_eq!(read(&path), "two\n");
        assert!(!dir.path("w.log.1").exists());
    }

    #[test]
    fn reopening_follows_the_name() {
        let dir = Scratch::new();
        let path = dir.path("w.log");
        let mut log = RotatingFile::open(&path, 0, 0).unwrap();
        log.write_lines("old\n").unwrap();
        fs::rename(&path, dir.path("moved")).unwrap();
        log.write_lines("still old\n").unwrap();
        log.reopen().unwrap();
        log.write_lines("new\n").unwrap();
        assert_eq!(read(&dir.path("moved")), "old\nstill old\n");
        assert_eq!(read(&path), "new\n");
    }

    #[test]
    fn a_directory_in_the_way_is_an_error_and_not_the_end() {
        let dir = Scratch::new();
        let path = dir.path("w.log");
        assert!(RotatingFile::open(&dir.path(""), 0, 0).is_err());
        let mut log = RotatingFile::open(&path, 4, 1).unwrap();
        fs::create_dir(dir.path("w.log.1")).unwrap();
        log.write_lines("one\n").unwrap();
        assert!(log.write_lines("two\n").is_err());
        fs::remove_dir(dir.path("w.log.1")).unwrap();
        log.write_lines("two\n").unwrap();
        assert_eq!(read(&path), "two\n");
        assert_eq!(read(&dir.path("w.log.1")), "one\n");
    }
}
