// SPDX-License-Identifier: GPL-2.0-or-later

//! The errors of a build, each with the name of the file that it concerns.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tesserafs_format::FormatError;
use tesserafs_image::text;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why no image was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request makes no sense; nothing was touched.
    #[error("{0}")]
    Usage(String),
    /// A system call failed.
    #[error("cannot {action} {}: {source}", Shown(.path))]
    Io {
        /// The action that failed, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// A file was not the same after it was read.
    #[error("{} changed while it was read: {what}; build from a tree at rest, or from a snapshot", Shown(.path))]
    Changed {
        /// The file.
        path: PathBuf,
        /// The difference.
        what: &'static str,
    },
    /// The source has something that an image cannot hold.
    #[error("{}: {reason}", Shown(.path))]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The property that cannot be held, and a remedy.
        reason: String,
    },
    /// Device nodes, all of them.
    #[error("{}", device_list(.0))]
    Devices(Vec<PathBuf>),
    /// The archive is not one, or a damaged one.
    #[error("{} at byte {offset}: {reason}", Shown(.path))]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Where its entry begins.
        offset: u64,
        /// The defect.
        reason: String,
    },
    /// A key, certificate or signature does not serve.
    #[error("{0}")]
    Signature(String),
    /// What an earlier run left was of no use, and is removed.
    #[error("{cause}; what an earlier run has left in {} is removed: apply the bundle again", Shown(.path))]
    BadRest {
        /// The reason.
        cause: Box<Error>,
        /// The unfinished file.
        path: PathBuf,
    },
    /// The image would pass a limit of the format.
    #[error("the image would pass a limit of the format: {0}")]
    Limit(FormatError),
    /// An existing image is damaged.
    #[error("{}: {source}", Shown(.path))]
    Image {
        /// The image.
        path: PathBuf,
        /// The rule that it breaks.
        source: FormatError,
    },
    /// A pack that a parent names is not there.
    #[error("cannot read {}, a pack that {} names: {source}; --packdir must have the packs of all parents", Shown(.path), Shown(.image))]
    Pack {
        /// The parent.
        image: PathBuf,
        /// The pack.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// An existing image cannot be read.
    #[error(transparent)]
    Read(#[from] tesserafs_image::Error),
    /// The unfinished file stays, for the next run.
    #[error("{cause}; {} has what is there, and the next run goes on with it", Shown(.path))]
    Unfinished {
        /// The reason.
        cause: Box<Error>,
        /// The unfinished file.
        path: PathBuf,
    },
    /// The image would pass a limit of the format.
    #[error("more {0} than an image can hold")]
    TooMany(&'static str),
    /// Another thread failed; its error is the one to show.
    #[error("stopped by an error elsewhere")]
    Stopped,
    /// libzstd failed.
    #[error("zstd: {0}")]
    Compress(&'static str),
}

impl Error {
    /// An [`Error::Io`] as the argument of `map_err`.
    pub fn io<'a, E: Into<io::Error>>(action: &'static str, path: &'a Path) -> impl FnOnce(E) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// An [`Error::Unsupported`].
    pub fn unsupported(path: &Path, reason: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        Self::Limit(error)
    }
}

/// How many device nodes an error names.
const DEVICES_SHOWN: usize = 20;

fn device_list(nodes: &[PathBuf]) -> String {
    let mut text = format!(
        "{} device node{} cannot be in an image, because device numbers differ from machine to machine; \
         leave them out with --devices=skip:",
        nodes.len(),
        if nodes.len() == 1 { "" } else { "s" }
    );
    for node in nodes.iter().take(DEVICES_SHOWN) {
        text.push_str(&format!("\n  {}", Shown(node)));
    }
    if nodes.len() > DEVICES_SHOWN {
        text.push_str(&format!("\n  and {} more", nodes.len() - DEVICES_SHOWN));
    }
    text
}

/// Bytes of a name that are shown; no system call takes more, and an archive may have 64 MiB.
const SHOWN_MAX: usize = 4096;

/// Shows a name as [`text::escape`] does, so that it neither writes control characters to a terminal nor floods it.
pub struct Shown<'a>(pub &'a Path);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_os_str().as_bytes();
        match bytes.get(..SHOWN_MAX) {
            Some(start) if bytes.len() > SHOWN_MAX => {
                write!(f, "{}... ({} bytes)", text::escape(start), bytes.len())
            }
            _ => f.write_str(&text::escape(bytes)),
        }
    }
}

/// A path made of bytes from an archive or a directory.
pub fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_fsck_prints_them() {
        for name in [
            b"plain \xc3\xa4".as_slice(),
            b"back\\slash",
            b"new\nline",
            b"\x1b[31m",
            b"caf\xe9",
            b"\xe2\x80\xaegnp",
            b"\xc2\x9b",
        ] {
            assert_eq!(Shown(path_of(name)).to_string(), text::escape(name));
        }
        assert_eq!(Shown(path_of(b"caf\xe9\\")).to_string(), "caf\\351\\\\");
    }

    #[test]
    fn a_name_without_end_is_cut() {
        let name = [b'n'; 5000];
        let shown = Shown(path_of(&name)).to_string();
        assert!(shown.ends_with("nnn... (5000 bytes)") && shown.len() < 4200, "{shown}");
        assert_eq!(Shown(path_of(&name[..4096])).to_string().len(), 4096);
    }
}
