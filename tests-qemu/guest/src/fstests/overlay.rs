// SPDX-License-Identifier: GPL-2.0
//! Cases on an overlay whose lower layer is the image: the files that they write to come from there.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{chown, DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{anyhow, ensure, Context, Result};
use rustix::fs::{
    fallocate, linkat, lsetxattr, openat, renameat_with, utimensat, AtFlags, FallocateFlags, IFlags, Mode,
    OFlags, RenameFlags, Timespec, Timestamps, XattrFlags, CWD, UTIME_NOW,
};
use rustix::io::Errno;
use tesserafs_guest::cases::{self, acl, For, ACL_ACCESS, ACL_DEFAULT};

use super::{
    alike, attribute, attributes, copied_by_data, holds, kinds, listing, lists, look, names_in, open,
    open_both, permissions, refused, same, tmpfs, Layers,
};
use crate::mounts::{drop_caches, Mount};
use crate::sys::{self, Mapping, WritableMapping};

/// A name, and what is done with the layers.
type Case = (&'static str, fn(&Layers) -> Result<String>);

/// Options of an overlay that keeps hard links, numbers and handles over changes.
const INDEXED: &str = ",index=on,nfs_export=on,xino=on";

/// Options of an overlay that copies no more than it must.
const FRUGAL: &str = ",metacopy=on,redirect_dir=on";

pub(super) const CASES: &[Case] = &[
    ("generic-002-on-overlay-link-counts", link_counts),
    ("generic-004-on-overlay-files-without-a-name", files_without_a_name),
    ("generic-007-on-overlay-names-that-come-and-go", names_come_and_go),
    ("generic-023-on-overlay-renames", renames),
    ("generic-029-on-overlay-mapped-writes-and-truncation", mapped_writes),
    ("generic-035-on-overlay-overwritten-while-open", overwritten),
    ("generic-037-on-overlay-attributes-change-at-once", attributes_at_once),
    ("generic-075-on-overlay-random-changes-of-a-file", random_changes),
    ("generic-079-on-overlay-immutable", immutable),
    ("generic-084-on-overlay-no-link-to-what-is-removed", no_link_to_removed),
    ("generic-087-on-overlay-who-may-set-times", who_may_set_times),
    ("generic-097-on-overlay-attributes-are-changed", attributes_changed),
    ("generic-099-on-overlay-access-control-lists", |layers| lists(layers.path(), 0)),
    ("generic-123-on-overlay-a-user-changes-nothing-of-root", user_changes_nothing),
    ("generic-126-on-overlay-permissions", |layers| permissions(layers.path(), Ok(()))),
    ("generic-169-on-overlay-appended", appended),
    ("generic-193-on-overlay-who-may-set-attributes", who_may_set_attributes),
    ("generic-236-on-overlay-a-link-changes-the-time", link_changes_time),
    ("generic-237-on-overlay-a-list-of-somebody-else", list_of_somebody_else),
    ("generic-245-on-overlay-onto-a-folder-that-is-not-empty", onto_not_empty),
    ("generic-255-on-overlay-punched", punched),
    ("generic-258-on-overlay-before-1970", before_1970),
    ("generic-286-on-overlay-holes-stay-holes", holes),
    ("generic-307-on-overlay-a-list-changes-the-time", list_changes_time),
    ("generic-309-on-overlay-times-of-a-folder", times_of_a_folder),
    ("generic-313-on-overlay-truncation-changes-the-time", truncation_changes_time),
    ("generic-314-on-overlay-set-group-id-is-inherited", set_group_id_inherited),
    ("generic-319-on-overlay-default-lists-are-inherited", default_lists),
    ("generic-355-on-overlay-writes-clear-set-ids", writes_clear_set_ids),
    ("generic-375-on-overlay-changes-clear-set-group-id", changes_clear_set_group_id),
    ("generic-401-on-overlay-kinds-in-directories", kinds_of_both),
    ("generic-430-on-overlay-copy-file-range", copy_file_range),
    ("generic-444-on-overlay-set-group-id-with-default-lists", set_group_id_with_lists),
    ("generic-453-on-overlay-names-that-look-alike", |layers| alike(layers.path()).map(|()| String::new())),
    ("generic-478-on-overlay-locks-of-open-files", locks),
    ("generic-631-on-overlay-whiteouts-of-many", whiteouts_of_many),
    ("generic-637-on-overlay-changes-show-in-a-new-listing", changes_show),
    ("generic-683-on-overlay-allocation-clears-set-ids", allocation_clears_set_ids),
    ("generic-736-on-overlay-renamed-while-listing", renamed_while_listing),
    ("generic-426-on-overlay-handles-and-hard-links-with-an-index", indexed),
    ("overlay-copies-no-more-than-it-must", frugal),
    ("overlay-reads-and-copies-beside-each-other", beside_each_other),
];

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

fn mode(path: &Path) -> Result<u32> {
    Ok(look(path)?.mode() & 0o7777)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).context("failed to set a mode")
}

fn times(path: &Path) -> Result<[(i64, i64); 2]> {
    let stat = look(path)?;
    Ok([(stat.mtime(), stat.mtime_nsec()), (stat.ctime(), stat.ctime_nsec())])
}

