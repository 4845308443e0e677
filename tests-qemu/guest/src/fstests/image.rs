// SPDX-License-Identifier: GPL-2.0
//! Cases on the mounted image alone.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileExt, MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::fs::{
    linkat, mknodat, openat, renameat_with, statx, AtFlags, FileType, FlockOperation, IFlags, Mode, OFlags,
    RenameFlags, StatxAttributes, StatxFlags, CWD,
};
use rustix::io::Errno;
use tesserafs_guest::cases;

use super::{
    alike, attribute, attributes, copied_by_data, first_names, holds, kinds, listing, lists, look, open,
    permissions, refused, same, scratch, Case,
};
use crate::mounts::drop_caches;
use crate::sys::{self, Mapping, WritableMapping};

pub(super) const CASES: &[Case] = &[
    ("generic-002-link-counts", link_counts),
    ("generic-005-too-many-symlinks", too_many_symlinks),
    ("generic-007-names-that-are-there-and-not", names),
    ("generic-020-attributes-that-are-not-there", attributes_not_there),
    ("generic-028-paths-while-caches-are-dropped", paths),
    ("generic-062-attributes-of-every-kind", attributes_of_every_kind),
    ("generic-079-flags-cannot-be-set", flags),
    ("generic-088-what-root-may", what_root_may),
    ("generic-097-attributes-for-root-alone", attributes_for_root),
    ("generic-099-access-control-lists", |image| lists(image, 0)),
    ("generic-105-a-list-without-search", list_without_search),
    ("generic-126-permissions", |image| permissions(image, Err(Errno::ROFS))),
    ("generic-130-small-vectors", small_vectors),
    ("generic-141-mapped-in-the-middle", mapped_in_the_middle),
    ("generic-248-written-from-a-mapping", written_from_a_mapping),
    ("generic-249-sendfile", sendfile),
    ("generic-258-before-1970", before_1970),
    ("generic-286-copied-by-data", |image| {
        let data = copied_by_data(&image.join("data/sparse"), &cases::sparse())?;
        ensure!(data < cases::SPARSE as u64 / 4, "{data} bytes of data in a file of holes");
        Ok(format!("{data} of {} bytes", cases::SPARSE))
    }),
    ("generic-294-exists-before-read-only", exists_before_read_only),
    ("generic-310-two-threads-one-directory", two_threads_one_directory),
    ("generic-337-all-attributes-are-listed", all_attributes),
    ("generic-360-a-symlink-of-1019-bytes", long_symlink),
    ("generic-377-lists-and-buffers", lists_and_buffers),
    ("generic-378-permissions-of-hard-links", permissions_of_hard_links),
    ("generic-401-kinds-in-directories", |image| kinds(image, true)),
    ("generic-423-statx", statx_of_kinds),
    ("generic-434-copy-file-range-refuses", copy_file_range_refuses),
    ("generic-450-reads-around-the-end", reads_around_the_end),
    ("generic-453-names-that-look-alike", |image| alike(image).map(|()| String::new())),
    ("generic-454-attributes-that-look-alike", attributes_alike),
    ("generic-467-handles-give-the-bytes", handles_give_the_bytes),
    ("generic-478-locks-of-open-files", locks),
    ("generic-504-proc-locks", proc_locks),
    ("generic-523-a-slash-in-an-attribute", slash),
    ("generic-528-no-time-of-birth", no_time_of_birth),
    ("generic-532-attributes-of-statx", attributes_of_statx),
    ("generic-565-copy-file-range-to-another-file-system", copy_to_another),
    ("generic-571-leases", leases),
    ("generic-597-protected-symlinks", protected_symlinks),
    ("generic-676-any-position-of-a-directory", any_position),
    ("generic-680-pipes-do-not-write-to-files", pipes),
    ("names-and-paths-that-are-too-long", too_long),
    ("mapped-beyond-the-end-is-sigbus", beyond_the_end),
    ("written-mappings-stay-private", private_mappings),
];

/// 002 makes twenty names of a file and looks at its link count each time; here they are there already.
fn link_counts(image: &Path) -> Result<String> {
    let first = look(&image.join("links/name-01"))?;
    for number in 1..=cases::LINKS {
        let name = look(&image.join(format!("links/name-{number:02}")))?;
        ensure!(name.ino() == first.ino(), "name {number} is of another inode");
        ensure!(name.nlink() == u64::from(cases::LINKS), "{} links by name {number}", name.nlink());
    }
    Ok(String::new())
}

/// 005 makes fifty symlinks, each to the one before, and one to itself: following them ends with an error, not
/// with the stack. Linux follows forty.
fn too_many_symlinks(image: &Path) -> Result<String> {
    const FOLLOWED: usize = 40;
    for number in 0..cases::CHAIN {
        let path = image.join(format!("links/chain-{number:02}"));
        if number < FOLLOWED {
            holds(&path, b"the end of the chain\n")?;
        } else {
            refused(&format!("following {} symlinks", number + 1), File::open(&path), &[Errno::LOOP])?;
        }
    }
    refused("following a symlink to itself", File::open(image.join("links/self")), &[Errno::LOOP])?;
    Ok(String::new())
}

