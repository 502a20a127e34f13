//! What an operator asks of a running process, by signals; where there are none, by Ctrl-C.

use std::io;
use std::thread;
use std::time::Duration;

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Tell every client, send what is queued, and end: TERM or INT.
    Drain,
    /// End now: the second TERM or INT. A process that is still there a second later is ended.
    Stop,
    /// Read the settings again: HUP.
    Reload,
    /// Open the log file again: USR1.
    ReopenLogs,
    /// Take no new connections: USR2.
    LameDuck,
    /// Write the counters to the log: QUIT.
    Dump,
}

/// How long a process has to end by itself after the second request.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// The code of a process that had to be ended.
const STOPPED: i32 = 1;

/// Signals that are caught. Those that arrive before [`Signals::deliver_to`] wait for it.
#[derive(Debug)]
pub struct Signals {
    source: source::Source,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { source: source::Source::new()? })
    }

    /// Gives each request to `deliver`, on a thread of its own.
    ///
    /// # Errors
    /// The system's, for want of a thread.
    pub fn deliver_to(
        mut self,
        mut deliver: impl FnMut(Control) + Send + 'static,
    ) -> io::Result<()> {
        let run = move || {
            let mut draining = false;
            self.source.each(|control| {
                let control =
                    if draining && control == Control::Drain { Control::Stop } else { control };
                draining |= control == Control::Drain;
                deliver(control);
                if control == Control::Stop {
                    thread::sleep(STOP_PATIENCE);
                    std::process::exit(STOPPED);
                }
            });
        };
        // A reload reads and parses a file on it.
        thread::Builder::new().name("signals".to_owned()).stack_size(512 << 10).spawn(run)?;
        Ok(())
    }
}

#[cfg(all(unix, not(wardline_portable)))]
mod source {
    use std::io;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

    use super::Control;

    #[derive(Debug)]
    pub(super) struct Source(signal_hook::iterator::Signals);

    impl Source {
        pub(super) fn new() -> io::Result<Self> {
            let all = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT];
            signal_hook::iterator::Signals::new(all).map(Self)
        }

        pub(super) fn each(&mut self, mut take: impl FnMut(Control)) {
            for signal in self.0.forever() {
                take(match signal {
                    SIGTERM | SIGINT => Control::Drain,
                    SIGHUP => Control::Reload,
                    SIGUSR1 => Control::ReopenLogs,
                    SIGUSR2 => Control::LameDuck,
                    SIGQUIT => Control::Dump,
                    _ => continue,
                });
            }
        }
    }
}

#[cfg(not(all(unix, not(wardline_portable))))]
mod source {
    use std::io;
    use std::sync::mpsc::{Receiver, channel};

    use super::Control;

    #[derive(Debug)]
    pub(super) struct Source(Receiver<()>);

    impl Source {
        pub(super) fn new() -> io::Result<Self> {
            let (tell, told) = channel();
            ctrlc::set_handler(move || {
                // The process is at its end where nobody listens any more.
                let _ = tell.send(());
            })
            .map_err(io::Error::other)?;
            Ok(Self(told))
        }

        pub(super) fn each(&mut self, mut take: impl FnMut(Control)) {
            while self.0.recv().is_ok() {
                take(Control::Drain);
            }
        }
    }
}

#[cfg(all(test, unix, not(wardline_portable)))]
mod tests {
    use std::sync::mpsc;

    use signal_hook::consts::{SIGHUP, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    use signal_hook::low_level::raise;

    use super::*;

    #[test]
    fn each_signal_is_a_request_and_early_ones_wait() {
        let signals = Signals::catch().unwrap();
        raise(SIGUSR1).unwrap();
        let (tell, told) = mpsc::channel();
        signals.deliver_to(move |control| tell.send(control).unwrap()).unwrap();
        let next = || told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(next(), Control::ReopenLogs);
        let cases = [
            (SIGHUP, Control::Reload),
            (SIGUSR2, Control::LameDuck),
            (SIGQUIT, Control::Dump),
            (SIGTERM, Control::Drain),
        ];
        for (signal, control) in cases {
            raise(signal).unwrap();
            assert_eq!(next(), control);
        }
    }
}
