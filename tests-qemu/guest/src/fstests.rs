// SPDX-License-Identifier: GPL-2.0
//! The cases of xfstests' group "generic" that apply to a file system which is prepared beforehand and never
//! changes ([`image`], [`mounting`]), and to overlayfs with such a one below ([`overlay`]).
//!
//! xfstests itself is in no Debian release, so its cases are written here again, named after its numbers: each
//! says what the original is after and how this one is about it. Cases that have no number there have none here.
//!
//! These are elsewhere:
//!
//! | number | what it is after | where it is |
//! |---|---|---|
//! | 001, 011, 013 | trees copied, walked and changed by many | `compare`, `programs/overlay-with-writes`, `races` |
//! | 133 | several read one file at once | `readers`, `races` |
//! | 128 | set-user-ID under `nosuid` | `privilege/set-user-id-of-a-mount-of-root` |
//! | 257 | positions of a directory differ, and can be gone to | `api/telldir` |
//! | 285 | data and holes are found | `api/seek-hole`, `compare/file-of-2^63-1-bytes` |
//! | 317, 633 | owners through user namespaces and idmapped mounts | `api/idmapped-mount`, `privilege`, `containers` |
//! | 426 | handles of files that are there, and of such that are not | `api/file-handles` |
//! | 591 | splice from files to pipes | `races/storm-of-readers` |
//! | 604 | a mount while the same image is being unmounted | `races/storm-of-mounts` |
//!
//! The cases that are left out ask for features that neither has: quotas, reflinks, preallocation, journals
//! and what they keep when the power fails, encryption, direct and asynchronous writes, freezing, swap files,
//! device numbers in the image.

mod image;
mod mounting;
mod overlay;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{FileType, RawDir};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use tesserafs_guest::cases;
use tesserafs_guest::plan::Plan;

use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys::{self, Mapping};

/// Where overlays are mounted.
const OVERLAY: &str = "/mnt/overlay";

/// A name, and what is done with a mounted tree.
type Case = (&'static str, fn(&Path) -> Result<String>);

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    let cases = on_disk(&plan.cases.image);
    let mounted = || Mount::image(&cases, Path::new("/mnt/image"), "").context("failed to mount the image");
    on_image(suite, mounted, &[]);
    for (name, case) in mounting::CASES {
        suite.test(name, || {
            drop_caches()?;
            case(plan)
        });
    }
    on_overlay(suite, mounted);
}

/// A case that must fail, and why.
pub(crate) type Exception = (&'static str, &'static str);

/// The cases on the image alone, mounted by whatever serves it.
pub(crate) fn on_image(suite: &mut Suite, mounted: impl Fn() -> Result<Mount>, exceptions: &[Exception]) {
    for (name, case) in image::CASES {
        suite.test(name, || {
            drop_caches()?;
            expected(name, exceptions, || {
                let mount = mounted()?;
                let note = case(mount.path())?;
                mount.unmount()?;
                Ok(note)
            })
        });
    }
}

/// The cases on an overlay over the image.
pub(crate) fn on_overlay(suite: &mut Suite, mounted: impl Fn() -> Result<Mount>) {
    for (name, case) in overlay::CASES {
        suite.test(name, || {
            drop_caches()?;
            let layers = Layers::new(mounted()?)?;
            let note = case(&layers)?;
            layers.end()?;
            Ok(note)
        });
    }
}

/// The outcome of a case: a failure for one of the exceptions, and for no other.
fn expected(name: &str, exceptions: &[Exception], case: impl FnOnce() -> Result<String>) -> Result<String> {
    let Some((_, why)) = exceptions.iter().find(|(other, _)| *other == name) else { return case() };
    match case() {
        Ok(_) => bail!("it is no exception any more ({why})"),
        Err(error) => Ok(format!("{why}: {error:#}")),
    }
}

/// An overlay over the image. Its parts go from the top to the bottom.
struct Layers {
    overlay: Mount,
    work: Mount,
    image: Mount,
}

impl Layers {
    fn new(image: Mount) -> Result<Self> {
        let work = tmpfs("/mnt/layers")?;
        let overlay = Mount::overlay(image.path(), work.path(), Path::new(OVERLAY), "")?;
        Ok(Self { overlay, work, image })
    }

    fn path(&self) -> &Path {
        self.overlay.path()
    }

    /// Unmounts the overlay and mounts it again, with nothing in memory: data that is in no layer is lost.
    fn mount_again(&self) -> Result<()> {
        rustix::mount::unmount(self.path(), UnmountFlags::empty())
            .context("failed to unmount the overlay")?;
        drop_caches()?;
        // The value that there is stands for this mount, too.
        std::mem::forget(Mount::overlay(self.image.path(), self.work.path(), self.path(), "")?);
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.overlay.unmount()?;
        self.work.unmount()?;
        self.image.unmount()
    }
}

