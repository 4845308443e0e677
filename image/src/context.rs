// SPDX-License-Identifier: GPL-2.0-or-later

//! The context that every reader of an image is given.

use std::fmt;
use std::path::PathBuf;

use tesserafs_format::Image;

use crate::error::{Broken, Error};
use crate::finding::Findings;
use crate::metadata::VerifiedMetadata;
use crate::parallel::Cancel;
use crate::progress::{Progress, Step, LONG};
use crate::text;

/// An image that is being read, and those who want to hear of it.
pub struct Context<'a> {
    /// Its records.
    pub image: Image<'a, VerifiedMetadata<'a>>,
    /// The bytes of the records.
    pub metadata: &'a VerifiedMetadata<'a>,
    /// Where broken rules are collected.
    pub findings: &'a Findings,
    /// Hears how far the work is.
    pub progress: &'a dyn Progress,
    /// Ends the work.
    pub cancel: &'a Cancel,
    /// Threads to work on, 1 at least.
    pub threads: usize,
    /// Where packs other than the embedded one are.
    pub pack_dir: PathBuf,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("image", &self.metadata.source().path()).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    /// An image whose packs are beside it, read on as many threads as there are processors.
    pub fn new(
        metadata: &'a VerifiedMetadata<'a>,
        findings: &'a Findings,
        progress: &'a dyn Progress,
        cancel: &'a Cancel,
    ) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let pack_dir = metadata.source().path().parent().map(PathBuf::from).unwrap_or_default();
        let image = Image::new(metadata.superblock(), metadata);
        Self { image, metadata, findings, progress, cancel, threads, pack_dir }
    }

    /// A step on `bytes` bytes begins, for as long as the result lives. It is named where it may take long and somebody reads it.
    pub fn step(&self, bytes: u64, what: impl FnOnce() -> String) -> Option<Step<'a>> {
        let steps = self.progress.steps().filter(|_| bytes >= LONG)?;
        Some(steps.begin(format!("{} ({})", what(), text::size(bytes))))
    }

    /// Turns a broken rule into a finding and `None`; an error into one.
    pub fn note<T>(&self, result: Result<T, Broken>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Broken::Rule(error)) => {
                if !VerifiedMetadata::is_reported(&error) {
                    self.findings.add(error);
                }
                Ok(None)
            }
            Err(Broken::Stop(error)) => Err(error),
        }
    }
}

/// Metadata that was clean when it was checked must be so now.
pub fn read<T>(result: Result<T, Broken>) -> Result<T, Error> {
    result.map_err(|error| match error {
        Broken::Rule(error) => Error::Refused(format!("the image changed while it was read: {error}")),
        Broken::Stop(error) => error,
    })
}