/// 007 looks names up in random order and knows which there are; here nobody changes them meanwhile.
fn names(image: &Path) -> Result<String> {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..3000 {
        let number = random.usize(0..2 * cases::CROWD);
        let path = image.join(format!("crowd/{number}"));
        if number < cases::CROWD {
            ensure!(look(&path)?.len() == 0, "{} is not empty", path.display());
        } else {
            refused(&format!("looking at {}", path.display()), path.symlink_metadata(), &[Errno::NOENT])?;
        }
    }
    Ok(String::new())
}

/// 020 goes round the attributes of one file: the ones that are not there, a list of none, names that are too long,
/// buffers that are too small.
fn attributes_not_there(image: &Path) -> Result<String> {
    let (none, three) = (image.join("attributes/none"), image.join("attributes/three"));
    ensure!(attributes(&none).context("failed to list")?.is_empty(), "a file without attributes has some");
    for path in [&none, &three] {
        for name in ["user.nonexistent", "user.", "user.fo", "user.fooo", "trusted.foo", "system.foo"] {
            refused(name, attribute(path, name), &[Errno::NODATA, Errno::OPNOTSUPP, Errno::INVAL])?;
        }
        refused("user.nonexistent", attribute(path, "user.nonexistent"), &[Errno::NODATA])?;
        let long = format!("user.{}", "X".repeat(300));
        refused("a name of 305 bytes", attribute(path, &long), &[Errno::RANGE])?;
    }
    ensure!(attribute(&three, "user.ping") == Ok(b"pong".to_vec()), "another value");
    let length = rustix::fs::lgetxattr_query(&three, "user.ping");
    ensure!(length == Ok(4), "a value of {length:?} bytes");
    let mut small = [0; 3];
    refused("a buffer of 3 bytes", rustix::fs::lgetxattr(&three, "user.ping", &mut small), &[Errno::RANGE])?;
    refused("no file", attribute(&image.join("attributes/missing"), "user.ping"), &[Errno::NOENT])?;
    Ok(String::new())
}

/// 028 asks for the path of the current folder while names around it come and go: it is always the right one.
/// Here it is that of an open file, and the caches are dropped meanwhile.
fn paths(image: &Path) -> Result<String> {
    let deep = (0..60).fold(image.join("deep"), |path, level| path.join(format!("level-{level}")));
    let expected = deep.join("bottom");
    let file = open(&expected)?;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let dropper = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                drop_caches()?;
                look(&expected)?;
            }
            Ok(())
        });
        let asked = (0..2000).try_for_each(|_| {
            let found = std::fs::read_link(&link).context("failed to ask for a path")?;
            ensure!(found == expected, "{} instead", found.display());
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        dropper.join().map_err(|_| anyhow!("a thread panicked"))?.and(asked)
    })?;
    Ok(String::new())
}

/// 062 sets attributes of every kind of file, lists and reads them, with and without following symlinks.
fn attributes_of_every_kind(image: &Path) -> Result<String> {
    for kind in ["f", "d", "l", "p", "s"] {
        let path = image.join("kinds").join(kind);
        let names = attributes(&path).with_context(|| format!("failed to list those of {kind}"))?;
        ensure!(names == ["trusted.kind"], "{kind} has {names:?}");
        let value =
            attribute(&path, "trusted.kind").with_context(|| format!("failed to read that of {kind}"))?;
        ensure!(value == kind.as_bytes(), "that of {kind} is {}", value.escape_ascii());
        refused(kind, attribute(&path, "trusted.other"), &[Errno::NODATA])?;
    }
    let mut value = [0; 8];
    let length =
        rustix::fs::getxattr(image.join("kinds/l"), "trusted.kind", &mut value).context("followed")?;
    ensure!(&value[..length] == b"f", "the symlink is not followed");
    Ok(String::new())
}

/// 079 sets the flags "immutable" and "append-only" and sees what they forbid. A file of an image has none, and none
/// can be set.
fn flags(image: &Path) -> Result<String> {
    for name in ["data/file", "kinds/d"] {
        let file = open(&image.join(name))?;
        let found = rustix::fs::ioctl_getflags(&file).context("failed to get flags")?;
        ensure!(found.is_empty(), "{name} has {found:?}");
        for flags in [IFlags::IMMUTABLE, IFlags::APPEND, IFlags::empty()] {
            refused(name, rustix::fs::ioctl_setflags(&file, flags), &[Errno::ROFS])?;
        }
    }
    Ok(String::new())
}

