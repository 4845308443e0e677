// SPDX-License-Identifier: GPL-2.0
//! A server that has mounted its image.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::run;

/// How long a server may take to mount, and to end.
const LIMIT: Duration = Duration::from_secs(60);

/// A server in the foreground. Dropped, it is unmounted and ended.
pub(super) struct Server {
    child: Child,
    target: PathBuf,
    /// The process that answers: it, or one that it has started.
    process: libc::pid_t,
    is_mounted: bool,
}

impl Server {
    /// Starts it, and waits until its image is mounted at `target`.
    pub(super) fn start(mut command: Command, target: &Path, log: &Path) -> Result<Self> {
        let device = || std::fs::metadata(target).map(|metadata| metadata.dev());
        let before = device().with_context(|| format!("failed to look at {}", target.display()))?;
        let file = File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stderr(file.try_clone().context("failed to share the log")?)
            .stdout(file)
            .spawn()
            .with_context(|| format!("failed to start `{}`", run::shown(&command)))?;
        let mut server = Self { child, target: target.to_path_buf(), process: 0, is_mounted: false };
        let deadline = Instant::now() + LIMIT;
        // Before the server answers, the directory cannot be looked at, or is still the one below.
        while !device().is_ok_and(|device| device != before) {
            if let Some(status) = server.child.try_wait().context("failed to wait")? {
                let said = std::fs::read(log).unwrap_or_default();
                bail!("it ended with {status}: {}", run::tail(&String::from_utf8_lossy(&said)));
            }
            ensure!(Instant::now() < deadline, "it has not mounted within {} s", LIMIT.as_secs());
            std::thread::sleep(Duration::from_millis(1));
        }
        server.is_mounted = true;
        let process = i32::try_from(server.child.id()).context("a process number out of range")?;
        server.process = serving(process)?.context("no process of it has /dev/fuse open")?;
        Ok(server)
    }

    /// Seconds of processors that it has taken so far.
    pub(super) fn processor_seconds(&self) -> Result<f64> {
        let mut clock = 0;
        // SAFETY: The place is writable.
        let failed = unsafe { libc::clock_getcpuclockid(self.process, &mut clock) };
        ensure!(failed == 0, "the server has no clock: {}", std::io::Error::from_raw_os_error(failed));
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: The place is writable.
        if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
            return Err(std::io::Error::last_os_error()).context("failed to read the server's clock");
        }
        Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
    }

    /// Bytes of memory that it had at most, without pages of files: those are in the page cache whether it maps them or not.
    pub(super) fn memory(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process);
        let status = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
        memory(&status)
    }

    /// Unmounts, and waits until it has ended.
    pub(super) fn end(mut self) -> Result<()> {
        run::capture(run::command("umount").arg(&self.target))?;
        self.is_mounted = false;
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().context("failed to wait")? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the server has not ended within {} s", LIMIT.as_secs());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily: whoever still has files of it open must not keep it in the way of the next one.
            let _ = run::capture(run::command("umount").arg("--lazy").arg(&self.target));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process that has `/dev/fuse` open, among one and those that it has started.
fn serving(process: libc::pid_t) -> Result<Option<libc::pid_t>> {
    let folder = format!("/proc/{process}/fd");
    let files = std::fs::read_dir(&folder).with_context(|| format!("failed to list {folder}"))?;
    // A file may be closed meanwhile.
    let is_server = files
        .flatten()
        .any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path == Path::new("/dev/fuse")));
    if is_server {
        return Ok(Some(process));
    }
    let path = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(&path).with_context(|| format!("failed to read {path}"))?;
    for child in children.split_whitespace() {
        let child = child.parse().with_context(|| format!("{path} holds {child:?}"))?;
        if let Some(server) = serving(child)? {
            return Ok(Some(server));
        }
    }
    Ok(None)
}

/// The peak of the resident set, less the pages of files in it.
fn memory(status: &str) -> Result<u64> {
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        value
            .map(|value| value << 10)
            .with_context(|| format!("there is no {name} in the status of the server"))
    };
    Ok(field("VmHWM")?.saturating_sub(field("RssFile")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_no_file_holds() {
        let status =
            "Name:\tserver\nVmPeak:\t  99 kB\nVmHWM:\t   30 kB\nRssAnon:\t   18 kB\nRssFile:\t   10 kB\n";
        assert_eq!(memory(status).unwrap(), 20 << 10);
        assert!(memory("Name:\tzombie\n").unwrap_err().to_string().contains("VmHWM"));
    }

    #[test]
    fn a_process_that_serves_nothing_is_not_taken_for_a_server() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let found = serving(libc::pid_t::try_from(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found.unwrap(), None);
    }

    #[test]
    fn a_server_that_fails_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no image >&2; exit 3"]);
        let failed = Server::start(command, folder.path(), &folder.path().join("log"));
        let error = failed.err().unwrap().to_string();
        assert!(error.contains("exit status: 3: no image"), "{error}");
    }
}
