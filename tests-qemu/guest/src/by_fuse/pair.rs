// SPDX-License-Identifier: GPL-2.0
//! One image by FUSE and by the kernel driver: what programs are shown of each name is the same, for root and for a user.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::{access, statx, Access, AtFlags, SeekFrom, StatxAttributes, StatxFlags, CWD};
use rustix::io::Errno;
use tesserafs_guest::plan::{Image, Plan};
use tesserafs_guest::tree::checksum;

use super::ByFuse;
use crate::compare::compare;
use crate::fstests::{listing, Name};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys;

/// Where the kernel driver mounts the image.
const BY_KERNEL: &str = "/mnt/image";

/// Somebody who owns nothing in the images but what the cases of permissions give to this number.
const USER: u32 = 1000;

/// Differences that are told, where there are more.
const TOLD: usize = 10;

/// Names that are asked about in a folder of a great many: all are listed.
const ASKED: usize = 500;

/// Places of a file where data or a hole begins, at most.
const PLACES: usize = 4096;

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    let images: [(&str, &Image); 4] = [
        ("small", &plan.small),
        ("cases", &plan.cases),
        ("answers", &plan.answers.image),
        ("file-of-2^63-1-bytes", &plan.sparse),
    ];
    for (name, image) in images {
        tests_of(suite, name, image, true);
    }
    suite.test("a-user-comes-first", || {
        drop_caches()?;
        let (kernel, fuse) = both(&plan.cases)?;
        let note = sys::acting_as(USER, &[USER], || same(kernel.path(), fuse.path(), true))
            .context("failed to act as a user")??;
        kernel.unmount()?;
        fuse.unmount()?;
        Ok(note)
    });
    suite.test("statfs-as-by-the-kernel", || statfs(&plan.small));
}

/// The tests of the Debian root, whose bytes are read once, and compared with its source.
pub(super) fn tests_of_all(suite: &mut Suite, plan: &Plan) {
    tests_of(suite, "root", &plan.root, false);
}

fn tests_of(suite: &mut Suite, name: &str, image: &Image, with_bytes: bool) {
    suite.test(&format!("{name}-is-its-source"), || {
        drop_caches()?;
        let mount = ByFuse::new(&on_disk(&image.image))?;
        let note = compare(image, mount.path())?;
        mount.unmount()?;
        Ok(note)
    });
    suite.test(&format!("{name}-as-by-the-kernel"), || {
        drop_caches()?;
        let (kernel, fuse) = both(image)?;
        let as_root = same(kernel.path(), fuse.path(), with_bytes)?;
        // Attributes and permissions that root was shown are in the caches, and no user's to see. The bytes are the same.
        let as_user = sys::acting_as(USER, &[USER], || same(kernel.path(), fuse.path(), false))
            .context("failed to act as a user")??;
        kernel.unmount()?;
        fuse.unmount()?;
        Ok(format!("for root {as_root}; for a user {as_user}"))
    });
}

/// The image, mounted by both.
fn both(image: &Image) -> Result<(Mount, ByFuse)> {
    let file = on_disk(&image.image);
    let kernel = Mount::image(&file, Path::new(BY_KERNEL), "").context("failed to mount the image")?;
    Ok((kernel, ByFuse::new(&file)?))
}

/// Everything that a program can find out about a name. Errors are part of it: a user is refused this and that.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    stat: Result<Stat, Errno>,
    target: Result<Vec<u8>, Errno>,
    /// In their order.
    attributes: Result<Vec<Attribute>, Errno>,
    /// To read, to write and to run it.
    rights: [Result<(), Errno>; 3],
    /// Of a file: the places where data and holes begin, and the checksum of its bytes.
    places: Result<Vec<u64>, Errno>,
    bytes: Result<u128, Option<i32>>,
    /// Of a folder: the names in their order, each with number, kind and the position after it.
    names: Result<Vec<Name>, Errno>,
}

/// A name, and its value.
type Attribute = (Vec<u8>, Result<Vec<u8>, Errno>);

/// All of `statx` but what FUSE cannot carry: which fields are set and which attributes are known, where the kernel driver
/// says that nobody can change a file, that it is compressed, and that the time of access is none.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    mode: u16,
    ino: u64,
    links: u32,
    owner: [u32; 2],
    size: u64,
    blocks: u64,
    block: u32,
    device: [u32; 2],
    times: [(i64, u32); 3],
    has_birth: bool,
    is_mount: bool,
}

impl Stat {
    fn of(path: &Path) -> Result<Self, Errno> {
        let all = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, all)?;
        let time = |time: rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Ok(Self {
            mode: found.stx_mode,
            ino: found.stx_ino,
            links: found.stx_nlink,
            owner: [found.stx_uid, found.stx_gid],
            size: found.stx_size,
            blocks: found.stx_blocks,
            block: found.stx_blksize,
            device: [found.stx_rdev_major, found.stx_rdev_minor],
            times: [time(found.stx_atime), time(found.stx_mtime), time(found.stx_ctime)],
            has_birth: found.stx_mask & StatxFlags::BTIME.bits() != 0,
            is_mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        })
    }
}

