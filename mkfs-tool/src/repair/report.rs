// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a repair, for people and for machines.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use tesserafs_format::limits::{BLOCK_BYTES, SIGNED_PREFIX};
use tesserafs_image::Source;

use super::blocks::Mended;
use super::donor::{are_zeros, first_block, Donor, Kind};
use super::head::Head;
use super::lost::Lost;
use super::places::PackPlace;
use super::whole::has_signature;
use super::RepairRequest;
use crate::convert::Tables;
use crate::error::Shown;
use crate::report::to_json;

/// The damage of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DamageReport {
    /// The first block: the superblock.
    pub first_block: bool,
    /// The signature, with the zeros behind it.
    pub signature: bool,
    /// The zeros behind pack 0.
    pub padding: bool,
    /// The file is too short or too long.
    pub length: bool,
    /// Blocks of metadata.
    pub blocks: u64,
    /// Chunks, in the image and in packs.
    pub chunks: u64,
    /// Bytes of pack 0 that no chunk has: in no image that a builder makes.
    pub dead_bytes: bool,
    /// Packs that are files.
    pub packs: Vec<PackDamage>,
    #[serde(skip)]
    own_chunks: u64,
}

/// A pack that is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackDamage {
    /// Its digest, which is its name.
    pub digest: String,
    /// Whether there is no such file.
    pub missing: bool,
    /// Chunks of the image in it that are damaged.
    pub chunks: u64,
}

impl DamageReport {
    /// The damage that is known before the chunks are looked at.
    pub(super) fn of(head: &Head, image: &Source, mended: &Mended) -> Self {
        let own = first_block(image);
        // The fields of a signature that is lost are part of that loss.
        let known = if head.is_signature_lost { SIGNED_PREFIX + 32 } else { own.len() };
        let is_signed = head.is_signature_lost || !head.signature.is_empty();
        Self {
            first_block: own[..known] != head.block[..known],
            signature: is_signed && (head.is_signature_lost || !has_signature(head, image)),
            length: !image.is_device() && !head.is_signature_lost && image.len() != head.sb.file_bytes(),
            blocks: mended.damaged(),
            ..Self::default()
        }
    }

    pub(super) fn add_chunks(
        &mut self,
        head: &Head,
        image: &Source,
        places: &[PackPlace],
        tables: &Tables,
        bad: &[u32],
    ) {
        let end = BLOCK_BYTES + tables.packs[0].bytes;
        self.padding = !are_zeros(image, end, head.sb.layout.tree_offset);
        self.chunks = bad.len() as u64;
        let in_pack = |place: &PackPlace| {
            bad.iter().filter(|number| tables.chunks[**number as usize].pack == place.pack.index).count()
                as u64
        };
        for place in places {
            if place.path.is_none() {
                self.own_chunks = in_pack(place);
                self.dead_bytes = place.is_damaged;
            } else if place.is_damaged {
                self.packs.push(PackDamage {
                    digest: place.pack.digest.to_string(),
                    missing: place.source.is_none(),
                    chunks: in_pack(place),
                });
            }
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        !self.is_of_image() && self.packs.is_empty()
    }

    /// Whether the image itself is damaged, and not only a pack beside it.
    pub(super) fn is_of_image(&self) -> bool {
        self.first_block
            || self.signature
            || self.padding
            || self.length
            || self.dead_bytes
            || self.blocks > 0
            || self.own_chunks > 0
    }
}

/// A file of `--from`, and what was taken from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DonorReport {
    /// The file.
    pub path: String,
    /// `image`, `bundle`, or `other`: a pack, or an image whose first block is damaged.
    pub kind: &'static str,
    /// `sha256:` and the image ID; of a bundle that of the image which it makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
    /// The first block of the image, and its signature.
    pub first_blocks: u64,
    /// Blocks of metadata.
    pub blocks: u64,
    /// Chunks, as they are stored.
    pub chunks: u64,
    /// Chunks whose bytes were compressed again. One that was put together of several files counts for each.
    pub encoded_chunks: u64,
    /// Bytes of packs that no chunk of the image has.
    pub dead_bytes: u64,
    /// Why something of it was not of use.
    pub notes: Vec<String>,
}

