// SPDX-License-Identifier: GPL-2.0-or-later

//! The request, once the command line was understood: files are read, values are checked.

use std::path::PathBuf;

use clap::ValueEnum;
use tesserafs_format::Digest;
use tesserafs_image::extract;

use crate::check::Options;
use crate::list::Listing;

/// A request for an image.
#[derive(Debug)]
pub struct Config {
    /// The image.
    pub image: PathBuf,
    /// The action that is wanted.
    pub mode: Mode,
    /// The part of the tree that it is wanted of; all of it where nothing is said.
    pub path: Option<Vec<u8>>,
    /// The options of the check.
    pub options: Options,
    /// The report is for a program.
    pub json: bool,
    /// Only findings and errors are said.
    pub quiet: bool,
    /// Also said is what only a privilege was lacking for.
    pub verbose: bool,
    /// That only a privilege was lacking for something is no excuse.
    pub strict: bool,
    /// How progress is shown.
    pub progress: Shown,
    /// Where fsck(8) reads how far it is.
    pub progress_fd: Option<i32>,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shown {
    /// A bar on a terminal; elsewhere lines that name the step, if it takes longer than ten seconds
    #[default]
    Auto,
    /// Lines on standard error: as each stage begins, and every five seconds
    Plain,
    /// Nothing
    None,
}

/// An action on an image.
#[derive(Debug)]
pub enum Mode {
    /// A check.
    Check,
    /// Tells udev what the image is.
    Probe,
    /// Its files, as text.
    List(Listing),
    /// Its tree, in a directory.
    Extract(PathBuf, extract::Options),
    /// Its tree, as an archive.
    Tar,
    /// The bytes of a file.
    Cat(Vec<u8>),
    /// The bytes of an annotation.
    Annotation(Vec<u8>),
}

/// Parses an image ID: 64 hexadecimal digits, with `sha256:` before them or not (the mount option `digest=` wants it).
pub fn parse_image_id(text: &str) -> Result<Digest, String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    Digest::from_hex(hex.as_bytes()).ok_or_else(|| "not sha256: and 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_ids_have_a_prefix_or_not() {
        let hex = "0123456789abcdef".repeat(4);
        let digest = parse_image_id(&hex).expect("64 digits");
        assert_eq!(digest.to_string(), hex);
        assert_eq!(parse_image_id(&format!("sha256:{hex}")), Ok(digest));
        assert!(parse_image_id(&hex[1..]).is_err());
        assert!(parse_image_id("sha512:00").is_err());
    }
}
