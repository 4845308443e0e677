// SPDX-License-Identifier: GPL-2.0-or-later

//! The reports of the daemon: one line for each cause, within a rate, as the kernel driver does.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tesserafs_format::Digest;
use tesserafs_image::Broken;

use crate::{chain, NAME};

/// Lines in [`WINDOW`], at most: those of the kernel's own limit.
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(5);

/// A cause that is met again is not reported again for so long: the kernel asks twice for what it reads ahead, and programs ask again.
const AGAIN: Duration = Duration::from_secs(60);

/// Causes that are remembered, at most.
const CAUSES: usize = 256;

/// Where syslogd or journald listens.
const SYSLOG: &str = "/dev/log";

/// The number before a message for syslog: an error (3) of a daemon (3 * 8), as `syslog.h` numbers them.
const PRIORITY: u32 = 3 * 8 + 3;

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Standard error.
    Stderr,
    /// syslogd or journald; nowhere if there is none.
    Syslog(UnixDatagram),
}

impl Sink {
    /// The system's log. The crate `syslog` is no choice here: it puts the local time before each message, which a process with
    /// threads cannot know, and panics then. The receiver has a clock of its own.
    pub fn syslog() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A log that is full is no reason to let readers wait.
        socket.set_nonblocking(true)?;
        let _ = socket.connect(SYSLOG);
        Ok(Sink::Syslog(socket))
    }

    fn write(&self, line: &str) {
        match self {
            Sink::Stderr => {
                let _ = writeln!(io::stderr(), "{NAME}: {line}");
            }
            Sink::Syslog(socket) => {
                let message = format!("<{PRIORITY}>{NAME}[{}]: {line}", std::process::id());
                // The log may have been started again since.
                if socket.send(message.as_bytes()).is_err() && socket.connect(SYSLOG).is_ok() {
                    let _ = socket.send(message.as_bytes());
                }
            }
        }
    }
}

/// The log of the daemon of one image.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
    /// The path and the ID of the image.
    image: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    causes: HashMap<String, Instant>,
    began: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl State {
    /// Whether a line about this cause is due; and how many were left out since the last one that was.
    fn admit(&mut self, cause: &str, now: Instant) -> Option<u64> {
        self.causes.retain(|_, last| now.duration_since(*last) < AGAIN);
        if self.causes.contains_key(cause) {
            return None;
        }
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.lines) = (Some(now), 0);
        }
        if self.lines >= LINES || self.causes.len() >= CAUSES {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        self.causes.insert(cause.to_owned(), now);
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Log {
    /// The log of the image at `path`.
    pub fn new(sink: Sink, path: &str, id: &Digest) -> Self {
        Self { sink, image: format!("{path}: sha256:{id}"), state: Mutex::default() }
    }

    /// Reports why a request failed: place, what was found and what was expected.
    pub fn report(&self, failure: &Broken) {
        let cause = match failure {
            Broken::Rule(error) => error.to_string(),
            Broken::Stop(error) => chain(error),
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let admitted = state.admit(&cause, Instant::now());
        drop(state);
        match admitted {
            None => (),
            Some(0) => self.sink.write(&format!("{}: {cause}", self.image)),
            Some(left_out) => {
                self.sink.write(&format!("{}: {cause} ({left_out} lines left out)", self.image))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_has_one_line_and_all_of_them_have_a_rate() {
        let (mut state, start) = (State::default(), Instant::now());
        assert_eq!(state.admit("a", start), Some(0));
        assert_eq!(state.admit("a", start + WINDOW), None);
        assert_eq!(state.admit("a", start + AGAIN), Some(0));
        let later = start + AGAIN * 3;
        let admitted = (0..50).filter(|n| state.admit(&n.to_string(), later).is_some()).count();
        assert_eq!(admitted, LINES as usize);
        assert_eq!(state.admit("b", later + WINDOW), Some(40));
    }
}