/// Does something as a user, and fails unless it gives what is expected.
fn as_user<T: Send>(
    who: (u32, &[u32]),
    what: &str,
    expected: Result<(), &[Errno]>,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> Result<()> {
    let result = sys::acting_as(who.0, who.1, work).context("failed to act as a user")?;
    let what = format!("{what} as user {} of groups {:?}", who.0, who.1);
    match expected {
        Ok(()) => result.map(drop).context(what),
        Err(errnos) => refused(&what, result, errnos),
    }
}

/// 002: the count follows each link that is made and removed; the lower file is copied up by the first.
fn link_counts(layers: &Layers) -> Result<String> {
    let at = |number: u64| layers.path().join(format!("links/new-{number}"));
    let first = layers.path().join("data/other");
    ensure!(look(&first)?.nlink() == 1, "the lower file has another name");
    for number in 2..=20 {
        std::fs::hard_link(&first, at(number)).context("failed to link")?;
        ensure!(look(&first)?.nlink() == number, "{} links after {number}", look(&first)?.nlink());
    }
    holds(&at(20), b"another file\n")?;
    for number in (2..=20).rev() {
        ensure!(look(&first)?.nlink() == number, "{} links before {number} goes", look(&first)?.nlink());
        std::fs::remove_file(at(number)).context("failed to remove a link")?;
    }
    holds(&first, b"another file\n")?;
    Ok(String::new())
}

/// 004: a file without a name is written, read, and gets one, in a folder of the image.
fn files_without_a_name(layers: &Layers) -> Result<String> {
    let folder = layers.path().join("kinds/d");
    let file = openat(CWD, &folder, OFlags::RDWR | OFlags::TMPFILE, Mode::from_raw_mode(0o600))
        .context("failed to open a file without a name")?;
    let file = File::from(file);
    file.write_all_at(&cases::bytes(4, 4096), 0).context("failed to write")?;
    ensure!(names_in(&folder)?.is_empty(), "it has a name");
    let (from, to) = (format!("/proc/self/fd/{}", file.as_raw_fd()), folder.join("named"));
    linkat(CWD, from, CWD, &to, AtFlags::SYMLINK_FOLLOW).context("failed to give it a name")?;
    holds(&to, &cases::bytes(4, 4096))?;
    let read_only = openat(CWD, &folder, OFlags::RDONLY | OFlags::TMPFILE, Mode::from_raw_mode(0o600));
    refused("one that is open for reading", read_only, &[Errno::INVAL])?;
    Ok(String::new())
}

/// 006, 007 and 011: names are made, removed, renamed and looked up at random; the names that must be there
/// are known. Half of them are of the image, so whiteouts come and go.
fn names_come_and_go(layers: &Layers) -> Result<String> {
    const NAMES: usize = 2 * cases::CROWD;
    let folder = layers.path().join("crowd");
    let mut random = fastrand::Rng::with_seed(7);
    let mut known: BTreeSet<String> = (0..cases::CROWD).map(|number| number.to_string()).collect();
    for _ in 0..2500 {
        let [name, other] = [random.usize(0..NAMES).to_string(), random.usize(0..NAMES).to_string()];
        let path = folder.join(&name);
        let there = known.contains(&name);
        match random.u32(0..4) {
            0 => match File::create_new(&path) {
                Ok(_) => ensure!(known.insert(name), "{} was there", path.display()),
                result => {
                    ensure!(there, "{} is not there", path.display());
                    refused("creating", result, &[Errno::EXIST])?;
                }
            },
            1 => match std::fs::remove_file(&path) {
                Ok(()) => ensure!(known.remove(&name), "{} was not there", path.display()),
                result => {
                    ensure!(!there, "{} is there", path.display());
                    refused("removing", result, &[Errno::NOENT])?;
                }
            },
            2 => match std::fs::rename(&path, folder.join(&other)) {
                Ok(()) => {
                    ensure!(known.remove(&name), "{} was not there", path.display());
                    known.insert(other);
                }
                result => {
                    ensure!(!there, "{} is there", path.display());
                    refused("renaming", result, &[Errno::NOENT])?;
                }
            },
            _ => ensure!(path.exists() == there, "{} is there: {}", path.display(), !there),
        }
    }
    let mut expected: Vec<String> = known.into_iter().collect();
    expected.sort();
    ensure!(names_in(&folder)? == expected, "other names in a list");
    layers.mount_again()?;
    ensure!(names_in(&folder)? == expected, "other names in another mount");
    ensure!(names_in(&layers.image.path().join("crowd"))?.len() == cases::CROWD, "the image has changed");
    Ok(format!("{} names", expected.len()))
}

/// 023, 024, 025 and 078: `renameat2` without flags, without replacing, exchanging, and leaving a whiteout (which is
/// the overlay's own business), from and onto names of the image.
fn renames(layers: &Layers) -> Result<String> {
    let at = |name: &str| layers.path().join(name);
    let rename = |from: &str, to: &str, flags| renameat_with(CWD, at(from), CWD, at(to), flags);
    rename("data/other", "data/moved", RenameFlags::empty()).context("failed to rename")?;
    ensure!(!at("data/other").exists(), "the old name is there");
    rename("data/moved", "kinds/f", RenameFlags::empty()).context("failed to replace a lower file")?;
    holds(&at("kinds/f"), b"another file\n")?;

    let result = rename("kinds/f", "data/file", RenameFlags::NOREPLACE);
    refused("without replacing", result, &[Errno::EXIST])?;
    rename("kinds/f", "data/other", RenameFlags::NOREPLACE).context("failed to rename onto a whiteout")?;
    holds(&at("data/other"), b"another file\n")?;

    let lower = cases::bytes(2, cases::EOF);
    rename("data/other", "data/eof", RenameFlags::EXCHANGE).context("failed to exchange")?;
    holds(&at("data/eof"), b"another file\n")?;
    holds(&at("data/other"), &lower)?;
    let missing = rename("data/eof", "data/missing", RenameFlags::EXCHANGE);
    refused("exchanging with nothing", missing, &[Errno::NOENT])?;

    let whiteout = rename("data/eof", "data/white", RenameFlags::WHITEOUT);
    refused("leaving a whiteout", whiteout, &[Errno::INVAL])?;
    // A folder of the image cannot be moved without being told apart from its old place.
    refused("moving a lower folder", rename("kinds/d", "kinds/e", RenameFlags::empty()), &[Errno::XDEV])?;
    Ok(String::new())
}

/// 029: bytes that are written through a mapping stay while the file becomes shorter and longer again; behind
/// a new end there are zeros.
fn mapped_writes(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/eof");
    let mut model = cases::bytes(2, cases::EOF);
    let file = open_both(&path)?;
    let mapping = WritableMapping::shared(&file, 8192).context("failed to map")?;
    for (write_at, fill, shorter, again) in
        [(2048, b'Z', 2048, b'Y'), (2047, b'W', 2047, b'V'), (513, b'U', 5121, b'T')]
    {
        mapping.write(write_at, &[fill; 1025]);
        model[write_at..write_at + 1025].fill(fill);
        file.set_len(shorter).context("failed to truncate")?;
        file.set_len(cases::EOF as u64).context("failed to lengthen")?;
        model[shorter as usize..].fill(0);
        mapping.write(3000, &[again; 100]);
        model[3000..3100].fill(again);
        same("the mapping", &mapping.read(cases::EOF), &model)?;
        holds(&path, &model)?;
    }
    holds(&layers.image.path().join("data/eof"), &cases::bytes(2, cases::EOF))?;
    Ok(String::new())
}

/// 035: a file or folder that is replaced while it is open has no name any more; a file can be read all the
/// same.
fn overwritten(layers: &Layers) -> Result<String> {
    let at = |name: &str| layers.path().join(name);
    // overlayfs counts the links of a file that it has copied up; of others it tells those of the image.
    drop(open_both(&at("data/file"))?);
    let (mut lower, eof) = (open(&at("data/eof"))?, cases::bytes(2, cases::EOF));
    let (mut file, folder) = (open(&at("data/file"))?, open(&at("moved/empty"))?);
    write(&at("data/new"), b"new\n")?;
    std::fs::rename(at("data/new"), at("data/file")).context("failed to replace a file")?;
    std::fs::rename(at("data/other"), at("data/eof")).context("failed to replace a lower file")?;
    std::fs::create_dir(at("moved/new")).context("failed to make a folder")?;
    write(&at("moved/new/name"), b"")?;
    std::fs::rename(at("moved/new"), at("moved/empty")).context("failed to replace a folder")?;
    let links = file.metadata().context("failed to stat")?.nlink();
    ensure!(links == 0, "the file has {links} links");
    refused("listing a folder that is gone", listing(&folder, 512), &[Errno::NOENT])?;
    ensure!(names_in(&at("moved/empty"))? == ["name"], "the new folder is not there");
    drop_caches()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("failed to read")?;
    same("the file that was replaced", &bytes, &cases::bytes(0, cases::FILE))?;
    holds(&at("data/file"), b"new\n")?;
    bytes.clear();
    lower.read_to_end(&mut bytes).context("failed to read")?;
    same("the lower file that was replaced", &bytes, &eof)?;
    holds(&at("data/eof"), b"another file\n")?;
    Ok(String::new())
}

/// 037: while an attribute gets one value and another, over and over, a reader sees one of them.
fn attributes_at_once(layers: &Layers) -> Result<String> {
    let path = layers.path().join("attributes/five");
    let values: [&[u8]; 3] = [b"pizza", b"foobar", b"rabbit_hole"];
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let setter = scope.spawn(|| -> Result<u32> {
            for number in 0.. {
                let value = values[1 + number as usize % 2];
                lsetxattr(&path, "user.something", value, XattrFlags::empty()).context("failed to set")?;
                if done.load(Ordering::Relaxed) {
                    return Ok(number);
                }
            }
            Ok(0)
        });
        let read = (0..1000).try_for_each(|_| {
            let value = attribute(&path, "user.something").context("failed to read")?;
            ensure!(values.contains(&&value[..]), "{} is read", value.escape_ascii());
            let names = attributes(&path).context("failed to list")?;
            ensure!(names.len() == cases::FIVE.len(), "{names:?} are listed");
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        let number = setter.join().map_err(|_| anyhow!("a thread panicked"))??;
        read.map(|()| format!("{number} changes"))
    })
}

/// 014, 075 and 127: writes, truncations, reads and mappings at random; the bytes that must be there are
/// known.
fn random_changes(layers: &Layers) -> Result<String> {
    const LONGEST: usize = 400_000;
    let path = layers.path().join("data/file");
    let before = open(&path)?;
    let mut model = cases::bytes(0, cases::FILE);
    let mut random = fastrand::Rng::with_seed(75);
    let file = open_both(&path)?;
    for number in 0..400 {
        let start = random.usize(0..=model.len().min(LONGEST - 40_000));
        let length = random.usize(1..40_000);
        match random.u32(0..5) {
            0 | 1 => {
                let bytes = cases::bytes(number, length);
                file.write_all_at(&bytes, start as u64).context("failed to write")?;
                model.resize(model.len().max(start + length), 0);
                model[start..start + length].copy_from_slice(&bytes);
            }
            2 => {
                let end = random.usize(0..LONGEST);
                file.set_len(end as u64).context("failed to truncate")?;
                model.resize(end, 0);
            }
            3 if !model.is_empty() => {
                let mapping = WritableMapping::shared(&file, model.len()).context("failed to map")?;
                let place = random.usize(0..model.len());
                let bytes = cases::bytes(number, (model.len() - place).min(5000));
                mapping.write(place, &bytes);
                model[place..place + bytes.len()].copy_from_slice(&bytes);
            }
            _ => {
                let mut bytes = vec![0; length];
                let n = file.read_at(&mut bytes, start as u64).context("failed to read")?;
                let expected = &model[start..model.len().min(start + length)];
                same(&format!("change {number}: {length} bytes at {start}"), &bytes[..n], expected)?;
            }
        }
    }
    holds(&path, &model)?;
    // A descriptor that was opened before the first change reads the image for ever, or the change: overlayfs
    // leaves that open.
    let mut bytes = vec![0; cases::FILE];
    let n = before.read_at(&mut bytes, 0).context("failed to read by what was open before")?;
    let lower = cases::bytes(0, cases::FILE);
    ensure!(
        bytes[..n] == lower[..n] || bytes[..n] == model[..n],
        "what was open before reads something else"
    );
    holds(&layers.image.path().join("data/file"), &lower)?;
    drop((before, file));
    layers.mount_again()?;
    holds(&path, &model)?;
    Ok(format!("{} bytes", model.len()))
}

/// 079: an immutable file cannot be changed by anybody; the flag is set on a file of the image.
fn immutable(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/other");
    let set = |flags| -> Result<()> {
        rustix::fs::ioctl_setflags(&open(&path)?, flags).context("failed to set flags")
    };
    set(IFlags::IMMUTABLE)?;
    let flags = rustix::fs::ioctl_getflags(&open(&path)?).context("failed to get flags")?;
    ensure!(flags.contains(IFlags::IMMUTABLE), "the flags are {flags:?}");
    let write = File::options().append(true).open(&path);
    refused("writing", write, &[Errno::PERM])?;
    refused("removing", std::fs::remove_file(&path), &[Errno::PERM])?;
    refused("linking", std::fs::hard_link(&path, path.with_extension("2")), &[Errno::PERM])?;
    set(IFlags::empty())?;
    write_and_check(&path)
}

fn write_and_check(path: &Path) -> Result<String> {
    write(path, b"changed\n")?;
    holds(path, b"changed\n")?;
    Ok(String::new())
}

/// 084: a file of the image that was removed while it was open gets no new name.
fn no_link_to_removed(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/file");
    let mut file = open(&path)?;
    std::fs::remove_file(&path).context("failed to remove")?;
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let result = linkat(CWD, from, CWD, path.with_extension("2"), AtFlags::SYMLINK_FOLLOW);
    refused("a link to what was removed", result, &[Errno::NOENT])?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).context("failed to read what was removed")?;
    same("what was removed", &bytes, &cases::bytes(0, cases::FILE))?;
    Ok(String::new())
}

