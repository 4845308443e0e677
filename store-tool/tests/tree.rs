// SPDX-License-Identifier: GPL-2.0-or-later

//! A mount shows the tree that the image was made of: to root and to others, by all calls that look at it.

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{symlink, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{
    flock, getxattr, getxattr_query, lgetxattr, listxattr, listxattr_query, mknodat, setxattr, statvfs,
    FileType, FlockOperation, Mode, XattrFlags, CWD,
};
use support::{as_user, build, folder, noise, Mount};

/// A tree with all that an image can hold.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/deep/er")).expect("directories");
    fs::create_dir(root.join("empty")).expect("a directory");
    fs::write(root.join("nothing"), "").expect("a file");
    fs::write(root.join("small"), "a few bytes\n").expect("a file");
    for n in 0..200 {
        fs::write(root.join(format!("dir/small-{n}")), noise(n, 100 + n as usize * 37)).expect("a file");
    }
    fs::write(root.join("dir/large"), noise(7, 5_000_001)).expect("a file");
    fs::write(
        root.join("dir/deep/er/plain"),
        (0..400_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>(),
    )
    .expect("a file");
    fs::hard_link(root.join("small"), root.join("dir/linked")).expect("a link");
    symlink("../small", root.join("dir/symlink")).expect("a symlink");
    symlink("x".repeat(4000), root.join("long")).expect("a symlink");
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).expect("a FIFO");
    mknodat(CWD, root.join("socket"), FileType::Socket, Mode::from(0o700), 0).expect("a socket");
    mknodat(CWD, root.join("dir/whiteout"), FileType::CharacterDevice, Mode::empty(), 0).expect("a whiteout");
    let sparse = File::create(root.join("sparse")).expect("a file");
    sparse.write_all_at(&noise(1, 10_000), 1 << 20).expect("data");
    sparse.write_all_at(&noise(2, 4096), 5 << 20).expect("data");
    sparse.set_len((7 << 20) + 5).expect("a length");
    fs::set_permissions(root.join("small"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o1777)).expect("a mode");
    std::os::unix::fs::chown(root.join("dir/small-1"), Some(1234), Some(4321)).expect("an owner");
    fs::set_permissions(root.join("dir/small-1"), fs::Permissions::from_mode(0o600)).expect("a mode");
    for (name, value) in
        [("user.one", "1"), ("user.two", ""), ("trusted.three", "only root"), ("security.four", "4")]
    {
        setxattr(root.join("dir"), name, value.as_bytes(), XattrFlags::empty()).expect(name);
    }
    fs::create_dir(root.join("closed")).expect("a directory");
    fs::write(root.join("closed/file"), "x").expect("a file");
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o750)).expect("a mode");
    for (name, user) in [("dir/private", None), ("dir/by-acl", Some(1234)), ("dir/not-by-acl", Some(1235))] {
        fs::write(root.join(name), "for one").expect("a file");
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o640)).expect("a mode");
        if let Some(user) = user {
            setxattr(root.join(name), "system.posix_acl_access", &acl(user), XattrFlags::empty())
                .expect("an ACL");
        }
    }
    let old = File::options().write(true).open(root.join("nothing")).expect("a file");
    let time = std::time::UNIX_EPOCH - std::time::Duration::new(86_400, 250_000_000);
    old.set_modified(time).expect("a time");
}

