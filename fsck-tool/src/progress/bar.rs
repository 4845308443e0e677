// SPDX-License-Identifier: GPL-2.0-or-later

//! A bar on a terminal.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tesserafs_image::progress::{Pace, Progress, Steps, Ticker};

/// How often the bar names the step that takes long.
const NAMED: Pace = Pace { first: Duration::from_secs(2), every: Duration::from_secs(1), last: false };

/// A bar on standard error, if that is a terminal.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    steps: Arc<Steps>,
    _ticker: Ticker,
}

impl Bar {
    /// A bar that shows once the first stage begins.
    pub fn new() -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
        let style = ProgressStyle::with_template("{prefix:10} [{bar:40}] {percent:>3}% {eta} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        let steps = Arc::new(Steps::default());
        let (shown, named) = (bar.clone(), steps.clone());
        let ticker = Ticker::start(NAMED, move || {
            let long = named.oldest().filter(|(_, since)| *since >= NAMED.first);
            // A bar that is gone stays so.
            if !shown.is_finished() {
                shown.set_message(long.map(|(what, _)| what).unwrap_or_default());
            }
        });
        Self { bar, steps, _ticker: ticker }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress for Bar {
    fn begin(&self, stage: &'static str, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(0);
        self.bar.reset_eta();
        self.bar.set_prefix(stage);
    }

    fn advance(&self, units: u64) {
        self.bar.inc(units);
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn steps(&self) -> Option<&Steps> {
        Some(&self.steps)
    }
}
