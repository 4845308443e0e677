// SPDX-License-Identifier: GPL-2.0
//! The requests of programs to a file system besides reading: positions, handles, mappings, options,
//! refusals.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;

use crate::compare::mounted;
use crate::kmsg::Log;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys::{self, Directory, Mapping};

/// Where images are mounted that must not be.
const REFUSED: &str = "/mnt/refused";

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    let root = || mounted(&on_disk(&plan.root.image));
    let small = || mounted(&on_disk(&plan.small.image));

    suite.test("statfs", || {
        let mount = small()?;
        let stat = rustix::fs::statfs(mount.path()).context("failed to statfs")?;
        let names = Manifest::load(&on_disk(&plan.small.manifest))?;
        ensure!(stat.f_bsize == 4096, "block size {}", stat.f_bsize);
        ensure!(stat.f_blocks > 0, "no blocks");
        ensure!(stat.f_bfree == 0 && stat.f_bavail == 0, "free blocks in a read-only file system");
        ensure!(stat.f_ffree == 0, "free inodes in a read-only file system");
        ensure!(stat.f_namelen == 255, "names of {} bytes", stat.f_namelen);
        ensure!(
            stat.f_files > 0 && stat.f_files <= names.entries.len() as u64,
            "{} inodes for {} names",
            stat.f_files,
            names.entries.len()
        );
        mount.unmount()?;
        Ok(format!("{} inodes, {} blocks", stat.f_files, stat.f_blocks))
    });
    suite.test("proc-mounts", || {
        let options = format!("digest=sha256:{}", plan.small.image_id);
        let mount = Mount::by_program(
            &["-t", "tesserafs", "-o", &options],
            &on_disk(&plan.small.image),
            Path::new("/mnt/image"),
        )?;
        let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
        let line = mounts
            .lines()
            .find(|line| line.contains(" tesserafs "))
            .context("the mount is not in /proc/mounts")?
            .to_owned();
        let words: Vec<&str> = line.split(' ').collect();
        ensure!(words[0].ends_with(&plan.small.image), "the source is {}", words[0]);
        ensure!(words[3].split(',').any(|word| word == "ro"), "not read-only: {line}");
        ensure!(words[3].contains(&options), "{options} is not shown: {line}");
        mount.unmount()?;
        Ok(words[3].chars().take(30).collect())
    });
    suite.test("telldir", || telldir(plan, &root()?));
    suite.test("lookup-in-a-big-directory", || lookups(plan, &root()?));
    suite.test("file-handles", || handles(plan, &small()?));
    suite.test("idmapped-mount", || idmapped(plan, &small()?));
    suite.test("mmap", || mapping(plan, &small()?));
    suite.test("seek-hole", || seek(&root()?));
    suite.test("random-reads", || random_reads(&root()?));
    suite.test("splice-and-direct-io", || direct(&small()?));
    suite.test("writes-are-refused", || {
        let mount = small()?;
        refused_writes(&mount)?;
        mount.unmount()?;
        Ok(String::new())
    });
    suite.test("remount-rw-is-refused", || {
        let mount = small()?;
        let result = rustix::mount::mount_remount(mount.path(), MountFlags::empty(), c"");
        ensure!(result == Err(Errno::ROFS), "remounting without `ro` gave {result:?}");
        refused_writes(&mount)?;
        mount.unmount()?;
        Ok(String::new())
    });
    suite.test("acl-and-noacl", || acl(plan));
    suite.test("names-of-a-superblock", || names(plan));
    suite.test("unknown-option-is-refused", || {
        refused(&on_disk(&plan.small.image), "no_such_option", &[Errno::INVAL], "no_such_option")
    });
    suite.test("digest-right", || {
        let options = format!("digest=sha256:{}", plan.small.image_id);
        let mount = Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/image"), &options)
            .context("the right digest was refused")?;
        mount.unmount()?;
        Ok(String::new())
    });
    suite.test("digest-wrong", || {
        let options = format!("digest=sha256:{}", plan.sparse.image_id);
        refused(&on_disk(&plan.small.image), &options, &[Errno::BADMSG], "image-id @")
    });
    suite.test("digest-malformed", || {
        for options in [
            "digest=sha256:",
            "digest=sha256:12",
            "digest=sha1:00",
            "digest",
            &format!("digest=sha256:{}0", plan.small.image_id),
            &format!("digest=sha256:x{}", &plan.small.image_id[1..]),
        ] {
            refused(&on_disk(&plan.small.image), options, &[Errno::INVAL], "digest")?;
        }
        Ok(String::new())
    });
    suite.test("not-an-image", || {
        let garbage = Path::new("/tmp/garbage");
        std::fs::write(garbage, vec![0x5a; 1 << 20]).context("failed to write garbage")?;
        refused(garbage, "", &[Errno::INVAL], "magic @")
    });
    suite.test("empty-and-missing-files", || {
        let empty = Path::new("/tmp/empty");
        std::fs::write(empty, b"").context("failed to write an empty file")?;
        refused(empty, "", &[Errno::INVAL], "0 bytes are no image")?;
        quietly_refused(Path::new("/tmp/missing"), "", &[Errno::NOENT])?;
        quietly_refused(Path::new("/tmp"), "", &[Errno::INVAL, Errno::ISDIR, Errno::NOTBLK])?;
        quietly_refused(Path::new("/dev/null"), "", &[Errno::INVAL, Errno::NOTBLK])
    });
    suite.test("unknown-feature", || {
        refused(&on_disk(&plan.unknown_feature), "", &[Errno::OPNOTSUPP], "incompat @")
    });
    suite.test("truncated-image", || {
        let image = std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?;
        let short = Path::new("/tmp/short");
        let mut notes = Vec::new();
        let lengths = [
            (4095, "4095 bytes are no image"),
            (4096, "file-length @"),
            (image.len() / 2, "file-length @"),
            (image.len() - 4096, "file-length @"),
        ];
        for (length, words) in lengths {
            std::fs::write(short, &image[..length]).context("failed to write a short image")?;
            // Structure says more than is there: it contradicts itself, or the read comes up short.
            let allowed = [Errno::UCLEAN, Errno::IO, Errno::INVAL];
            notes.push(refused(short, "", &allowed, words).with_context(|| format!("{length} bytes"))?);
        }
        Ok(notes.pop().unwrap_or_default())
    });
    suite.test("image-that-shrinks-while-mounted", || {
        let copy = Path::new("/tmp/shrinking");
        std::fs::copy(on_disk(&plan.small.image), copy).context("failed to copy")?;
        let mount = mounted(copy)?;
        drop_caches()?;
        File::options()
            .write(true)
            .open(copy)
            .and_then(|file| file.set_len(8192))
            .context("failed to cut the image")?;
        let errors = tesserafs_guest::tree::scan_damaged(mount.path(), 2).errors;
        ensure!(!errors.is_empty(), "a cut image was read to its end");
        for (path, error) in &errors {
            let errno = error.raw_os_error();
            ensure!(matches!(errno, Some(libc::EIO | libc::EBADMSG)), "/{}: {error}", path.escape_ascii());
        }
        mount.unmount()?;
        Ok(format!("{} errors, as there must be", errors.len()))
    });
}