/// 087: the owner may set any time; a user that may only write sets the present time only.
fn who_may_set_times(layers: &Layers) -> Result<String> {
    const THEN: i64 = 1_000_000_000;
    let moment = |tv_sec, tv_nsec| Timestamps {
        last_access: Timespec { tv_sec, tv_nsec },
        last_modification: Timespec { tv_sec, tv_nsec },
    };
    let (now, then) = (moment(0, UTIME_NOW), moment(THEN, 0));
    let no = Err(&[Errno::PERM, Errno::ACCESS][..]);
    for (name, user, sets_now, sets_then) in [
        ("owned/for-owner", cases::OWNER, Ok(()), Ok(())),
        ("owned/for-owner", 100, no, no),
        ("owned/for-group", 100, Ok(()), no),
    ] {
        let path = layers.path().join(name);
        for (what, times, expected) in [("the present", &now, sets_now), ("a time", &then, sets_then)] {
            let before = look(&path)?.mtime();
            as_user((user, &[cases::OWNER]), &format!("{what} of {name}"), expected, || {
                Ok(utimensat(CWD, &path, times, AtFlags::empty())?)
            })?;
            let mtime = look(&path)?.mtime();
            match (expected, what) {
                (Ok(()), "a time") => ensure!(mtime == THEN, "{name}: {mtime} by a time"),
                (Ok(()), _) => ensure!(mtime > before && mtime != THEN, "{name}: {mtime} by the present"),
                _ => ensure!(mtime == before, "{name}: {mtime}, and it was {before}"),
            }
        }
    }
    Ok(String::new())
}

