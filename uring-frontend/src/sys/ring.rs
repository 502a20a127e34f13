//! One io_uring: what is asked of it, and what it answers.
//!
//! # What the kernel is lent
//! - **Ranges of the pool**, to send from. `'p` outlives the ring, the core leaves those bytes
//!   alone until the send has ended (see [`RawPool`]), and the kernel only reads them.
//! - **Buffers**, to receive into. They are the ring's own, and dropped after it ([`Buffers`]).
//! - **Headers** of gathered sends, which it copies when it takes the submission ([`Messages`]).
//!
//! Nothing of this is freed before the last completion has come; where that does not come, it is
//! never freed (see the ring's `drop`).

use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter};
use io_uring::{cqueue, opcode, squeue};
use rustix::io::Errno;
use wardline_core::{ConnId, Range};

use super::buffers::Buffers;
use super::messages::Messages;
use super::pool::RawPool;
use super::tag::{Kind, Tag};

/// Places in the submission queue: 8 KiB, which stay in the nearest cache.
const SUBMISSIONS: u32 = 128;
/// Submissions that are handed to the kernel together at the latest. What an enter costs is
/// spread over them; more would only let them wait.
const BATCH: usize = 64;
/// Places in the completion queue, at least and at most. A completion more is not lost, but slow.
const COMPLETIONS: (u32, u32) = (1 << 10, 1 << 14);
/// Small buffers, for what is received again and again.
const SMALL: u16 = 256;
/// What one of those connections may bring before we are asked: the kernel receives at most 32
/// times for one wake-up.
const SMALL_PER_WAKE: u32 = 32;
/// Large buffers, for who brings much at once.
const LARGE: u16 = 8;
/// See [`Ring::send`].
const SEND_FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
/// Calls on end in which the kernel may take nothing of what it is handed, for want of memory; and
/// after how many of them, and for how long, we wait before the next one. A second in all.
const TRIES: u32 = 1_000;
const TRIES_AT_ONCE: u32 = 20;
const TRY_PAUSE: Duration = Duration::from_millis(1);
/// How long operations may take to end once they are cancelled.
const DRAIN: Duration = Duration::from_secs(2);

/// How to enter the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not waiting for anything.
    No,
    /// Until something completes.
    Some,
    /// Until something completes, or so long.
    AtMost(Duration),
}

/// An answer of the kernel. It is no copy of anything, so a buffer that it names is given back at
/// most once.
#[derive(Debug)]
pub(crate) struct Completion {
    tag: Tag,
    /// What the operation gave.
    pub(crate) result: Result<usize, Errno>,
    /// More completions of the same operation will come.
    pub(crate) more: bool,
    buffer: Option<u16>,
}

impl Completion {
    /// What it is of.
    pub(crate) const fn tag(&self) -> Tag {
        self.tag
    }
}

/// A ring. It belongs to the thread that made it (`NonNull` is not `Send`).
pub(crate) struct Ring<'p> {
    // Borrowed from `ring`, and dropped before it.
    submitter: ManuallyDrop<Submitter<'static>>,
    submissions: ManuallyDrop<SubmissionQueue<'static>>,
    completions: ManuallyDrop<CompletionQueue<'static>>,
    ring: NonNull<IoUring>,
    messages: ManuallyDrop<Messages>,
    small: ManuallyDrop<Buffers>,
    large: ManuallyDrop<Buffers>,
    /// Operations whose last completion has not come.
    under_way: u64,
    /// Calls on end in which the kernel took nothing of what it was handed.
    refused: u32,
    /// Why the ring cannot be used any more.
    broken: Option<io::Error>,
    lent: PhantomData<&'p ()>,
}

impl std::fmt::Debug for Ring<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

impl<'p> Ring<'p> {
    /// A ring for so many connections, of which one receive may bring `receive_bytes`.
    ///
    /// # Errors
    /// The system's, where it has no io_uring, forbids it, or has one that is too old.
    pub(crate) fn new(connections: u32, receive_bytes: u32) -> io::Result<Self> {
        Self::of(build(connections)?, receive_bytes)
    }

