// SPDX-License-Identifier: GPL-2.0
//! A machine with Debian and systemd, at whose shell a user types.
//!
//! The shell is systemd's `debug_shell`, on a serial port of its own; the first port has the console.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};

use crate::kernel::Flavour;
use crate::qemu::{self, Accelerator};
use crate::{console, run};

/// How long a command at the shell, or a boot, may take on a processor.
const LIMIT: Duration = Duration::from_secs(180);

/// How long QEMU may take until its serial port is there.
const PORT_LIMIT: Duration = Duration::from_secs(30);

/// How long a shell that was not there yet is given until the next try.
const GREETING: Duration = Duration::from_secs(10);

/// Waits until all units have been started. Until the bus answers, there is nobody to ask.
const STARTED: &str =
    "until systemctl is-system-running --wait 2>/dev/null | grep -qE 'running|degraded'; do sleep 2; done";

/// The things that a machine is started with.
pub(super) struct Start<'a> {
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// Raw virtio disks, in order: the root, which keeps what is written to it, and one that is only read.
    pub(super) root: &'a Path,
    pub(super) given: &'a Path,
    pub(super) accelerator: Accelerator,
    /// Where the whole console goes.
    pub(super) log: PathBuf,
}

/// A machine that runs, and its shell.
pub(super) struct Machine {
    child: Child,
    shell: UnixStream,
    /// The words of the shell that nobody has read.
    heard: String,
    limit: Duration,
    log: PathBuf,
}

/// The end of what a command printed: this, its status, and this.
const END: &str = "::";

impl Machine {
    /// Boots, and waits for the shell; once more where the emulation failed.
    pub(super) fn boot(start: &Start<'_>) -> Result<Self> {
        let once = || Self::power_on(start).and_then(Self::greet);
        once().or_else(|error| {
            let console = read_log(&start.log)?;
            if qemu::is_misled(start.accelerator, &console) {
                return once();
            }
            Err(error).with_context(|| format!("whole console: {}", start.log.display()))
        })
    }