/// 020, 097 and 533: attributes of the image are replaced and removed, new ones come, and they are still so in
/// another mount.
fn attributes_changed(layers: &Layers) -> Result<String> {
    let path = layers.path().join("attributes/three");
    let set = |name: &str, value: &[u8], flags| lsetxattr(&path, name, value, flags);
    refused("a new one that is there", set("user.foo", b"", XattrFlags::CREATE), &[Errno::EXIST])?;
    refused("an old one that is not", set("user.new", b"", XattrFlags::REPLACE), &[Errno::NODATA])?;
    set("user.foo", b"a longer value", XattrFlags::REPLACE).context("failed to replace")?;
    set("user.new", b"", XattrFlags::CREATE).context("failed to create")?;
    set("trusted.root", b"whack", XattrFlags::empty()).context("failed to set one of root")?;
    rustix::fs::lremovexattr(&path, "user.ping").context("failed to remove")?;
    refused("removing again", rustix::fs::lremovexattr(&path, "user.ping"), &[Errno::NODATA])?;
    layers.mount_again()?;
    let expected = ["trusted.root", "user.foo", "user.hello", "user.new"];
    let names = attributes(&path).context("failed to list")?;
    ensure!(names == expected, "{names:?}");
    ensure!(attribute(&path, "user.foo") == Ok(b"a longer value".to_vec()), "the old value");
    ensure!(attribute(&path, "user.hello") == Ok(b"there".to_vec()), "the image's own value is lost");
    let lower = attributes(&layers.image.path().join("attributes/three")).context("failed to list")?;
    ensure!(lower.len() == cases::THREE.len(), "the image has {lower:?}");
    Ok(String::new())
}

/// 123: a user can neither overwrite nor append to nor remove nor move a file of root.
fn user_changes_nothing(layers: &Layers) -> Result<String> {
    let path = layers.path().join("owned/root");
    let no = Err(&[Errno::ACCESS][..]);
    let user = (1000, &[1000][..]);
    as_user(user, "appending", no, || File::options().append(true).open(&path))?;
    as_user(user, "overwriting", no, || File::create(&path))?;
    as_user(user, "removing", no, || std::fs::remove_file(&path))?;
    as_user(user, "moving", no, || std::fs::rename(&path, path.with_extension("2")))?;
    as_user(user, "reading", Ok(()), || File::open(&path))?;
    holds(&path, &cases::bytes(5, 10_000))?;
    ensure!(names_in(&layers.work.path().join("upper"))?.is_empty(), "something was copied up in vain");
    Ok(String::new())
}

/// 169: appended in parts, and as long as that.
fn appended(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/other");
    let mut expected = b"another file\n".to_vec();
    for number in 0..3 {
        let part = cases::bytes(number, 5000);
        let mut file = File::options().append(true).open(&path).context("failed to open at the end")?;
        // The position counts for nothing.
        file.seek(SeekFrom::Start(0)).context("failed to rewind")?;
        file.write_all(&part).and_then(|()| file.sync_all()).context("failed to append")?;
        expected.extend_from_slice(&part);
    }
    layers.mount_again()?;
    ensure!(look(&path)?.len() == expected.len() as u64, "{} bytes", look(&path)?.len());
    holds(&path, &expected)?;
    Ok(String::new())
}