/// An ACL that lets the owner write, and one user read.
fn acl(user: u32) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    let nobody = u32::MAX;
    for (tag, bits, id) in
        [(1_u16, 6_u16, nobody), (2, 4, user), (4, 0, nobody), (0x10, 4, nobody), (0x20, 0, nobody)]
    {
        value.extend(tag.to_le_bytes());
        value.extend(bits.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// The answers of `stat` and friends for each file, by its path.
fn look(top: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(path) = todo.pop() {
        let shown = path.strip_prefix(top).expect("below").to_str().expect("UTF-8").to_owned();
        let stat = path.symlink_metadata().expect(&shown);
        let kind = stat.file_type();
        let content = if kind.is_file() {
            let bytes = fs::read(&path).expect(&shown);
            format!(
                "{} bytes, {:x}",
                bytes.len(),
                bytes.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) ^ u64::from(*byte))
            )
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).expect(&shown))
        } else if kind.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).expect(&shown).map(|entry| entry.expect("an entry")).collect();
            names.sort_by_key(|entry| entry.file_name());
            todo.extend(names.iter().map(|entry| entry.path()));
            let kinds: Vec<_> =
                names.iter().map(|entry| (entry.file_name(), entry.file_type().expect("a type"))).collect();
            format!("{kinds:?}")
        } else {
            format!("{}", kind.is_char_device())
        };
        let size = if kind.is_dir() { 0 } else { stat.size() };
        let line = format!(
            "{:o} {}:{} {} links, {size} bytes, {}.{:09}, device {}, {content}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.nlink(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.rdev(),
        );
        found.insert(shown, line);
    }
    found
}

fn mounted() -> Option<(tempfile::TempDir, Mount)> {
    let folder = folder()?;
    fs::create_dir(folder.path().join("root")).expect("a directory");
    make_tree(&folder.path().join("root"));
    let image = build(folder.path());
    let mount = Mount::new(&image, &[]);
    Some((folder, mount))
}

#[test]
fn all_of_the_tree_is_shown() {
    let Some((folder, mount)) = mounted() else { return };
    let (expected, found) = (look(&folder.path().join("root")), look(&mount.dir));
    for (path, line) in &expected {
        assert_eq!(found.get(path), Some(line), "{path}");
    }
    assert_eq!(found.len(), expected.len());
    // Once more, from the caches of the kernel.
    assert_eq!(look(&mount.dir), found);
    assert!(mount.failures().is_empty(), "{}", mount.log());
}