/// 088 sees what root may do with files on which nobody has any right: read them and search folders, but run
/// nothing that has no bit for it.
fn what_root_may(image: &Path) -> Result<String> {
    let nothing = image.join("modes/000");
    ensure!(!std::fs::read(&nothing).context("root cannot read")?.is_empty(), "an empty file");
    refused("running what nobody may run", Command::new(&nothing).status(), &[Errno::ACCESS])?;
    let status = Command::new(image.join("modes/001")).status().context("root cannot run what others may")?;
    ensure!(status.success(), "the program ended with {status}");
    holds(&image.join("owned/closed/file"), b"behind a closed door\n")?;
    let path = image.join("owned/closed/file");
    let read = sys::acting_as(1000, &[1000], || File::open(&path)).context("failed to act as a user")?;
    refused("searching as a user", read, &[Errno::ACCESS])?;
    Ok(String::new())
}

/// 097 sets, lists and reads attributes of users and of root; those are not seen by anybody else.
fn attributes_for_root(image: &Path) -> Result<String> {
    let path = image.join("attributes/both");
    let ask = || (attributes(&path), attribute(&path, "trusted.colour"), attribute(&path, "user.colour"));
    let (names, root, user) = ask();
    let all = ["trusted.colour", "user.colour", "user.empty"];
    ensure!(names.as_ref().is_ok_and(|names| names == &all), "root sees {names:?}");
    ensure!(root == Ok(b"maroon".to_vec()) && user == Ok(b"beige".to_vec()), "root reads {root:?}, {user:?}");
    ensure!(attribute(&path, "user.empty") == Ok(Vec::new()), "an empty value is not empty");
    let (names, root, user) = sys::acting_as(1000, &[1000], ask).context("failed to act as a user")?;
    ensure!(names.as_ref().is_ok_and(|names| names == &all[1..]), "a user sees {names:?}");
    ensure!(root == Err(Errno::NODATA), "a user reads {root:?}");
    ensure!(user == Ok(b"beige".to_vec()), "a user reads {user:?}");
    Ok(String::new())
}

/// 105 gives a folder a list in which nobody may search: its owner cannot reach a file in it, root can.
fn list_without_search(image: &Path) -> Result<String> {
    let path = image.join("acl/not-searched/file");
    look(&path)?;
    let found =
        sys::acting_as(100, &[100], || path.symlink_metadata()).context("failed to act as the owner")?;
    refused("searching as the owner", found, &[Errno::ACCESS])?;
    Ok(String::new())
}

/// 130 reads in vectors of single bytes around the ends of pages and holes.
fn small_vectors(image: &Path) -> Result<String> {
    let whole = cases::bytes(0, cases::FILE);
    let file = open(&image.join("data/file"))?;
    for start in [0, 4090, 65_530, 131_070, cases::FILE - 8] {
        let mut bytes = [0; 16];
        let mut parts: Vec<IoSliceMut<'_>> = bytes.chunks_mut(1).map(IoSliceMut::new).collect();
        let length =
            rustix::io::preadv(&file, &mut parts, start as u64).context("failed to read a vector")?;
        let expected = &whole[start..cases::FILE.min(start + 16)];
        same(&format!("16 vectors at {start}"), &bytes[..length], expected)?;
    }
    let sparse = open(&image.join("data/sparse"))?;
    let mut hole = [1; 3000];
    sparse.read_exact_at(&mut hole, (cases::STRIDE - 4000) as u64).context("failed to read a hole")?;
    ensure!(hole == [0; 3000], "a hole is not zero");
    Ok(String::new())
}

/// 141 maps 64 KiB in the middle of a file and reads them backwards.
fn mapped_in_the_middle(image: &Path) -> Result<String> {
    let file = open(&image.join("data/file"))?;
    let mapping = Mapping::at(&file, 65_536, 65_536).context("failed to map")?;
    let mut found = vec![0; mapping.bytes().len()];
    for (place, byte) in mapping.bytes().iter().enumerate().rev() {
        found[place] = *byte;
    }
    same("the mapping", &found, &cases::bytes(0, cases::FILE)[65_536..131_072])?;
    Ok(String::new())
}

/// 248 writes to a file from a mapping whose pages are not there yet, so that they are read within the write.
fn written_from_a_mapping(image: &Path) -> Result<String> {
    let copy = scratch("fstests-mapped")?;
    let file = open(&image.join("data/file"))?;
    let mapping = Mapping::new(&file, cases::FILE).context("failed to map")?;
    drop_caches()?;
    std::fs::write(&copy, mapping.bytes()).context("failed to write from a mapping")?;
    holds(&copy, &cases::bytes(0, cases::FILE))?;
    Ok(String::new())
}

/// 249 copies a file by `sendfile`.
fn sendfile(image: &Path) -> Result<String> {
    let copy = scratch("fstests-sent")?;
    let (from, to) = (open(&image.join("data/file"))?, File::create_new(&copy).context("failed to create")?);
    let (mut sent, mut calls) = (0, 0);
    while sent < cases::FILE as u64 {
        let n = rustix::fs::sendfile(&to, &from, Some(&mut sent), cases::FILE).context("sendfile failed")?;
        ensure!(n > 0, "nothing is sent at {sent}");
        calls += 1;
    }
    holds(&copy, &cases::bytes(0, cases::FILE))?;
    Ok(format!("{calls} calls"))
}

