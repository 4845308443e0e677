// SPDX-License-Identifier: GPL-2.0-or-later

//! The mounts that this process sees: `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

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
}

/// The uppermost mount at `dir`, which is canonical; `None` where there is none.
pub(crate) fn at(dir: &Path) -> Result<Option<Mount>, String> {
    let list = "/proc/self/mountinfo";
    let mounts = fs::read(list).map_err(|error| format!("{list}: {error}"))?;
    // Of several at one place, the last is the one that is seen.
    Ok(mounts.split(|byte| *byte == b'\n').filter_map(parse).rfind(|mount| mount.dir == dir))
}

/// Parses a line: `ID PARENT MAJOR:MINOR ROOT DIR OPTIONS... - TYPE SOURCE OPTIONS`.
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let device = String::from_utf8(fields.nth(1)?.to_vec()).ok()?;
    let dir = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { id, device, dir, kind: String::from_utf8_lossy(kind).into_owned() })
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

/// `dir` without symlinks, as mountinfo has it, even where the filesystem that is mounted there does not answer any more.
pub(crate) fn canonical(dir: &Path) -> Result<PathBuf, String> {
    let refuse = |error: io::Error| format!("{}: {error}", text::path(dir));
    let error = match dir.canonicalize() {
        Ok(dir) => return Ok(dir),
        Err(error) => error,
    };
    // The daemon is gone, or the mount is a user's whom root is not to see.
    let parents = dir.file_name().zip(dir.parent()).filter(|_| error.kind() != io::ErrorKind::NotFound);
    let Some((name, parent)) = parents else { return Err(refuse(error)) };
    let parent = if parent.as_os_str().as_bytes().is_empty() { Path::new(".") } else { parent };
    parent.canonicalize().map(|parent| parent.join(name)).map_err(refuse)
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
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"51 27 0:40 / /tmp ro"), None);
    }

    #[test]
    fn the_root_is_mounted() {
        let root = at(Path::new("/")).expect("mounts").expect("a root");
        assert_eq!(root.dir, Path::new("/"));
        assert_eq!(at(Path::new("/proc/self/none")), Ok(None));
    }
}
