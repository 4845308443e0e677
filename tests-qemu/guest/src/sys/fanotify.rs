// SPDX-License-Identifier: GPL-2.0
//! A listener that is asked before files are used.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::size_of;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

use super::{checked, path_of};

/// The question that a listener is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether a file may be read.
    Access,
    /// Whether a file may be opened.
    Open,
    /// Whether bytes may be read, once the listener has brought them: a pre-content event.
    Fill,
}

/// `FAN_PRE_ACCESS`, since Linux 6.14.
const PRE_ACCESS: u64 = 0x0010_0000;

/// An event: without more, and with the range that a pre-content event has.
const EVENT: usize = size_of::<libc::fanotify_event_metadata>();
const EVENT_WITH_RANGE: usize = EVENT + 24;

/// A group of fanotify.
pub(crate) struct Listener {
    group: File,
    question: Question,
}

/// A question that waits for its answer; without one it is answered with the end of the listener.
pub(crate) struct Asked {
    file: File,
    /// The bytes that a pre-content event is about; empty for others.
    pub(crate) range: Range<u64>,
}

impl Asked {
    /// The file. Its use asks no listener.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl Listener {
    /// Listens to everything that happens by way of the mount with this path; for pre-content events, to what happens
    /// to the file with this path.
    pub(crate) fn new(path: &Path, question: Question) -> io::Result<Self> {
        let (class, access, mask, mark) = match question {
            Question::Access => {
                (libc::FAN_CLASS_CONTENT, libc::O_RDONLY, libc::FAN_ACCESS_PERM, libc::FAN_MARK_MOUNT)
            }
            Question::Open => {
                (libc::FAN_CLASS_CONTENT, libc::O_RDONLY, libc::FAN_OPEN_PERM, libc::FAN_MARK_MOUNT)
            }
            Question::Fill => (libc::FAN_CLASS_PRE_CONTENT, libc::O_RDWR, PRE_ACCESS, libc::FAN_MARK_INODE),
        };
        let flags = class | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let access = (access | libc::O_LARGEFILE) as libc::c_uint;
        // SAFETY: The call takes no memory.
        let group = checked(unsafe { libc::fanotify_init(flags, access) }.into())?;
        // SAFETY: The call has just returned this descriptor, and nobody else owns it.
        let group = unsafe { File::from_raw_fd(group as libc::c_int) };
        let (path, add) = (path_of(path)?, libc::FAN_MARK_ADD | mark);
        let fd = group.as_raw_fd();
        // SAFETY: The path ends in NUL.
        let marked = unsafe { libc::fanotify_mark(fd, add, mask, libc::AT_FDCWD, path.as_ptr()) };
        checked(marked.into())?;
        Ok(Self { group, question })
    }

    /// The next question, if there is one.
    pub(crate) fn asked(&self) -> io::Result<Option<Asked>> {
        const FD: usize = std::mem::offset_of!(libc::fanotify_event_metadata, fd);
        // Room for one.
        let mut event = [0_u8; EVENT_WITH_RANGE];
        let length = if self.question == Question::Fill { EVENT_WITH_RANGE } else { EVENT };
        match (&self.group).read(&mut event[..length]) {
            Ok(read) if read == length => {}
            Ok(read) => return Err(io::Error::other(format!("an event of {read} bytes"))),
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
        let file = unsafe { File::from_raw_fd(fd) };
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&event[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        // A header of four bytes, four that are not used, offset, length.
        let (start, count) = (number(EVENT + 8), number(EVENT + 16));
        Ok(Some(Asked { file, range: start..start + count }))
    }

    /// Answers a question.
    pub(crate) fn answer(&self, asked: &Asked, allow: bool) -> io::Result<()> {
        let answer = if allow { libc::FAN_ALLOW } else { libc::FAN_DENY };
        let mut response = [0_u8; 8];
        response[..4].copy_from_slice(&asked.file.as_raw_fd().to_ne_bytes());
        response[4..].copy_from_slice(&answer.to_ne_bytes());
        (&self.group).write_all(&response)
    }
}