/// 258 sets a time before 1970, and sees whether it is still before 1970 after another mount.
fn before_1970(image: &Path) -> Result<String> {
    let found = look(&image.join("data/1960"))?.mtime();
    ensure!(found == cases::YEAR_1960, "{found}");
    Ok(String::new())
}

/// 294 makes files that are there already on a read-only file system: the error is that they are there.
fn exists_before_read_only(image: &Path) -> Result<String> {
    let at = |name: &str| image.join(name);
    let node = |path: &Path| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
    for (target, expected) in [("kinds/f", Errno::EXIST), ("kinds/new", Errno::ROFS)] {
        let target = at(target);
        refused("mkdir", std::fs::create_dir(&target), &[expected])?;
        refused("mknod", node(&target), &[expected])?;
        refused("symlink", symlink("f", &target), &[expected])?;
        refused("link", std::fs::hard_link(at("kinds/f"), &target), &[expected])?;
        refused("open to create", File::create_new(&target), &[expected])?;
    }
    // The file need not be made: this is no more than reading.
    let flags = OFlags::RDONLY | OFlags::CREATE;
    openat(CWD, at("kinds/f"), flags, Mode::from_raw_mode(0o600)).context("open with O_CREAT")?;
    refused("O_CREAT", openat(CWD, at("new"), flags, Mode::from_raw_mode(0o600)), &[Errno::ROFS])?;
    // 004 opens files without a name, 023, 024, 025 and 078 rename in all manners.
    let flags = OFlags::RDWR | OFlags::TMPFILE;
    refused("O_TMPFILE", openat(CWD, image, flags, Mode::from_raw_mode(0o600)), &[Errno::ROFS])?;
    for flags in [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE, RenameFlags::WHITEOUT]
    {
        let result = renameat_with(CWD, at("data/file"), CWD, at("data/other"), flags);
        refused(&format!("rename with {flags:?}"), result, &[Errno::ROFS])?;
    }
    let file = open(&at("data/file"))?;
    let (from, to) = (format!("/proc/self/fd/{}", file.as_raw_fd()), at("data/again"));
    refused("linkat", linkat(CWD, from, CWD, to, AtFlags::SYMLINK_FOLLOW), &[Errno::ROFS, Errno::XDEV])?;
    Ok(String::new())
}