/// ACLs count unless the mounter or a remount says that they do not.
fn acl(plan: &Plan) -> Result<String> {
    let image = on_disk(&plan.cases.image);
    let expect = |mount: &Mount, counts: bool, when: &str| -> Result<()> {
        let mut value = [0; 1024];
        let listed = mount.path().join("acl/not-searched");
        let found = rustix::fs::lgetxattr(&listed, "system.posix_acl_access", &mut value);
        match found {
            Ok(_) if counts => {}
            Err(Errno::OPNOTSUPP) if !counts => {}
            other => bail!("{when}: the list of {} is {other:?}", listed.display()),
        }
        let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
        let line = mounts.lines().find(|line| line.contains(" tesserafs ")).context("no mount is shown")?;
        let word = if counts { "acl" } else { "noacl" };
        ensure!(line.split([' ', ',']).any(|shown| shown == word), "{when}: {word} is not shown: {line}");
        Ok(())
    };
    for (options, counts) in [("", true), ("acl", true), ("noacl", false), ("noacl,acl", true)] {
        let mount = Mount::image(&image, Path::new("/mnt/image"), options)
            .with_context(|| format!("failed to mount with {options:?}"))?;
        expect(&mount, counts, options)?;
        for (again, counts) in [(c"noacl", false), (c"acl", true), (c"", true)] {
            rustix::mount::mount_remount(mount.path(), MountFlags::RDONLY, again)
                .with_context(|| format!("failed to remount with {again:?}"))?;
            expect(&mount, counts, "remounted")?;
        }
        mount.unmount()?;
    }
    // mount(2) has a flag of its own.
    let flag = MountFlags::from_bits_retain(1 << 16);
    let mount = Mount::new(&image, Path::new("/mnt/image"), "tesserafs", flag, "noacl")
        .context("failed to mount with MS_POSIXACL")?;
    expect(&mount, false, "MS_POSIXACL and noacl")?;
    mount.unmount()?;
    quietly_refused(&image, "acl=yes", &[Errno::INVAL])
}

