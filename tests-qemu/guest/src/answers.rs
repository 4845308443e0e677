// SPDX-License-Identifier: GPL-2.0
//! Everything that the VFS lets a program ask of a file, a folder or a name, asked of one tree in three file systems.
//!
//! ext4, mounted read-only, is the measure: a program that works there should work here. Each answer of tesserafs is
//! ext4's, or stands in [`different::DIFFERENT`] with the reason; an entry of that list which is not true any more
//! fails the test, too. `kernel-module/UPSTREAM.md` has the same list for people.

mod different;
mod files;
mod folders;
mod memory;
mod names;
mod raw;
mod uring;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;

use self::different::DIFFERENT;
use self::raw::Answer;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys;

/// A mounted tree.
struct At(PathBuf);

impl At {
    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Opened for reading, anew for each question.
    fn open(&self, name: &str) -> Result<File, Errno> {
        raw::open(&self.path(name), libc::O_RDONLY)
    }
}

/// A question, and how it is asked.
type Question = (&'static str, fn(&At) -> Answer);

/// Where tesserafs has another answer than ext4.
struct Different {
    question: &'static str,
    /// The answer, as [`shown`] writes it.
    answer: &'static str,
    /// Whether EROFS answers as tesserafs does.
    like_erofs: bool,
    why: &'static str,
}

pub(crate) fn tests(suite: &mut Suite, plan: &Plan, debug_kernel: bool) {
    let groups: [(&str, &[Question]); 4] = [
        ("answers-about-files", files::QUESTIONS),
        ("answers-about-folders", folders::QUESTIONS),
        ("answers-about-memory", memory::QUESTIONS),
        ("answers-about-names", names::QUESTIONS),
    ];
    for (name, questions) in groups {
        suite.test(name, || compare(plan, questions));
    }
    suite.test("no-answer-is-expected-in-vain", || {
        for different in DIFFERENT {
            let asked = all().filter(|(question, _)| *question == different.question).count();
            ensure!(asked == 1, "`{}` is asked {asked} times", different.question);
            ensure!(different.why.len() > 10, "`{}` has no reason", different.question);
        }
        Ok(format!("{} questions, {} other answers", all().count(), DIFFERENT.len()))
    });
    suite.test("huge-pages-of-a-file", || huge(plan));
    suite.test("reads-that-must-not-wait", || nowait(plan));
    suite.test("io-uring-without-a-worker", || uring::test(&tesserafs(plan)?));
    suite.test("direct-reads-through-an-overlay", || direct_overlay(plan));
    // The debug kernel pads and keeps what is freed, each object by another number of bytes.
    if !debug_kernel {
        suite.test("slab-of-a-name", || slab(plan));
    }
}

/// The image, mounted.
fn tesserafs(plan: &Plan) -> Result<Mount> {
    let image = on_disk(&plan.answers.image.image);
    Mount::image(&image, Path::new("/mnt/answers"), "").context("failed to mount the image")
}

/// The tree in another file system, mounted from a loop device.
fn other(image: &str, kind: &str) -> Result<Mount> {
    let file = File::open(on_disk(image)).with_context(|| format!("failed to open {image}"))?;
    let (device, _first_user) = sys::loop_device(&file).context("failed to make a loop device")?;
    let target = Path::new("/mnt").join(kind);
    Mount::new(&device, &target, kind, MountFlags::RDONLY, "")
        .with_context(|| format!("failed to mount {}", device.display()))
}

fn shown(answer: Answer) -> String {
    match answer {
        Ok(value) => value.to_string(),
        Err(Errno::INVAL) => "EINVAL".to_owned(),
        Err(Errno::NOTTY) => "ENOTTY".to_owned(),
        Err(Errno::OPNOTSUPP) => "EOPNOTSUPP".to_owned(),
        Err(Errno::ROFS) => "EROFS".to_owned(),
        Err(errno) => format!("error {}", errno.raw_os_error()),
    }
}

/// All questions.
fn all() -> impl Iterator<Item = &'static Question> {
    [files::QUESTIONS, folders::QUESTIONS, memory::QUESTIONS, names::QUESTIONS].into_iter().flatten()
}

/// The answers to all questions about the tree of the image, which is mounted there, in words.
pub(crate) fn about(mount: &Path) -> Vec<(&'static str, String)> {
    all().map(|(question, ask)| (*question, shown(ask(&At(mount.to_path_buf()))))).collect()
}