/// 310 lists a folder on one thread and moves the position of the same open folder on another.
fn two_threads_one_directory(image: &Path) -> Result<String> {
    let directory = open(&image.join("crowd"))?;
    let done = AtomicBool::new(false);
    let listed = std::thread::scope(|scope| {
        let mover = scope.spawn(|| -> Result<u32> {
            let (mut random, mut moves) = (fastrand::Rng::with_seed(310), 0);
            while !done.load(Ordering::Relaxed) {
                (&directory).seek(SeekFrom::Start(random.u64(0..1100))).context("failed to seek")?;
                refused("reading a directory", (&directory).read(&mut [0; 16]), &[Errno::ISDIR])?;
                moves += 1;
            }
            Ok(moves)
        });
        let mut listed = 0;
        let result = (0..200).try_for_each(|_| -> Result<()> {
            (&directory).seek(SeekFrom::Start(0)).context("failed to rewind")?;
            for entry in first_names(&directory, 512, 5000).context("failed to list")? {
                is_of_the_crowd(&entry.name)?;
                listed += 1;
            }
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        let moves = mover.join().map_err(|_| anyhow!("a thread panicked"))??;
        result.map(|()| format!("{listed} names, {moves} moves"))
    })?;
    Ok(listed)
}

fn is_of_the_crowd(name: &[u8]) -> Result<()> {
    if name == b"." || name == b".." {
        return Ok(());
    }
    let number: usize = std::str::from_utf8(name)
        .ok()
        .and_then(|name| name.parse().ok())
        .with_context(|| format!("{} is no name there", name.escape_ascii()))?;
    ensure!(number < cases::CROWD, "{number} is no name there");
    Ok(())
}

/// 337 sets attributes whose names have one checksum: none of them hides another.
fn all_attributes(image: &Path) -> Result<String> {
    let path = image.join("attributes/five");
    let mut expected = cases::FIVE.map(|(name, _)| name);
    expected.sort_unstable();
    let names = attributes(&path).context("failed to list")?;
    ensure!(names == expected, "{names:?}");
    for (name, value) in cases::FIVE {
        ensure!(attribute(&path, name) == Ok(value.to_vec()), "{name} has another value");
    }
    Ok(String::new())
}

/// 360 makes a symlink to a path that is too long for an inode, and reads it back.
fn long_symlink(image: &Path) -> Result<String> {
    let path = image.join("links/long");
    let part = "a".repeat(254);
    let target = std::fs::read_link(&path).context("failed to read a symlink")?;
    ensure!(target == Path::new(&[&part[..]; 4].join("/")), "a target of {} bytes", target.as_os_str().len());
    ensure!(look(&path)?.len() == target.as_os_str().len() as u64, "another length");
    // As much as there is room for.
    let mut short = [0_u8; 100];
    let filled = rustix::fs::readlinkat_raw(CWD, &path, &mut short[..]).context("failed to read a part")?;
    ensure!(short[..filled] == target.as_os_str().as_bytes()[..100], "another part");
    Ok(String::new())
}

/// 377 lists attributes into buffers that are too small for one name, for all names, and large enough.
fn lists_and_buffers(image: &Path) -> Result<String> {
    let path = image.join("attributes/three");
    let needed: usize = cases::THREE.iter().map(|(name, _)| name.len() + 1).sum();
    ensure!(rustix::fs::listxattr_query(&path) == Ok(needed), "another length than {needed}");
    for length in [1, 9, 11, needed - 1] {
        let result = rustix::fs::listxattr(&path, &mut vec![0_u8; length][..]);
        refused(&format!("a buffer of {length} bytes"), result, &[Errno::RANGE])?;
    }
    for length in [needed, 500] {
        let result = rustix::fs::listxattr(&path, &mut vec![0_u8; length][..]);
        ensure!(result == Ok(needed), "a buffer of {length} bytes gives {result:?}");
    }
    refused("no file", rustix::fs::listxattr(image.join("no"), &mut [0_u8; 9][..]), &[Errno::NOENT])?;
    Ok(String::new())
}

/// 378 takes the right to read from a file with two names: it is gone from both.
fn permissions_of_hard_links(image: &Path) -> Result<String> {
    for name in ["owned/secret", "owned/secret-too"] {
        let path = image.join(name);
        open(&path)?;
        let read = sys::acting_as(1000, &[1000], || File::open(&path)).context("failed to act as a user")?;
        refused(name, read, &[Errno::ACCESS])?;
    }
    Ok(String::new())
}

/// 423 asks `statx` about a file of each kind.
fn statx_of_kinds(image: &Path) -> Result<String> {
    let expected = [
        ("f", FileType::RegularFile, 0o644, Some(15)),
        ("d", FileType::Directory, 0o755, None),
        ("l", FileType::Symlink, 0o777, Some(1)),
        ("p", FileType::Fifo, 0o600, Some(0)),
        ("s", FileType::Socket, 0o600, Some(0)),
        ("w", FileType::CharacterDevice, 0o600, Some(0)),
    ];
    let mut inodes = Vec::new();
    for (name, kind, mode, size) in expected {
        let path = image.join("kinds").join(name);
        let found = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)
            .with_context(|| format!("failed to ask about {name}"))?;
        let type_of = FileType::from_raw_mode(found.stx_mode.into());
        // All but the time of access, which is that of the last change and said to be no news.
        let known = StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME).bits();
        let mask = found.stx_mask & StatxFlags::BASIC_STATS.bits();
        ensure!(mask == known, "{name}: {mask:#x} is known");
        ensure!(type_of == kind, "{name} is a {type_of:?}");
        ensure!(found.stx_mode & 0o7777 == mode, "{name} has mode {:o}", found.stx_mode);
        ensure!((found.stx_rdev_major, found.stx_rdev_minor) == (0, 0), "{name} has a device number");
        let links = if name == "d" { 2 } else { 1 };
        ensure!(found.stx_nlink == links, "{name} has {} links", found.stx_nlink);
        ensure!(size.is_none_or(|size| size == found.stx_size), "{name} has {} bytes", found.stx_size);
        ensure!(found.stx_blksize == 4096, "{name} has blocks of {}", found.stx_blksize);
        let stat = look(&path)?;
        ensure!(
            stat.ino() == found.stx_ino && stat.mode() == u32::from(found.stx_mode),
            "{name}: not as stat says"
        );
        inodes.push(found.stx_ino);
    }
    inodes.sort_unstable();
    inodes.dedup();
    ensure!(inodes.len() == expected.len(), "two of one inode");
    Ok(String::new())
}

/// 528 sees whether the time of birth is about now. An image has none, and none is made up.
fn no_time_of_birth(image: &Path) -> Result<String> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let found = statx(CWD, image.join("data/file"), AtFlags::empty(), flags).context("statx failed")?;
    ensure!(found.stx_mask & StatxFlags::BTIME.bits() == 0, "born at {}", found.stx_btime.tv_sec);
    Ok(String::new())
}

/// 532 looks at the attributes of `statx`: only those are set that are said to be known.
fn attributes_of_statx(image: &Path) -> Result<String> {
    let ask = |path: &Path| statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS);
    for name in ["data/file", "kinds/d", "."] {
        let found = ask(&image.join(name)).with_context(|| format!("failed to ask about {name}"))?;
        let (set, known) = (found.stx_attributes, found.stx_attributes_mask);
        ensure!(!known.is_empty(), "{name}: no attribute is known");
        ensure!(known.contains(set), "{name}: {set:?} of {known:?}");
        let is_root = name == ".";
        ensure!(set.contains(StatxAttributes::MOUNT_ROOT) == is_root, "{name}: {set:?}");
    }
    Ok(String::new())
}

