// SPDX-License-Identifier: GPL-2.0-or-later

//! Whether all that is in the store is what its name says.
//!
//! A broken file can be removed: the next pull fetches it again, into a new file. An image that is mounted keeps the file that it
//! has opened.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, Stat};
use tesserafs_format::{ChunkIndex, Image as Tables, PackIndex};
use tesserafs_image::packs::Packs;
use tesserafs_image::{text, Broken, Cancel, Error, Source, VerifiedMetadata};

use super::dir::{identity, is_dir, is_file, is_new, kind, Dir};
use super::filling::hash;
use super::gc::{digest_of, stats};
use super::images::check_image;
use super::lock::{Collecting, LOCK};
use super::Store;
use crate::artifact::Artifact;
use crate::chain;

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is.
    pub path: PathBuf,
    /// The fault: what was found, and what was expected.
    pub what: String,
    /// Whether an image is broken by it. Other things do not belong here, and do no harm.
    pub is_error: bool,
    /// The file of `blobs` or `images` that is to be removed, so that a pull fetches it again.
    remove: Option<(Kind, OsString)>,
}

impl Problem {
    /// Whether it is a file that can be removed, so that a pull fetches it again.
    pub fn can_go(&self) -> bool {
        self.remove.is_some()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blob,
    Document,
}

/// The numbers of things that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Names of images.
    pub images: u64,
    /// Files, of all kinds.
    pub files: u64,
    /// Bytes that were compared with a digest.
    pub bytes: u64,
}

/// A check that is under way.
struct Check<'a> {
    store: &'a Store,
    cancel: &'a Cancel,
    found: &'a mut dyn FnMut(Problem),
    checked: Checked,
}

impl Store {
    /// Reads all files, and compares them with their digests. Each file that is wrong is handed to `found`; an error is of the system.
    pub fn check(&self, cancel: &Cancel, found: &mut dyn FnMut(Problem)) -> Result<Checked, Error> {
        let mut check = Check { store: self, cancel, found, checked: Checked::default() };
        check.root()?;
        check.files(&self.blobs, Kind::Blob)?;
        check.files(&self.images, Kind::Document)?;
        check.names()?;
        check.unfinished()?;
        Ok(check.checked)
    }
}

