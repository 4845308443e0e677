// SPDX-License-Identifier: GPL-2.0
//! Packs that are not those of the image: the mount is refused, and the log names the pack.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{fsconfig_reconfigure, fsconfig_set_fd, fspick, FsPickFlags};
use tesserafs_guest::plan::Plan;

use super::{copies, in_directory, is_whole, mount, open, pack, Packs, TARGET};
use crate::fuse::{Fault, Lasts, Served};
use crate::kmsg::Log;
use crate::mounts::{on_disk, Mount};
use crate::privilege::refused_to_user;
use crate::signatures::{require, trust};
use crate::suite::Suite;

const DIRECTORY: &str = "/tmp/packs";

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("an-image-with-packs-needs-to-hear-where", || {
        refused(plan, &plan.packed.base_pack, "", Errno::INVAL)
    });
    suite.test("a-directory-that-is-not-there", || {
        refused(plan, "/tmp/nowhere", "packdir=/tmp/nowhere", Errno::NOENT)
    });
    suite.test("a-file-is-no-directory", || {
        let file = pack(plan, &plan.packed.base_pack);
        let file = file.display();
        refused(plan, &file.to_string(), &format!("packdir={file}"), Errno::NOTDIR)
    });
    suite.test("two-directories", || {
        let directory = on_disk(&plan.packed.directory);
        let directory = directory.display();
        refused(plan, "packdir", &format!("packdir={directory},packdir={directory}"), Errno::INVAL)
    });
    suite.test("a-pack-that-is-missing", || changed(plan, Errno::NOENT, |pack| Ok(fs::remove_file(pack)?)));
    suite.test("a-pack-that-is-short", || changed(plan, Errno::UCLEAN, |pack| set_len(pack, |len| len - 1)));
    suite
        .test("a-pack-that-is-long", || changed(plan, Errno::UCLEAN, |pack| set_len(pack, |len| len + 4096)));
    suite.test("a-foreign-pack-of-the-same-length", || changed(plan, Errno::BADMSG, overwrite));
    suite.test("a-foreign-pack-on-a-store-that-is-trusted", || {
        changed_with(plan, ",trusted_backing", Errno::BADMSG, overwrite)
    });
    suite.test("a-directory-is-no-pack", || {
        changed(plan, Errno::INVAL, |pack| {
            fs::remove_file(pack).and_then(|()| fs::create_dir(pack)).context("failed to make a directory")
        })
    });
    suite.test("a-pipe-is-no-pack", || {
        changed(plan, Errno::INVAL, |pack| {
            fs::remove_file(pack).context("failed to remove a pack")?;
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o644));
            rustix::fs::mknodat(rustix::fs::CWD, pack, kind, mode, 0).context("failed to make a pipe")
        })
    });
    suite.test("a-link-stays-below-the-directory", || {
        let file = pack(plan, &plan.packed.next_pack);
        changed(plan, Errno::NOENT, |pack| {
            fs::remove_file(pack)
                .and_then(|()| std::os::unix::fs::symlink(&file, pack))
                .context("failed to make a link")
        })
    });
    suite.test("an-open-pipe-is-no-pack", || open_pipe(plan));
    suite.test("an-image-on-a-device-has-none", || on_device(plan));
    suite.test("packs-in-another-order", || in_order(plan, &[1, 0], Errno::UCLEAN));
    suite.test("fewer-packs-than-the-image-has", || in_order(plan, &[0], Errno::NOENT));
    suite.test("the-file-of-another-pack-twice", || in_order(plan, &[0, 0], Errno::UCLEAN));
    suite.test("more-packs-than-the-image-has", || spare(plan));
    suite.test("a-remount-says-the-same", || remount(plan));
    suite.test("packs-of-an-image-in-one-file", || unused(plan));
    suite.test("a-user-reads-what-a-user-may-read", || by_user(plan));
    suite.test("a-user-reads-nothing-that-is-served", || served_to_user(plan));
}

/// Fails unless the mount of the image with two packs is refused so, and the log says these words.
fn refused(plan: &Plan, words: &str, options: &str, expected: Errno) -> Result<String> {
    let mut log = Log::from_now()?;
    match Mount::image(&on_disk(&plan.packed.next.image), Path::new(TARGET), options) {
        Ok(_) => bail!("it is mounted"),
        Err(errno) if errno == expected => log.expect_line(words),
        Err(errno) => bail!("it is refused with {errno}, expected {expected}"),
    }
}