/// Asks all three, and fails where tesserafs answers neither as ext4 nor as is expected.
fn compare(plan: &Plan, questions: &[Question]) -> Result<String> {
    let ext4 = other(&plan.answers.ext4, "ext4")?;
    let erofs = other(&plan.answers.erofs, "erofs")?;
    let here = tesserafs(plan)?;
    let mut wrong = Vec::new();
    let mut like_ext4 = 0;
    for (question, ask) in questions {
        let [ext4, erofs, here] =
            [&ext4, &erofs, &here].map(|mount| shown(ask(&At(mount.path().to_path_buf()))));
        let different = DIFFERENT.iter().find(|different| different.question == *question);
        let is_right = match different {
            None => here == ext4,
            Some(different) => {
                here == different.answer && here != ext4 && (erofs == here) == different.like_erofs
            }
        };
        like_ext4 += usize::from(here == ext4);
        if !is_right {
            wrong.push(format!("{question}: {here}, ext4 {ext4}, EROFS {erofs}"));
        }
    }
    for mount in [ext4, erofs, here] {
        mount.unmount()?;
    }
    ensure!(wrong.is_empty(), "{} answers are not right:\n{}", wrong.len(), wrong.join("\n"));
    Ok(format!("{like_ext4} of {} as ext4", questions.len()))
}

/// `MADV_COLLAPSE` makes huge pages of a file where `mmap` puts it, as it does for ext4 and EROFS.
fn huge(plan: &Plan) -> Result<String> {
    let mut notes = Vec::new();
    for (kind, mount) in [
        ("ext4", other(&plan.answers.ext4, "ext4")?),
        ("EROFS", other(&plan.answers.erofs, "erofs")?),
        ("private pages", {
            let image = on_disk(&plan.answers.image.image);
            Mount::image(&image, Path::new("/mnt/answers"), "private_pages").context("failed to mount")?
        }),
        ("shared pages", tesserafs(plan)?),
    ] {
        drop_caches()?;
        let kibibytes = memory::collapse(&At(mount.path().to_path_buf()))
            .map_err(|errno| anyhow::anyhow!("MADV_COLLAPSE on {kind} gives {errno}"))?;
        ensure!(kibibytes >= 4096, "{kibibytes} KiB in huge pages on {kind}");
        notes.push(format!("{kind} {kibibytes} KiB"));
        mount.unmount()?;
    }
    Ok(notes.join(", "))
}

/// A read that must not wait gets `EAGAIN` for bytes that are not in memory, and brings none there.
fn nowait(plan: &Plan) -> Result<String> {
    let mount = tesserafs(plan)?;
    drop_caches()?;
    let file = File::open(mount.path().join("large")).context("failed to open")?;
    let read = |offset| raw::read_without_waiting(&file, offset);
    let resident = || -> Result<usize> {
        let mapping = sys::Mapping::new(&file, tesserafs_guest::plan::ANSWERS_LARGE)?;
        Ok(mapping.resident()?)
    };
    ensure!(read(0) == Err(Errno::AGAIN), "cold: {:?}", read(0));
    ensure!(resident()? == 0, "{} pages were read for a reader that must not wait", resident()?);
    let whole = std::fs::read(mount.path().join("large")).context("failed to read")?;
    let mut there = 0;
    for offset in (0..whole.len() as i64).step_by(4096) {
        match read(offset) {
            Ok(n) => there += n,
            Err(errno) => anyhow::bail!("at {offset}, which is in memory: {errno}"),
        }
    }
    ensure!(read(whole.len() as i64) == Ok(0), "no end of the file");
    drop(file);
    mount.unmount()?;
    Ok(format!("{there} bytes"))
}