/// The UUID, and the folder in sysfs.
fn names(plan: &Plan) -> Result<String> {
    let mount = Mount::image(&on_disk(&plan.small.image), Path::new("/mnt/image"), "")
        .context("failed to mount the image")?;
    let root = File::open(mount.path()).context("failed to open the root")?;
    let uuid = sys::uuid_of(&root).context("there is no UUID")?;
    let id = &plan.small.image_id;
    let begins = format!("{:02x}{:02x}{:02x}{:02x}", uuid[0], uuid[1], uuid[2], uuid[3]);
    ensure!(id.starts_with(&begins), "the UUID begins with {begins}, the image ID is {id}");
    let name = sys::sysfs_path_of(&root).context("there is no name in sysfs")?;
    let folder = Path::new("/sys/fs").join(&name);
    let shown = std::fs::read_to_string(folder.join("image_id"))
        .with_context(|| format!("there is no {}", folder.display()))?;
    ensure!(shown.trim() == format!("sha256:{id}"), "{} is of another image", folder.display());
    drop(root);
    mount.unmount()?;
    Ok(name)
}

/// Fails unless a mount is refused with one of `allowed`, and with a line in the log that has these words.
fn refused(image: &Path, options: &str, allowed: &[Errno], words: &str) -> Result<String> {
    let mut log = Log::from_now()?;
    let errno = quietly_refused(image, options, allowed)?;
    let line = log.expect_line(words).with_context(|| format!("{options} gives {errno}"))?;
    Ok(format!("{errno}: {line}"))
}

/// Fails unless a mount is refused with one of `allowed`.
fn quietly_refused(image: &Path, options: &str, allowed: &[Errno]) -> Result<String> {
    match Mount::image(image, Path::new(REFUSED), options) {
        Ok(_) => bail!("{} with `{options}` was mounted", image.display()),
        Err(errno) if allowed.contains(&errno) => Ok(errno.to_string()),
        Err(errno) => {
            bail!("{} with `{options}` was refused with {errno}, not one of {allowed:?}", image.display())
        }
    }
}

pub(crate) fn refused_writes(mount: &Mount) -> Result<()> {
    let at = |name: &str| mount.path().join(name);
    let read_only = |what: &str, result: std::io::Result<()>| match result {
        Err(error) if error.raw_os_error() == Some(libc::EROFS) => Ok(()),
        Err(error) => bail!("{what}: {error}, not EROFS"),
        Ok(()) => bail!("{what} was done"),
    };
    read_only("create", File::create_new(at("new")).map(drop))?;
    read_only("open for writing", File::options().write(true).open(at("data/prose")).map(drop))?;
    read_only("remove", std::fs::remove_file(at("data/prose")))?;
    read_only("rename", std::fs::rename(at("data/prose"), at("data/other")))?;
    read_only("mkdir", std::fs::create_dir(at("folder")))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    read_only("chmod", std::fs::set_permissions(at("data/prose"), mode))?;
    read_only("chown", std::os::unix::fs::chown(at("data/prose"), Some(1), Some(1)))?;
    let set = rustix::fs::lsetxattr(at("data/prose"), "user.x", b"y", rustix::fs::XattrFlags::empty());
    read_only("setxattr", set.map_err(Into::into))
}

