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
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{getegid, geteuid};
use tesserafs_image::{text, Error};

use crate::daemon::Job;
use crate::mountinfo;

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
    let dir = open_dir(&job.dir)?;
    let kind = File::from(dir.try_clone()?).metadata()?.mode() & S_IFMT;
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
    // The directory that was looked at: its path may lead elsewhere by now.
    let place = format!("/proc/self/fd/{}", dir.as_raw_fd());
    rustix::mount::mount(text::path(&job.image), place, "fuse", flags, data.as_c_str())?;
    Ok(device.into())
}

/// Opens the directory of that path, which the mounter has found to be without symlinks. If it has any now, somebody who may write to
/// one of its parents wants root to mount somewhere else.
pub(crate) fn open_dir(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(dir, flags, Mode::empty())?;
    let found = mountinfo::path_of(&open)?;
    if found != dir {
        let found = text::path(&found);
        return Err(io::Error::other(format!(
            "the path leads to {found} now: found a symlink, expected none"
        )));
    }
    Ok(open)
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
    // The mounter waits for the end of this output where it kills the daemon: until then there may yet be a mount.
    let child = command.stdin(theirs).stdout(Stdio::inherit()).stderr(Stdio::piped()).spawn();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_directory_that_was_replaced_by_a_symlink_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("a path");
        let (dir, elsewhere) = (folder.join("parent/dir"), folder.join("elsewhere"));
        for made in [&dir, &elsewhere.join("dir")] {
            fs::create_dir_all(made).expect("a directory");
        }
        open_dir(&dir).expect("a directory");
        fs::rename(folder.join("parent"), folder.join("was")).expect("a directory");
        symlink(&elsewhere, folder.join("parent")).expect("a symlink");
        let error = open_dir(&dir).expect_err("a symlink").to_string();
        assert!(error.contains("elsewhere/dir now"), "{error}");
    }
}