#[test]
fn stat_shows_what_the_kernel_driver_does() {
    let Some((_folder, mount)) = mounted() else { return };
    let root = mount.dir.metadata().expect("root");
    assert_eq!((root.ino(), root.blksize()), (1, 4096));
    // The number of its entries, as the size of a directory.
    assert_eq!(root.size(), fs::read_dir(&mount.dir).expect("entries").count() as u64);
    let sparse = mount.path("sparse").metadata().expect("a file");
    assert_eq!(sparse.blocks(), 8 * (3 + 1));
    let stat = mount.path("small").metadata().expect("a file");
    assert_eq!(
        (stat.atime(), stat.ctime(), stat.ctime_nsec()),
        (stat.mtime(), stat.mtime(), stat.mtime_nsec())
    );
    let whiteout = mount.path("dir/whiteout").symlink_metadata().expect("a whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let vfs = statvfs(&mount.dir).expect("statfs");
    let blocks = fs::metadata(mount.dir.with_file_name("image.tess")).expect("an image").len() / 4096;
    assert_eq!((vfs.f_bsize, vfs.f_frsize, vfs.f_blocks, vfs.f_namemax), (4096, 4096, blocks, 255));
    assert_eq!((vfs.f_bfree, vfs.f_bavail, vfs.f_ffree), (0, 0, 0));
}

#[test]
fn holes_and_data_are_found() {
    let Some((_folder, mount)) = mounted() else { return };
    let mut file = File::open(mount.path("sparse")).expect("a file");
    let seek = |from: u64, data: bool| {
        let from = if data { rustix::fs::SeekFrom::Data(from) } else { rustix::fs::SeekFrom::Hole(from) };
        rustix::fs::seek(&file, from)
    };
    assert_eq!(seek(0, true), Ok(1 << 20));
    assert_eq!(seek(0, false), Ok(0));
    let end = seek(1 << 20, false).expect("a hole");
    assert!(((1 << 20) + 10_000..(1 << 20) + 20_000).contains(&end), "{end}");
    assert_eq!(seek(end, true), Ok(5 << 20));
    assert_eq!(seek((5 << 20) + 5000, true), Err(rustix::io::Errno::NXIO));
    assert_eq!(seek((7 << 20) + 5, false), Err(rustix::io::Errno::NXIO));
    // Zeros that are not stored are read as zeros, and so is what crosses from them to data.
    file.seek(SeekFrom::Start((1 << 20) - 10)).expect("a position");
    let mut bytes = [7; 20];
    file.read_exact(&mut bytes).expect("bytes");
    assert_eq!(bytes[..10], [0; 10]);
    assert_eq!(bytes[10..], noise(1, 10)[..]);
}

#[test]
fn xattrs_are_those_that_the_caller_may_see() {
    let Some((_folder, mount)) = mounted() else { return };
    let dir = mount.path("dir");
    let mut buffer = vec![0; 1000];
    let len = listxattr(&dir, &mut buffer[..]).expect("names");
    let mut names: Vec<&[u8]> =
        buffer[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, [&b"security.four"[..], b"trusted.three", b"user.one", b"user.two"]);
    assert_eq!(listxattr(&dir, &mut buffer[..3]), Err(rustix::io::Errno::RANGE));
    assert_eq!(listxattr_query(&dir), Ok(len));
    let len = getxattr(&dir, "trusted.three", &mut buffer[..]).expect("a value");
    assert_eq!(&buffer[..len], b"only root");
    assert_eq!(getxattr(&dir, "user.two", &mut buffer[..]), Ok(0));
    assert_eq!(getxattr_query(&dir, "user.one"), Ok(1));
    assert_eq!(getxattr(&dir, "user.none", &mut buffer[..]), Err(rustix::io::Errno::NODATA));
    assert_eq!(lgetxattr(mount.path("long"), "user.none", &mut buffer[..]), Err(rustix::io::Errno::NODATA));

    as_user(|| {
        let mut buffer = vec![0; 1000];
        let len = listxattr(&dir, &mut buffer[..]).expect("names");
        let mut names: Vec<&[u8]> =
            buffer[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        assert_eq!(names, [&b"security.four"[..], b"user.one", b"user.two"]);
        assert_eq!(getxattr(&dir, "trusted.three", &mut buffer[..]), Err(rustix::io::Errno::NODATA));
        assert_eq!(getxattr(&dir, "user.one", &mut buffer[..]), Ok(1));
    });
}

#[test]
fn others_see_what_modes_owners_and_acls_let_them() {
    let Some((folder, mount)) = mounted() else { return };
    as_user(|| {
        assert!(fs::read(mount.path("small")).is_ok());
        // Its owner, though nobody else may read it.
        assert!(fs::read(mount.path("dir/small-1")).is_ok());
        let refused = |path: &str| fs::read(mount.path(path)).expect_err(path).raw_os_error();
        let access = Some(rustix::io::Errno::ACCESS.raw_os_error());
        assert_eq!(refused("dir/private"), access);
        assert_eq!(refused("closed/file"), access);
        // By an ACL alone; and one who is in no entry of it.
        assert_eq!(fs::read(mount.path("dir/by-acl")).expect("a file"), b"for one");
        assert_eq!(refused("dir/not-by-acl"), access);
    });
    let len = getxattr(mount.path("dir/by-acl"), "system.posix_acl_access", &mut [0; 100][..]);
    assert_eq!(len, Ok(44));
    drop(mount);
    // Without ACLs nobody has heard of them.
    let mount = Mount::new(&folder.path().join("image.tess"), &["-o", "noacl"]);
    let acl = mount.path("dir/by-acl");
    assert_eq!(
        getxattr(&acl, "system.posix_acl_access", &mut [0; 100][..]),
        Err(rustix::io::Errno::OPNOTSUPP)
    );
    assert_eq!(listxattr_query(&acl), Ok(0));
    as_user(|| assert!(fs::read(&acl).is_err()));
}

#[test]
fn nothing_can_be_written() {
    let Some((_folder, mount)) = mounted() else { return };
    let refused = |result: io::Result<()>, what: &str| {
        assert_eq!(
            result.expect_err(what).raw_os_error(),
            Some(rustix::io::Errno::ROFS.raw_os_error()),
            "{what}"
        );
    };
    refused(File::options().write(true).open(mount.path("small")).map(drop), "open");
    refused(File::create(mount.path("new")).map(drop), "create");
    refused(fs::create_dir(mount.path("new")), "mkdir");
    refused(fs::remove_file(mount.path("small")), "unlink");
    refused(fs::rename(mount.path("small"), mount.path("other")), "rename");
    refused(fs::set_permissions(mount.path("small"), fs::Permissions::from_mode(0o777)), "chmod");
    let set = setxattr(mount.path("small"), "user.x", b"1", XattrFlags::empty());
    assert_eq!(set, Err(rustix::io::Errno::ROFS));
    // A mount that root has made writable is none all the same.
    let remounted = rustix::mount::mount_remount(&mount.dir, rustix::mount::MountFlags::empty(), c"");
    if remounted.is_ok() {
        refused(fs::create_dir(mount.path("new")), "mkdir");
        refused(
            File::options().write(true).open(mount.path("small")).and_then(|file| file.write_all_at(b"x", 0)),
            "write",
        );
    }
}

#[test]
fn a_directory_of_100_000_entries_is_listed_from_any_position() {
    let Some(folder) = folder() else { return };
    let root = folder.path().join("root");
    fs::create_dir_all(root.join("many")).expect("a directory");
    for n in 0..100_000 {
        symlink("x", root.join(format!("many/{n:05}"))).expect("a symlink");
    }
    let mount = Mount::new(&build(folder.path()), &[]);
    let many = mount.path("many");
    let names: Vec<String> = fs::read_dir(&many)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(names.len(), 100_000);
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "not in order, or twice");
    // Positions are those of the kernel driver, and lead to the same entry whenever they are used.
    let file = File::open(&many).expect("a directory");
    let mut buffer = Vec::with_capacity(8192);
    for (position, expected) in [(0, "."), (1, ".."), (2, "00000"), (50_002, "50000"), (100_001, "99999")] {
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(position)).expect("a position");
        let mut entries = rustix::fs::RawDir::new(&file, buffer.spare_capacity_mut());
        let entry = entries.next().expect("an entry").expect("an entry");
        assert_eq!(entry.file_name().to_str(), Ok(expected));
        assert_eq!(entry.next_entry_cookie(), position + 1);
    }
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(100_002)).expect("a position");
    assert!(rustix::fs::RawDir::new(&file, buffer.spare_capacity_mut()).next().is_none());
    buffer.clear();
}

