// SPDX-License-Identifier: GPL-2.0
//! Waiting: a task that waits for a store keeps nobody else waiting who does not need its bytes, and can be
//! killed; and the module waits for those who still hold something of it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;

use crate::boot;
use crate::fuse::{Fault, Lasts, Served};
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::observe;
use crate::sharing::{longest, read};
use crate::suite::Suite;
use crate::sys;

const TARGET: &str = "/mnt/image";

/// A mount takes fewer reads.
const READS_MAX: u32 = 1000;

/// How long something takes at most that does not wait for a store.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How long something is given to come to where it waits.
pub(crate) const A_WHILE: Duration = Duration::from_millis(500);

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("a-mount-that-waits-keeps-nobody-waiting", || unborn(plan));
    suite.test("a-killed-open-decides-nothing", || killed_open(plan));
    suite.test("a-task-that-waits-for-metadata-can-be-killed", || killed_look_up(plan));
    suite.test("the-module-waits-for-those-who-walk-all-superblocks", || walked(plan));
}

/// The image of the small tree, served.
fn served(plan: &Plan) -> Result<Served> {
    Served::new(std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?)
}

/// Waits until the fault has happened, or `ended` says that there is none.
fn happens(served: &Served, mut ended: impl FnMut() -> bool) -> Result<bool> {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        if served.happened() > 0 {
            return Ok(true);
        }
        if ended() {
            return Ok(served.happened() > 0);
        }
        thread::sleep(Duration::from_millis(5));
    }
    Err(anyhow!("nothing has happened"))
}

/// Whichever read of a mount stalls, everything that walks all superblocks goes on.
fn unborn(plan: &Plan) -> Result<String> {
    let served = served(plan)?;
    let image = served.file();
    let mut reads = 0;
    for after in 0..READS_MAX {
        drop_caches()?;
        served.arm(Fault::Stalls, Lasts::Once, after);
        let image = image.clone();
        let mounter = thread::spawn(move || Mount::image(&image, Path::new(TARGET), ""));
        let stalled = happens(&served, || mounter.is_finished())?;
        if stalled {
            let (done, sync) = channel();
            thread::spawn(move || {
                rustix::fs::sync();
                done.send(())
            });
            let waited = sync.recv_timeout(SOON);
            ensure!(waited != Err(RecvTimeoutError::Timeout), "sync waits for read {after} of a mount");
        }
        served.call_off();
        let mount = mounter.join().map_err(|_| anyhow!("a thread panicked"))?;
        mount.context("failed to mount")?.unmount()?;
        if !stalled {
            break;
        }
        reads += 1;
    }
    ensure!(reads >= 3, "a mount takes {reads} reads: the test proves nothing");
    served.unmount()?;
    Ok(format!("{reads} reads"))
}

/// A process that opens a file.
fn opener(path: &Path) -> Result<Child> {
    Command::new("/proc/self/exe").arg("open").arg(path).spawn().context("failed to start a process")
}

