//! What this kernel, container and seccomp profile allow.
//!
//! Each question makes a ring of a few entries, tries what the engine will need, and closes it:
//! some dozen system calls, and nothing stays. What is tried is what is used, so that a filter
//! that forbids a part is found before a listener is opened.

use std::fmt;
use std::fs;
use std::io;

use io_uring::{Builder, IoUring, Probe, opcode};

use crate::sys::trial;

/// Entries of a ring that is only asked.
const ENTRIES: u32 = 4;

/// Why an engine cannot run here, in a sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// An operation that an engine needs.
pub(crate) type Operation = (u8, &'static str);

/// Of the tokio-uring engine, and of the control thread of both.
const OF_TOKIO_URING: [Operation; 8] = [
    (opcode::Nop::CODE, "nop"),
    (opcode::PollAdd::CODE, "poll"),
    (opcode::Recv::CODE, "receive"),
    (opcode::Send::CODE, "send"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::AsyncCancel::CODE, "cancel"),
    (opcode::OpenAt::CODE, "open"),
    (opcode::Read::CODE, "read"),
];

/// Of the ring engine: these and no others.
pub(crate) const OF_RING: [Operation; 5] = [
    (opcode::PollAdd::CODE, "poll"),
    (opcode::Recv::CODE, "receive"),
    (opcode::Send::CODE, "send"),
    (opcode::SendMsg::CODE, "sendmsg"),
    (opcode::AsyncCancel::CODE, "cancel"),
];

/// Whether the tokio-uring engine can run.
///
/// # Errors
/// Why not.
pub fn tokio_uring() -> Result<(), Unfit> {
    let mut ring = made(IoUring::builder().dontfork().build(ENTRIES))?;
    let params = ring.params();
    if !params.is_feature_nodrop()
        || !params.is_feature_submit_stable()
        || !params.is_feature_fast_poll()
    {
        return Err(too_old("rings that lose nothing and wait by themselves", "5.11"));
    }
    operations(&ring, &OF_TOKIO_URING, "5.11")?;
    used(&mut ring)
}

/// Whether the ring engine can run.
///
/// # Errors
/// Why not.
pub fn ring() -> Result<(), Unfit> {
    let mut ring = match ring_builder().build(ENTRIES) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            // Either a flag that it does not know, or it cannot be had at all.
            made(IoUring::builder().dontfork().build(ENTRIES))?;
            return Err(too_old("rings whose work waits for their own thread", "6.1"));
        }
        other => made(other)?,
    };
    let params = ring.params();
    if !params.is_feature_nodrop()
        || !params.is_feature_ext_arg()
        || !params.is_feature_submit_stable()
        || !params.is_feature_skip_cqe_on_success()
    {
        return Err(too_old("rings that lose nothing and can wait for a time", "6.1"));
    }
    operations(&ring, &OF_RING, "6.1")?;
    // Receives that go on (multishot) came after these rings, and before the flags above.
    trial::buffer_ring(&ring).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => too_old("rings of buffers", "5.19"),
        _ => refused("a ring of buffers", &error),
    })?;
    used(&mut ring)
}

/// With the flags that the ring engine cannot do without.
fn ring_builder() -> Builder {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_single_issuer().setup_defer_taskrun().setup_submit_all();
    builder
}

fn operations(ring: &IoUring, needed: &[Operation], since: &str) -> Result<(), Unfit> {
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| refused("io_uring_register", &error))?;
    match needed.iter().find(|(code, _)| !probe.is_supported(*code)) {
        Some((_, name)) => Err(too_old(&format!("the operation {name:?} of io_uring"), since)),
        None => Ok(()),
    }
}

fn used(ring: &mut IoUring) -> Result<(), Unfit> {
    trial::enter(ring).map_err(|error| refused("io_uring_enter", &error))
}

fn made(ring: io::Result<IoUring>) -> Result<IoUring, Unfit> {
    ring.map_err(|error| {
        let errno = rustix::io::Errno::from_io_error(&error);
        Unfit(match errno {
            Some(rustix::io::Errno::NOSYS) => {
                "this kernel has no io_uring, or a filter of system calls hides it".to_owned()
            }
            Some(rustix::io::Errno::PERM) => forbidden(disabled().as_deref()),
            Some(rustix::io::Errno::ACCESS) => {
                "io_uring is forbidden by a filter or a security module (EACCES)".to_owned()
            }
            Some(rustix::io::Errno::NOMEM) => {
                "no memory for a ring: the memory of the control group, or on kernels before 5.12 \
                 what may be locked (ulimit -l), is used up (ENOMEM)"
                    .to_owned()
            }
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                format!("no descriptor for a ring: {error}")
            }
            Some(_) | None => format!("io_uring cannot be set up: {error}"),
        })
    })
}

/// Who it is that forbids, as far as can be told: `disabled` is the kernel's own switch.
fn forbidden(disabled: Option<&str>) -> String {
    match disabled {
        Some(value @ ("1" | "2")) => {
            format!("io_uring is forbidden by kernel.io_uring_disabled = {value} (EPERM)")
        }
        Some(_) | None => {
            "io_uring is forbidden by a seccomp profile, as containers have one (EPERM)".to_owned()
        }
    }
}

/// `kernel.io_uring_disabled`, on kernels that have it.
fn disabled() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    Some(text.trim().to_owned())
}

fn refused(what: &str, error: &io::Error) -> Unfit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Unfit(format!("{what} is forbidden, by a seccomp profile or a security module"))
        }
        _ => Unfit(format!("{what} fails: {error}")),
    }
}

fn too_old(what: &str, since: &str) -> Unfit {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    Unfit(format!("this kernel ({release}) lacks {what}; Linux {since} has it"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Whether this machine lets anybody have a ring.
    fn allowed() -> bool {
        IoUring::new(1).is_ok()
    }

    #[test]
    fn a_question_is_answered_quickly_and_leaves_nothing_behind() {
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        // Other tests of this process open files, too: they are fewer than the questions.
        let before = descriptors();
        let mut quickest = Duration::MAX;
        for _ in 0..200 {
            let begun = Instant::now();
            assert_eq!(tokio_uring().is_ok(), allowed(), "{:?}", tokio_uring());
            if let Err(why) = ring() {
                assert!(!why.to_string().is_empty());
            }
            quickest = quickest.min(begun.elapsed());
        }
        assert!(quickest.as_millis() < 50, "{quickest:?}");
        assert!(descriptors() < before + 150);
    }

    #[test]
    fn refusals_are_told_apart() {
        let said = |errno: rustix::io::Errno| made(Err(errno.into())).err().unwrap().to_string();
        assert!(said(rustix::io::Errno::NOSYS).contains("no io_uring"));
        assert!(said(rustix::io::Errno::PERM).contains("EPERM"));
        assert!(said(rustix::io::Errno::ACCESS).contains("security module"));
        assert!(said(rustix::io::Errno::NOMEM).contains("ulimit -l"));
        assert!(said(rustix::io::Errno::MFILE).contains("descriptor"));
        assert!(forbidden(Some("2")).contains("io_uring_disabled = 2"));
        assert!(forbidden(Some("0")).contains("seccomp"));
        assert!(forbidden(None).contains("seccomp"));
    }

    #[test]
    fn an_operation_that_a_kernel_lacks_is_named() {
        let Ok(ring) = IoUring::new(1) else { return };
        let unknown = operations(&ring, &[(250, "nonsense")], "9.9");
        let unknown = unknown.unwrap_err().to_string();
        assert!(unknown.contains("\"nonsense\"") && unknown.contains("9.9"), "{unknown}");
    }
}