/// 193: which users may set owner, group, mode and times, and which bits go with a change.
fn who_may_set_attributes(layers: &Layers) -> Result<String> {
    let (user, root) = (layers.path().join("owned/user"), layers.path().join("owned/root"));
    let who = (1000, &[1000][..]);
    let no = Err(&[Errno::PERM][..]);
    as_user(who, "taking a file of root", no, || chown(&root, Some(1000), None))?;
    as_user(who, "leaving a file to root", no, || chown(&user, Some(0), None))?;
    as_user(who, "keeping a file", Ok(()), || chown(&user, Some(1000), None))?;
    as_user(who, "giving a file to a group of root", no, || chown(&user, None, Some(0)))?;
    as_user(who, "keeping the group", Ok(()), || chown(&user, None, Some(1000)))?;
    as_user(who, "the mode of a file of root", no, || {
        std::fs::set_permissions(&root, Permissions::from_mode(0o666))
    })?;
    as_user(who, "the mode of a file", Ok(()), || {
        std::fs::set_permissions(&user, Permissions::from_mode(0o600))
    })?;
    ensure!(mode(&user)? == 0o600, "the mode is {:o}", mode(&user)?);
    ensure!(mode(&root)? == 0o644, "the mode of root's is {:o}", mode(&root)?);

    // The first change is the one that copies the file up.
    let path = layers.path().join("owned/set-ids");
    ensure!(mode(&path)? == 0o6755, "set-ID is gone before anything was done");
    chown(&path, Some(2000), None).context("failed to give a file away")?;
    ensure!(mode(&path)? == 0o755, "the mode is {:o} after a change of the owner", mode(&path)?);
    Ok(String::new())
}

/// 236: a new link is a change of the file, whose time of change shows it.
fn link_changes_time(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/other");
    let [mtime, ctime] = times(&path)?;
    std::fs::hard_link(&path, path.with_extension("2")).context("failed to link")?;
    let [mtime_after, ctime_after] = times(&path)?;
    ensure!(ctime_after > ctime, "the time of change is still {ctime:?}");
    ensure!(mtime_after == mtime, "the time of modification was {mtime:?}");
    Ok(String::new())
}

/// 237: nobody sets an access control list of somebody else's file.
fn list_of_somebody_else(layers: &Layers) -> Result<String> {
    let path = layers.path().join("owned/user");
    let list = acl(&[(For::Owner, 7), (For::OwnGroup, 4), (For::Other, 4)]);
    let set = || Ok(lsetxattr(&path, ACL_ACCESS, &list, XattrFlags::empty())?);
    as_user((2000, &[2000]), "setting a list", Err(&[Errno::PERM]), set)?;
    as_user((1000, &[1000]), "setting a list", Ok(()), set)?;
    ensure!(mode(&path)? == 0o744, "the mode is {:o}", mode(&path)?);
    Ok(String::new())
}

/// 245: a folder is not moved onto one that is not empty, no matter which layer has its files.
fn onto_not_empty(layers: &Layers) -> Result<String> {
    let at = |name: &str| layers.path().join("moved").join(name);
    std::fs::create_dir(at("new")).context("failed to make a folder")?;
    let full = [Errno::NOTEMPTY, Errno::EXIST];
    refused("onto a lower folder", std::fs::rename(at("new"), at("aa")), &full)?;
    refused("removing a lower folder", std::fs::remove_dir(at("aa")), &full)?;
    std::fs::remove_file(at("aa/1")).context("failed to remove the only file")?;
    std::fs::rename(at("new"), at("aa")).context("failed to replace what is empty now")?;
    ensure!(names_in(&at("aa"))?.is_empty(), "the lower names are back");
    std::fs::remove_dir(at("aa")).context("failed to remove what is empty")?;
    Ok(String::new())
}

/// 255: holes are punched around the ends of pages; the rest stays.
fn punched(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/file");
    let mut model = cases::bytes(0, cases::FILE);
    for (start, length) in [(4096, 8192), (0, 1), (65_535, 2), (131_000, 5000), (cases::FILE - 10, 4096)] {
        // Each time by another opening: the first one copies the file up.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&open_both(&path)?, flags, start as u64, length as u64)
            .context("failed to punch a hole")?;
        let end = model.len().min(start + length);
        model[start..end].fill(0);
        holds(&path, &model)?;
    }
    Ok(String::new())
}

/// 258: a time before 1970 is copied up as it is.
fn before_1970(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/1960");
    set_mode(&path, 0o600)?;
    ensure!(names_in(&layers.work.path().join("upper/data"))? == ["1960"], "nothing was copied up");
    let found = look(&path)?.mtime();
    ensure!(found == cases::YEAR_1960, "{found}");
    Ok(String::new())
}

/// 285 and 286: data and holes are found through the overlay, and the copy has the holes of the image.
fn holes(layers: &Layers) -> Result<String> {
    let (path, expected) = (layers.path().join("data/sparse"), cases::sparse());
    let before = copied_by_data(&path, &expected)?;
    drop(open_both(&path)?);
    // overlayfs copies in parts of a megabyte, and leaves out what lies between the end of one and the next data.
    let upper = look(&layers.work.path().join("upper/data/sparse"))?;
    ensure!(upper.blocks() * 512 < cases::SPARSE as u64 / 3, "{} blocks were copied", upper.blocks());
    let after = copied_by_data(&path, &expected)?;
    ensure!(after < cases::SPARSE as u64 / 3, "{after} bytes of data in the copy");
    Ok(format!("{before} bytes of data, {after} in the copy"))
}

/// 307: a list is a change of the file, whose time of change shows it.
fn list_changes_time(layers: &Layers) -> Result<String> {
    let path = layers.path().join("owned/root");
    let [_, before] = times(&path)?;
    let list = acl(&[(For::Owner, 1), (For::OwnGroup, 1), (For::Other, 1)]);
    lsetxattr(&path, ACL_ACCESS, &list, XattrFlags::empty()).context("failed to set a list")?;
    let [_, after] = times(&path)?;
    ensure!(after > before, "the time of change is still {before:?}");
    ensure!(mode(&path)? == 0o111, "the mode is {:o}", mode(&path)?);
    Ok(String::new())
}

