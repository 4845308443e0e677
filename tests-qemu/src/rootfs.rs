// SPDX-License-Identifier: GPL-2.0
//! Real input: a Debian root with compilers, and in it one of everything that a tree can hold.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    lsetxattr, makedev, mknodat, utimensat, AtFlags, FileType, Mode, Timespec, Timestamps, XattrFlags, CWD,
};

use crate::cache::{key, log_of, Cache};
use crate::debian::{self, Variant};
use crate::{run, setup};

/// The release of Debian that all roots are of.
pub(crate) const SUITE: &str = "bookworm";

/// On top of a minimal Debian: what the tests run from the mount.
const PACKAGES: &str = "python3,perl,gcc,libc6-dev";

/// Where, in the root, everything lies that Debian does not bring.
const CASES: &str = "srv/cases";

/// The directory with a great many entries, below the root.
pub(crate) const BIG_DIRECTORY: &str = "srv/cases/big";

/// Entries of it.
const BIG: usize = 100_000;

/// The root in the cache, made once: it depends on nothing but this file and the archive.
pub(crate) fn debian(cache: &Cache) -> Result<PathBuf> {
    let key = key(&[include_bytes!("rootfs.rs")]);
    let root = cache.once(&format!("debian-{key}"), |folder| {
        setup::require_root("make a Debian root (mmdebstrap, device numbers, capabilities)")?;
        run::say(format_args!("making a Debian {SUITE} root with {PACKAGES}"));
        debian::bootstrap(folder, SUITE, Variant::Minimal, PACKAGES, &log_of(folder))?;
        for entry in list(&folder.join("dev"))? {
            // An image holds no devices: their numbers differ from machine to machine.
            remove(&entry)?;
        }
        let cases = folder.join(CASES);
        std::fs::create_dir_all(&cases).with_context(|| format!("failed to create {}", cases.display()))?;
        augment(&cases, BIG).context("failed to add the special cases")
    })?;
    cache.forget_others(&root, "debian-")?;
    Ok(root)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    folder
        .read_dir()
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("failed to list {}", folder.display()))
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
    .with_context(|| format!("failed to remove {}", path.display()))
}

/// Adds one of everything below `cases`. Times come last: what is made in a folder changes its time.
pub(crate) fn augment(cases: &Path, big: usize) -> Result<()> {
    let folder = |name: &str| -> Result<PathBuf> {
        let path = cases.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(path)
    };
    data(&folder("data")?)?;
    sparse(&folder("sparse")?)?;
    links(&folder("links")?)?;
    names(&folder("names")?)?;
    special(&folder("special")?)?;
    attributes(&folder("attributes")?)?;
    modes(&folder("modes")?)?;
    let many = folder("big")?;
    for index in 0..big {
        let text = if index % 1000 == 0 { format!("{index}\n") } else { String::new() };
        write(&many.join(format!("entry-{index:06}")), text.as_bytes())?;
    }
    let deep = (0..100).fold(cases.join("deep"), |path, level| path.join(format!("level-{level}")));
    std::fs::create_dir_all(&deep).context("failed to create deep folders")?;
    write(&deep.join("bottom"), b"bottom\n")?;
    times(&folder("times")?)
}

/// Bytes that do not compress, the same at every run (splitmix64).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    out.truncate(length);
    out
}

/// Bytes that compress well, the same at every run.
pub(crate) fn prose(seed: u64, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 64);
    for (line, word) in noise(seed, length / 8 + 8).chunks(4).enumerate() {
        if out.len() >= length {
            break;
        }
        out.extend_from_slice(format!("{line}: the value of {:?} is not known\n", &word[..2]).as_bytes());
    }
    out.resize(length, b'.');
    out
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

/// Sizes around every limit that a chunker, a block and a page have.
fn data(folder: &Path) -> Result<()> {
    for size in [0, 1, 4095, 4096, 4097, 65535, 65536, 131_072, 131_073, 1_000_000] {
        write(&folder.join(format!("prose-{size}")), &prose(size as u64, size))?;
        write(&folder.join(format!("noise-{size}")), &noise(size as u64, size))?;
    }
    let large = noise(1, 3 << 20);
    write(&folder.join("large"), &large)?;
    write(&folder.join("same-as-large"), &large)?;
    // A byte put in at the front: content-defined chunks find the rest again.
    write(&folder.join("shifted"), &[b"x", &large[..]].concat())?;
    for index in 0..300 {
        write(&folder.join(format!("small-{index:03}")), &prose(index, 37 * (index as usize % 50)))?;
    }
    Ok(())
}