impl Shown {
    fn of(path: &Path, with_bytes: bool, buffer: &mut [u8]) -> Self {
        let stat = Stat::of(path);
        let kind = stat.as_ref().map_or(0, |stat| u32::from(stat.mode) & 0o170_000);
        let rights = [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK].map(|right| access(path, right));
        let (mut places, mut bytes, mut names) = (Ok(Vec::new()), Ok(0), Ok(Vec::new()));
        if kind == 0o100_000 {
            let size = stat.as_ref().map_or(0, |stat| stat.size);
            places = File::open(path).map_err(errno).and_then(|file| places_of(&file));
            if with_bytes {
                bytes = checksum(path, size, buffer).map_err(|error| error.raw_os_error());
            }
        } else if kind == 0o040_000 {
            names = File::open(path).map_err(errno).and_then(|folder| listing(&folder, 1 << 15));
        }
        let target = if kind == 0o120_000 {
            rustix::fs::readlink(path, Vec::new()).map(CString::into_bytes)
        } else {
            Ok(Vec::new())
        };
        Self { stat, target, attributes: attributes(path), rights, places, bytes, names }
    }

    /// The parts that differ, in words.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut out = Vec::new();
        fn part<T: std::fmt::Debug + PartialEq>(out: &mut Vec<String>, what: &str, kernel: &T, fuse: &T) {
            if kernel != fuse {
                let short = |part: &T| format!("{part:?}").chars().take(600).collect::<String>();
                out.push(format!("{what}: by the kernel {}, by FUSE {}", short(kernel), short(fuse)));
            }
        }
        part(&mut out, "stat", &self.stat, &other.stat);
        part(&mut out, "target", &self.target, &other.target);
        part(&mut out, "attributes", &self.attributes, &other.attributes);
        part(&mut out, "rights", &self.rights, &other.rights);
        part(&mut out, "data and holes", &self.places, &other.places);
        part(&mut out, "bytes", &self.bytes, &other.bytes);
        part(&mut out, "names", &self.names, &other.names);
        out
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::NOMSG)
}

/// The attributes of a name itself, in the order in which they are listed.
fn attributes(path: &Path) -> Result<Vec<Attribute>, Errno> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names[..])?;
    // The length alone, for which many programs ask first.
    let asked = rustix::fs::llistxattr(path, &mut [0_u8; 0][..])?;
    if asked != length {
        return Err(Errno::NOMSG);
    }
    let mut value = vec![0; 65536];
    let attribute = |name: &[u8]| {
        let length = rustix::fs::lgetxattr(path, name, &mut value[..]);
        (name.to_vec(), length.map(|length| value[..length].to_vec()))
    };
    Ok(names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(attribute).collect())
}

/// Where data and holes begin, in turn.
fn places_of(file: &File) -> Result<Vec<u64>, Errno> {
    let mut places = Vec::new();
    let mut at = 0;
    while places.len() < PLACES {
        for whence in [SeekFrom::Data(at), SeekFrom::Hole(at)] {
            match rustix::fs::seek(file, whence) {
                Ok(place) => places.push(place),
                Err(Errno::NXIO) => return Ok(places),
                Err(errno) => return Err(errno),
            }
        }
        // The later of the two is where the next piece begins.
        let next = places.iter().rev().take(2).max().copied().unwrap_or(at);
        if next <= at {
            return Err(Errno::LOOP);
        }
        at = next;
    }
    Ok(places)
}

/// Walks both trees at once, and fails where they show something else.
fn same(kernel: &Path, fuse: &Path, with_bytes: bool) -> Result<String> {
    let mut buffer = vec![0; 1 << 20];
    let mut left = vec![PathBuf::new()];
    let (mut count, mut refused) = (0, 0);
    let mut wrong = Vec::new();
    while let Some(below) = left.pop() {
        let [by_kernel, by_fuse] = [kernel, fuse].map(|root| {
            // The root itself has no slash behind it, which nothing but a folder may have.
            let path = if below.as_os_str().is_empty() { root.to_path_buf() } else { root.join(&below) };
            Shown::of(&path, with_bytes, &mut buffer)
        });
        count += 1;
        refused += usize::from(by_kernel.bytes.is_err() || by_kernel.names.is_err());
        for difference in by_kernel.differences(&by_fuse) {
            wrong.push(format!("/{}: {difference}", below.display()));
        }
        let names = by_kernel.names.unwrap_or_default();
        for name in names.iter().filter(|name| name.name != b"." && name.name != b"..").take(ASKED) {
            let name = std::os::unix::ffi::OsStrExt::from_bytes(&name.name[..]);
            left.push(below.join::<&std::ffi::OsStr>(name));
        }
    }
    if !wrong.is_empty() {
        let told: Vec<&str> = wrong.iter().take(TOLD).map(String::as_str).collect();
        bail!("{} differences in {count} names:\n{}", wrong.len(), told.join("\n"));
    }
    Ok(format!("{count} names, {refused} of them closed"))
}

/// All that `statfs` says but the type and the number of the filesystem.
fn statfs(image: &Image) -> Result<String> {
    let (kernel, fuse) = both(image)?;
    let [of_kernel, of_fuse] = [kernel.path(), fuse.path()].map(|path| {
        let found = rustix::fs::statfs(path)?;
        let blocks = [found.f_blocks, found.f_bfree, found.f_bavail, found.f_files, found.f_ffree];
        Ok::<_, Errno>((blocks, found.f_bsize, found.f_frsize, found.f_namelen))
    });
    ensure!(of_kernel.is_ok() && of_kernel == of_fuse, "by the kernel {of_kernel:?}, by FUSE {of_fuse:?}");
    kernel.unmount()?;
    fuse.unmount()?;
    Ok(format!("{of_kernel:?}"))
}
