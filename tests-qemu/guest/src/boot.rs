// SPDX-License-Identifier: GPL-2.0
//! From the kernel's first process to the verdict.

use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::system::{reboot, RebootCommand};
use tesserafs_guest::message::PORT;
use tesserafs_guest::plan::Plan;

use crate::mounts::{mount, Mount, DISK};
use crate::suite::Suite;
use crate::{
    answers, api, backing, bench, by_fuse, compare, demo, faults, flips, fstests, leaks, mutants, observe,
    packs, paging, privilege, programs, races, readers, security, sharing, signatures, stores, tools, waits,
};

/// Everything; does not return.
pub(crate) fn init() -> ! {
    if let Err(error) = run() {
        // Without a verdict the run fails; this line tells why.
        eprintln!("init: {error:#}");
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        eprintln!("init: failed to power off: {error}");
    }
    // The end of init is a panic, which the host hears.
    std::process::exit(1)
}

fn run() -> Result<()> {
    for (kind, target) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")] {
        mount(Path::new(kind), Path::new(target), kind, MountFlags::empty(), "")
            .with_context(|| format!("failed to mount {kind} on {target}"))?;
    }
    start_processors()?;
    std::env::set_var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    load_drivers().context("failed to load what the kernel has as modules")?;
    let words = CommandLine::read()?;
    if words.says("guest.bench") {
        return bench::run(Path::new("/"));
    }
    let (group, mut suite) = words.suite()?;

    let _disk = Mount::new(Path::new("/dev/vda"), Path::new(DISK), "ext4", MountFlags::RDONLY, "")
        .context("failed to mount the data disk")?;
    let plan: Plan = serde_json::from_slice(
        &std::fs::read(Path::new(DISK).join("plan.json")).context("failed to read the plan")?,
    )
    .context("the plan is damaged")?;

    if group == "locked-down" {
        security::locked_down_at_boot(&mut suite);
        return suite.finish();
    }
    suite.test("module-loads", load);
    match group.as_str() {
        "compare" => compare::tests(&mut suite, &plan),
        "programs" => programs::tests(&mut suite, &plan),
        "readers" => readers::tests(&mut suite, &plan),
        "sharing" => sharing::tests(&mut suite, &plan),
        "api" => {
            api::tests(&mut suite, &plan);
            answers::tests(&mut suite, &plan, words.says("guest.leaks"));
            observe::tests(&mut suite, &plan);
            paging::tests(&mut suite, &plan);
        }
        "security" => security::tests(&mut suite, &plan),
        "fstests" => fstests::tests(&mut suite, &plan),
        "signatures" => signatures::tests(&mut suite, &plan),
        "flips" => flips::tests(&mut suite, &plan, words.every()?),
        "privilege" => privilege::tests(&mut suite, &plan),
        "races" => {
            waits::tests(&mut suite, &plan);
            races::tests(&mut suite, &plan, words.period()?, words.says("guest.leaks"));
        }
        "backing" => backing::tests(&mut suite, &plan, words.every()?),
        "packs" => packs::tests(&mut suite, &plan, words.every()?),
        "stores" => stores::tests(&mut suite, &plan),
        "mutants" => mutants::tests(&mut suite, &plan, words.every()?),
        "tools" => tools::tests(&mut suite, &plan),
        fuse if fuse.starts_with("fuse") => by_fuse::tests(&mut suite, &plan, fuse)?,
        "faults" => faults::tests(&mut suite, &plan),
        "demo" => demo::run(&mut suite, &plan),
        other => bail!("there is no group {other}"),
    }
    // A module that is loaded has names for what it allocated.
    if words.says("guest.leaks") {
        suite.test("no-leak-while-loaded", leaks::none);
    }
    // Anything that a test left behind (a mount, an inode, a key) shows here.
    suite.test("module-unloads", || {
        rustix::system::delete_module(c"tesserafs", 0).context("failed to unload the module")?;
        Ok(String::new())
    });
    // One that is gone refers to nothing any more.
    if words.says("guest.leaks") {
        suite.test("no-leak-after-unloading", leaks::none);
    }
    suite.finish()
}

