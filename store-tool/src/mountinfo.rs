// SPDX-License-Identifier: GPL-2.0-or-later

//! The mounts that this process sees: `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tesserafs_image::text;

/// The type that mounts by the kernel driver have.
pub(crate) const BY_KERNEL: &str = "tesserafs";

/// The type that mounts by FUSE have.
pub(crate) const BY_FUSE: &str = "fuse.tesserafs";

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// A number that no other mount has as long as this one is there.
    pub(crate) id: u64,
    /// The device, as `MAJOR:MINOR`.
    pub(crate) device: String,
    /// Where it is.
    pub(crate) dir: PathBuf,
    /// The type of its filesystem.
    pub(crate) kind: String,
    /// The source of the mount.
    pub(crate) source: OsString,
}

/// A directory as a path found it, and what is mounted there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Where it is, without symlinks, as mountinfo has it.
    pub(crate) dir: PathBuf,
    /// The mount whose root it is; `None` where it is none.
    pub(crate) mount: Option<Mount>,
}

/// Looks what `dir` leads to, even where the filesystem that is mounted there does not answer any more, or not this user: its root is
/// reached without asking it.
///
/// The kernel tells the mount. Order in mountinfo does not tell which of several at one place is uppermost, as mounts can be moved; and
/// some are listed whose place another mount covers.
pub(crate) fn seen(dir: &Path) -> Result<Seen, String> {
    let refuse = |error: io::Error| format!("{}: {error}", text::path(dir));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(dir, flags, Mode::empty()).map_err(|errno| refuse(errno.into()))?;
    let dir = path_of(&open).map_err(refuse)?;
    let id = mount_of(&open).map_err(refuse)?;
    let mount = list()?.into_iter().find(|mount| mount.id == id && mount.dir == dir);
    Ok(Seen { dir, mount })
}

/// The mount at `dir`, which is without symlinks; `None` where there is none, or no directory.
pub(crate) fn at(dir: &Path) -> Option<Mount> {
    seen(dir).ok().filter(|seen| seen.dir == dir)?.mount
}

/// The path of an open directory.
pub(crate) fn path_of(open: &OwnedFd) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd()))
}

/// The number of the mount on which an open file lies.
fn mount_of(open: &OwnedFd) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", open.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
    id.ok_or_else(|| io::Error::other("the kernel does not tell its mount"))
}

fn list() -> Result<Vec<Mount>, String> {
    let list = "/proc/self/mountinfo";
    of(Path::new(list)).map_err(|error| format!("{list}: {error}"))
}

/// The mounts that a process sees, by its file `mountinfo`.
pub(crate) fn of(list: &Path) -> io::Result<Vec<Mount>> {
    let mounts = fs::read(list)?;
    Ok(mounts.split(|byte| *byte == b'\n').filter_map(parse).collect())
}

/// Parses a line: `ID PARENT MAJOR:MINOR ROOT DIR OPTIONS... - TYPE SOURCE OPTIONS`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8(fields.nth(1)?.to_vec()).ok()?;
    let dir = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = OsString::from_vec(unescape(fields.next()?));
    Some(Mount { id, device, dir, kind, source })
}

/// Names have space, tab, newline and backslash as `\ooo`.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, behind @ ..] = rest {
        rest = behind;
        let octal = behind.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|octal| u8::from_str_radix(std::str::from_utf8(octal).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        if value.is_some() {
            rest = behind.get(3..).unwrap_or_default();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_understood() {
        let line =
            br"51 27 0:40 / /tmp/a\040b\134c ro,relatime shared:1 master:2 - fuse.tesserafs /x/y\040z ro,user_id=0";
        let mount = parse(line).expect("a mount");
        assert_eq!((mount.id, mount.device.as_str()), (51, "0:40"));
        assert_eq!((mount.dir, mount.kind.as_str()), (PathBuf::from(r"/tmp/a b\c"), BY_FUSE));
        assert_eq!(mount.source, "/x/y z");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"51 27 0:40 / /tmp ro"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        let root = at(Path::new("/")).expect("a root");
        assert_eq!(root.dir, Path::new("/"));
        assert_eq!(at(Path::new("/proc/self/none")), None);
        assert_eq!(seen(Path::new("/proc/self")).map(|seen| seen.mount), Ok(None));
    }
}
