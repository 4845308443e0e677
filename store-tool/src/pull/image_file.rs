// SPDX-License-Identifier: GPL-2.0-or-later

//! The image file, but for pack 0: its blocks are looked at where they are. If some are not right, they are fetched, or all of them where
//! they come compressed.
//!
//! So a pull that goes on with the file of an earlier one fetches what that one lacked.

use std::ops::Range;
use std::path::Path;

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK, DIGEST_SIZE};
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{Digest, SuperBlock};
use tesserafs_image::hash::{sha256, Sha2};
use tesserafs_image::{text, Error};

use super::fetch::Fetcher;
use super::whole::{self, Failed};
use super::Pull;
use crate::artifact::{compressed, Artifact, Blob};
use crate::store::{Slot, Unfinished};

/// Times that blocks are fetched: the first block, the hash region, and the tables, each of which may come wrong once; and the same anew.
const ROUNDS: usize = 8;

/// Times that the same ones come wrong before the registry is believed to have no others.
const SAME: usize = 2;

/// Brings everything behind pack 0, and the first block.
pub(super) fn fetch(pull: &Pull<'_>, file: &Unfinished) -> Result<(), Error> {
    let (fetcher, artifact) = (&pull.fetcher, &pull.found.artifact);
    let is_right = match artifact.compressed {
        Some(blob) => is_there(pull, file)? || decompressed(pull, blob, file)?,
        None => blocks_come(fetcher, artifact, file)?,
    };
    if is_right {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "{}: the image blob sha256:{} has blocks that are not those of the image sha256:{}",
        fetcher.shown(),
        artifact.image_blob().digest,
        artifact.image_id
    )))
}

/// Whether nothing has to come of a file that comes whole.
fn is_there(pull: &Pull<'_>, file: &Unfinished) -> Result<bool, Error> {
    let artifact = &pull.found.artifact;
    if !bad(artifact, file)?.is_empty() {
        return Ok(false);
    }
    // An image in packs has nothing but blocks. Of another one, a pull that asked for chunks may have left some to come.
    Ok(!artifact.packs.is_empty() || file.hash(&pull.request.options.cancel)? == artifact.image.digest)
}

/// Asks for the blocks until they are right, or the registry has no others.
fn blocks_come(fetcher: &Fetcher<'_>, artifact: &Artifact, file: &Unfinished) -> Result<bool, Error> {
    let mut before = None;
    let mut same = 0;
    for round in 0..ROUNDS {
        let bad = bad(artifact, file)?;
        if bad.is_empty() {
            return Ok(true);
        }
        same = if before.as_ref() == Some(&bad) { same + 1 } else { 0 };
        if same == SAME {
            break;
        }
        if round > 0 {
            fetcher.repository().drop_mirrors();
        }
        whole::ranges(fetcher, artifact.image, file, bad.iter().cloned())?;
        before = Some(bad);
    }
    Ok(false)
}

/// Fetches the blob that has the file compressed, and makes the file of it. A blob that did not come to its end goes on where it stopped.
fn decompressed(pull: &Pull<'_>, blob: Blob, file: &Unfinished) -> Result<bool, Error> {
    let cancel = &pull.request.options.cancel;
    let decompress =
        |path: &Path| compressed::decompress(path, file.len(), cancel, |at, bytes| file.write_at(at, bytes));
    let packed = match pull.filling.file(&blob.digest, blob.len)? {
        // A pack of another image with the same bytes.
        Slot::Complete(path) => {
            let made = decompress(&path);
            pull.filling.leave(&blob.digest)?;
            made?;
            return Ok(bad(&pull.found.artifact, file)?.is_empty());
        }
        Slot::Unfinished(packed) => packed,
    };
    let proven = |path: &Path| compressed::proven(path, file.len());
    let (made, is_kept) = match whole::fetch(&pull.fetcher, blob, &packed, proven, cancel) {
        Ok(()) => {
            let made = decompress(packed.path());
            // All of it came, and the next pull makes the file.
            let is_cancelled = matches!(made, Err(Error::Cancelled));
            (made, is_cancelled)
        }
        Err(Failed { error, is_begun }) => (Err(error), is_begun),
    };
    if !is_kept {
        pull.filling.discard(packed)?;
    }
    made?;
    Ok(bad(&pull.found.artifact, file)?.is_empty())
}

/// Whether the file begins as that image does, and is as long as it.
pub(super) fn is_begun(artifact: &Artifact, file: &Unfinished) -> Result<bool, Error> {
    let mut block = [0; BLOCK_SIZE];
    if file.len() < BLOCK_BYTES {
        return Ok(false);
    }
    file.read_at(0, &mut block)?;
    let is_as_long = SuperBlock::parse(&block).is_ok_and(|sb| sb.file_bytes() == file.len());
    Ok(is_as_long && check_prefix::<Sha2>(&block).ok() == Some(artifact.image_id))
}