/// Positions of a directory stay valid: read on from any of them gives the same names.
pub(crate) fn telldir(plan: &Plan, mount: &Mount) -> Result<String> {
    let mut directory =
        Directory::open(&mount.path().join(&plan.big_directory)).context("failed to open the directory")?;
    let mut names = Vec::new();
    let mut positions = Vec::new();
    loop {
        let position = directory.tell();
        let Some(name) = directory.next().context("failed to read the directory")? else {
            break;
        };
        positions.push(position);
        names.push(name);
    }
    ensure!(names.len() > 100_000, "only {} names", names.len());
    ensure!(names[0] == b"." && names[1] == b"..", "the first names are not . and ..");
    let mut seen = positions.clone();
    seen.sort_unstable();
    seen.dedup();
    ensure!(seen.len() == positions.len(), "two names at one position");
    for step in 0..200 {
        let index = step * 7919 % names.len();
        directory.seek(positions[index]);
        ensure!(directory.tell() == positions[index], "tell after seek gives another position");
        for expected in names.iter().skip(index).take(3) {
            let found = directory.next().context("failed to read on")?;
            ensure!(
                found.as_ref() == Some(expected),
                "from position {} on: {found:?}, not {expected:?}",
                positions[index]
            );
        }
    }
    Ok(format!("{} names", names.len()))
}

/// Names that are there are found, others are not; before and after the caches are dropped.
pub(crate) fn lookups(plan: &Plan, mount: &Mount) -> Result<String> {
    let folder = mount.path().join(&plan.big_directory);
    for _ in 0..2 {
        drop_caches()?;
        for step in 0..500 {
            let index = step * 7919 % 100_000;
            let there = folder.join(format!("entry-{index:06}"));
            std::fs::symlink_metadata(&there).with_context(|| format!("{} is not found", there.display()))?;
            for other in [format!("entry-{index:06}x"), format!("entry-{index:07}"), format!("e{index}")] {
                let path = folder.join(&other);
                match std::fs::symlink_metadata(&path) {
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(error) => return Err(error).context(format!("{}", path.display())),
                    Ok(_) => bail!("{} is found", path.display()),
                }
            }
        }
    }
    Ok("1000 names found, 3000 not".to_owned())
}

/// A handle finds its file again, also when nothing of it is in memory.
fn handles(plan: &Plan, mount: &Mount) -> Result<String> {
    let manifest = Manifest::load(&on_disk(&plan.small.manifest))?;
    let root = File::open(mount.path()).context("failed to open the root")?;
    let mut handles = Vec::new();
    for entry in &manifest.entries {
        let kind = entry.mode & 0o170_000;
        if kind != 0o100_000 && kind != 0o040_000 {
            continue;
        }
        let path = entry.below(mount.path());
        let handle = sys::handle_of(&path).with_context(|| format!("no handle of {}", path.display()))?;
        handles.push((entry, handle));
    }
    drop_caches()?;
    for (entry, handle) in &mut handles {
        let path = entry.below(mount.path());
        let file = sys::open_handle(&root, handle)
            .with_context(|| format!("the handle of {} opens nothing", path.display()))?;
        let (by_handle, by_name) = (
            file.metadata().context("failed to stat by handle")?,
            std::fs::symlink_metadata(&path).context("failed to stat by name")?,
        );
        ensure!(
            by_handle.ino() == by_name.ino() && by_handle.size() == by_name.size(),
            "the handle of {} opens another file",
            path.display()
        );
    }
    // Inodes that do not exist are stale handles, not crashes.
    if let Some((_, handle)) = handles.first() {
        let mut wrong = handle.clone();
        wrong.scramble();
        match sys::open_handle(&root, &mut wrong) {
            Err(error) if error.raw_os_error() == Some(libc::ESTALE) => {}
            Err(error) => bail!("a handle of no file gives {error}, not ESTALE"),
            Ok(_) => bail!("a handle of no file opens something"),
        }
    }
    Ok(format!("{} handles", handles.len()))
}

