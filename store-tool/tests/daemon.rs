// SPDX-License-Identifier: GPL-2.0-or-later

//! The life of a mount: how it begins, and how it ends, in order or otherwise.

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::{kill_process, Pid, Signal};
use support::{
    build, error, mount_type, prepared, tesserafs, text, user_script, wait, Mount, PATIENCE, TESSERAFS,
};

#[test]
fn a_mount_is_there_when_the_command_ends_and_gone_after_umount() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    let mounted = tesserafs(&["mount", "--fuse", text(&image), text(&dir)]);
    assert!(mounted.status.success(), "{mounted:?}");
    let line = format!("tesserafs: {}: mounted at {} by FUSE\n", image.display(), dir.display());
    assert_eq!(error(&mounted), line);
    assert_eq!(fs::read(dir.join("file")).expect("a file"), b"bytes\n");
    assert_eq!(mount_type(&dir).as_deref(), Some("fuse.tesserafs"));
    // In use: not without --lazy, and what is open stays readable.
    let mut open = File::open(dir.join("file")).expect("a file");
    let refused = tesserafs(&["umount", text(&dir)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(error(&refused).contains("busy"), "{refused:?}");
    assert!(tesserafs(&["umount", "--lazy", text(&dir)]).status.success());
    assert_eq!(mount_type(&dir), None);
    let mut bytes = String::new();
    open.read_to_string(&mut bytes).expect("bytes");
    assert_eq!(bytes, "bytes\n");
    let again = tesserafs(&["umount", text(&dir)]);
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(error(&again), format!("tesserafs: {}: nothing is mounted there\n", dir.display()));
}

#[test]
fn without_the_driver_fuse_serves_and_says_why() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    if tesserafs_store::kernel::is_loaded() {
        eprintln!("SKIPPED: the kernel driver is loaded");
        return;
    }
    let refused = tesserafs(&["mount", "--kernel", text(&image), text(&dir)]);
    assert_eq!(refused.status.code(), Some(1));
    let expected =
        format!("tesserafs: {}: the kernel driver: No such device (os error 19)\n", image.display());
    assert_eq!(error(&refused), expected);
    let mounted = tesserafs(&["mount", text(&image), text(&dir)]);
    assert!(error(&mounted).ends_with("by FUSE (the kernel driver is not loaded)\n"), "{mounted:?}");
    assert!(tesserafs(&["umount", text(&dir)]).status.success());
}

#[test]
fn a_killed_daemon_leaves_a_mount_that_can_be_unmounted() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    assert!(tesserafs(&["mount", "--fuse", "-q", text(&image), text(&dir)]).status.success());
    let daemons = Command::new("pgrep").args(["-f", &format!("serve --image {}", image.display())]).output();
    let pid = String::from_utf8(daemons.expect("pgrep").stdout).expect("UTF-8");
    let pid = Pid::from_raw(pid.trim().parse().expect("one daemon")).expect("a process");
    kill_process(pid, Signal::KILL).expect("a process");
    let not_connected = Some(rustix::io::Errno::NOTCONN.raw_os_error());
    wait("ENOTCONN", || dir.metadata().is_err_and(|error| error.raw_os_error() == not_connected));
    let unmounted = tesserafs(&["umount", text(&dir)]);
    assert!(unmounted.status.success(), "{unmounted:?}");
    assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 0);
}

#[test]
fn in_the_foreground_signals_unmount_and_a_lost_daemon_is_an_error() {
    let Some(folder) = prepared() else { return };
    let image = folder.path().join("image.tess");
    let mut mount = Mount::new(&image, &[]);
    let pid = Pid::from_child(&mount.process);
    kill_process(pid, Signal::TERM).expect("a process");
    assert_eq!(mount.process.wait().expect("a status").code(), Some(0), "{}", mount.log());
    assert_eq!(mount_type(&mount.dir), None);

    let mut mount = Mount::new(&image, &[]);
    let daemon = Pid::from_raw(mount.daemon()).expect("a process");
    kill_process(daemon, Signal::KILL).expect("a process");
    assert_eq!(mount.process.wait().expect("a status").code(), Some(1));
    assert!(mount.log().contains("the daemon ended: signal: 9"), "{}", mount.log());
    assert_eq!(mount_type(&mount.dir), None);

    let mut mount = Mount::new(&image, &[]);
    assert!(tesserafs(&["umount", text(&mount.dir)]).status.success());
    assert_eq!(mount.process.wait().expect("a status").code(), Some(0), "{}", mount.log());
}

