// SPDX-License-Identifier: GPL-2.0
//! The demonstration: the commands that a user types in a machine that has the module, and their output.

use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::plan::{Plan, OCI_CONFIG};

use crate::appliance::scratch;
use crate::containers::{Bundle, Process};
use crate::keys;
use crate::kmsg::Log;
use crate::mounts::{on_disk, Mount};
use crate::programs::in_root;
use crate::suite::Suite;

/// One step: what was typed and answered goes into the lines.
type Step = fn(&Plan, &mut Vec<String>) -> Result<()>;

pub(crate) fn run(suite: &mut Suite, plan: &Plan) {
    let steps: [(&str, Step); 4] = [
        ("mount-a-signed-root", signed_root),
        ("run-programs-from-it", programs),
        ("write-over-it", overlay),
        ("refuse-what-is-not-signed", refusals),
    ];
    for (name, step) in steps {
        shown(suite, name, |out| step(plan, out));
    }
}

/// In a machine that Debian's own kernel has booted from an image.
pub(crate) fn appliance(suite: &mut Suite) {
    shown(suite, "run-from-an-image", booted);
    shown(suite, "run-a-container-from-an-image", container);
    shown(suite, "meet-a-changed-byte", changed_byte);
}

/// Does a step, and shows what was typed and answered.
fn shown(suite: &mut Suite, name: &str, step: impl FnOnce(&mut Vec<String>) -> Result<()>) {
    let mut lines = Vec::new();
    let result = step(&mut lines);
    for line in lines {
        suite.say(&line);
    }
    suite.test(name, || result.map(|()| String::new()));
}

fn booted(out: &mut Vec<String>) -> Result<()> {
    for (program, arguments) in [
        ("cat", &["/proc/cmdline"][..]),
        ("systemctl", &["is-active", "multi-user.target"]),
        ("findmnt", &["-o", "TARGET,SOURCE,FSTYPE,OPTIONS", "/run/initramfs/tesserafs/image"]),
        ("findmnt", &["-o", "TARGET,FSTYPE", "/"]),
        ("cat", &["/sys/module/tesserafs/parameters/require_signatures"]),
        ("keyctl", &["list", "%:.tesserafs"]),
        ("tail", &["-n", "2", "/etc/fstab"]),
    ] {
        ensure!(typed(out, program, arguments)?, "{program} failed");
    }
    ensure!(!typed(out, "mount", &["-t", "tesserafs", "/disk/unsigned.tess", "/mnt"])?, "it was mounted");
    Ok(())
}

fn container(out: &mut Vec<String>) -> Result<()> {
    let config = ["--annotation", OCI_CONFIG, "/disk/base.tess"];
    ensure!(typed(out, "/disk/fsck.tesserafs", &config)?, "the image has no configuration");
    let tmpfs = scratch(Path::new("/mnt"))?;
    let bundle = Bundle::new(tmpfs.path(), "one", "/srv/base", 0)?;
    out.push("# mount -t overlay -o lowerdir=/srv/base,… overlay /mnt/one/rootfs".to_owned());
    bundle.configure(&Process::of_image()?, None)?;
    ensure!(typed(out, "crun", &["run", "--bundle", "/mnt/one", "one"])?, "crun failed");
    bundle.end()?;
    tmpfs.unmount()
}

/// A byte of a file's data is changed in a copy of an image: it mounts, and the reader of that byte is told.
fn changed_byte(out: &mut Vec<String>) -> Result<()> {
    const COPY: &str = "/run/changed.tess";
    const MNT: &str = "/mnt";
    ensure!(typed(out, "cp", &["/disk/app.tess", COPY])?, "the copy failed");
    // Data begins behind the first block.
    let change = format!("printf X | dd of={COPY} bs=1 seek=5000 conv=notrunc status=none");
    ensure!(typed(out, "sh", &["-c", &change])?, "the change failed");
    let mut log = Log::from_now()?;
    ensure!(typed(out, "mount", &["-t", "tesserafs", COPY, MNT])?, "the mount failed");
    let read = format!("find {MNT} -type f -exec cat {{}} + >/dev/null");
    ensure!(!typed(out, "sh", &["-c", &read])?, "everything was read");
    out.push("# dmesg | grep chunk-digest".to_owned());
    out.push(log.expect_line("chunk-digest")?);
    ensure!(typed(out, "umount", &[MNT])?, "the mount cannot be ended");
    std::fs::remove_file(COPY).context("failed to remove the copy")
}

