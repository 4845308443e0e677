// SPDX-License-Identifier: GPL-2.0-or-later

//! Files that are not complete, each in the directory of the image that it is filled for.
//!
//! A file is written while it has this one name, and only by the process that has the directory's lock. When all its bytes have its
//! digest it gets a second one, among the blobs, and is not written again. The first name stays until the image is finished: it
//! tells the garbage collector that somebody has begun something, and it makes the directory one where the image finds all its
//! packs even if some of them never become complete.

mod hashed;
mod unfinished;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use tesserafs_format::Digest;
use tesserafs_image::{Cancel, Error, Source};

use super::dir::{failed, identity, Dir};
use super::gc::{digest_of, digests};
use super::images::check_image;
use super::lock::{wait_for, Using};
use super::Store;

use self::hashed::Hashed;
pub use self::unfinished::Unfinished;

/// The mode of a file while it is filled, and when it is complete.
const UNFINISHED: u32 = 0o600;
const COMPLETE: u32 = 0o444;

/// An image whose files are being filled, by this process alone.
#[derive(Debug)]
pub struct Filling<'a> {
    store: &'a Store,
    /// It is locked as long as it is open.
    dir: Dir,
}

/// A file that an image needs.
#[derive(Debug)]
pub enum Slot {
    /// All of it is there.
    Complete(PathBuf),
    /// It is to be filled.
    Unfinished(Unfinished),
}

/// A file all of whose bytes were compared with its digest.
#[derive(Debug)]
pub enum Finished {
    /// It is complete from now on, and there.
    Complete(PathBuf),
    /// It has another digest: bytes are missing, or wrong.
    Not {
        /// The digest that it has.
        found: Digest,
        /// The file.
        file: Unfinished,
    },
}

impl Using<'_> {
    /// Begins to fill files for the image with that ID. `waits` is called once if another process fills them, for which this waits:
    /// it finds then what that one has left.
    pub fn begin_image(
        &self,
        image_id: &Digest,
        cancel: &Cancel,
        waits: &mut dyn FnMut(),
    ) -> Result<Filling<'_>, Error> {
        let store = self.store();
        let name = image_id.to_string();
        loop {
            let dir = store.filling.make(&name)?;
            wait_for(dir.fd(), dir.path(), FlockOperation::NonBlockingLockExclusive, cancel, waits)?;
            // The process that had it may have finished the image, and removed the directory.
            let locked = rustix::fs::fstat(dir.fd()).map_err(|error| failed("stat", dir.path(), error))?;
            let named = store.filling.stat(&name)?;
            if named.is_some_and(|named| identity(&named) == identity(&locked)) {
                return Ok(Filling { store, dir });
            }
        }
    }
}

