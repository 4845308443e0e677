// SPDX-License-Identifier: GPL-2.0-or-later

//! Code that the fuzz targets share.
//!
//! A target is a program of `fuzz_targets/`; the invariant that it tries to break stands at its top. `cargo xtask fuzz`
//! builds them, makes their first inputs with `corpus`, and runs them; a defect becomes a named test of the crate it is in.
//!
//! Metadata is verified before anything parses it, which would keep a fuzzer from all parsers. So what lies behind the
//! digests is fuzzed as if verification had passed: [`tables`] makes the tables of an image from an input, and digests
//! them anew where a reader wants to see digests.

pub mod heap;
pub mod input;
pub mod memory_file;
pub mod tables;
pub mod walk;

/// The tiny writer of images of the format crate's tests.
#[path = "../../tests/common/mod.rs"]
pub mod draft;

/// The tiny writer of archives of the builder's tests.
#[path = "../../../mkfs-tool/tests/common/archive.rs"]
pub mod archive;
