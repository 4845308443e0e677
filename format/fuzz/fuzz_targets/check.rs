// SPDX-License-Identifier: GPL-2.0-or-later

//! A whole check by fsck of an image with any tables, whose digests of metadata are right. A short input is changes of
//! an image in which nothing is wrong.
//!
//! Invariant: a verdict. fsck finds everything that a walk refuses: an image that it calls clean is read
//! without an error. No panic. Memory is bounded by the bytes of the image, and time by them and by the bytes
//! of its files, holes included, all of which a check hashes: where these are too many for a fuzzer, the
//! check is interrupted.

#![no_main]

use std::sync::atomic::{AtomicU64, Ordering};

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Progress;
use fsck_tesserafs::{check, Error, Options, Source};
use libfuzzer_sys::fuzz_target;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_fuzz::draft::{self, Draft};
use tesserafs_fuzz::input::Input;
use tesserafs_fuzz::memory_file::MemoryFile;
use tesserafs_fuzz::tables::Tables;
use tesserafs_fuzz::{heap, walk};

/// Bytes of files that are waited for.
const PATIENCE: u64 = 32 << 20;

/// Memory that a check takes beside the image: a buffer for a chunk, the states of the decoder, findings.
const MEMORY: usize = 16 << 20;

fuzz_target!(|data: &[u8]| {
    let Some(tables) = tables(data) else { return };
    let image = tables.sealed();
    let file = MemoryFile::new(&image);
    let source = Source::open(&file.path()).expect("opened");
    let cancel = Cancel::default();
    let patience = Patience { left: AtomicU64::new(2 * PATIENCE), cancel: cancel.clone() };
    let options = Options { threads: 1, ..Options::default() };
    let report = heap::bounded(MEMORY + 8 * image.len(), || check(&source, &options, &patience, &cancel));
    match &report.error {
        None | Some(Error::Cancelled) => (),
        // A pack beside the image that is not there.
        Some(Error::NoPack { .. }) => (),
        Some(error) => panic!("no verdict: {error}"),
    }
    report.write_text(&mut Vec::new(), false).expect("memory");
    report.write_json(report.exit_code(), &mut Vec::new()).expect("memory");
    if report.is_clean() {
        assert!(report.error.is_none());
        let errors = walk::walk(&tables).errors;
        assert!(errors.is_empty(), "found clean: {errors:?}");
    }
});

/// The tables that an input says. No image has them in so few bytes as are taken for changes.
fn tables(data: &[u8]) -> Option<Tables> {
    const CHANGES: usize = 12;
    if data.len() > CHANGES {
        return Tables::parse(data);
    }
    let image = Draft::sample().image();
    let mut sample = Tables::input(&image);
    // Not in the pack, whose bytes have digests in the tables.
    let pack = (draft::layout(&image).tree_offset - BLOCK_BYTES) as usize;
    let len = sample.len() - pack;
    let mut input = Input(data);
    while !input.is_empty() {
        sample[usize::from(input.u16()) % len] ^= input.u8();
    }
    Tables::parse(&sample)
}

/// Interrupts a check that takes too long.
#[derive(Debug)]
struct Patience {
    left: AtomicU64,
    cancel: Cancel,
}

impl Progress for Patience {
    fn begin(&self, stage: &'static str, total: u64) {
        // A hole is hashed as a whole before it is told.
        if stage == "data" && total > PATIENCE {
            self.cancel.flag().store(true, Ordering::Relaxed);
        }
    }

    fn advance(&self, units: u64) {
        let left = self.left.load(Ordering::Relaxed).saturating_sub(units);
        self.left.store(left, Ordering::Relaxed);
        assert!(left > 0, "more work than the files have bytes");
    }

    fn end(&self) {}
}
