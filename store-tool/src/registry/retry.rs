// SPDX-License-Identifier: GPL-2.0-or-later

//! When to try again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tesserafs_image::{Cancel, Error};

use super::fault::Fault;
use super::options::Options;

/// The longest wait that is a client's own decision.
const WAIT_MAX: Duration = Duration::from_secs(20);
/// The longest wait that a server can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Times in a row that a server can say that it is busy: a minute and a half. Of many clients at a slow one, each is told so often.
const BUSY_MAX: u32 = 12;
/// The interrupt is seen after that.
const NAP: Duration = Duration::from_millis(50);

/// Failures in a row.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    options: &'a Options,
    failures: u32,
    busy: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self { options, failures: 0, busy: 0 }
    }

    /// Something came: what failed before does not count any more.
    pub(super) fn progress(&mut self) {
        (self.failures, self.busy) = (0, 0);
    }

    /// Waits after a failure; an error where there were too many, or where it does not pass.
    pub(super) fn wait(&mut self, fault: Fault) -> Result<(), Fault> {
        let (why, wait, count, max) = match fault {
            Fault::Passing(why) => {
                self.failures += 1;
                (why, None, self.failures, self.options.tries)
            }
            Fault::Busy { why, wait } => {
                self.busy += 1;
                (why, wait, self.busy, BUSY_MAX)
            }
            Fault::Last(_) | Fault::Stop(_) => return Err(fault),
        };
        if count >= max {
            return Err(Fault::Last(format!("{why} ({count} times in a row)")));
        }
        if let Some(wait) = wait.filter(|wait| *wait > RETRY_AFTER_MAX) {
            return Err(Fault::Last(format!("{why}, and it asks to wait for {} seconds", wait.as_secs())));
        }
        let doubled = self.options.first_wait.saturating_mul(1 << (count - 1).min(10)).min(WAIT_MAX);
        // The server's wait at least, and not all of its clients at the same moment.
        sleep(wait.unwrap_or_default() + jitter(doubled), &self.options.cancel).map_err(Fault::Stop)
    }
}

/// Tries `ask` until it does, or fails for good.
pub(super) fn retry<T>(options: &Options, mut ask: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let mut patience = Patience::new(options);
    loop {
        options.cancel.check()?;
        match ask() {
            Ok(done) => return Ok(done),
            Err(fault) => patience.wait(fault)?,
        }
    }
}

/// Between half of `wait` and all of it.
fn jitter(wait: Duration) -> Duration {
    // Each state of a hasher has keys of its own.
    let random = RandomState::new().build_hasher().finish() % 1024;
    wait / 2 + wait / 2 * (random as u32) / 1024
}

/// Sleeps, but for the user's interrupt.
pub(super) fn sleep(wait: Duration, cancel: &Cancel) -> Result<(), Error> {
    let until = Instant::now() + wait;
    loop {
        cancel.check()?;
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(NAP));
    }
}

/// The wait that `Retry-After` asks for: seconds or a date.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { first_wait: Duration::from_millis(1), tries: 3, ..Options::default() }
    }

    #[test]
    fn what_passes_is_tried_so_often_and_what_does_not_once() {
        let options = options();
        let mut asked = 0;
        let done = retry(&options, || {
            asked += 1;
            if asked < 3 {
                Err(Fault::Passing("a".into()))
            } else {
                Ok(asked)
            }
        });
        assert_eq!(done.expect("the third"), 3);
        let mut asked = 0;
        let failed = retry(&options, || -> Result<(), _> {
            asked += 1;
            Err(Fault::Passing("a".into()))
        });
        assert_eq!((failed.expect_err("fails").into_text().as_str(), asked), ("a (3 times in a row)", 3));
        let mut asked = 0;
        let failed = retry(&options, || -> Result<(), _> {
            asked += 1;
            Err(Fault::last("b"))
        });
        assert_eq!((failed.expect_err("fails").into_text().as_str(), asked), ("b", 1));
    }

    #[test]
    fn a_server_can_ask_for_five_minutes_and_no_more() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("soon"), None);
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        let later = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&later).expect("a date").as_secs();
        assert!((98..=100).contains(&wait), "{wait}");
        let options = options();
        let busy = Fault::Busy { why: "busy".into(), wait: Some(Duration::from_secs(301)) };
        let said = Patience::new(&options).wait(busy).expect_err("too long").into_text();
        assert_eq!(said, "busy, and it asks to wait for 301 seconds");
    }

    #[test]
    fn an_interrupt_ends_a_wait() {
        let options = Options { first_wait: Duration::from_secs(20), ..Options::default() };
        let flag = options.cancel.flag().clone();
        let begun = Instant::now();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            flag.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let fault = Patience::new(&options).wait(Fault::Passing("a".into())).expect_err("interrupted");
        assert!(matches!(fault, Fault::Stop(Error::Cancelled)), "{fault:?}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
