// SPDX-License-Identifier: GPL-2.0
//! Runs other programs: with their output on the terminal, captured, or kept in a log.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::process::{kill_process_group, Pid, Signal};

/// A command whose environment does not carry the variables that cargo added for this program.
///
/// `cargo run` puts its own libraries in front of the loader's search path, where the kernel's
/// compiler would find the wrong ones.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// The command as one would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Says what is done, in the form in which all steps of this program do.
pub(crate) fn say(what: impl std::fmt::Display) {
    eprintln!("==> {what}");
}

/// Does two things at once.
pub(crate) fn both<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> Result<(A, B)> {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        one.join().map(|one| (one, other)).map_err(|_| anyhow::anyhow!("a thread panicked"))
    })
}

/// Runs a command with its output on the terminal.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("failed to start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", shown(command));
    }
    Ok(())
}

/// How long a command may take whose output is wanted: a program that hangs is a failure, not a run
/// without an end.
const LIMIT: Duration = Duration::from_secs(900);

/// Runs a command to its end, be it a failure or not, and collects its output.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    output_within(command, LIMIT)
}

pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it started ends with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("failed to start `{}`", shown(command)))?;
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().context("failed to wait")? {
            break status;
        }
        if Instant::now() > deadline {
            if let Some(group) =
                Pid::from_raw(i32::try_from(child.id()).context("a process number out of range")?)
            {
                kill_process_group(group, Signal::KILL).context("failed to end a hanging command")?;
            }
            child.wait().context("failed to wait")?;
            let said = [finish(stdout)?, finish(stderr)?].concat();
            bail!(
                "`{}` did not end within {} s; it said: {}",
                shown(command),
                limit.as_secs(),
                tail(&String::from_utf8_lossy(&said))
            );
        }
        // Short enough that a thousand short commands do not wait for it.
        std::thread::sleep(Duration::from_millis(1));
    };
    Ok(Output { status, stdout: finish(stdout)?, stderr: finish(stderr)? })
}

/// Reads a pipe to its end on a thread of its own: a full pipe would stop the program.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<std::io::Result<Vec<u8>>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    })
}

fn finish(reader: JoinHandle<std::io::Result<Vec<u8>>>) -> Result<Vec<u8>> {
    reader
        .join()
        .map_err(|_| anyhow::anyhow!("a reading thread panicked"))?
        .context("failed to read what a program printed")
}

/// Runs a command and returns what it printed.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "`{}` ended with {}: {}",
            shown(command),
            output.status,
            tail(&String::from_utf8_lossy(&output.stderr))
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("`{}` printed something that is not text", shown(command)))
}

/// The line of a program's version: the first one that begins so of what it prints for an argument, be that a failure or not.
pub(crate) fn version(program: &Path, argument: &str, begins: &str) -> Result<String> {
    let said = output(command(program).arg(argument))?;
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    version_in(&said, begins).map(ToOwned::to_owned).with_context(|| {
        format!("{} {argument} prints no line that begins with {begins:?}", program.display())
    })
}

fn version_in<'s>(said: &'s str, begins: &str) -> Option<&'s str> {
    said.lines().map(str::trim).find(|line| !line.is_empty() && line.starts_with(begins))
}

/// The resources that a program took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// Bytes that it held at most at once (resident; the largest of its processes).
    pub(crate) peak: u64,
}

/// Runs a command whose output is of no interest, and tells what it took.
pub(crate) fn measured(command: &mut Command) -> Result<Cost> {
    let mut errors = tempfile::tempfile().context("failed to make a scratch file")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors.try_clone().context("failed to share the scratch file")?);
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("failed to start `{}`", shown(command)))?;
    let process = libc::pid_t::try_from(child.id()).context("a process number out of range")?;
    let mut status = 0;
    // SAFETY: All of `rusage` is numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: Both places are writable; the process is this one's child, and nobody else waits for it.
    let waited = unsafe { libc::wait4(process, &mut status, 0, &mut usage) };
    let elapsed = start.elapsed();
    if waited != process {
        return Err(std::io::Error::last_os_error()).context("failed to wait");
    }
    let status = ExitStatus::from_raw(status);
    if !status.success() {
        let mut text = String::new();
        let _ = errors.rewind().and_then(|()| errors.read_to_string(&mut text));
        bail!("`{}` ended with {status}: {}", shown(command), tail(&text));
    }
    // The kernel counts in KiB.
    let peak = u64::try_from(usage.ru_maxrss).context("a negative size")? << 10;
    Ok(Cost { elapsed, peak })
}

/// Runs a long command with all its output in a log; shows the log's end when it fails.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stderr(file.try_clone().context("failed to share the log")?)
        .stdout(file)
        .status()
        .with_context(|| format!("failed to start `{}`", shown(command)))?;
    if !status.success() {
        let text = std::fs::read(log).unwrap_or_default();
        bail!(
            "`{}` ended with {status}; the end of {}:\n{}",
            shown(command),
            log.display(),
            tail(&String::from_utf8_lossy(&text))
        );
    }
    Ok(())
}

/// The last lines of a text.
pub(crate) fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_ends_with_everything_it_started() {
        let start = Instant::now();
        let mut command = command("sh");
        command.args(["-c", "echo begun; sleep 100 & sleep 100"]);
        let error = output_within(&mut command, Duration::from_millis(300)).unwrap_err();
        assert!(error.to_string().contains("begun"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_version_is_found_among_those_of_libraries() {
        let said = "library version: 3\n\nprogram 1.2\nusage: program\n";
        assert_eq!(version_in(said, "program "), Some("program 1.2"));
        assert_eq!(version_in(&said[19..], ""), Some("program 1.2"));
        assert_eq!(version_in(said, "other "), None);
    }

    #[test]
    fn output_of_both_kinds_is_collected() {
        let output = output(command("sh").args(["-c", "echo out; echo err >&2; exit 3"])).unwrap();
        assert_eq!(
            (output.status.code(), &output.stdout[..], &output.stderr[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
    }
}
