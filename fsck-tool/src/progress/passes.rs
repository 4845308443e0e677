// SPDX-License-Identifier: GPL-2.0-or-later

//! How far a check is, for fsck(8), as e2fsck tells it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tesserafs_image::progress::Progress;
use tesserafs_image::text;

use super::far::Far;

/// Of the flags of a file descriptor, those that say whether it can be written to.
const ACCESS_MODE: u64 = 0o3;

/// Between two lines: fsck(8) draws a bar.
const EVERY: Duration = Duration::from_millis(100);

/// Lines for fsck(8): the number of the stage, parts of a hundred, the image.
pub struct Passes {
    far: Far,
    out: Mutex<(File, Instant)>,
    /// The end of each line.
    image: String,
}

impl fmt::Debug for Passes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passes").field("far", &self.far).finish_non_exhaustive()
    }
}

impl Passes {
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
        Ok(Self { far: Far::default(), out: Mutex::new((file, Instant::now())), image: text::path(image) })
    }

    fn line(&self) -> String {
        let stage = self.far.stage();
        format!("{} {} 100 {}\n", stage.number, self.far.percent(), self.image)
    }

    fn say(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.1 = Instant::now();
        // That nobody reads it is no reason to fail.
        let _ = out.0.write_all(self.line().as_bytes());
    }
}

impl Progress for Passes {
    fn begin(&self, name: &'static str, total: u64) {
        self.far.begin(name, total);
        self.say();
    }

    fn advance(&self, units: u64) {
        self.far.advance(units);
        // One thread at a time looks at the clock.
        let Ok(out) = self.out.try_lock() else { return };
        let is_due = out.1.elapsed() >= EVERY;
        drop(out);
        if is_due {
            self.say();
        }
    }

    fn end(&self) {
        if self.far.stage().number > 0 {
            self.far.advance(u64::MAX);
            self.say();
        }
    }
}
