// SPDX-License-Identifier: GPL-2.0
//! A listener that is asked before files are used.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{checked, path_of};

/// What a listener is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether a file may be read.
    Access,
    /// Whether a file may be opened.
    Open,
}

/// A group of fanotify.
pub(crate) struct Listener(File);

/// A question that waits for its answer; without one it is answered with the end of the listener.
pub(crate) struct Asked(OwnedFd);

impl Listener {
    /// Listens to everything that happens by way of a mount.
    pub(crate) fn new(mount: &Path, question: Question) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // SAFETY: The call takes no memory.
        let group = checked(unsafe { libc::fanotify_init(flags, libc::O_RDONLY as libc::c_uint) }.into())?;
        // SAFETY: The call has just returned this descriptor, and nobody else owns it.
        let group = unsafe { File::from_raw_fd(group as libc::c_int) };
        let mask = match question {
            Question::Access => libc::FAN_ACCESS_PERM,
            Question::Open => libc::FAN_OPEN_PERM,
        };
        let (path, add) = (path_of(mount)?, libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT);
        let fd = group.as_raw_fd();
        // SAFETY: The path ends in NUL.
        let marked = unsafe { libc::fanotify_mark(fd, add, mask, libc::AT_FDCWD, path.as_ptr()) };
        checked(marked.into())?;
        Ok(Self(group))
    }

    /// The next question, if there is one.
    pub(crate) fn asked(&self) -> io::Result<Option<Asked>> {
        const LENGTH: usize = size_of::<libc::fanotify_event_metadata>();
        const FD: usize = std::mem::offset_of!(libc::fanotify_event_metadata, fd);
        // Room for one.
        let mut event = [0_u8; LENGTH];
        match (&self.0).read(&mut event) {
            Ok(LENGTH) => {}
            Ok(length) => return Err(io::Error::other(format!("an event of {length} bytes"))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut fd = [0; 4];
        fd.copy_from_slice(&event[FD..FD + 4]);
        let fd = i32::from_ne_bytes(fd);
        if fd < 0 {
            return Err(io::Error::other("an event without a file"));
        }
        // SAFETY: The event has brought this descriptor, and nobody else owns it.
        Ok(Some(Asked(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Answers a question.
    pub(crate) fn answer(&self, asked: &Asked, allow: bool) -> io::Result<()> {
        let answer = if allow { libc::FAN_ALLOW } else { libc::FAN_DENY };
        let mut response = [0_u8; 8];
        response[..4].copy_from_slice(&asked.0.as_raw_fd().to_ne_bytes());
        response[4..].copy_from_slice(&answer.to_ne_bytes());
        (&self.0).write_all(&response)
    }
}