/// Something happens to the second pack before the mount.
fn changed(plan: &Plan, expected: Errno, change: impl FnOnce(&Path) -> Result<()>) -> Result<String> {
    changed_with(plan, "", expected, change)
}

/// The same, with more options.
fn changed_with(
    plan: &Plan,
    more: &str,
    expected: Errno,
    change: impl FnOnce(&Path) -> Result<()>,
) -> Result<String> {
    copies(plan, Path::new(DIRECTORY))?;
    let name = &plan.packed.next_pack;
    change(&Path::new(DIRECTORY).join(name))?;
    let said = refused(plan, name, &format!("packdir={DIRECTORY}{more}"), expected)?;
    fs::remove_dir_all(DIRECTORY).context("failed to remove a directory")?;
    in_directory(plan, &plan.packed.next, &plan.packed.directory)?;
    Ok(said)
}

/// Gives a pack other bytes, as many.
fn overwrite(pack: &Path) -> Result<()> {
    let len = fs::metadata(pack).context("failed to stat a pack")?.len();
    fs::write(pack, vec![1; len as usize]).context("failed to write a pack")
}

fn set_len(pack: &Path, len: impl FnOnce(u64) -> u64) -> Result<()> {
    let file = fs::File::options().write(true).open(pack).context("failed to open a pack")?;
    let now = file.metadata().context("failed to stat a pack")?.len();
    file.set_len(len(now)).context("failed to change the length of a pack")
}

/// Open packs, by their index in the table, in an order that is not that of the table.
fn in_order(plan: &Plan, order: &[usize], expected: Errno) -> Result<String> {
    let packed = &plan.packed;
    let files = [open(&pack(plan, &packed.base_pack))?, open(&pack(plan, &packed.next_pack))?];
    let packs = order.iter().map(|index| &files[*index]).collect();
    match mount(&on_disk(&packed.next.image), &Packs::Open(packs)) {
        Err(errno) if errno == expected => Ok(errno.to_string()),
        other => bail!("mounting gives {:?}, expected {expected}", other.map(|_| ())),
    }
}

/// A pack that the table does not have.
fn spare(plan: &Plan) -> Result<String> {
    let packed = &plan.packed;
    let files = [open(&pack(plan, &packed.base_pack))?, open(&pack(plan, &packed.next_pack))?];
    let packs = vec![&files[0], &files[1], &files[0]];
    match mount(&on_disk(&packed.next.image), &Packs::Open(packs)) {
        Err(Errno::INVAL) => Ok(String::new()),
        other => bail!("mounting gives {:?}, expected {}", other.map(|_| ()), Errno::INVAL),
    }
}

/// An open pipe is no pack, which is found before it is opened again.
fn open_pipe(plan: &Plan) -> Result<String> {
    let (pipe, _writer) = rustix::pipe::pipe().context("failed to make a pipe")?;
    let pipe = fs::File::from(pipe);
    match mount(&on_disk(&plan.packed.next.image), &Packs::Open(vec![&pipe])) {
        Err(Errno::INVAL) => Ok(String::new()),
        other => bail!("mounting gives {:?}, expected {}", other.map(|_| ()), Errno::INVAL),
    }
}

/// An image on a device has its chunks there: a device is read with locks on which others wait.
fn on_device(plan: &Plan) -> Result<String> {
    let file = open(&on_disk(&plan.packed.next.image))?;
    let (device, _user) = crate::sys::loop_device(&file).context("failed to make a loop device")?;
    let options = format!("packdir={}", on_disk(&plan.packed.directory).display());
    let mut log = Log::from_now()?;
    match Mount::image(&device, Path::new(TARGET), &options) {
        Err(Errno::INVAL) => log.expect_line("an image on a device is in one file"),
        other => bail!("mounting gives {:?}, expected {}", other.map(|_| ()), Errno::INVAL),
    }
}

