// SPDX-License-Identifier: GPL-2.0-or-later

//! Builds tesserafs images from directories, tar archives and container images.
//!
//! `format/FORMAT.md` is the specification of the result: the same tree gives the same bytes, whatever the
//! order of directories on disk, the number of threads, the machine, the clock, the umask or the path that it
//! was built at.
//!
//! Modules, in the order in which data passes them:
//!
//! - [`cli`] reads the command line, [`config`] is what it asks for, validated;
//! - [`mod@build`] does all that follows; [`source`] walks a directory, an archive or a container image, [`tree`] numbers what it finds;
//! - [`chunker`] says where contents are cut, [`mod@encode`] runs that, dedup and compression on all processors;
//! - [`packs`] has the chunks of other images, and those that go beside this one;
//! - [`convert`] makes one form of the other, [`compose`] one image of several, [`bundle`] one of an older one, [`repair`] a whole one of a
//!   damaged one;
//! - [`layout`] places the tables, [`image`] writes them, [`sign`] signs;
//! - [`output`] is the file, [`report`] and [`progress`] tell of it, [`error`] and [`exit_code`] of failure.
//!
//! # Memory
//!
//! A build holds at most twice [`memory_budget`] of file data, whatever the size of the files: windows of files that are being
//! cut, and compressed chunks that wait for their turn. Beyond that it grows with the tables of the image: less than 200
//! bytes for an inode with a content of its own and a name of some 12 bytes, which an archive needs twice (`BENCH.md` has the
//! figures), and about 250 bytes for a chunk, which is some 2 MB for 1 GB of distinct data. `tests/memory.rs` bounds what
//! is asked of the allocator, which is more: a table that grows is counted with its copy.

#![forbid(unsafe_code)]

mod build;
pub mod bundle;
pub mod chunker;
pub mod cli;
pub mod compose;
pub mod config;
pub mod convert;
pub mod encode;
pub mod error;
pub mod exit_code;
pub mod file_contexts;
pub mod image;
pub mod layout;
pub mod output;
pub mod packs;
pub mod progress;
pub mod repair;
pub mod report;
pub mod sign;
pub mod source;
pub mod tree;
pub mod xattr;

pub use self::build::{build, build_layers, LayersReport};

/// Bytes of file data that `threads` threads have in flight.
pub const fn memory_budget(threads: usize) -> u64 {
    (48 << 20) + ((threads as u64) << 23)
}

/// The name of the program, as it is installed and as `mkfs -t tesserafs` looks for it.
pub const PROGRAM: &str = "mkfs.tesserafs";
