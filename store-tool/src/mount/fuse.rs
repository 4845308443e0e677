// SPDX-License-Identifier: GPL-2.0-or-later

//! A mount by FUSE: the daemon is started, and in the foreground it is waited for.

mod events;

use std::env;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::fs::FlockOperation;
use rustix::process::{geteuid, waitid, WaitId, WaitIdOptions};
use sd_notify::NotifyState;
use tesserafs_image::superblock::Head;
use tesserafs_image::{text, Source};

use self::events::{Begun, Events};
use super::{pack_dir, Request};
use crate::attach::FUSERMOUNT;
use crate::mountinfo::{self, Mount, BY_FUSE};
use crate::say;
use crate::umount::unmount_at;

/// Threads that serve requests. More than processors, as one that waits for the disk serves nobody: with 8 instead of 3 on two
/// processors, four readers of small files took 0.68 of the time.
const THREADS: usize = 8;

/// KiB that the kernel reads ahead of a reader of the mount: as much as one request can have.
const READ_AHEAD_KB: &str = "1024";

/// Mounts an image, and in the foreground serves it until it is unmounted. `why` says why not by the kernel driver.
pub(super) fn run(
    request: &Request,
    source: &Source,
    head: &Head,
    dir: &Path,
    why: Option<&str>,
) -> Result<(), String> {
    let shown = request.shown();
    check_fuse().map_err(|error| match why {
        Some(why) => format!("{shown}: not mounted: {why}, and not by FUSE: {error}"),
        None => format!("{shown}: not mounted: {error}"),
    })?;
    // The daemon has the same open file, and so the lock: whoever removes images of a store sees that this one is in use.
    let _ = rustix::fs::flock(source.file(), FlockOperation::NonBlockingLockShared);
    let before = mountinfo::at(dir);
    let cannot = |error: io::Error| format!("{shown}: cannot start the daemon: {error}");
    // A signal must not leave a daemon behind that goes on without its mounter.
    let mut events = Events::watch().map_err(cannot)?;
    let mut daemon = start(request, source, head, dir).map_err(cannot)?;
    let begun = events.wait_for(&mut daemon).map_err(cannot)?;
    if begun != Begun::Ready {
        // It has said why, unless it was killed.
        let status = daemon.wait().map_err(|error| error.to_string())?;
        // It may have ended between the mount and its service. Another process may have mounted here meanwhile: its mount answers.
        let is_new = |mount: &Mount| Some(mount) != before.as_ref() && mount.kind == BY_FUSE;
        if mountinfo::at(dir).as_ref().is_some_and(is_new) && is_dead(dir) {
            unmount_at(dir, true, true)?;
        }
        return Err(match begun {
            Begun::Interrupted => format!("{shown}: not mounted: interrupted"),
            _ => format!("{shown}: not mounted: the daemon ended: {status}"),
        });
    }
    let mount = mountinfo::at(dir);
    if let Some(mount) = &mount {
        // Root may; for others it is the kernel's 128 KiB.
        let _ = fs::write(format!("/sys/class/bdi/{}/read_ahead_kb", mount.device), READ_AHEAD_KB);
    }
    if !request.quiet {
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        say(&format!("{shown}: mounted at {} by FUSE{why}", text::path(dir)));
    }
    let main = if request.foreground { std::process::id() } else { daemon.id() };
    // Nothing where nobody waits for it.
    let _ = sd_notify::notify(&[NotifyState::Ready, NotifyState::MainPid(main)]);
    if request.foreground {
        attend(daemon, events, dir, mount.as_ref()).map_err(|error| format!("{shown}: {error}"))?;
    }
    Ok(())
}

