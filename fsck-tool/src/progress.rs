// SPDX-License-Identifier: GPL-2.0

//! How far a check is: a bar on a terminal, lines in a log, numbers for fsck(8).

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use tesserafs_image::progress::{Progress, Silent};

use tesserafs_image::text;

use crate::NAME;

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// A bar that shows once the first stage begins.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{msg:10} [{bar:40}] {percent:>3}% {eta}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        Self(bar)
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bar {
    fn begin(&self, stage: &'static str, total: u64) {
        self.0.set_length(total);
        self.0.set_position(0);
        self.0.reset_eta();
        self.0.set_message(stage);
    }

    fn advance(&self, units: u64) {
        self.0.inc(units);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Of the flags of a file descriptor, those that say whether it can be written to.
const ACCESS_MODE: u64 = 0o3;

/// Between two lines of a log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Between two lines for fsck(8), which draws a bar.
const PASS_EVERY: Duration = Duration::from_millis(100);

/// Lines: in a log for people, or as e2fsck writes them for fsck(8).
pub struct Lines {
    out: Mutex<Box<dyn Write + Send>>,
    for_people: bool,
    /// The end of the lines for fsck(8).
    image: String,
    total: AtomicU64,
    done: AtomicU64,
    stage: Mutex<Stage>,
}

/// The work that is being done.
#[derive(Debug)]
struct Stage {
    name: &'static str,
    /// How many stages there were, this one included.
    number: u32,
    begun: Instant,
    said: Instant,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Lines {
    fn new(out: Box<dyn Write + Send>, for_people: bool) -> Self {
        let now = Instant::now();
        Self {
            out: Mutex::new(out),
            for_people,
            image: String::new(),
            total: AtomicU64::new(0),
            done: AtomicU64::new(0),
            stage: Mutex::new(Stage { name: "", number: 0, begun: now, said: now }),
        }
    }

    /// A line on standard error as each stage begins, and every five seconds.
    pub fn plain() -> Self {
        Self::new(Box::new(io::stderr()), true)
    }

    /// `PASS DONE TOTAL IMAGE`, as e2fsck writes it, on a file descriptor that the caller opened for writing.
    pub fn to_fd(fd: i32, image: &Path) -> io::Result<Self> {
        let refuse = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        // By name, as only unsafe code can make a file of the number; and so the rights that it was opened with are asked for,
        // or a caller's number that is not open, or not for this, would be a way to write elsewhere.
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok()).unwrap_or(0);
        if flags & ACCESS_MODE == 0 {
            return Err(refuse("it was not opened for writing"));
        }
        let file = OpenOptions::new().append(true).open(format!("/proc/self/fd/{fd}"))?;
        let (found, image_found) = (file.metadata()?, image.metadata().ok());
        if image_found.is_some_and(|image| (image.dev(), image.ino()) == (found.dev(), found.ino()))
            || found.file_type().is_block_device()
        {
            return Err(refuse("it is the image, or a block device"));
        }
        let mut lines = Self::new(Box::new(file), false);
        lines.image = text::path(image);
        Ok(lines)
    }

    fn say(&self, stage: &Stage) {
        let total = self.total.load(Ordering::Relaxed).max(1);
        let done = self.done.load(Ordering::Relaxed).min(total);
        // A product of two numbers of bytes needs more than 64 bits.
        let percent = u128::from(done) * 100 / u128::from(total);
        let line = if self.for_people {
            let seconds = stage.begun.elapsed().as_secs();
            format!("{NAME}: {}: {percent} % after {seconds} s\n", stage.name)
        } else {
            format!("{} {percent} 100 {}\n", stage.number, self.image)
        };
        // That nobody reads it is no reason to fail.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

impl Progress for Lines {
    fn begin(&self, name: &'static str, total: u64) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        self.total.store(total, Ordering::Relaxed);
        self.done.store(0, Ordering::Relaxed);
        *stage = Stage { name, number: stage.number + 1, begun: now, said: now };
        self.say(&stage);
    }

    fn advance(&self, units: u64) {
        self.done.fetch_add(units, Ordering::Relaxed);
        // One thread at a time looks at the clock.
        let Ok(mut stage) = self.stage.try_lock() else { return };
        let every = if self.for_people { LINE_EVERY } else { PASS_EVERY };
        if stage.said.elapsed() >= every {
            stage.said = Instant::now();
            self.say(&stage);
        }
    }

    fn end(&self) {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.for_people && stage.number > 0 {
            self.done.store(u64::MAX, Ordering::Relaxed);
            self.say(&stage);
        }
    }
}