/// 309: the times of a folder of the image show that a file was moved onto one in it.
fn times_of_a_folder(layers: &Layers) -> Result<String> {
    let (folder, new) = (layers.path().join("kinds"), layers.path().join("new"));
    write(&new, b"new\n")?;
    let before = times(&folder)?;
    std::fs::rename(&new, folder.join("f")).context("failed to move a file")?;
    let after = times(&folder)?;
    ensure!(after[0] > before[0] && after[1] > before[1], "still {before:?}");
    Ok(String::new())
}

/// 313: both times show that a file was cut, by its name and by a descriptor.
fn truncation_changes_time(layers: &Layers) -> Result<String> {
    for (name, by_name) in [("data/file", true), ("data/eof", false)] {
        let path = layers.path().join(name);
        let before = times(&path)?;
        if by_name {
            let options = File::options().write(true).truncate(true).open(&path);
            options.context("failed to cut by name")?;
            holds(&path, b"")?;
        } else {
            open_both(&path)?.set_len(100).context("failed to cut")?;
            holds(&path, &cases::bytes(2, 100))?;
        }
        let after = times(&path)?;
        ensure!(after[0] > before[0] && after[1] > before[1], "{name}: still {before:?}");
    }
    Ok(String::new())
}

/// 314: files and folders that are made in a folder with set-group-ID have its group, and the folders have
/// the bit.
fn set_group_id_inherited(layers: &Layers) -> Result<String> {
    let folder = layers.path().join("set-group-id");
    as_user((1000, &[1000]), "making a folder", Ok(()), || std::fs::create_dir(folder.join("sub")))?;
    as_user((1000, &[1000]), "making a file", Ok(()), || File::create_new(folder.join("file")))?;
    let (sub, file) = (look(&folder.join("sub"))?, look(&folder.join("file"))?);
    ensure!(sub.gid() == 12345 && file.gid() == 12345, "groups {} and {}", sub.gid(), file.gid());
    ensure!(sub.mode() & 0o2000 != 0, "the mode is {:o}", sub.mode());
    Ok(String::new())
}

/// 319: files and folders that are made in a folder with a default list have it.
fn default_lists(layers: &Layers) -> Result<String> {
    let folder = layers.path().join("acl/default");
    let expected = attribute(&folder, ACL_DEFAULT).context("the folder has no default list")?;
    let sub = folder.join("sub");
    std::fs::DirBuilder::new().mode(0o777).create(&sub).context("failed to make a folder")?;
    ensure!(attribute(&sub, ACL_DEFAULT) == Ok(expected), "another list");
    ensure!(mode(&sub)? == 0o770, "the mode is {:o}", mode(&sub)?);
    let file = sub.join("file");
    File::options().write(true).create_new(true).mode(0o666).open(&file).context("failed to make a file")?;
    ensure!(mode(&file)? == 0o660, "the mode of a file is {:o}", mode(&file)?);
    Ok(String::new())
}

/// 193, 355: a write by a user other than root takes set-ID away, also when that write copies the file up.
fn writes_clear_set_ids(layers: &Layers) -> Result<String> {
    let path = layers.path().join("owned/writable-set-ids");
    as_user((2000, &[2000]), "writing", Ok(()), || File::options().write(true).open(&path)?.write_all(b"x"))?;
    ensure!(mode(&path)? == 0o777, "the mode is {:o}", mode(&path)?);
    set_mode(&path, 0o6777)?;
    as_user((0, &[0]), "writing", Ok(()), || File::options().write(true).open(&path)?.write_all(b"y"))?;
    ensure!(mode(&path)? == 0o6777, "after a write of root the mode is {:o}", mode(&path)?);
    Ok(String::new())
}

/// 683: an allocation is a write in this.
fn allocation_clears_set_ids(layers: &Layers) -> Result<String> {
    let path = layers.path().join("owned/allocated-set-ids");
    as_user((2000, &[2000]), "allocating", Ok(()), || {
        let file = File::options().write(true).open(&path)?;
        Ok(fallocate(&file, FallocateFlags::empty(), 0, 65_536)?)
    })?;
    ensure!(mode(&path)? == 0o777, "the mode is {:o}", mode(&path)?);
    ensure!(look(&path)?.len() == 65_536, "{} bytes", look(&path)?.len());
    Ok(String::new())
}

/// 375: a change of the mode, or of the list that stands for it, by an owner who is not of the group takes
/// set-group-ID away.
fn changes_clear_set_group_id(layers: &Layers) -> Result<String> {
    let path = layers.path().join("owned/set-group-id");
    let list = acl(&[(For::Owner, 7), (For::OwnGroup, 7), (For::Other, 7)]);
    let change = || std::fs::set_permissions(&path, Permissions::from_mode(0o2777));
    let set = || Ok(lsetxattr(&path, ACL_ACCESS, &list, XattrFlags::empty())?);
    for (group, expected) in [(100, 0o2777), (101, 0o777)] {
        for by_list in [false, true] {
            set_mode(&path, 0o2755)?;
            let who = (100, &[group][..]);
            match by_list {
                true => as_user(who, "setting a list", Ok(()), set)?,
                false => as_user(who, "setting a mode", Ok(()), change)?,
            }
            ensure!(
                mode(&path)? == expected,
                "group {group}, list {by_list}: the mode is {:o}",
                mode(&path)?
            );
        }
    }
    as_user((101, &[101]), "setting a mode", Err(&[Errno::PERM]), change)?;
    Ok(String::new())
}

/// 401: in a folder of both layers each kind is told, and a whiteout of the image is not there.
fn kinds_of_both(layers: &Layers) -> Result<String> {
    // A folder that is in one layer only is listed as it is there.
    let new = layers.path().join("kinds/new");
    write(&new, b"")?;
    std::fs::remove_file(&new).context("failed to remove")?;
    kinds(layers.path(), false)
}

