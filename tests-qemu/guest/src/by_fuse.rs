// SPDX-License-Identifier: GPL-2.0
//! Images that `tesserafs mount --fuse` serves: they are what the kernel driver shows, and whatever befalls image, mount or
//! daemon ends with an error.

mod alive;
mod broken;
mod damaged;
mod different;
mod driver;
mod pair;
mod requests;
mod stored;
mod user;

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use rustix::process::{waitpid, Pid, WaitOptions, WaitStatus};
use tesserafs_guest::plan::Plan;

use crate::mounts::Mount;
use crate::suite::Suite;

pub(crate) use user::mount_in_namespace;

/// The program, in the first root.
const PROGRAM: &str = "/bin/tesserafs";

/// Where images are mounted.
const TARGET: &str = "/mnt/fuse";

/// A daemon that ends, ends within this.
const PATIENCE: Duration = Duration::from_secs(60);

/// No daemon has more words than these bytes.
const LONGEST_COMMAND_LINE: usize = 64 << 10;

/// The tests of a group: there are several, as emulated machines need minutes for each.
pub(crate) fn tests(suite: &mut Suite, plan: &Plan, group: &str) -> Result<()> {
    match group {
        "fuse" => {
            driver::tests(suite, plan);
            alive::tests(suite, plan);
            damaged::tests(suite, plan);
            stored::tests(suite, plan);
            user::tests(suite, plan);
            pair::tests(suite, plan);
        }
        "fuse-broken" => broken::tests(suite, plan),
        "fuse-cases" => requests::tests(suite, plan),
        "fuse-root" => {
            requests::tests_of_all(suite, plan);
            pair::tests_of_all(suite, plan);
        }
        other => bail!("there is no group {other}"),
    }
    suite.test("no-daemon-is-left", none_is_left);
    Ok(())
}

/// Each daemon ends soon after its mount is gone.
fn none_is_left() -> Result<String> {
    let start = Instant::now();
    loop {
        let left = daemons()?;
        if left.is_empty() {
            return Ok(String::new());
        }
        ensure!(start.elapsed() < PATIENCE, "{} daemons are left: {left:?}", left.len());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// An image that a daemon serves.
struct ByFuse {
    mount: Mount,
    daemon: Pid,
}

impl ByFuse {
    /// Mounts an image, for all users.
    fn new(image: &Path) -> Result<Self> {
        Self::at(image, Path::new(TARGET), &[])
    }

    fn at(image: &Path, target: &Path, arguments: &[&str]) -> Result<Self> {
        let output = Self::attempt(image, target, arguments)?;
        ensure!(output.status.success(), "not mounted: {}: {}", output.status, said(&output));
        Self::adopted(target)
    }

    /// A mount that is there already.
    fn adopted(target: &Path) -> Result<Self> {
        let mount = Mount::adopted(target);
        let mut serving = daemons()?;
        serving.retain(|(_, of)| of == target);
        match serving.as_slice() {
            [(daemon, _)] => Ok(Self { mount, daemon: *daemon }),
            other => bail!("{} daemons serve {}: {other:?}", other.len(), target.display()),
        }
    }

    /// Asks for a mount, and gives the outcome.
    fn attempt(image: &Path, target: &Path, arguments: &[&str]) -> Result<Output> {
        std::fs::create_dir_all(target).with_context(|| format!("failed to create {}", target.display()))?;
        let mut command = Command::new(PROGRAM);
        command.args(["mount", "--fuse", "--quiet"]).args(arguments).arg(image).arg(target);
        let output = command.output().with_context(|| format!("failed to start {PROGRAM}"))?;
        ensure!(output.status.signal().is_none(), "{PROGRAM}: {}: {}", output.status, said(&output));
        Ok(output)
    }

    fn path(&self) -> &Path {
        self.mount.path()
    }

    /// Unmounts it, and fails unless the daemon ends then, and well.
    fn unmount(self) -> Result<()> {
        self.mount.unmount()?;
        let status = ended(self.daemon)?;
        ensure!(status.exit_status() == Some(0), "the daemon ended with {status:?}");
        Ok(())
    }
}

/// The words of a program, on one line.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
}

/// The status of a daemon that is about to end: a child of this process, as whoever started it is gone.
fn ended(daemon: Pid) -> Result<WaitStatus> {
    let start = Instant::now();
    loop {
        match waitpid(Some(daemon), WaitOptions::NOHANG).context("failed to wait for a daemon")? {
            Some((_, status)) => return Ok(status),
            None => ensure!(start.elapsed() < PATIENCE, "the daemon goes on after its mount is gone"),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The daemons that run, each with the place that it serves.
fn daemons() -> Result<Vec<(Pid, PathBuf)>> {
    let mut found = Vec::new();
    for process in Path::new("/proc").read_dir().context("failed to list the processes")? {
        let process = process.context("failed to list the processes")?;
        let number = process.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(daemon) = number.and_then(Pid::from_raw) else { continue };
        // It may be gone by now; and of one that has ended nothing is left.
        let line = command_line(&process.path()).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        if words.get(1) != Some(&&b"serve"[..]) {
            continue;
        }
        let place = words.iter().position(|word| *word == b"--dir").and_then(|at| words.get(at + 1));
        let place = place.with_context(|| format!("the daemon {daemon:?} serves no place"))?;
        found.push((daemon, PathBuf::from(String::from_utf8_lossy(place).into_owned())));
    }
    Ok(found)
}

/// The words of a process, by one read: between two it may end, and half of them would look like all.
fn command_line(process: &Path) -> std::io::Result<Vec<u8>> {
    let mut line = vec![0; LONGEST_COMMAND_LINE];
    let read = File::open(process.join("cmdline"))?.read(&mut line)?;
    line.truncate(read);
    Ok(line)
}