/// Holes at the beginning, in the middle, at the end; zeros that are written; files larger than any disk.
pub(crate) fn sparse(folder: &Path) -> Result<()> {
    let create = |name: &str| {
        OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(folder.join(name))
            .with_context(|| format!("failed to create {name}"))
    };
    let file = create("holes")?;
    for (index, position) in [0u64, 5 << 20, (5 << 20) + 4096, 40 << 20].iter().enumerate() {
        file.write_all_at(&noise(index as u64, 10_000), *position)
            .context("failed to write between holes")?;
    }
    file.set_len(64 << 20).context("failed to end in a hole")?;
    create("only-a-hole")?.set_len(1_000_001).context("failed to make a hole")?;
    write(&folder.join("zeros"), &vec![0; 300_000])?;
    let mut mixed = noise(9, 200_000);
    mixed[50_000..150_000].fill(0);
    write(&folder.join("zeros-inside"), &mixed)?;
    huge(&create("huge")?)
}

/// Makes a file as large as the file system allows, 2^63-1 bytes at most, with data in a few places.
fn huge(file: &File) -> Result<()> {
    let largest = [i64::MAX as u64, (1 << 60), (16 << 40) - 4096, (4 << 40), (1 << 40)];
    let mut size = 0;
    for candidate in largest {
        if file.set_len(candidate).is_ok() {
            size = candidate;
            break;
        }
    }
    anyhow::ensure!(size != 0, "the file system cannot hold a sparse file of a terabyte");
    // Not in the last page: at 2^63-1 the kernel's own `SEEK_HOLE` on tmpfs overflows there.
    for (seed, position) in [(1, 0), (2, size / 2), (3, size - 65536)] {
        file.write_all_at(&noise(seed, 5000), position).context("failed to write into a huge file")?;
    }
    Ok(())
}

/// Hard links in one folder and across, symlinks of all lengths.
fn links(folder: &Path) -> Result<()> {
    let sub = folder.join("sub");
    std::fs::create_dir(&sub).context("failed to create a folder")?;
    write(&folder.join("one"), b"one file, three names\n")?;
    for name in ["two", "sub/three"] {
        std::fs::hard_link(folder.join("one"), folder.join(name)).context("failed to link")?;
    }
    let link = |target: &OsStr, name: &str| {
        symlink(target, folder.join(name)).with_context(|| format!("failed to make symlink {name}"))
    };
    link(OsStr::new("one"), "to-one")?;
    link(OsStr::new("nowhere/at/all"), "dangling")?;
    link(OsStr::new("/"), "absolute")?;
    link(&OsString::from_vec(b"caf\xe9/\xff".to_vec()), "not-text")?;
    for length in [59usize, 60, 4094, 4095] {
        let target: String = "/long-target".chars().cycle().take(length).collect();
        link(OsStr::new(&target), &format!("length-{length}"))?;
    }
    std::fs::hard_link(folder.join("to-one"), folder.join("to-one-again")).context("failed to link a symlink")
}

/// Names are bytes.
fn names(folder: &Path) -> Result<()> {
    let long = [b'n'; 255];
    let high = [0xfe; 255];
    let names: [&[u8]; 12] = [
        b"caf\xe9",
        b"\xff\xfe",
        b"new\nline",
        b"\x01\x7f",
        b" ",
        b"-rf",
        b"*",
        b"...",
        b"\\x41",
        "\u{e9}\u{301}\u{1f600}".as_bytes(),
        &long,
        &high,
    ];
    for name in names {
        write(&folder.join(OsString::from_vec(name.to_vec())), name)?;
    }
    let sub = folder.join(OsString::from_vec(b"dir\xe9".to_vec()));
    std::fs::create_dir(&sub).context("failed to create a folder")?;
    write(&sub.join("inside"), b"inside\n")
}

/// FIFOs, sockets and whiteouts.
fn special(folder: &Path) -> Result<()> {
    let node = |name: &str, kind: FileType, mode: u32, device: u64| {
        mknodat(CWD, folder.join(name), kind, Mode::from_raw_mode(mode), device)
            .with_context(|| format!("failed to make {name}"))
    };
    node("fifo", FileType::Fifo, 0o640, 0)?;
    node("socket", FileType::Socket, 0o755, 0)?;
    node("whiteout", FileType::CharacterDevice, 0, makedev(0, 0))?;
    std::fs::create_dir(folder.join("layer")).context("failed to create a folder")?;
    node("layer/removed", FileType::CharacterDevice, 0, makedev(0, 0))?;
    write(&folder.join("layer/kept"), b"kept\n")
}

