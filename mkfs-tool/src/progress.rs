// SPDX-License-Identifier: GPL-2.0

//! How far a build is: a bar on a terminal, lines in a log where they are wanted, nothing elsewhere.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tesserafs_image::text::size;

/// Is told how far a build is, from several threads.
pub trait Progress: Sync {
    /// The walk found a file of so many bytes.
    fn found(&self, bytes: u64);
    /// So many bytes of files were read.
    fn read(&self, bytes: u64);
}

/// How progress is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// A bar on a terminal, nothing elsewhere.
    #[default]
    Auto,
    /// A line every few seconds.
    Plain,
    /// Not at all.
    None,
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn found(&self, _: u64) {}
    fn read(&self, _: u64) {}
}

/// A bar on standard error.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bar {
    /// Shows the bar; hidden where standard error is not a terminal.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let template =
            "{elapsed_precise} [{bar:40}] {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec})";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        Self(bar)
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn found(&self, bytes: u64) {
        self.0.inc_length(bytes);
    }

    fn read(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

/// How often a log gets a line.
const EVERY: Duration = Duration::from_secs(5);

/// Bytes so far.
#[derive(Debug, Default)]
struct Counters {
    found: AtomicU64,
    read: AtomicU64,
}

/// Lines on standard error: one every few seconds, and a last one.
#[derive(Debug)]
pub struct Plain {
    counters: Arc<Counters>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Plain {
    /// Begins to tell.
    pub fn new() -> Self {
        Self::with(EVERY, io::stderr())
    }

    fn with(every: Duration, mut out: impl Write + Send + 'static) -> Self {
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = mpsc::channel();
        let counted = counters.clone();
        let started = Instant::now();
        let tell = move || loop {
            let ended = stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout);
            let (found, read) = (counted.found.load(Ordering::Relaxed), counted.read.load(Ordering::Relaxed));
            let line = line(started.elapsed(), read, found);
            // A log that cannot be written is no reason to build nothing.
            let _ = out.write_all(line.as_bytes());
            if ended {
                break;
            }
        };
        let thread = thread::Builder::new().name("progress".into()).spawn(tell).ok();
        Self { counters, stop: Some(stop), thread }
    }
}

impl Default for Plain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Progress for Plain {
    fn found(&self, bytes: u64) {
        self.counters.found.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.counters.read.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn line(elapsed: Duration, read: u64, found: u64) -> String {
    let percent = read.saturating_mul(100).checked_div(found).unwrap_or(100);
    let (read, found) = (size(read), size(found));
    format!("{}: {:.1} s: {read} of {found} read, {percent} %\n", crate::PROGRAM, elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_gets_a_line_every_so_often_and_a_last_one() {
        let log = Log::default();
        let plain = Plain::with(Duration::from_millis(1), log.clone());
        plain.found(3 << 20);
        plain.read(1 << 20);
        while log.0.lock().unwrap().iter().filter(|byte| **byte == b'\n').count() < 3 {
            thread::yield_now();
        }
        plain.read(2 << 20);
        drop(plain);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains("s: 1.0 MiB of 3.0 MiB read, 33 %\n"), "{text}");
        assert!(text.ends_with("s: 3.0 MiB of 3.0 MiB read, 100 %\n"), "{text}");
    }
}