fn tmpfs(target: &str) -> Result<Mount> {
    Mount::new(Path::new("tmpfs"), Path::new(target), "tmpfs", MountFlags::empty(), "")
        .with_context(|| format!("failed to mount a tmpfs on {target}"))
}

/// A file in the guest's own tmpfs, which nobody has written yet.
fn scratch(name: &str) -> Result<PathBuf> {
    let path = Path::new("/tmp").join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(path),
    }
}

/// Fails unless something fails with one of these errors.
fn refused<T>(what: &str, result: Result<T, impl Into<io::Error>>, allowed: &[Errno]) -> Result<()> {
    let Err(error) = result else {
        bail!("{what} was done, and must give {allowed:?}");
    };
    let error = error.into();
    let found = error.raw_os_error().map(Errno::from_raw_os_error);
    ensure!(found.is_some_and(|errno| allowed.contains(&errno)), "{what} gives {error}, not {allowed:?}");
    Ok(())
}

/// Fails unless a file has these bytes.
fn holds(path: &Path, expected: &[u8]) -> Result<()> {
    let found = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    same(&path.display().to_string(), &found, expected)
}

/// Fails where bytes differ, with the first place.
fn same(what: &str, found: &[u8], expected: &[u8]) -> Result<()> {
    let place = found.iter().zip(expected).position(|(a, b)| a != b);
    ensure!(place.is_none(), "{what} differs at {place:?}");
    ensure!(found.len() == expected.len(), "{what} has {} bytes, not {}", found.len(), expected.len());
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| format!("failed to open {}", path.display()))
}

/// Opens for reading and writing: on an overlay, that copies a file up.
fn open_both(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.with_context(|| format!("failed to open {} for writing", path.display()))
}

fn look(path: &Path) -> Result<std::fs::Metadata> {
    std::fs::symlink_metadata(path).with_context(|| format!("failed to stat {}", path.display()))
}

/// The names of a name's attributes, in order.
fn attributes(path: &Path) -> Result<Vec<String>, Errno> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    names.truncate(length);
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The value of a name's attribute.
fn attribute(path: &Path, name: impl AsRef<OsStr>) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let length = rustix::fs::lgetxattr(path, name.as_ref(), &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// A name as `getdents` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: Vec<u8>,
    kind: FileType,
    ino: u64,
    next: u64,
}

/// The names from the position of a directory on, with a buffer of this size.
pub(crate) fn listing(directory: &File, buffer: usize) -> Result<Vec<Name>, Errno> {
    first_names(directory, buffer, usize::MAX)
}

/// As [`listing`], and no more than `most`: where somebody else moves the position there may be no end.
fn first_names(directory: &File, buffer: usize, most: usize) -> Result<Vec<Name>, Errno> {
    let mut buffer = vec![MaybeUninit::uninit(); buffer];
    let mut names = Vec::new();
    let mut entries = RawDir::new(directory, &mut buffer);
    while let (Some(entry), true) = (entries.next(), names.len() < most) {
        let entry = entry?;
        names.push(Name {
            name: entry.file_name().to_bytes().to_vec(),
            kind: entry.file_type(),
            ino: entry.ino(),
            next: entry.next_entry_cookie(),
        });
    }
    Ok(names)
}

/// The names in a directory but `.` and `..`, in order.
fn names_in(path: &Path) -> Result<Vec<String>> {
    let names = listing(&open(path)?, 4096).with_context(|| format!("failed to list {}", path.display()))?;
    let names = names.iter().map(|entry| String::from_utf8_lossy(&entry.name).into_owned());
    let mut names: Vec<String> = names.filter(|name| name != "." && name != "..").collect();
    names.sort();
    Ok(names)
}

/// The rights of the owner, of the group and of others to files of all modes: to read, write and run them.
/// `writable` is the result of a write by a user that has the right to it.
fn permissions(root: &Path, writable: Result<(), Errno>) -> Result<String> {
    let outcome = |allowed: bool| if allowed { Ok(()) } else { Err(Errno::ACCESS) };
    let mut tried = 0;
    for mode in cases::MODES {
        let path = root.join(format!("modes/{mode:03o}"));
        for (user, group, shift) in [(cases::OWNER, 500, 6), (200, cases::OWNER, 3), (12, 100, 0)] {
            let rights = mode >> shift;
            let done = sys::acting_as(user, &[group], || {
                let errno = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::NOMSG);
                let read = File::open(&path).map(drop).map_err(errno);
                let write = File::options().append(true).open(&path).map(drop).map_err(errno);
                let run = Command::new(&path).status().map_err(errno);
                (read, write, run.map(|status| status.code()))
            });
            let (read, write, run) = done.context("failed to act as a user")?;
            let expected = match outcome(rights & 2 != 0) {
                // A file system that is read-only says so before anything else.
                _ if writable == Err(Errno::ROFS) => writable,
                Ok(()) => writable,
                no => no,
            };
            let who = format!("user {user} of group {group}, mode {mode:03o}");
            ensure!(read == outcome(rights & 4 != 0), "{who}: reading gives {read:?}");
            ensure!(write == expected, "{who}: writing gives {write:?}");
            let code = Some((user & 0xff) as i32);
            ensure!(run == outcome(rights & 1 != 0).map(|()| code), "{who}: running gives {run:?}");
            tried += 3;
        }
    }
    Ok(format!("{tried} combinations"))
}

