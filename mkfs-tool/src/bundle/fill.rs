// SPDX-License-Identifier: GPL-2.0-or-later

//! The chunks of an image whose metadata is there: from the old image, and from the sections of a bundle.

use std::io::Read;
use std::path::Path;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{chunk_digest, Digest, Image, PackKind, SuperBlock};
use tesserafs_image::{Source, VerifiedMetadata};

use super::partial::Partial;
use super::piece::{count, decode};
use super::side::Side;
use super::stream::{Kind, Reader};
use super::wanted::{Gap, Wanted};
use super::{at_once, ApplyRequest};
use crate::convert::{broken, Tables};
use crate::encode::Sha2;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Bytes of a pack that are hashed at once.
const HASHED: u64 = 1 << 20;

/// Brings the chunks, and gives packs and image their names. The answer is what there was to do, and bytes of the bundle.
pub(super) fn fill<R: Read>(
    request: &ApplyRequest,
    old: &Side<'_>,
    sb: &SuperBlock,
    image: Partial,
    mut reader: Reader<R>,
    progress: &dyn Progress,
) -> Result<(Wanted, u64)> {
    let source = Source::from_file(image.handle()?, image.path())?;
    let metadata = VerifiedMetadata::new(&source, sb);
    let new = Tables::read(&Image::new(sb, &metadata)).map_err(broken(image.path()))?;
    let wanted = Wanted::new(&old.tables, &new);
    zeros_behind_pack(&image, &new, sb)?;
    let beside = request.new.parent().unwrap_or(Path::new(""));
    let packs = open_packs(request.pack_dir.as_deref().unwrap_or(beside), &new, &wanted)?;

    let fill = Fill { old, new: &new, level: sb.profile.level, image: &image, packs: &packs, progress };
    fill.announce(&wanted);
    wanted.known.par_iter().try_for_each(|(chunk, known)| fill.copy(*chunk, *known))?;
    wanted.gaps.iter().try_for_each(|gap| fill.gap(*gap, &mut reader))?;
    fill.pieces(&wanted.lacking, &mut reader)?;
    wanted.packs.iter().try_for_each(|pack| fill.check(*pack))?;

    packs.into_iter().flatten().try_for_each(Partial::commit)?;
    image.commit()?;
    Ok((wanted, reader.at()))
}

/// Writes zeros between pack 0 and the tables, which no digest proves.
fn zeros_behind_pack(image: &Partial, new: &Tables, sb: &SuperBlock) -> Result<()> {
    let (behind_pack, tree_offset) = (BLOCK_BYTES + new.packs[0].bytes, sb.layout.tree_offset);
    if behind_pack.next_multiple_of(BLOCK_BYTES) != tree_offset {
        let reason =
            format!("has {behind_pack} bytes with pack 0, and its tables begin at byte {tree_offset}");
        return Err(Error::unsupported(image.path(), reason));
    }
    image.write(behind_pack, &vec![0; (tree_offset - behind_pack) as usize])
}

/// The files of the packs that are to be made, by their indices; those that are not must be in the directory.
fn open_packs(dir: &Path, new: &Tables, wanted: &Wanted) -> Result<Vec<Option<Partial>>> {
    let mut files = Vec::new();
    for pack in &new.packs {
        let path = dir.join(pack.digest.to_string());
        let is_made = wanted.packs.contains(&pack.index.0);
        files.push(match pack.kind {
            PackKind::Embedded => None,
            PackKind::File if is_made => {
                let file = Partial::open(&path, true, &[])?;
                file.set_len(pack.bytes)?;
                Some(file)
            }
            PackKind::File => {
                let is_there =
                    path.metadata().is_ok_and(|found| found.is_file() && found.len() == pack.bytes);
                if !is_there {
                    let reason =
                        "is a pack of both images, and not there: copy it, or say by --packdir where it is";
                    return Err(Error::unsupported(&path, reason));
                }
                None
            }
        });
    }
    Ok(files)
}

/// The image that is filled.
struct Fill<'f, 'a> {
    old: &'f Side<'a>,
    new: &'f Tables,
    /// The level of its chunks.
    level: u32,
    image: &'f Partial,
    packs: &'f [Option<Partial>],
    progress: &'f dyn Progress,
}

impl Fill<'_, '_> {
    /// The file that has a pack, and where the pack begins in it.
    fn file(&self, pack: u16) -> (&Partial, u64) {
        match &self.packs[usize::from(pack)] {
            Some(file) => (file, 0),
            None => (self.image, BLOCK_BYTES),
        }
    }

    fn bytes_of(&self, chunk: u32) -> u64 {
        self.new.chunks[chunk as usize].stored_len.into()
    }

