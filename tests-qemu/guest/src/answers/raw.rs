// SPDX-License-Identifier: GPL-2.0
//! System calls as they are, with any argument: the tests want the kernel's own answer.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

/// A value that is not negative, or an error.
pub(super) type Answer = Result<i64, Errno>;

/// Room for the output of any of the requests here.
pub(super) type Memory = [u64; 512];

/// The result of a function of libc.
pub(super) fn answer(result: impl Into<i64>) -> Answer {
    match result.into() {
        -1 => {
            let error = std::io::Error::last_os_error();
            Err(Errno::from_io_error(&error).unwrap_or(Errno::NOMSG))
        }
        value => Ok(value),
    }
}

/// A path as C has it.
pub(super) fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).expect("no path of the tests has a NUL")
}

/// `open` with any flags.
pub(super) fn open(path: &Path, flags: i32) -> Result<File, Errno> {
    let path = c_path(path);
    // SAFETY: The path ends in NUL.
    let fd = answer(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) })?;
    // SAFETY: The call has just returned this descriptor, and nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// `close`, whose answer is lost otherwise.
pub(super) fn close(file: File) -> Answer {
    // SAFETY: The descriptor was owned by `file`, which is gone.
    answer(unsafe { libc::close(file.into_raw_fd()) })
}

/// `ioctl` with an argument that is a number, or none.
pub(super) fn ioctl(file: &File, request: u64, number: i32) -> Answer {
    // SAFETY: None of the requests of the tests that take a number takes an address.
    answer(unsafe { libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, number) })
}

/// `ioctl` with an argument that is an address; its output goes to `memory`.
pub(super) fn ioctl_with(file: &File, request: u64, memory: &mut Memory) -> Answer {
    // SAFETY: No request of the tests writes more than that.
    answer(unsafe { libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, memory.as_mut_ptr()) })
}

/// `fcntl` with a number.
pub(super) fn fcntl(file: &File, command: i32, number: i32) -> Answer {
    // SAFETY: None of the commands of the tests that take a number takes an address.
    answer(unsafe { libc::fcntl(file.as_raw_fd(), command, number) })
}

/// `fcntl` with an address.
pub(super) fn fcntl_with(file: &File, command: i32, memory: &mut Memory) -> Answer {
    // SAFETY: No command of the tests writes more than that.
    answer(unsafe { libc::fcntl(file.as_raw_fd(), command, memory.as_mut_ptr()) })
}

/// A lock of all of the file, as `F_GETLK`, `F_SETLK` and their kin take it.
pub(super) fn lock(file: &File, command: i32, kind: i32) -> Answer {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: `lock` has the layout that the command wants.
    answer(unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(&mut lock)) })?;
    Ok(lock.l_type.into())
}

/// `preadv2` of so many bytes.
pub(super) fn read(file: &File, length: usize, offset: i64, flags: i32) -> Answer {
    let mut memory = vec![0_u8; length + 1];
    // One byte from the beginning, so that it is aligned to nothing.
    let place = libc::iovec { iov_base: memory[1..].as_mut_ptr().cast(), iov_len: length };
    // SAFETY: The vector has that many bytes from there on.
    answer(unsafe { libc::preadv2(file.as_raw_fd(), std::ptr::from_ref(&place), 1, offset, flags) } as i64)
}

/// A page, of a file, if it takes no waiting.
pub(super) fn read_without_waiting(file: &File, offset: i64) -> Answer {
    read(file, 4096, offset, libc::RWF_NOWAIT)
}

