// SPDX-License-Identifier: GPL-2.0
//! Listeners that are asked before files are used: once, when the image is mounted. Reading what is in it asks
//! nobody, and leaves the access time of the image as it is.

use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{anyhow, ensure, Context, Result};
use rustix::io::Errno;
use rustix::mount::MountFlags;
use tesserafs_guest::plan::Plan;

use super::place::{copy, disk, mount_disk, STORE};
use super::TARGET;
use crate::backing::ended_within;
use crate::kmsg::Log;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys::fanotify::{Asked, Listener, Question};
use crate::waits::SOON;

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    for (name, question) in [("read", Question::Access), ("opened", Question::Open)] {
        suite.test(&format!("a-listener-is-asked-once-whether-it-may-be-{name}"), || once(plan, question));
        suite.test(&format!("a-listener-can-forbid-that-it-is-{name}"), || forbidden(plan, question));
        suite.test(&format!("a-listener-that-is-silent-when-it-is-{name}-stops-no-reader"), || {
            silent(plan, question)
        });
    }
    suite.test("a-listener-fills-the-image-when-it-is-read", || filled(plan));
    suite.test("a-killed-reader-that-waits-for-a-listener-reports-nothing", || killed(plan));
    suite.test("reading-leaves-the-access-time-of-the-image", || access_time(plan));
}

/// An image on ext4.
fn laid(plan: &Plan, flags: MountFlags) -> Result<(Mount, std::path::PathBuf)> {
    let below = mount_disk("ext4", disk("ext4")?, flags)?;
    let image = copy(plan, below.path(), "image.tess")?;
    drop_caches()?;
    Ok((below, image))
}

/// How a thread answers.
struct Answers {
    allow: AtomicBool,
    /// Whether it answers at all.
    speaks: AtomicBool,
    asked: AtomicU32,
    ends: AtomicBool,
    /// The bytes that it brings when it is asked for them.
    content: Vec<u8>,
}

impl Answers {
    fn with(allow: bool) -> Self {
        Self {
            allow: AtomicBool::new(allow),
            speaks: AtomicBool::new(true),
            asked: AtomicU32::new(0),
            ends: AtomicBool::new(false),
            content: Vec::new(),
        }
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Brings the bytes that it is asked for, unless it is asked for all of them.
    fn bring(&self, asked: &Asked) -> Result<()> {
        let length = self.content.len() as u64;
        if asked.range == (0..length) {
            return Ok(());
        }
        let range = asked.range.start.min(length)..asked.range.end.min(length);
        let bytes = &self.content[range.start as usize..range.end as usize];
        asked.file().write_all_at(bytes, range.start).context("failed to write")
    }

    /// Answers until it is told to end.
    fn give(&self, listener: &Listener) -> Result<()> {
        let mut unanswered = Vec::new();
        while !self.ends.load(Ordering::SeqCst) {
            match listener.asked().context("failed to hear a question")? {
                Some(asked) => {
                    self.asked.fetch_add(1, Ordering::SeqCst);
                    self.bring(&asked).context("failed to fill a file")?;
                    if self.speaks.load(Ordering::SeqCst) {
                        let allow = self.allow.load(Ordering::SeqCst);
                        listener.answer(&asked, allow).context("failed to answer")?;
                    } else {
                        unanswered.push(asked);
                    }
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
        Ok(())
    }
}

/// Does something while a listener answers what it is asked about everything on the filesystem.
fn listened(question: Question, answers: &Answers, work: impl FnOnce() -> Result<()>) -> Result<()> {
    listened_at(Path::new(STORE), question, answers, work)
}

/// Does something while a listener answers.
fn listened_at(
    path: &Path,
    question: Question,
    answers: &Answers,
    work: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let listener = Listener::new(path, question).context("failed to listen")?;
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let result = answers.give(&listener);
            // Whatever is not answered yet is answered by the end of the listener.
            drop(listener);
            result
        });
        let worked = work();
        answers.ends.store(true, Ordering::SeqCst);
        let answered = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        worked.and(answered)
    })
}

/// A process reads everything; false if it does not end.
fn read(plan: &Plan) -> Result<bool> {
    drop_caches()?;
    let mut reader = Command::new("/proc/self/exe");
    reader.arg("read").arg(on_disk(&plan.small.manifest)).arg(TARGET).arg("0");
    let mut reader = reader.spawn().context("failed to start a reader")?;
    if !ended_within(&mut reader, SOON)? {
        let _ = reader.kill();
        return Ok(false);
    }
    ensure!(reader.wait().context("failed to wait for a reader")?.success(), "a reader failed");
    Ok(true)
}

fn once(plan: &Plan, question: Question) -> Result<String> {
    let (below, image) = laid(plan, MountFlags::empty())?;
    let answers = Answers::with(true);
    listened(question, &answers, || {
        let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount the image")?;
        ensure!(answers.asked() == 1, "the listener is asked {} times about a mount", answers.asked());
        ensure!(read(plan)?, "a reader does not end");
        ensure!(
            answers.asked() == 1,
            "the listener is asked {} times when files are read",
            answers.asked() - 1
        );
        mount.unmount()
    })?;
    below.unmount()?;
    Ok(String::new())
}

