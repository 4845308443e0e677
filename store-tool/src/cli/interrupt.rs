// SPDX-License-Identifier: GPL-2.0-or-later

//! Signals that end a pull or a push: the first one is heard where the work can stop, the second one ends the process at once.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mkfs_tesserafs::output;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use signal_hook::low_level::{emulate_default_handler, signal_name};
use tesserafs_image::signals::not_ignored;
use tesserafs_image::{Cancel, Error};

use crate::{chain, say};

/// How long the work may take to hear it: a server that is silent, or a bundle that is being applied, holds it up. All that is in the store
/// is right at any moment, so nothing is lost by an end that nobody has heard of.
const GRACE: Duration = Duration::from_secs(5);

/// The signals are watched.
#[derive(Debug)]
pub(super) struct Interrupt {
    /// The number of the signal, 0 before.
    caught: Arc<AtomicUsize>,
    /// The state of the work after an interrupt, for the user.
    state: &'static str,
}

impl Interrupt {
    /// From here on SIGINT, SIGTERM and SIGHUP, unless they are ignored, set `cancel`, and the process ends by the signal once the work has stopped.
    pub(super) fn watch(cancel: &Cancel, state: &'static str) -> Result<Self, String> {
        let caught = Arc::new(AtomicUsize::new(0));
        register(cancel, &caught, state).map_err(|error| format!("cannot wait for signals: {error}"))?;
        Ok(Self { caught, state })
    }

    /// The text of an error; of an interrupt it is said here, and the process ends.
    pub(super) fn explain(&self, error: &Error) -> String {
        match i32::try_from(self.caught.load(Ordering::Relaxed)) {
            Ok(signal) if signal != 0 && matches!(error, Error::Cancelled) => end(signal, self.state),
            _ => (),
        }
        chain(error)
    }
}

fn register(cancel: &Cancel, caught: &Arc<AtomicUsize>, state: &'static str) -> io::Result<()> {
    // Caught, so that a file larger than the process may write is an error and not the end.
    flag::register(SIGXFSZ, Arc::default())?;
    let all = not_ignored([SIGINT, SIGTERM, SIGHUP]);
    let mut signals = Signals::new(&all)?;
    for signal in all {
        // In this order: the first signal finds the flag as it was, and sets it when its number can be told.
        flag::register_conditional_default(signal, cancel.flag().clone())?;
        flag::register_usize(signal, caught.clone(), usize::try_from(signal).unwrap_or(0))?;
        flag::register(signal, cancel.flag().clone())?;
    }
    thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            thread::sleep(GRACE);
            end(signal, state);
        }
    })?;
    Ok(())
}

/// Says why the process ends, once, and ends it as the signal would have.
fn end(signal: i32, state: &str) {
    static SAID: Mutex<()> = Mutex::new(());
    // Both are held until the process ends: nobody says it again, and no file is begun, or gets its name, any more.
    let _said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    let _unfinished = output::abandon();
    say(&format!("interrupted by {}; {state}", signal_name(signal).unwrap_or("a signal")));
    let _ = emulate_default_handler(signal);
}
