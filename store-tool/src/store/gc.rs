// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that nobody needs any more: found from the names, from what is mounted, and from what was begun.
//!
//! Needed are the images that have a name; those that are mounted, with a name or without one; and those whose files are being filled,
//! until nobody has written one for a while. A name that leads to nothing that can be read ends the search: what that image needs
//! is not known.

mod marks;
mod remove;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Stat};
use tesserafs_format::Digest;
use tesserafs_image::Error;

use self::marks::Marks;
use super::dir::{is_dir, is_file, is_new, Dir};
use super::in_use::{InUse, Places};
use super::refs::DEPTH_MAX;
use super::Store;

/// How long a pull that was cut off can be gone on with, in any case.
pub const UNFINISHED: Duration = Duration::from_secs(24 * 60 * 60);

/// The kind of a file that can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An image file or a pack.
    Blob,
    /// A manifest or a config.
    Document,
    /// Files that were begun for an image.
    Unfinished,
    /// The beginning of something, which a crash has left.
    Leftover,
}

/// A file, or the directory of an image, that can go.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its kind.
    pub what: What,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes that it holds alone.
    pub bytes: u64,
    /// Its name, below the root of the store.
    names: Vec<OsString>,
    /// The digest that is its name.
    digest: Option<Digest>,
}

/// The files that can go, and why others stay that no name leads to.
#[derive(Clone, Debug, Default)]
pub struct Garbage {
    /// The files that can go, in the order in which they do.
    pub items: Vec<Item>,
    /// Each of the others with the reason.
    pub kept: Vec<Kept>,
}

/// Something that stays though no name leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The image, where it is known.
    pub image_id: Option<Digest>,
    /// Why it stays.
    pub why: String,
}

/// The request for garbage.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where the system tells what is mounted.
    pub places: &'a Places,
    /// How long ago the last byte was written of files that were begun and are not to be gone on with.
    pub unfinished: Duration,
}

impl Garbage {
    /// Bytes that become free.
    pub fn bytes(&self) -> u64 {
        self.items.iter().fold(0, |sum, item| sum.saturating_add(item.bytes))
    }
}

impl Store {
    /// Finds what can go.
    pub fn garbage(&self, wanted: &Wanted<'_>) -> Result<Garbage, Error> {
        // A file from the future is a new one.
        let goes_on = |_: &Digest, age: Option<Duration>| age.unwrap_or_default() < wanted.unfinished;
        self.find(wanted.places, &goes_on)
    }

    /// Finds what can go. `goes_on` says whether the files stay that were begun for an image with that ID so long ago; `None` where
    /// that cannot be told.
    fn find(
        &self,
        places: &Places,
        goes_on: &dyn Fn(&Digest, Option<Duration>) -> bool,
    ) -> Result<Garbage, Error> {
        let mut marks = Marks::default();
        self.mark_named(&mut marks)?;
        let blobs = digests(&self.blobs)?;
        self.mark_mounted(&mut marks, &blobs, &InUse::look(places))?;
        let mut items = self.find_unfinished(&mut marks, goes_on)?;
        self.mark_documents(&mut marks)?;
        let documents = digests(&self.images)?;
        let documents = documents.iter().filter(|file| !marks.documents.contains(&file.0));
        let blobs = blobs.iter().filter(|file| !marks.all_blobs && !marks.blobs.contains(&file.0));
        items.extend(documents.map(|file| named(What::Document, ["images", "sha256"], &self.images, file)));
        items.extend(blobs.map(|file| named(What::Blob, ["blobs", "sha256"], &self.blobs, file)));
        self.find_leftovers(&self.root, &mut Vec::new(), &mut items)?;
        Ok(Garbage { items, kept: marks.kept })
    }

