// SPDX-License-Identifier: GPL-2.0

//! Failures, as an errno for the caller and as one line for the log.
//!
//! A broken rule keeps its name until it leaves the filesystem: only `Stats::report` turns it into an
//! errno, and says in which image, where, what was found and what was expected.

use kernel::{fmt, prelude::*};

use tesserafs_format::{Digest, FormatError, Place, Rule};

/// A failed operation.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// The image breaks a rule of the format.
    Format(FormatError),
    /// The backing file gave an error, or fewer bytes than it should.
    Backing(Place, Error),
    /// The signature is not one that can be checked, or not one over this image.
    Signature(Place, Error),
    /// The kernel gave an error that is no fault of the image, or one that was reported where it
    /// arose.
    Kernel(Error),
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Failure::Format(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Kernel(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Format(error) => core::fmt::Display::fmt(error, f),
            Failure::Backing(place, error) => write!(f, "backing-read @ {}: {:?}", place, error),
            Failure::Signature(place, error) => {
                let rule = Rule::Signature;
                write!(
                    f,
                    "{} @ {}: {:?} (rule: {})",
                    rule.name(),
                    place,
                    error,
                    rule.text()
                )
            }
            Failure::Kernel(error) => write!(f, "{:?}", error),
        }
    }
}

impl Failure {
    /// A failed read of the backing file. An error because the task is being killed, or memory is
    /// short, says nothing about the file.
    pub(crate) fn backing(place: Place, error: Error) -> Self {
        if error == EINTR || error == ENOMEM {
            Failure::Kernel(error)
        } else {
            Failure::Backing(place, error)
        }
    }

    /// The errno that the caller gets.
    pub(crate) fn errno(&self) -> Error {
        match self {
            Failure::Format(error) if error.is_foreign() => EINVAL,
            Failure::Format(error) if error.is_unsupported() => EOPNOTSUPP,
            Failure::Format(error) if error.is_digest_mismatch() => EBADMSG,
            Failure::Format(_) => EFSCORRUPTED,
            Failure::Backing(..) => EIO,
            Failure::Signature(_, error) | Failure::Kernel(error) => *error,
        }
    }

    /// Whether the same may succeed at once, for another task or with more memory.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Failure::Kernel(error) if *error == EINTR || *error == ENOMEM)
    }

    /// Whether the image or its backing file is to blame.
    pub(crate) fn is_of_the_image(&self) -> bool {
        !matches!(self, Failure::Kernel(_))
    }
}

/// The ID of an image, as the log names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ImageId(pub(crate) Digest);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}
