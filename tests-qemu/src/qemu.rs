// SPDX-License-Identifier: GPL-2.0
//! The virtual machine: one run, one verdict.
//!
//! The guest answers over a virtio port of its own ([`tesserafs_guest::message`]); the serial console
//! is kept in full and listened to for death cries. A run without exactly one verdict has failed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tesserafs_guest::message::{Message, PORT};

use crate::console::{self, Heard};
use crate::{initramfs, run};

/// How the guest's instructions are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By QEMU.
    Tcg,
    /// By QEMU, as those of an arm64 processor.
    TcgArm64,
}

impl Accelerator {
    /// The program that emulates the machine, and which machine that is: one with PCI, and without a second disk
    /// controller, a network card and so on.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            // The older chipset computes the routing of its interrupts in a loop of ACPI byte code, which a kernel that
            // checks every allocation does not finish in the time that it gives byte code.
            Self::Kvm | Self::Tcg => ("qemu-system-x86_64", "q35"),
            Self::TcgArm64 => ("qemu-system-aarch64", "virt"),
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg | Self::TcgArm64 => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }

    /// The kernel's name of the machine's serial port.
    fn console(self) -> &'static str {
        match self {
            Self::Kvm | Self::Tcg => "ttyS0",
            Self::TcgArm64 => "ttyAMA0",
        }
    }

    /// Parameters for the time that the kernel's processors have.
    ///
    /// Emulated ones get what the host can spare. On a busy host the kernel finds its timer broken at
    /// boot, or takes a pause for a stall; real stalls last, and are reported after a minute as well.
    /// `slowness` is how many times as long everything takes on this kernel.
    ///
    /// A kernel patches its own code while it boots, which an emulated processor may run half patched
    /// as long as another one writes it. So it boots on one, and the guest starts the others.
    pub(crate) fn kernel_parameters(self, slowness: u32) -> String {
        // The kernel takes no more than these.
        let (stall, lockup) = ((60 * slowness).min(300), (30 * slowness).min(60));
        let patient = format!(
            "rcupdate.rcu_cpu_stall_timeout={stall} sysctl.kernel.watchdog_thresh={lockup} \
             sysctl.kernel.hung_task_timeout_secs={}",
            120 * slowness
        );
        match self {
            Self::Kvm => String::new(),
            Self::Tcg => format!("maxcpus=1 no_timer_check {patient}"),
            // arm64 patches whole instructions, while the other processors wait, and its timer is not tried.
            Self::TcgArm64 => patient,
        }
    }

    /// How much longer than on a processor things may take.
    pub(crate) fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg | Self::TcgArm64 => 6,
        }
    }
}

/// How long a guest on KVM may take to its first line; one that works needs a tenth of it.
const TRIAL: Duration = Duration::from_secs(2);

/// Finds out whether KVM works, by trying: the device file may be there and a guest still hang.
pub(crate) fn accelerator(kernel: &Path, init: &Path) -> Result<Accelerator> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(Accelerator::Tcg);
    }
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let archive = scratch.path().join("initramfs");
    let contents = initramfs::Contents { init, module: None, debian: None, files: &[] };
    initramfs::write(&archive, &contents)?;
    let mut command = machine(Accelerator::Kvm, kernel, Some(&archive), "", 256);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("failed to start qemu-system-x86_64")?;
    let stdout = child.stdout.take().context("QEMU has no output")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            if String::from_utf8_lossy(&line).contains("Linux version") {
                let _ = sender.send(());
            }
            line.clear();
        }
    });
    let works = lines.recv_timeout(TRIAL).is_ok();
    stop(&mut child)?;
    if !works {
        run::say("KVM is there and does not work: falling back to emulation");
    }
    Ok(if works { Accelerator::Kvm } else { Accelerator::Tcg })
}

