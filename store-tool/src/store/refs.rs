// SPDX-License-Identifier: GPL-2.0-or-later

//! The names of images: links to manifests, in directories that are named after registry and repository.
//!
//! The last part has the tag, so it has a `:` or a `@`, which no part of a repository has: no name can be the directory of another.

use std::ffi::OsStr;
use std::path::PathBuf;

use rustix::fs::FileType;
use tesserafs_format::Digest;
use tesserafs_image::{text, Error};

use super::dir::{is_new, kind, refuse, Dir};
use super::lock::Using;
use super::Store;
use crate::reference::{Name, Reference};

/// Directories in directories, at most: a reference has 255 bytes.
pub(super) const DEPTH_MAX: usize = 128;

/// Bytes of the name of a file, at most.
const NAME_MAX: usize = 255;

/// Tries to make a link in a directory that others remove, as they find it empty.
const TRIES: usize = 100;

/// A name that an image has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name.
    pub reference: Reference,
    /// Its manifest.
    pub manifest: Digest,
    /// When it got this name: seconds since 1970, and nanoseconds.
    pub since: (i64, i64),
}

/// A file in `refs/` that is no name of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its kind, in words.
    pub(crate) found: String,
    /// Whether it is a symlink, as names are, and might be one.
    pub(crate) is_link: bool,
}

/// Where a reference is: the directories, and the name in the last one.
fn place(reference: &Reference) -> (Vec<String>, String) {
    let mut dirs = vec![reference.host.clone()];
    dirs.extend(reference.repository.split('/').map(str::to_owned));
    let last = dirs.pop().unwrap_or_default();
    let leaf = match &reference.name {
        Name::Tag(tag) => format!("{last}:{tag}"),
        Name::Digest(digest) => format!("{last}@sha256:{digest}"),
    };
    (dirs, leaf)
}

/// Whether each part can be a name: a parser has seen to that but for their lengths, and here it is what keeps the link in the store.
fn check(reference: &Reference, dirs: &[String], leaf: &str) -> Result<(), Error> {
    let shown = || text::escape(reference.to_string().as_bytes());
    let parts = || dirs.iter().map(String::as_str).chain([leaf]);
    if let Some(long) = parts().find(|part| part.len() > NAME_MAX) {
        let len = long.len();
        return Err(Error::Refused(format!(
            "{}: found a part of {len} bytes, expected {NAME_MAX} at most",
            shown()
        )));
    }
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    // The port of a registry is behind a colon.
    let is_dir = |name: &String| !name.contains([':', '@']);
    if parts().all(is_name) && dirs.len() < DEPTH_MAX && dirs.iter().skip(1).all(is_dir) {
        return Ok(());
    }
    Err(Error::Refused(format!("{}: found parts that are no names of files, expected a reference", shown())))
}

impl Store {
    /// The manifest that has this name. `None` where none has.
    pub fn manifest_of(&self, reference: &Reference) -> Result<Option<Digest>, Error> {
        let (dirs, leaf) = place(reference);
        check(reference, &dirs, &leaf)?;
        let mut parent: Option<Dir> = None;
        for name in &dirs {
            match parent.as_ref().unwrap_or(&self.refs).dir(name)? {
                Some(dir) => parent = Some(dir),
                None => return Ok(None),
            }
        }
        let dir = parent.as_ref().unwrap_or(&self.refs);
        let Some(stat) = dir.stat(&leaf)? else { return Ok(None) };
        let manifest = manifest_at(dir, leaf.as_ref())?;
        manifest
            .map(Some)
            .ok_or_else(|| refuse(&dir.join(&leaf), kind(&stat), "a link to a manifest in images/sha256"))
    }

