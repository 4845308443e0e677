// SPDX-License-Identifier: GPL-2.0-or-later

//! A whole walk over the tables of an image, as if verification had passed.
//!
//! Invariant: errors that can be printed, or what every reader relies on: names, targets and xattrs are such as the kernel
//! can be given; a lookup finds exactly what a listing gives; extents cover a content without a gap, and each byte is found
//! in its extent; only bytes of tables are read. No panic, no overflow; reads are bounded by the number of records.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tesserafs_fuzz::tables::Tables;
use tesserafs_fuzz::walk;

fuzz_target!(|data: &[u8]| {
    let Some(tables) = Tables::parse(data) else { return };
    walk::walk(&tables);
    let most = walk::most_reads(tables.records());
    assert!(tables.reads() <= most, "{} reads, {most} at most", tables.reads());
});
