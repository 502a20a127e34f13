//! Processes that may not use io_uring, as containers have it.

use std::io;
use std::process::{Child, Command};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Starts it where making a ring is not permitted: what Docker's own profile does.
pub(crate) fn setup_eperm(command: &mut Command) -> io::Result<Child> {
    spawn(command, libc::SYS_io_uring_setup, libc::EPERM)
}

/// Starts it where there seems to be no io_uring at all.
pub(crate) fn setup_enosys(command: &mut Command) -> io::Result<Child> {
    spawn(command, libc::SYS_io_uring_setup, libc::ENOSYS)
}

/// Starts it where a ring can be made, and nothing be asked of it.
pub(crate) fn enter_eperm(command: &mut Command) -> io::Result<Child> {
    spawn(command, libc::SYS_io_uring_enter, libc::EPERM)
}

/// Starts it where a ring can be made, and nothing be known of it.
pub(crate) fn register_eacces(command: &mut Command) -> io::Result<Child> {
    spawn(command, libc::SYS_io_uring_register, libc::EACCES)
}

/// Starts it where the system call `call` fails with `errno`. A filter holds for one thread and all
/// that it starts: so it is a thread of its own that starts the process.
fn spawn(command: &mut Command, call: libc::c_long, errno: i32) -> io::Result<Child> {
    let filter = filter(call, errno);
    let start = || {
        seccompiler::apply_filter(&filter).expect("a thread may give up what it can do");
        command.spawn()
    };
    thread::scope(|scope| scope.spawn(start).join().expect("it was started or not"))
}

fn filter(call: libc::c_long, errno: i32) -> BpfProgram {
    let rules = [(call, Vec::new())].into_iter().collect();
    let fails = SeccompAction::Errno(errno.unsigned_abs());
    let target = std::env::consts::ARCH.try_into().expect("a known processor");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, fails, target);
    filter.and_then(BpfProgram::try_from).expect("a filter of one rule")
}