    fn of(ring: IoUring, receive_bytes: u32) -> io::Result<Self> {
        let mut small = Buffers::new(0, 0, SMALL, small_bytes(receive_bytes));
        let mut large = Buffers::new(1, SMALL, LARGE, receive_bytes);
        let ring = Box::new(ring);
        for buffers in [&mut small, &mut large] {
            // SAFETY: the entries live until `drop` has unregistered them, or for ever.
            unsafe {
                ring.submitter().register_buf_ring_with_flags(
                    buffers.address(),
                    buffers.count(),
                    buffers.group(),
                    0,
                )?;
            }
            buffers.give_all();
        }
        let ring = NonNull::from(Box::leak(ring));
        // SAFETY: the ring is on the heap, owned through this pointer alone, and freed by `drop`
        // after the three that borrow it here are gone.
        let (mut submitter, submissions, completions) = unsafe { (*ring.as_ptr()).split() };
        // Saves a look-up at each call; it works without.
        let _ = submitter.register_ring_fd();
        let messages = Messages::new(submissions.capacity());
        Ok(Self {
            submitter: ManuallyDrop::new(submitter),
            submissions: ManuallyDrop::new(submissions),
            completions: ManuallyDrop::new(completions),
            ring,
            messages: ManuallyDrop::new(messages),
            small: ManuallyDrop::new(small),
            large: ManuallyDrop::new(large),
            under_way: 0,
            refused: 0,
            broken: None,
            lent: PhantomData,
        })
    }

    /// The memory of such a ring: small buffers, large ones, and all else; each as how many, and
    /// how many bytes one has.
    pub(crate) fn memory(connections: u32, receive_bytes: u32) -> [(u64, u64); 3] {
        // 64 bytes and a header of a gathered send for a submission, 16 for a completion.
        let submissions = u64::from(SUBMISSIONS) * (64 + Messages::EACH);
        let queues = submissions + u64::from(completions(connections)) * 16;
        [
            (SMALL.into(), small_bytes(receive_bytes).into()),
            (LARGE.into(), receive_bytes.into()),
            (1, queues),
        ]
    }

    /// Bytes of a small buffer: what fills one may be more than one.
    pub(crate) fn small_bytes(&self) -> usize {
        self.small.size() as usize
    }

    /// How many small buffers there are, and large ones.
    pub(crate) fn buffers(&self) -> (u16, u16) {
        (self.small.count(), self.large.count())
    }

    /// Says again and again when `fd` can be read. It must stay open until the last completion.
    pub(crate) fn watch(&mut self, fd: BorrowedFd<'_>, number: u32) {
        let entry = opcode::PollAdd::new(Fd(fd.as_raw_fd()), libc::POLLIN as u32).multi(true);
        // SAFETY: it names no memory.
        unsafe { self.stage(&entry.build(), Tag::of_number(Kind::Watch, number)) }
    }

    /// Receives again and again, into small buffers. The socket must stay open until the last
    /// completion, here and below.
    pub(crate) fn receive_stream(&mut self, socket: BorrowedFd<'_>, conn: ConnId) {
        let entry = opcode::RecvMulti::new(Fd(socket.as_raw_fd()), self.small.group());
        // SAFETY: it names no memory but the group's, which outlives it.
        unsafe { self.stage(&entry.build(), Tag::of_conn(Kind::Stream, conn)) }
    }

    /// Receives once, at most `len` bytes, into a buffer that is as small as can be.
    pub(crate) fn receive_once(&mut self, socket: BorrowedFd<'_>, conn: ConnId, len: usize) {
        let buffers = if len <= self.small_bytes() { &self.small } else { &self.large };
        let len = u32::try_from(len).unwrap_or(u32::MAX).min(buffers.size());
        let entry = opcode::Recv::new(Fd(socket.as_raw_fd()), std::ptr::null_mut(), len)
            .buf_group(buffers.group())
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        // SAFETY: it names no memory but the group's, which outlives it.
        unsafe { self.stage(&entry, Tag::of_conn(Kind::Once, conn)) }
    }