/// Through an idmapped mount every owner is shifted; the mount below is not.
fn idmapped(plan: &Plan, mount: &Mount) -> Result<String> {
    const SHIFT: u32 = 100_000;
    let namespace = shifted_namespace(SHIFT).context("failed to make a user namespace")?;
    let target = Path::new("/mnt/idmapped");
    std::fs::create_dir_all(target).context("failed to make a folder")?;
    sys::idmapped_clone(mount.path(), target, &namespace).context("failed to make an idmapped mount")?;
    let result = (|| {
        let manifest = Manifest::load(&on_disk(&plan.small.manifest))?;
        for entry in &manifest.entries {
            let stat = std::fs::symlink_metadata(entry.below(target)).context("failed to stat")?;
            ensure!(
                stat.uid() == entry.uid + SHIFT && stat.gid() == entry.gid + SHIFT,
                "/{} belongs to {}:{}",
                entry.path.escape_ascii(),
                stat.uid(),
                stat.gid()
            );
        }
        Ok(format!("{} names", manifest.entries.len()))
    })();
    rustix::mount::unmount(target, rustix::mount::UnmountFlags::empty())
        .context("failed to unmount the clone")?;
    result
}

/// A user namespace whose id 0 is `shift` outside, alive as long as the file is open.
pub(crate) fn shifted_namespace(shift: u32) -> Result<File> {
    let mut child = Command::new("/proc/self/exe")
        .arg("user-namespace")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to start a helper")?;
    let mut ready = [0; 1];
    child
        .stdout
        .take()
        .context("the helper has no output")?
        .read_exact(&mut ready)
        .context("the helper made no namespace")?;
    let process = Path::new("/proc").join(child.id().to_string());
    for map in ["uid_map", "gid_map"] {
        std::fs::write(process.join(map), format!("0 {shift} 65536"))
            .with_context(|| format!("failed to write {map}"))?;
    }
    let namespace = File::open(process.join("ns/user")).context("failed to open the namespace")?;
    // The end of its input ends the helper.
    drop(child.stdin.take());
    child.wait().context("failed to wait for the helper")?;
    Ok(namespace)
}

/// `user-namespace`: makes one, says so, and waits for the end of its input.
pub(crate) fn namespace_helper() -> Result<()> {
    sys::enter_user_namespace().context("failed to enter a user namespace")?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"r").and_then(|()| stdout.flush()).context("failed to say so")?;
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).context("failed to wait")?;
    Ok(())
}

/// Mapped bytes are the bytes that are read; beyond the end of the file a page is zero.
pub(crate) fn mapping(plan: &Plan, mount: &Mount) -> Result<String> {
    let manifest = Manifest::load(&on_disk(&plan.small.manifest))?;
    let mut bytes = 0;
    for entry in manifest.entries.iter().filter(|e| e.size > 0 && e.mode & 0o170_000 == 0o100_000) {
        let path = entry.below(mount.path());
        drop_caches_seldom(bytes)?;
        let file = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        let size = usize::try_from(entry.size).context("a large file")?;
        let whole = Mapping::new(&file, size.next_multiple_of(4096))
            .with_context(|| format!("failed to map {}", path.display()))?;
        // Backwards: the last page first, without readahead's help.
        let mapped = whole.bytes();
        for page in mapped.chunks(4096).rev() {
            std::hint::black_box(page[0]);
        }
        let mut read = Vec::new();
        (&file).read_to_end(&mut read).with_context(|| format!("failed to read {}", path.display()))?;
        ensure!(mapped[..size] == read[..], "{} is mapped wrong", path.display());
        ensure!(
            mapped[size..].iter().all(|byte| *byte == 0),
            "{} is followed by bytes that are not zero",
            path.display()
        );
        bytes += size;
    }
    Ok(format!("{bytes} bytes"))
}

