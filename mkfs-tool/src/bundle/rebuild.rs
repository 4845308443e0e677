// SPDX-License-Identifier: GPL-2.0-or-later

//! The new image, from the sections of a bundle and the old image.
//!
//! Tables come first, but for digests. Those that the old image has follow from the numbers of its records, and all others are computed
//! from the bytes: of a chunk when it is there, of a content when its chunks are. The Merkle tree over all of them is compared with the
//! superblock last, and before that nothing is proven: no file gets its name.
//!
//! A run that goes on with the file of an earlier one finds there the digests that this one has computed: a chunk that has one of these is
//! kept.
//!
//! Here is the order of the work; `chunks` brings chunks, and `digests` computes digests.

mod chunks;
mod digests;

use std::io::Read;
use std::path::Path;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Digest, Image, SuperBlock};
use tesserafs_image::packs::Packs;
use tesserafs_image::{Source, VerifiedMetadata};

pub(super) use self::digests::digests;
use self::digests::{place, write_hashes, write_known};
use super::covers::Covers;
use super::matches::Matches;
use super::partial::NewFile;
use super::side::Side;
use super::stream::{Kind, Reader};
use super::tables::{self, groups, padding, Span};
use super::wanted::Wanted;
use crate::convert::{broken, Tables};
use crate::error::{Error, Result};

/// The image that is made: its tables, as far as they are known.
pub(super) struct Rebuild<'r, 'a> {
    old: &'r Side<'a>,
    sb: &'r SuperBlock,
    image: &'r NewFile,
    new: Tables,
    matches: Matches,
    covers: Covers,
    pub(super) wanted: Wanted,
}

/// The files that packs are in, by their indices: those that are made, and where the others are.
pub(super) struct PackFiles<'f> {
    pub(super) made: Vec<Option<&'f NewFile>>,
    pub(super) dir: &'f Path,
}

/// Digests of the stored and the raw bytes of a chunk.
type Digests = (u32, (Digest, Digest));

impl<'r, 'a> Rebuild<'r, 'a> {
    /// Writes the tables, but for digests, and reads what the old image has.
    pub(super) fn begin<R: Read>(
        reader: &mut Reader<R>,
        old: &'r Side<'a>,
        image: &'r NewFile,
        sb: &'r SuperBlock,
    ) -> Result<Self> {
        let layout = &sb.layout;
        image.set_len(sb.file_bytes())?;
        for group in groups(&old.superblock().layout, layout) {
            let at = reader.at();
            let (_, section) = reader.next(&[Kind::Table])?;
            let parts = tables::decode(&group, &section, |span| old.metadata(span))?;
            let parts = parts.ok_or_else(|| {
                let Span { offset, .. } = group[0].new;
                let reason = format!("found no tables from byte {offset} of the new image");
                reader.broken(at, reason)
            })?;
            for (part, bytes) in group.iter().zip(parts) {
                image.write(part.new.offset, &bytes)?;
            }
        }
        for Span { offset, len } in padding(layout) {
            image.write(offset, &vec![0; len as usize])?;
        }
        // A root of their own: the one of the superblock proves them when the digests are there.
        let proven = SuperBlock { merkle_root: write_hashes(image, sb)?, ..*sb };
        let source = image.source()?;
        let metadata = VerifiedMetadata::new(&source, &proven);
        let mut new = Tables::read(&Image::new(&proven, &metadata)).map_err(broken(image.path()))?;
        let matches = Matches::read(reader, &old.tables, &new)?;
        matches.apply(&old.tables, &mut new);
        write_known(image, layout, &new, &matches)?;
        let wanted = Wanted::new(&old.tables, &new, &matches);
        let covers = Covers::find(&new, &matches, &wanted.lacking);
        let rebuild = Self { old, sb, image, new, matches, covers, wanted };
        rebuild.zeros_behind_pack()?;
        Ok(rebuild)
    }

    /// The tables, in which digests may be missing.
    pub(super) fn tables(&self) -> &Tables {
        &self.new
    }

    /// Writes zeros between pack 0 and the tables, which no digest proves.
    fn zeros_behind_pack(&self) -> Result<()> {
        let (behind_pack, tree_offset) = (BLOCK_BYTES + self.new.packs[0].bytes, self.sb.layout.tree_offset);
        if behind_pack.next_multiple_of(BLOCK_BYTES) != tree_offset {
            let reason =
                format!("has {behind_pack} bytes with pack 0, and its tables begin at byte {tree_offset}");
            return Err(Error::unsupported(self.image.path(), reason));
        }
        self.image.write(behind_pack, &vec![0; (tree_offset - behind_pack) as usize])
    }

    /// Computes the digests that are still missing, and compares all of them with the superblock. The inner error says how they differ. Of
    /// what is not whole, contents are left out that cannot be read.
    pub(super) fn finish(
        mut self,
        files: &PackFiles<'_>,
        is_whole: bool,
    ) -> Result<(Result<(), String>, Wanted)> {
        let elsewhere = self.wanted.elsewhere.par_iter().map(|chunk| self.elsewhere(files, *chunk));
        let elsewhere: Result<Vec<_>> = elsewhere.filter(|digests| is_whole || digests.is_ok()).collect();
        self.learn(elsewhere?)?;
        let Self { old: _, sb, image, new, matches, wanted, .. } = self;
        let layout = &sb.layout;
        let source = image.source()?;
        let packs: Vec<_> = new.packs.iter().copied().map(Some).collect();
        let packs = Packs::of(&source, &packs, |pack| match files.made[usize::from(pack.index.0)] {
            Some(file) => file.source().ok(),
            None => Source::open(&files.dir.join(pack.digest.to_string())).ok(),
        });
        let metadata = VerifiedMetadata::new(&source, sb);
        let side = Side { path: image.path(), metadata, tables: new, packs };
        for (content, digest) in digests(&side, &matches.lacking_contents())? {
            match digest {
                Ok(digest) => image.write(place(&layout.content_digests, content), &digest.0)?,
                Err(error) if is_whole => return Err(error),
                Err(_) => (),
            }
        }
        let (found, expected) = (write_hashes(image, sb)?, sb.merkle_root);
        let is_right = match found == expected {
            true => Ok(()),
            false => Err(format!("the tables have the Merkle root {found}, expected {expected}")),
        };
        Ok((is_right, wanted))
    }
}