    /// Sends those ranges of the pool, as much of them as the socket takes. It does not wait for a
    /// socket that is full (`MSG_DONTWAIT`): so nothing of the pool is pinned for a slow reader,
    /// and what it gets in the end is what is to be said then.
    ///
    /// It is over once the submission was taken ([`Ring::is_taken`]), for the kernel has nothing
    /// to put it off for. Only one that took less than it was given completes (`MSG_WAITALL` makes
    /// that a failure, and `IOSQE_CQE_SKIP_SUCCESS` leaves the others unsaid).
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        conn: ConnId,
        pool: &RawPool<'p>,
        ranges: &[Range],
    ) {
        let fd = Fd(socket.as_raw_fd());
        let entry = match ranges {
            [range] => {
                opcode::Send::new(fd, pool.address(*range), range.len).flags(SEND_FLAGS).build()
            }
            _ => {
                while self.messages.is_full() {
                    if self.broken.is_some() {
                        return;
                    }
                    self.flush();
                }
                opcode::SendMsg::new(fd, self.messages.put(pool, ranges))
                    .flags(SEND_FLAGS as u32)
                    .build()
            }
        };
        let entry = entry.flags(squeue::Flags::SKIP_SUCCESS);
        // SAFETY: the ranges are of the pool (`address` checked it), whose memory is borrowed for
        // 'p, and the header stays as it is until the submission is taken; by then the send is
        // over.
        unsafe { self.stage(&entry, Tag::of_conn(Kind::Send, conn)) }
    }

    /// Says once when a socket that was full can take more.
    pub(crate) fn await_room(&mut self, socket: BorrowedFd<'_>, conn: ConnId) {
        let entry = opcode::PollAdd::new(Fd(socket.as_raw_fd()), libc::POLLOUT as u32);
        // SAFETY: it names no memory.
        unsafe { self.stage(&entry.build(), Tag::of_conn(Kind::Room, conn)) }
    }

    /// Whether every submission was taken and nothing that completed is yet to be handed over: so
    /// every send is over, and of none that fell short is it still to be heard. Only once the
    /// completions were looked at; where they were more than the queue holds, the kernel keeps the
    /// rest and hands it over when it is entered again.
    pub(crate) fn is_taken(&self) -> bool {
        self.submissions.is_empty() && !self.submissions.cq_overflow()
    }

    /// Cancels an operation of a connection, which completes all the same.
    pub(crate) fn cancel(&mut self, kind: Kind, conn: ConnId) {
        let entry = opcode::AsyncCancel::new(Tag::of_conn(kind, conn).0).build();
        // SAFETY: it names no memory.
        unsafe { self.stage(&entry, Tag::of_conn(Kind::Cancel, conn)) }
    }

    /// Puts a submission into the queue.
    ///
    /// # Safety
    /// What the entry names must stay until its last completion.
    unsafe fn stage(&mut self, entry: &squeue::Entry, tag: Tag) {
        let entry = entry.clone().user_data(tag.0);
        // It comes to an end: the kernel takes something, or the ring is broken.
        while self.broken.is_none() {
            // SAFETY: the caller's promise.
            if unsafe { self.submissions.push(&entry) }.is_ok() {
                self.under_way += u64::from(tag.kind() != Some(Kind::Send));
                if self.submissions.len() >= BATCH {
                    self.flush();
                }
                return;
            }
            self.flush();
        }
    }

    /// Hands the kernel what was staged. Nothing that waits is worked on meanwhile: what came in
    /// is for the next turn.
    fn flush(&mut self) {
        self.submissions.sync();
        let staged = self.submissions.len();
        if staged == 0 {
            return;
        }
        // SAFETY: no argument; the entries are valid, as `stage` was promised.
        let entered = unsafe { self.submitter.enter::<libc::sigset_t>(staged as u32, 0, 0, None) };
        self.entered(staged, entered);
    }

    /// Hands the kernel what was staged, has it work on what has come in, and waits.
    ///
    /// # Errors
    /// The ring cannot be used any more.
    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.submissions.sync();
        let handed = self.submissions.len();
        let staged = handed as u32;
        let flags = EnterFlags::GETEVENTS;
        // SAFETY: the argument, where there is one, is what the flag says, and lives until the
        // call is over; the entries are valid, as `stage` was promised.
        let entered = unsafe {
            match wait {
                Wait::No => self.submitter.enter::<libc::sigset_t>(staged, 0, flags.bits(), None),
                Wait::Some => self.submitter.enter::<libc::sigset_t>(staged, 1, flags.bits(), None),
                Wait::AtMost(span) => {
                    let span = Timespec::new().sec(span.as_secs()).nsec(span.subsec_nanos());
                    let args = SubmitArgs::new().timespec(&span);
                    let flags = flags | EnterFlags::EXT_ARG;
                    self.submitter.enter(staged, 1, flags.bits(), Some(&args))
                }
            }
        };
        self.entered(handed, entered);
        self.broken.take().map_or(Ok(()), Err)
    }

    fn entered(&mut self, handed: usize, entered: io::Result<usize>) {
        self.submissions.sync();
        if self.submissions.is_empty() {
            self.messages.clear();
        }
        if self.completions.overflow() > 0 {
            // It had no memory to keep one: nobody knows whose send fell short.
            self.broken.get_or_insert_with(|| io::Error::other("the kernel lost a completion"));
        }
        let error = entered.err();
        match error.as_ref().map(Errno::from_io_error) {
            // Nothing came in time; a signal; completions that first have to be taken; no memory
            // for now.
            None | Some(Some(Errno::TIME | Errno::INTR | Errno::BUSY | Errno::AGAIN)) => {}
            Some(_) => self.broken = error,
        }
        if handed == 0 || self.submissions.len() < handed {
            self.refused = 0;
        } else {
            self.bear();
        }
    }

    /// The kernel takes nothing for now: the next call is to come a little later, but not for ever.
    fn bear(&mut self) {
        self.refused = self.refused.saturating_add(1);
        if self.refused >= TRIES {
            let error = || io::Error::other("the kernel has taken no submissions for too long");
            self.broken.get_or_insert_with(error);
        } else if self.refused > TRIES_AT_ONCE {
            std::thread::sleep(TRY_PAUSE);
        } else {
            std::thread::yield_now();
        }
    }

    /// The next answer.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        let entry = self.completions.next().or_else(|| {
            self.completions.sync();
            self.completions.next()
        })?;
        let flags = entry.flags();
        let more = cqueue::more(flags);
        let tag = Tag(entry.user_data());
        if !more && tag.kind() != Some(Kind::Send) {
            self.under_way = self.under_way.saturating_sub(1);
        }
        let result = match entry.result() {
            bytes @ 0.. => Ok(bytes as usize),
            error => Err(Errno::from_raw_os_error(error.saturating_neg())),
        };
        let buffer = cqueue::buffer_select(flags);
        Some(Completion { tag, result, more, buffer })
    }

    /// Has `with` look at what was received, and gives the buffer back.
    #[allow(clippy::needless_pass_by_value, reason = "so that it comes once")]
    pub(crate) fn received(&mut self, completion: Completion, with: impl FnOnce(&[u8])) {
        let Some(buffer) = completion.buffer else { return };
        let len = completion.result.unwrap_or(0);
        let buffers = if self.small.holds(buffer) { &mut self.small } else { &mut self.large };
        buffers.receive(buffer, len, |bytes| {
            if !bytes.is_empty() {
                with(bytes);
            }
        });
    }

    /// Cancels everything and waits until all of it has ended. Gives whether it has.
    fn drain(&mut self) -> bool {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::any()).build();
        // SAFETY: it names no memory.
        unsafe { self.stage(&entry, Tag::of_number(Kind::Cancel, 0)) }
        let step = Duration::from_millis(10);
        for _ in 0..DRAIN.as_millis() / step.as_millis() {
            while self.next().is_some() {}
            if self.under_way == 0 {
                return true;
            }
            if self.enter(Wait::AtMost(step)).is_err() {
                return false;
            }
        }
        false
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        if !self.drain() {
            // The kernel may still write to the buffers: they are never freed.
            tracing::error!(under_way = self.under_way, "operations did not end; memory is kept");
            return;
        }
        for group in [self.small.group(), self.large.group()] {
            let _ = self.submitter.unregister_buf_ring(group);
        }
        // SAFETY: each is dropped once, here; the three that borrow the ring before it, and what
        // the kernel was lent after it. No operation is under way.
        unsafe {
            ManuallyDrop::drop(&mut self.submitter);
            ManuallyDrop::drop(&mut self.submissions);
            ManuallyDrop::drop(&mut self.completions);
            drop(Box::from_raw(self.ring.as_ptr()));
            ManuallyDrop::drop(&mut self.messages);
            ManuallyDrop::drop(&mut self.small);
            ManuallyDrop::drop(&mut self.large);
        }
    }
}