/// One start of the machine.
pub(crate) struct Boot<'a> {
    /// `bzImage`, or `Image` on arm64.
    pub(crate) kernel: &'a Path,
    /// First root; without one the kernel mounts what `root=` says.
    pub(crate) initramfs: Option<&'a Path>,
    /// Raw virtio disks, in order: `/dev/vda` and so on. All are read-only.
    pub(crate) disks: &'a [PathBuf],
    /// More of them, which the guest may write to; what it has written goes with the machine.
    pub(crate) scratch: &'a [PathBuf],
    /// Words for the kernel's command line.
    pub(crate) arguments: &'a str,
    /// Size of its memory, in MiB.
    pub(crate) memory: u32,
    /// When to give up.
    pub(crate) limit: Duration,
    /// Where the whole console goes.
    pub(crate) log: &'a Path,
    /// How to execute.
    pub(crate) accelerator: Accelerator,
}

impl Boot<'_> {
    /// The machine with its disks.
    pub(crate) fn command(&self) -> Command {
        let mut command = machine(self.accelerator, self.kernel, self.initramfs, self.arguments, self.memory);
        for disk in self.disks {
            command.arg("-drive").arg(format!("if=virtio,format=raw,readonly=on,file={}", disk.display()));
        }
        for disk in self.scratch {
            command.arg("-drive").arg(format!("if=virtio,format=raw,snapshot=on,file={}", disk.display()));
        }
        command
    }
}

/// Said before a machine is started once more.
const HALF_REPLACED: &str =
    "the emulated processor met an instruction that was half replaced, at boot; once more";

/// Whether this is a breakpoint that nobody set.
///
/// The kernel patches its code by way of breakpoints while it boots, and knows those. An emulated processor may run the
/// copy that it translated before another one took the breakpoint away.
fn is_of_emulation(heard: &Heard) -> bool {
    heard.line.contains("Oops: int3")
}

/// Whether the console of a machine shows that its emulation failed; then says that the machine is started once more.
pub(crate) fn is_misled(accelerator: Accelerator, console: &str) -> bool {
    let first = console.lines().find_map(console::hear);
    let misled = accelerator == Accelerator::Tcg && first.is_some_and(|heard| is_of_emulation(&heard));
    if misled {
        run::say(HALF_REPLACED);
    }
    misled
}

/// Starts a machine that is to end by itself, and gives the whole console: for a machine that refuses to
/// boot. It is started once more where [`boot`] does so.
pub(crate) fn console_of(boot: &Boot<'_>) -> Result<String> {
    let console = || -> Result<String> {
        let output = run::output_within(&mut boot.command(), boot.limit)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut text = console()?;
    if is_misled(boot.accelerator, &text) {
        text = console()?;
    }
    let console = text;
    std::fs::write(boot.log, &console).with_context(|| format!("failed to write {}", boot.log.display()))?;
    Ok(console)
}

/// The outcome of a boot.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Complaints about the run as a whole; empty if there are none.
    pub(crate) complaints: Vec<String>,
    /// Whether the kernel died of its emulation; see [`Judge::is_misled`].
    misled: bool,
}

/// A report of the two readers of a machine.
enum Event {
    Line(String),
    Message(Result<Message, String>),
    ConsoleClosed,
}

/// Starts the machine, shows progress through `show`, and waits for verdict and power-off.
///
/// A machine whose emulation fails before its first process starts is started once more.
pub(crate) fn boot(boot: &Boot<'_>, mut show: impl FnMut(&Message)) -> Result<Outcome> {
    let outcome = boot_once(boot, &mut show)?;
    if !(outcome.misled && boot.accelerator == Accelerator::Tcg) {
        return Ok(outcome);
    }
    run::say(HALF_REPLACED);
    boot_once(boot, &mut show)
}