/// Drops the caches at the first file only: the others are half in memory.
fn drop_caches_seldom(done: usize) -> Result<()> {
    if done == 0 {
        drop_caches()
    } else {
        Ok(())
    }
}

/// `SEEK_DATA` and `SEEK_HOLE` where the source has 35 MiB of nothing.
pub(crate) fn seek(mount: &Mount) -> Result<String> {
    let file = File::open(mount.path().join("srv/cases/sparse/holes")).context("failed to open")?;
    let size = file.metadata().context("failed to stat")?.len();
    let at = |whence| rustix::fs::seek(&file, whence);
    ensure!(at(SeekFrom::Data(0)) == Ok(0), "no data at the beginning");
    let hole = at(SeekFrom::Hole(0)).context("no hole")?;
    ensure!((10_000..(5 << 20)).contains(&hole), "the first hole is at {hole}");
    let data = at(SeekFrom::Data(hole)).context("no data after the hole")?;
    ensure!(data <= 5 << 20 && data > (5 << 20) - 65536, "data goes on at {data}");
    let last = at(SeekFrom::Data(41 << 20));
    ensure!(last == Err(Errno::NXIO), "data in the hole at the end: {last:?}");
    ensure!(at(SeekFrom::Hole(41 << 20)) == Ok(41 << 20), "no hole where a hole is");
    ensure!(at(SeekFrom::Hole(size)) == Err(Errno::NXIO), "a hole beyond the end");
    let blocks = file.metadata().context("failed to stat")?.blocks();
    ensure!(blocks * 512 < size / 10, "{blocks} blocks for a file that is mostly holes");
    Ok(format!("hole at {hole}, data at {data}"))
}

/// Reads of all sizes at all offsets give the bytes of one read from end to end.
pub(crate) fn random_reads(mount: &Mount) -> Result<String> {
    let path = mount.path().join("srv/cases/data/shifted");
    let whole = std::fs::read(&path).context("failed to read")?;
    drop_caches()?;
    let file = File::open(&path).context("failed to open")?;
    let mut state = 88_172_645_463_325_252u64;
    let mut next = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit as u64).unwrap_or(0)
    };
    let mut buffer = vec![0; 300_000];
    for _ in 0..500 {
        let start = next(whole.len() + 5000);
        let want = next(buffer.len());
        let got = file
            .read_at(&mut buffer[..want], start as u64)
            .with_context(|| format!("{want} bytes at {start}"))?;
        let end = whole.len().min(start + want);
        let expected = whole.get(start..end).unwrap_or_default();
        ensure!(buffer[..got] == *expected, "{want} bytes at {start} are wrong");
    }
    Ok("500 reads".to_owned())
}

/// `sendfile`, and reading through a pipe, as `cp` and web servers do.
pub(crate) fn direct(mount: &Mount) -> Result<String> {
    let path = mount.path().join("data/prose");
    let expected = std::fs::read(&path).context("failed to read")?;
    drop_caches()?;
    let copy = Path::new("/tmp/copy");
    // copy_file_range, sendfile or splice, whichever the kernel offers between two file systems.
    std::fs::copy(&path, copy).context("failed to copy")?;
    ensure!(std::fs::read(copy).context("failed to read the copy")? == expected, "the copy differs");
    let mut threads = HashMap::new();
    for number in 0..4u64 {
        let file = File::open(&path).context("failed to open")?;
        threads.insert(
            number,
            std::thread::spawn(move || {
                let mut byte = [0; 1];
                file.read_exact_at(&mut byte, number * 4096).map(|()| byte[0])
            }),
        );
    }
    for (number, thread) in threads {
        let byte =
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.context("failed to read")?;
        let place = usize::try_from(number * 4096).context("a small number")?;
        ensure!(byte == expected[place], "byte {place} differs");
    }
    Ok(String::new())
}
