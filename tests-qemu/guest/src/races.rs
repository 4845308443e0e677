// SPDX-License-Identifier: GPL-2.0
//! Everything at once: signals, processors and memory that come and go, and everything that a reader can ask
//! for, while images are mounted and unmounted and the module is loaded and unloaded.
//!
//! Two tests take as long as they are told (`guest.seconds=`): a soak is those for an hour.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::RwLock;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use rustix::fs::{fallocate, FallocateFlags};
use rustix::io::Errno;
use rustix::mm::Advice;
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::boot;
use crate::cgroups::Groups;
use crate::compare::mounted;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys::{self, Mapping};

/// Readers of a storm.
const READERS: u64 = 8;

/// Times that something is killed.
const KILLS: u64 = 60;

/// How long after its last unmount the module may be in use: the kernel may let go of files and mounts a little later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Files that are read whole to compare their parts with.
const WHOLE_MAX: u64 = 4 << 20;

/// Memory of a group that reads ten times as much.
const LITTLE: u64 = 64 << 20;

/// The same where KASAN keeps what was freed, charged to the group as it was, until it has a 32nd of the machine's 4 GiB.
const LITTLE_WITH_KASAN: u64 = LITTLE + (160 << 20);

pub(crate) fn tests(suite: &mut Suite, plan: &Plan, period: Duration, debug_kernel: bool) {
    let little = if debug_kernel { LITTLE_WITH_KASAN } else { LITTLE };
    suite.test("killed-while-mounting-and-reading", || killed(plan));
    suite.test("signals-that-are-handled", || interrupted(plan));
    suite.test("processors-come-and-go", || processors(plan));
    suite.test("reading-in-little-memory", || little_memory(plan, little));
    suite.test("killed-for-want-of-memory", || no_memory(plan));
    suite.test("storm-of-mounts", || storm_of_mounts(plan, period));
    suite.test("storm-of-readers", || storm_of_readers(plan, period));
}

/// Another start of this program.
fn helper(verb: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(verb);
    command
}

fn succeeded(what: &str, status: ExitStatus) -> Result<()> {
    ensure!(status.success(), "{what} ended with {status}");
    Ok(())
}

/// Fails unless the image is as it must be, no matter what happened before.
fn still_right(image: &Path, manifest: &Path) -> Result<()> {
    drop_caches()?;
    let mount = mounted(image)?;
    Manifest::load(manifest)?.expect_equal(&tree::scan(mount.path(), 2)?)?;
    mount.unmount()
}

fn small_is_still_right(plan: &Plan) -> Result<()> {
    still_right(&on_disk(&plan.small.image), &on_disk(&plan.small.manifest))
}

/// Processes that mount an image, read it and unmount it are killed at any moment.
fn killed(plan: &Plan) -> Result<String> {
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..KILLS {
        let mut child = helper("mount-and-read")
            .arg(on_disk(&plan.small.image))
            .arg("")
            .spawn()
            .context("failed to start a process")?;
        std::thread::sleep(Duration::from_micros(random.u64(0..300_000)));
        child.kill().context("failed to kill a process")?;
        let status = child.wait().context("failed to wait for a process")?;
        ensure!(status.signal() == Some(libc::SIGKILL), "process {round} ended with {status}");
    }
    small_is_still_right(plan)?;
    Ok(format!("{KILLS} processes killed"))
}

/// Mounts an image in a mount namespace of its own, reads all of it, unmounts it, without end.
pub(crate) fn mount_and_read(image: &Path, options: &str) -> Result<()> {
    sys::enter_mount_namespace().context("failed to enter a mount namespace")?;
    let target = Path::new("/mnt/image");
    loop {
        let mount = Mount::image(image, target, options).context("failed to mount")?;
        tree::scan(mount.path(), 2)?;
        drop_caches()?;
        mount.unmount()?;
    }
}