/// 434 and 564 copy by `copy_file_range` what it cannot copy: from behind the end, to a file that is open for
/// reading or at its end, from a directory.
fn copy_file_range_refuses(image: &Path) -> Result<String> {
    let path = scratch("fstests-range")?;
    let source = open(&image.join("data/file"))?;
    File::create_new(&path).context("failed to create a file")?;
    let copy = |from: &File, to: &File| rustix::fs::copy_file_range(from, None, to, None, 100);
    refused("to a file open for reading", copy(&source, &open(&path)?), &[Errno::BADF])?;
    let end = File::options().append(true).open(&path).context("failed to open")?;
    refused("to the end of a file", copy(&source, &end), &[Errno::BADF])?;
    let to = File::options().write(true).open(&path).context("failed to open")?;
    refused("from a directory", copy(&open(&image.join("kinds"))?, &to), &[Errno::ISDIR])?;
    refused("to the image", copy(&to, &source), &[Errno::BADF])?;
    ensure!(look(&path)?.len() == 0, "something was copied");
    Ok(String::new())
}

/// 565 copies by `copy_file_range` from one file system to another: those of two kinds leave that to the caller.
fn copy_to_another(image: &Path) -> Result<String> {
    let path = scratch("fstests-range")?;
    let to = File::create_new(&path).context("failed to create a file")?;
    let from = open(&image.join("data/file"))?;
    let result = rustix::fs::copy_file_range(&from, None, &to, None, cases::FILE);
    refused("to a tmpfs", result, &[Errno::XDEV])?;
    // Programs take this error as a reason to copy in another way.
    drop((from, to));
    std::fs::copy(image.join("data/file"), &path).context("failed to copy")?;
    holds(&path, &cases::bytes(0, cases::FILE))?;
    Ok(String::new())
}

/// 450 reads sectors around the end of a file that ends within a block, through the page cache and past it; for
/// the latter an image takes its page cache, too.
fn reads_around_the_end(image: &Path) -> Result<String> {
    let path = image.join("data/eof");
    let whole = cases::bytes(2, cases::EOF);
    let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(&path);
    for file in [open(&path)?, direct.context("failed to open for direct reads")?] {
        for (start, length, expected) in [
            (0, 512, 512),
            (4096, 4096, 3072),
            (cases::EOF - 1, 512, 1),
            (cases::EOF, 512, 0),
            (cases::EOF + 512, 512, 0),
            (100 * 4096, 512, 0),
        ] {
            let mut buffer = vec![0; length];
            let n = file.read_at(&mut buffer, start as u64).context("failed to read")?;
            ensure!(n == expected, "{n} bytes of {length} at {start}");
            let end = start + n;
            let found = whole.get(start..end).unwrap_or_default();
            same(&format!("{length} bytes at {start}"), &buffer[..n], found)?;
        }
    }
    Ok(String::new())
}

/// 454 gives a file attributes whose names look alike.
fn attributes_alike(image: &Path) -> Result<String> {
    let path = image.join("attributes/alike");
    for (number, name) in cases::ALIKE.iter().enumerate() {
        let name = [&b"user."[..], name].concat();
        let value = attribute(&path, OsStr::from_bytes(&name));
        ensure!(value == Ok(number.to_string().into_bytes()), "{} is {value:?}", name.escape_ascii());
    }
    let names = attributes(&path).context("failed to list")?;
    ensure!(names.len() == cases::ALIKE.len(), "{} names", names.len());
    Ok(String::new())
}

/// 467 opens files by handles and reads them; folders, too.
fn handles_give_the_bytes(image: &Path) -> Result<String> {
    let root = open(image)?;
    let mut file = sys::handle_of(&image.join("data/file")).context("no handle of a file")?;
    let mut folder = sys::handle_of(&image.join("crowd")).context("no handle of a folder")?;
    drop_caches()?;
    let mut bytes = Vec::new();
    sys::open_handle(&root, &mut file)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .context("failed to read by a handle")?;
    same("the file", &bytes, &cases::bytes(0, cases::FILE))?;
    let folder = sys::open_handle(&root, &mut folder).context("failed to open a folder by a handle")?;
    let names = listing(&folder, 4096).context("failed to list by a handle")?;
    ensure!(names.len() == cases::CROWD + 2, "{} names", names.len());
    // A folder that was found by its number finds the way up.
    let up = openat(&folder, "../data/other", OFlags::RDONLY, Mode::empty()).context("no way up")?;
    let mut text = String::new();
    File::from(up).read_to_string(&mut text).context("failed to read")?;
    ensure!(text == "another file\n", "another file");
    Ok(String::new())
}

