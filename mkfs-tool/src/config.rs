// SPDX-License-Identifier: GPL-2.0-or-later

//! The build that is wanted, validated: nothing behind this looks at the command line or the environment.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use tesserafs_format::limits::{ANNOTATIONS_MAX, ANNOTATION_KEY_MAX};
use tesserafs_format::Profile;
use tesserafs_image::profile::ProfileName;
use tesserafs_image::sbom::KEY;

use crate::encode::zstd_version;
use crate::error::{path_of, Error, Result, Shown};
use crate::image::Annotations;
use crate::packs::SharedForm;
use crate::sign::Signer;
use crate::source::oci::OciImage;
use crate::source::Filter;

/// Where the tree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourcePath {
    /// A directory.
    Directory(PathBuf),
    /// A tar archive; `-` is standard input.
    Tar(PathBuf),
    /// A container image.
    Oci(OciImage),
}

/// A build.
#[derive(Debug)]
pub struct Config {
    /// The image to build; of layers the directory of the images.
    pub image: PathBuf,
    /// Where the tree is.
    pub source: SourcePath,
    /// The files that are left out, and the changes to attributes.
    pub filter: Filter,
    /// How to cut and compress.
    pub profile: Profile,
    /// Threads that read and compress.
    pub threads: NonZeroUsize,
    /// Keys and values to embed.
    pub annotations: Annotations,
    /// Whether to embed a bill of materials, under a key of its own.
    pub sbom: bool,
    /// The signer.
    pub signer: Option<Signer>,
    /// Where to write the bytes to sign elsewhere.
    pub signed_data: Option<PathBuf>,
    /// Packs beside the image; nothing for an image in one file.
    pub shared: Option<SharedForm>,
    /// Whether an existing image may be replaced.
    pub force: bool,
    /// Whether nothing is written.
    pub dry_run: bool,
}

/// The zstd level unless told otherwise.
pub const DEFAULT_LEVEL: u32 = 3;

/// The profile unless told otherwise; `FORMAT.md` 5.6 says why.
pub fn default_profile(level: u32) -> Profile {
    named_profile(ProfileName::Default, level)
}

/// The profile of a name, for the libzstd of this program.
pub fn named_profile(name: ProfileName, level: u32) -> Profile {
    name.profile(level, zstd_version())
}

/// Proves that a profile is one that readers accept, and that the chunker can cut with.
pub fn check_profile(profile: &Profile) -> Result<()> {
    let sizes = [profile.chunk_min, profile.chunk_avg, profile.chunk_max];
    if sizes.iter().any(|size| size % 2 != 0) {
        return Err(Error::Usage("the three chunk sizes must be even".into()));
    }
    Profile::parse(&profile.to_raw())
        .map(|_| ())
        .map_err(|error| Error::Usage(format!("the chunking parameters do not fit: {error}")))
}

/// Proves that annotations fit, and a bill of materials beside them where one is wanted.
pub fn check_annotations(annotations: &Annotations, sbom: bool) -> Result<()> {
    if sbom && annotations.contains_key(KEY) {
        let key = Shown(path_of(KEY));
        return Err(Error::Usage(format!(
            "--annotate {key}: --sbom makes this annotation; give one of the two"
        )));
    }
    if annotations.len() as u64 + u64::from(sbom) > ANNOTATIONS_MAX {
        return Err(Error::Usage(format!("an image holds {ANNOTATIONS_MAX} annotations")));
    }
    for (key, value) in annotations {
        if key.is_empty() || key.len() > ANNOTATION_KEY_MAX as usize {
            return Err(Error::Usage(format!("an annotation's key has 1 to {ANNOTATION_KEY_MAX} bytes")));
        }
        if u32::try_from(value.len()).is_err() {
            return Err(Error::Usage("an annotation has 4 GiB at most".into()));
        }
    }
    Ok(())
}