/// A file that was opened through an overlay and made direct by `fcntl` can be read and closed.
fn direct_overlay(plan: &Plan) -> Result<String> {
    let image = tesserafs(plan)?;
    let work = Mount::new(Path::new("tmpfs"), Path::new("/mnt/layers"), "tmpfs", MountFlags::empty(), "")
        .context("failed to mount a tmpfs")?;
    let overlay = Mount::overlay(image.path(), work.path(), Path::new("/mnt/overlay"), "")?;
    for name in ["small", "large"] {
        let expected = std::fs::read(image.path().join(name)).context("failed to read")?;
        for path in [image.path().join(name), overlay.path().join(name)] {
            let file = raw::open(&path, libc::O_RDONLY).context("failed to open")?;
            raw::fcntl(&file, libc::F_SETFL, libc::O_DIRECT).context("failed to set O_DIRECT")?;
            // Neither address, offset nor length is a multiple of anything.
            let mut bytes = vec![0; 8];
            let n = std::os::unix::fs::FileExt::read_at(&file, &mut bytes[1..], 3)
                .with_context(|| format!("failed to read {} directly", path.display()))?;
            ensure!(n == 7 && bytes[1..] == expected[3..10], "{n} bytes: {bytes:?}");
            raw::close(file).with_context(|| format!("failed to close {}", path.display()))?;
            let file = raw::open(&path, libc::O_RDONLY | libc::O_DIRECT).context("O_DIRECT is refused")?;
            let mut all = Vec::new();
            std::io::Read::read_to_end(&mut &file, &mut all).context("failed to read to the end")?;
            ensure!(all == expected, "{} differs", path.display());
            raw::close(file).context("failed to close")?;
        }
    }
    overlay.unmount()?;
    work.unmount()?;
    image.unmount()?;
    Ok(String::new())
}

/// The kernel's small objects, in bytes, when the last mount's are gone.
fn slab_in_use() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("failed to read /proc/meminfo")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("Slab:")).context("no Slab in /proc/meminfo")?;
    let word = line.split_whitespace().next().context("Slab has no number")?;
    Ok(f64::from(word.parse::<u32>().context("Slab is no number")?) * 1024.0)
}

/// How much slab a name takes, once it was looked at and once its file was read: not much more than in EROFS. Where
/// files share their pages, each that is read has a second inode; nothing else has.
///
/// Chunks that are kept do not count.
fn slab(plan: &Plan) -> Result<String> {
    const MOST: f64 = 1.3;
    const INODE: f64 = 800.0;
    let settle = || -> Result<()> {
        drop_caches()?;
        // Inodes and names are freed by and by.
        std::thread::sleep(std::time::Duration::from_millis(500));
        drop_caches()
    };
    let image = on_disk(&plan.answers.image.image);
    let private =
        || Mount::image(&image, Path::new("/mnt/answers"), "private_pages").context("failed to mount");
    let mut measured = Vec::new();
    let mut notes = Vec::new();
    for kind in ["EROFS", "private pages", "shared pages"] {
        let mount = match kind {
            "EROFS" => other(&plan.answers.erofs, "erofs")?,
            "private pages" => private()?,
            _ => tesserafs(plan)?,
        };
        let names: Vec<PathBuf> = std::fs::read_dir(mount.path().join("folder"))
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .context("failed to list")?;
        let large = File::open(mount.path().join("large")).context("failed to open")?;
        settle()?;
        let before = slab_in_use()?;
        for name in &names {
            std::fs::metadata(name).context("failed to stat")?;
        }
        let looked_at = slab_in_use()?;
        for name in &names {
            std::fs::read(name).context("failed to read")?;
        }
        let read = slab_in_use()?;
        // Backwards, a page at a time: all chunks are decoded for a page each, and kept.
        rustix::fs::fadvise(&large, 0, None, rustix::fs::Advice::Random).context("failed to advise")?;
        for offset in (0..tesserafs_guest::plan::ANSWERS_LARGE).step_by(32 << 10).rev() {
            std::os::unix::fs::FileExt::read_exact_at(&large, &mut [0; 1], offset as u64)
                .context("failed to read")?;
        }
        let kept = slab_in_use()? - read;
        drop(large);
        let [looked_at, read] = [looked_at, read].map(|now| (now - before) / names.len() as f64);
        notes.push(format!("{kind}: {looked_at:.0} bytes a name, {read:.0} when read, {kept:.0} for chunks"));
        measured.push((looked_at, read, kept));
        mount.unmount()?;
    }
    let notes = notes.join("; ");
    let [erofs, private, shared] = measured[..] else { anyhow::bail!("three were not measured") };
    ensure!(private.0 <= erofs.0 * MOST && shared.0 <= erofs.0 * MOST, "{notes}");
    ensure!(private.1 <= erofs.1 * MOST && shared.1 <= erofs.1 * MOST + INODE, "{notes}");
    ensure!(private.2.max(shared.2) <= 1e6, "{notes}");
    Ok(notes)
}
