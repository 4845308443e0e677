// SPDX-License-Identifier: GPL-2.0-or-later

//! How far a build is: a bar on a terminal, lines in a log.
//!
//! A log gets a line every few seconds where it is to show progress; where nothing was said of it, only work that takes long
//! gets any, and each line names the step that takes it.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tesserafs_image::progress::Ticker;
pub use tesserafs_image::progress::{Pace, Step, Steps, LONG};
use tesserafs_image::text::size;

/// Is told how far a build is, from several threads.
pub trait Progress: Sync {
    /// The walk found a file of so many bytes.
    fn found(&self, bytes: u64);
    /// So many bytes of files were read.
    fn read(&self, bytes: u64);
    /// So many more files are known, where whole files come or go.
    fn files_found(&self, _files: u64) {}
    /// So many more of them are done.
    fn files_done(&self, _files: u64) {}
    /// Where steps that may take long are named; `None` where nobody reads them.
    fn steps(&self) -> Option<&Steps> {
        None
    }
}

/// A step begins, for as long as the result lives; `what` is asked for its name where somebody reads it.
pub fn step(progress: &dyn Progress, what: impl FnOnce() -> String) -> Option<Step<'_>> {
    progress.steps().map(|steps| steps.begin(what()))
}

/// How progress is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// A bar on a terminal; elsewhere a line where the build takes long: after ten seconds, then twice a minute.
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

/// How often the bar names the step that takes long.
const NAMED: Pace = Pace { first: Duration::from_secs(2), every: Duration::from_secs(1), last: false };

/// The bar of a build.
const BUILD: &str =
    "{elapsed_precise} [{bar:40}] {binary_bytes}/{binary_total_bytes} ({binary_bytes_per_sec}) {msg}";

/// The bar of a transfer, which is shorter where a terminal has 80 columns.
const TRANSFER: &str = "{elapsed_precise} [{wide_bar}] {binary_bytes}/{binary_total_bytes} \
    ({binary_bytes_per_sec}){prefix}{left} {msg}";

/// A bar on standard error.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    steps: Arc<Steps>,
    ticker: Option<Ticker>,
    /// Files that are done, and that are known.
    files: Mutex<(u64, u64)>,
}

impl Bar {
    /// Shows the bar of a build; hidden where standard error is not a terminal.
    pub fn new() -> Self {
        Self::with(BUILD)
    }

    /// Shows the bar of a transfer of files, with their number and the time that is left.
    pub fn transfer() -> Self {
        Self::with(TRANSFER)
    }

    fn with(template: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> ").with_key("left", left));
        }
        let steps = Arc::new(Steps::default());
        let (shown, named) = (bar.clone(), steps.clone());
        let ticker = Ticker::start(NAMED, move || {
            let long = named.oldest().filter(|(_, since)| *since >= NAMED.first);
            shown.set_message(long.map(|(what, _)| what).unwrap_or_default());
        });
        Self { bar, steps, ticker: Some(ticker), files: Mutex::default() }
    }

    fn count(&self, change: impl FnOnce(&mut (u64, u64))) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut files);
        self.bar.set_prefix(files_text(*files));
    }
}

/// Files that are done, and that are known.
fn files_text((done, known): (u64, u64)) -> String {
    match known {
        0 => String::new(),
        1 => format!(", {done} of 1 file"),
        known => format!(", {done} of {known} files"),
    }
}

/// The time that is left, once bytes have come by which it can be told.
fn left(state: &ProgressState, out: &mut dyn fmt::Write) {
    if (1..state.len().unwrap_or(0)).contains(&state.pos()) {
        // It goes to memory.
        let _ = write!(out, ", {:#} left", HumanDuration(state.eta()));
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        drop(self.ticker.take());
        self.bar.finish_and_clear();
    }
}

impl Progress for Bar {
    fn found(&self, bytes: u64) {
        self.bar.inc_length(bytes);
    }

