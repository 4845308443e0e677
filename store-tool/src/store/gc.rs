// SPDX-License-Identifier: GPL-2.0-or-later

//! What nobody needs any more: found from the names, from what is mounted, and from what was begun.
//!
//! Needed are the images that have a name; those that are mounted, with a name or without one; and those whose files are being filled,
//! until nobody has written one for a while. A name that leads to nothing that can be read ends the search: what that image needs
//! is not known.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Stat};
use tesserafs_format::Digest;
use tesserafs_image::{superblock, text, Error, Source};

use super::dir::{is_dir, is_file, is_new, Dir};
use super::images::packs_of;
use super::in_use::{InUse, Places};
use super::lock::Collecting;
use super::refs::DEPTH_MAX;
use super::Store;
use crate::artifact::{Artifact, Document};
use crate::chain;

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
    /// What it is.
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

/// What can go, and why other files stay that no name leads to.
#[derive(Clone, Debug, Default)]
pub struct Garbage {
    /// What can go, in the order in which it does.
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

/// What is to be found.
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

/// What is needed.
#[derive(Default)]
struct Marks {
    blobs: HashSet<Digest>,
    documents: HashSet<Digest>,
    /// The packs of each image, by its ID.
    images: HashMap<Digest, Vec<Digest>>,
    kept: Vec<Kept>,
    /// Whether the packs of a mounted image could not be told: then each may be one of them.
    all_blobs: bool,
}

impl Marks {
    fn mark(&mut self, manifest: Digest, artifact: &Artifact) {
        self.documents.extend([manifest, artifact.config.digest]);
        self.blobs.extend(artifact.layers().map(|blob| blob.digest));
        let packs = self.images.entry(artifact.image_id).or_default();
        packs.extend(artifact.packs.iter().map(|pack| pack.digest));
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
        let unmarked =
            |dir: &Dir, what, below: &str, marked: &HashSet<Digest>, files: Vec<(Digest, Stat)>| {
                let garbage = files.into_iter().filter(|(digest, _)| !marked.contains(digest));
                let item = |(digest, stat): (Digest, Stat)| Item {
                    what,
                    path: dir.join(digest.to_string()),
                    bytes: len(&stat),
                    names: [below, "sha256", &digest.to_string()].map(OsString::from).to_vec(),
                    digest: Some(digest),
                };
                garbage.map(item).collect::<Vec<_>>()
            };
        items.extend(unmarked(
            &self.images,
            What::Document,
            "images",
            &marks.documents,
            digests(&self.images)?,
        ));
        if !marks.all_blobs {
            items.extend(unmarked(&self.blobs, What::Blob, "blobs", &marks.blobs, blobs));
        }
        self.find_leftovers(&self.root, &mut Vec::new(), &mut items)?;
        Ok(Garbage { items, kept: marks.kept })
    }

    /// Marks what names lead to.
    fn mark_named(&self, marks: &mut Marks) -> Result<(), Error> {
        let unknown = |what: String, why: String, remedy: &str| {
            Error::Refused(format!(
                "nothing was removed, as it is not known what {what} needs: {why}; {remedy}"
            ))
        };
        let (names, others) = self.names_and_others()?;
        for named in names {
            let artifact = self.artifact(&named.manifest).map_err(|error| {
                let shown = text::escape(named.reference.to_string().as_bytes());
                let remedy = format!("`tesserafs pull {shown}` or `tesserafs rm {shown}` first");
                unknown(shown, chain(&error), &remedy)
            })?;
            marks.mark(named.manifest, &artifact);
        }
        if let Some(link) = others.iter().find(|other| other.is_link) {
            let shown = text::path(&link.path);
            return Err(unknown(shown, format!("found {}", link.found), "remove it first"));
        }
        Ok(())
    }