/// `pread` to and from memory that is a multiple of 4096, as direct reads want it.
pub(super) fn read_aligned(file: &File, length: usize, offset: i64) -> Answer {
    let mut memory = vec![0_u8; length + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let place = &mut memory[start..start + length];
    // SAFETY: The slice has that many bytes.
    answer(unsafe { libc::pread(file.as_raw_fd(), place.as_mut_ptr().cast(), length, offset) } as i64)
}

/// `lseek` with any whence.
pub(super) fn seek(file: &File, offset: i64, whence: i32) -> Answer {
    // SAFETY: The call takes no memory.
    answer(unsafe { libc::lseek(file.as_raw_fd(), offset, whence) })
}

/// A call that takes a descriptor and up to four numbers.
pub(super) fn numbers(call: libc::c_long, file: &File, numbers: [i64; 4]) -> Answer {
    let [a, b, c, d] = numbers;
    // SAFETY: None of the calls of the tests that get here takes an address.
    answer(unsafe { libc::syscall(call, file.as_raw_fd(), a, b, c, d) })
}

/// A call that takes a path and up to three numbers.
pub(super) fn path_and_numbers(call: libc::c_long, path: &Path, numbers: [i64; 3]) -> Answer {
    let path = c_path(path);
    let [a, b, c] = numbers;
    // SAFETY: The path ends in NUL, and the other arguments of the calls of the tests are numbers.
    answer(unsafe { libc::syscall(call, path.as_ptr(), a, b, c) })
}

/// A call that takes a path from a directory on, which is the current one, and up to three numbers.
///
/// Newer architectures (arm64) have no other calls for such requests.
pub(super) fn path_from_here_and_numbers(call: libc::c_long, path: &Path, numbers: [i64; 3]) -> Answer {
    let path = c_path(path);
    let [a, b, c] = numbers;
    // SAFETY: The path ends in NUL, and the other arguments of the calls of the tests are numbers.
    answer(unsafe { libc::syscall(call, libc::AT_FDCWD, path.as_ptr(), a, b, c) })
}

/// A call that takes two paths, each from the current directory on, and flags, of which there are none.
pub(super) fn two_paths(call: libc::c_long, first: &Path, second: &Path) -> Answer {
    let (first, second) = (c_path(first), c_path(second));
    // SAFETY: Both paths end in NUL.
    answer(unsafe { libc::syscall(call, libc::AT_FDCWD, first.as_ptr(), libc::AT_FDCWD, second.as_ptr(), 0) })
}

/// `symlink`.
pub(super) fn symlink(target: &Path, link: &Path) -> Answer {
    let (target, link) = (c_path(target), c_path(link));
    // SAFETY: Both paths end in NUL.
    answer(unsafe { libc::symlink(target.as_ptr(), link.as_ptr()) })
}

/// Moves bytes from a file to another one: `copy_file_range`, `splice`.
pub(super) fn transfer(call: libc::c_long, from: &File, to: &File, length: usize) -> Answer {
    let none = std::ptr::null_mut::<i64>();
    // SAFETY: Where no position is given, the calls use the files' own.
    answer(unsafe { libc::syscall(call, from.as_raw_fd(), none, to.as_raw_fd(), none, length, 0) })
}

/// `sendfile`.
pub(super) fn send(from: &File, to: &File, length: usize) -> Answer {
    // SAFETY: Without a position the call uses the file's own.
    let sent = unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), length) };
    answer(sent as i64)
}

/// `statx` of a path, as it is.
pub(super) fn statx(path: &Path, flags: i32, mask: u32) -> Result<libc::statx, Errno> {
    let path = c_path(path);
    let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: The path ends in NUL, and `stat` is as large as the call expects.
    answer(unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, stat.as_mut_ptr()) })?;
    // SAFETY: All zeros is a valid value, over which the call wrote.
    Ok(unsafe { stat.assume_init() })
}

/// The events that `poll` reports.
pub(super) fn poll(file: &File) -> Answer {
    let mut entry = libc::pollfd { fd: file.as_raw_fd(), events: !0, revents: 0 };
    // SAFETY: It is told of one entry, and there is one.
    answer(unsafe { libc::poll(std::ptr::from_mut(&mut entry), 1, 0) })?;
    Ok(entry.revents.into())
}

/// `epoll_ctl(EPOLL_CTL_ADD)`.
pub(super) fn epoll(file: &File) -> Answer {
    // SAFETY: The call takes no memory.
    let fd = answer(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: The call has just returned this descriptor, and nobody else owns it.
    let epoll = unsafe { File::from_raw_fd(fd as i32) };
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    let (add, event) = (libc::EPOLL_CTL_ADD, std::ptr::from_mut(&mut event));
    // SAFETY: `event` is as large as the call expects.
    answer(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), add, file.as_raw_fd(), event) })
}

/// The type of the handle of a name, a hundred times, and its length.
pub(super) fn handle(path: &Path, flags: i32) -> Answer {
    let path = c_path(path);
    let mut handle = [0_u32; 64];
    // Bytes behind the two words of the beginning.
    handle[0] = 128;
    let mut mount = 0_i64;
    // SAFETY: The path ends in NUL, `handle` has the room that it says, and `mount` that of an identifier.
    answer(unsafe {
        let mount = std::ptr::from_mut(&mut mount);
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            handle.as_mut_ptr(),
            mount,
            flags,
        )
    })?;
    Ok(i64::from(handle[1]) * 100 + i64::from(handle[0]))
}

/// `inotify_add_watch` for everything.
pub(super) fn watch(path: &Path) -> Answer {
    let path = c_path(path);
    // SAFETY: The call takes no memory.
    let fd = answer(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    // SAFETY: The call has just returned this descriptor, and nobody else owns it.
    let watch = unsafe { File::from_raw_fd(fd as i32) };
    // SAFETY: The path ends in NUL.
    answer(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_ALL_EVENTS) })
}

/// `fanotify_mark` for opens, which are reported by handles.
pub(super) fn mark(path: &Path, whole: u32) -> Answer {
    let path = c_path(path);
    let class = libc::FAN_CLASS_NOTIF | libc::FAN_REPORT_FID | libc::FAN_CLOEXEC;
    // SAFETY: The call takes no memory.
    let fd = answer(unsafe { libc::fanotify_init(class, libc::O_RDONLY as u32) })?;
    // SAFETY: The call has just returned this descriptor, and nobody else owns it.
    let group = unsafe { File::from_raw_fd(fd as i32) };
    let (flags, mask) = (libc::FAN_MARK_ADD | whole, libc::FAN_OPEN);
    // SAFETY: The path ends in NUL.
    answer(unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) })
}
