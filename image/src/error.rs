// SPDX-License-Identifier: GPL-2.0-or-later

//! Errors that end a check, in contrast to findings.

use std::io;
use std::path::PathBuf;

use tesserafs_format::FormatError;
use zerocopy::FromZeros;

use crate::text;

/// Why a check, a listing or an extraction ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read or a write failed.
    #[error("{what}")]
    Io {
        /// The action that failed.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Neither a regular file nor a block device.
    #[error("{} is neither a regular file nor a block device", text::path(.0))]
    NotAnImageFile(PathBuf),
    /// The image is larger than this machine can check.
    #[error("not enough memory for {what}")]
    Memory {
        /// The use that the memory was for.
        what: &'static str,
    },
    /// A pack that the image names is not there.
    #[error("pack {index} is not there: no file {name} in {}", text::path(.dir))]
    NoPack {
        /// Its index.
        index: u16,
        /// Its digest, and so the name of its file.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The file under the name of a pack is another one.
    #[error("{}: {rule}", text::path(.path))]
    Pack {
        /// The file.
        path: PathBuf,
        /// The rule that it breaks.
        rule: FormatError,
    },
    /// Something that the caller asked for is not in the image, or cannot be done.
    #[error("{0}")]
    Refused(String),
    /// The user interrupted.
    #[error("interrupted")]
    Cancelled,
}

/// Why a piece of the image could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The image breaks a rule: a finding, and the check goes on.
    #[error(transparent)]
    Rule(#[from] FormatError),
    /// The check ends.
    #[error(transparent)]
    Stop(#[from] Error),
}

/// A vector of `len` zeros; an error where there is no memory for it.
///
/// The system gives zeroed pages when they are touched. So a table takes the memory of the records that were read, and verified, and an
/// image that says to have more costs none.
pub fn vec_of<T: FromZeros>(len: u64, what: &'static str) -> Result<Vec<T>, Error> {
    let memory = || Error::Memory { what };
    T::new_vec_zeroed(usize::try_from(len).map_err(|_| memory())?).map_err(|_| memory())
}