/// Starts the processors that the kernel was told to leave alone while it boots.
pub(crate) fn start_processors() -> Result<()> {
    let folder = Path::new("/sys/devices/system/cpu");
    for entry in folder.read_dir().context("failed to list the processors")? {
        // The first one is always there, and has no such file.
        let switch = entry.context("failed to list the processors")?.path().join("online");
        if std::fs::read_to_string(&switch).is_ok_and(|now| now.trim() == "0") {
            std::fs::write(&switch, "1").with_context(|| format!("failed to set {}", switch.display()))?;
        }
    }
    Ok(())
}

/// Loads the modules that the host found missing in the kernel, in the order of the names that it gave.
fn load_drivers() -> Result<()> {
    let folder = Path::new("/lib/modules");
    if !folder.exists() {
        return Ok(());
    }
    let entries = folder.read_dir().and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    let mut paths: Vec<PathBuf> =
        entries.context("failed to list the modules")?.iter().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        insert(&path)?;
    }
    Ok(())
}

/// The module under test.
const MODULE: &str = "/lib/tesserafs.ko";

/// Loads a module.
fn insert(path: &Path) -> Result<()> {
    let module = File::open(path).with_context(|| format!("failed to open {}", path.display()))?;
    rustix::system::finit_module(&module, c"", 0)
        .with_context(|| format!("failed to load {}", path.display()))
}

/// Why the module under test is not loaded, or not once more.
pub(crate) fn module_is_refused() -> Result<Errno> {
    let module = File::open(MODULE).with_context(|| format!("failed to open {MODULE}"))?;
    match rustix::system::finit_module(&module, c"", 0) {
        Ok(()) => bail!("the module is loaded"),
        Err(errno) => Ok(errno),
    }
}

/// The words that the kernel was started with.
pub(crate) struct CommandLine(String);

impl CommandLine {
    /// Reads it.
    pub(crate) fn read() -> Result<Self> {
        std::fs::read_to_string("/proc/cmdline").map(Self).context("failed to read the command line")
    }

    /// The value of `name=value`.
    fn value(&self, name: &str) -> Option<&str> {
        self.0.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    /// How long a test takes that could go on for ever.
    fn period(&self) -> Result<Duration> {
        let seconds = self.value("guest.seconds").context("the command line names no guest.seconds")?;
        Ok(Duration::from_secs(seconds.parse().context("guest.seconds is no number")?))
    }

    /// Of the cases that a group has by the hundred, every so many are tried.
    fn every(&self) -> Result<usize> {
        let every = self.value("guest.every").context("the command line names no guest.every")?;
        let every: NonZero<usize> = every.parse().context("guest.every is no number of cases")?;
        Ok(every.get())
    }

    /// Whether it has this word.
    pub(crate) fn says(&self, name: &str) -> bool {
        self.0.split_whitespace().any(|word| word == name)
    }

    /// The group that is to be run, and the line to the host for it.
    pub(crate) fn suite(&self) -> Result<(String, Suite)> {
        let group = self.value("guest.group").context("the command line names no guest.group")?;
        let filter = self.value("guest.filter").map(ToOwned::to_owned);
        Ok((group.to_owned(), Suite::new(port()?, group, filter)))
    }
}

/// Loads the module under test.
pub(crate) fn load() -> Result<String> {
    insert(Path::new(MODULE))?;
    let types = std::fs::read_to_string("/proc/filesystems").context("failed to read /proc/filesystems")?;
    if !types.lines().any(|line| line.trim_start_matches("nodev").trim() == "tesserafs") {
        bail!("the module is loaded and registered no file system");
    }
    Ok(String::new())
}

/// Opens the virtio port of the verdict, found by its name.
fn port() -> Result<File> {
    let class = Path::new("/sys/class/virtio-ports");
    let deadline = Instant::now() + Duration::from_secs(10);
    // The ports appear a moment after the disks: the host names them in messages of their own.
    while Instant::now() < deadline {
        if let Some(device) = find_port(class)? {
            return File::options()
                .write(true)
                .open(&device)
                .with_context(|| format!("failed to open {}", device.display()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("the machine has no virtio port {PORT}")
}

fn find_port(class: &Path) -> Result<Option<PathBuf>> {
    let Ok(ports) = class.read_dir() else {
        return Ok(None);
    };
    for port in ports {
        let port = port.context("failed to list the virtio ports")?;
        let name = std::fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == PORT {
            return Ok(Some(Path::new("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}