/// Readers that handle a signal every millisecond never see a read, a listing or a mount interrupted.
fn interrupted(plan: &Plan) -> Result<String> {
    let status = helper("read-under-alarms")
        .args([on_disk(&plan.small.image), on_disk(&plan.small.manifest)])
        .status()
        .context("failed to start a reader")?;
    succeeded("the reader", status)?;
    Ok(String::new())
}

pub(crate) fn read_under_alarms(image: &Path, manifest: &Path) -> Result<()> {
    const ROUNDS: u32 = 10;
    let before = sys::alarms();
    sys::start_alarms(Duration::from_millis(1)).context("failed to start a timer")?;
    for _ in 0..ROUNDS {
        still_right(image, manifest)?;
    }
    let alarms = sys::alarms() - before;
    ensure!(alarms > ROUNDS, "{alarms} signals only");
    Ok(())
}

/// The second processor goes and comes back while readers are decoding on both.
fn processors(plan: &Plan) -> Result<String> {
    const SWITCHES: u32 = 30;
    let switch = Path::new("/sys/devices/system/cpu/cpu1/online");
    let mount = mounted(&on_disk(&plan.root.image))?;
    let mut readers = readers(plan, mount.path(), Duration::from_secs(3600), 4)?;
    let mut done = 0;
    for number in 0..SWITCHES {
        let state = if number % 2 == 0 { "0" } else { "1" };
        std::fs::write(switch, state)
            .with_context(|| format!("failed to write {state} to {}", switch.display()))?;
        done += 1;
        std::thread::sleep(Duration::from_millis(200));
    }
    stop(&mut readers)?;
    mount.unmount()?;
    Ok(format!("{done} times"))
}

/// A group of processes with little memory reads everything: its pages are reclaimed as it goes.
fn little_memory(plan: &Plan, little: u64) -> Result<String> {
    let groups = Groups::mount("memory")?;
    let group = groups.make("little", "memory.max", &little.to_string())?;
    let mount = mounted(&on_disk(&plan.root.image))?;
    drop_caches()?;
    let status = helper("within")
        .arg(&group)
        .args(["read".into(), on_disk(&plan.root.manifest), mount.path().to_owned(), "0".into()])
        .status()
        .context("failed to start a reader")?;
    succeeded("the reader", status)?;
    mount.unmount()?;
    std::fs::remove_dir(&group).context("failed to remove a group")?;
    groups.unmount()?;
    Ok(String::new())
}

/// Processes that take more memory than their group has, while they read and while they fault mapped files in,
/// are killed wherever they are.
fn no_memory(plan: &Plan) -> Result<String> {
    const ROUNDS: u64 = 12;
    let groups = Groups::mount("memory")?;
    let mount = mounted(&on_disk(&plan.small.image))?;
    for round in 0..ROUNDS {
        let group = groups.make(&format!("none-{round}"), "memory.max", &((8 + round) << 20).to_string())?;
        drop_caches()?;
        let status = helper("within")
            .arg(&group)
            .args(["read-and-grow".into(), on_disk(&plan.small.manifest), mount.path().to_owned()])
            .status()
            .context("failed to start a process")?;
        ensure!(status.signal() == Some(libc::SIGKILL), "process {round} ended with {status}");
        std::fs::remove_dir(&group).context("failed to remove a group")?;
    }
    mount.unmount()?;
    groups.unmount()?;
    small_is_still_right(plan)?;
    Ok(format!("{ROUNDS} processes killed"))
}

/// Takes memory without end, and reads the files of a mount by all means meanwhile.
pub(crate) fn read_and_grow(manifest: &Path, root: &Path) -> Result<()> {
    let manifest = Manifest::load(manifest)?;
    let files = files(&manifest);
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let files = &files;
            scope.spawn(move || Reader::new(seed, root).read_for(files, Duration::from_secs(3600)));
        }
        let mut taken = Vec::new();
        loop {
            taken.push(vec![1_u8; 64 << 10]);
            std::thread::sleep(Duration::from_millis(2));
        }
    })
}

