//! The operations.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring_of_tokio::{cqueue, opcode, squeue, types};
use tokio_uring::buf::IoBuf;
use tokio_uring::{InFlightOneshot, OneshotOutputTransform, UnsubmittedOneshot};
use wardline_core::Gather;

use super::log_range::{LogRange, Message};
use crate::sys::RawPool;

/// A file that is open as long as an operation on it is under way.
pub(crate) type Fd = Rc<OwnedFd>;

/// How a submission becomes an answer, and what it needs until then.
pub(crate) trait Operation: Unpin + 'static {
    /// What its end brings.
    type End;
    /// Its end: what the kernel said, and what it was lent.
    fn end(self, said: io::Result<u32>) -> Self::End;
}

/// An operation that was submitted.
pub(crate) struct Submitted<O: Operation>(InFlightOneshot<O, Ending<O>>);

/// Hands what tokio-uring kept to the operation.
pub(crate) struct Ending<O>(std::marker::PhantomData<O>);

impl<O> Unpin for Ending<O> {}

impl<O: Operation> OneshotOutputTransform for Ending<O> {
    type Output = O::End;
    type StoredData = O;

    fn transform_oneshot_output(self, data: O, said: cqueue::Entry) -> O::End {
        let result = said.result();
        let said = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        data.end(said)
    }
}

impl<O: Operation> Submitted<O> {
    /// Whether it has ended; else `context` is woken when it does.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<O::End> {
        Future::poll(Pin::new(&mut self.0), context)
    }

    /// # Safety
    /// Whatever `entry` points to must stay what it is until the operation has ended, and `keep`
    /// be what sees to that. Must be called inside of a tokio-uring runtime.
    unsafe fn new(keep: O, entry: squeue::Entry) -> Self {
        let ending = Ending(std::marker::PhantomData);
        Self(UnsubmittedOneshot::new(keep, ending, entry).submit())
    }
}

impl<O: Operation> fmt::Debug for Submitted<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submitted")
    }
}

/// Bytes to come.
pub(crate) type Receive = Submitted<Receiving>;

/// What a receive needs.
#[derive(Debug)]
pub(crate) struct Receiving {
    buffer: Vec<u8>,
    _fd: Fd,
}

impl Operation for Receiving {
    type End = (io::Result<usize>, Vec<u8>);

    fn end(mut self, said: io::Result<u32>) -> Self::End {
        let said = said.map(|len| len as usize);
        if let Ok(len) = said {
            assert!(len <= self.buffer.capacity(), "more was received than was asked for");
            // SAFETY: the kernel has written so many bytes from the buffer's begin on, and was
            // not allowed more than the capacity.
            unsafe { self.buffer.set_len(len) };
        }
        (said, self.buffer)
    }
}

/// Waits for bytes, and has them written to `buffer`, as many as it has room for.
pub(crate) fn receive(fd: &Fd, mut buffer: Vec<u8>) -> Receive {
    buffer.clear();
    let room = u32::try_from(buffer.capacity()).unwrap_or(u32::MAX);
    let entry = opcode::Recv::new(types::Fd(fd.as_raw_fd()), buffer.as_mut_ptr(), room).build();
    // SAFETY: the buffer's memory is the vector's, which is kept, not touched and not grown until
    // the end; so is the descriptor.
    unsafe { Submitted::new(Receiving { buffer, _fd: Rc::clone(fd) }, entry) }
}

/// Bytes that go.
pub(crate) type Send = Submitted<Sending>;

/// What a send needs.
#[derive(Debug)]
pub(crate) struct Sending {
    message: Option<Message>,
    _range: Option<LogRange>,
    _fd: Fd,
}

impl Operation for Sending {
    type End = (io::Result<usize>, Option<Message>);

    fn end(self, said: io::Result<u32>) -> Self::End {
        (said.map(|len| len as usize), self.message)
    }
}

/// Sends what `gather` names, out of `pool`, as much as the socket takes at once: it ends when it
/// is submitted, and a full socket is `WouldBlock`. `message` is for several ranges, and comes
/// back.
pub(crate) fn send(
    fd: &Fd,
    gather: &Gather,
    pool: &RawPool<'_>,
    message: impl FnOnce() -> Message,
) -> Send {
    // With MSG_DONTWAIT the kernel waits for nothing on behalf of this operation.
    const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let socket = types::Fd(fd.as_raw_fd());
    if let [range] = gather.ranges() {
        let range = LogRange::new(pool, *range);
        let len = u32::try_from(range.bytes_init()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(socket, range.stable_ptr(), len).flags(FLAGS).build();
        let keep = Sending { message: None, _range: Some(range), _fd: Rc::clone(fd) };
        // SAFETY: the range stays as it is until the end (see `LogRange`); the descriptor is kept.
        return unsafe { Submitted::new(keep, entry) };
    }
    let mut message = message();
    let header = message.fill(gather, pool);
    let entry = opcode::SendMsg::new(socket, header).flags(FLAGS as u32).build();
    let keep = Sending { message: Some(message), _range: None, _fd: Rc::clone(fd) };
    // SAFETY: header and list are the message's, which is kept and not touched until the end; the
    // ranges that they name stay as they are (see `LogRange`); the descriptor is kept.
    unsafe { Submitted::new(keep, entry) }
}

/// One look at a file's readiness.
pub(crate) type PollOne = Submitted<Polling>;

/// What a poll needs.
#[derive(Debug)]
pub(crate) struct Polling {
    _fd: Fd,
}

impl Operation for Polling {
    type End = io::Result<()>;

    fn end(self, said: io::Result<u32>) -> Self::End {
        said.map(drop)
    }
}

/// Ends when the socket can take more, or cannot be used any more.
pub(crate) fn poll_writable(fd: &Fd) -> PollOne {
    let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), libc::POLLOUT as u32).build();
    // SAFETY: the entry points to nothing; the descriptor is kept.
    unsafe { Submitted::new(Polling { _fd: Rc::clone(fd) }, entry) }
}

/// Nothing: it ends after all that was submitted before it and does not wait.
pub(crate) type Nop = Submitted<Nothing>;

/// What nothing needs.
#[derive(Debug)]
pub(crate) struct Nothing;

impl Operation for Nothing {
    type End = ();

    fn end(self, _: io::Result<u32>) {}
}

/// Submits nothing.
pub(crate) fn nop() -> Nop {
    // SAFETY: the entry points to nothing.
    unsafe { Submitted::new(Nothing, opcode::Nop::new().build()) }
}
