// SPDX-License-Identifier: GPL-2.0-or-later

//! Whether an image is canonical: those that the builder makes are; those in which a freedom is taken that readers
//! leave are clean and are not, and the report says where and which.

use std::io::Write;

use fsck_tesserafs::canonical::Freedom;
use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Report, Source};

#[path = "../bench/mod.rs"]
mod bench;
#[path = "../../../format/tests/common/mod.rs"]
mod common;

mod built;
mod command;
mod freedoms;

/// The report on an image that is compared with what a builder makes.
fn compare(image: &[u8], threads: usize) -> Report {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(image).expect("written");
    let source = Source::open(file.path()).expect("opened");
    let options = Options { threads, canonical: true, ..Options::default() };
    check(&source, &options, &Silent, &Cancel::default())
}

/// The freedom, the region and the first byte that a report names.
fn difference(report: &Report) -> Option<(Freedom, &'static str, u64)> {
    report.difference.map(|difference| (difference.freedom, difference.region, difference.byte))
}