    fn read(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn files_found(&self, files: u64) {
        self.count(|(_, known)| *known = known.saturating_add(files));
    }

    fn files_done(&self, files: u64) {
        self.count(|(done, _)| *done = done.saturating_add(files));
    }

    fn steps(&self) -> Option<&Steps> {
        Some(&self.steps)
    }
}

/// Bytes so far, and what goes on.
#[derive(Debug)]
struct State {
    found: AtomicU64,
    read: AtomicU64,
    steps: Steps,
    started: Instant,
}

impl State {
    fn line(&self) -> String {
        let (found, read) = (self.found.load(Ordering::Relaxed), self.read.load(Ordering::Relaxed));
        line(self.started.elapsed(), read, found, self.steps.oldest())
    }
}

/// Lines in a log, at a pace.
#[derive(Debug)]
pub struct Lines {
    state: Arc<State>,
    /// Dropped first, as the last line may tell of the state.
    _ticker: Ticker,
}

impl Lines {
    /// Lines on standard error for a log that is to show progress: one every few seconds, and a last one.
    pub fn plain() -> Self {
        Self::with(Pace { last: true, ..Pace::LOG }, io::stderr())
    }

    /// Lines on standard error where the build takes long.
    pub fn patient() -> Self {
        Self::with(Pace::PATIENT, io::stderr())
    }

    fn with(pace: Pace, mut out: impl Write + Send + 'static) -> Self {
        let state = Arc::new(State {
            found: AtomicU64::new(0),
            read: AtomicU64::new(0),
            steps: Steps::default(),
            started: Instant::now(),
        });
        let told = state.clone();
        let tell = move || {
            // A log that cannot be written is no reason to build nothing.
            let _ = out.write_all(told.line().as_bytes());
        };
        Self { state, _ticker: Ticker::start(pace, tell) }
    }
}

impl Progress for Lines {
    fn found(&self, bytes: u64) {
        self.state.found.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self, bytes: u64) {
        self.state.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn steps(&self) -> Option<&Steps> {
        Some(&self.state.steps)
    }
}

fn line(elapsed: Duration, read: u64, found: u64, step: Option<(String, Duration)>) -> String {
    let percent = read.saturating_mul(100).checked_div(found).unwrap_or(100);
    let (read, total) = (size(read), size(found));
    let mut line = format!("{}: {:.1} s", crate::PROGRAM, elapsed.as_secs_f64());
    if found > 0 || step.is_none() {
        line += &format!(": {read} of {total} read, {percent} %");
    }
    if let Some((what, since)) = step {
        line += &format!(": {what}, for {} s", since.as_secs());
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }

        fn wait_for(&self, what: &str) {
            while !self.text().contains(what) {
                thread::yield_now();
            }
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const FAST: Pace = Pace { first: Duration::from_millis(1), every: Duration::from_millis(1), last: false };

    #[test]
    fn a_log_gets_a_line_every_so_often_and_a_last_one() {
        let log = Log::default();
        let lines = Lines::with(Pace { last: true, ..FAST }, log.clone());
        lines.found(3 << 20);
        lines.read(1 << 20);
        log.wait_for("s: 1.0 MiB of 3.0 MiB read, 33 %\n");
        lines.read(2 << 20);
        drop(lines);
        let text = log.text();
        assert!(text.ends_with("s: 3.0 MiB of 3.0 MiB read, 100 %\n"), "{text}");
    }

    #[test]
    fn a_line_names_the_step_that_takes_long() {
        let log = Log::default();
        let lines = Lines::with(FAST, log.clone());
        let archive = step(&lines, || "reading the archive a.tar.gz".into());
        log.wait_for(" s: reading the archive a.tar.gz, for 0 s\n");
        drop(archive);
        lines.found(2 << 30);
        let file = step(&lines, || "reading var/large".into());
        log.wait_for(" s: 0 B of 2.0 GiB read, 0 %: reading var/large, for 0 s\n");
        drop(file);
        log.wait_for(" s: 0 B of 2.0 GiB read, 0 %\n");
    }

    #[test]
    fn files_are_counted_where_there_are_any() {
        let texts = [(0, 0), (0, 1), (3, 5)].map(files_text);
        assert_eq!(texts, ["", ", 0 of 1 file", ", 3 of 5 files"]);
        // Both templates are right: a wrong one is left out, and nobody sees it.
        assert!([BUILD, TRANSFER].iter().all(|template| ProgressStyle::with_template(template).is_ok()));
    }

    #[test]
    fn a_build_that_is_done_soon_says_nothing() {
        let log = Log::default();
        let lines = Lines::with(Pace::PATIENT, log.clone());
        drop(step(&lines, || "reading".into()));
        drop(lines);
        assert_eq!(log.text(), "");
    }
}
