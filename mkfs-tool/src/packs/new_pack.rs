// SPDX-License-Identifier: GPL-2.0-or-later

//! The pack file that a build writes: its name is its digest, so it has none until it is complete.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tesserafs_format::Digest;
use tesserafs_image::Source;

use crate::encode::PackWriter;
use crate::error::{Error, Result};
use crate::output::Output;

/// Bytes that are written, and read to compare, at once.
const BUFFER: usize = 1 << 18;

/// A pack that is being written.
#[derive(Debug)]
pub struct NewPack {
    dir: PathBuf,
    /// Nothing, where only the digest is wanted.
    file: Option<(Output, BufWriter<File>)>,
    hasher: Sha256,
    bytes: u64,
}

impl NewPack {
    /// Begins a pack in `dir`; nothing is written where only the IDs are wanted.
    pub fn create(dir: &Path, dry_run: bool) -> Result<Self> {
        if !dir.is_dir() {
            let reason = "is no directory; packs lie in one, so make it first";
            return Err(Error::unsupported(dir, reason));
        }
        let file = if dry_run {
            None
        } else {
            // The digest becomes the name.
            let output = Output::create_in(dir)?;
            let writer = BufWriter::with_capacity(BUFFER, output.file()?);
            Some((output, writer))
        };
        Ok(Self { dir: dir.to_owned(), file, hasher: Sha256::new(), bytes: 0 })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    /// Gives the file its name, and then the image that names it: an image is never there without its packs.
    ///
    /// Where the image gets no name, the pack keeps its own: it is whole, and another image may name it by now.
    pub fn commit_before(self, image: Output) -> Result<()> {
        self.commit()?;
        image.commit()
    }

    /// Gives the file its name, if there is a byte in it.
    ///
    /// A pack of that name is kept if it has these bytes: images may be mounted over it.
    pub fn commit(self) -> Result<()> {
        let path = self.dir.join(self.digest().to_string());
        let Some((output, writer)) = self.file else { return Ok(()) };
        writer.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
        if self.bytes == 0 || has_digest(&path, self.bytes, &self.hasher.finalize()) {
            return Ok(());
        }
        output.commit_as(path)
    }
}

impl PackWriter for NewPack {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.file {
            Some((_, writer)) => writer.write_all(bytes).map_err(Error::io("write a pack in", &self.dir)),
            None => Ok(()),
        }
    }
}

/// Whether there is a file with these bytes.
fn has_digest(path: &Path, bytes: u64, digest: &[u8]) -> bool {
    let same = || -> Result<bool, tesserafs_image::Error> {
        let source = Source::open(path)?;
        if source.is_device() || source.len() != bytes {
            return Ok(false);
        }
        let (mut hasher, mut buffer, mut at) = (Sha256::new(), vec![0; BUFFER], 0);
        while at < bytes {
            let piece = &mut buffer[..(bytes - at).min(BUFFER as u64) as usize];
            source.read_at(at, piece)?;
            hasher.update(&*piece);
            at += piece.len() as u64;
        }
        Ok(hasher.finalize()[..] == *digest)
    };
    // A link is replaced, and so is what cannot be read.
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) && same().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, MetadataExt};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::fs::{renameat_with, FileType, Mode, RenameFlags, CWD};

    use super::*;

    fn unnamed(dir: &Path, bytes: &[u8]) -> NewPack {
        let mut pack = NewPack::create(dir, false).unwrap();
        pack.append(bytes).unwrap();
        pack
    }

    fn pack(dir: &Path, bytes: &[u8]) {
        unnamed(dir, bytes).commit().unwrap();
    }

    fn path_of(dir: &Path, bytes: &[u8]) -> PathBuf {
        dir.join(format!("{:x}", Sha256::digest(bytes)))
    }

    fn names(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_pack_has_its_digest_as_its_name_and_is_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = path_of(dir.path(), b"bytes");
        let number = || fs::metadata(&path).unwrap().ino();
        pack(dir.path(), b"bytes");
        let first = number();
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        pack(dir.path(), b"bytes");
        assert_eq!(number(), first);
        // Another file under that name is no pack.
        fs::write(&path, b"other").unwrap();
        pack(dir.path(), b"bytes");
        assert_eq!(fs::read(&path).unwrap(), b"bytes");
        assert_eq!(names(dir.path()), 1);
    }

    /// Other builders give packs their names at the same time, and an enemy gives these to something else.
    #[test]
    fn a_fifo_under_the_name_of_a_pack_stops_no_build() {
        let dir = tempfile::tempdir().unwrap();
        let (path, fifo) = (dir.path().join("pack"), dir.path().join("fifo"));
        fs::write(&path, b"bytes").unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let (path_of_reader, (sender, done)) = (path.clone(), mpsc::channel());
        thread::spawn(move || {
            let digest = Sha256::digest(b"bytes");
            let same = (0..20_000).filter(|_| has_digest(&path_of_reader, 5, &digest)).count();
            let _ = sender.send(same);
        });
        let started = Instant::now();
        let same = loop {
            for _ in 0..100 {
                renameat_with(CWD, &path, CWD, &fifo, RenameFlags::EXCHANGE).unwrap();
            }
            match done.try_recv() {
                Ok(same) => break same,
                Err(_) => assert!(started.elapsed() < Duration::from_secs(60), "it waits for a writer"),
            }
        };
        assert!(same > 0);
    }

    #[test]
    fn what_has_another_name_in_the_directory_is_of_no_consequence() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let path = dir.path().join("new pack");
        fs::create_dir(&path).unwrap();
        pack(dir.path(), b"beside a directory");
        fs::remove_dir(&path).unwrap();
        symlink(elsewhere.path().join("nothing"), &path).unwrap();
        pack(dir.path(), b"beside a dangling link");
        fs::write(elsewhere.path().join("nothing"), b"").unwrap();
        // On no other filesystem, say.
        let bytes = unnamed(dir.path(), b"beside a link");
        assert_eq!(bytes.file.as_ref().unwrap().0.directory(), dir.path());
        bytes.commit().unwrap();
        assert_eq!((names(dir.path()), names(elsewhere.path())), (4, 1));
    }

    #[test]
    fn a_whole_pack_stays_where_its_image_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let packs = dir.path().join("packs");
        fs::create_dir(&packs).unwrap();
        let output = Output::create(&image, false).unwrap();
        let new = unnamed(&packs, b"bytes");
        // Another build takes the name meanwhile, and its image has the same pack.
        fs::write(&image, b"another image").unwrap();
        new.commit_before(output).unwrap_err();
        assert_eq!(fs::read(path_of(&packs, b"bytes")).unwrap(), b"bytes");
        assert_eq!((names(&packs), fs::read(&image).unwrap()), (1, b"another image".to_vec()));
    }

    #[test]
    fn a_pack_without_bytes_or_without_an_end_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        pack(dir.path(), b"");
        let mut unfinished = NewPack::create(dir.path(), false).unwrap();
        unfinished.append(b"bytes").unwrap();
        drop(unfinished);
        let mut dry = NewPack::create(dir.path(), true).unwrap();
        dry.append(b"bytes").unwrap();
        assert_eq!(dry.digest().to_string(), format!("{:x}", Sha256::digest(b"bytes")));
        dry.commit().unwrap();
        assert_eq!(names(dir.path()), 0);
    }
}
