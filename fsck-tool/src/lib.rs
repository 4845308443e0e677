// SPDX-License-Identifier: GPL-2.0

//! Checks, lists and extracts tesserafs images.
//!
//! The steps of a [`check`](check::check), each on what those before it proved:
//!
//! - `check_superblock`: the first block, the length of the file, the pinned image ID;
//! - `check_signature`: the PKCS#7 signature behind the image;
//! - `check_tree`: the Merkle tree, the tree ID, the bytes between tables;
//! - `walk`: inodes, entries, xattrs, and the tree that they make;
//! - `check_map`: packs, chunks, extents, annotations;
//! - `check_chunk`: every stored and decoded byte.
//!
//! [`source`] reads bytes, [`metadata`] those that the Merkle tree vouches for; [`finding`] names broken rules,
//! [`report`] prints them. [`cli`] and [`config`] are the command.

#![forbid(unsafe_code)]

pub mod check;
mod check_chunk;
mod check_map;
pub mod check_signature;
mod check_superblock;
mod check_tree;
pub mod cli;
pub mod config;
pub mod error;
pub mod exit_code;
mod extract;
pub mod finding;
pub mod hash;
pub mod list;
pub mod metadata;
mod packs;
pub mod parallel;
pub mod progress;
pub mod report;
pub mod source;
pub mod text;
mod walk;

pub use check::{check, Options};
pub use error::Error;
pub use exit_code::ExitCode;
pub use finding::{Finding, Severity};
pub use report::Report;
pub use source::Source;