fn kill(mut child: Child, what: &str) -> Result<()> {
    child.kill().context("failed to kill a process")?;
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().context("failed to wait for a process")? {
            ensure!(status.signal() == Some(libc::SIGKILL), "{what} ended with {status}");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(anyhow!("{what} is killed and does not end"))
}

/// Processes that open a file for the first time while its store stalls are killed: one that reads, and one
/// that waits for that. The file shares its pages all the same when it is opened next.
fn killed_open(plan: &Plan) -> Result<String> {
    let served = served(plan)?;
    let file = File::open(served.file()).context("failed to open the served file")?;
    let (device, user) = sys::loop_device(&file).context("failed to make a loop device")?;
    let mount = Mount::image(&device, Path::new(TARGET), "").context("failed to mount")?;
    drop((file, user));
    let entry = longest(plan)?;
    let path = entry.below(mount.path());
    // Its inode stays in memory, and it is not opened.
    let inode = File::options().read(true).custom_flags(libc::O_PATH).open(&path);
    let inode = inode.with_context(|| format!("failed to look at {}", path.display()))?;
    drop_caches()?;
    served.arm(Fault::Stalls, Lasts::Everywhere, 0);
    let reader = opener(&path)?;
    ensure!(happens(&served, || false)?, "no read stalls");
    let waiter = opener(&path)?;
    thread::sleep(A_WHILE);
    kill(waiter, "a process that waits for another one to open the file")?;
    kill(reader, "a process that reads what it takes to open the file")?;
    served.call_off();
    read(&entry, mount.path()).context("when the fault is over")?;
    let folder = observe::folder_of(inode.metadata().context("failed to look at the file")?.dev());
    let shared = std::fs::read_to_string(folder.join("shared_files")).context("failed to read a counter")?;
    ensure!(shared.trim() == "1", "{} files share their pages", shared.trim());
    drop(inode);
    mount.unmount()?;
    served.unmount()?;
    Ok(String::new())
}

/// Two processes look for different names in a folder, and both need the block that lists them: one reads it from
/// a store that stalls, and the other one, which waits for that, is killed.
fn killed_look_up(plan: &Plan) -> Result<String> {
    let served = served(plan)?;
    let mount = Mount::image(&served.file(), Path::new(TARGET), "").context("failed to mount")?;
    let path = longest(plan)?.below(mount.path());
    drop_caches()?;
    served.arm(Fault::Stalls, Lasts::Everywhere, 0);
    let mut reader = opener(&path)?;
    ensure!(happens(&served, || false)?, "no read stalls");
    let mut waiter = opener(&mount.path().join("no such name"))?;
    thread::sleep(A_WHILE);
    ensure!(waiter.try_wait()?.is_none(), "what was to wait has ended: the test proves nothing");
    let reads = served.happened();
    ensure!(reads == 1, "{reads} reads stall: the second process waits for a read of its own");
    kill(waiter, "a process that waits for metadata that another one reads")?;
    ensure!(reader.try_wait()?.is_none(), "the reader has ended, whose read has not");
    served.call_off();
    let status = reader.wait().context("failed to wait for a process")?;
    ensure!(status.success(), "the reader ended with {status}");
    mount.unmount()?;
    served.unmount()?;
    Ok(String::new())
}

/// `open`: opens a file.
pub(crate) fn open(path: &Path) -> Result<()> {
    File::open(path).map(drop).with_context(|| format!("failed to open {}", path.display()))
}

/// Unloads the module; the kernel may let go of the last files and mounts a little later than they are closed.
fn unload() -> Result<()> {
    let end = Instant::now() + SOON;
    loop {
        match rustix::system::delete_module(c"tesserafs", 0) {
            Err(Errno::WOULDBLOCK | Errno::BUSY) if Instant::now() < end => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result.context("failed to unload the module"),
        }
    }
}

/// sync(2) has looked at the superblock of the module's own mount and holds it, while it waits for the next one:
/// an ext4 that is being mounted from a store that stalls. The module is unloaded meanwhile.
fn walked(plan: &Plan) -> Result<String> {
    let served = served(plan)?;
    let file = File::open(served.file()).context("failed to open the served file")?;
    let (device, user) = sys::loop_device(&file).context("failed to make a loop device")?;
    // So the module's superblock is the last on the list, and the next mount the one behind it.
    unload()?;
    boot::load()?;
    served.arm(Fault::Stalls, Lasts::Everywhere, 0);
    let mounter =
        thread::spawn(move || Mount::new(&device, Path::new("/mnt/ext4"), "ext4", MountFlags::RDONLY, ""));
    ensure!(happens(&served, || mounter.is_finished())?, "ext4 reads nothing");
    let walker = thread::spawn(rustix::fs::sync);
    thread::sleep(A_WHILE);
    ensure!(!walker.is_finished(), "sync does not wait for a mount: the test proves nothing");
    let unloader = thread::spawn(|| rustix::system::delete_module(c"tesserafs", 0));
    thread::sleep(A_WHILE);
    let gone = unloader.is_finished();
    // A walker whose memory is gone would find out here.
    served.call_off();
    let mounted = mounter.join().map_err(|_| anyhow!("a thread panicked"))?;
    ensure!(mounted.is_err_and(|errno| errno == Errno::INVAL), "ext4 is mounted from something else");
    walker.join().map_err(|_| anyhow!("a thread panicked"))?;
    let unloaded = unloader.join().map_err(|_| anyhow!("a thread panicked"))?;
    unloaded.context("failed to unload the module")?;
    boot::load()?;
    ensure!(!gone, "the module went while sync held its superblock");
    drop((file, user));
    served.unmount()?;
    Ok(String::new())
}
