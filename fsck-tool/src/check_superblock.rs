// SPDX-License-Identifier: GPL-2.0-or-later

//! The superblock, the length of the file, and the pinned image ID.

use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::raw::MAGIC;
use tesserafs_format::superblock::{check_prefix, image_id};
use tesserafs_format::{Digest, FormatError, Place, Rule, SuperBlock};

use tesserafs_image::error::Error;
use tesserafs_image::finding::{Finding, Findings, Severity};
use tesserafs_image::hash::Sha2;
use tesserafs_image::metadata::Block;
use tesserafs_image::source::Source;

/// The facts in the first block of an image.
#[derive(Debug)]
pub(crate) struct Head {
    /// The block.
    pub(crate) block: Box<Block>,
    /// The superblock, if the block is one and the file holds what it describes.
    pub(crate) sb: Option<SuperBlock>,
    /// The image ID.
    pub(crate) image_id: Digest,
}

/// Reads and checks the superblock; `None` where the file has none.
pub(crate) fn check(
    source: &Source,
    pinned: Option<&Digest>,
    findings: &Findings,
) -> Result<Option<Head>, Error> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    let len = source.len();
    if len < BLOCK_SIZE as u64 {
        let mut magic = [0; MAGIC.len()];
        let begins_right = len >= MAGIC.len() as u64 && {
            source.read_at(0, &mut magic)?;
            magic == MAGIC
        };
        findings.add(if begins_right {
            Finding::new(Rule::FileLength, Place::Byte(len), len, BLOCK_SIZE as u64).severity(Severity::Fatal)
        } else {
            let (found, expected) = (u64::from_le_bytes(magic), u64::from_le_bytes(MAGIC));
            Finding::from(FormatError::new(Rule::Magic, Place::SuperBlock(0), found, expected))
                .detail(format!("the file has {len} bytes"))
        });
        return Ok(None);
    }
    source.read_at(0, block.as_mut())?;
    let image_id = image_id::<Sha2>(&block);
    if let Some(pinned) = pinned.filter(|pinned| **pinned != image_id) {
        findings.add(Finding::new(Rule::ImageId, Place::SuperBlock(0), image_id, *pinned));
    }
    // `parse` reports a block that is no image of this version at all.
    if let Err(error) = check_prefix::<Sha2>(&block) {
        if error.rule == Rule::PrefixDigest {
            findings.add(error);
        }
    }
    let sb = match SuperBlock::parse(&block) {
        Ok(sb) => check_length(source, &sb, findings).then_some(sb),
        Err(error) => {
            findings.add(error);
            None
        }
    };
    Ok(Some(Head { block, sb, image_id }))
}

/// Compares the length of the file with the superblock; whether all metadata is there.
fn check_length(source: &Source, sb: &SuperBlock, findings: &Findings) -> bool {
    let (found, expected) = (source.len(), sb.file_bytes());
    let fits = if source.is_device() { found >= expected } else { found == expected };
    let is_whole = found >= sb.layout.image_bytes;
    if !fits {
        let severity = if is_whole { Severity::Error } else { Severity::Fatal };
        let finding = Finding::new(Rule::FileLength, Place::Byte(found.min(expected)), found, expected);
        findings.add(finding.severity(severity));
    }
    is_whole
}
