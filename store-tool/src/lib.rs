// SPDX-License-Identifier: GPL-2.0-or-later

//! Works with tesserafs images: mounts them, by the kernel driver or by a daemon that serves them with FUSE, and makes one form of another.
//!
//! Modules, in the order in which a mount meets them:
//!
//! - [`cli`]: the command line; [`options`]: what of it, or of `-o`, makes a mount;
//! - [`head`]: the image is opened, and refused or not by its ID and its signature;
//! - [`mount`]: by the [`kernel`] driver, or by
//! - [`daemon`]: the process that serves it, and [`fuse`] its answers; [`log`]: what it reports;
//! - [`umount`]: the end of either.
//!
//! And those in which an image meets a registry:
//!
//! - [`mod@reference`]: its name there; [`artifact`]: the documents that describe it;
//! - [`registry`]: one repository, read and written over HTTP; [`push`]: what brings an image there, and [`pull`] here;
//! - [`store`]: the images of this host; [`export`]: one of them as one file.
//!
//! [`diff`] compares images, [`sbom`] says which packages are in one; to convert them is [`mkfs_tesserafs::convert`], and to repair them
//! [`mkfs_tesserafs::repair`].

#![forbid(unsafe_code)]

pub mod artifact;
mod attach;
pub mod cli;
mod confine;
pub mod daemon;
pub mod diff;
pub mod export;
pub mod fuse;
pub mod head;
pub mod kernel;
pub mod log;
pub mod mount;
mod mountinfo;
pub mod options;
pub mod pull;
pub mod push;
pub mod reference;
pub mod registry;
pub mod sbom;
pub mod store;
pub mod umount;

/// The name of the program in its messages.
pub const NAME: &str = "tesserafs";

use std::io::{self, Write};

/// Prints a line on standard error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{NAME}: {line}");
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors say their cause themselves.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
