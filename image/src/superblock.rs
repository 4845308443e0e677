// SPDX-License-Identifier: GPL-2.0-or-later

//! The superblock: the first thing to read.

use std::fmt::Write;

use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{Digest, FormatError, Place, Rule, SuperBlock};

use crate::error::Broken;
use crate::hash::Sha2;
use crate::metadata::Block;
use crate::source::Source;

/// The UUID of the image with that ID, as the kernel driver gives it to the mount: the first 16 bytes of the ID, with version 8 (of
/// one's own making) and the variant of RFC 9562 in place.
pub fn uuid(image_id: &Digest) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in image_id.0.iter().take(16).enumerate() {
        let byte = match at {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Reads the superblock of an image, and proves that the file holds what it describes.
///
/// This compares no image ID and no signature: who made the image, the caller decides.
pub fn read(source: &Source) -> Result<SuperBlock, Broken> {
    read_head(source).map(|head| head.sb)
}

/// The first block of an image, which is all of it that needs no other proof.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its bytes: a signature is over the beginning of them.
    pub block: Box<Block>,
    /// The image ID.
    pub id: Digest,
    /// The superblock.
    pub sb: SuperBlock,
}

/// As [`read`], with the bytes that were read and the image ID.
pub fn read_head(source: &Source) -> Result<Head, Broken> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    let len = source.len();
    let too_short = |expected| FormatError::new(Rule::FileLength, Place::Byte(len), len, expected);
    if len < BLOCK_SIZE as u64 {
        return Err(too_short(BLOCK_SIZE as u64).into());
    }
    source.read_at(0, block.as_mut())?;
    let sb = SuperBlock::parse(&block)?;
    let id = check_prefix::<Sha2>(&block)?;
    if len < sb.file_bytes() {
        return Err(too_short(sb.file_bytes()).into());
    }
    Ok(Head { block, id, sb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_the_beginning_of_the_image_id_but_for_six_bits() {
        let id = |text: &str| Digest::from_hex(text.repeat(4).as_bytes()).expect("64 digits");
        assert_eq!(uuid(&id("0123456789abcdef")), "01234567-89ab-8def-8123-456789abcdef");
        assert_eq!(uuid(&id("ffffffffffffffff")), "ffffffff-ffff-8fff-bfff-ffffffffffff");
    }
}