    /// Marks what is mounted.
    fn mark_mounted(&self, marks: &mut Marks, blobs: &[(Digest, Stat)], in_use: &InUse) -> Result<(), Error> {
        for (digest, _) in blobs {
            if marks.blobs.contains(digest) {
                continue;
            }
            let path = self.blobs.join(digest.to_string());
            let source = Source::open(&path)?;
            // Most are packs.
            let head = superblock::read_head(&source).ok();
            let is_used = match &head {
                Some(head) => in_use.has(self, digest, &head.id),
                None => in_use.has_file(self, digest),
            };
            if !is_used {
                continue;
            }
            marks.blobs.insert(*digest);
            let why = match (in_use.mounts(digest).next(), in_use.unknown()) {
                (Some(at), _) => format!("it is mounted at {at}"),
                (None, Some(why)) => format!("it is not known whether it is mounted: {why}"),
                (None, None) => "it is mounted".to_owned(),
            };
            let image_id = head.as_ref().map(|head| head.id);
            marks.kept.push(Kept { image_id, why });
            match head.map(|head| (head.id, packs_of(&source, &head.sb))) {
                Some((id, Ok(packs))) => {
                    let packs: Vec<_> = packs.into_iter().map(|pack| pack.digest).collect();
                    marks.blobs.extend(&packs);
                    marks.images.entry(id).or_default().extend(packs);
                }
                Some((_, Err(error))) => {
                    let why = format!("{}: its packs cannot be told: {}", text::path(&path), chain(&error));
                    marks.kept.push(Kept { image_id, why });
                    marks.all_blobs = true;
                }
                None => {
                    let why = format!("{}: it is in use, and no image", text::path(&path));
                    marks.kept.push(Kept { image_id, why });
                    marks.all_blobs = true;
                }
            }
        }
        Ok(())
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

    /// Marks the documents of images that are mounted and have no name, so that they can get one again.
    fn mark_documents(&self, marks: &mut Marks) -> Result<(), Error> {
        let kept: HashSet<_> = marks.kept.iter().filter_map(|kept| kept.image_id).collect();
        if kept.is_empty() {
            return Ok(());
        }
        for (digest, _) in digests(&self.images)? {
            let Ok(Some(bytes)) = self.document(&digest) else { continue };
            if let Ok(Document::Image(artifact)) = Document::parse(&bytes) {
                if kept.contains(&artifact.image_id) {
                    marks.documents.extend([digest, artifact.config.digest]);
                }
            }
        }
        Ok(())
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
                // What is begun for an image has names that it needs; and nothing of the store lies deeper than a reference has parts.
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

    /// Removes an item; of the path to it no part is a symlink.
    fn remove_item(&self, item: &Item) -> Result<(), Error> {
        let Some((last, above)) = item.names.split_last() else { return Ok(()) };
        let mut dirs: Vec<Dir> = Vec::new();
        for name in above {
            match dirs.last().unwrap_or(&self.root).dir(name)? {
                Some(dir) => dirs.push(dir),
                None => return Ok(()),
            }
        }
        let dir = dirs.last().unwrap_or(&self.root);
        if item.what == What::Unfinished {
            if let Some(files) = dir.dir(last)? {
                for name in files.names()? {
                    files.remove(name)?;
                }
            }
            return dir.remove_dir(last).map(drop);
        }
        dir.remove(last).map(drop)
    }
}

impl Collecting<'_> {
    /// Removes what can go. The result is what went.
    pub fn sweep(&self, wanted: &Wanted<'_>) -> Result<Garbage, Error> {
        let garbage = self.garbage(wanted)?;
        self.remove_all(&garbage)?;
        Ok(garbage)
    }

    /// Removes what can go of these images, which have no name any more: `manifests` are theirs.
    pub fn sweep_images(&self, places: &Places, manifests: &[(Digest, Artifact)]) -> Result<Garbage, Error> {
        let ids: HashSet<_> = manifests.iter().map(|(_, artifact)| artifact.image_id).collect();
        let mut garbage = self.find(places, &|id, _| !ids.contains(id))?;
        let mut theirs: HashSet<Digest> = manifests.iter().map(|(manifest, _)| *manifest).collect();
        theirs.extend(
            manifests.iter().flat_map(|(_, artifact)| super::images::files(artifact)).map(|file| file.0),
        );
        garbage.items.retain(|item| match (item.what, &item.digest) {
            (What::Unfinished, Some(id)) => ids.contains(id),
            (_, Some(digest)) => theirs.contains(digest),
            (_, None) => false,
        });
        garbage.kept.retain(|kept| kept.image_id.is_some_and(|id| ids.contains(&id)));
        self.remove_all(&garbage)?;
        Ok(garbage)
    }

    fn remove_all(&self, garbage: &Garbage) -> Result<(), Error> {
        garbage.items.iter().try_for_each(|item| self.remove_item(item))
    }
}

/// The files in a directory whose names are digests.
fn digests(dir: &Dir) -> Result<Vec<(Digest, Stat)>, Error> {
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
