// SPDX-License-Identifier: GPL-2.0-or-later

//! An image as the source of a build.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mkfs_tesserafs::encode::WINDOW;
use mkfs_tesserafs::error::{path_of, Error as BuildError, Result};
use mkfs_tesserafs::progress::Progress;
use mkfs_tesserafs::source::{FileTask, Found, LeftOut, OpenFile, Source, Walked};
use mkfs_tesserafs::tree::{Attributes, Kind, TreeBuilder, TreeError};
use tesserafs_format::limits::{BLOCK_BYTES, NAME_MAX, PLAIN_DIGEST_MAX};
use tesserafs_format::{ContentIndex, FileKind, Ino, Inode};
use tesserafs_image::contents::OpenContent;
use tesserafs_image::context::read;
use tesserafs_image::error::{vec_of, Error};
use tesserafs_image::packs::{DataError, Decoder};
use tesserafs_image::parallel::First;
use tesserafs_image::walk::{self, Tree};
use tesserafs_image::{visit, Contents, Context};

/// Zeros that the builder digests between two looks at the cancel flag.
const ZEROS_AT_ONCE: u64 = 64 << 20;

/// The tree and the files of an image that is clean.
#[derive(Debug)]
pub(super) struct ImageSource<'a> {
    context: &'a Context<'a>,
    tree: &'a Tree,
    contents: &'a Contents<'a>,
    /// Decoders that no file uses now.
    decoders: Mutex<Vec<Decoder>>,
    /// Why the build was stopped.
    stopped: &'a First,
}

impl<'a> ImageSource<'a> {
    pub(super) fn new(
        context: &'a Context<'a>,
        tree: &'a Tree,
        contents: &'a Contents<'a>,
        stopped: &'a First,
    ) -> Self {
        Self { context, tree, contents, decoders: Mutex::default(), stopped }
    }

    /// Stops the build: its own errors have no place for those of an image.
    fn stop(&self, error: impl Into<DataError>) -> BuildError {
        self.stopped.set(match error.into() {
            DataError::Stop(error) => error,
            DataError::Broken(finding) => {
                Error::Refused(format!("the image changed while it was read: {finding}"))
            }
        });
        BuildError::Stopped
    }

    fn decoders(&self) -> MutexGuard<'_, Vec<Decoder>> {
        self.decoders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, inode: &Inode) -> std::result::Result<Attributes, Error> {
        let mut xattrs = Vec::new();
        visit::xattrs(self.context, inode, |name, value| {
            xattrs.push((name.to_vec(), value.to_vec()));
            Ok(())
        })?;
        let Inode { mode, uid, gid, mtime, .. } = *inode;
        Ok(Attributes { mode, uid, gid, mtime, xattrs })
    }

    fn kind(&self, inode: &Inode) -> std::result::Result<Kind, Error> {
        Ok(match inode.kind {
            FileKind::Regular { size, .. } => Kind::Regular { size },
            FileKind::Directory(_) => Kind::Directory,
            FileKind::Symlink { .. } => Kind::Symlink(visit::target(self.context, inode)?),
            FileKind::Fifo => Kind::Fifo,
            FileKind::Socket => Kind::Socket,
            FileKind::Whiteout => Kind::Whiteout,
        })
    }

    /// The name of entry `n` of a directory, and the inode that it names.
    fn entry(
        &self,
        tables: &tesserafs_format::Directory,
        n: u32,
    ) -> std::result::Result<(Vec<u8>, Inode), Error> {
        let image = &self.context.image;
        let missing = || Error::Refused("the image changed while it was read: a name is gone".to_owned());
        let entry = read(image.dirent(tables, n))?.ok_or_else(missing)?;
        let mut buf = [0; NAME_MAX];
        let name = read(image.name(&entry, &mut buf))?.to_vec();
        Ok((name, read(image.inode(entry.ino))?))
    }
}