    /// Where the link of a name is.
    pub(crate) fn path_of(&self, reference: &Reference) -> PathBuf {
        let (dirs, leaf) = place(reference);
        dirs.iter().chain([&leaf]).fold(self.refs.path().to_owned(), |path, name| path.join(name))
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<Named>, Error> {
        self.names_and_others().map(|(names, _)| names)
    }

    /// All names, and what else is there.
    pub(crate) fn names_and_others(&self) -> Result<(Vec<Named>, Vec<Foreign>), Error> {
        let mut found = (Vec::new(), Vec::new());
        list(&self.refs, &mut Vec::new(), &mut found)?;
        Ok(found)
    }
}

/// Lists what is in a directory, which is reached by these names.
fn list(dir: &Dir, above: &mut Vec<String>, found: &mut (Vec<Named>, Vec<Foreign>)) -> Result<(), Error> {
    for name in dir.names()? {
        // Another process may have removed it.
        let Some(stat) = dir.stat(&name)? else { continue };
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let foreign = |found: &str| Foreign { path: dir.join(&name), found: found.to_owned(), is_link };
        if is_new(&name) {
            // The process that made it ended before it renamed it.
            let (path, said) = (dir.join(&name), "a link that was not finished".to_owned());
            found.1.push(Foreign { path, found: said, is_link: false });
            continue;
        }
        let Some(text) = name.to_str() else {
            found.1.push(foreign("a name that is no text"));
            continue;
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if above.len() < DEPTH_MAX => {
                let Some(below) = dir.dir(&name)? else { continue };
                above.push(text.to_owned());
                list(&below, above, found)?;
                above.pop();
            }
            FileType::Symlink => match (reference(above, text), manifest_at(dir, &name)?) {
                (Some(reference), Some(manifest)) => {
                    let since = (stat.st_mtime, stat.st_mtime_nsec);
                    found.0.push(Named { reference, manifest, since });
                }
                (None, _) => found.1.push(foreign("a name that no image can have")),
                (Some(_), None) => found.1.push(foreign("a link that leads to no manifest")),
            },
            _ => found.1.push(foreign(kind(&stat))),
        }
    }
    Ok(())
}

/// The reference that is at this place.
fn reference(dirs: &[String], leaf: &str) -> Option<Reference> {
    let path = format!("{}/{leaf}", dirs.join("/"));
    let reference = Reference::parse(&path).ok()?;
    (place(&reference) == (dirs.to_vec(), leaf.to_owned())).then_some(reference)
}

/// The digest in the target of a link. It is not followed: its last part says everything.
fn manifest_at(dir: &Dir, name: &OsStr) -> Result<Option<Digest>, Error> {
    let Some(target) = dir.target(name)? else { return Ok(None) };
    let leads_to_images = target.parent().is_some_and(|parent| parent.ends_with("images/sha256"));
    let hex = target.file_name().filter(|_| leads_to_images).map(OsStr::as_encoded_bytes);
    Ok(hex.and_then(Digest::from_hex))
}

impl Using<'_> {
    /// Gives the manifest, a document that is there, this name. An image that had it loses it, at that moment.
    pub fn set_name(&self, reference: &Reference, manifest: &Digest) -> Result<(), Error> {
        let (dirs, leaf) = place(reference);
        check(reference, &dirs, &leaf)?;
        if self.document(manifest)?.is_none() {
            let shown = text::escape(reference.to_string().as_bytes());
            return Err(Error::Refused(format!("{shown}: the manifest {manifest} is not in the store")));
        }
        // Another process may have completed what the image needs, a moment ago: its names are on the disk before this one.
        self.blobs.sync()?;
        self.images.sync()?;
        let mut target = PathBuf::from("../".repeat(dirs.len() + 1));
        target.push("images/sha256");
        target.push(manifest.to_string());
        for _ in 0..TRIES {
            let Some(dir) = self.make_dirs(&dirs)? else { continue };
            if dir
                .stat(&leaf)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
            {
                return Err(refuse(&dir.join(&leaf), "a directory", "a link to a manifest"));
            }
            if dir.symlink(&target, &leaf)? {
                return dir.sync();
            }
        }
        let path = self.refs.join(dirs.join("/"));
        Err(refuse(&path, "a directory that others remove again and again", "one that stays"))
    }

    /// `None` where another process has removed one of them meanwhile.
    fn make_dirs(&self, names: &[String]) -> Result<Option<Dir>, Error> {
        let mut dir: Option<Dir> = None;
        for name in names {
            match dir.as_ref().unwrap_or(&self.refs).make(name) {
                Ok(below) => dir = Some(below),
                Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    return Ok(None)
                }
                Err(error) => return Err(error),
            }
        }
        Ok(dir)
    }

    /// Takes a name away, and directories that are empty then. `false` where no image has it. The files of the image stay in the store.
    pub fn remove_name(&self, reference: &Reference) -> Result<bool, Error> {
        let (names, leaf) = place(reference);
        check(reference, &names, &leaf)?;
        let mut dirs: Vec<Dir> = Vec::new();
        for name in &names {
            match dirs.last().unwrap_or(&self.refs).dir(name)? {
                Some(dir) => dirs.push(dir),
                None => return Ok(false),
            }
        }
        let dir = dirs.last().unwrap_or(&self.refs);
        let removed = dir.remove(&leaf)?;
        dir.sync()?;
        for (depth, name) in names.iter().enumerate().rev() {
            let parent = depth.checked_sub(1).and_then(|above| dirs.get(above)).unwrap_or(&self.refs);
            if !parent.remove_dir(name)? {
                break;
            }
        }
        Ok(removed)
    }
}