impl DonorReport {
    fn of(donor: &Donor) -> Self {
        let (kind, id) = match &donor.kind {
            Kind::Image { id, .. } => ("image", Some(*id)),
            Kind::Bundle(header) => ("bundle", Some(header.new)),
            Kind::Other => ("other", None),
        };
        let taken = &donor.taken;
        let [first_blocks, blocks, chunks, encoded_chunks, dead_bytes] =
            [&taken.heads, &taken.blocks, &taken.chunks, &taken.encoded, &taken.dead_bytes]
                .map(|taken| taken.load(Ordering::Relaxed));
        Self {
            path: Shown(donor.path()).to_string(),
            kind,
            image_id: id.map(|id| format!("sha256:{id}")),
            first_blocks,
            blocks,
            chunks,
            encoded_chunks,
            dead_bytes,
            notes: donor.notes(),
        }
    }
}

/// A block of metadata that no file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostBlock {
    /// Its number from the tree region.
    pub block: u64,
    /// Where it begins in the image.
    pub offset: u64,
    /// The tables that it has some of.
    pub tables: Vec<&'static str>,
}

/// A range of a file whose bytes no file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostFile {
    /// The first path of the file, from the root of the image.
    pub path: String,
    /// The first byte that is lost.
    pub offset: u64,
    /// How many are.
    pub bytes: u64,
    /// The chunks that they are in.
    pub chunks: Vec<u32>,
}

/// Bytes of a pack that no chunk of the image has, and that no file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostDead {
    /// The digest of the pack.
    pub pack: String,
    /// How many bytes of it the image does not use.
    pub bytes: u64,
}

/// The bytes that were not found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LostReport {
    /// The signature.
    pub signature: bool,
    /// Blocks of metadata.
    pub blocks: Vec<LostBlock>,
    /// Blocks that nothing proves, as the hashes of them are lost.
    pub unproven_blocks: u64,
    /// Chunks.
    pub chunks: u64,
    /// Those of them whose raw bytes are there, and are compressed to other bytes.
    pub otherwise_compressed: u64,
    /// The files that have these chunks.
    pub files: Vec<LostFile>,
    /// Packs whose digest does not hold, as bytes that the image does not use are lost.
    pub dead: Vec<LostDead>,
    #[serde(skip)]
    pub(super) why: Option<String>,
    /// Whether the hashes of all metadata are lost.
    #[serde(skip)]
    pub(super) is_root_lost: bool,
}

impl LostReport {
    pub(super) fn is_nothing(&self) -> bool {
        !self.signature && self.blocks.is_empty() && self.chunks == 0 && self.dead.is_empty()
    }
}

/// A repair.
#[derive(Clone, Debug, Serialize)]
pub struct RepairReport {
    /// The version of this report: higher where a field went away or means something else.
    pub version: u32,
    /// The image.
    pub image: String,
    /// The file that was written, if that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// `sha256:` and the image ID.
    pub image_id: String,
    /// Whether something is damaged.
    pub damaged: bool,
    /// Whether whole files were put in place.
    pub repaired: bool,
    /// Whether this was only tried.
    pub dry_run: bool,
    /// Whether the signature was left out, as no file has it.
    pub signature_dropped: bool,
    /// The damage.
    pub damage: DamageReport,
    /// Where good bytes were looked for.
    pub from: Vec<DonorReport>,
    /// The bytes that were not found.
    pub lost: LostReport,
    /// How long it took.
    pub seconds: f64,
}

impl RepairReport {
    pub(super) fn new(
        request: &RepairRequest,
        head: &Head,
        damage: DamageReport,
        donors: &[Donor],
        lost: Lost,
        started: Instant,
    ) -> Self {
        let root = head.sb.layout.geometry.metadata_blocks();
        let signature_dropped = lost.signature && request.drop_signature;
        let lost = LostReport {
            signature: lost.signature && !request.drop_signature,
            is_root_lost: lost.blocks.iter().any(|block| block.block == root),
            blocks: lost.blocks,
            unproven_blocks: lost.unproven,
            chunks: lost.chunks,
            otherwise_compressed: lost.otherwise,
            files: lost.files,
            dead: lost.dead,
            why: lost.why,
        };
        Self {
            version: 1,
            image: Shown(&request.image).to_string(),
            output: request.output.as_ref().map(|output| Shown(output).to_string()),
            image_id: format!("sha256:{}", head.id),
            damaged: !damage.is_nothing(),
            repaired: false,
            dry_run: request.dry_run,
            signature_dropped,
            damage,
            from: donors.iter().map(DonorReport::of).collect(),
            lost,
            seconds: started.elapsed().as_secs_f64(),
        }
    }

    /// As JSON, with a newline.
    pub fn to_json(&self) -> String {
        to_json(self)
    }
}