#[test]
fn systemd_is_told_when_the_mount_is_there() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut foreground = Command::new(TESSERAFS)
        .args(["mount", "--fuse", "--foreground", text(&image), text(&dir)])
        .env("NOTIFY_SOCKET", &path)
        .spawn()
        .expect("tesserafs");
    let mut told = [0; 100];
    let len = socket.recv(&mut told).expect("a message");
    let expected = format!("READY=1\nMAINPID={}\n", foreground.id());
    assert_eq!(String::from_utf8_lossy(&told[..len]), expected);
    assert_eq!(fs::read(dir.join("file")).expect("a file"), b"bytes\n");
    assert!(tesserafs(&["umount", text(&dir)]).status.success());
    assert!(foreground.wait().expect("a status").success());
}

#[test]
fn the_daemon_has_given_up_what_it_does_not_need() {
    let Some(folder) = prepared() else { return };
    let mount = Mount::new(&folder.path().join("image.tess"), &[]);
    let daemon = mount.daemon();
    // All threads, those that serve requests too.
    let tasks = || fs::read_dir(format!("/proc/{daemon}/task")).expect("tasks");
    wait("threads that serve requests", || tasks().count() > 2);
    for task in tasks() {
        let status = fs::read_to_string(task.expect("a task").path().join("status")).expect("a status");
        let has = |line: &str| status.lines().any(|found| found == line);
        for line in
            ["CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
        {
            assert!(has(line), "{line}: {status}");
        }
    }
    // It keeps no directory of the host busy.
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).expect("a link"), Path::new("/"));
    assert_eq!(fs::read(mount.path("file")).expect("a file"), b"bytes\n");
}

#[test]
fn what_was_seen_once_is_not_asked_for_again() {
    let Some(folder) = prepared() else { return };
    symlink("file", folder.path().join("root/link")).expect("a symlink");
    let mount = Mount::new(&build(folder.path()), &[]);
    let look = {
        let dir = mount.dir.clone();
        move || {
            assert_eq!(fs::read(dir.join("file")).expect("a file"), b"bytes\n");
            assert_eq!(fs::read_link(dir.join("link")).expect("a symlink"), Path::new("file"));
            assert!(dir.join("none").symlink_metadata().is_err());
            assert_eq!(fs::read_dir(&dir).expect("a directory").count(), 3);
        }
    };
    look();
    let daemon = Pid::from_raw(mount.daemon()).expect("a process");
    kill_process(daemon, Signal::STOP).expect("a process");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        look();
        let _ = sender.send(());
    });
    let answered = receiver.recv_timeout(PATIENCE);
    kill_process(daemon, Signal::CONT).expect("a process");
    assert_eq!(answered, Ok(()), "the daemon was asked");
}

