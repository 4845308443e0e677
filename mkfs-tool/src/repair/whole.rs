// SPDX-License-Identifier: GPL-2.0-or-later

//! The proof that the new image is right, by what is read back of it.

use std::path::Path;
use std::sync::Arc;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Chunk, PackIndex};
use tesserafs_image::Source;

use super::blocks::{BlockFile, Blocks};
use super::donor::{are_zeros, first_block, read_all};
use super::head::Head;
use super::places::{self, PackPlace};
use crate::convert::Tables;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Compares all of the new image with what it should be.
pub(super) fn check(
    head: &Head,
    tables: &Tables,
    new: &Arc<Source>,
    target: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let wrong = |what: &str| {
        let reason = format!(
            "the new file for it was read back, and {what} is not what was written: nothing was put in place"
        );
        Err(Error::unsupported(target, reason))
    };
    if new.len() != head.sb.file_bytes() || *first_block(new) != *head.block {
        return wrong("the first block, or the length,");
    }
    if (Blocks { sb: &head.sb, files: vec![BlockFile::copy(None, new, &head.sb)] }).mend().damaged() > 0 {
        return wrong("a block of metadata");
    }
    let pack = tables.packs[0];
    let place =
        PackPlace { pack, path: None, source: Some(new.clone()), start: BLOCK_BYTES, is_damaged: false };
    let own: Vec<Chunk> = tables.chunks.iter().copied().filter(|chunk| chunk.pack == PackIndex(0)).collect();
    if !places::damaged(&[place], &own, progress).is_empty() {
        return wrong("a chunk");
    }
    progress.found(pack.bytes);
    if places::digest(new, BLOCK_BYTES, pack.bytes, progress) != Some(pack.digest) {
        let reason = format!(
            "has all chunks that it says, and pack 0 not the digest {}: no repair makes that right",
            pack.digest
        );
        return Err(Error::unsupported(target, reason));
    }
    if !are_zeros(new, BLOCK_BYTES + pack.bytes, head.sb.layout.tree_offset) || !has_signature(head, new) {
        return wrong("the padding, or the signature,");
    }
    Ok(())
}

/// Whether a file has the signature where it should be, zeros behind it, and nothing more.
pub(super) fn has_signature(head: &Head, file: &Source) -> bool {
    let start = head.sb.layout.image_bytes;
    let mut signature = vec![0; head.signature.len()];
    let behind = start + signature.len() as u64;
    read_all(file, start, &mut signature)
        && signature == head.signature
        && are_zeros(file, behind, head.sb.file_bytes())
}
