// SPDX-License-Identifier: GPL-2.0-or-later

//! The parts of a damaged image that a bundle has: its head, all of it where the old image is there and whole, and chunks.
//!
//! Nothing here is written to a place of its own: whoever asks compares all of it with digests that the image ID proves. So a bundle with
//! a damaged section is good for what precedes it, and an old image for what of it is whole.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::{chunk_digest, PackKind, SuperBlock};
use tesserafs_image::Source;

use super::covers::Covers;
use super::matches::Matches;
use super::partial::NewFile;
use super::piece::{count, stored_chunks, Came, Making};
use super::rebuild::{PackFiles, Rebuild};
use super::side::Side;
use super::stream::{Header, Kind, Reader};
use super::tables::groups;
use super::wanted::Wanted;
use super::{at_once, head};
use crate::convert::Tables;
use crate::encode::Sha2;
use crate::error::{Error, Result};
use crate::progress::Silent;

/// The header of a bundle.
pub(crate) fn header(source: &Source) -> Result<Header> {
    open(source).map(|(_, header)| header)
}

/// The first block of the new image, and its signature: as the bundle has them.
pub(crate) fn first_block(source: &Source) -> Result<(Box<[u8; BLOCK_SIZE]>, Vec<u8>)> {
    let (mut reader, _) = open(source)?;
    let at = reader.at();
    let (_, section) = reader.next(&[Kind::Head])?;
    head::decode(&section).ok_or_else(|| reader.broken(at, "found no block and signature"))
}

/// The damaged image.
pub(crate) struct Damaged<'d> {
    /// Its file.
    pub(crate) image: &'d Source,
    /// Its superblock, which is proven.
    pub(crate) sb: &'d SuperBlock,
    /// Where its packs are.
    pub(crate) pack_dir: &'d Path,
}

/// Makes the image in a file without a name in `dir`, as far as the bundle and the old image give it, and the damaged image chunks that
/// these do not: whoever reads it compares it. The error is why that is not all of it.
pub(crate) fn rebuild(
    source: &Source,
    old: &Side<'_>,
    damaged: &Damaged<'_>,
    dir: &Path,
) -> Result<(Source, Result<()>)> {
    let image = NewFile::unnamed(dir, source.path())?;
    let made = fill(source, old, damaged, &image, dir);
    Ok((image.source()?, made))
}

fn fill(source: &Source, old: &Side<'_>, damaged: &Damaged<'_>, image: &NewFile, dir: &Path) -> Result<()> {
    let (mut reader, _) = open(source)?;
    reader.next(&[Kind::Head])?;
    let mut rebuild = Rebuild::begin(&mut reader, old, image, damaged.sb)?;
    let packs = rebuild.tables().packs.iter().map(|pack| {
        let is_made = pack.kind == PackKind::File && rebuild.wanted.packs.contains(&pack.index.0);
        is_made.then(|| NewFile::unnamed(dir, source.path())).transpose()
    });
    let packs = packs.collect::<Result<Vec<_>>>()?;
    for (file, pack) in packs.iter().zip(&rebuild.tables().packs) {
        file.iter().try_for_each(|file| file.set_len(pack.bytes))?;
    }
    let files = PackFiles { made: packs.iter().map(Option::as_ref).collect(), dir: damaged.pack_dir };
    let filled = rebuild.fill(&mut reader, &files, &Silent);
    if filled.is_err() {
        let names: Vec<_> = rebuild.tables().packs.iter().map(|pack| pack.digest.to_string()).collect();
        rebuild.take_others(&files, |chunk| {
            let mut stored = vec![0; chunk.stored_len as usize];
            let read = match chunk.pack.0 {
                0 => damaged.image.read_at(BLOCK_BYTES + chunk.offset, &mut stored),
                pack => Source::open(&damaged.pack_dir.join(&names[usize::from(pack)]))
                    .and_then(|source| source.read_at(chunk.offset, &mut stored)),
            };
            read.ok().map(|()| stored)
        })?;
    }
    let (made, _) = rebuild.finish(&files, filled.is_ok())?;
    filled?;
    made.map_err(|reason| reader.broken(reader.at(), reason))
}

/// Takes the stored bytes of a chunk, which have its digest.
pub(crate) type TakeChunk<'s> = dyn Fn(u32, &[u8]) -> Result<()> + Sync + 's;

/// Takes bytes that no chunk has, from this offset of this pack; nothing proves them.
pub(crate) type TakeGap<'s> = dyn Fn(u16, u64, &[u8]) -> Result<()> + 's;

/// The chunks and gaps that are looked for in a bundle.
pub(crate) struct Search<'s> {
    /// The tables of the new image.
    pub(crate) new: &'s Tables,
    /// Its superblock.
    pub(crate) sb: &'s SuperBlock,
    /// The chunks that are wanted.
    pub(crate) wanted: &'s HashSet<u32>,
    /// Takes those that are found.
    pub(crate) take: &'s TakeChunk<'s>,
    /// Takes the bytes around them.
    pub(crate) take_gap: &'s TakeGap<'s>,
}

