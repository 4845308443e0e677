// SPDX-License-Identifier: GPL-2.0-or-later

//! Signals, locks, moved mounts and odd arguments: what surrounds a mount does not make it do harm.

mod support;

use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::{kill_process, Pid, Signal};
use support::{error, mount_type, prepared, tesserafs, text, wait, Mount, TESSERAFS};

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