/// Extended attributes, ACLs, capabilities.
fn attributes(folder: &Path) -> Result<()> {
    let set = |path: &Path, name: &str, value: &[u8]| {
        lsetxattr(path, name, value, XattrFlags::empty())
            .with_context(|| format!("failed to set {name} on {}", path.display()))
    };
    let file = folder.join("file");
    write(&file, b"attributes\n")?;
    set(&file, "user.empty", b"")?;
    set(&file, "user.bytes", b"\x00\xff\n=")?;
    set(&file, "trusted.tesserafs", b"for the administrator")?;
    set(&file, "security.tesserafs", b"a label")?;
    let large = folder.join("large");
    write(&large, b"one large value\n")?;
    set(&large, "user.large", &noise(5, 3000))?;
    let many = folder.join("many");
    write(&many, b"many small values\n")?;
    for index in 0..50 {
        set(&many, &format!("user.name-{index}"), format!("{index}").as_bytes())?;
    }
    for index in 0..20 {
        let same = folder.join(format!("same-{index}"));
        write(&same, b"")?;
        set(&same, "user.shared", b"the same set on twenty files")?;
    }
    let sub = folder.join("dir");
    std::fs::create_dir(&sub).context("failed to create a folder")?;
    set(&sub, "user.on-a-directory", b"yes")?;
    let link = folder.join("link");
    symlink("file", &link).context("failed to make a symlink")?;
    set(&link, "trusted.on-a-symlink", b"yes")?;

    let acl = folder.join("acl");
    write(&acl, b"for some\n")?;
    let setfacl =
        |arguments: &[&str], path: &Path| run::run(run::command("setfacl").args(arguments).arg(path));
    setfacl(&["-m", "u:1000:rw,g:50:r,u:65534:-"], &acl)?;
    setfacl(&["-m", "g:1234:rwx", "-d", "-m", "u:1000:rwx,g:50:rx"], &sub)?;

    let program = folder.join("capable");
    write(&program, &noise(6, 100))?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).context("failed to set a mode")?;
    run::run(
        run::command("setcap")
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .arg("cap_net_raw,cap_net_bind_service+ep")
            .arg(&program),
    )
}

/// Modes and owners, the largest numbers among them.
fn modes(folder: &Path) -> Result<()> {
    for mode in [0o000, 0o400, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777] {
        let path = folder.join(format!("mode-{mode:04o}"));
        write(&path, b"mode\n")?;
        chown(&path, 0, 0)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).context("failed to set a mode")?;
    }
    for (uid, gid) in [(1, 2), (65535, 65536), (1_000_000, 4_294_967_294), (4_294_967_294, 0)] {
        let path = folder.join(format!("owner-{uid}-{gid}"));
        write(&path, b"owner\n")?;
        chown(&path, uid, gid)?;
    }
    let sticky = folder.join("sticky");
    std::fs::create_dir(&sticky).context("failed to create a folder")?;
    std::fs::set_permissions(&sticky, PermissionsExt::from_mode(0o1777)).context("failed to set a mode")
}

fn chown(path: &Path, uid: u32, gid: u32) -> Result<()> {
    std::os::unix::fs::chown(path, Some(uid), Some(gid))
        .with_context(|| format!("failed to give {} to {uid}:{gid}", path.display()))
}

/// Modification times before 1970, after 2038, and to the nanosecond.
fn times(folder: &Path) -> Result<()> {
    let moments = [
        (-1, 0),
        (-1, 999_999_999),
        (-2_000_000_000, 1),
        (0, 0),
        (0, 1),
        (1, 999_999_999),
        (2_147_483_648, 123_456_789),
        (4_294_967_296, 5),
        (15_032_385_535, 0),
    ];
    for (index, (tv_sec, tv_nsec)) in moments.into_iter().enumerate() {
        let path = folder.join(format!("time-{index}"));
        write(&path, b"time\n")?;
        set_time(&path, tv_sec, tv_nsec)?;
    }
    let link = folder.join("link");
    symlink("time-0", &link).context("failed to make a symlink")?;
    set_time(&link, -7, 7)?;
    let sub = folder.join("dir");
    std::fs::create_dir(&sub).context("failed to create a folder")?;
    set_time(&sub, 1_600_000_000, 987_654_321)
}

/// Sets the modification time of a name itself.
pub(crate) fn set_time(path: &Path, tv_sec: i64, tv_nsec: i64) -> Result<()> {
    let moment = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: moment, last_modification: moment };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .with_context(|| format!("failed to set the time of {}", path.display()))
}
