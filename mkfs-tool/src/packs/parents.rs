// SPDX-License-Identifier: GPL-2.0-or-later

//! The chunks of other images: their metadata says which raw bytes lie where in which pack.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tesserafs_format::{Chunk, ChunkIndex, Codec, Digest, Pack, PackIndex, Profile};
use tesserafs_image::profile::version;
use tesserafs_image::{superblock, Broken, Source, VerifiedMetadata};

use super::{ParentReport, SharedForm};
use crate::error::{Error, Result, Shown};

/// A chunk that a parent has.
#[derive(Clone, Copy, Debug)]
pub struct KnownChunk {
    /// Index of its pack among [`Parents::packs`].
    pub pack: u16,
    /// Index of the first parent that has it.
    parent: u16,
    /// Where it begins in the pack.
    pub offset: u64,
    /// How it is stored.
    pub codec: Codec,
    /// Stored bytes.
    pub stored_len: u32,
    /// Raw bytes.
    pub raw_len: u32,
    /// The digest of the stored bytes.
    pub digest: Digest,
}

impl KnownChunk {
    /// As the chunk of that index. Until [`arrange`](super::arrange) its pack is one more than that among the parents', as the new one is 0.
    pub fn to_chunk(&self, index: ChunkIndex) -> Chunk {
        let Self { offset, codec, stored_len, raw_len, digest, .. } = *self;
        Chunk { index, pack: PackIndex(self.pack + 1), offset, codec, stored_len, raw_len, digest }
    }
}

/// A pack of a parent: a file in the directory of packs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParentPack {
    /// Its digest and bytes.
    pub pack: Pack,
    /// The file.
    pub path: PathBuf,
}

/// The chunks that the parents of a build have.
#[derive(Debug, Default)]
pub struct Parents {
    /// Their packs, the oldest first: in the order of the parents, and of their tables.
    pub packs: Vec<ParentPack>,
    chunks: HashMap<Digest, KnownChunk>,
    reports: Vec<ParentReport>,
}

impl Parents {
    /// Reads the metadata of the parents, and looks whether their packs are there.
    pub fn open(form: &SharedForm, profile: &Profile) -> Result<Self> {
        let mut parents = Self::default();
        for path in &form.parents {
            parents.add(path, &form.dir, profile)?;
        }
        Ok(parents)
    }

    /// The chunk with these raw bytes.
    pub fn get(&self, raw: &Digest) -> Option<&KnownChunk> {
        self.chunks.get(raw)
    }

    /// Counts a chunk that the build uses.
    pub fn count(&mut self, raw: &Digest) {
        let Some(chunk) = self.chunks.get(raw) else { return };
        let Some(report) = self.reports.get_mut(usize::from(chunk.parent)) else { return };
        report.chunks += 1;
        report.stored_bytes += u64::from(chunk.stored_len);
    }

    /// What became of each parent.
    pub fn take_reports(&mut self) -> Vec<ParentReport> {
        std::mem::take(&mut self.reports)
    }

    fn add(&mut self, path: &Path, dir: &Path, profile: &Profile) -> Result<()> {
        let source = Source::open(path)?;
        let broken = |error: Broken| match error {
            Broken::Rule(source) => Error::Image { path: path.to_owned(), source },
            Broken::Stop(error) => error.into(),
        };
        let sb = superblock::read(&source).map_err(broken)?;
        let metadata = VerifiedMetadata::new(&source, &sb);
        let image = tesserafs_format::Image::new(&sb, &metadata);
        let parent = u16::try_from(self.reports.len()).map_err(|_| Error::TooMany("parents"))?;
        let refused = encoding_differs(&sb.profile, profile);
        let is_refused = refused.is_some();
        self.reports.push(ParentReport {
            image: Shown(path).to_string(),
            chunks: 0,
            stored_bytes: 0,
            refused,
        });
        let (packs, chunks) = (sb.layout.packs.records(), sb.layout.chunks.records());
        if packs == 1 && chunks > 0 {
            return Err(Error::unsupported(
                path,
                "is an image in one file, whose chunks no other image can use; `tesserafs pack` makes the shared form of it",
            ));
        }
        if is_refused {
            return Ok(());
        }
        // From an index of its table to one of ours; pack 0 has no chunks.
        let mut ours = vec![None];
        for number in 1..packs {
            let index = PackIndex(u16::try_from(number).unwrap_or(u16::MAX));
            let pack = image.pack(index).map_err(broken)?;
            ours.push(Some((self.pack(path, dir, pack)?, pack)));
        }
        for number in 0..chunks {
            let index = ChunkIndex(u32::try_from(number).unwrap_or(u32::MAX));
            let raw = image.raw_digest(index).map_err(broken)?;
            let chunk: Chunk = image.chunk(index).map_err(broken)?;
            let Some(Some((pack, of))) = ours.get(usize::from(chunk.pack.0)) else { continue };
            chunk.check_range(of).map_err(|error| broken(error.into()))?;
            let Chunk { offset, codec, stored_len, raw_len, digest, .. } = chunk;
            self.chunks.entry(raw).or_insert(KnownChunk {
                pack: *pack,
                parent,
                offset,
                codec,
                stored_len,
                raw_len,
                digest,
            });
        }
        Ok(())
    }

    /// The index of a pack that `image` names: a new one unless a parent before it has it, too.
    fn pack(&mut self, image: &Path, dir: &Path, pack: Pack) -> Result<u16> {
        let known = self.packs.iter().position(|other| other.pack.digest == pack.digest);
        let index = known.unwrap_or(self.packs.len());
        // The bytes of the file: those that a parent before said were compared with it.
        let (path, bytes) = match known.and_then(|known| self.packs.get(known)) {
            Some(known) => (known.path.clone(), known.pack.bytes),
            None => {
                let path = dir.join(pack.digest.to_string());
                let found = path.metadata().map_err(|source| Error::Pack {
                    image: image.to_owned(),
                    path: path.clone(),
                    source,
                })?;
                if !found.is_file() {
                    let reason = format!("is no regular file, and {} names it as a pack", Shown(image));
                    return Err(Error::unsupported(&path, reason));
                }
                (path, found.len())
            }
        };
        if bytes != pack.bytes {
            return Err(Error::unsupported(
                &path,
                format!("has {bytes} bytes, and {} names it with {}", Shown(image), pack.bytes),
            ));
        }
        if known.is_none() {
            self.packs.push(ParentPack { pack, path });
        }
        // One more is what a chunk of it says, until its pack has a place in the table.
        let index = u16::try_from(index).ok().filter(|index| *index < u16::MAX);
        index.ok_or(Error::TooMany("packs of parents"))
    }
}

/// The reason why chunks of a parent are not those that this build would make.
fn encoding_differs(parent: &Profile, own: &Profile) -> Option<String> {
    let of = |profile: &Profile| (profile.level, profile.zstd_version);
    (of(parent) != of(own)).then(|| {
        let text = |profile: &Profile| {
            format!("level {} of libzstd {}", profile.level, version(profile.zstd_version))
        };
        format!("its chunks are compressed at {}, and this image at {}", text(parent), text(own))
    })
}
