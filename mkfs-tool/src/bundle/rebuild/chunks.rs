// SPDX-License-Identifier: GPL-2.0-or-later

//! The chunks of the new image, to their places.

use std::io::Read;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{chunk_digest, Chunk};
use tesserafs_image::packs::Decoder;
use tesserafs_image::Source;

use super::digests::place;
use super::{Digests, PackFiles, Rebuild};
use crate::bundle::at_once;
use crate::bundle::partial::NewFile;
use crate::bundle::piece::{count, Came, Making};
use crate::bundle::stream::{Kind, Reader};
use crate::bundle::wanted::Gap;
use crate::convert::broken;
use crate::encode::{sha256, Sha2};
use crate::error::{Error, Result};
use crate::progress::Progress;

impl<'r> Rebuild<'r, '_> {
    /// Brings the chunks.
    pub(in super::super) fn fill<R: Read>(
        &mut self,
        reader: &mut Reader<R>,
        files: &PackFiles<'_>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let known = self.wanted.known.iter().map(|(chunk, _)| chunk);
        progress.found(known.chain(&self.wanted.lacking).map(|chunk| self.bytes_of(*chunk)).sum());
        self.wanted.known.par_iter().try_for_each(|(chunk, known)| {
            progress.read(self.bytes_of(*chunk));
            self.copy(files, *chunk, *known)
        })?;
        for gap in &self.wanted.gaps {
            self.gap(files, *gap, reader)?;
        }
        self.pieces(files, reader, progress)
    }

    /// Takes chunks that did not come from where `read` finds them; nothing proves that they are these.
    pub(in super::super) fn take_others(
        &mut self,
        files: &PackFiles<'_>,
        read: impl Fn(&Chunk) -> Option<Vec<u8>> + Sync,
    ) -> Result<()> {
        let known = self.wanted.known.iter().map(|(chunk, _)| *chunk);
        let wanted: Vec<u32> = known.chain(self.wanted.lacking.iter().copied()).collect();
        let take = |number: &u32| -> Option<Result<Digests>> {
            let chunk = &self.new.chunks[*number as usize];
            let is_right = |stored: &Vec<u8>| chunk.digest == chunk_digest::<Sha2>(stored);
            if self.read(files, *number).is_ok_and(|stored| is_right(&stored)) {
                return None;
            }
            let (stored, mut raw) = (read(chunk)?, Vec::new());
            if !Decoder::new().ok()?.decode_unproven(chunk, &stored, &mut raw) {
                return None;
            }
            let digests = (*number, (chunk_digest::<Sha2>(&stored), sha256(&raw)));
            Some(self.write(files, *number, &stored).map(|()| digests))
        };
        let taken: Result<Vec<_>> = wanted.par_iter().filter_map(take).collect();
        self.learn(taken?)
    }

    fn bytes_of(&self, chunk: u32) -> u64 {
        self.new.chunks[chunk as usize].stored_len.into()
    }

    /// The file that has a pack which is made, and where the pack begins in it.
    pub(super) fn file<'f>(&self, files: &PackFiles<'f>, pack: u16) -> (&'f NewFile, u64)
    where
        'r: 'f,
    {
        match files.made[usize::from(pack)] {
            Some(file) => (file, 0),
            None => (self.image, BLOCK_BYTES),
        }
    }

    fn read(&self, files: &PackFiles<'_>, chunk: u32) -> Result<Vec<u8>> {
        let chunk = &self.new.chunks[chunk as usize];
        let (file, start) = self.file(files, chunk.pack.0);
        let mut stored = vec![0; chunk.stored_len as usize];
        file.read(start + chunk.offset, &mut stored)?;
        Ok(stored)
    }

    fn write(&self, files: &PackFiles<'_>, chunk: u32, stored: &[u8]) -> Result<()> {
        let chunk = &self.new.chunks[chunk as usize];
        let (file, start) = self.file(files, chunk.pack.0);
        file.write(start + chunk.offset, stored)
    }

    /// Brings a chunk that the old image has, by its number there.
    fn copy(&self, files: &PackFiles<'_>, chunk: u32, known: u32) -> Result<()> {
        let record = &self.new.chunks[chunk as usize];
        if self.file(files, record.pack.0).0.is_begun
            && chunk_digest::<Sha2>(&self.read(files, chunk)?) == record.digest
        {
            return Ok(());
        }
        let mut stored = Vec::new();
        let known = &self.old.tables.chunks[known as usize];
        self.old.packs.read_stored(known, &mut stored).map_err(broken(self.old.path))?;
        self.write(files, chunk, &stored)
    }

    fn gap<R: Read>(&self, files: &PackFiles<'_>, gap: Gap, reader: &mut Reader<R>) -> Result<()> {
        let (file, start) = self.file(files, gap.pack);
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
    fn pieces<R: Read>(
        &mut self,
        files: &PackFiles<'_>,
        reader: &mut Reader<R>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let lacking = self.wanted.lacking.clone();
        let mut rest = lacking.as_slice();
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
            let made: Result<Vec<_>> = some
                .par_iter()
                .map(|(_, chunks, section)| {
                    progress.read(chunks.iter().map(|chunk| self.bytes_of(*chunk)).sum());
                    self.piece(files, chunks, section)
                })
                .collect();
            for ((at, ..), made) in some.iter().zip(made?) {
                self.learn(made.map_err(|reason| reader.broken(*at, reason))?)?;
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

    /// Brings the chunks of a piece, and tells their digests. The inner error says what is wrong with the section.
    fn piece(
        &self,
        files: &PackFiles<'_>,
        chunks: &[u32],
        section: &[u8],
    ) -> Result<Result<Vec<Digests>, String>> {
        if let Some(kept) = self.kept(files, chunks)? {
            return Ok(Ok(kept));
        }
        let mut made = Vec::with_capacity(chunks.len());
        let level = self.sb.profile.level;
        let making = Making { old: self.old, new: &self.new, covers: &self.covers, level };
        let decoded = making.decode(chunks, section, |Came { chunk, stored, digests }| {
            made.push((chunk, digests));
            self.write(files, chunk, stored)
        })?;
        Ok(decoded.map(|()| made))
    }

    /// The digests of these chunks, if an earlier run has written all of them.
    fn kept(&self, files: &PackFiles<'_>, chunks: &[u32]) -> Result<Option<Vec<Digests>>> {
        let mut decoder = Decoder::new()?;
        let (mut kept, mut raw) = (Vec::new(), Vec::new());
        for number in chunks {
            let record = &self.new.chunks[*number as usize];
            if !self.image.is_begun || !self.file(files, record.pack.0).0.is_begun {
                return Ok(None);
            }
            let stored = self.read(files, *number)?;
            let digest = chunk_digest::<Sha2>(&stored);
            let mut computed = [0; 32];
            self.image.read(place(&self.sb.layout.chunk_digests, *number), &mut computed)?;
            if computed != digest.0 || !decoder.decode_unproven(record, &stored, &mut raw) {
                return Ok(None);
            }
            kept.push((*number, (digest, sha256(&raw))));
        }
        Ok(Some(kept))
    }

    /// The digests of a chunk in a pack of both images that the old one does not list.
    pub(super) fn elsewhere(&self, files: &PackFiles<'_>, number: u32) -> Result<Digests> {
        let chunk = &self.new.chunks[number as usize];
        let pack = &self.new.packs[usize::from(chunk.pack.0)];
        let source = Source::open(&files.dir.join(pack.digest.to_string()))?;
        let (mut stored, mut raw) = (vec![0; chunk.stored_len as usize], Vec::new());
        source.read_at(chunk.offset, &mut stored)?;
        if !Decoder::new()?.decode_unproven(chunk, &stored, &mut raw) {
            let reason = format!("has no chunk of {} bytes at byte {}", chunk.raw_len, chunk.offset);
            return Err(Error::unsupported(source.path(), reason));
        }
        Ok((number, (chunk_digest::<Sha2>(&stored), sha256(&raw))))
    }
}