#[test]
fn others_mounts_and_directories_are_left_alone() {
    let Some(folder) = prepared() else { return };
    let refused = tesserafs(&["umount", "/proc"]);
    assert_eq!(refused.status.code(), Some(1));
    let expected = "tesserafs: /proc: found a mount of type proc, expected tesserafs or fuse.tesserafs\n";
    assert_eq!(error(&refused), expected);
    let image = folder.path().join("image.tess");
    for (dir, expected) in [("none", "No such file or directory"), ("root/file", "not a directory")] {
        let dir = folder.path().join(dir);
        let refused = tesserafs(&["mount", "--fuse", text(&image), text(&dir)]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(error(&refused).contains(&format!("{}: {expected}", dir.display())), "{refused:?}");
    }
    assert_eq!(tesserafs(&["mount", "--fuse", text(&image)]).status.code(), Some(2));
}

#[test]
fn mounts_lie_over_and_below_each_other() {
    let Some(folder) = prepared() else { return };
    let image = folder.path().join("image.tess");
    let dir = folder.path().join("mnt");
    let below = dir.join("dir");
    for at in [&dir, &dir, &below] {
        let mounted = tesserafs(&["mount", "--fuse", text(&image), text(at)]);
        assert!(mounted.status.success(), "{mounted:?}");
    }
    assert_eq!(fs::read(below.join("file")).expect("a file"), b"bytes\n");
    // The path may lead through a symlink.
    symlink(&below, folder.path().join("link")).expect("a symlink");
    assert!(tesserafs(&["umount", text(&folder.path().join("link"))]).status.success());
    assert_eq!(fs::read_dir(&below).expect("a directory").count(), 0);
    for _ in 0..2 {
        let unmounted = tesserafs(&["umount", text(&dir)]);
        assert!(unmounted.status.success(), "{unmounted:?}");
    }
    assert_eq!(mount_type(&dir), None);
}

#[test]
fn a_line_of_fstab_mounts() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    // As mount(8) calls it; the tests do not install anything for the system.
    let helper = |arguments: &[&str]| {
        Command::new(TESSERAFS)
            .arg0("/sbin/mount.fuse.tesserafs")
            .args(arguments)
            .output()
            .expect("the helper")
    };
    let refused = helper(&[text(&image), text(&dir), "-o", "rw,subvol=x"]);
    assert_eq!(refused.status.code(), Some(32));
    assert_eq!(error(&refused), "tesserafs: option subvol=x: not known\n");
    assert_eq!(helper(&[text(&image)]).status.code(), Some(1));
    let faked = helper(&[text(&image), text(&dir), "-f", "-n", "-s", "-o", "rw,subvol=x"]);
    assert!(faked.status.success() && mount_type(&dir).is_none(), "{faked:?}");
    let mounted = helper(&[text(&image), text(&dir), "-o", "rw,noexec,nosuid,nodev,x-systemd.automount"]);
    assert!(mounted.status.success(), "{mounted:?}");
    assert_eq!(error(&mounted), "");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let line = mounts.lines().find(|line| line.contains(text(&dir))).expect("a mount");
    let expected = format!("{} {} fuse.tesserafs ro,nosuid,nodev,noexec,", image.display(), dir.display());
    assert!(line.starts_with(&expected), "{line}");
    assert!(tesserafs(&["umount", text(&dir)]).status.success());

    // And by mount(8) itself, where there are namespaces to hide the helper in.
    let script = format!(
        "mount -t tmpfs none /sbin/.. 2>/dev/null; mkdir -p /run/t && mount -t tmpfs none /run/t && \
         mkdir /run/t/u /run/t/w && mount -t overlay -o lowerdir=/usr/sbin,upperdir=/run/t/u,workdir=/run/t/w none /usr/sbin && \
         ln -s {TESSERAFS} /usr/sbin/mount.fuse.tesserafs && echo '{} {} fuse.tesserafs noauto,nosuid 0 0' >/run/t/fstab && \
         mount -T /run/t/fstab {1} && cat {1}/file && umount {1}",
        image.display(),
        dir.display(),
    );
    let script = script.trim_start_matches("mount -t tmpfs none /sbin/.. 2>/dev/null; ");
    let said = Command::new("unshare").args(["--mount", "sh", "-c", script]).output().expect("unshare");
    if error(&said).contains("overlay") || error(&said).contains("unshare") {
        eprintln!("SKIPPED: no overlay over /usr/sbin here: {}", error(&said));
        return;
    }
    assert_eq!(said.stdout, b"bytes\n", "{said:?}");
}

#[test]
fn users_mount_with_fusermount3() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image, too.tess"), folder.path().join("mnt"));
    fs::rename(folder.path().join("image.tess"), &image).expect("an image");
    let script = format!(
        "{TESSERAFS} mount \"{image}\" {dir} && cat {dir}/file && grep {dir} /proc/self/mounts; cat {dir}/file && \
         {TESSERAFS} umount {dir} && ls {dir}",
        image = image.display(),
        dir = dir.display(),
    );
    let Some(said) = user_script(folder.path(), &script) else { return };
    let out = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{said:?}");
    assert!(out.starts_with("bytes\n") && out.ends_with("bytes\n"), "{said:?}");
    assert!(out.contains("image,\\040too.tess"), "{said:?}");
    assert!(out.contains("fuse.tesserafs ro,nosuid,nodev,"), "{said:?}");
    assert!(out.contains("user_id=65534,group_id=65534,default_permissions"), "{said:?}");
}

/// fusermount3 goes on when its daemon is killed, and may mount after that.
#[test]
fn a_signal_while_fusermount3_works_leaves_no_mount() {
    let Some(folder) = prepared() else { return };
    let (image, dir) = (folder.path().join("image.tess"), folder.path().join("mnt"));
    let late = folder.path().join("bin/fusermount3");
    fs::create_dir(folder.path().join("bin")).expect("a directory");
    fs::write(&late, "#!/bin/sh\nsleep 1\nexec /usr/bin/fusermount3 \"$@\"\n").expect("a program");
    fs::set_permissions(&late, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a program");
    let script = format!(
        "{TESSERAFS} mount {image} {dir} & sleep 0.5; kill -TERM $!; wait $!; echo status $?; \
         sleep 2; grep {dir} /proc/self/mounts; ls {dir} && echo empty",
        image = image.display(),
        dir = dir.display(),
    );
    let Some(said) = user_script(folder.path(), &script) else { return };
    assert_eq!(String::from_utf8_lossy(&said.stdout), "status 1\nempty\n", "{said:?}");
    assert_eq!(error(&said), format!("tesserafs: {}: not mounted: interrupted\n", image.display()));
}
