// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The on-disk format of tesserafs.
//!
//! `FORMAT.md`, beside this crate, is the normative specification; this crate is its reader.
//! The same source is compiled by cargo for the tools and by Kbuild for the kernel module, hence: no allocation,
//! no I/O, no errno, no unsafe, and no operation on a number from an image that can panic.
//!
//! Modules, in the order in which a read meets them:
//!
//! - [`superblock`] proves the one block from which everything else is reached;
//! - [`merkle`] says which hash block vouches for which metadata block;
//! - [`image`] walks the tables: the caller supplies verified metadata bytes through [`Metadata`];
//! - [`inode`], [`attributes`], [`dirent`], [`xattr`] parse the records of the tree region, [`settable`] knows the xattrs that
//!   a copy of the tree can have;
//! - [`extent`], [`chunk`], [`pack`], [`annotation`] those of the map region;
//! - [`frame`] and [`x86`] are what a chunk's codec needs beside zstd.
//!
//! [`raw`] holds the records as they lie on disk, [`error`] the rules an image can break.

#![cfg_attr(not(CONFIG_RUST), no_std)]
#![crate_name = "tesserafs_format"]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
#![warn(missing_docs, unreachable_pub)]

pub mod annotation;
pub mod attributes;
pub mod chunk;
pub mod digest;
pub mod dirent;
pub mod error;
pub mod extent;
pub mod frame;
pub mod image;
pub mod inode;
pub mod limits;
pub mod merkle;
pub mod num;
pub mod pack;
pub mod raw;
pub mod settable;
pub mod superblock;
pub mod x86;
pub mod xattr;

pub use annotation::Annotation;
pub use attributes::{Attributes, AttributesIndex};
pub use chunk::{Chunk, ChunkIndex, Codec};
pub use digest::{chunk_digest, Digest, Sha256, Verified};
pub use dirent::Dirent;
pub use error::{FormatError, Place, Rule};
pub use extent::{ContentIndex, Extent, Target};
pub use image::{Image, Metadata};
pub use inode::{Directory, FileKind, FileType, Ino, Inode, Timestamp};
pub use merkle::{Geometry, Parent};
pub use pack::{Pack, PackIndex, PackKind};
pub use superblock::{Profile, SuperBlock, Table};
pub use xattr::{XattrEntry, XattrSet, XattrSetIndex};