/// Whether FUSE is there for this user, with an error that says what is missing.
fn check_fuse() -> Result<(), String> {
    let device = "/dev/fuse";
    OpenOptions::new().read(true).write(true).open(device).map_err(|error| format!("{device}: {error}"))?;
    if geteuid().is_root() {
        return Ok(());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(["/bin", "/sbin"].map(PathBuf::from));
    let is_there = places.into_iter().any(|place| place.join(FUSERMOUNT).exists());
    is_there
        .then_some(())
        .ok_or_else(|| format!("there is no {FUSERMOUNT} (package fuse3), with which users mount"))
}

/// Whether nobody serves the mount at `dir` any more.
fn is_dead(dir: &Path) -> bool {
    let not_connected = rustix::io::Errno::NOTCONN.raw_os_error();
    dir.metadata().is_err_and(|error| error.raw_os_error() == Some(not_connected))
}

/// Waits for the daemon to end, because the image was unmounted: by others, or here because of a signal.
fn attend(mut daemon: Child, events: Events, dir: &Path, mount: Option<&Mount>) -> Result<(), String> {
    let Events { mut events, sender } = events;
    let pid = rustix::process::Pid::from_child(&daemon);
    // It stays a zombie until no signal is sent to its number any more.
    let waiter = thread::spawn(move || {
        let ended = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).map(drop);
        drop(sender.shutdown(std::net::Shutdown::Write));
        ended
    });
    let is_ours = || mountinfo::at(dir).is_some_and(|now| Some(&now) == mount);
    let mut signals = 0;
    let mut event = [0];
    loop {
        match events.read(&mut event) {
            Ok(0) => break,
            Ok(_) => signals += 1,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        if signals > 1 {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        } else if is_ours() {
            // Files that are open stay readable: the daemon ends with the last of them.
            unmount_at(dir, true, true).unwrap_or_else(|error| say(&error));
        }
    }
    let ended = waiter.join().map_err(|_| "the daemon cannot be waited for".to_owned())?;
    ended.map_err(|error| error.to_string())?;
    let status = daemon.wait().map_err(|error| error.to_string())?;
    if is_ours() {
        // A mount that nobody serves is of no use.
        unmount_at(dir, true, true).unwrap_or_else(|error| say(&error));
    }
    if status.success() || signals > 0 {
        return Ok(());
    }
    Err(format!("the daemon ended: {status}"))
}

fn start(request: &Request, source: &Source, head: &Head, dir: &Path) -> io::Result<Child> {
    let options = &request.options;
    let image = request.image.canonicalize()?;
    let pack_dir = pack_dir(options, &image)?;
    let threads = request.threads.unwrap_or(THREADS);
    let is_root = geteuid().is_root();
    let mut command = Command::new("/proc/self/exe");
    command.arg("serve");
    let with_value: [(&str, OsString); 5] = [
        ("--image", image.into()),
        ("--dir", dir.into()),
        ("--digest", head.id.to_string().into()),
        ("--packdir", pack_dir.into()),
        ("--threads", threads.to_string().into()),
    ];
    for (name, value) in with_value {
        command.arg(name).arg(value);
    }
    for (name, is_set) in [
        ("--noacl", options.acl == Some(false)),
        // Everybody sees a mount by the kernel driver.
        ("--allow-other", options.allow_other || is_root),
        // fusermount3 grants users neither, whatever they ask for.
        ("--nosuid", options.nosuid || !is_root),
        ("--nodev", options.nodev || !is_root),
        ("--noexec", options.noexec),
        ("--foreground", request.foreground),
    ] {
        if is_set {
            command.arg(name);
        }
    }
    // Each arena of the allocator keeps what was freed in it, and there would be one for each thread.
    command.env("MALLOC_ARENA_MAX", "2");
    // The protocol has a buffer of 16 MiB for each thread, and a request fills some pages of it. One that is mapped takes those only;
    // by default the threshold grows with the first buffer that is freed, and the next one is cleared in an arena.
    command.env("MALLOC_MMAP_THRESHOLD_", (1 << 20).to_string());
    // The caller may have locks or pipes whose end somebody waits for: the daemon would hold them for as long as the mount is there.
    close_fds::set_fds_cloexec(3, &[]);
    let image = source.file().try_clone()?;
    command.stdin(image).stdout(Stdio::piped()).spawn()
}
