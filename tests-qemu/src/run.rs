// SPDX-License-Identifier: GPL-2.0
//! Runs other programs: with their output on the terminal, captured, or kept in a log.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::process::{getpriority_process, kill_process_group, setpriority_process, Pid, Signal};

use crate::advice::advice;

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

/// By so much the niceness of such work is higher.
const LESS: i32 = 10;

/// Does this work, and what it starts, with what other threads leave of the processors.
pub(crate) fn after_others<T>(work: impl FnOnce() -> T) -> T {
    // Linux keeps this for each thread; a new process begins with that of the thread that started it. Where a limit forbids
    // to take it back, the rest comes after others, too.
    let before = getpriority_process(None).unwrap_or(0);
    let _ = setpriority_process(None, before + LESS);
    let done = work();
    let _ = setpriority_process(None, before);
    done
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
    let mut watch = Watch::new(command);
    let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait().context("failed to wait")? {
            break status;
        }
        watch.look(None);
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
        return Err(failure(command, output.status, &String::from_utf8_lossy(&output.stderr), None));
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

/// Runs a command that may take long and prints nothing but complaints.
pub(crate) fn quiet(command: &mut Command) -> Result<()> {
    capture(command).map(drop)
}

/// The resources that a program took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// Time of processors, the program's own and the kernel's, of all its threads.
    pub(crate) processor: Duration,
    /// Bytes that it held at most at once (resident; the largest of its processes).
    pub(crate) peak: u64,
}

/// Runs a command whose output is of no interest, and tells what it took.
pub(crate) fn measured(command: &mut Command) -> Result<Cost> {
    command.stdin(Stdio::null());
    measured_beside(command, |_| Ok(()))
}

/// The same with a standard input that `feed` writes while the command runs.
pub(crate) fn measured_fed(
    command: &mut Command,
    feed: impl FnOnce(ChildStdin) -> std::io::Result<()> + Send,
) -> Result<Cost> {
    command.stdin(Stdio::piped());
    measured_beside(command, |child| match child.stdin.take() {
        Some(pipe) => feed(pipe),
        None => Ok(()),
    })
}

/// Runs a command, and beside it `work` with its pipes, on a thread of its own.
fn measured_beside(
    command: &mut Command,
    work: impl FnOnce(&mut Child) -> std::io::Result<()> + Send,
) -> Result<Cost> {
    let mut errors = tempfile::tempfile().context("failed to make a scratch file")?;
    command.stdout(Stdio::null()).stderr(errors.try_clone().context("failed to share the scratch file")?);
    forget_peak();
    let start = Instant::now();
    let mut child = command.spawn().with_context(|| format!("failed to start `{}`", shown(command)))?;
    let process = libc::pid_t::try_from(child.id()).context("a process number out of range")?;
    let (worked, ended) = std::thread::scope(|scope| {
        let work = scope.spawn(|| work(&mut child));
        let ended = wait(process, start);
        (work.join(), ended)
    });
    let (status, cost) = ended?;
    if !status.success() {
        let mut text = String::new();
        let _ = errors.rewind().and_then(|()| errors.read_to_string(&mut text));
        bail!("`{}` ended with {status}: {}", shown(command), tail(&text));
    }
    // A command that fails stops to read: that is the failure to tell of, and not the broken pipe.
    worked
        .map_err(|_| anyhow::anyhow!("a writing thread panicked"))?
        .with_context(|| format!("failed to write the input of `{}`", shown(command)))?;
    Ok(cost)
}

/// Waits for a child that began at `start`: how it ended, and the resources that it took.
fn wait(process: libc::pid_t, start: Instant) -> Result<(ExitStatus, Cost)> {
    let mut status = 0;
    // SAFETY: All of `rusage` is numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: Both places are writable; the process is this one's child, and nobody else waits for it.
    let waited = unsafe { libc::wait4(process, &mut status, 0, &mut usage) };
    if waited != process {
        return Err(std::io::Error::last_os_error()).context("failed to wait");
    }
    // The kernel counts in KiB.
    let peak = u64::try_from(usage.ru_maxrss).context("a negative size")? << 10;
    let processor = spent(usage.ru_utime)? + spent(usage.ru_stime)?;
    Ok((ExitStatus::from_raw(status), Cost { elapsed: start.elapsed(), processor, peak }))
}