    /// Finds files that were begun, and marks what goes on.
    fn find_unfinished(
        &self,
        marks: &mut Marks,
        goes_on: &dyn Fn(&Digest, Option<Duration>) -> bool,
    ) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        for (name, stat) in stats(&self.filling)? {
            let Some(id) = digest_of(&name).filter(|_| is_dir(&stat)) else { continue };
            let Some(dir) = self.filling.dir(&name)? else { continue };
            let files = stats(&dir)?;
            let blobs = files.iter().filter_map(|(name, _)| digest_of(name));
            let packs = marks.images.get(&id);
            let is_pack_dir = match packs {
                Some(packs) => !self.have(packs)?,
                None => false,
            };
            // Nobody fills files without the lock of the store: this asks for the case that somebody does.
            let is_locked = rustix::fs::flock(dir.fd(), FlockOperation::NonBlockingLockExclusive).is_err();
            let age = age(&dir, &files);
            if is_pack_dir || is_locked || goes_on(&id, age) {
                marks.blobs.extend(blobs);
                if packs.is_none() {
                    let why = "it is not finished, and `tesserafs pull` can go on".to_owned();
                    marks.kept.push(Kept { image_id: Some(id), why });
                }
                continue;
            }
            let own = files.iter().filter(|(_, stat)| is_file(stat) && stat.st_nlink == 1);
            items.push(Item {
                what: What::Unfinished,
                path: dir.path().to_owned(),
                bytes: own.fold(0, |sum: u64, (_, stat)| sum.saturating_add(len(stat))),
                names: vec!["filling".into(), name],
                digest: Some(id),
            });
        }
        Ok(items)
    }

    /// Finds files without a name of their own.
    fn find_leftovers(
        &self,
        dir: &Dir,
        above: &mut Vec<OsString>,
        items: &mut Vec<Item>,
    ) -> Result<(), Error> {
        for (name, stat) in stats(dir)? {
            if is_dir(&stat) {
                // A directory of an image that was begun has names that the image needs; and nothing of the store lies deeper than a reference has parts.
                let is_other = (above.is_empty() && name == "filling") || above.len() > DEPTH_MAX;
                if let Some(below) = dir.dir(&name)?.filter(|_| !is_other) {
                    above.push(name);
                    self.find_leftovers(&below, above, items)?;
                    above.pop();
                }
            } else if is_new(&name) {
                let names = above.iter().cloned().chain([name.clone()]).collect();
                let (what, path, bytes) = (What::Leftover, dir.join(&name), len(&stat));
                items.push(Item { what, path, bytes, names, digest: None });
            }
        }
        Ok(())
    }
}

/// A file that is named after its digest, in the directory `dir`, which is reached by `above`.
fn named(what: What, above: [&str; 2], dir: &Dir, (digest, stat): &(Digest, Stat)) -> Item {
    let name = digest.to_string();
    Item {
        what,
        path: dir.join(&name),
        bytes: len(stat),
        names: above.into_iter().chain([&*name]).map(OsString::from).collect(),
        digest: Some(*digest),
    }
}

/// The files in a directory whose names are digests.
pub(super) fn digests(dir: &Dir) -> Result<Vec<(Digest, Stat)>, Error> {
    let files = stats(dir)?.into_iter().filter(|(_, stat)| is_file(stat));
    Ok(files.filter_map(|(name, stat)| Some((digest_of(&name)?, stat))).collect())
}

/// The digest that a name is, as it is written here.
pub(super) fn digest_of(name: &OsStr) -> Option<Digest> {
    Digest::from_hex(name.as_bytes()).filter(|digest| digest.to_string().as_bytes() == name.as_bytes())
}

/// The names in a directory, and what they are.
pub(super) fn stats(dir: &Dir) -> Result<Vec<(OsString, Stat)>, Error> {
    let mut stats = Vec::new();
    for name in dir.names()? {
        // Another process may have removed it.
        if let Some(stat) = dir.stat(&name)? {
            stats.push((name, stat));
        }
    }
    Ok(stats)
}

fn len(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// How long ago something was written in a directory; `None` where the clock does not tell.
fn age(dir: &Dir, files: &[(OsString, Stat)]) -> Option<Duration> {
    let own = rustix::fs::fstat(dir.fd()).ok()?;
    let stats = files.iter().map(|(_, stat)| stat).chain([&own]);
    let newest = stats.map(|stat| stat.st_mtime).max()?;
    let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(newest).ok()?))?;
    SystemTime::now().duration_since(written).ok()
}
