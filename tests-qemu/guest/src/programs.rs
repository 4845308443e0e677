// SPDX-License-Identifier: GPL-2.0
//! Programs run from the mount.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;

use crate::compare::mounted;
use crate::mounts::{on_disk, Mount};
use crate::suite::Suite;

/// A program to run, and a text that its output must hold.
struct Program {
    name: &'static str,
    command: &'static [&'static str],
    expect: &'static str,
}

const PROGRAMS: [Program; 6] = [
    Program {
        name: "bash",
        command: &[
            "/bin/bash",
            "-c",
            "set -e; for i in {1..20}; do s=$((s+i)); done; echo sum $s; ls /usr/bin | wc -l; cat /etc/os-release",
        ],
        expect: "sum 210",
    },
    Program {
        name: "python3",
        command: &[
            "/usr/bin/python3",
            "-c",
            "import json, hashlib, ctypes, decimal, sqlite3, xml.dom.minidom, asyncio, email, zipfile\n\
             print('python', json.loads('[42]')[0], hashlib.sha256(b'').hexdigest()[:8])",
        ],
        expect: "python 42 e3b0c442",
    },
    Program {
        name: "perl",
        command: &[
            "/usr/bin/perl",
            "-MPOSIX",
            "-MList::Util=sum",
            "-MData::Dumper",
            "-e",
            "print 'perl ', floor(sum(1..20) / 2), qq(\\n)",
        ],
        expect: "perl 105",
    },
    Program {
        name: "gcc",
        command: &[
            "/bin/sh",
            "-c",
            "printf '#include <stdio.h>\\nint main(void) { return printf(\"compiled %%d\\\\n\", 6 * 7) < 0; }\\n' > /tmp/a.c \
             && gcc -O2 -Wall -o /tmp/a /tmp/a.c && /tmp/a",
        ],
        expect: "compiled 42",
    },
    Program {
        name: "apt-cache",
        command: &["/usr/bin/apt-cache", "show", "--no-all-versions", "bash"],
        expect: "Package: bash",
    },
    Program {
        name: "dpkg-verify",
        command: &["/usr/bin/dpkg", "--verify", "bash", "coreutils", "libc6"],
        expect: "",
    },
];

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    for program in &PROGRAMS {
        suite.test(&format!("chroot-{}", program.name), || {
            let mount = mounted(&on_disk(&plan.root.image))?;
            let root = Root::new(mount.path(), true)?;
            let note = root.run(program)?;
            root.end()?;
            mount.unmount()?;
            Ok(note)
        });
    }
    suite.test("overlay-with-writes", || {
        let mount = mounted(&on_disk(&plan.root.image))?;
        let tmpfs =
            Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
                .context("failed to mount a tmpfs")?;
        let overlay = Mount::overlay(mount.path(), tmpfs.path(), Path::new("/mnt/overlay"), "")?;
        let root = Root::new(overlay.path(), false)?;
        for program in &PROGRAMS {
            root.run(program)?;
        }
        let note = root.run(&WRITES)?;
        root.end()?;
        overlay.unmount()?;
        tmpfs.unmount()?;
        mount.unmount()?;
        Ok(note)
    });
}

/// Runs all of them in the root that is mounted there, with other filesystems in it.
pub(crate) fn run_all(mount: &Path) -> Result<String> {
    let root = Root::new(mount, true)?;
    for program in &PROGRAMS {
        root.run(program)?;
    }
    root.end()?;
    Ok(format!("{} programs", PROGRAMS.len()))
}

/// Changes to files of the image, through programs of the image.
const WRITES: Program = Program {
    name: "writes",
    command: &[
        "/bin/bash",
        "-c",
        "set -e; echo line >> /etc/profile; tail -n1 /etc/profile; \
         sed -i s,^root,ROOT, /etc/group; grep -c ROOT /etc/group; \
         rm -r /usr/share/doc; mkdir -p /usr/share/doc/new; ls /usr/share/doc; \
         mv /usr/share/common-licenses /usr/share/doc/; ls /usr/share/doc; \
         chmod 700 /etc/passwd; chown 12:34 /etc/shadow; stat -c '%u:%g' /etc/shadow; \
         ln /etc/fstab /etc/fstab.link; cmp /etc/fstab /etc/fstab.link; \
         perl -e 'print \"still runs\\n\"'; echo all done",
    ],
    expect: "all done",
};

/// A root with the pseudo file systems that programs expect.
struct Root<'a> {
    path: &'a Path,
    inner: Vec<Mount>,
}

impl<'a> Root<'a> {
    /// `scratch` puts a tmpfs on `/tmp`: the root itself cannot be written.
    fn new(path: &'a Path, scratch: bool) -> Result<Self> {
        let mut inner = Vec::new();
        for (kind, name) in [("proc", "proc"), ("devtmpfs", "dev"), ("tmpfs", "tmp")] {
            if kind == "tmpfs" && !scratch {
                continue;
            }
            let mount = Mount::new(Path::new(kind), &path.join(name), kind, MountFlags::empty(), "")
                .with_context(|| format!("failed to mount {kind} in the root"))?;
            inner.push(mount);
        }
        Ok(Self { path, inner })
    }

    fn run(&self, program: &Program) -> Result<String> {
        let output = in_root(self.path, program.command)?;
        ensure!(
            output.contains(program.expect),
            "{} did not print {:?} but {output:?}",
            program.name,
            program.expect
        );
        Ok(program.expect.to_owned())
    }

    fn end(mut self) -> Result<()> {
        while let Some(mount) = self.inner.pop() {
            mount.unmount()?;
        }
        Ok(())
    }
}

/// Runs a command in a root and returns what it printed.
pub(crate) fn in_root(root: &Path, command: &[&str]) -> Result<String> {
    let output = Command::new("/proc/self/exe")
        .arg("chroot")
        .arg(root)
        .args(command)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .context("failed to start the helper")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {text}{}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}

/// `chroot ROOT COMMAND…`, in a process of its own.
pub(crate) fn helper(arguments: &[OsString]) -> Result<()> {
    let [root, program, rest @ ..] = arguments else {
        bail!("chroot takes a root and a command");
    };
    rustix::process::chroot(root.as_os_str())
        .with_context(|| format!("failed to enter {}", Path::new(root).display()))?;
    std::env::set_current_dir("/").context("failed to enter the root's root")?;
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("failed to run {}", Path::new(program).display()))
}