fn boot_once(boot: &Boot<'_>, show: &mut impl FnMut(&Message)) -> Result<Outcome> {
    let scratch = tempfile::tempdir().context("failed to make a scratch folder")?;
    let socket = scratch.path().join("verdict");
    let listener = UnixListener::bind(&socket).context("failed to make the verdict's socket")?;
    let mut command = boot.command();
    command
        .args(["-device", "virtio-serial-pci", "-chardev"])
        .arg(format!("socket,id=verdict,path={}", socket.display()))
        .arg("-device")
        .arg(format!("virtserialport,chardev=verdict,name={PORT}"));
    let errors = boot.log.with_extension("qemu");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&errors).with_context(|| format!("failed to create {}", errors.display()))?)
        .spawn()
        .with_context(|| format!("failed to start `{}`", run::shown(&command)))?;
    let console = child.stdout.take().context("QEMU has no output")?;
    let mut log =
        File::create(boot.log).with_context(|| format!("failed to create {}", boot.log.display()))?;

    let (sender, events) = mpsc::channel();
    let lines = sender.clone();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(console);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line);
            let _ = lines.send(Event::Line(text.trim_end().to_owned()));
            line.clear();
        }
        let _ = lines.send(Event::ConsoleClosed);
    });
    std::thread::spawn(move || {
        let Ok((stream, _)) = listener.accept() else {
            return;
        };
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let message = serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"));
            let _ = sender.send(Event::Message(message));
        }
    });

    let mut judge = Judge::default();
    let deadline = Instant::now() + boot.limit;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Line(line)) => {
                writeln!(log, "{line}").context("failed to write the console's log")?;
                if judge.listen(&line) {
                    // The machine will not come back; its last words are on their way.
                    std::thread::sleep(Duration::from_millis(500));
                    while let Ok(Event::Line(line)) = events.try_recv() {
                        writeln!(log, "{line}").context("failed to write the console's log")?;
                    }
                    break;
                }
            }
            Ok(Event::Message(message)) => {
                if let Ok(message) = &message {
                    show(message);
                }
                judge.take(message);
            }
            Ok(Event::ConsoleClosed) => {
                // Messages that the port still holds arrive before its reader ends.
                while let Ok(event) = events.recv_timeout(Duration::from_secs(2)) {
                    if let Event::Message(message) = event {
                        if let Ok(message) = &message {
                            show(message);
                        }
                        judge.take(message);
                    }
                }
                break;
            }
            Err(_) => {
                judge.complaints.push(format!(
                    "no verdict within {} s{}",
                    boot.limit.as_secs(),
                    judge.during()
                ));
                break;
            }
        }
    }
    stop(&mut child)?;
    let said = std::fs::read_to_string(&errors).unwrap_or_default();
    let mut outcome = judge.decide(boot.log);
    if !outcome.complaints.is_empty() && !said.trim().is_empty() {
        outcome.complaints.push(format!("QEMU says: {}", run::tail(&said)));
    }
    Ok(outcome)
}

/// Collects what a run says and decides what it means.
#[derive(Default)]
struct Judge {
    running: Option<String>,
    /// Of each test that ended, whether it passed.
    finished: Vec<bool>,
    verdicts: Vec<(u32, u32)>,
    cries: Vec<(Heard, Option<String>)>,
    complaints: Vec<String>,
}

impl Judge {
    /// A line of the console; true if the machine is lost.
    fn listen(&mut self, line: &str) -> bool {
        match console::hear(line) {
            Some(heard) => {
                let fatal = heard.fatal;
                self.cries.push((heard, self.running.clone()));
                fatal
            }
            None => false,
        }
    }

    fn take(&mut self, message: Result<Message, String>) {
        match message {
            Ok(Message::Started { name }) => self.running = Some(name),
            Ok(Message::Finished { error, .. }) => {
                self.running = None;
                self.finished.push(error.is_none());
            }
            Ok(Message::Say { .. }) => {}
            Ok(Message::Done { passed, failed }) => self.verdicts.push((passed, failed)),
            Err(error) => self.complaints.push(format!("unreadable message: {error}")),
        }
    }

    /// Whether the kernel died of its emulation, before a process of its own said anything.
    fn is_misled(&self) -> bool {
        let (silent, cries) = (self.running.is_none() && self.finished.is_empty(), &self.cries);
        silent && cries.first().is_some_and(|(heard, _)| is_of_emulation(heard))
    }

    /// The test that ran when something happened.
    fn during(&self) -> String {
        match &self.running {
            Some(name) => format!(", during {name}"),
            None => String::new(),
        }
    }

