// SPDX-License-Identifier: GPL-2.0-or-later

//! Checks, lists and extracts tesserafs images.
//!
//! The steps of a [`check`](check::check), each on what those before it proved:
//!
//! - `check_superblock`: the first block, the length of the file, the pinned image ID;
//! - `check_signature`: the PKCS#7 signature behind the image;
//! - `check_tree`: the Merkle tree, the tree ID, the bytes between tables;
//! - [`walk`](tesserafs_image::walk): inodes, entries, xattrs, and the tree that they make;
//! - `check_map`: packs, chunks, extents, annotations;
//! - `check_chunk`: every stored and decoded byte;
//! - [`canonical`]: only if asked, whether a builder makes the same image.
//!
//! The bytes and the tree are read by [`tesserafs_image`]; [`finding`] names broken rules, [`report`] prints them. [`cli`] and
//! [`config`] are the command.
//!
//! # Memory
//!
//! Metadata that was read is kept up to 64 MiB, and decoded chunks up to some 20 for each thread. Beyond that a check grows by about
//! 60 bytes an inode with a content of its own (measured with 200,000 small files: 38 MB at most, 190 bytes an inode, of which some
//! 105 are metadata). `tests/memory.rs` holds it to that.
//! A comparison with what a builder makes takes the memory of a build besides: see [`mkfs_tesserafs`].

#![forbid(unsafe_code)]

pub mod canonical;
pub mod check;
mod check_chunk;
mod check_map;
pub mod check_signature;
mod check_superblock;
mod check_tree;
pub mod cli;
pub mod config;
pub mod exit_code;
pub mod list;
mod print;
mod probe;
pub mod progress;
pub mod report;
mod run;

pub use check::{check, Options};
pub use exit_code::ExitCode;
pub use report::Report;
pub use tesserafs_image::{finding, metadata, parallel};
pub use tesserafs_image::{Error, Finding, Severity, Source};

/// The name of the program, as it is installed.
pub(crate) const NAME: &str = "fsck.tesserafs";
