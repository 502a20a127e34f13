//! The control thread of both engines: the operator's requests, on a small tokio-uring runtime.
//!
//! It waits for signals, and reads the settings again, by its own ring: neither waits for the data
//! path, nor the other way round.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use tokio_uring::fs::File;
use tokio_uring::net::UnixStream;
use wardline_host::signals::{Control, STACK_BYTES, Signals};

/// Places in its ring: it does one thing at a time.
const ENTRIES: u32 = 4;
/// Bytes of a settings file that are read at a time.
const READ_BYTES: usize = 8 << 10;
/// A settings file that is larger is none.
const FILE_BYTES_MAX: usize = 16 << 20;

/// Gives each request to `deliver`, on a thread of its own; with a request to read the settings
/// again comes what stands in `settings`, where there is such a file. On return the thread has
/// what it needs: whoever sees that the relay is up sees all of its descriptors.
///
/// # Errors
/// The system's, for want of a thread.
pub fn deliver(
    signals: Signals,
    settings: Option<PathBuf>,
    mut deliver: impl FnMut(Control, Option<io::Result<String>>) + Send + 'static,
) -> io::Result<()> {
    let (ready, is_ready) = mpsc::sync_channel::<()>(1);
    let run = move || {
        let ring = tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES));
        let woken_by = ring.and_then(|ring| Ok((ring, signals.woken_by()?)));
        drop(ready);
        match woken_by {
            Ok((ring, woken_by)) => {
                let woken_by = UnixStream::from_std(woken_by);
                ring.block_on(obey(signals, &woken_by, settings.as_deref(), deliver));
            }
            // It can be had without, only not as it was meant.
            Err(error) => {
                tracing::warn!(%error, code = "control", "no ring for the control thread");
                signals.run(move |control| deliver(control, None));
            }
        }
    };
    thread::Builder::new().name("control".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
    // Nothing is sent: the thread's end of it goes, at the latest with the thread.
    let _ = is_ready.recv();
    Ok(())
}

async fn obey(
    mut signals: Signals,
    woken_by: &UnixStream,
    settings: Option<&Path>,
    mut deliver: impl FnMut(Control, Option<io::Result<String>>),
) {
    let mut byte = Vec::with_capacity(1);
    loop {
        let (woken, back) = woken_by.read(byte).await;
        byte = back;
        byte.clear();
        if woken.is_err_and(|error| error.kind() != io::ErrorKind::Interrupted) {
            return;
        }
        for control in signals.requests() {
            let file = match settings {
                Some(path) if control == Control::Reload => Some(read(path).await),
                Some(_) | None => None,
            };
            deliver(control, file);
            control.end_if_stopped();
        }
    }
}

/// All that stands in a file.
async fn read(path: &Path) -> io::Result<String> {
    let file = File::open(path).await?;
    let all = read_all(&file).await;
    // Whatever was read stays read.
    let _ = file.close().await;
    String::from_utf8(all?).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

async fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut part = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, back) = file.read_at(part, all.len() as u64).await;
        part = back;
        match read {
            Ok(0) => return Ok(all),
            Ok(_) => all.extend_from_slice(&part),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if all.len() > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        part.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_now(path: &Path) -> io::Result<String> {
        let ring = tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES))?;
        ring.block_on(read(path))
    }

    #[test]
    fn a_file_is_read_whole_or_not_at_all() {
        if tokio_uring::Runtime::new(tokio_uring::builder().entries(ENTRIES)).is_err() {
            return;
        }
        let path = std::env::temp_dir().join(format!("wardline-control-{}", std::process::id()));
        for text in [String::new(), "a = 1\n".to_owned(), "é".repeat(READ_BYTES)] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(read_now(&path).unwrap(), text);
        }
        std::fs::write(&path, [b'a', 0xFF]).unwrap();
        assert_eq!(read_now(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_now(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
