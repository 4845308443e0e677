// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Walking an image: from the superblock to inodes, names, xattrs, extents and chunks.
//!
//! All of it reads through [`Metadata`], whose bytes are already verified, and proves each record as it meets it.
//! The kernel module, fsck and the fuzzers share this code.

use core::cmp::Ordering;

use zerocopy::{FromBytes, IntoBytes};

use crate::annotation::Annotation;
use crate::attributes::{Attributes, AttributesIndex};
use crate::chunk::{Chunk, ChunkIndex};
use crate::digest::Digest;
use crate::dirent::Dirent;
use crate::error::{ensure, FormatError, Place, Rule};
use crate::extent::{ContentIndex, Extent, Extents};
use crate::inode::{Directory, Ino, Inode};
use crate::limits::{DIGEST_SIZE, NAME_MAX, XATTR_NAME_MAX};
use crate::num::low_u32;
use crate::pack::{Pack, PackIndex};
use crate::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawContentMap, RawDirent, RawExtent, RawInode, RawPack,
    RawXattrEntry, RawXattrSet,
};
use crate::superblock::{SuperBlock, Table};
use crate::xattr::{is_valid_name, XattrEntry, XattrSet, XattrSetIndex};

/// The verified bytes of the tree and map regions.
pub trait Metadata {
    /// The error of a read, beside a broken rule.
    type Error: From<FormatError>;

    /// Fills `buf` with the bytes from `offset` of the image, verified against the Merkle root.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Self::Error>;
}

/// An image: a proven superblock, and the metadata that it describes.
#[derive(Debug)]
pub struct Image<'a, M> {
    /// The superblock.
    pub sb: &'a SuperBlock,
    /// The metadata.
    pub metadata: &'a M,
}

impl<M> Clone for Image<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Image<'_, M> {}

impl<'a, M: Metadata> Image<'a, M> {
    /// The image of a superblock and its metadata.
    pub const fn new(sb: &'a SuperBlock, metadata: &'a M) -> Self {
        Self { sb, metadata }
    }

    /// Reads record `index` of `table`, or says that it is not there.
    fn record<R: FromBytes + IntoBytes>(
        &self,
        table: &Table,
        index: u64,
        rule: Rule,
        place: Place,
    ) -> Result<R, M::Error> {
        let offset = table.record(index).ok_or(FormatError::new(rule, place, index, table.records()))?;
        let mut raw = R::new_zeroed();
        self.metadata.read(offset, raw.as_mut_bytes())?;
        Ok(raw)
    }

    /// Reads `buf.len()` bytes from `start` of a table of bytes, whose range a parser has proven.
    fn bytes(
        &self,
        table: &Table,
        start: u64,
        buf: &mut [u8],
        rule: Rule,
        place: Place,
    ) -> Result<(), M::Error> {
        let len = crate::num::u64_from_usize(buf.len());
        let offset = table.range(start, len).ok_or(FormatError::new(rule, place, start, table.records()))?;
        self.metadata.read(offset, buf)
    }

    /// The inode of that number.
    pub fn inode(&self, ino: Ino) -> Result<Inode, M::Error> {
        let raw: RawInode =
            self.record(&self.sb.layout.inodes, ino.index(), Rule::InodeNumber, Place::Ino(ino.get()))?;
        let index = AttributesIndex(raw.attributes.get());
        let records = self.sb.layout.attributes.records();
        let place = Place::Ino(ino.get());
        ensure(u64::from(index.0) < records, Rule::InodeAttributes, place, index.0.into(), records)?;
        let attributes = self.attributes(index)?;
        Ok(Inode::parse(&raw, ino, &attributes, &self.sb.layout)?)
    }

    /// The attributes of that index.
    pub fn attributes(&self, index: AttributesIndex) -> Result<Attributes, M::Error> {
        let table = &self.sb.layout.attributes;
        let place = Place::Attributes(index.0);
        let raw: RawAttributes = self.record(table, index.0.into(), Rule::InodeAttributes, place)?;
        Ok(Attributes::parse(&raw, index, &self.sb.layout)?)
    }