fn forbidden(plan: &Plan, question: Question) -> Result<String> {
    let (below, image) = laid(plan, MountFlags::empty())?;
    let answers = Answers::with(false);
    listened(question, &answers, || {
        let mount = Mount::image(&image, Path::new(TARGET), "");
        let is_right = mount.as_ref().is_err_and(|errno| *errno == Errno::PERM);
        ensure!(is_right, "a mount that is forbidden: {mount:?}");
        Ok(())
    })?;
    ensure!(answers.asked() == 1, "the listener is asked {} times", answers.asked());
    below.unmount()?;
    Ok(String::new())
}

/// The listener allows the mount, and answers nothing from then on.
fn silent(plan: &Plan, question: Question) -> Result<String> {
    let (below, image) = laid(plan, MountFlags::empty())?;
    let answers = Answers::with(true);
    listened(question, &answers, || {
        let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount the image")?;
        answers.speaks.store(false, Ordering::SeqCst);
        let ended = read(plan)?;
        ensure!(ended, "a reader waits for a listener that was asked {} times", answers.asked());
        mount.unmount()
    })?;
    below.unmount()?;
    Ok(String::new())
}

/// A file without a byte, as long as the image, on ext4, and what fills it when it is read.
fn unfilled(plan: &Plan) -> Result<(Mount, std::path::PathBuf, Answers)> {
    let below = mount_disk("ext4", disk("ext4")?, MountFlags::empty())?;
    let content = std::fs::read(on_disk(&plan.small.image)).context("failed to read the image")?;
    let image = below.path().join("unfilled.tess");
    let file = File::create(&image).context("failed to create a file")?;
    file.set_len(content.len() as u64).context("failed to make a file longer")?;
    Ok((below, image, Answers { content, ..Answers::with(true) }))
}

/// The listener brings nothing when it is asked for all of the file, which a mount does, and then each part as it is
/// asked for it.
fn filled(plan: &Plan) -> Result<String> {
    let (below, image, answers) = unfilled(plan)?;
    listened_at(&image, Question::Fill, &answers, || {
        let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount the image")?;
        let at_mount = answers.asked();
        ensure!(at_mount > 1, "the listener is asked {at_mount} times about a mount");
        ensure!(read(plan)?, "a reader does not end");
        ensure!(answers.asked() > at_mount, "the listener is not asked when files are read");
        mount.unmount()
    })?;
    let asked = answers.asked();
    std::fs::remove_file(&image).context("failed to remove the image")?;
    below.unmount()?;
    Ok(format!("{asked} questions"))
}

/// The wait for the listener ends with the task, and says nothing about the store.
fn killed(plan: &Plan) -> Result<String> {
    let (below, image, answers) = unfilled(plan)?;
    listened_at(&image, Question::Fill, &answers, || {
        let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount the image")?;
        let mut log = Log::from_now()?;
        answers.speaks.store(false, Ordering::SeqCst);
        let before = answers.asked();
        let mut reader = Command::new("/proc/self/exe");
        reader.arg("read").arg(on_disk(&plan.small.manifest)).arg(TARGET).arg("0");
        let mut reader = reader.spawn().context("failed to start a reader")?;
        let begin = Instant::now();
        while answers.asked() == before {
            ensure!(begin.elapsed() < SOON, "the listener is not asked");
            thread::sleep(Duration::from_millis(5));
        }
        reader.kill().context("failed to kill a reader")?;
        ensure!(ended_within(&mut reader, SOON)?, "a killed reader waits for a listener");
        let said = log.said()?;
        ensure!(said.is_empty(), "the log has {said:?}");
        answers.speaks.store(true, Ordering::SeqCst);
        mount.unmount()
    })?;
    std::fs::remove_file(&image).context("failed to remove the image")?;
    below.unmount()?;
    Ok(String::new())
}

fn access_time(plan: &Plan) -> Result<String> {
    let (below, image) = laid(plan, MountFlags::STRICTATIME)?;
    let accessed = || -> Result<SystemTime> {
        let metadata = std::fs::metadata(&image).context("failed to look at the image")?;
        metadata.accessed().context("the image has no access time")
    };
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let file = File::options().write(true).open(&image).context("failed to open the image")?;
    file.set_times(FileTimes::new().set_accessed(past)).context("failed to set a time")?;
    drop(file);
    let mount = Mount::image(&image, Path::new(TARGET), "").context("failed to mount the image")?;
    ensure!(read(plan)?, "a reader does not end");
    ensure!(accessed()? == past, "the access time of the image changes when files in it are read");
    mount.unmount()?;
    // It would, with anybody else.
    std::fs::read(&image).context("failed to read the image")?;
    ensure!(accessed()? != past, "the filesystem keeps no access times: this proves nothing");
    below.unmount()?;
    Ok(String::new())
}