/// 478 locks bytes for open files: those that are open for reading can be locked for reading.
fn locks(image: &Path) -> Result<String> {
    let path = image.join("data/file");
    let (first, second) = (open(&path)?, open(&path)?);
    sys::lock_bytes(&first, libc::F_RDLCK, 0, 10).context("failed to lock for reading")?;
    sys::lock_bytes(&second, libc::F_RDLCK, 5, 20).context("failed to lock for reading, too")?;
    refused("locking for writing", sys::lock_bytes(&first, libc::F_WRLCK, 0, 10), &[Errno::BADF])?;
    sys::lock_bytes(&first, libc::F_UNLCK, 0, 10).context("failed to unlock")?;
    // Locks of whole files are another matter: the mode of the open does not count.
    rustix::fs::flock(&first, FlockOperation::NonBlockingLockExclusive).context("failed to lock a file")?;
    let other = rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared);
    refused("a second lock", other, &[Errno::WOULDBLOCK])?;
    drop(first);
    rustix::fs::flock(&second, FlockOperation::NonBlockingLockShared)
        .context("the lock outlives its file")?;
    Ok(String::new())
}

/// 504 locks a file and finds it in /proc/locks by its inode number.
fn proc_locks(image: &Path) -> Result<String> {
    let file = open(&image.join("data/file"))?;
    let ino = file.metadata().context("failed to stat")?.ino();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).context("failed to lock a file")?;
    let shown = || -> Result<bool> {
        let locks = std::fs::read_to_string("/proc/locks").context("failed to read the locks")?;
        Ok(locks.lines().any(|line| line.contains("FLOCK") && line.contains(&format!(":{ino} "))))
    };
    ensure!(shown()?, "the lock of inode {ino} is not shown");
    drop(file);
    ensure!(!shown()?, "the lock of inode {ino} is still shown");
    Ok(String::new())
}

/// 571 takes leases and opens the files meanwhile. One for reading ends with a write, which never comes here.
fn leases(image: &Path) -> Result<String> {
    let path = image.join("data/file");
    let file = open(&path)?;
    sys::set_lease(&file, libc::F_RDLCK).context("failed to take a lease")?;
    ensure!(sys::lease(&file).ok() == Some(libc::F_RDLCK), "there is no lease");
    open(&path)?;
    let write = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    refused("opening for writing", write, &[Errno::ROFS])?;
    ensure!(sys::lease(&file).ok() == Some(libc::F_RDLCK), "the lease is gone");
    sys::set_lease(&file, libc::F_UNLCK).context("failed to give a lease back")?;
    ensure!(sys::lease(&file).ok() == Some(libc::F_UNLCK), "the lease is still there");
    Ok(String::new())
}

/// 523 gives an attribute a name with a slash.
fn slash(image: &Path) -> Result<String> {
    let path = image.join("attributes/slash");
    let names = attributes(&path).context("failed to list")?;
    ensure!(names == ["user.boo/hoo"], "{names:?}");
    ensure!(attribute(&path, "user.boo/hoo") == Ok(b"woof".to_vec()), "another value");
    Ok(String::new())
}

/// 597 has a sticky folder that everybody may write to, with a symlink of one user in it: where
/// `protected_symlinks` asks for it, nobody but that user follows the symlink.
fn protected_symlinks(image: &Path) -> Result<String> {
    const SWITCH: &str = "/proc/sys/fs/protected_symlinks";
    let before = std::fs::read(SWITCH).context("failed to read the switch")?;
    let path = image.join("sticky/link");
    let result = [("0", Ok(())), ("1", Err(Errno::ACCESS))].into_iter().try_for_each(|(on, expected)| {
        std::fs::write(SWITCH, on).context("failed to set the switch")?;
        for (user, expected) in [(1000, Ok(())), (2000, expected)] {
            let followed = sys::acting_as(user, &[user], || {
                File::open(&path).map(drop).map_err(|error| Errno::from_io_error(&error))
            });
            let followed = followed.context("failed to act as a user")?;
            ensure!(followed == expected.map_err(Some), "user {user} with {on} gets {followed:?}");
        }
        Ok(())
    });
    std::fs::write(SWITCH, before).context("failed to set the switch back")?;
    result.map(|()| String::new())
}

/// 676 goes to positions of a folder that are right and such that are not: every name that is listed from
/// there is in it.
fn any_position(image: &Path) -> Result<String> {
    let directory = open(&image.join("crowd"))?;
    let all = listing(&directory, 4096).context("failed to list")?;
    ensure!(all.len() == cases::CROWD + 2, "{} names", all.len());
    let mut random = fastrand::Rng::with_seed(676);
    let seek = |position: u64| (&directory).seek(SeekFrom::Start(position)).context("failed to seek");
    for _ in 0..300 {
        let index = random.usize(0..all.len());
        seek(all[index].next)?;
        let rest = listing(&directory, 300).context("failed to list from a position")?;
        ensure!(rest == all[index + 1..], "other names after number {index}");
    }
    let ends = [all.len() as u64, u64::from(u32::MAX), 1 << 32, (1 << 32) + 5, i64::MAX as u64];
    for position in ends.into_iter().chain((0..300).map(|_| random.u64(0..1 << 63))) {
        seek(position)?;
        for entry in listing(&directory, 300).with_context(|| format!("failed to list from {position}"))? {
            is_of_the_crowd(&entry.name)?;
        }
    }
    refused("a negative position", (&directory).seek(SeekFrom::Current(i64::MIN)), &[Errno::INVAL])?;
    seek(0)?;
    ensure!(listing(&directory, 4096).context("failed to list again")? == all, "other names than before");
    Ok(String::new())
}