impl Filling<'_> {
    /// Begins the file with that digest, of `len` bytes, or goes on with it. The room for all of it is taken now: a full disk is an
    /// error here, and not when somebody reads.
    pub fn file(&self, digest: &Digest, len: u64) -> Result<Slot, Error> {
        let name = digest.to_string();
        if let Some(blob) = self.store.blob_of(digest, len)? {
            self.share(&name)?;
            return Ok(Slot::Complete(blob.path));
        }
        let path = self.dir.join(&name);
        let kept = self.kept(&name, len)?;
        let is_kept = kept.is_some();
        let file = match kept {
            Some(file) => file,
            None => {
                self.dir.remove(&name)?;
                let file = self.dir.create(&name, UNFINISHED)?;
                if let Err(error) = allocate(&file, len) {
                    // Others need the room that it has taken so far.
                    drop(file);
                    self.dir.remove(&name)?;
                    return Err(failed(&format!("take {len} bytes for"), &path, error));
                }
                file
            }
        };
        Ok(Slot::Unfinished(Unfinished { file, digest: *digest, path, len, is_kept, hashed: Box::default() }))
    }

    /// Opens what an earlier run has left of a file, if no blob is the same file.
    fn kept(&self, name: &str, len: u64) -> Result<Option<File>, Error> {
        let is_good = |stat: &Stat| {
            super::dir::is_file(stat)
                && stat.st_nlink == 1
                && u64::try_from(stat.st_size).is_ok_and(|size| size == len)
        };
        if !self.dir.stat(name)?.as_ref().is_some_and(is_good) {
            return Ok(None);
        }
        let Some(file) = self.dir.file(name, OFlags::RDONLY)? else { return Ok(None) };
        // That run may have ended when it was as good as complete.
        let made = rustix::fs::fchmod(&file, Mode::from_raw_mode(UNFINISHED));
        made.map_err(|error| failed("change the mode of", &self.dir.join(name), error))?;
        self.dir.file(name, OFlags::RDWR)
    }

    /// Files with that digest that other images have begun, or a pull of this name that meant another image: whether some of their
    /// bytes are right, the caller finds out.
    pub fn elsewhere(&self, digest: &Digest, len: u64) -> Result<Vec<File>, Error> {
        let name = digest.to_string();
        let mut files = Vec::new();
        for image in self.store.filling.names()? {
            if digest_of(&image).is_none() || Some(&*image) == self.dir.path().file_name() {
                continue;
            }
            let Some(dir) = self.store.filling.dir(&image)? else { continue };
            let is_same = |stat: Stat| u64::try_from(stat.st_size).is_ok_and(|size| size == len);
            if dir.stat_file(&name)?.is_some_and(is_same) {
                files.extend(dir.file(&name, OFlags::RDONLY)?);
            }
        }
        Ok(files)
    }

    /// Makes a name here for a blob.
    fn share(&self, name: &str) -> Result<(), Error> {
        let blobs = &self.store.blobs;
        if blobs.link(name, &self.dir, name)? {
            return Ok(());
        }
        let same =
            |a: Option<Stat>, b: Option<Stat>| a.zip(b).is_some_and(|(a, b)| identity(&a) == identity(&b));
        if !same(blobs.stat(name)?, self.dir.stat(name)?) {
            // It was begun here, and another image was faster.
            self.dir.remove(name)?;
            blobs.link(name, &self.dir, name)?;
        }
        Ok(())
    }

    /// Compares all bytes of a file with its digest, and makes it complete if they have it: on the disk first, then for all to see.
    pub fn finish(&self, file: Unfinished, cancel: &Cancel) -> Result<Finished, Error> {
        let found = file.hash_rest(cancel)?;
        if found != file.digest {
            return Ok(Finished::Not { found, file });
        }
        let name = file.digest.to_string();
        let cannot = |error: Errno| failed("complete", &file.path, error);
        rustix::fs::fchmod(&file.file, Mode::from_raw_mode(COMPLETE)).map_err(cannot)?;
        // All of it, as a length or a mode that is lost makes it another file.
        if let Err(error) = rustix::fs::fsync(&file.file) {
            // The system tells once that bytes are not on the disk, and memory may still have them: the next run would find all right.
            self.dir.remove(&name)?;
            return Err(cannot(error));
        }
        let blobs = &self.store.blobs;
        if self.dir.link(&name, blobs, &name)? {
            blobs.sync()?;
        } else {
            // Another image needs it, too, and was faster. One is enough.
            self.store.blob_of(&file.digest, file.len)?;
            self.share(&name)?;
        }
        Ok(Finished::Complete(blobs.join(name)))
    }

    /// Ends the work on a file that stays as it is: all that the image needs of it is there, and on the disk from now on.
    pub fn keep(&self, file: Unfinished) -> Result<(), Error> {
        rustix::fs::fsync(&file.file).map_err(|error| failed("force to the disk", &file.path, error))?;
        self.dir.sync()
    }

    /// Ends the work on the image, whose name is there by now: `files` are all files that it needs. The result is where it finds
    /// its packs. Nothing stays here if all of them are complete.
    pub fn close(self, files: &[Digest]) -> Result<PathBuf, Error> {
        if !self.store.have(files)? {
            for file in files {
                if self.store.blob(file)?.is_some() {
                    self.share(&file.to_string())?;
                }
            }
            // Bundles, and what they were applied to.
            let names: Vec<_> = files.iter().map(|file| OsString::from(file.to_string())).collect();
            for name in self.dir.names()?.into_iter().filter(|name| !names.contains(name)) {
                self.dir.remove(name)?;
            }
            return Ok(self.dir.path().to_owned());
        }
        for name in self.dir.names()? {
            self.dir.remove(name)?;
        }
        // The directory goes when this is dropped.
        Ok(self.store.blobs.path().to_owned())
    }

    /// Removes what is there of a file that is not complete, so that it begins anew.
    pub fn discard(&self, file: Unfinished) -> Result<(), Error> {
        self.dir.remove(file.digest.to_string()).map(drop)
    }

    /// Takes away the name here of a file that is complete, and not needed by the image.
    pub fn leave(&self, digest: &Digest) -> Result<(), Error> {
        self.dir.remove(digest.to_string()).map(drop)
    }

    /// Whether the file with that digest here is a pack of an image of the store, the one with this ID: a mount of that
    /// image reads the file, and a registry can name it as anything in another manifest with the same ID.
    pub fn has_pack(&self, digest: &Digest) -> Result<bool, Error> {
        let store = self.store;
        let name = digest.to_string();
        if self.dir.stat(&name)?.is_none() {
            return Ok(false);
        }
        let id = self.dir.path().file_name().and_then(digest_of);
        for (document, _) in digests(&store.images)? {
            // Most are configurations, from anybody.
            let Ok(artifact) = store.artifact(&document) else { continue };
            let is_named = artifact.packs.iter().any(|pack| pack.digest == *digest);
            if !is_named || Some(artifact.image_id) != id {
                continue;
            }
            let Ok(Some(image)) = store.blob_of(&artifact.image.digest, artifact.image.len) else { continue };
            if Source::open(&image.path).and_then(|source| check_image(&artifact, &source)).is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Filling<'_> {
    /// Of a run that has begun nothing there is nothing left.
    fn drop(&mut self) {
        let _ = self.store.filling.remove_dir(self.dir.path().file_name().unwrap_or_default());
    }
}

/// Takes the room for `len` bytes.
fn allocate(file: &File, len: u64) -> std::io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::INTR) => (),
            // A filesystem that cannot take room may be full later. A length for which it has no room now is refused: a manifest can name 2^60.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let room = rustix::fs::fstatvfs(file)?;
                let is_told = room.f_blocks > 0;
                if is_told && room.f_bavail.saturating_mul(room.f_frsize) < len {
                    return Err(Errno::NOSPC.into());
                }
                return file.set_len(len);
            }
            done => return Ok(done?),
        }
    }
}

/// The digest of the `len` bytes of a file.
pub(super) fn hash(file: &File, path: &Path, len: u64, cancel: &Cancel) -> Result<Digest, Error> {
    let mut hashed = Hashed::default();
    hashed.advance(file, path, len, cancel)?;
    Ok(hashed.finish())
}
