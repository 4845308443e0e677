// SPDX-License-Identifier: GPL-2.0
//! One start of a machine that measures: its first root, the user-mode kernel, and the samples that either
//! kind of machine prints.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::reading::{Line, Sample, Task, MARK, PLAN};

use super::record::Program;
use super::uml::Uml;
use super::Bench;
use crate::initramfs::{self, Contents};
use crate::kernel::{self, Flavour, Kernel, Toolchain};
use crate::module::{self, Lint};
use crate::qemu::{self, Accelerator};
use crate::{console, run, tools};

/// Memory of the user-mode kernel.
pub(super) const MEMORY: &str = "3G";

/// Writes a first root that holds the task, and perhaps the module and more files.
pub(super) fn initramfs(
    folder: &Path,
    task: &Task,
    module: Option<&Path>,
    more: &[(String, PathBuf)],
) -> Result<PathBuf> {
    let path = folder.join("plan.json");
    let text = serde_json::to_vec(task).context("the task cannot be written down")?;
    std::fs::write(&path, text).context("failed to write the task")?;
    let archive = folder.join("initramfs");
    let init = tools::guest()?;
    let mut files = vec![(PLAN.to_owned(), path)];
    files.extend_from_slice(more);
    initramfs::write(&archive, &Contents { init: &init, module, debian: None, files: &files })?;
    Ok(archive)
}

/// The test machine, for what takes two processors: the user-mode kernel has one by construction.
pub(super) struct Emulated {
    toolchain: Toolchain,
    kernel: Kernel,
    module: PathBuf,
    accelerator: Accelerator,
}

/// One start of the test machine.
pub(super) struct Start<'a> {
    /// A folder for what it starts from.
    pub(super) scratch: &'a Path,
    pub(super) task: Task,
    /// More files in its first root.
    pub(super) files: &'a [(String, PathBuf)],
    /// In MiB.
    pub(super) memory: u32,
    /// The name of the log that its console goes to.
    pub(super) log: &'a str,
    pub(super) limit: Duration,
}

impl Emulated {
    /// Builds its kernel and the module.
    pub(super) fn prepare(bench: &Bench<'_>) -> Result<Self> {
        let toolchain = Toolchain::find(&bench.cache)?;
        let kernel = kernel::build(&bench.cache, &toolchain, Flavour::Plain)?;
        let module = module::build(&bench.cache, &toolchain, &kernel.build, Lint::Plain)?;
        let accelerator = qemu::accelerator(&kernel.image, &tools::guest()?)?;
        Ok(Self { toolchain, kernel, module, accelerator })
    }

    /// How its processors work, in words.
    pub(super) fn executed(&self) -> &'static str {
        match self.accelerator {
            Accelerator::Kvm => "by the processor (KVM)",
            Accelerator::Tcg | Accelerator::TcgArm64 => "emulated (TCG, a thread of the host for each)",
        }
    }

    /// Runs it to its end: what it has measured, and what it is, as reports name it.
    pub(super) fn run(&self, bench: &Bench<'_>, start: &Start<'_>) -> Result<(Vec<Sample>, Program)> {
        let initramfs = initramfs(start.scratch, &start.task, Some(&self.module), start.files)?;
        let words = "loglevel=4 guest.bench";
        let command =
            qemu::machine(self.accelerator, &self.kernel.image, Some(&initramfs), words, start.memory);
        let shown = run::shown(&command).replace(&format!("{}/", start.scratch.display()), "");
        let shown = shown.replace(&format!("{}", self.kernel.image.display()), "bzImage");
        let samples = samples(command, bench, start.log, start.limit)?;
        let qemu = run::capture(run::command("qemu-system-x86_64").arg("--version"))?;
        let qemu = qemu.lines().next().unwrap_or_default();
        let program = Program {
            name: "QEMU".to_owned(),
            version: format!("{qemu}, Linux {}, {}", self.kernel.key, versions(&self.toolchain)),
            command: shown,
        };
        Ok((samples, program))
    }
}

/// The user-mode kernel with so much memory and these block devices, bound to its processor. `words` go to its command line.
pub(super) fn user_mode(
    bench: &Bench<'_>,
    program: &Path,
    memory: &str,
    initramfs: &Path,
    devices: &[PathBuf],
    words: &str,
) -> Command {
    let mut command = run::command("taskset");
    command
        .args(["-c", &bench.options.cpu.to_string()])
        .arg(program)
        .arg(format!("mem={memory}"))
        .arg(format!("initrd={}", initramfs.display()));
    for (index, device) in devices.iter().enumerate() {
        command.arg(format!("ubd{index}r={}", device.display()));
    }
    // With `seccomp=on` a system call of the guest costs half of what it costs by ptrace.
    command.args(["con=null", "con0=fd:0,fd:1", "ssl=null", "seccomp=on", "panic=-1", "loglevel=4"]);
    if !words.is_empty() {
        command.arg(words);
    }
    command.arg("guest.bench");
    command
}

/// The user-mode kernel, as reports name it.
pub(super) fn program(linux: &Uml, toolchain: &Toolchain, command: String) -> Program {
    Program {
        name: "user-mode Linux".to_owned(),
        version: format!("{}, {}", linux.version, versions(toolchain)),
        command,
    }
}

/// Versions of the compilers, in one line.
pub(super) fn versions(toolchain: &Toolchain) -> String {
    toolchain.versions().trim().replace('\n', ", ")
}

/// Runs a machine to its end and collects the samples; its console goes to the log `name`.
pub(super) fn samples(
    mut command: Command,
    bench: &Bench<'_>,
    name: &str,
    limit: Duration,
) -> Result<Vec<Sample>> {
    let path = bench.cache.folder("logs")?.join(format!("{name}.log"));
    let log = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().context("failed to share the log")?)
        .spawn()
        .with_context(|| format!("failed to start `{}`", run::shown(&command)))?;
    let console = child.stdout.take().context("the machine has no console")?;
    let result = listen(console, log, limit);
    end(&mut child)?;
    result.with_context(|| format!("whole console: {}", path.display()))
}

/// Reads the console until everything is measured.
fn listen(console: ChildStdout, mut log: File, limit: Duration) -> Result<Vec<Sample>> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(console);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
    });
    let deadline = Instant::now() + limit;
    let mut samples: Vec<Sample> = Vec::new();
    let mut last = String::new();
    loop {
        let line = match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("no end within {} s", limit.as_secs()),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the machine ended before its time: {last}"),
        };
        writeln!(log, "{line}").context("failed to write the console's log")?;
        if let Some(text) = line.strip_prefix(MARK) {
            match serde_json::from_str(text).with_context(|| format!("no sample: {text}"))? {
                Line::Sample(sample) => {
                    eprintln!(
                        "round {}: {:34} {:22} {:16.6}",
                        sample.round, sample.measure, sample.system, sample.value
                    );
                    samples.push(sample);
                }
                Line::Done => return Ok(samples),
            }
        } else {
            if let Some(heard) = console::hear(&line) {
                bail!("{}: {line}", heard.meaning);
            }
            ensure!(!line.starts_with("init: "), "{line}");
            if !line.is_empty() {
                last = line;
            }
        }
    }
}

/// The machine powers off by itself; what is left after a moment is ended.
fn end(child: &mut Child) -> Result<()> {
    for _ in 0..40 {
        if child.try_wait().context("failed to wait")?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().context("failed to end the machine")?;
    child.wait().context("failed to wait")?;
    Ok(())
}