/// 680 splices one byte of a file into a pipe whose buffers were in use, and writes to the pipe: the file's
/// page must stay as it is (CVE-2022-0847), for root and for a user.
fn pipes(image: &Path) -> Result<String> {
    let path = image.join("data/file");
    let expected = cases::bytes(0, cases::FILE);
    let attempt = || -> Result<()> {
        let file = open(&path)?;
        let (reader, writer) = rustix::pipe::pipe().context("failed to make a pipe")?;
        let (mut reader, mut writer) = (File::from(reader), File::from(writer));
        // All buffers are written to once, and emptied.
        let size = rustix::pipe::fcntl_getpipe_size(&writer).context("failed to ask for a size")?;
        writer.write_all(&vec![b'x'; size]).context("failed to fill the pipe")?;
        reader.read_exact(&mut vec![0; size]).context("failed to empty the pipe")?;
        let n =
            rustix::pipe::splice(&file, Some(&mut 0), &writer, None, 1, rustix::pipe::SpliceFlags::empty())
                .context("failed to splice")?;
        ensure!(n == 1, "{n} bytes were spliced");
        writer.write_all(b"AAAAAAAABBBBBBBB").context("failed to write to the pipe")?;
        Ok(())
    };
    attempt().context("as root")?;
    holds(&path, &expected)?;
    sys::acting_as(1000, &[1000], attempt).context("failed to act as a user")?.context("as a user")?;
    holds(&path, &expected)?;
    drop_caches()?;
    holds(&path, &expected)?;
    Ok(String::new())
}

/// Names of 255 bytes and paths of 4095 are the longest.
fn too_long(image: &Path) -> Result<String> {
    holds(&image.join("names").join("n".repeat(255)), b"255\n")?;
    let missing = image.join("names").join("m".repeat(255));
    refused("a name of 255 bytes", File::open(missing), &[Errno::NOENT])?;
    let long = image.join("names").join("n".repeat(256));
    refused("a name of 256 bytes", File::open(long), &[Errno::NAMETOOLONG])?;
    let path = |length: usize| {
        let name = "/data/other";
        let mut path = image.as_os_str().as_bytes().to_vec();
        path.extend(b"/".repeat(length - path.len() - name.len()));
        path.extend(name.bytes());
        path
    };
    holds(Path::new(OsStr::from_bytes(&path(4095))), b"another file\n")?;
    let path = path(4096);
    refused("a path of 4096 bytes", File::open(OsStr::from_bytes(&path)), &[Errno::NAMETOOLONG])?;
    Ok(String::new())
}

/// The rest of a file's last page can be read and is zero (`api/mmap`); the page behind it ends the reader.
fn beyond_the_end(image: &Path) -> Result<String> {
    let path = image.join("data/eof");
    let page = cases::EOF.next_multiple_of(4096);
    for (offset, signal) in [(cases::EOF - 1, None), (page - 1, None), (page, Some(libc::SIGBUS))] {
        let status = Command::new("/proc/self/exe")
            .arg("touch-mapped")
            .arg(&path)
            .arg(offset.to_string())
            .status()
            .context("failed to start a process")?;
        ensure!(status.signal() == signal, "byte {offset}: {status}");
        ensure!(signal.is_some() || status.success(), "byte {offset}: {status}");
    }
    Ok(String::new())
}

/// Bytes that are written to a private mapping are in no file, and in no other mapping; a shared one cannot
/// be written to.
fn private_mappings(image: &Path) -> Result<String> {
    let expected = cases::bytes(0, cases::FILE);
    let file = open(&image.join("data/file"))?;
    if WritableMapping::shared(&file, 4096).is_ok() {
        bail!("a file of the image is mapped for writing");
    }
    let (one, other) = (
        WritableMapping::private(&file, cases::FILE).context("failed to map")?,
        WritableMapping::private(&file, cases::FILE).context("failed to map again")?,
    );
    one.write(5000, b"written");
    ensure!(&one.read(5007)[5000..] == b"written", "what is written is lost");
    same("another mapping", &other.read(cases::FILE), &expected)?;
    holds(&image.join("data/file"), &expected)?;
    drop_caches()?;
    ensure!(&one.read(5007)[5000..] == b"written", "what is written goes with the caches");
    Ok(String::new())
}
