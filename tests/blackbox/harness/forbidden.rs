//! Processes that may not do everything: without io_uring, as containers have it, or with a thread
//! that comes to grief where others do not.

use std::io;
use std::process::{Child, Command};
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

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

/// Starts it where a ring works until a thread hands it so much at once that it does not wait for
/// the end of its turn: then its ring fails, and nobody else's does.
pub(crate) fn enter_of_many_eperm(command: &mut Command) -> io::Result<Child> {
    const MANY: u64 = 64;
    let many = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, MANY);
    let rule = SeccompRule::new(vec![many.expect("an argument")]).expect("a condition");
    let fails = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    spawn_with(command, libc::SYS_io_uring_enter, vec![rule], fails)
}

/// Starts it where a thread is no more, without a word, once it ends the stream to somebody.
pub(crate) fn shutdown_kills_thread(command: &mut Command) -> io::Result<Child> {
    spawn_with(command, libc::SYS_shutdown, Vec::new(), SeccompAction::KillThread)
}

/// Starts it where the system call `call` fails with `errno`.
fn spawn(command: &mut Command, call: libc::c_long, errno: i32) -> io::Result<Child> {
    spawn_with(command, call, Vec::new(), SeccompAction::Errno(errno.unsigned_abs()))
}

/// Starts it where the system call `call`, if one of the rules is met or there are none, comes to
/// `action`. A filter holds for one thread and all that it starts: so it is a thread of its own
/// that starts the process.
fn spawn_with(
    command: &mut Command,
    call: libc::c_long,
    rules: Vec<SeccompRule>,
    action: SeccompAction,
) -> io::Result<Child> {
    let rules = [(call, rules)].into_iter().collect();
    let target = std::env::consts::ARCH.try_into().expect("a known processor");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, target);
    let filter = filter.and_then(BpfProgram::try_from).expect("a filter of one call");
    let start = || {
        seccompiler::apply_filter(&filter).expect("a thread may give up what it can do");
        command.spawn()
    };
    thread::scope(|scope| scope.spawn(start).join().expect("it was started or not"))
}
