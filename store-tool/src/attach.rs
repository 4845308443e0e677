// SPDX-License-Identifier: GPL-2.0-or-later

//! The connection to the kernel's FUSE, mounted: by this process where it may, else by fusermount3.
//!
//! `fuser` can mount, too, but takes a mount that is gone for one that is there, and unmounts what lies at its place by then.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{getegid, geteuid};
use tesserafs_image::{text, Error};

use crate::daemon::Job;

/// The device of FUSE.
const DEVICE: &str = "/dev/fuse";

/// The program of package fuse3 with which users mount and unmount.
pub(crate) const FUSERMOUNT: &str = "fusermount3";

/// The file type in a mode.
const S_IFMT: u32 = 0o170_000;

/// Mounts what `job` says. The result is the connection.
pub(crate) fn mount(job: &Job) -> Result<OwnedFd, Error> {
    let what = || format!("cannot mount at {}", text::path(&job.dir));
    let mounted = match directly(job) {
        // Without CAP_SYS_ADMIN in the user namespace of the mounts.
        Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => by_fusermount(job),
        mounted => mounted,
    };
    mounted.map_err(|source| Error::Io { what: what(), source })
}

fn directly(job: &Job) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open(DEVICE)?;
    let kind = job.dir.metadata()?.mode() & S_IFMT;
    let mut data = format!(
        "fd={},rootmode={kind:o},user_id={},group_id={},default_permissions,subtype=tesserafs",
        device.as_raw_fd(),
        geteuid(),
        getegid(),
    );
    if job.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MountFlags::RDONLY;
    flags.set(MountFlags::NOSUID, job.flags.nosuid);
    flags.set(MountFlags::NODEV, job.flags.nodev);
    flags.set(MountFlags::NOEXEC, job.flags.noexec);
    let data = CString::new(data)?;
    rustix::mount::mount(text::path(&job.image), &job.dir, "fuse", flags, data.as_c_str())?;
    Ok(device.into())
}

/// fusermount3 sends the connection through a socket, whose number it is told.
fn by_fusermount(job: &Job) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut options = String::from("ro,default_permissions,subtype=tesserafs");
    for (name, is_set) in [
        ("allow_other", job.allow_other),
        ("nosuid", job.flags.nosuid),
        ("nodev", job.flags.nodev),
        ("noexec", job.flags.noexec),
    ] {
        if is_set {
            options.push(',');
            options.push_str(name);
        }
    }
    // It wants a backslash before a comma that is none between options, and before a backslash.
    let name = text::path(&job.image).replace('\\', "\\\\").replace(',', "\\,");
    options.push_str(",fsname=");
    options.push_str(&name);
    let mut command = Command::new(FUSERMOUNT);
    command.args(["-o", &options, "--"]).arg(&job.dir).env("_FUSE_COMMFD", "0");
    let theirs = OwnedFd::from(theirs);
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    // The command has a copy of its end of the socket: without it, nobody would tell that fusermount3 has ended.
    drop(command);
    let child = child
        .map_err(|error| io::Error::new(error.kind(), format!("{FUSERMOUNT} (package fuse3): {error}")))?;
    let connection = receive(&ours);
    drop(ours);
    let output = child.wait_with_output()?;
    connection.map_err(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        match said.trim() {
            "" => error,
            said => io::Error::other(text::escape(said.as_bytes())),
        }
    })
}

/// The file descriptor that comes with one byte.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut messages = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut messages, RecvFlags::CMSG_CLOEXEC)?;
    let received = messages.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    received.ok_or_else(|| io::Error::other(format!("{FUSERMOUNT} gave no connection")))
}