fn small_bytes(receive_bytes: u32) -> u32 {
    (receive_bytes / SMALL_PER_WAKE).clamp(1, 4 << 10)
}

fn completions(connections: u32) -> u32 {
    connections.next_power_of_two().clamp(COMPLETIONS.0, COMPLETIONS.1)
}

/// A ring with all that this kernel has of what we want.
fn build(connections: u32) -> io::Result<IoUring> {
    let mut last = None;
    // Work is done when we ask for it (6.1), or at least not by interrupting us (5.19).
    for (deferred, plain_queue) in [(true, true), (true, false), (false, false)] {
        let mut builder = IoUring::builder();
        builder.setup_cqsize(completions(connections)).setup_clamp().setup_submit_all();
        builder.setup_taskrun_flag().dontfork();
        if plain_queue {
            builder.setup_no_sqarray();
        }
        if deferred {
            builder.setup_single_issuer().setup_defer_taskrun();
        } else {
            builder.setup_coop_taskrun();
        }
        match builder.build(SUBMISSIONS) {
            Ok(ring) => return fit(ring),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(too_old))
}

fn fit(ring: IoUring) -> io::Result<IoUring> {
    let has = ring.params();
    let fits = has.is_feature_skip_cqe_on_success()
        && has.is_feature_nodrop()
        && has.is_feature_ext_arg()
        && has.is_feature_submit_stable();
    if fits { Ok(ring) } else { Err(too_old()) }
}

fn too_old() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is too old")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use io_uring::register::Restriction;
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    use wardline_core::Pool;

    use super::*;
    use crate::probe::OF_RING;

    /// A socket whose peer never reads, and that has room for nothing more; and that peer.
    fn full() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = listener.accept().unwrap().0;
        socket.set_nonblocking(true).unwrap();
        loop {
            while (&socket).write(&[0; 65_536]).is_ok() {}
            // What was still under way makes room once more.
            std::thread::sleep(Duration::from_millis(50));
            if (&socket).write(&[0]).is_err() {
                return (socket, peer);
            }
        }
    }

    /// A ring that may do what the probe asks for and nothing else.
    fn restricted() -> Ring<'static> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_submit_all().setup_r_disabled();
        let ring = builder.build(SUBMISSIONS).unwrap();
        let flags = squeue::Flags::BUFFER_SELECT | squeue::Flags::SKIP_SUCCESS;
        let mut allowed = vec![Restriction::sqe_flags_allowed(flags.bits())];
        allowed.extend(OF_RING.map(|(code, _)| Restriction::sqe_op(code)));
        // Groups of buffers and the ring's own descriptor, made and taken back.
        allowed.extend([20, 21, 22, 23].map(Restriction::register_op));
        ring.submitter().register_restrictions(&mut allowed).unwrap();
        ring.submitter().register_enable_rings().unwrap();
        Ring::of(ring, 65_536).unwrap()
    }

    #[test]
    fn what_the_probe_asks_for_is_all_that_is_used() {
        let mut memory = b"hello, and goodbye".to_vec();
        let (pool, mut ring) = (RawPool::new(&mut memory), restricted());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = listener.accept().unwrap().0;
        let conn = ConnId::from_bits(1);
        ring.watch(listener.as_fd(), 0);
        ring.receive_stream(peer.as_fd(), conn);
        ring.send(socket.as_fd(), conn, &pool, &[Range { at: 0, len: 5 }]);
        ring.send(socket.as_fd(), conn, &pool, &[0, 9].map(|at| Range { at, len: 4 }));
        ring.await_room(socket.as_fd(), conn);
        ring.receive_once(socket.as_fd(), conn, 100);
        ring.cancel(Kind::Once, conn);
        let mut ends = Vec::new();
        for _ in 0..50 {
            ring.enter(Wait::AtMost(Duration::from_millis(2))).unwrap();
            while let Some(completion) = ring.next() {
                ends.push((completion.tag().kind().unwrap(), completion.result));
                ring.received(completion, |_| ());
            }
        }
        let of = |kind: Kind| ends.iter().filter(move |end| end.0 == kind).map(|end| end.1);
        assert_eq!(of(Kind::Stream).map(|bytes| bytes.unwrap()).sum::<usize>(), 5 + 8);
        assert_eq!(of(Kind::Room).map(|events| events.is_ok()).collect::<Vec<_>>(), [true]);
        assert_eq!(of(Kind::Once).collect::<Vec<_>>(), [Err(Errno::CANCELED)]);
        assert_eq!(of(Kind::Cancel).collect::<Vec<_>>(), [Ok(0)]);
        assert_eq!(of(Kind::Send).count() + of(Kind::Watch).count(), 0, "{ends:?}");
        assert!(ring.drain(), "and what ends it");
    }

    /// Has each call that enters the kernel for a ring fail, from here on in this thread.
    fn enter_fails(errno: Errno) {
        let rules = [(libc::SYS_io_uring_enter, Vec::new())].into_iter().collect();
        let fails = SeccompAction::Errno(errno.raw_os_error().unsigned_abs());
        let target = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, fails, target).unwrap();
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    }

    /// Lets a ring be that cannot be taken apart: what the kernel was lent is never freed then.
    /// From here it can be reached, so that a tool which looks for lost memory finds none.
    fn keep(ring: Ring<'_>) {
        static KEPT: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
        KEPT.lock().unwrap().push(Box::into_raw(Box::new(ring)) as usize);
    }

    /// Runs it in a thread that a filter of system calls ends with.
    fn apart(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    #[test]
    fn a_kernel_that_takes_nothing_for_long_breaks_the_ring() {
        apart(|| {
            let mut memory = vec![7; 4_096];
            let pool = RawPool::new(&mut memory);
            let (mut ring, (socket, _peer)) = (Ring::new(64, 65_536).unwrap(), full());
            enter_fails(Errno::AGAIN);
            // More than there are headers, and places in the queue.
            for number in 0..3 * SUBMISSIONS {
                let conn = ConnId::from_bits(u64::from(number + 1));
                let ranges = [Range { at: 0, len: 4 }, Range { at: 8, len: 4 }];
                ring.send(socket.as_fd(), conn, &pool, &ranges);
            }
            let error = ring.enter(Wait::No).unwrap_err().to_string();
            assert!(error.contains("taken no submissions for too long"), "{error}");
            keep(ring);
        });
    }

    #[test]
    fn who_waits_for_the_kernel_to_take_something_does_not_wait_for_ever() {
        apart(|| {
            let (mut ring, (socket, _peer)) = (Ring::new(64, 65_536).unwrap(), full());
            ring.await_room(socket.as_fd(), ConnId::from_bits(1));
            enter_fails(Errno::AGAIN);
            let began = std::time::Instant::now();
            let mut tries = 0;
            while ring.enter(Wait::No).is_ok() {
                assert!(!ring.is_taken() && tries < TRIES, "no end after {tries} tries");
                tries += 1;
            }
            assert!(began.elapsed() > Duration::from_millis(500), "memory may be short for long");
            keep(ring);
        });
    }

    #[test]
    fn nothing_is_refused_where_nothing_was_handed_over() {
        apart(|| {
            let mut ring = Ring::new(64, 65_536).unwrap();
            enter_fails(Errno::AGAIN);
            assert!((0..2 * TRIES).all(|_| ring.enter(Wait::No).is_ok()));
            keep(ring);
        });
    }

    #[test]
    fn of_each_send_that_falls_short_is_heard_also_where_the_queue_overflows() {
        const SENDS: u32 = 5_000;
        let mut memory = vec![7; 4_096];
        let mut pool = RawPool::new(&mut memory);
        pool.write(Range { at: 0, len: 4 }).copy_from_slice(b"line");
        let mut ring = Ring::new(64, 65_536).unwrap();
        assert!(SENDS > 4 * COMPLETIONS.0, "more than the queue holds");
        let (socket, _peer) = full();
        for number in 0..SENDS {
            let conn = ConnId::from_bits(u64::from(number + 1));
            ring.send(socket.as_fd(), conn, &pool, &[Range { at: 0, len: 4 }]);
        }
        ring.enter(Wait::No).unwrap();
        let mut heard = vec![false; SENDS as usize];
        let mut looks = 0;
        loop {
            while let Some(completion) = ring.next() {
                assert_eq!(completion.result, Err(Errno::AGAIN));
                let known = &mut heard[completion.tag().index()];
                assert!(!std::mem::replace(known, true), "twice");
            }
            looks += 1;
            if ring.is_taken() {
                break;
            }
            ring.enter(Wait::No).unwrap();
        }
        assert!(looks > 1, "the queue did not overflow");
        let missing = heard.iter().filter(|heard| !**heard).count();
        assert_eq!(missing, 0, "sends that look as if they had been taken whole");
    }
}