    fn announce(&self, wanted: &Wanted) {
        let known = wanted.known.iter().map(|(chunk, _)| chunk);
        self.progress.found(known.chain(&wanted.lacking).map(|chunk| self.bytes_of(*chunk)).sum());
    }

    /// Whether an earlier run has written a chunk.
    fn is_there(&self, chunk: u32) -> Result<bool> {
        let chunk = &self.new.chunks[chunk as usize];
        let (file, start) = self.file(chunk.pack.0);
        if !file.is_begun {
            return Ok(false);
        }
        let mut stored = vec![0; chunk.stored_len as usize];
        file.read(start + chunk.offset, &mut stored)?;
        Ok(chunk_digest::<Sha2>(&stored) == chunk.digest)
    }

    fn write(&self, chunk: u32, stored: &[u8]) -> Result<()> {
        let chunk = &self.new.chunks[chunk as usize];
        let (file, start) = self.file(chunk.pack.0);
        self.progress.read(stored.len() as u64);
        file.write(start + chunk.offset, stored)
    }

    /// Brings a chunk that the old image has, by its number there.
    fn copy(&self, chunk: u32, known: u32) -> Result<()> {
        if self.is_there(chunk)? {
            self.progress.read(self.bytes_of(chunk));
            return Ok(());
        }
        let mut stored = Vec::new();
        let known = &self.old.tables.chunks[known as usize];
        self.old.packs.read_stored(known, &mut stored).map_err(broken(self.old.path))?;
        self.write(chunk, &stored)
    }

    fn gap<R: Read>(&self, gap: Gap, reader: &mut Reader<R>) -> Result<()> {
        let (file, start) = self.file(gap.pack);
        for (offset, len) in gap.sections() {
            let at = reader.at();
            let (_, bytes) = reader.next(&[Kind::Gap])?;
            if bytes.len() as u64 != len {
                return Err(reader.broken(at, format!("found {} bytes, expected {len}", bytes.len())));
            }
            file.write(start + offset, &bytes)?;
        }
        Ok(())
    }

    /// Brings the chunks that the old image lacks.
    fn pieces<R: Read>(&self, lacking: &[u32], reader: &mut Reader<R>) -> Result<()> {
        let mut rest = lacking;
        loop {
            let mut some = Vec::new();
            let ends = loop {
                if some.len() == at_once() {
                    break false;
                }
                let at = reader.at();
                let (kind, section) = reader.next(&[Kind::Piece, Kind::End])?;
                if kind == Kind::End {
                    break true;
                }
                let count = count(&section).filter(|count| *count <= rest.len()).ok_or_else(|| {
                    let reason = format!("found no piece of 1 to {} chunks, which are lacking", rest.len());
                    reader.broken(at, reason)
                })?;
                let (chunks, behind) = rest.split_at(count);
                rest = behind;
                some.push((at, chunks, section));
            };
            let decoded: Result<Vec<_>> =
                some.par_iter().map(|(_, chunks, section)| self.piece(chunks, section)).collect();
            for ((at, ..), decoded) in some.iter().zip(decoded?) {
                decoded.map_err(|reason| reader.broken(*at, reason))?;
            }
            if ends {
                break;
            }
        }
        if !rest.is_empty() {
            return Err(reader.broken(reader.at(), format!("{} chunks are missing", rest.len())));
        }
        Ok(())
    }

    /// Brings the chunks of a piece. The inner error says what is wrong with the section.
    fn piece(&self, chunks: &[u32], section: &[u8]) -> Result<Result<(), String>> {
        for chunk in chunks {
            if !self.is_there(*chunk)? {
                let take = |chunk, stored: &[u8]| self.write(chunk, stored);
                return decode(self.old, self.new, self.level, chunks, section, take);
            }
        }
        self.progress.read(chunks.iter().map(|chunk| self.bytes_of(*chunk)).sum());
        Ok(Ok(()))
    }

    /// Compares a whole pack with its digest.
    fn check(&self, index: u16) -> Result<()> {
        let (file, start) = self.file(index);
        let pack = &self.new.packs[usize::from(index)];
        let mut hasher = Sha256::new();
        let mut piece = vec![0; HASHED.min(pack.bytes) as usize];
        let mut at = 0;
        while at < pack.bytes {
            let piece = &mut piece[..HASHED.min(pack.bytes - at) as usize];
            file.read(start + at, piece)?;
            hasher.update(&*piece);
            at += piece.len() as u64;
        }
        let found = Digest(hasher.finalize().into());
        if found != pack.digest {
            let reason = format!("pack {index} has digest {found}, expected {}", pack.digest);
            return Err(Error::unsupported(file.path(), reason));
        }
        Ok(())
    }
}