    /// Entry `n` of a directory; `None` behind the last.
    pub fn dirent(&self, directory: &Directory, n: u32) -> Result<Option<Dirent>, M::Error> {
        if n >= directory.entries {
            return Ok(None);
        }
        let index = directory.first.saturating_add(n);
        let [raw, next]: [RawDirent; 2] = self.dirents(index)?;
        Ok(Some(Dirent::parse(&raw, &next, index, directory, &self.sb.layout)?))
    }

    /// Proves the fence of a directory, and gives the bytes of its names.
    pub fn fence(&self, directory: &Directory) -> Result<u32, M::Error> {
        let index = directory.first.saturating_add(directory.entries);
        let [raw]: [RawDirent; 1] = self.dirents(index)?;
        Ok(Dirent::parse_fence(&raw, index)?)
    }

    /// Reads `N` records of the entry table.
    fn dirents<const N: usize>(&self, index: u32) -> Result<[RawDirent; N], M::Error> {
        let table = &self.sb.layout.dirents;
        let end = u64::from(index).saturating_add(crate::num::u64_from_usize(N));
        let broken = FormatError::new(Rule::InodeEntries, Place::Dirent(index), end, table.records());
        let len = crate::num::u64_from_usize(N);
        let offset = table.range(index.into(), len).ok_or(broken)?;
        let mut records = [RawDirent::default(); N];
        self.metadata.read(offset, records.as_mut_bytes())?;
        Ok(records)
    }