/// A remount may repeat where packs are, as the mount table has it, and not say anything else; it opens nothing.
fn remount(plan: &Plan) -> Result<String> {
    let directory = on_disk(&plan.packed.directory);
    let options = format!("packdir={}", directory.display());
    let image = on_disk(&plan.packed.next.image);
    let mount = Mount::image(&image, Path::new(TARGET), &options).context("failed to mount")?;
    let again = |options: &str| {
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount_remount(TARGET, rustix::mount::MountFlags::RDONLY, options.as_c_str())
    };
    again(&options).context("a remount with the same directory is refused")?;
    again("").context("a remount without a word is refused")?;
    ensure!(again("packdir=/tmp") == Err(Errno::INVAL), "a remount may name another directory");
    // It is named no matter what is there now.
    ensure!(again("packdir=/tmp/nowhere") == Err(Errno::INVAL), "a remount looks for a directory");
    let pack = open(&super::pack(plan, &plan.packed.next_pack))?;
    let reconfigured = |pack: &fs::File| {
        let context = fspick(CWD, TARGET, FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_fd(&context, "packdir", pack.as_fd())?;
        fsconfig_reconfigure(&context)
    };
    ensure!(reconfigured(&pack) == Err(Errno::INVAL), "a remount takes an open pack");
    reconfigured(&open(&directory)?).context("a remount with the same directory, open, is refused")?;
    is_whole(&mount, &plan.packed.next)?;
    mount.unmount()?;

    // Of a mount with open packs, too.
    let packs = [&plan.packed.base_pack, &plan.packed.next_pack].map(|name| super::pack(plan, name));
    let packs = [open(&packs[0])?, open(&packs[1])?];
    let mount = super::mount(&image, &Packs::Open(packs.iter().collect())).context("failed to mount")?;
    ensure!(reconfigured(&pack) == Err(Errno::INVAL), "a remount takes an open pack");
    ensure!(again(&options) == Err(Errno::INVAL), "a remount names a directory in the place of open packs");
    mount.unmount()?;

    // A relative path is the one that it was then, wherever the remount comes from.
    let name = directory.file_name().context("a directory has a name")?;
    std::env::set_current_dir(directory.parent().context("a directory has a parent")?)?;
    let mount = Mount::image(&image, Path::new(TARGET), &format!("packdir={}", Path::new(name).display()));
    std::env::set_current_dir("/")?;
    let mount = mount.context("failed to mount")?;
    again(&options).context("a remount with the whole path is refused")?;
    mount.unmount()?;
    Ok(options)
}

/// An image that has all its chunks takes the option, which then says nothing.
fn unused(plan: &Plan) -> Result<String> {
    let options = format!("packdir={}", on_disk(&plan.packed.directory).display());
    let mount =
        Mount::image(&on_disk(&plan.small.image), Path::new(TARGET), &options).context("failed to mount")?;
    is_whole(&mount, &plan.small)?;
    mount.unmount()?;
    Ok(String::new())
}

/// Packs are opened with the rights of the mounter, in a user namespace, too.
fn by_user(plan: &Plan) -> Result<String> {
    require()?;
    trust(plan)?;
    copies(plan, Path::new(DIRECTORY))?;
    let image = on_disk(&plan.packed.next.image);
    let options = format!("packdir={DIRECTORY}");
    let secret = Path::new(DIRECTORY).join(&plan.packed.next_pack);
    let mode =
        |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).context("failed to set a mode");
    mode(0o600)?;
    let mut log = Log::from_now()?;
    ensure!(refused_to_user(&image, &options)? == Some(Errno::ACCESS), "a user reads what is root's");
    let line = log.expect_line(&plan.packed.next_pack)?;
    mode(0o644)?;
    let errno = refused_to_user(&image, &options)?;
    ensure!(errno.is_none(), "a user cannot mount: {errno:?}");
    fs::remove_dir_all(DIRECTORY).context("failed to remove a directory")?;
    Ok(line)
}

/// A pack on a filesystem that a program serves: nothing is read, as it might never come back.
fn served_to_user(plan: &Plan) -> Result<String> {
    require()?;
    trust(plan)?;
    let name = &plan.packed.base_pack;
    let bytes = fs::read(pack(plan, name)).context("failed to read a pack")?;
    let served = Served::named(bytes, name)?;
    served.arm(Fault::Fails, Lasts::Everywhere, 0);
    let directory: PathBuf = served.file().parent().context("a file has a directory")?.to_owned();
    let mut log = Log::from_now()?;
    let errno =
        refused_to_user(&on_disk(&plan.packed.next.image), &format!("packdir={}", directory.display()))?;
    ensure!(errno == Some(Errno::PERM), "a user gets {errno:?}");
    ensure!(served.call_off() == 0, "the file was read");
    served.unmount()?;
    log.expect_line(name)
}