impl Check<'_> {
    fn error(&mut self, path: PathBuf, what: String, remove: Option<(Kind, OsString)>) {
        (self.found)(Problem { path, what, is_error: true, remove });
    }

    fn note(&mut self, path: PathBuf, what: String) {
        (self.found)(Problem { path, what, is_error: false, remove: None });
    }

    fn stray(&mut self, dir: &Dir, name: &OsStr, stat: &Stat) {
        let what = if is_new(name) {
            "found a file that was not finished; `tesserafs gc` removes it".to_owned()
        } else {
            format!("found {}, expected no file of that name", kind(stat))
        };
        self.note(dir.join(name), what);
    }

    /// The directory of the store, and those that are in between.
    fn root(&mut self) -> Result<(), Error> {
        let store = self.store;
        let known = |names: &[&str], name: &OsStr| names.iter().any(|known| name == *known);
        let own: [(Option<Dir>, &[&str]); 3] = [
            (None, &["blobs", "filling", "images", "refs", LOCK]),
            (store.root.dir("blobs")?, &["sha256"]),
            (store.root.dir("images")?, &["sha256"]),
        ];
        for (dir, names) in own {
            let dir = dir.as_ref().unwrap_or(&store.root);
            for (name, stat) in stats(dir)? {
                if !known(names, &name) {
                    self.stray(dir, &name, &stat);
                }
            }
        }
        Ok(())
    }

    /// All files of a directory in which a file is named after its digest.
    fn files(&mut self, dir: &Dir, what: Kind) -> Result<(), Error> {
        for (name, stat) in stats(dir)? {
            let Some(digest) = digest_of(&name) else {
                self.stray(dir, &name, &stat);
                continue;
            };
            self.checked.files += 1;
            let path = dir.join(&name);
            if !is_file(&stat) {
                let said = format!("found {}, expected a regular file", kind(&stat));
                // Only its owner knows the use of a directory.
                self.error(path, said, (!is_dir(&stat)).then_some((what, name)));
                continue;
            }
            let Some(file) = dir.file(&name, OFlags::RDONLY)? else { continue };
            let found = match hash(&file, &path, u64::try_from(stat.st_size).unwrap_or(0), self.cancel) {
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                // The disk may have lost it.
                Err(error) => {
                    self.error(path, chain(&error), Some((what, name)));
                    continue;
                }
                Ok(found) => found,
            };
            self.checked.bytes = self.checked.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or(0));
            if found != digest {
                let said = format!("found a file whose digest is {found}, expected the one in its name");
                self.error(path, said, Some((what, name)));
            } else if stat.st_mode & 0o222 != 0 {
                let mode = stat.st_mode & 0o7777;
                self.note(path, format!("found mode {mode:04o}, expected 0444: nothing writes to it again"));
            }
        }
        Ok(())
    }

    /// The images that have names.
    fn names(&mut self) -> Result<(), Error> {
        let (names, others) = self.store.names_and_others()?;
        for other in others {
            let what = format!("found {}, expected links to manifests only", other.found);
            // Nobody can tell which image it names: garbage cannot be collected.
            (self.found)(Problem { path: other.path, what, is_error: other.is_link, remove: None });
        }
        for named in names {
            self.checked.images += 1;
            let shown = text::escape(named.reference.to_string().as_bytes());
            let path = self.store.path_of(&named.reference);
            match self.store.artifact(&named.manifest) {
                Err(error) => self.error(path, chain(&error), None),
                Ok(artifact) => {
                    if let Err(why) = self.image(&artifact) {
                        self.error(
                            path,
                            format!(
                                "{why}; `tesserafs fsck --remove` and then `tesserafs pull {shown}` mend it"
                            ),
                            None,
                        );
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether an image has all that its manifest says.
    fn image(&mut self, artifact: &Artifact) -> Result<(), String> {
        let of = |error: Error| chain(&error);
        let store = self.store;
        let image = &artifact.image;
        let found = store.blob_of(&image.digest, image.len).map_err(of)?;
        let found = found.ok_or_else(|| format!("found no blob {}, expected the image", image.digest))?;
        let source = Source::open(&found.path).map_err(of)?;
        let head = check_image(artifact, &source).map_err(of)?;
        if store.document(&artifact.config.digest).map_err(of)?.is_none() {
            return Err(format!("found no document {}, expected the config", artifact.config.digest));
        }
        for pack in &artifact.packs {
            store.blob_of(&pack.digest, pack.len).map_err(of)?;
        }
        let packs: Vec<_> = artifact.packs.iter().map(|pack| pack.digest).collect();
        let dir = store.pack_dir(&artifact.image_id, &packs).map_err(of)?;
        let dir = dir.ok_or_else(|| {
            "found a pack that is neither complete nor begun, expected all of them".to_owned()
        })?;
        if dir == store.blobs.path() {
            return Ok(());
        }
        // Of packs that are not complete the chunks of this image are there.
        let metadata = VerifiedMetadata::new(&source, &head.sb);
        self.chunks(&metadata, &dir).map_err(|error| chain(&error))
    }

    /// Compares the chunks of an image in packs that are not complete.
    fn chunks(&mut self, metadata: &VerifiedMetadata<'_>, dir: &Path) -> Result<(), Broken> {
        let sb = metadata.superblock();
        let image = Tables::new(sb, metadata);
        let all: Vec<_> = (0..sb.layout.packs.records())
            .map(|number| image.pack(PackIndex(u16::try_from(number).unwrap_or(u16::MAX))).map(Some))
            .collect::<Result<_, _>>()?;
        let packs = Packs::open(metadata.source(), &all, dir)?;
        let mut incomplete = Vec::new();
        for pack in all.iter().flatten() {
            incomplete.push(pack.index.0 > 0 && self.store.blob(&pack.digest)?.is_none());
        }
        let mut stored = Vec::new();
        for number in 0..u32::try_from(sb.layout.chunks.records()).unwrap_or(u32::MAX) {
            self.cancel.check()?;
            let chunk = image.chunk(ChunkIndex(number))?;
            if incomplete.get(usize::from(chunk.pack.0)) == Some(&true) {
                packs.read_stored(&chunk, &mut stored)?;
                self.checked.bytes = self.checked.bytes.saturating_add(stored.len() as u64);
            }
        }
        Ok(())
    }

    /// Directories of images that are being filled.
    fn unfinished(&mut self) -> Result<(), Error> {
        let filling = &self.store.filling;
        for (name, stat) in stats(filling)? {
            if digest_of(&name).is_none() || !is_dir(&stat) {
                self.stray(filling, &name, &stat);
                continue;
            }
            let Some(dir) = filling.dir(&name)? else { continue };
            for (name, stat) in stats(&dir)? {
                self.checked.files += 1;
                if digest_of(&name).is_none() || !is_file(&stat) {
                    self.stray(&dir, &name, &stat);
                }
            }
        }
        Ok(())
    }
}

impl Collecting<'_> {
    /// Removes the files that were found to be broken, under all of their names. The result is their number.
    pub fn remove_broken(&self, problems: &[Problem]) -> Result<u64, Error> {
        let mut removed = 0;
        for (kind, name) in problems.iter().filter_map(|problem| problem.remove.as_ref()) {
            let dir = match kind {
                Kind::Blob => &self.blobs,
                Kind::Document => &self.images,
            };
            let Some(stat) = dir.stat(name)? else { continue };
            // Other images that were begun have found it complete.
            for (image, _) in stats(&self.filling)?.iter().filter(|(_, stat)| is_dir(stat)) {
                let Some(links) = self.filling.dir(image)? else { continue };
                if links.stat(name)?.is_some_and(|link| identity(&link) == identity(&stat)) {
                    links.remove(name)?;
                }
            }
            removed += u64::from(dir.remove(name)?);
        }
        Ok(removed)
    }
}
