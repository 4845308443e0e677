// SPDX-License-Identifier: GPL-2.0-or-later

//! The tables of an image as a short input: counts, tables back to back, pack 0.
//!
//! An image is padded to blocks, and full of digests that no mutation gets right. Here there is neither, so that a
//! byte of an input is a byte of a record; the superblock, which says nothing but counts and places, is computed.

use std::cell::Cell;

use tesserafs_format::image::Metadata;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::raw::{RawMap, RawSuperBlock, RawTree};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{Digest, FormatError, Profile, SuperBlock, Table};
use zerocopy::{FromBytes, IntoBytes};

use crate::draft::{self, Draft, Sha2};
use crate::input::Input;

/// Zeros that an input may leave out at its end.
const SLACK: u64 = 4096;

/// The tables of an image; nothing vouches for them.
#[derive(Debug)]
pub struct Tables {
    /// A superblock with the layout; its digests are zero.
    pub sb: SuperBlock,
    /// The bytes of tree and map region.
    metadata: Vec<u8>,
    /// The bytes of pack 0.
    pack: Vec<u8>,
    /// How often it was read.
    reads: Cell<u64>,
}

impl Tables {
    /// The tables that an input says; `None` where it is too short for its counts, or no layout has them.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let mut input = Input(data);
        let mut count = || u64::from(input.u16()).into();
        let tree = RawTree {
            attributes: count(),
            inodes: count(),
            dirents: count(),
            name_bytes: count(),
            target_bytes: count(),
            xattr_sets: count(),
            xattr_bytes: count(),
            contents: count(),
        };
        let map = RawMap {
            packs: count(),
            chunks: count(),
            extents: count(),
            annotations: count(),
            annotation_bytes: count(),
            reserved: Default::default(),
        };
        let layout = Layout::new(BLOCK_BYTES, &tree, &map).ok()?;
        let wanted: u64 = tables(&layout).map(|table| table.end() - table.offset()).sum();
        if wanted > input.0.len() as u64 + SLACK {
            return None;
        }
        let pack = input.0.get(wanted as usize..).unwrap_or_default().to_vec();
        let tree_offset = BLOCK_BYTES + (pack.len() as u64).next_multiple_of(BLOCK_BYTES);
        let layout = Layout::new(tree_offset, &tree, &map).ok()?;
        let mut metadata = vec![0; (layout.hash_offset - tree_offset) as usize];
        let mut rest = input.0;
        for table in tables(&layout) {
            let (start, end) = (table.offset() - tree_offset, table.end() - tree_offset);
            let bytes = &mut metadata[start as usize..end as usize];
            let (now, later) = rest.split_at(bytes.len().min(rest.len()));
            bytes[..now.len()].copy_from_slice(now);
            rest = later;
        }
        let sb = SuperBlock {
            compat: 0,
            layout,
            profile: Profile::parse(&Draft::empty().profile).expect("a profile in range"),
            merkle_root: Digest::default(),
            tree_id: Digest::default(),
            signature_bytes: 0,
            signature_digest: Digest::default(),
        };
        Some(Self { sb, metadata, pack, reads: Cell::new(0) })
    }

    /// The input that says the tables of an image.
    pub fn input(image: &[u8]) -> Vec<u8> {
        let layout = draft::layout(image);
        let (raw, _) = RawSuperBlock::ref_from_prefix(image).expect("a block");
        let (tree, map) = (&raw.tree, &raw.map);
        let mut input = Vec::new();
        for count in [
            tree.attributes,
            tree.inodes,
            tree.dirents,
            tree.name_bytes,
            tree.target_bytes,
            tree.xattr_sets,
            tree.xattr_bytes,
            tree.contents,
            map.packs,
            map.chunks,
            map.extents,
            map.annotations,
            map.annotation_bytes,
        ] {
            input.extend(u16::try_from(count.get()).expect("a small image").to_le_bytes());
        }
        for table in tables(&layout) {
            input.extend(&image[table.offset() as usize..table.end() as usize]);
        }
        input.extend(&image[BLOCK_SIZE..layout.tree_offset as usize]);
        input
    }

    /// The image with these tables, and with all digests that a reader compares before it parses.
    pub fn sealed(&self) -> Vec<u8> {
        let mut image = vec![0; BLOCK_SIZE];
        image.extend_from_slice(&self.pack);
        image.resize(self.sb.layout.tree_offset as usize, 0);
        image.extend_from_slice(&self.metadata);
        let (hashes, root) = draft::merkle(&self.metadata, 0);
        image.extend_from_slice(&hashes);
        let tree_bytes = (self.sb.layout.map_offset - self.sb.layout.tree_offset) as usize;
        let tree = [self.sb.raw_tree().as_bytes(), &self.metadata[..tree_bytes]].concat();
        let sb = SuperBlock { merkle_root: Digest(root), tree_id: Digest(draft::sha256(&tree)), ..self.sb };
        let raw = sb.to_raw::<Sha2>();
        image[..BLOCK_SIZE].copy_from_slice(raw.as_bytes());
        image
    }

    /// Calls of [`Metadata::read`] until now.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }

    /// Records and bytes of all tables.
    pub fn records(&self) -> u64 {
        tables(&self.sb.layout).map(|table| table.records()).sum()
    }
}

/// All tables, in order.
fn tables(layout: &Layout) -> impl Iterator<Item = Table> {
    layout.tree_tables().into_iter().chain(layout.map_tables())
}

impl Metadata for Tables {
    type Error = FormatError;

    /// A caller that reads outside all tables has a defect: ranges are proven before they are read.
    fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        self.reads.set(self.reads.get() + 1);
        let end = offset + buf.len() as u64;
        let inside = tables(&self.sb.layout).any(|table| table.offset() <= offset && end <= table.end());
        assert!(inside, "{} bytes at {offset} are in no table", buf.len());
        let start = (offset - self.sb.layout.tree_offset) as usize;
        buf.copy_from_slice(&self.metadata[start..start + buf.len()]);
        Ok(())
    }
}