impl Search<'_> {
    /// Looks for the chunks in the bundle. Without the old image only those are found that it ships as they are stored.
    ///
    /// The inner error is about the bundle, or what it needs: what was found before it counts.
    pub(crate) fn run(&self, source: &Source, old: Option<&Side<'_>>) -> Result<Result<()>> {
        let (mut reader, _) = match open(source) {
            Ok(open) => open,
            Err(error) => return Ok(Err(error)),
        };
        let lacking = match old.map(|old| Lacking::read(&mut reader, old, self.new, self.sb)).transpose() {
            Ok(lacking) => lacking,
            Err(error) => return Ok(Err(error)),
        };
        let mut gaps = lacking.iter().flat_map(|lacking| &lacking.wanted.gaps).flat_map(|gap| {
            let pack = gap.pack;
            gap.sections().map(move |(offset, len)| (pack, offset, len))
        });
        let mut rest = lacking.as_ref().map(|lacking| lacking.wanted.lacking.as_slice());
        let mut behind = 0;
        let mut failed = Ok(());
        let all = [Kind::Head, Kind::Table, Kind::Match, Kind::Gap, Kind::Piece, Kind::End];
        loop {
            let mut pieces = Vec::new();
            let ends = loop {
                if pieces.len() == at_once() {
                    break false;
                }
                match reader.next(&all) {
                    Ok((Kind::Piece, section)) => pieces.push(section),
                    Ok((Kind::Gap, section)) => {
                        if let Some((pack, offset, len)) = gaps.next() {
                            if section.len() as u64 == len {
                                (self.take_gap)(pack, offset, &section)?;
                            }
                        }
                    }
                    Ok((Kind::End, _)) => break true,
                    Ok(_) => (),
                    Err(error) => {
                        failed = Err(error);
                        break true;
                    }
                }
            };
            match (old, &lacking, &mut rest) {
                (Some(old), Some(lacking), Some(rest)) => {
                    let decoded = self.with_old(old, &lacking.covers, rest, &pieces)?;
                    failed = failed.and(decoded);
                }
                _ => pieces.iter().try_for_each(|section| self.without_old(&mut behind, section))?,
            }
            if ends {
                return Ok(failed);
            }
        }
    }

    /// Decodes those of the pieces that have a chunk which is wanted.
    fn with_old(
        &self,
        old: &Side<'_>,
        covers: &Covers,
        rest: &mut &[u32],
        pieces: &[Vec<u8>],
    ) -> Result<Result<()>> {
        let mut jobs = Vec::new();
        for section in pieces {
            let Some((chunks, behind)) = count(section).and_then(|count| rest.split_at_checked(count)) else {
                break;
            };
            *rest = behind;
            if chunks.iter().any(|chunk| self.wanted.contains(chunk)) {
                jobs.push((chunks, section));
            }
        }
        let take = |Came { chunk, stored, digests }: Came<'_>| {
            let is_right = digests.0 == self.new.chunks[chunk as usize].digest;
            match is_right && self.wanted.contains(&chunk) {
                true => (self.take)(chunk, stored),
                false => Ok(()),
            }
        };
        let making = Making { old, new: self.new, covers, level: self.sb.profile.level };
        let decoded: Vec<_> =
            jobs.par_iter().map(|(chunks, section)| making.decode(chunks, section, take)).collect();
        let mut failed = Ok(());
        for decoded in decoded {
            match decoded {
                // It is the disk that is full, say, and not the bundle that is broken.
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => failed = Err(error),
                Ok(Err(reason)) => failed = Err(Error::unsupported(old.path, reason)),
                Ok(Ok(())) => (),
            }
        }
        Ok(failed)
    }

    /// Looks for chunks in the stored bytes of a piece. Which chunks it has only the old image tells; but they are in the order of the
    /// table, so each chunk from number `behind` on is either the next one, or not in the bundle any more. Each is hashed once.
    fn without_old(&self, behind: &mut usize, section: &[u8]) -> Result<()> {
        let Some((chunks, mut stored)) = stored_chunks(section) else {
            *behind = behind.saturating_add(count(section).unwrap_or(0)).min(self.new.chunks.len());
            return Ok(());
        };
        for _ in 0..chunks {
            let found = (*behind..self.new.chunks.len()).find_map(|number| {
                let chunk = &self.new.chunks[number];
                let (bytes, rest) = stored.split_at_checked(chunk.stored_len as usize)?;
                (chunk_digest::<Sha2>(bytes) == chunk.digest).then_some((number, bytes, rest))
            });
            let Some((number, bytes, rest)) = found else {
                // A bundle of another image than it says.
                *behind = self.new.chunks.len();
                return Ok(());
            };
            if self.wanted.contains(&(number as u32)) {
                (self.take)(number as u32, bytes)?;
            }
            (*behind, stored) = (number + 1, rest);
        }
        Ok(())
    }
}

/// The chunks that a bundle has, and what of them is in the old image.
struct Lacking {
    wanted: Wanted,
    covers: Covers,
}

impl Lacking {
    /// Reads what the old image has; the tables of the new one are known.
    fn read<R: Read>(reader: &mut Reader<R>, old: &Side<'_>, new: &Tables, sb: &SuperBlock) -> Result<Self> {
        reader.next(&[Kind::Head])?;
        for _ in groups(&old.superblock().layout, &sb.layout) {
            reader.next(&[Kind::Table])?;
        }
        let matches = Matches::read(reader, &old.tables, new)?;
        let wanted = Wanted::new(&old.tables, new, &matches);
        let covers = Covers::find(new, &matches, &wanted.lacking);
        Ok(Self { wanted, covers })
    }
}

fn open(source: &Source) -> Result<(Reader<BufReader<File>>, Header)> {
    let path: &Path = source.path();
    Reader::open(BufReader::new(File::open(path).map_err(Error::io("open", path))?), path)
}
