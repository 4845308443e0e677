// SPDX-License-Identifier: GPL-2.0

//! Which files share their pages: those whose extents name the same verified chunks.
//!
//! The key is computed from what the kernel enforces, the digests of the stored chunks and how they
//! decode, and never from what an image says about its files. So a task that fills a page of a shared
//! file has verified the very bytes that every other reader would have: an image that claims another
//! one's file without having its chunks has another key, or cannot be read.
//!
//! The task that fills a page holds its lock while the store of its image is read, and other tasks
//! that want the page wait for that store. So only images on one device share, with all their packs: a device that
//! answers late, or never, stops its own readers anyway, as it stops two readers of one file.
//! Images whose store is served by a program or by another machine do not share: that might need
//! the very page.

use kernel::prelude::*;

use tesserafs_format::{FileKind, Image, Target};

use crate::error::Failure;
use crate::klib::{buffer, sha256::sha256};
use crate::mount::Tesserafs;
use crate::vfs::inode::INode;
use crate::vfs::page_cache::PageKey;

/// Extents of a file that shares its pages, at most: with the default profile 128 MiB. Looking at
/// more would make opening a file slow.
const EXTENTS_MAX: u32 = 2048;

/// Bytes of what is digested: the key of all extents so far, and the next one.
const RECORD: usize = 96;

/// The key of a regular file; none for one that keeps its pages for itself.
///
/// Files of images that are stacked differently do not share: the task that fills a page waits for the
/// image below, so a page must not wait for an image above it.
pub(crate) fn key(inode: &INode<Tesserafs>) -> Result<Option<PageKey>, Failure> {
    let sb = inode.super_block();
    let mounted = sb.data();
    let FileKind::Regular {
        size,
        content: Some(content),
    } = inode.data().kind
    else {
        return Ok(None);
    };
    let Some(device) = mounted.packs.device().filter(|_| mounted.shares_pages) else {
        return Ok(None);
    };
    let meta = mounted.meta(sb);
    let image = Image::new(&mounted.sb, &meta);
    let extents = image.extents(content, size)?;
    if extents.end.saturating_sub(extents.first) > EXTENTS_MAX {
        return Ok(None);
    }
    let depth = sb.stack_depth();
    let mut key = digest(&[
        &size.to_le_bytes(),
        &depth.to_le_bytes(),
        &device.to_le_bytes(),
    ])?;
    for index in extents.first..extents.end {
        let extent = image.extent(&extents, index)?;
        let start = extent.start.to_le_bytes();
        key = match extent.target {
            Target::Hole => digest(&[&key, &start])?,
            Target::Chunk { index, offset } => {
                let chunk = image.chunk(index)?;
                let (codec, raw_len) = (chunk.codec.value(), chunk.raw_len.to_le_bytes());
                digest(&[
                    &key,
                    &start,
                    &chunk.digest.0,
                    &[codec],
                    &raw_len,
                    &offset.to_le_bytes(),
                ])?
            }
        };
    }
    Ok(Some(PageKey(key)))
}

/// The digest of a few short fields; their number, and the length of each, follow from the number
/// of bytes.
fn digest(fields: &[&[u8]]) -> Result<[u8; 32]> {
    let mut record = [0; RECORD];
    let mut rest = record.as_mut_slice();
    let mut len = 0_usize;
    for field in fields {
        let (now, later) = rest.split_at_mut_checked(field.len()).ok_or(EINVAL)?;
        buffer::copy(now, field)?;
        len = len.saturating_add(field.len());
        rest = later;
    }
    Ok(sha256(record.get(..len).ok_or(EINVAL)?))
}
