// SPDX-License-Identifier: GPL-2.0-or-later

//! The images of a host, as they came from registries: what several of them need is there once.
//!
//! ```text
//! blobs/sha256/HEX        image files and packs: complete, compared with their digest as a whole, never written again
//! filling/IMAGE/HEX       one that is being filled for the image with that ID, and for no other; complete ones are links to blobs
//! images/sha256/HEX       manifests and configs
//! refs/HOST/REPO/NAME:TAG links to manifests in images/: what is not reached from one of them can go
//! lock                    shared by those who use the store, exclusive for those who remove something
//! ```
//!
//! Modules, in the order in which an image comes and goes:
//!
//! - `dir`: nothing in the store leads out of it; `lock`: who may do what;
//! - `filling`: files grow, and become blobs; `documents` and `refs` say what they are;
//! - `images`: what a manifest needs is there, or not;
//! - `in_use`: what is mounted; `gc`: what can go; `check`: whether all is what its name says.
//!
//! # Crashes
//!
//! Blobs come first, then documents, and the reference last; each gets its name when it is complete and on the disk. So whatever a
//! reference leads to is there. Files that a crash leaves beyond that are in `filling/`, where the next pull goes on, or garbage, which
//! is found because no reference leads to it.
//!
//! # Trust
//!
//! A manifest can say anything. It names files by digests alone, and references are parsed before they are names, so nothing that it
//! says is a path. Two manifests that name one pack fill it each for itself: which of them has the right bytes is known when
//! all bytes are there, and only then the file can be seen by others.

mod check;
mod dir;
mod documents;
mod filling;
mod gc;
mod images;
mod in_use;
mod lock;
mod refs;
#[cfg(test)]
mod tests;

use std::env;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tesserafs_format::Digest;
use tesserafs_image::{text, Error};

use self::dir::{failed, refuse, Dir};

pub use self::check::{Checked, Problem};
pub use self::documents::DOCUMENT_MAX;
pub use self::filling::{Filling, Finished, Slot, Unfinished};
pub use self::gc::{Garbage, Item, Kept, Wanted, What, UNFINISHED};
pub use self::images::{check_image, Image, Listed, Summary};
pub use self::in_use::{MountedAt, Places};
pub use self::lock::{Collecting, Using};
pub use self::refs::Named;

/// The store of a host, or of a user.
#[derive(Debug)]
pub struct Store {
    root: Dir,
    blobs: Dir,
    filling: Dir,
    images: Dir,
    refs: Dir,
}

/// A complete file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its bytes.
    pub len: u64,
}

impl Store {
    /// The directory of the store where nobody names one: `/var/lib/tesserafs` for root, else `$XDG_DATA_HOME/tesserafs`.
    pub fn default_dir() -> Result<PathBuf, Error> {
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/tesserafs".into());
        }
        // A relative one is to be ignored, says the XDG Base Directory Specification.
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data =
            absolute("XDG_DATA_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/share")));
        let none =
            || Error::Refused("found neither XDG_DATA_HOME nor HOME, expected --store DIR then".to_owned());
        data.map(|data| data.join("tesserafs")).ok_or_else(none)
    }

    /// Opens the store in `dir`. `None` where there is none.
    pub fn open(dir: &Path) -> Result<Option<Self>, Error> {
        let Some(root) = Dir::at(dir)? else { return Ok(None) };
        let dirs = [root.dir("blobs")?, root.dir("filling")?, root.dir("images")?, root.dir("refs")?];
        let [Some(blobs), Some(filling), Some(images), Some(refs)] = dirs else { return Ok(None) };
        let (Some(blobs), Some(images)) = (blobs.dir("sha256")?, images.dir("sha256")?) else {
            return Ok(None);
        };
        Ok(Some(Self { root, blobs, filling, images, refs }))
    }

    /// Opens the store in `dir`, and makes what is missing of it. Nobody but its owner can look into one that is made here: images
    /// have files that only root may read.
    pub fn create(dir: &Path) -> Result<Self, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| failed("make", dir, error))?;
        let gone = || Error::Refused(format!("{}: the directory is gone", text::path(dir)));
        let root = Dir::at(dir)?.ok_or_else(gone)?;
        let (blobs, images) = (root.make("blobs")?.make("sha256")?, root.make("images")?.make("sha256")?);
        let (filling, refs) = (root.make("filling")?, root.make("refs")?);
        lock::make_lock(&root)?;
        Ok(Self { root, blobs, filling, images, refs })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The complete file with that digest, if it is there.
    pub fn blob(&self, digest: &Digest) -> Result<Option<StoredFile>, Error> {
        let name = digest.to_string();
        let Some(stat) = self.blobs.stat_file(&name)? else { return Ok(None) };
        Ok(Some(StoredFile { path: self.blobs.join(name), len: u64::try_from(stat.st_size).unwrap_or(0) }))
    }

    /// The same, which has `len` bytes by what a manifest says: a file that was compared with its digest has no other number.
    pub fn blob_of(&self, digest: &Digest, len: u64) -> Result<Option<StoredFile>, Error> {
        let blob = self.blob(digest)?;
        match &blob {
            Some(StoredFile { path, len: found }) if *found != len => {
                let expected = format_args!("{len}, as the manifest says; `tesserafs fsck` tells whether it is the file that is wrong");
                Err(refuse(path, format_args!("{found} bytes"), expected))
            }
            _ => Ok(blob),
        }
    }

    /// The directory in which an image finds its packs; `None` while one of them is neither complete nor being filled.
    ///
    /// That is where all complete files are, or the image's own directory, where some are not complete.
    pub fn pack_dir(&self, image_id: &Digest, packs: &[Digest]) -> Result<Option<PathBuf>, Error> {
        if self.have(packs)? {
            return Ok(Some(self.blobs.path().to_owned()));
        }
        let Some(dir) = self.filling.dir(image_id.to_string())? else { return Ok(None) };
        for pack in packs {
            if dir.stat_file(pack.to_string())?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(dir.path().to_owned()))
    }

    /// Whether all these files are complete.
    fn have(&self, files: &[Digest]) -> Result<bool, Error> {
        for file in files {
            if self.blob(file)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