    /// The name of an entry.
    pub fn name<'b>(&self, dirent: &Dirent, buf: &'b mut [u8; NAME_MAX]) -> Result<&'b [u8], M::Error> {
        let place = Place::Dirent(dirent.index);
        let broken = FormatError::new(Rule::DirentNameLength, place, dirent.name_len.into(), 255);
        let name = buf.get_mut(..usize::from(dirent.name_len)).ok_or(broken)?;
        self.bytes(&self.sb.layout.names, dirent.name_offset, name, Rule::DirentNameRange, place)?;
        dirent.check_name(name)?;
        Ok(name)
    }

    /// The entry of that name in a directory.
    pub fn lookup(&self, directory: &Directory, name: &[u8]) -> Result<Option<Dirent>, M::Error> {
        let mut buf = [0; NAME_MAX];
        let (mut low, mut high) = (0, directory.entries);
        while low < high {
            let middle = low.midpoint(high);
            let Some(dirent) = self.dirent(directory, middle)? else { break };
            match self.name(&dirent, &mut buf)?.cmp(name) {
                Ordering::Equal => return Ok(Some(dirent)),
                Ordering::Less => low = middle.saturating_add(1),
                Ordering::Greater => high = middle,
            }
        }
        Ok(None)
    }

    /// Reads part of a symlink's target, from byte `offset` of the target table.
    pub fn target(&self, ino: Ino, offset: u32, buf: &mut [u8]) -> Result<(), M::Error> {
        let place = Place::Ino(ino.get());
        self.bytes(&self.sb.layout.targets, offset.into(), buf, Rule::InodeTarget, place)?;
        Ok(ensure(!buf.contains(&0), Rule::TargetBytes, place, 0, 1)?)
    }

    /// The xattr set of that index.
    pub fn xattr_set(&self, index: XattrSetIndex) -> Result<XattrSet, M::Error> {
        let raw: RawXattrSet = self.record(
            &self.sb.layout.xattr_sets,
            index.0.into(),
            Rule::XattrSetRange,
            Place::XattrSet(index.0),
        )?;
        Ok(XattrSet::parse(&raw, index, &self.sb.layout)?)
    }

    /// A cursor over the xattrs of `set`.
    pub fn xattrs(&self, set: XattrSet) -> Xattrs<'a, M> {
        Xattrs { image: *self, at: set.offset, left: set.count, set }
    }

    /// Reads the value of an xattr, or a part of it from its start.
    pub fn xattr_value(
        &self,
        set: XattrSetIndex,
        entry: &XattrEntry,
        buf: &mut [u8],
    ) -> Result<(), M::Error> {
        let place = Place::XattrSet(set.0);
        self.bytes(&self.sb.layout.xattr_entries, entry.value_offset, buf, Rule::XattrEntryRange, place)
    }

    /// The SHA-256 of a content.
    pub fn content_digest(&self, content: ContentIndex) -> Result<Digest, M::Error> {
        self.digest(&self.sb.layout.content_digests, content.0, Rule::ContentIndex, Place::Content(content.0))
    }

    /// The SHA-256 of a chunk's decoded bytes.
    pub fn raw_digest(&self, chunk: ChunkIndex) -> Result<Digest, M::Error> {
        self.digest(&self.sb.layout.raw_digests, chunk.0, Rule::ChunkIndex, Place::Chunk(chunk.0))
    }

    fn digest(&self, table: &Table, index: u32, rule: Rule, place: Place) -> Result<Digest, M::Error> {
        self.record::<[u8; DIGEST_SIZE]>(table, index.into(), rule, place).map(Digest)
    }

    /// The extents of a content of `size` bytes.
    pub fn extents(&self, content: ContentIndex, size: u64) -> Result<Extents, M::Error> {
        let place = Place::Content(content.0);
        let table = &self.sb.layout.content_map;
        let first_of = |index: u64| -> Result<u32, M::Error> {
            let raw: RawContentMap = self.record(table, index, Rule::ContentIndex, place)?;
            Ok(raw.first_extent.get())
        };
        let extents = low_u32(self.sb.layout.extents.records());
        let first = first_of(content.0.into())?;
        let next = u64::from(content.0).saturating_add(1);
        let end = if next < table.records() { first_of(next)? } else { extents };
        ensure(first < end && end <= extents, Rule::ContentExtents, place, first.into(), end.into())?;
        // INVARIANT: proven by the line above.
        Ok(Extents { content, first, end, size })
    }

    /// Extent `index` of `extents`.
    pub fn extent(&self, extents: &Extents, index: u32) -> Result<Extent, M::Error> {
        let raw = self.raw_extent(index)?;
        let next = index.saturating_add(1);
        let end = if next < extents.end { self.raw_extent(next)?.file_offset.get() } else { extents.size };
        let place = Place::Extent(index);
        ensure(end <= extents.size, Rule::ExtentOrder, place, end, extents.size)?;
        let starts_right = index != extents.first || raw.file_offset.get() == 0;
        ensure(starts_right, Rule::ExtentOrder, place, raw.file_offset.get(), 0)?;
        Ok(Extent::parse(&raw, index, end, extents.size)?)
    }

    /// The extent that covers byte `pos`, which is below the content's size.
    ///
    /// For each byte of that extent it is the same one, also where the extents do not all ascend.
    pub fn extent_at(&self, extents: &Extents, pos: u64) -> Result<Extent, M::Error> {
        // The last extent that does not begin behind `pos`.
        let (mut low, mut high) = (extents.first, extents.end);
        // Where these two begin. Every extent that is looked at lies between them, in the file too: else
        // another byte of the extent that is found could be found in another one.
        let (mut start, mut end) = (0, extents.size);
        while high.saturating_sub(low) > 1 {
            let middle = low.midpoint(high);
            let found = self.raw_extent(middle)?.file_offset.get();
            let place = Place::Extent(middle);
            ensure(start < found, Rule::ExtentOrder, place, found, start)?;
            ensure(found < end, Rule::ExtentOrder, place, found, end)?;
            if found <= pos {
                (low, start) = (middle, found);
            } else {
                (high, end) = (middle, found);
            }
        }
        let extent = self.extent(extents, low)?;
        let covers = (extent.start..extent.end).contains(&pos);
        ensure(covers, Rule::ExtentOrder, Place::Extent(low), extent.start, pos)?;
        Ok(extent)
    }

    /// Proves that [`extent_at`](Self::extent_at) finds each byte of a run of extents in its own extent. The
    /// run goes from an extent that it gave to `last`.
    ///
    /// For a later byte it never gives an earlier extent: so it suffices to ask it for the last one.
    pub fn check_run(&self, extents: &Extents, last: &Extent) -> Result<(), M::Error> {
        let found = self.extent_at(extents, last.start)?.index;
        let place = Place::Extent(last.index);
        Ok(ensure(found == last.index, Rule::ExtentOrder, place, found.into(), last.index.into())?)
    }

    fn raw_extent(&self, index: u32) -> Result<RawExtent, M::Error> {
        self.record(&self.sb.layout.extents, index.into(), Rule::ContentExtents, Place::Extent(index))
    }

    /// The chunk of that index.
    pub fn chunk(&self, index: ChunkIndex) -> Result<Chunk, M::Error> {
        let layout = &self.sb.layout;
        let place = Place::Chunk(index.0);
        let raw: RawChunk = self.record(&layout.chunks, index.0.into(), Rule::ChunkIndex, place)?;
        let digest = self.digest(&layout.chunk_digests, index.0, Rule::ChunkIndex, place)?;
        Ok(Chunk::parse(&raw, digest, index, layout)?)
    }

    /// The pack of that index.
    pub fn pack(&self, index: PackIndex) -> Result<Pack, M::Error> {
        let layout = &self.sb.layout;
        let raw: RawPack =
            self.record(&layout.packs, index.0.into(), Rule::PackIndex, Place::Pack(index.0))?;
        Ok(Pack::parse(&raw, index, layout)?)
    }

    /// The first chunk in a pack, by bisection: chunks are in the order of packs. Of an image whose chunks are in no order a pack may
    /// seem to have none.
    pub fn first_chunk(&self, pack: PackIndex) -> Result<Option<Chunk>, M::Error> {
        let (mut low, mut high) = (0, low_u32(self.sb.layout.chunks.records()));
        let mut found = None;
        while low < high {
            let middle = low.midpoint(high);
            let chunk = self.chunk(ChunkIndex(middle))?;
            if chunk.pack < pack {
                low = middle.saturating_add(1);
            } else {
                high = middle;
                found = Some(chunk).filter(|chunk| chunk.pack == pack);
            }
        }
        Ok(found)
    }

    /// The annotation of that index.
    pub fn annotation(&self, index: u32) -> Result<Annotation, M::Error> {
        let layout = &self.sb.layout;
        let place = Place::Annotation(index);
        let raw: RawAnnotation =
            self.record(&layout.annotations, index.into(), Rule::AnnotationRange, place)?;
        Ok(Annotation::parse(&raw, index, layout)?)
    }

    /// Reads bytes of the annotation data table.
    pub fn annotation_bytes(&self, index: u32, offset: u64, buf: &mut [u8]) -> Result<(), M::Error> {
        let place = Place::Annotation(index);
        self.bytes(&self.sb.layout.annotation_data, offset, buf, Rule::AnnotationRange, place)
    }
}