    fn decide(self, log: &Path) -> Outcome {
        let (during, misled) = (self.during(), self.is_misled());
        let mut complaints = self.complaints;
        for (heard, test) in &self.cries {
            let test = test.as_deref().unwrap_or("no test");
            complaints.push(format!("{} during {test}: {}", heard.meaning, heard.line));
        }
        let passed = self.finished.iter().filter(|passed| **passed).count();
        let counted = (passed, self.finished.len() - passed);
        match self.verdicts[..] {
            [(passed, failed)] if (passed as usize, failed as usize) == counted => {}
            [verdict] => {
                complaints.push(format!("the verdict {verdict:?} does not match the results {counted:?}"))
            }
            [] if complaints.is_empty() => {
                complaints.push(format!("the machine ended without a verdict{during}"));
            }
            [] => {}
            _ => complaints.push(format!("{} verdicts", self.verdicts.len())),
        }
        if !complaints.is_empty() {
            complaints.push(format!("whole console: {}", log.display()));
        }
        Outcome { complaints, misled }
    }
}

/// The machine without its disks and ports.
pub(crate) fn machine(
    accelerator: Accelerator,
    kernel: &Path,
    initramfs: Option<&Path>,
    arguments: &str,
    mebibytes: u32,
) -> Command {
    let (program, board) = accelerator.program();
    let mut command = run::command(program);
    command
        .args(accelerator.arguments())
        .args(["-smp", "2", "-m", &mebibytes.to_string()])
        .args(["-machine", board])
        .args(["-no-reboot", "-nodefaults", "-display", "none", "-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-append")
        // A panic ends the run at once: `panic=-1` reboots, and QEMU does not.
        .arg(format!("console={} panic=-1 {arguments}", accelerator.console()));
    if let Some(initramfs) = initramfs {
        command.arg("-initrd").arg(initramfs);
    }
    command
}

fn stop(child: &mut Child) -> Result<()> {
    // The guest powers off by itself; a machine that is left after a moment has failed already.
    for _ in 0..20 {
        if child.try_wait().context("failed to wait for QEMU")?.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().context("failed to end QEMU")?;
    child.wait().context("failed to wait for QEMU")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(name: &str) -> Result<Message, String> {
        Ok(Message::Finished { name: name.to_owned(), error: None, note: String::new(), seconds: 0.0 })
    }

    fn decide(judge: Judge) -> Vec<String> {
        judge.decide(Path::new("log")).complaints
    }

    #[test]
    fn a_run_needs_exactly_one_verdict_that_matches() {
        let done = |passed| Ok(Message::Done { passed, failed: 0 });
        let mut judge = Judge::default();
        judge.take(finished("a"));
        judge.take(done(1));
        assert!(decide(judge).is_empty());

        let mut judge = Judge::default();
        judge.take(finished("a"));
        assert!(decide(judge)[0].contains("without a verdict"));

        let mut judge = Judge::default();
        judge.take(finished("a"));
        judge.take(done(2));
        assert!(decide(judge)[0].contains("does not match"));

        let mut judge = Judge::default();
        judge.take(done(0));
        judge.take(done(0));
        assert!(decide(judge)[0].contains("2 verdicts"));
    }

    #[test]
    fn only_a_breakpoint_before_the_first_test_is_the_emulator_s() {
        let oops = "[    1.621243] Oops: int3: 0000 [#1] SMP NOPTI";
        let mut judge = Judge::default();
        assert!(judge.listen(oops));
        assert!(judge.decide(Path::new("log")).misled);

        let mut judge = Judge::default();
        assert!(judge.listen("[    1.621243] Oops: 0000 [#1] SMP NOPTI"));
        assert!(!judge.decide(Path::new("log")).misled);

        let mut judge = Judge::default();
        judge.take(Ok(Message::Started { name: "g/t".into() }));
        assert!(judge.listen(oops));
        assert!(!judge.decide(Path::new("log")).misled);
    }

    #[test]
    fn a_death_cry_outweighs_the_verdict() {
        let mut judge = Judge::default();
        judge.take(Ok(Message::Started { name: "g/t".into() }));
        assert!(!judge.listen("WARNING: CPU: 0 PID: 1 at fs/x.c:1"));
        judge.take(finished("g/t"));
        judge.take(Ok(Message::Done { passed: 1, failed: 0 }));
        assert!(decide(judge)[0].contains("during g/t"));
    }
}