/// A time that the kernel has counted.
fn spent(time: libc::timeval) -> Result<Duration> {
    let seconds = u64::try_from(time.tv_sec).context("a negative time")?;
    let micros = u64::try_from(time.tv_usec).context("a negative time")?;
    Ok(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// Lets the peak of this program's memory begin anew.
///
/// A child is started in the memory of this program, and execve(2) counts the peak of that memory as the child's own. So no
/// child seems to take less than this program holds; without this, no less than it ever held.
fn forget_peak() {
    // Where the kernel does not know this, figures of small programs are too large, which is no failure.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// Runs a long command with all its output in a log; shows the log's end when it fails.
pub(crate) fn logged(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("failed to create {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stderr(file.try_clone().context("failed to share the log")?)
        .stdout(file)
        .spawn()
        .with_context(|| format!("failed to start `{}`", shown(command)))?;
    let mut watch = Watch::new(command);
    let status = loop {
        if let Some(status) = child.try_wait().context("failed to wait")? {
            break status;
        }
        watch.look(Some(log));
        std::thread::sleep(Duration::from_millis(5));
    };
    if !status.success() {
        // A full disk has no room for the words that say so.
        crate::cache::room(log.parent().unwrap_or(Path::new(".")))?;
        let text = std::fs::read(log).unwrap_or_default();
        return Err(failure(command, status, &String::from_utf8_lossy(&text), Some(log)));
    }
    Ok(())
}

/// The error about a command that failed: what that means and what to type, where that is known, else its last lines.
fn failure(command: &Command, status: ExitStatus, said: &str, log: Option<&Path>) -> anyhow::Error {
    let log = log.map(|log| log.display().to_string());
    if let Some(advice) = advice(said) {
        let name = command.get_program().to_string_lossy();
        let log = log.map_or(String::new(), |log| format!(", its log is {log}"));
        return anyhow::anyhow!("{advice}: `{name}` ended with {status}{log}");
    }
    let end = log.map_or(String::new(), |log| format!("; the end of {log}"));
    let gap = if end.is_empty() { ' ' } else { '\n' };
    anyhow::anyhow!("`{}` ended with {status}{end}:{gap}{}", shown(command), tail(said))
}

/// How long a command may be silent before somebody asks whether it does anything.
const SILENCE: Duration = Duration::from_secs(10);

/// Says now and then what a long command does.
struct Watch {
    what: String,
    start: Instant,
    next: Duration,
}

impl Watch {
    fn new(command: &Command) -> Self {
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let words = std::iter::once(program).chain(command.get_args());
        let mut words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        // A script of this program's own says nothing to the reader: what it starts stands behind `--`.
        if words.iter().any(|word| word.contains('\n')) {
            let start = words.iter().rposition(|word| word == "--").map_or(0, |place| place + 1);
            words.drain(..start);
            words.retain(|word| !word.contains('\n'));
        }
        let what = words.join(" ");
        Self { what: shorter(&what, 60), start: Instant::now(), next: SILENCE }
    }

    /// Says what the command does, with the end of its log, if it is time for that.
    fn look(&mut self, log: Option<&Path>) {
        let elapsed = self.start.elapsed();
        if elapsed >= self.next {
            say(self.line(elapsed, log));
            // Ever rarer, up to once in a minute.
            self.next = elapsed + elapsed.clamp(SILENCE, Duration::from_secs(60));
        }
    }

    fn line(&self, elapsed: Duration, log: Option<&Path>) -> String {
        let last = log.and_then(last_line).map_or(String::new(), |line| format!(": {}", shorter(&line, 90)));
        format!("{} s of `{}`{last}", elapsed.as_secs(), self.what)
    }
}

/// The last line of a log that says something.
fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(1000))).ok()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    // Progress bars write one line over the other.
    text.split(['\n', '\r']).map(str::trim).rfind(|line| !line.is_empty()).map(ToOwned::to_owned)
}

/// The beginning of a text.
fn shorter(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
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
    fn the_time_of_processors_is_not_that_of_sleep() {
        let slept = measured(command("sleep").arg("0.3")).unwrap();
        assert!(slept.elapsed >= Duration::from_millis(300) && slept.processor < slept.elapsed, "{slept:?}");
        let loops = "i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done";
        let counted = measured(command("sh").args(["-c", loops])).unwrap();
        assert!(counted.processor > slept.processor, "{counted:?}");
    }

    #[test]
    fn a_version_is_found_among_those_of_libraries() {
        let said = "library version: 3\n\nprogram 1.2\nusage: program\n";
        assert_eq!(version_in(said, "program "), Some("program 1.2"));
        assert_eq!(version_in(&said[19..], ""), Some("program 1.2"));
        assert_eq!(version_in(said, "other "), None);
    }

    #[test]
    fn a_long_command_is_seen_to_go_on() {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), "CC a.o\nCC b.o\n\n").unwrap();
        let watch = Watch::new(command("make").arg("-j2"));
        let line = watch.line(Duration::from_secs(30), Some(log.path()));
        assert_eq!(line, "30 s of `make -j2`: CC b.o");
        let mut within = command("unshare");
        within.args(["--mount", "--", "sh", "-c", "set -e\nexec chroot", "sh", "/root", "--", "make", "-j2"]);
        assert_eq!(Watch::new(&within).line(Duration::from_secs(10), None), "10 s of `make -j2`");
        assert_eq!(shorter("abcdef", 3), "abc...");
    }

    #[test]
    fn a_failure_names_its_log_and_what_to_type_where_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("x.log");
        let fails = |text: &str| {
            let mut sh = command("sh");
            logged(sh.args(["-c", "echo \"$1\"; exit 7", "sh", text]), &log).unwrap_err().to_string()
        };
        let known = fails("E: Failed to fetch http://x/  404  Not Found");
        assert!(known.contains("apt-get update") && known.contains("x.log"), "{known}");
        assert_eq!(known.lines().count(), 1);
        let unknown = fails("a line that nobody knows");
        assert!(unknown.contains("the end of") && unknown.ends_with("a line that nobody knows"), "{unknown}");
    }

    #[test]
    fn a_measured_command_is_fed_and_its_failure_is_told() {
        use std::io::Write as _;
        let mut sum = command("sh");
        sum.args(["-c", "test $(wc -c) = 1000000"]);
        let cost = measured_fed(&mut sum, |mut pipe| pipe.write_all(&[b'x'; 1_000_000])).unwrap();
        assert!(cost.peak > 0 && cost.elapsed < Duration::from_secs(20));
        let mut fails = command("sh");
        fails.args(["-c", "echo no room >&2; exit 3"]);
        let error = measured_fed(&mut fails, |mut pipe| pipe.write_all(&[b'x'; 1_000_000])).unwrap_err();
        assert!(error.to_string().ends_with("no room"), "{error}");
    }

    #[test]
    fn the_memory_of_a_command_is_not_that_of_this_program() {
        const ALONE: &str = "TESSERAFS_TEST_ALONE";
        const ONCE_HELD: usize = 256 << 20;
        // Other tests have memory in this process, too.
        if std::env::var_os(ALONE).is_none() {
            let name = "run::tests::the_memory_of_a_command_is_not_that_of_this_program";
            let mut again = command(std::env::current_exe().unwrap());
            let said = capture(again.args(["--exact", name]).env(ALONE, "yes")).unwrap();
            return assert!(said.contains("1 passed"), "{said}");
        }
        drop(std::hint::black_box(vec![1_u8; ONCE_HELD]));
        let peak = measured(&mut command("true")).unwrap().peak;
        assert!(peak < ONCE_HELD as u64 / 2, "{peak}");
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
