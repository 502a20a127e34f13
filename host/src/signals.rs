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

/// Stack of a thread that delivers requests: a reload reads and parses a file on it.
pub const STACK_BYTES: usize = 512 << 10;

/// Signals that are caught. Those that arrive before anybody asks for them wait.
#[derive(Debug)]
pub struct Signals {
    source: source::Source,
    draining: bool,
}

impl Signals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// The system's.
    pub fn catch() -> io::Result<Self> {
        Ok(Self { source: source::Source::new()?, draining: false })
    }

    /// Gives each request to `deliver`, on a thread of its own.
    ///
    /// # Errors
    /// The system's, for want of a thread.
    pub fn deliver_to(self, deliver: impl FnMut(Control) + Send + 'static) -> io::Result<()> {
        let run = move || self.run(deliver);
        thread::Builder::new().name("signals".to_owned()).stack_size(STACK_BYTES).spawn(run)?;
        Ok(())
    }

    /// The same, on this thread; it ends only where no signal can come any more.
    pub fn run(mut self, mut deliver: impl FnMut(Control)) {
        while self.source.wait() {
            for control in self.requests() {
                deliver(control);
                control.end_if_stopped();
            }
        }
    }

    /// What was asked for since the last time.
    pub fn requests(&mut self) -> Vec<Control> {
        let mut requests = self.source.take();
        for control in &mut requests {
            if self.draining && *control == Control::Drain {
                *control = Control::Stop;
            }
            self.draining |= *control == Control::Drain;
        }
        requests
    }

    /// A stream of which a byte can be read when there are new [`Signals::requests`]: for a thread
    /// that waits in a way of its own.
    ///
    /// # Errors
    /// The system's.
    #[cfg(all(unix, not(wardline_portable)))]
    pub fn woken_by(&self) -> io::Result<std::os::unix::net::UnixStream> {
        self.source.woken_by()
    }
}

impl Control {
    /// After a request to stop was delivered: gives the process some time to end by itself, and
    /// ends it.
    pub fn end_if_stopped(self) {
        if self == Self::Stop {
            thread::sleep(STOP_PATIENCE);
            std::process::exit(STOPPED);
        }
    }
}

#[cfg(all(unix, not(wardline_portable)))]
mod source {
    use std::io::{self, Read};
    use std::os::unix::net::UnixStream;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    use signal_hook::iterator::backend::SignalDelivery;
    use signal_hook::iterator::exfiltrator::SignalOnly;

    use super::Control;

    #[derive(Debug)]
    pub(super) struct Source(SignalDelivery<UnixStream, SignalOnly>);

    impl Source {
        pub(super) fn new() -> io::Result<Self> {
            let all = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT];
            let (read, write) = UnixStream::pair()?;
            SignalDelivery::with_pipe(read, write, SignalOnly, all).map(Self)
        }

        /// Waits for a signal; gives whether there can be one.
        pub(super) fn wait(&mut self) -> bool {
            let read = self.0.get_read_mut().read(&mut [0]);
            read.is_ok() || read.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted)
        }

        pub(super) fn take(&mut self) -> Vec<Control> {
            let control = |signal| match signal {
                SIGTERM | SIGINT => Some(Control::Drain),
                SIGHUP => Some(Control::Reload),
                SIGUSR1 => Some(Control::ReopenLogs),
                SIGUSR2 => Some(Control::LameDuck),
                SIGQUIT => Some(Control::Dump),
                _ => None,
            };
            self.0.pending().filter_map(control).collect()
        }

        pub(super) fn woken_by(&self) -> io::Result<UnixStream> {
            self.0.get_read().try_clone()
        }
    }
}

#[cfg(not(all(unix, not(wardline_portable))))]
mod source {
    use std::io;
    use std::sync::mpsc::{Receiver, channel};

    use super::Control;

    #[derive(Debug)]
    pub(super) struct Source {
        told: Receiver<()>,
        waiting: usize,
    }

    impl Source {
        pub(super) fn new() -> io::Result<Self> {
            let (tell, told) = channel();
            ctrlc::set_handler(move || {
                // The process is at its end where nobody listens any more.
                let _ = tell.send(());
            })
            .map_err(io::Error::other)?;
            Ok(Self { told, waiting: 0 })
        }

        /// Waits for a request; gives whether there can be one.
        pub(super) fn wait(&mut self) -> bool {
            let told = self.told.recv().is_ok();
            self.waiting += usize::from(told);
            told
        }

        pub(super) fn take(&mut self) -> Vec<Control> {
            vec![Control::Drain; std::mem::take(&mut self.waiting)]
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
        assert!(signals.woken_by().is_ok());
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