/// Reads that access control lists allow, and reads that they do not, where all ids are `shift` more than in
/// the image.
fn lists(root: &Path, shift: u32) -> Result<String> {
    let mut tried = 0;
    for listed in cases::LISTED {
        let path = root.join("acl").join(listed.name);
        let readers = listed.readers.iter().map(|who| (who, true));
        for ((user, groups), allowed) in readers.chain(listed.others.iter().map(|who| (who, false))) {
            let (user, groups) = (user + shift, groups.iter().map(|group| group + shift));
            let groups: Vec<u32> = groups.collect();
            let read = sys::acting_as(user, &groups, || std::fs::read(&path));
            let read = read.context("failed to act as a user")?;
            let who = format!("{}: user {user} of groups {groups:?}", listed.name);
            match read {
                Ok(bytes) => ensure!(allowed && bytes == b"for some\n", "{who} may read"),
                Err(error) => {
                    ensure!(!allowed, "{who} may not read: {error}");
                    refused(&who, Err::<(), _>(error), &[Errno::ACCESS])?;
                }
            }
            tried += 1;
        }
        holds(&path, b"for some\n").context("root may read all of them")?;
    }
    Ok(format!("{tried} readers"))
}

/// The `d_type` of each kind; a whiteout shows in the image alone.
fn kinds(root: &Path, whiteout: bool) -> Result<String> {
    let found = listing(&open(&root.join("kinds"))?, 4096).context("failed to list")?;
    let mut expected = vec![
        (".", FileType::Directory),
        ("..", FileType::Directory),
        ("d", FileType::Directory),
        ("f", FileType::RegularFile),
        ("l", FileType::Symlink),
        ("p", FileType::Fifo),
        ("s", FileType::Socket),
    ];
    if whiteout {
        expected.push(("w", FileType::CharacterDevice));
    }
    let mut found: Vec<_> =
        found.iter().map(|entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.kind)).collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: Vec<_> = expected.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    ensure!(found == expected, "{found:?}");
    Ok(format!("{} kinds", found.len() - 2))
}

/// Copies a file by its data alone, and fails unless the copy is the file.
fn copied_by_data(source: &Path, expected: &[u8]) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let file = open(source)?;
    let copy = scratch("fstests-copy")?;
    let to = File::create_new(&copy).context("failed to create a copy")?;
    to.set_len(expected.len() as u64).context("failed to set the length of a copy")?;
    let (mut position, mut data) = (0, 0);
    loop {
        let start = match rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno).context("failed to seek data"),
        };
        let end =
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(start)).context("failed to seek a hole")?;
        ensure!(start >= position && end > start, "from {position}: data from {start} to {end}");
        let mut part = vec![0; (end - start) as usize];
        file.read_exact_at(&mut part, start).context("failed to read")?;
        to.write_all_at(&part, start).context("failed to write")?;
        position = end;
        data += end - start;
    }
    holds(&copy, expected)?;
    Ok(data)
}

/// Names that look alike are of different files.
fn alike(root: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let mut inodes = Vec::new();
    for (number, name) in cases::ALIKE.iter().enumerate() {
        let path = root.join("names").join(OsStr::from_bytes(name));
        holds(&path, format!("{number}\n").as_bytes())?;
        inodes.push(look(&path)?.ino());
    }
    inodes.sort_unstable();
    inodes.dedup();
    ensure!(inodes.len() == cases::ALIKE.len(), "{} inodes only", inodes.len());
    Ok(())
}

/// `touch-mapped FILE OFFSET`: maps a file up to the page with this byte, and reads the byte.
pub(crate) fn touch_mapped(file: &Path, offset: &OsStr) -> Result<()> {
    let offset: usize = offset.to_str().and_then(|text| text.parse().ok()).context("no offset")?;
    let mapping = Mapping::new(&open(file)?, (offset + 1).next_multiple_of(4096)).context("failed to map")?;
    std::hint::black_box(mapping.bytes()[offset]);
    Ok(())
}
