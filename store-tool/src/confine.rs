// SPDX-License-Identifier: GPL-2.0-or-later

//! Confinement: once the image is mounted, the daemon gives up all that it does not need to answer requests.
//!
//! It decodes bytes that a trusted signer vouches for at best. Should one of them make it do something else all the same, that process
//! has no capability, can open no file, execute no program and talk to nobody but the kernel's FUSE and the system's log.

use std::collections::BTreeMap;
use std::fmt::Display;

use landlock::{Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, Scope, ABI};
use rustix::thread::{set_capabilities, CapabilitySet, CapabilitySets};
use seccompiler::{
    apply_filter, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use tesserafs_image::Error;

use crate::{chain, say};

/// The newest version of Landlock whose rules are used; an older kernel applies those that it knows.
const LANDLOCK: ABI = ABI::V6;

/// System calls with any arguments.
const ALLOWED: [i64; 42] = [
    // Requests and answers, and the image.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_ppoll,
    // Memory.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    // Threads.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals: a thread has a stack of its own for them, and abort() sends one.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    // Time, and the seeds of hash tables.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    // The log, by the socket that is there: a log that is started again is connected to once more. There is no socket(2), as others that
    // listen at a path, such as systemd, D-Bus and container engines, obey a peer with user ID 0, whatever its capabilities. They have
    // streams, to which a datagram socket does not connect.
    libc::SYS_connect,
    libc::SYS_sendto,
    // The terminal is let go once the mount is there.
    libc::SYS_dup3,
];

/// Those that only old architectures have.
#[cfg(target_arch = "x86_64")]
const ALLOWED_TOO: [i64; 2] = [libc::SYS_dup2, libc::SYS_poll];
#[cfg(not(target_arch = "x86_64"))]
const ALLOWED_TOO: [i64; 0] = [];

/// Gives up what is not needed, for this thread and those that it starts. Nothing of it can be had back. Of a kernel that has no
/// Landlock or no filters the daemon is confined by the rest; the latter is said.
pub(crate) fn confine() -> Result<(), Error> {
    drop_capabilities().map_err(|error| refuse("capabilities", &error))?;
    restrict_files().map_err(|error| refuse("Landlock", &error))?;
    let filter = filter().map_err(|error| refuse("seccomp", &error))?;
    // The last, as it forbids the others' system calls.
    if let Err(error) = apply_filter(&filter) {
        say(&format!("this kernel filters no system calls of the daemon: {}", chain(&error)));
    }
    Ok(())
}

fn refuse(what: &str, error: &dyn Display) -> Error {
    Error::Refused(format!("cannot confine the daemon: {what}: {error}"))
}

fn drop_capabilities() -> rustix::io::Result<()> {
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}

/// With no rule that allows any, no file is opened, made, removed or executed, and no TCP port is used. Files that are open stay so.
fn restrict_files() -> Result<(), landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(())
}

/// Any other system call gives `EPERM`: the allocator and the library get along without those that they try.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.into_iter().chain(ALLOWED_TOO).map(|number| (number, Vec::new())).collect();
    let first = |value: i32| -> Result<SeccompRule, seccompiler::BackendError> {
        let value = u64::from(value.unsigned_abs());
        SeccompRule::new(vec![SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?])
    };
    // Names of threads.
    rules.insert(libc::SYS_prctl, vec![first(libc::PR_SET_NAME)?]);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let (others, these) = (SeccompAction::Errno(libc::EPERM.unsigned_abs()), SeccompAction::Allow);
    SeccompFilter::new(rules, others, these, arch)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: it cannot be undone.
    fn confined(work: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            confine().expect("a confined thread");
            work();
        });
        thread.join().expect("a thread");
    }

    #[test]
    fn the_log_can_be_connected_to_again_and_no_stream() {
        let folder = tempfile::tempdir().expect("a folder");
        let (log, service) = (folder.path().join("log"), folder.path().join("service"));
        let receiver = std::os::unix::net::UnixDatagram::bind(&log).expect("a socket");
        let listener = std::os::unix::net::UnixListener::bind(&service).expect("a socket");
        let socket = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        confined(move || {
            assert!(std::os::unix::net::UnixStream::connect(&service).is_err());
            assert!(socket.connect(&service).is_err());
            socket.connect(&log).expect("the log");
            socket.send(b"line").expect("the log");
        });
        let mut line = [0; 10];
        assert_eq!(receiver.recv(&mut line).expect("a line"), 4);
        drop(listener);
    }

    #[test]
    fn a_confined_thread_computes_and_starts_others_and_does_nothing_else() {
        confined(|| {
            let sum =
                std::thread::spawn(|| vec![1_u64; 1 << 20].iter().sum::<u64>()).join().expect("a thread");
            assert_eq!(sum, 1 << 20);
            let denied = |error: std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
            assert!(std::fs::read("/etc/hostname").is_err_and(denied));
            assert!(std::fs::write("/tmp/confined", "x").is_err_and(denied));
            assert!(std::net::TcpListener::bind("127.0.0.1:0").is_err_and(denied));
            // Services that obey root know it by its user ID, which the thread still has.
            assert!(std::os::unix::net::UnixDatagram::unbound().is_err_and(denied));
            assert!(std::process::Command::new("/bin/true").status().is_err());
            let sets = rustix::thread::capabilities(None);
            assert!(sets.is_err(), "{sets:?}");
        });
    }
}