/// 430, 434: parts of a file are copied into another by `copy_file_range`; both have been copied up.
fn copy_file_range(layers: &Layers) -> Result<String> {
    let whole = cases::bytes(0, cases::FILE);
    let source = open_both(&layers.path().join("data/file"))?;
    let size = cases::FILE;
    for (start, length, to) in [
        (0, size, 0),
        (0, 1000, 0),
        (1000, 3000, 0),
        (size - 1000, 1000, 0),
        (size - 1000, 5000, 0),
        (1000, 3000, 1000),
    ] {
        let path = layers.path().join("data/copy");
        let copy = File::create(&path).context("failed to create a copy")?;
        let (mut from, mut into) = (start as u64, to as u64);
        let end = size.min(start + length);
        while (from as usize) < end {
            let n = rustix::fs::copy_file_range(&source, Some(&mut from), &copy, Some(&mut into), length)
                .with_context(|| format!("failed to copy {length} bytes at {start}"))?;
            ensure!(n > 0, "nothing is copied at {from}");
        }
        holds(&path, &[&vec![0; to][..], &whole[start..end]].concat())?;
        let n = rustix::fs::copy_file_range(&source, Some(&mut (size as u64)), &copy, None, 100);
        ensure!(n == Ok(0), "from behind the end: {n:?}");
    }
    Ok(String::new())
}

/// 444: as 314, where a default list is there too and the maker is not of the group.
fn set_group_id_with_lists(layers: &Layers) -> Result<String> {
    let folder = layers.path().join("acl/default-set-group-id");
    for (name, group) in [("sub-1", 100), ("sub-2", 101)] {
        let path = folder.join(name);
        as_user((100, &[group]), "making a folder", Ok(()), || std::fs::create_dir(&path))?;
        let stat = look(&path)?;
        ensure!(stat.mode() & 0o7777 == 0o2775, "{name}: the mode is {:o}", stat.mode());
        ensure!(stat.gid() == 100, "{name}: the group is {}", stat.gid());
        ensure!(attribute(&path, ACL_DEFAULT) == attribute(&folder, ACL_DEFAULT), "{name}: another list");
    }
    Ok(String::new())
}

/// 478: bytes that are locked before a file of the image is copied up are locked after it.
fn locks(layers: &Layers) -> Result<String> {
    let path = layers.path().join("data/file");
    let reader = open(&path)?;
    sys::lock_bytes(&reader, libc::F_RDLCK, 0, 10).context("failed to lock for reading")?;
    let writer = open_both(&path)?;
    let taken = [Errno::AGAIN, Errno::ACCESS];
    refused("bytes that are locked", sys::lock_bytes(&writer, libc::F_WRLCK, 5, 20), &taken)?;
    sys::lock_bytes(&writer, libc::F_WRLCK, 20, 10).context("failed to lock other bytes")?;
    refused("bytes locked for writing", sys::lock_bytes(&reader, libc::F_RDLCK, 25, 1), &taken)?;
    // A lock goes with the last descriptor of its open file, not with the first.
    let again = writer.try_clone().context("failed to duplicate")?;
    drop(writer);
    refused("bytes still locked", sys::lock_bytes(&reader, libc::F_RDLCK, 25, 1), &taken)?;
    drop(again);
    sys::lock_bytes(&reader, libc::F_RDLCK, 25, 1).context("a lock outlives its file")?;
    Ok(String::new())
}

/// 631: several overlays over one lower layer move and make the same name, are unmounted and start again.
fn whiteouts_of_many(layers: &Layers) -> Result<String> {
    const WORKERS: usize = 3;
    const ROUNDS: usize = 15;
    let lower = layers.image.path();
    std::thread::scope(|scope| {
        let work = |number: usize| -> Result<()> {
            let tmpfs = tmpfs(&format!("/mnt/layers-{number}"))?;
            for round in 0..ROUNDS {
                let target = format!("/mnt/merged-{number}");
                let target = Path::new(&target);
                let overlay = Mount::overlay(lower, &tmpfs.path().join(round.to_string()), target, "")?;
                let (name, moved) = (target.join("data/other"), target.join("data/other.bak"));
                holds(&name, b"another file\n")?;
                for _ in 0..2 {
                    std::fs::rename(&name, &moved).context("failed to move")?;
                    ensure!(!name.exists(), "the old name is there");
                    write(&name, b"new\n")?;
                }
                std::fs::remove_file(&name).context("failed to remove")?;
                ensure!(
                    !names_in(&target.join("data"))?.contains(&"other".to_owned()),
                    "the lower name shows"
                );
                holds(&moved, b"new\n")?;
                overlay.unmount()?;
            }
            tmpfs.unmount()
        };
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || work(number))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(format!("{} overlays", WORKERS * ROUNDS))
}

/// 637: names that are made and removed while a folder is open show when it is opened again.
fn changes_show(layers: &Layers) -> Result<String> {
    let folder = layers.path().join("crowd");
    let held = open(&folder)?;
    ensure!(listing(&held, 200).context("failed to list")?.len() == cases::CROWD + 2, "other names");
    for number in (0..100).step_by(10) {
        std::fs::remove_file(folder.join(number.to_string())).context("failed to remove")?;
        File::create_new(folder.join(format!("new-{number}"))).context("failed to create")?;
        let names = names_in(&folder)?;
        ensure!(!names.contains(&number.to_string()), "{number} shows");
        ensure!(names.contains(&format!("new-{number}")), "new-{number} does not show");
        ensure!(names.len() == cases::CROWD, "{} names", names.len());
    }
    Ok(String::new())
}

/// 736: files are renamed while their folder is being listed: that comes to an end, and nothing is lost.
fn renamed_while_listing(layers: &Layers) -> Result<String> {
    let folder = layers.path().join("crowd");
    let directory = open(&folder)?;
    let mut listed = 0;
    let mut buffer = vec![std::mem::MaybeUninit::uninit(); 512];
    let mut entries = rustix::fs::RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.context("failed to list")?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "." || name == ".." {
            continue;
        }
        listed += 1;
        ensure!(listed <= 4 * cases::CROWD, "the listing does not end");
        // A file that was renamed may be listed again, by either name.
        match std::fs::rename(folder.join(&name), folder.join(format!("renamed-{listed}"))) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => result.with_context(|| format!("failed to rename {name}"))?,
        }
    }
    ensure!(listed >= cases::CROWD, "{listed} names were listed");
    let names = names_in(&folder)?;
    ensure!(names.len() == cases::CROWD, "{} names are left", names.len());
    ensure!(names.iter().all(|name| name.starts_with("renamed-")), "an old name is there");
    Ok(format!("{listed} names listed"))
}