impl Source for ImageSource<'_> {
    type File = ContentIndex;
    type Open<'b>
        = OpenImageFile<'b>
    where
        Self: 'b;

    fn walk(&self, found: Found<'_, ContentIndex>) -> Result<Walked> {
        let refused =
            |name: &[u8], error: TreeError| BuildError::unsupported(path_of(name), error.to_string());
        let image = &self.context.image;
        let root = read(image.inode(Ino::ROOT)).map_err(|error| self.stop(error))?;
        let attributes = self.attributes(&root).map_err(|error| self.stop(error))?;
        let mut builder = TreeBuilder::new(attributes).map_err(|error| refused(b"/", error))?;
        // The first inode of each content: the others have its bytes, which were compared with one digest.
        let contents = image.sb.layout.content_digests.records();
        let mut first: Vec<u32> =
            vec_of(contents, "a record for each content").map_err(|error| self.stop(error))?;
        let mut copies = Vec::new();
        for directory in &self.tree.directories {
            builder.open_directory(directory.ino).map_err(|error| refused(b"/", error))?;
            for n in 0..directory.tables.entries {
                self.context.cancel.check().map_err(|error| self.stop(error))?;
                let (name, inode) = self.entry(&directory.tables, n).map_err(|error| self.stop(error))?;
                let ino = inode.ino.get();
                let first_name = self.tree.first_name(ino).map(|(directory, n)| (directory.ino, n));
                if first_name != Some((directory.ino, n)) {
                    builder.add_link(&name, ino).map_err(|error| refused(&name, error))?;
                    continue;
                }
                let kind = self.kind(&inode).map_err(|error| self.stop(error))?;
                let attributes = self.attributes(&inode).map_err(|error| self.stop(error))?;
                // The image numbers inodes as the builder does: `tree-order`.
                builder.add(&name, &kind, attributes).map_err(|error| refused(&name, error))?;
                let FileKind::Regular { size, content: Some(content) } = inode.kind else { continue };
                match first.get_mut(content.0 as usize) {
                    Some(first) if *first == 0 => {
                        *first = ino;
                        found(FileTask { ino, size, file: content })?;
                    }
                    Some(first) => copies.push((ino, *first)),
                    None => {}
                }
            }
        }
        let mut tree = builder.finish().map_err(|error| refused(b"/", error))?;
        tree.copies = copies;
        Ok(Walked { tree, left_out: LeftOut::new(false), archive: None, sbom: None })
    }

    fn open<'b>(&'b self, task: &'b FileTask<ContentIndex>) -> Result<OpenImageFile<'b>> {
        let content = self.contents.open_content(task.file, task.size);
        let content = content.map_err(|error| self.stop(error))?;
        let kept = self.decoders().pop();
        let decoder = kept.map_or_else(Decoder::new, Ok).map_err(|error| self.stop(error))?;
        Ok(OpenImageFile { source: self, content, size: task.size, decoder: Some(decoder) })
    }

    /// Each chunk of an image is verified when it is read.
    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn path(&self, task: &FileTask<ContentIndex>) -> PathBuf {
        path_of(&walk::content_path(self.context, self.tree, task.file.0).unwrap_or_default()).to_owned()
    }
}

impl Progress for ImageSource<'_> {
    fn found(&self, _: u64) {}

    fn read(&self, bytes: u64) {
        self.context.progress.advance(bytes);
    }
}

/// A file of an image.
#[derive(Debug)]
pub(super) struct OpenImageFile<'b> {
    source: &'b ImageSource<'b>,
    content: OpenContent<'b>,
    size: u64,
    /// There until the file is dropped.
    decoder: Option<Decoder>,
}

impl Drop for OpenImageFile<'_> {
    fn drop(&mut self) {
        self.source.decoders().extend(self.decoder.take());
    }
}

impl OpenFile for OpenImageFile<'_> {
    fn data(&mut self, pos: u64) -> Result<Range<u64>> {
        let next = self.content.data(pos, WINDOW as u64).map_err(|error| self.source.stop(error))?;
        // Extents begin and end where they will, ranges at blocks.
        let range = next.map_or(self.size..self.size, |range| {
            let start = range.start - range.start % BLOCK_BYTES;
            start.max(pos)..range.end.next_multiple_of(BLOCK_BYTES).min(self.size)
        });
        // A longer content is digested without its zeros.
        if self.size <= PLAIN_DIGEST_MAX && range.start - pos > ZEROS_AT_ONCE {
            let at = pos + ZEROS_AT_ONCE;
            return Ok(at..at);
        }
        Ok(range)
    }

    fn read(&mut self, range: Range<u64>, buf: &mut Vec<u8>) -> Result<()> {
        let Some(decoder) = &mut self.decoder else { return Ok(()) };
        self.content.read(range, decoder, buf).map_err(|error| self.source.stop(error))
    }
}
