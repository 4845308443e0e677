// SPDX-License-Identifier: GPL-2.0-or-later

//! The first block of the new image, and its signature.

use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_image::superblock::Head;
use tesserafs_image::Source;

use super::frame::{compress, decompress};
use crate::error::Result;

/// The level of zstd.
const LEVEL: i32 = 19;

/// Bytes of a head, at most: a block and the longest signature.
const HEAD_MAX: usize = BLOCK_SIZE + (64 << 10);

/// The section of the head of an image.
pub(super) fn encode(head: &Head, source: &Source) -> Result<Vec<u8>> {
    let mut bytes = head.block.to_vec();
    let mut signature = vec![0; head.sb.signature_bytes as usize];
    source.read_at(head.sb.layout.image_bytes, &mut signature)?;
    bytes.extend(signature);
    let mut section = u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    section.extend(compress(&bytes, &[], LEVEL)?);
    Ok(section)
}

/// The first block and the signature of a section; none if it has no block.
pub(super) fn decode(section: &[u8]) -> Option<(Box<[u8; BLOCK_SIZE]>, Vec<u8>)> {
    let (len, frame) = section.split_first_chunk()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok().filter(|len| *len <= HEAD_MAX)?;
    let bytes = decompress(frame, &[], len)?;
    let (block, signature) = bytes.split_first_chunk::<BLOCK_SIZE>()?;
    Some((Box::new(*block), signature.to_vec()))
}
