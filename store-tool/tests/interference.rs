// SPDX-License-Identifier: GPL-2.0-or-later

//! Signals, locks, moved mounts and odd arguments: what surrounds a mount does not make it do harm.

mod support;

use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{kill_process, Pid, Signal};
use support::{error, mount_type, prepared, tesserafs, text, wait, Mount, TESSERAFS};

#[test]
fn locks_of_the_caller_end_with_it() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    let lock = folder.path().join("lock").display().to_string();
    let script =
        format!("exec 9>{lock}; flock 9; {TESSERAFS} mount --fuse -q {} {}", image.display(), dir.display());
    assert!(Command::new("sh").args(["-c", &script]).status().expect("sh").success());
    let taken = Command::new("flock").args(["--nonblock", &lock, "true"]).status().expect("flock");
    assert!(tesserafs(&["umount", text(&dir)]).status.success());
    assert!(taken.success(), "the daemon has the lock");
}

#[test]
fn a_signal_before_the_mount_is_there_leaves_nothing() {
    let Some(folder) = prepared() else { return };
    let image = folder.path().join("image.tess");
    for milliseconds in 0..30 {
        let dir = folder.path().join("mnt");
        let mut mounter = Command::new(TESSERAFS)
            .args(["mount", "--fuse", "-q", text(&image), text(&dir)])
            .stderr(Stdio::null())
            .spawn()
            .expect("tesserafs");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = kill_process(Pid::from_child(&mounter), Signal::INT);
        let status = mounter.wait().expect("a status");
        // A daemon that was left behind would mount only now.
        std::thread::sleep(Duration::from_millis(50));
        let mounted = mount_type(&dir).is_some();
        assert_eq!(mounted, status.success(), "after {milliseconds} ms: {status}");
        if mounted {
            assert!(tesserafs(&["umount", text(&dir)]).status.success());
        }
    }
}

#[test]
fn arguments_reach_the_daemon_as_they_are() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    assert!(tesserafs(&["mount", "--fuse", "-q", text(&image), text(&dir)]).status.success());
    let refused =
        tesserafs(&["mount", "--fuse", "--packdir=-none", "--threads=65", text(&image), text(&dir)]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let again = tesserafs(&["mount", "--fuse", "-q", "--packdir=-none", text(&image), text(&dir)]);
    assert!(again.status.success(), "{again:?}");
    for _ in 0..2 {
        assert!(tesserafs(&["umount", text(&dir)]).status.success());
    }
    assert_eq!(mount_type(&dir), None);
}

#[test]
fn the_uppermost_mount_is_told_from_those_below_it() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    // The one above is older: mountinfo has it first.
    let script = format!(
        "mkdir {other} && mount -t tmpfs none {other} && {TESSERAFS} mount --fuse -q {image} {dir} && \
         mount --move {other} {dir} && {TESSERAFS} umount {dir}; grep -c ' {dir} ' /proc/self/mountinfo; \
         umount {dir} && {TESSERAFS} umount {dir}",
        other = folder.path().join("other").display(),
        image = image.display(),
        dir = dir.display(),
    );
    let said = Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().expect("unshare");
    let expected = format!(
        "tesserafs: {}: found a mount of type tmpfs, expected tesserafs or fuse.tesserafs\n",
        dir.display()
    );
    assert_eq!(error(&said), expected, "{said:?}");
    assert!(said.status.success() && said.stdout == b"2\n", "{said:?}");
}

#[test]
fn a_symlink_leads_to_a_mount_whose_daemon_is_gone() {
    let Some(folder) = prepared() else { return };
    let mut mount = Mount::new(&folder.path().join("image.tess"), &[]);
    let link = folder.path().join("link");
    symlink(&mount.dir, &link).expect("a symlink");
    let (daemon, mounter) = (mount.daemon(), Pid::from_child(&mount.process));
    // Neither is there to unmount it.
    for pid in [mounter, Pid::from_raw(daemon).expect("a process")] {
        kill_process(pid, Signal::KILL).expect("a process");
    }
    mount.process.wait().expect("a status");
    let not_connected = Some(rustix::io::Errno::NOTCONN.raw_os_error());
    wait("ENOTCONN", || mount.dir.metadata().is_err_and(|error| error.raw_os_error() == not_connected));
    let unmounted = tesserafs(&["umount", text(&link)]);
    assert!(unmounted.status.success(), "{unmounted:?}");
    assert_eq!(mount_type(&mount.dir), None);
}