/// A cursor over the xattrs of a set.
#[derive(Debug)]
pub struct Xattrs<'a, M> {
    image: Image<'a, M>,
    set: XattrSet,
    at: u64,
    left: u32,
}

impl<M: Metadata> Xattrs<'_, M> {
    /// The next xattr with its name; `None` behind the last.
    pub fn next<'b>(
        &mut self,
        buf: &'b mut [u8; XATTR_NAME_MAX],
    ) -> Result<Option<(XattrEntry, &'b [u8])>, M::Error> {
        let place = Place::XattrSet(self.set.index.0);
        let table = &self.image.sb.layout.xattr_entries;
        let set_end = self.set.offset.saturating_add(self.set.bytes.into());
        let Some(left) = self.left.checked_sub(1) else {
            ensure(self.at == set_end, Rule::XattrSetCount, place, self.at, set_end)?;
            return Ok(None);
        };
        let mut raw = RawXattrEntry::default();
        self.image.bytes(table, self.at, raw.as_mut_bytes(), Rule::XattrEntryRange, place)?;
        let entry = XattrEntry::parse(&raw, self.at, &self.set)?;
        let broken = FormatError::new(Rule::XattrName, place, entry.name_len.into(), 255);
        let name = buf.get_mut(..usize::from(entry.name_len)).ok_or(broken)?;
        self.image.bytes(table, entry.name_offset, name, Rule::XattrEntryRange, place)?;
        ensure(is_valid_name(name), Rule::XattrName, place, entry.name_len.into(), 255)?;
        self.at = entry.end;
        self.left = left;
        Ok(Some((entry, name)))
    }
}