#[test]
fn programs_run_files_are_mapped_and_locks_are_local() {
    let Some(folder) = folder() else { return };
    let root = folder.path().join("root");
    fs::create_dir(&root).expect("a directory");
    fs::copy("/bin/cat", root.join("cat")).expect("a program");
    fs::write(root.join("file"), "mapped\n").expect("a file");
    let mount = Mount::new(&build(folder.path()), &[]);
    // Its pages are mapped.
    let said = std::process::Command::new(mount.path("cat")).arg(mount.path("file")).output().expect("cat");
    assert_eq!(said.stdout, b"mapped\n");
    let (one, two) =
        (File::open(mount.path("file")).expect("a file"), File::open(mount.path("file")).expect("a file"));
    flock(&one, FlockOperation::LockExclusive).expect("a lock");
    assert_eq!(flock(&two, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK));
    drop(one);
    flock(&two, FlockOperation::NonBlockingLockShared).expect("a lock");
    let direct = File::options()
        .read(true)
        .custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32)
        .open(mount.path("cat"));
    let mut bytes = vec![0; 8192];
    direct.expect("a file").read_exact_at(&mut bytes, 4096).expect("bytes");
    assert_eq!(bytes, fs::read("/bin/cat").expect("a program")[4096..12288]);
}

#[test]
fn names_that_are_not_there_are_not_there() {
    let Some((_folder, mount)) = mounted() else { return };
    let error = |path: &str| mount.path(path).symlink_metadata().expect_err(path).raw_os_error();
    for _ in 0..2 {
        assert_eq!(error("none"), Some(2));
        assert_eq!(error("small/none"), Some(20));
        assert_eq!(error(&"n".repeat(255)), Some(2));
        assert_eq!(error(&"n".repeat(256)), Some(36));
    }
}
