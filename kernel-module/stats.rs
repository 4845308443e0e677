// SPDX-License-Identifier: GPL-2.0

//! The counters of a mounted image, shown in `/sys/fs/tesserafs/MAJOR:MINOR/`.
//!
//! | file                    | counts                                                            |
//! |-------------------------|-------------------------------------------------------------------|
//! | `image_id`              | (the image ID)                                                    |
//! | `read_bytes`            | bytes that were read from the image: stored chunks and metadata   |
//! | `hashed_bytes`          | bytes whose digest was computed                                   |
//! | `decoded_bytes`         | raw bytes that were decoded: of all or the beginning of a chunk   |
//! | `copied_bytes`          | raw bytes that went to a page by way of the chunk cache           |
//! | `chunk_hits`            | chunks that were wanted and in the chunk cache, or being decoded  |
//! | `chunk_misses`          | times that a chunk had to be read                                 |
//! | `shared_files`          | files whose pages are those of all files with the same chunks     |
//! | `verification_failures` | digests that were not those of the bytes, and broken rules        |
//!
//! The tracepoints `tesserafs_read`, `tesserafs_decode` and `tesserafs_failure` report the same
//! events one by one.
//!
//! All are of this mount alone, since it began. Data that another mount had in memory costs nothing
//! here.

use core::ffi::CStr;

use kernel::prelude::*;
use kernel::sync::atomic::{Atomic, Relaxed};
use kernel::sync::Arc;

use tesserafs_format::num::{u32_from_usize, u64_from_usize, usize_from_u32};
use tesserafs_format::Chunk;

use crate::error::{Failure, ImageId};
use crate::klib::printk::{self, RateLimit};
use crate::klib::sysfs::{File, Value};
use crate::klib::trace;

/// A number that only grows.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts one more.
    pub(crate) fn increment(&self) {
        self.0.add(1_u64, Relaxed);
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.add(u64_from_usize(bytes), Relaxed);
    }

    fn value(&self) -> Value<'static> {
        Value::Number(self.0.load(Relaxed))
    }
}

/// The counters of a mounted image, and what it may write to the log.
#[pin_data]
pub(crate) struct Stats {
    pub(crate) id: ImageId,
    /// Whether the mounter is privileged: only then does the image have a rate of messages of its own, so
    /// that no other image keeps it silent.
    mounter_is_privileged: bool,
    #[pin]
    rate: RateLimit,
    pub(crate) read_bytes: Counter,
    pub(crate) hashed_bytes: Counter,
    pub(crate) decoded_bytes: Counter,
    pub(crate) copied_bytes: Counter,
    pub(crate) chunk_hits: Counter,
    pub(crate) chunk_misses: Counter,
    pub(crate) shared_files: Counter,
    pub(crate) verification_failures: Counter,
}

impl Stats {
    /// The counters of an image that is being mounted; `mounter_is_privileged` is as in `Mounted`. Anybody
    /// can make any number of mounts in user namespaces, so these have one rate of messages together.
    pub(crate) fn new(id: ImageId, mounter_is_privileged: bool) -> impl PinInit<Self> {
        pin_init!(Self {
            id,
            mounter_is_privileged,
            rate <- RateLimit::new(),
            read_bytes: Counter::new(),
            hashed_bytes: Counter::new(),
            decoded_bytes: Counter::new(),
            copied_bytes: Counter::new(),
            chunk_hits: Counter::new(),
            chunk_misses: Counter::new(),
            shared_files: Counter::new(),
            verification_failures: Counter::new(),
        })
    }

    /// The first eight bytes of the image ID.
    fn image(&self) -> u64 {
        self.id.0.prefix()
    }

    /// The stored bytes of `chunk` were read.
    pub(crate) fn has_read(&self, chunk: &Chunk) {
        self.chunk_misses.increment();
        self.read_bytes.add(usize_from_u32(chunk.stored_len));
        trace::read(self.image(), chunk.index.0, chunk.offset, chunk.stored_len);
    }

    /// `chunk` was verified, and its first `len` raw bytes were decoded.
    pub(crate) fn has_decoded(&self, chunk: &Chunk, len: usize) {
        self.decoded_bytes.add(len);
        trace::decode(
            self.image(),
            chunk.index.0,
            chunk.stored_len,
            u32_from_usize(len),
        );
    }

    /// Counts a failure, logs it, and gives the errno.
    pub(crate) fn report(&self, failure: Failure) -> Error {
        let rule = match failure {
            Failure::Format(error) => {
                self.verification_failures.increment();
                error.rule.name()
            }
            _ => "",
        };
        trace::failure(self.image(), rule, failure.errno());
        if failure.is_of_the_image() && self.within_rate() {
            pr_err!("{}: {}\n", self.id, failure);
        }
        failure.errno()
    }

    fn within_rate(&self) -> bool {
        if self.mounter_is_privileged {
            self.rate.permits()
        } else {
            printk::within_rate()
        }
    }
}

/// A file of the folder of a mounted image.
const fn file(name: &'static CStr, show: fn(&Arc<Stats>) -> Value<'_>) -> File<Arc<Stats>> {
    File { name, show }
}

/// The files of the folder of a mounted image.
pub(crate) const FILES: &[File<Arc<Stats>>] = &[
    file(c"image_id", |stats| Value::Digest(&stats.id.0 .0)),
    file(c"read_bytes", |stats| stats.read_bytes.value()),
    file(c"hashed_bytes", |stats| stats.hashed_bytes.value()),
    file(c"decoded_bytes", |stats| stats.decoded_bytes.value()),
    file(c"copied_bytes", |stats| stats.copied_bytes.value()),
    file(c"chunk_hits", |stats| stats.chunk_hits.value()),
    file(c"chunk_misses", |stats| stats.chunk_misses.value()),
    file(c"shared_files", |stats| stats.shared_files.value()),
    file(c"verification_failures", |stats| {
        stats.verification_failures.value()
    }),
];
