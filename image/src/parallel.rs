// SPDX-License-Identifier: GPL-2.0-or-later

//! Work on several threads, ended by the first error or by the user.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::error::Error;

/// Set by the user's interrupt; looked at wherever work takes long.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// The flag itself, for a signal handler.
    pub fn flag(&self) -> &Arc<AtomicBool> {
        &self.0
    }

    /// Whether the user interrupted.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// An error once the user interrupted.
    pub fn check(&self) -> Result<(), Error> {
        if self.is_set() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// The first error of several threads.
#[derive(Debug, Default)]
pub struct First {
    stopped: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl First {
    /// Whether there is an error.
    pub fn is_set(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Keeps `error` unless another was first.
    pub fn set(&self, error: Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The error so far, if there was one, which is forgotten.
    pub fn take(&self) -> Result<(), Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }

    /// The error, if there was one.
    pub fn into_result(self) -> Result<(), Error> {
        match self.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }
}

/// Calls `work` with each number below `count`, on `threads` threads, in about ascending order.
pub fn for_each(
    threads: usize,
    count: u64,
    cancel: &Cancel,
    work: impl Fn(u64) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let next = AtomicU64::new(0);
    let first = First::default();
    let run = || {
        while !first.is_set() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            if let Err(error) = cancel.check().and_then(|()| work(index)) {
                first.set(error);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..(threads as u64).min(count) {
            // Where the system gives no more threads, those that there are do all of it.
            if thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    first.into_result()
}