/// 426, 467: with an index, hard links of the image stay one file when one of them is changed, inode numbers stay,
/// and handles find files that have been copied up.
fn indexed(layers: &Layers) -> Result<String> {
    let upper = tmpfs("/mnt/indexed")?;
    let overlay = second_overlay(layers, &upper, INDEXED)?;
    let at = |name: &str| overlay.path().join(name);
    let root = open(overlay.path())?;
    let mut handles = Vec::new();
    for name in ["links/name-01", "data/file", "kinds/d", "crowd"] {
        let stat = look(&at(name))?;
        let handle = sys::handle_of(&at(name)).with_context(|| format!("no handle of {name}"))?;
        handles.push((name, (stat.dev(), stat.ino()), handle));
    }
    let mut file = File::options().append(true).open(at("links/name-07")).context("failed to open")?;
    file.write_all(b"changed\n").context("failed to append")?;
    for number in 1..=cases::LINKS {
        let path = at(&format!("links/name-{number:02}"));
        holds(&path, b"one file\nchanged\n")?;
        ensure!(look(&path)?.nlink() == u64::from(cases::LINKS), "{} links", look(&path)?.nlink());
    }
    drop(open_both(&at("data/file"))?);
    write(&at("kinds/d/new"), b"")?;
    drop(file);
    drop_caches()?;
    for (name, inode, handle) in &mut handles {
        let stat = look(&at(name))?;
        ensure!((stat.dev(), stat.ino()) == *inode, "{name} was {inode:?}");
        let found = sys::open_handle(&root, handle).with_context(|| format!("failed to open {name}"))?;
        ensure!(found.metadata().context("failed to stat")?.ino() == inode.1, "{name} by its handle");
    }
    // A folder lists the numbers that its files have.
    for entry in listing(&open(&at("data"))?, 4096).context("failed to list")? {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        ensure!(
            name.starts_with('.') || look(&at("data").join(&name))?.ino() == entry.ino,
            "{name} has another number"
        );
    }
    drop(root);
    overlay.unmount()?;
    upper.unmount()?;
    Ok(format!("{} handles", handles.len()))
}

/// A second overlay, while nobody uses the first: the same layer below, another one above.
fn second_overlay(layers: &Layers, upper: &Mount, options: &str) -> Result<Mount> {
    let target = Path::new("/mnt/second-overlay");
    let overlay = Mount::overlay(layers.image.path(), upper.path(), target, options)?;
    // overlayfs leaves out options that the lower layer cannot support, and says so here.
    let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
    let line = mounts.lines().find(|line| line.contains("/mnt/second-overlay")).unwrap_or_default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        ensure!(line.contains(option), "{option} is not in effect: {line}");
    }
    Ok(overlay)
}

/// A change of attributes copies no data, and a folder that is moved is a reference; data that is read then
/// comes from the image, and still does in another mount.
fn frugal(layers: &Layers) -> Result<String> {
    let upper = tmpfs("/mnt/frugal")?;
    let overlay = second_overlay(layers, &upper, FRUGAL)?;
    let at = |name: &str| overlay.path().join(name);
    set_mode(&at("data/file"), 0o600)?;
    let copy = look(&upper.path().join("upper/data/file"))?;
    ensure!(copy.blocks() == 0 && copy.len() == cases::FILE as u64, "{} blocks were copied", copy.blocks());
    std::fs::rename(at("deep"), at("moved/deeper")).context("failed to move a folder")?;
    std::fs::rename(at("crowd"), at("kinds/d/crowd")).context("failed to move a large folder")?;
    overlay.unmount()?;
    drop_caches()?;
    let overlay =
        Mount::overlay(layers.image.path(), upper.path(), Path::new("/mnt/second-overlay"), FRUGAL)?;
    let at = |name: &str| overlay.path().join(name);
    holds(&at("data/file"), &cases::bytes(0, cases::FILE))?;
    ensure!(mode(&at("data/file"))? == 0o600, "the mode is lost");
    let bottom = (0..60).fold(at("moved/deeper"), |path, level| path.join(format!("level-{level}")));
    holds(&bottom.join("bottom"), b"bottom\n")?;
    ensure!(!at("deep").exists() && !at("crowd").exists(), "a folder is where it was");
    ensure!(names_in(&at("kinds/d/crowd"))?.len() == cases::CROWD, "names are lost");
    // The first byte that is written brings the data along.
    let file = open_both(&at("data/file"))?;
    file.write_all_at(b"X", 1000).context("failed to write")?;
    let mut expected = cases::bytes(0, cases::FILE);
    expected[1000] = b'X';
    holds(&at("data/file"), &expected)?;
    drop(file);
    overlay.unmount()?;
    upper.unmount()?;
    Ok(String::new())
}

/// A file is read, mapped and copied up by several at once, with nothing of it in memory.
fn beside_each_other(layers: &Layers) -> Result<String> {
    const ROUNDS: usize = 10;
    let expected = cases::bytes(0, cases::FILE);
    for round in 0..ROUNDS {
        let upper = tmpfs("/mnt/beside")?;
        let overlay = second_overlay(layers, &upper, "")?;
        let path = overlay.path().join("data/file");
        drop_caches()?;
        std::thread::scope(|scope| -> Result<()> {
            let reader = scope.spawn(|| holds(&path, &expected));
            let mapper = scope.spawn(|| -> Result<()> {
                let mapping = Mapping::new(&open(&path)?, cases::FILE).context("failed to map")?;
                same("the mapping", mapping.bytes(), &expected)
            });
            let copier = scope.spawn(|| open_both(&path).map(drop));
            for worker in [reader, mapper, copier] {
                worker.join().map_err(|_| anyhow!("a thread panicked"))??;
            }
            Ok(())
        })
        .with_context(|| format!("in round {round}"))?;
        holds(&upper.path().join("upper/data/file"), &expected)?;
        overlay.unmount()?;
        upper.unmount()?;
    }
    Ok(format!("{ROUNDS} rounds"))
}
