// SPDX-License-Identifier: GPL-2.0-or-later

//! The state that the threads share: files, jobs and chunks under one lock, and the bells and the budget.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tesserafs_format::{Digest, Profile};

use super::chunk::{ChunkState, FileEvents, Job, Progressed, UNNUMBERED};
use super::contents::Contents;
use super::permit::{Flight, Permit};
use super::Resources;
use crate::error::Error;
use crate::packs::Parents;
use crate::source::FileTask;

/// So many pieces of news wake the sequencer.
const NEWS: u64 = 16;

/// Files whose events the sequencer takes at once.
const TAKEN_TOGETHER: usize = 64;

pub(super) struct State<F> {
    /// Files that no worker took yet.
    pub(super) tasks: VecDeque<FileTask<F>>,
    /// Number of files that workers took.
    pub(super) taken: u64,
    /// The walk is over.
    pub(super) walked: bool,
    /// Chunks that no worker took yet.
    pub(super) jobs: VecDeque<Job>,
    /// Files that workers took and the sequencer has not finished, from `head`.
    pub(super) files: VecDeque<FileEvents>,
    /// The file that the sequencer takes from.
    pub(super) head: u64,
    /// Chunks by the digest of their raw bytes.
    pub(super) chunks: HashMap<Digest, ChunkState>,
    /// Contents that the sequencer met.
    pub(super) contents: Contents,
    /// The first error.
    pub(super) error: Option<Error>,
}

impl<F> State<F> {
    /// Nothing yet, with room for so many files.
    pub(super) fn new(files: usize) -> Self {
        let mut tasks = VecDeque::new();
        let _ = tasks.try_reserve(files);
        Self {
            tasks,
            taken: 0,
            walked: false,
            jobs: VecDeque::new(),
            files: VecDeque::new(),
            head: 0,
            chunks: HashMap::new(),
            contents: Contents::with_room(files),
            error: None,
        }
    }

    /// Takes the events of files in order, as far as they are there. The number of files is limited: workers wait for the lock meanwhile.
    pub(super) fn take_events(&mut self) -> Vec<FileEvents> {
        let mut taken = Vec::new();
        while taken.len() < TAKEN_TOGETHER {
            let Some(file) = self.files.front_mut().filter(|file| !file.events.is_empty()) else { break };
            if !file.is_complete() {
                let events = std::mem::take(&mut file.events);
                taken.push(FileEvents { events, ..*file });
                break;
            }
            taken.extend(self.files.pop_front());
            self.head += 1;
        }
        taken
    }

    /// Claims a chunk; whether nobody had before.
    fn claim(&mut self, digest: Digest) -> bool {
        let unclaimed = ChunkState { index: UNNUMBERED, stored: Progressed::Unclaimed };
        let chunk = self.chunks.entry(digest).or_insert(unclaimed);
        let first = matches!(chunk.stored, Progressed::Unclaimed);
        if first {
            chunk.stored = Progressed::Claimed;
        }
        first
    }

    /// Keeps the first reason why the build ends. That a thread was stopped is none: another one has it.
    pub(super) fn fail(&mut self, error: Error) {
        if matches!(self.error, None | Some(Error::Stopped)) {
            self.error = Some(error);
        }
    }
}

/// The state that the threads share.
pub(super) struct Shared<'a, F> {
    pub(super) state: Mutex<State<F>>,
    /// Chunks that need not be compressed.
    pub(super) known: &'a Parents,
    /// One token: there is news for the sequencer.
    pub(super) to_sequencer: SyncSender<()>,
    pub(super) flight: Arc<Flight>,
    pub(super) threads: usize,
    pub(super) news: AtomicU64,
    pub(super) stop: AtomicBool,
    pub(super) profile: Profile,
}

impl<'a, F> Shared<'a, F> {
    /// Nothing yet, with room for so many files.
    pub(super) fn new(
        files: usize,
        known: &'a Parents,
        to_sequencer: SyncSender<()>,
        resources: Resources,
        profile: &Profile,
    ) -> Self {
        Self {
            state: Mutex::new(State::new(files)),
            known,
            to_sequencer,
            flight: Arc::new(Flight::new(resources.budget)),
            threads: resources.threads,
            news: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            profile: *profile,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims a chunk; whether it is to be compressed, and nobody had claimed it before.
    pub(super) fn claim(&self, digest: Digest) -> bool {
        self.known.get(&digest).is_none() && self.state().claim(digest)
    }

    /// Tells the sequencer that there is news, if it has not been told yet.
    pub(super) fn wake_sequencer(&self) {
        let _ = self.to_sequencer.try_send(());
    }

    pub(super) fn wake_all(&self) {
        self.wake_sequencer();
        self.flight.bell.ring();
    }

    /// Tells the sequencer that there may be something for it, now and then: waking it for each file would
    /// cost more than its work. A worker that goes to sleep rings in any case.
    pub(super) fn nudge(&self) {
        let news = self.news.fetch_add(1, Ordering::Relaxed);
        if news % NEWS == 0 || self.flight.bytes.load(Ordering::Relaxed) > self.flight.budget / 2 {
            self.wake_sequencer();
        }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    pub(super) fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Counts bytes as in flight, whatever the budget says.
    pub(super) fn permit(&self, bytes: u64, file: &Arc<AtomicU64>) -> Permit {
        self.flight.bytes.fetch_add(bytes, Ordering::SeqCst);
        file.fetch_add(bytes, Ordering::SeqCst);
        Permit { flight: self.flight.clone(), file: file.clone(), bytes }
    }
}