/// The ranges that are not right, as far as that can be told.
fn bad(artifact: &Artifact, file: &Unfinished) -> Result<Vec<Range<u64>>, Error> {
    let refuse = |why: String| Error::Refused(format!("{}: {why}", text::path(file.path())));
    let mut block = [0; BLOCK_SIZE];
    if file.len() < BLOCK_BYTES {
        return Err(refuse(format!("found {} bytes, expected an image", file.len())));
    }
    file.read_at(0, &mut block)?;
    if check_prefix::<Sha2>(&block).ok() != Some(artifact.image_id) {
        // Without pack 0 the file is small, and all of it is asked for at once.
        let is_shared = !artifact.packs.is_empty();
        return Ok(first(if is_shared { file.len() } else { BLOCK_BYTES }));
    }
    let sb = match SuperBlock::parse(&block) {
        Ok(sb) => sb,
        // The image ID proves 512 bytes of it. The rest may have come wrong.
        Err(error) if block_is_proven(&block) => return Err(refuse(error.to_string())),
        Err(_) => return Ok(first(BLOCK_BYTES)),
    };
    if sb.file_bytes() != file.len() {
        // The length of the signature is not proven, so this may come from it.
        return match sb.layout.image_bytes <= file.len() {
            true => Ok(first(BLOCK_BYTES)),
            false => Err(refuse(format!("found {} bytes, expected {}", file.len(), sb.file_bytes()))),
        };
    }
    let mut bad = blocks(&sb, file)?;
    let (end, len) = (sb.layout.image_bytes, sb.signature_bytes as usize);
    let mut signature = vec![0; len];
    file.read_at(end, &mut signature)?;
    if len > 0 && sha256(&signature) != sb.signature_digest {
        bad.insert(0, 0..BLOCK_BYTES);
        bad.push(end..file.len());
    }
    Ok(bad)
}

/// One range: the first bytes.
fn first(bytes: u64) -> Vec<Range<u64>> {
    std::iter::once(0..bytes).collect()
}

/// Whether all of the block is what the prefix says: nothing behind it is set.
fn block_is_proven(block: &[u8; BLOCK_SIZE]) -> bool {
    block[tesserafs_format::limits::SIGNED_PREFIX + DIGEST_SIZE..].iter().all(|byte| *byte == 0)
}

/// The blocks that are not right, from the root of the Merkle tree down. Below a wrong one nothing can be told: all of that counts as
/// wrong.
fn blocks(sb: &SuperBlock, file: &Unfinished) -> Result<Vec<Range<u64>>, Error> {
    let layout = &sb.layout;
    let geometry = &layout.geometry;
    let mut levels: Vec<(u64, u64)> = geometry.levels().collect();
    levels.reverse();
    levels.push((0, geometry.metadata_blocks()));
    let at = |number: u64| layout.tree_offset + number * BLOCK_BYTES;
    let mut bad = Vec::new();
    // The blocks of a level that a right block names, with their digests.
    let mut known: Vec<(u64, Digest)> = vec![(levels[0].0, sb.merkle_root)];
    let mut block = [0; BLOCK_SIZE];
    for (level, (start, _)) in levels.iter().enumerate() {
        let below = levels.get(level + 1);
        let mut next = Vec::new();
        for (number, expected) in known {
            file.read_at(at(number), &mut block)?;
            let children = below.map(|(below, blocks)| {
                let first = (number - start) * DIGESTS_PER_BLOCK;
                (below + first)..(below + (first + DIGESTS_PER_BLOCK).min(*blocks))
            });
            if sha256(&block) != expected {
                add(&mut bad, at(number)..at(number + 1));
                unknown(&levels[level + 1..], children, &mut |range| {
                    add(&mut bad, at(range.start)..at(range.end))
                });
                continue;
            }
            let digests = block.chunks_exact(DIGEST_SIZE);
            let digests = digests.map(|digest| Digest(digest.first_chunk().copied().unwrap_or_default()));
            next.extend(children.into_iter().flatten().zip(digests));
        }
        known = next;
    }
    Ok(merged(bad))
}

/// All blocks below one that is wrong: its children, theirs, and so on.
fn unknown(levels: &[(u64, u64)], children: Option<Range<u64>>, add: &mut impl FnMut(Range<u64>)) {
    let (Some(children), Some(((start, _), rest))) = (children, levels.split_first()) else { return };
    let below = rest.first().map(|(below, blocks)| {
        let (first, last) = (children.start - start, children.end - start);
        (below + first * DIGESTS_PER_BLOCK)..(below + (last * DIGESTS_PER_BLOCK).min(*blocks))
    });
    add(children);
    unknown(rest, below, add);
}

fn add(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    }
}

/// In ascending order.
fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    ranges.into_iter().for_each(|range| add(&mut merged, range));
    merged
}