/// Three images of the same files are mounted and unmounted, the module is loaded and unloaded, and the caches
/// are dropped, each as fast as it goes.
fn storm_of_mounts(plan: &Plan, period: Duration) -> Result<String> {
    let end = Instant::now() + period;
    let images = [&plan.small, &plan.signed.good[0], &plan.signed.good[1]];
    let (mounts, loads) = (AtomicU32::new(0), AtomicU32::new(0));
    // A thread that holds it for writing finds no image mounted.
    let nothing_mounted = RwLock::new(());
    std::thread::scope(|scope| -> Result<()> {
        let mut workers = Vec::new();
        for (number, image) in images.into_iter().enumerate() {
            let (mounts, nothing_mounted) = (&mounts, &nothing_mounted);
            workers.push(scope.spawn(move || -> Result<()> {
                let expected = Manifest::load(&on_disk(&image.manifest))?;
                let target = PathBuf::from(format!("/mnt/storm-{number}"));
                while Instant::now() < end {
                    let _mounted = nothing_mounted.read().map_err(|_| anyhow!("a thread panicked"))?;
                    match Mount::image(&on_disk(&image.image), &target, "") {
                        Ok(mount) => {
                            expected.expect_equal(&tree::scan(mount.path(), 1)?)?;
                            mount.unmount()?;
                            mounts.fetch_add(1, Ordering::Relaxed);
                        }
                        // The module is on its way out, or gone.
                        Err(Errno::NODEV | Errno::BUSY) => std::thread::yield_now(),
                        Err(errno) => bail!("failed to mount {}: {errno}", image.image),
                    }
                }
                Ok(())
            }));
        }
        workers.push(scope.spawn(|| -> Result<()> {
            for attempt in 1.. {
                if Instant::now() >= end {
                    break;
                }
                // Most of the time it is in use; sometimes nobody can use it, and it must go, if not at once.
                let alone = match attempt % 16 {
                    0 => Some(nothing_mounted.write().map_err(|_| anyhow!("a thread panicked"))?),
                    _ => None,
                };
                let patience = Instant::now() + if alone.is_some() { PATIENCE } else { Duration::ZERO };
                loop {
                    match rustix::system::delete_module(c"tesserafs", libc::O_NONBLOCK) {
                        Ok(()) => {
                            boot::load()?;
                            loads.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        Err(Errno::WOULDBLOCK | Errno::BUSY) if Instant::now() < patience => {
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        Err(Errno::WOULDBLOCK | Errno::BUSY) if alone.is_none() => break,
                        Err(errno) => bail!("failed to unload the module: {errno}"),
                    }
                }
                drop(alone);
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }));
        while Instant::now() < end {
            drop_caches()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        for worker in workers {
            worker.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    small_is_still_right(plan)?;
    let (mounts, loads) = (mounts.into_inner(), loads.into_inner());
    ensure!(mounts > 0 && loads > 0, "{mounts} mounts, {loads} loads of the module");
    Ok(format!("{mounts} mounts, {loads} loads of the module"))
}

/// Readers ask for everything that can be asked for, and there is hardly any memory.
fn storm_of_readers(plan: &Plan, period: Duration) -> Result<String> {
    let end = Instant::now() + period;
    let mount = mounted(&on_disk(&plan.root.image))?;
    let mut processes = readers(plan, mount.path(), period, READERS)?;
    let mut greedy = helper("take-memory")
        .arg(period.as_secs().to_string())
        .spawn()
        .context("failed to start a process")?;
    while Instant::now() < end {
        drop_caches()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    for process in &mut processes {
        succeeded("a reader", process.wait().context("failed to wait for a reader")?)?;
    }
    let status = greedy.wait().context("failed to wait for a process")?;
    ensure!(
        status.success() || status.signal() == Some(libc::SIGKILL),
        "the process that takes memory ended with {status}"
    );
    mount.unmount()?;
    Ok(format!("{READERS} readers"))
}

fn readers(plan: &Plan, root: &Path, period: Duration, count: u64) -> Result<Vec<Child>> {
    (0..count)
        .map(|seed| {
            helper("read-by-all-means")
                .args([on_disk(&plan.root.manifest), root.to_owned()])
                .args([period.as_secs().to_string(), seed.to_string()])
                .spawn()
                .context("failed to start a reader")
        })
        .collect()
}

/// Ends readers that have found nothing wrong.
fn stop(readers: &mut [Child]) -> Result<()> {
    for reader in readers.iter_mut() {
        let ended = reader.try_wait().context("failed to look at a reader")?;
        ensure!(ended.is_none(), "a reader ended with {ended:?}");
        reader.kill().context("failed to end a reader")?;
    }
    for reader in readers {
        reader.wait().context("failed to wait for a reader")?;
    }
    Ok(())
}

pub(crate) fn read_by_all_means(arguments: &[OsString]) -> Result<()> {
    let [manifest, root, seconds, seed] = arguments else {
        bail!("a manifest, a root, seconds and a seed are needed");
    };
    let manifest = Manifest::load(Path::new(manifest))?;
    let period = Duration::from_secs(number(seconds)?);
    Reader::new(number(seed)?, Path::new(root)).read_for(&files(&manifest), period)
}

/// A number of the command line.
fn number(argument: &OsString) -> Result<u64> {
    argument.to_str().and_then(|text| text.parse().ok()).with_context(|| format!("{argument:?} is no number"))
}

/// The files whose parts are compared.
fn files(manifest: &Manifest) -> Vec<&Entry> {
    let is_right = |entry: &&Entry| tree::is_file(entry.mode) && (1..=WHOLE_MAX).contains(&entry.size);
    manifest.entries.iter().filter(is_right).collect()
}

/// A reader that uses every means there is to read a file.
struct Reader<'a> {
    random: fastrand::Rng,
    root: &'a Path,
}

impl<'a> Reader<'a> {
    fn new(seed: u64, root: &'a Path) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), root }
    }

    fn read_for(&mut self, files: &[&Entry], period: Duration) -> Result<()> {
        let end = Instant::now() + period;
        let mut buffer = vec![0; 1 << 16];
        while Instant::now() < end {
            let entry = self.random.choice(files).context("there are no files")?;
            let path = entry.below(self.root);
            self.read(entry, &path, &mut buffer).with_context(|| format!("in {}", path.display()))?;
        }
        Ok(())
    }

    /// Reads one file whole, and then by one of the means.
    fn read(&mut self, entry: &Entry, path: &Path, buffer: &mut [u8]) -> Result<()> {
        ensure!(tree::checksum(path, entry.size, buffer)? == entry.content, "wrong bytes");
        let file = File::open(path).context("failed to open")?;
        let whole = std::fs::read(path).context("failed to read")?;
        match self.random.u32(0..6) {
            0 => self.mapped(&file, &whole),
            1 => self.advised(&file, &whole),
            2 => splice(&file, &whole),
            3 => self.ahead(&file, &whole),
            4 => refused(path, &file),
            _ => std::fs::metadata(path).map(|_| ()).context("failed to stat"),
        }
    }

    /// A place in a file, and a length from there.
    fn place(&mut self, whole: &[u8]) -> (usize, usize) {
        let start = self.random.usize(0..whole.len());
        (start, self.random.usize(1..=(whole.len() - start).min(1 << 17)))
    }

    /// Page faults, with every advice that a program may give about its memory.
    fn mapped(&mut self, file: &File, whole: &[u8]) -> Result<()> {
        const ADVICE: [Advice; 9] = [
            Advice::Normal,
            Advice::Random,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::LinuxDontNeed,
            Advice::LinuxCold,
            Advice::LinuxPageOut,
            Advice::LinuxPopulateRead,
            Advice::LinuxHugepage,
        ];
        let mapping = Mapping::new(file, whole.len()).context("failed to map")?;
        for _ in 0..4 {
            let advice = *self.random.choice(&ADVICE).context("there is no advice")?;
            mapping.advise(advice).with_context(|| format!("{advice:?}"))?;
            let (start, len) = self.place(whole);
            let range = start..start + len;
            ensure!(mapping.bytes()[range.clone()] == whole[range], "wrong bytes after {advice:?}");
        }
        Ok(())
    }

    /// Reads at any place, with every advice that a program may give about its reads.
    fn advised(&mut self, file: &File, whole: &[u8]) -> Result<()> {
        use rustix::fs::Advice::{DontNeed, NoReuse, Normal, Random, Sequential, WillNeed};
        for advice in [WillNeed, Random, DontNeed, Sequential, NoReuse, Normal] {
            let (start, len) = self.place(whole);
            rustix::fs::fadvise(file, start as u64, None, advice).with_context(|| format!("{advice:?}"))?;
            expect(file, whole, start, len).with_context(|| format!("after {advice:?}"))?;
        }
        Ok(())
    }

    /// Asks for bytes, which others may drop before they are read.
    fn ahead(&mut self, file: &File, whole: &[u8]) -> Result<()> {
        let (start, len) = self.place(whole);
        sys::readahead(file, start as u64, len).context("readahead")?;
        expect(file, whole, start, len)
    }
}

fn expect(file: &File, whole: &[u8], start: usize, len: usize) -> Result<()> {
    let mut found = vec![0; len];
    file.read_exact_at(&mut found, start as u64).context("failed to read")?;
    ensure!(found == whole[start..start + len], "wrong bytes at {start}");
    Ok(())
}

/// By a pipe, without a copy.
fn splice(file: &File, whole: &[u8]) -> Result<()> {
    use std::io::Read;
    let (reader, writer) = rustix::pipe::pipe().context("failed to make a pipe")?;
    let mut reader = File::from(reader);
    let (mut offset, mut part) = (0, vec![0; 1 << 16]);
    while (offset as usize) < whole.len() {
        let start = offset as usize;
        let n = rustix::pipe::splice(
            file,
            Some(&mut offset),
            &writer,
            None,
            part.len(),
            rustix::pipe::SpliceFlags::empty(),
        )
        .context("failed to splice")?;
        let part = part.get_mut(..n).filter(|part| !part.is_empty()).context("a splice of nothing")?;
        reader.read_exact(part).context("failed to read a pipe")?;
        ensure!(part == &whole[start..start + n], "wrong bytes at {start}");
    }
    Ok(())
}

/// Operations on a file that nobody may do.
fn refused(path: &Path, file: &File) -> Result<()> {
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    ensure!(File::options().write(true).open(path).is_err(), "opened for writing");
    ensure!(file.set_len(0).is_err(), "cut");
    ensure!(fallocate(file, punch, 0, 4096).is_err(), "punched");
    ensure!(std::fs::remove_file(path).is_err(), "removed");
    ensure!(std::fs::rename(path, path.with_extension("new")).is_err(), "renamed");
    Ok(())
}

/// Takes nearly all memory that is free, gives it back, and again, so that all memory that can be reclaimed
/// is reclaimed.
pub(crate) fn take_memory(seconds: &OsString) -> Result<()> {
    const LEFT: u64 = 96 << 20;
    const PART: usize = 8 << 20;
    // If a process has to be killed, it is to be this one.
    std::fs::write("/proc/self/oom_score_adj", "1000").context("failed to volunteer")?;
    let end = Instant::now() + Duration::from_secs(number(seconds)?);
    while Instant::now() < end {
        let mut taken = Vec::new();
        while free()? > LEFT {
            taken.push(vec![1_u8; PART]);
        }
        std::thread::sleep(Duration::from_millis(500));
        drop(taken);
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// Bytes of memory that nobody uses.
fn free() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("failed to read the state of memory")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemFree:")).context("no free memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().context("free memory is no number")?;
    Ok(kib << 10)
}
