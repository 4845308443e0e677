// SPDX-License-Identifier: GPL-2.0-or-later

//! Lines in a log.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tesserafs_image::progress::{Pace, Progress, Steps, Ticker};

use super::far::Far;
use crate::NAME;

/// Where lines go.
type Out = Mutex<Box<dyn Write + Send>>;

/// Lines on standard error.
#[derive(Debug)]
pub struct Lines {
    state: Arc<State>,
    /// Each stage gets a line as it begins.
    stages: bool,
    _ticker: Ticker,
}

struct State {
    far: Far,
    steps: Steps,
    out: Out,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("far", &self.far).field("steps", &self.steps).finish_non_exhaustive()
    }
}

impl State {
    fn say(&self) {
        let stage = self.far.stage();
        let seconds = stage.begun.elapsed().as_secs();
        let stage = (!stage.name.is_empty())
            .then(|| format!("{}: {} % after {seconds} s", stage.name, self.far.percent()));
        let step = self.steps.oldest().map(|(what, since)| format!("{what}, for {} s", since.as_secs()));
        let said: Vec<String> = stage.into_iter().chain(step).collect();
        if said.is_empty() {
            return;
        }
        let line = format!("{NAME}: {}\n", said.join(": "));
        // That nobody reads it is no reason to fail.
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

impl Lines {
    /// A line as each stage begins, and every five seconds.
    pub fn plain() -> Self {
        Self::with(Pace::LOG, true, Box::new(io::stderr()))
    }

    /// A line where the check takes long: after ten seconds, then twice a minute.
    pub fn patient() -> Self {
        Self::with(Pace::PATIENT, false, Box::new(io::stderr()))
    }

    fn with(pace: Pace, stages: bool, out: Box<dyn Write + Send>) -> Self {
        let state = Arc::new(State { far: Far::default(), steps: Steps::default(), out: Mutex::new(out) });
        let told = state.clone();
        Self { state, stages, _ticker: Ticker::start(pace, move || told.say()) }
    }
}

impl Progress for Lines {
    fn begin(&self, name: &'static str, total: u64) {
        self.state.far.begin(name, total);
        if self.stages {
            self.state.say();
        }
    }

    fn advance(&self, units: u64) {
        self.state.far.advance(units);
    }

    fn end(&self) {
        self.state.far.end();
    }

    fn steps(&self) -> Option<&Steps> {
        Some(&self.state.steps)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no panic").clone()).expect("text")
        }
    }

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_names_what_takes_long_though_nothing_advances() {
        let log = Log::default();
        let pace = Pace { first: Duration::from_millis(1), every: Duration::from_millis(1), last: false };
        let lines = Lines::with(pace, false, Box::new(log.clone()));
        lines.begin("data", 400);
        lines.advance(100);
        let step = lines.steps().expect("steps").begin("digesting /var/large (5.0 GiB)".into());
        let expected = "fsck.tesserafs: data: 25 % after 0 s: digesting /var/large (5.0 GiB), for 0 s\n";
        while !log.text().contains(expected) {
            std::thread::yield_now();
        }
        // Behind the check, as while a file is printed.
        lines.end();
        let expected = "\nfsck.tesserafs: digesting /var/large (5.0 GiB), for 0 s\n";
        while !log.text().contains(expected) {
            std::thread::yield_now();
        }
        drop(step);
    }

    #[test]
    fn a_check_that_is_done_soon_says_nothing() {
        let log = Log::default();
        let lines = Lines::with(Pace::PATIENT, false, Box::new(log.clone()));
        lines.begin("data", 1);
        lines.advance(1);
        lines.end();
        drop(lines);
        assert_eq!(log.text(), "");
    }

    #[test]
    fn a_log_that_asks_for_it_has_each_stage() {
        let log = Log::default();
        let lines = Lines::with(Pace::LOG, true, Box::new(log.clone()));
        lines.begin("tree", 1);
        lines.begin("data", 1);
        assert_eq!(log.text(), "fsck.tesserafs: tree: 0 % after 0 s\nfsck.tesserafs: data: 0 % after 0 s\n");
    }
}