/// A command line as it was typed, and its output.
fn typed(out: &mut Vec<String>, program: &str, arguments: &[&str]) -> Result<bool> {
    out.push(format!("# {program} {}", arguments.join(" ")));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    for text in [&output.stdout, &output.stderr] {
        out.extend(String::from_utf8_lossy(text).lines().map(ToOwned::to_owned));
    }
    Ok(output.status.success())
}

fn inside(out: &mut Vec<String>, root: &Path, command: &[&str]) -> Result<()> {
    let shown: Vec<String> = command
        .iter()
        .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
        .collect();
    out.push(format!("# chroot {} {}", root.display(), shown.join(" ")));
    out.extend(in_root(root, command)?.lines().map(ToOwned::to_owned));
    Ok(())
}

const MNT: &str = "/mnt/root";

fn mounted(plan: &Plan) -> Result<Mount> {
    Mount::by_program(&["-t", "tesserafs"], &on_disk(&plan.root.image), Path::new(MNT))
}

fn signed_root(plan: &Plan, out: &mut Vec<String>) -> Result<()> {
    for certificate in &plan.signed.trusted {
        keys::trust(certificate)?;
        out.push(format!("# keyctl padd asymmetric '' %:.tesserafs < {certificate}"));
    }
    out.push("# echo 1 > /sys/module/tesserafs/parameters/require_signatures".to_owned());
    crate::signatures::require()?;
    std::fs::create_dir_all(MNT).context("failed to make a folder")?;
    let image = on_disk(&plan.root.image);
    let image = image.to_string_lossy();
    ensure!(typed(out, "mount", &["-t", "tesserafs", &image, MNT])?, "the mount failed");
    let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
    out.push("# grep tesserafs /proc/mounts".to_owned());
    out.extend(mounts.lines().filter(|line| line.contains(" tesserafs ")).map(ToOwned::to_owned));
    ensure!(typed(out, "umount", &[MNT])?, "the mount cannot be ended");
    Ok(())
}

fn programs(plan: &Plan, out: &mut Vec<String>) -> Result<()> {
    let mount = mounted(plan)?;
    inside(out, mount.path(), &["/bin/sh", "-c", "head -n 2 /etc/os-release"])?;
    inside(out, mount.path(), &["/usr/bin/python3", "-c", "import sys; print(sys.version)"])?;
    inside(out, mount.path(), &["/usr/bin/sha256sum", "/usr/bin/perl"])?;
    mount.unmount()
}

fn overlay(plan: &Plan, out: &mut Vec<String>) -> Result<()> {
    let mount = mounted(plan)?;
    let tmpfs = Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    let overlay = Mount::overlay(mount.path(), tmpfs.path(), Path::new("/mnt/container"), "")?;
    out.push(format!("# mount -t overlay -o lowerdir={MNT},… overlay /mnt/container"));
    let script = "echo changed > /etc/motd && cat /etc/motd && rm /etc/issue && ls /etc | wc -l";
    inside(out, overlay.path(), &["/bin/sh", "-c", script])?;
    overlay.unmount()?;
    tmpfs.unmount()?;
    mount.unmount()
}

fn refusals(plan: &Plan, out: &mut Vec<String>) -> Result<()> {
    let signed = &plan.signed;
    for image in [&signed.unsigned, &signed.stranger, &signed.transplanted, &signed.tampered] {
        let mut log = Log::from_now()?;
        let path = on_disk(&image.image);
        let mounted = typed(out, "mount", &["-t", "tesserafs", &path.to_string_lossy(), MNT])?;
        out.push("# dmesg | tail -n 1".to_owned());
        out.push(log.expect_line("sign")?);
        ensure!(!mounted, "{} was mounted", image.image);
    }
    Ok(())
}