    fn power_on(start: &Start<'_>) -> Result<Self> {
        let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
        let socket = scratch.path().join("shell");
        let arguments = format!(
            "{} root=/dev/vda rw loglevel=5 systemd.debug_shell=ttyS1 systemd.show_status=error",
            start.accelerator.kernel_parameters(1)
        );
        let memory = Flavour::Stock.memory();
        let mut command =
            qemu::machine(start.accelerator, start.kernel, Some(start.initramfs), &arguments, memory);
        let disk = |path: &Path| format!("if=virtio,format=raw,file={}", path.display());
        command
            .args(["-drive", &disk(start.root), "-drive", &format!("{},readonly=on", disk(start.given))])
            .arg("-chardev")
            .arg(format!("socket,id=shell,path={},server=on,wait=off", socket.display()))
            .args(["-serial", "chardev:shell"]);
        let log =
            File::create(&start.log).with_context(|| format!("failed to create {}", start.log.display()))?;
        let mut child = command
            .stdin(Stdio::null())
            .stderr(log.try_clone().context("failed to share the log")?)
            .stdout(log)
            .spawn()
            .with_context(|| format!("failed to start `{}`", run::shown(&command)))?;
        let shell = connect(&socket).inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })?;
        let limit = LIMIT * start.accelerator.patience();
        Ok(Self { child, shell, heard: String::new(), limit, log: start.log.clone() })
    }

    /// Waits until the shell answers, and the units have been started.
    fn greet(mut self) -> Result<Self> {
        let deadline = Instant::now() + self.limit;
        while !self.heard.contains("ready 2") {
            ensure!(Instant::now() < deadline, "no shell within {} s", self.limit.as_secs());
            // The terminal shows what is typed; only a shell adds up. Not bash, which edits lines.
            self.write("\nexec dash\nstty -echo; PS1=; PS2=; echo ready $((1 + 1))\n")?;
            let patience = Instant::now() + GREETING;
            while Instant::now() < patience && !self.heard.contains("ready 2") {
                self.hear()?;
            }
        }
        self.runs(STARTED)?;
        self.runs("cd /root")?;
        Ok(self)
    }

    fn write(&mut self, text: &str) -> Result<()> {
        self.shell.write_all(text.as_bytes()).context("the machine hung up")
    }

    /// Takes what the shell says within a moment; fails once the kernel has died.
    fn hear(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        match self.shell.read(&mut bytes) {
            Ok(0) => bail!("the machine hung up"),
            Ok(count) => {
                self.heard.push_str(&String::from_utf8_lossy(&bytes[..count]).replace('\r', ""));
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                match read_log(&self.log)?.lines().find_map(console::hear) {
                    Some(heard) if heard.fatal => bail!("{}: {}", heard.meaning, heard.line),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(error).context("failed to listen to the shell"),
        }
    }

    /// Types a command; gives its exit status, and what it printed.
    fn typed(&mut self, command: &str) -> Result<(i32, String)> {
        self.heard.clear();
        // In two parts, so that no echo of the line looks like its end.
        self.write(&format!("{{ {command}\n}} </dev/null 2>&1; echo \"{END}$?{END}\"\n"))?;
        let deadline = Instant::now() + self.limit;
        loop {
            if let Some((said, status)) = finished(&self.heard) {
                return Ok((status, said.to_owned()));
            }
            ensure!(
                Instant::now() < deadline,
                "`{command}` did not end within {} s; it said:\n{}",
                self.limit.as_secs(),
                run::tail(&self.heard)
            );
            self.hear().with_context(|| format!("`{command}` said:\n{}", run::tail(&self.heard)))?;
        }
    }

    /// Types a command that must succeed; gives what it printed.
    pub(super) fn runs(&mut self, command: &str) -> Result<String> {
        let (status, said) = self.typed(command)?;
        ensure!(status == 0, "`{command}` ended with {status}:\n{}", run::tail(&said));
        Ok(said)
    }

    /// Types a command that must fail, and say this.
    pub(super) fn fails(&mut self, command: &str, says: &str) -> Result<()> {
        let (status, said) = self.typed(command)?;
        ensure!(
            status != 0 && said.contains(says),
            "`{command}` ended with {status}, not with {says:?}:\n{}",
            run::tail(&said)
        );
        Ok(())
    }

    /// Ends the machine by this command; fails if the kernel has complained.
    pub(super) fn ends(mut self, command: &str) -> Result<()> {
        self.write(&format!("{command}\n"))?;
        let deadline = Instant::now() + self.limit;
        while self.child.try_wait().context("failed to wait for QEMU")?.is_none() {
            ensure!(Instant::now() < deadline, "`{command}` did not end the machine");
            std::thread::sleep(Duration::from_millis(200));
        }
        match read_log(&self.log)?.lines().find_map(console::hear) {
            Some(heard) => {
                bail!("{}: {}; whole console: {}", heard.meaning, heard.line, self.log.display())
            }
            None => Ok(()),
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // One that has ended by itself is no error; one that has not is not waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connects to the serial port, which QEMU makes at its start.
fn connect(socket: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + PORT_LIMIT;
    loop {
        match UnixStream::connect(socket) {
            Ok(shell) => {
                shell.set_read_timeout(Some(Duration::from_secs(2))).context("failed to set a limit")?;
                return Ok(shell);
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error).context("QEMU offers no serial port");
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// The console so far. Terminals are reset on it, too, by bytes that are no text.
fn read_log(log: &Path) -> Result<String> {
    let bytes = fs::read(log).with_context(|| format!("failed to read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The output of a command, and its status, once both have arrived.
fn finished(heard: &str) -> Option<(&str, i32)> {
    let end = heard.trim_end().strip_suffix(END)?;
    let (said, status) = end.rsplit_once(END)?;
    Some((said, status.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::finished;

    #[test]
    fn a_command_has_ended_when_its_status_is_there() {
        assert_eq!(finished("one\ntwo\n::0::\n"), Some(("one\ntwo\n", 0)));
        assert_eq!(finished("a::b\n::12::\n"), Some(("a::b\n", 12)));
        for text in ["", "one", "::", "::$?::", "one\n::0", "one\n::0:"] {
            assert_eq!(finished(text), None, "{text}");
        }
    }
}
