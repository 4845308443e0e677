// SPDX-License-Identifier: GPL-2.0-or-later

//! From files to stored chunks, on all processors, in an order that does not depend on them.
//!
//! Three parties share the work:
//!
//! - the *walk*, one thread, names the files in the order of the format;
//! - *workers* read files in that order, hash and cut them, hash the chunks, and compress those whose raw bytes nobody has met yet;
//! - the *sequencer*, the caller's thread, takes what the workers found, file after file in that order: it knows which
//!   contents and chunks are new, fills groups, numbers chunks and writes them.
//!
//! So what is stored, and where, is a function of the tree and the profile. Only the thread that compresses a
//! chunk, and the time at which it does, are not.
//!
//! Memory: windows of files and compressed chunks that cannot be written yet are counted against a budget. A worker that wants
//! to read more waits while it is spent, except for the file that the sequencer waits for: that file makes
//! progress, so everything does.
//!
//! Small files pass from party to party several at a time: to wake a thread for each costs more than its work.
//!
//! The files that workers are ahead of the sequencer by are limited, too: each takes some hundred bytes beside its own.
//!
//! The parties have a file each: `worker` (with `read` and `compress`), `sequencer`; what they share is in `shared`, and the contents that
//! it knows in `contents`, what passes between them in `chunk`, the budget in `permit`, and how they wake each other in `bell`.

mod bell;
mod chunk;
mod compress;
mod contents;
mod map;
mod permit;
mod read;
mod sequencer;
mod shared;
mod worker;

use std::sync::mpsc::sync_channel;
use std::{io, thread};

use tesserafs_format::Profile;
pub use tesserafs_image::hash::{sha256, Sha2};

pub use self::compress::{zstd_version, Compressor};
pub use self::map::{Figures, Map};
use self::sequencer::Sequencer;
use self::shared::Shared;
use self::worker::Worker;
use crate::error::{Error, Result};
use crate::packs::Parents;
use crate::progress::Progress;
use crate::source::{Source, Walked};

/// Bytes that a worker reads of a file at a time.
pub const WINDOW: usize = 1 << 20;

/// Files that the walk hands over at once, where they are small.
const FOUND_TOGETHER: usize = 64;

/// Where stored chunks go: pack 0, or the new pack of an image in the shared form.
pub trait PackWriter {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
}

/// How much to use.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Threads that read, hash and compress.
    pub threads: usize,
    /// Bytes in flight.
    pub budget: u64,
}

/// Encodes the files of a source, and walks it; chunks go to `pack`, but for those that are `known`.
pub fn encode<S: Source>(
    source: &S,
    profile: &Profile,
    resources: Resources,
    known: &Parents,
    pack: &mut dyn PackWriter,
    progress: &dyn Progress,
) -> Result<(Walked, Map)> {
    let (to_sequencer, news) = sync_channel(1);
    let files = source.files_at_most();
    let shared = Shared::new(files, known, to_sequencer, resources, profile);
    thread::scope(|scope| {
        let shared = &shared;
        let walk = move || {
            // A thread that panics must not leave the others waiting for it.
            let guard = StopOnPanic(shared);
            let mut tasks = Vec::with_capacity(FOUND_TOGETHER);
            let result = source.walk(&mut |task| {
                if shared.stopped() {
                    return Err(Error::Stopped);
                }
                progress.found(task.size);
                let is_long = task.size > WINDOW as u64;
                tasks.push(task);
                if is_long || tasks.len() == FOUND_TOGETHER {
                    shared.state().tasks.extend(tasks.drain(..));
                    shared.flight.bell.ring();
                }
                Ok(())
            });
            let mut state = shared.state();
            state.tasks.extend(tasks);
            state.walked = true;
            let walked = result.map_err(|error| state.fail(error)).ok();
            drop(state);
            match &walked {
                Some(_) => shared.wake_all(),
                None => shared.stop(),
            }
            std::mem::forget(guard);
            walked
        };
        let no_thread = |error: io::Error| Error::io("start a thread of", "the program".as_ref())(error);
        let walk = thread::Builder::new().spawn_scoped(scope, walk).map_err(no_thread)?;
        for number in 0..resources.threads {
            let worker = move || {
                let guard = StopOnPanic(shared);
                if let Err(error) = Worker::new(shared).and_then(|worker| worker.run(source, progress)) {
                    shared.state().fail(error);
                    shared.stop();
                }
                std::mem::forget(guard);
            };
            // Where the system gives no more threads, those that there are do all of it.
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, worker) {
                if number == 0 {
                    shared.state().fail(no_thread(error));
                    shared.stop();
                }
                break;
            }
        }
        let guard = StopOnPanic(shared);
        let sequenced = Sequencer::new(shared, news, pack, files).run();
        std::mem::forget(guard);
        shared.stop();
        let walked = walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let mut map = match (shared.state().error.take(), sequenced) {
            (None, Ok(map)) => map,
            // The others were stopped by the sequencer's error.
            (None | Some(Error::Stopped), Err(error)) | (Some(error), _) => {
                // If the source changed, other errors may come of that.
                let changed = source.close().err().filter(|error| matches!(error, Error::Changed { .. }));
                return Err(changed.unwrap_or(error));
            }
        };
        map.content_digests = std::mem::take(&mut shared.state().contents).into_digests();
        source.close()?;
        // A walk that failed has left its error.
        Ok((walked.ok_or(Error::Stopped)?, map))
    })
}

/// Lets everybody end when one thread panics; the scope then passes the panic on.
struct StopOnPanic<'a, F>(&'a Shared<'a, F>);

impl<F> Drop for StopOnPanic<'_, F> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
