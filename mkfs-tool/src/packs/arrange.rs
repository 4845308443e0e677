// SPDX-License-Identifier: GPL-2.0-or-later

//! From chunks in the order in which they were cut to the tables of the shared form.

use std::collections::HashMap;

use tesserafs_format::extent::HOLE;
use tesserafs_format::{chunk_digest, Chunk, Digest, Pack, PackIndex, PackKind};
use tesserafs_image::Source;

use super::{NewPack, PackReport, PacksReport, Parents};
use crate::encode::{Map, PackWriter, Sha2};
use crate::error::{Error, Result};

/// Packs that an image has beside the first one, its *base*, at most: the more there are, the more requests and open files.
const BESIDE_BASE: usize = 4;

/// Decides which packs of the parents the image names, copies what it has in the others to the new one, and puts the tables of
/// chunks in the order of packs and offsets. Until then a chunk's pack is 0 for the new one, else one more than the index of the parents'.
pub fn arrange(map: &mut Map, parents: &mut Parents, rebase: bool, new: &mut NewPack) -> Result<PacksReport> {
    let mut live = vec![0; parents.packs.len()];
    for (chunk, raw) in map.chunks.iter().zip(&map.raw_digests) {
        let Some(pack) = usize::from(chunk.pack()).checked_sub(1) else { continue };
        live[pack] += u64::from(chunk.stored_len());
        parents.count(raw);
    }
    let kept = if rebase { Vec::new() } else { kept(&live, new.bytes()) };
    let absorbed_bytes = absorb(map, parents, &kept, new)?;
    map.pack_bytes = 0;

    // The order of the table: the oldest first, the new one last.
    let mut table: Vec<Pack> = kept.iter().map(|pack| parents.packs[*pack].pack).collect();
    let mut reports: Vec<PackReport> = kept
        .iter()
        .map(|pack| {
            let Pack { digest, bytes, .. } = parents.packs[*pack].pack;
            PackReport { digest: digest.to_string(), bytes, live_bytes: live[*pack], new: false }
        })
        .collect();
    if new.bytes() > 0 {
        let (digest, bytes) = (new.digest(), new.bytes());
        table.push(Pack { index: PackIndex(0), kind: PackKind::File, digest, bytes });
        reports.push(PackReport { digest: digest.to_string(), bytes, live_bytes: bytes, new: true });
    }
    let last = table.len() as u16;
    let mut index_of: HashMap<u16, PackIndex> =
        (1..).zip(&kept).map(|(index, pack)| (*pack as u16 + 1, PackIndex(index))).collect();
    index_of.insert(0, PackIndex(last));
    map.packs = (1..).zip(table).map(|(index, pack)| Pack { index: PackIndex(index), ..pack }).collect();
    for chunk in &mut map.chunks {
        let index = index_of.get(&chunk.pack()).copied().unwrap_or(PackIndex(last));
        chunk.place = place(index, chunk.offset())?.into();
    }
    sort(map);
    Ok(PacksReport { packs: reports, absorbed_bytes, parents: parents.take_reports() })
}

/// The packs of parents that stay, by the bytes that the image has in each: from the newest on they are absorbed, while each has less than
/// the new pack has by then, or there are too many.
fn kept(live: &[u64], new_bytes: u64) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..live.len()).filter(|pack| live[*pack] > 0).collect();
    let mut new = new_bytes;
    while let Some(last) = kept.last() {
        let packs = kept.len() + usize::from(new > 0);
        if live[*last] >= new && packs <= 1 + BESIDE_BASE {
            break;
        }
        new += live[*last];
        kept.pop();
    }
    kept
}

/// Copies the chunks of all packs but `kept` to the new one, in their order; how many bytes that were.
fn absorb(map: &mut Map, parents: &Parents, kept: &[usize], new: &mut NewPack) -> Result<u64> {
    let mut absorbed: Vec<usize> = (0..map.chunks.len())
        .filter(|chunk| {
            let pack = usize::from(map.chunks[*chunk].pack());
            pack != 0 && !kept.contains(&(pack - 1))
        })
        .collect();
    absorbed.sort_unstable_by_key(|chunk| map.chunks[*chunk].place.get());
    let mut open: Option<(u16, Source)> = None;
    let mut bytes = Vec::new();
    let mut sum = 0;
    for chunk in absorbed {
        let raw = &mut map.chunks[chunk];
        let parent = &parents.packs[usize::from(raw.pack()) - 1];
        let source = match &open {
            Some((pack, source)) if *pack == raw.pack() => source,
            _ => &open.insert((raw.pack(), Source::open(&parent.path)?)).1,
        };
        bytes.resize(raw.stored_len() as usize, 0);
        source.read_at(raw.offset(), &mut bytes)?;
        let found = chunk_digest::<Sha2>(&bytes);
        if found != map.chunk_digests[chunk] {
            return Err(Error::unsupported(
                &parent.path,
                format!(
                    "at byte {} is not the chunk that a parent has there: its digest is {found}, expected {}",
                    raw.offset(),
                    map.chunk_digests[chunk]
                ),
            ));
        }
        raw.place = place(PackIndex(0), new.bytes())?.into();
        new.append(&bytes)?;
        sum += bytes.len() as u64;
    }
    Ok(sum)
}

fn place(pack: PackIndex, offset: u64) -> Result<u64> {
    Chunk::place(pack, offset).ok_or(Error::TooMany("bytes in a pack"))
}

/// Puts the tables of chunks in the order of their places.
pub(crate) fn sort(map: &mut Map) {
    let mut order: Vec<u32> = (0..map.chunks.len() as u32).collect();
    order.sort_unstable_by_key(|chunk| map.chunks[*chunk as usize].place.get());
    let mut index_of = vec![0_u32; order.len()];
    for (index, chunk) in (0..).zip(&order) {
        index_of[*chunk as usize] = index;
    }
    fn sorted<T: Copy>(order: &[u32], table: &[T]) -> Vec<T> {
        order.iter().map(|chunk| table[*chunk as usize]).collect()
    }
    map.chunks = sorted(&order, &map.chunks);
    map.chunk_digests = sorted::<Digest>(&order, &map.chunk_digests);
    map.raw_digests = sorted::<Digest>(&order, &map.raw_digests);
    for extent in &mut map.extents {
        if extent.chunk.get() != HOLE {
            extent.chunk = index_of[extent.chunk.get() as usize].into();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{mknodat, FileType, Mode, CWD};
    use tesserafs_format::{ChunkIndex, Codec};

    use super::*;
    use crate::packs::ParentPack;

    /// A chunk of a parent, whose pack is at `path`, goes into the new pack.
    fn absorb_from(path: PathBuf, dir: &std::path::Path) -> Result<u64> {
        let digest = Digest([1; 32]);
        let pack = Pack { index: PackIndex(1), kind: PackKind::File, digest, bytes: 10 };
        let mut parents = Parents::default();
        parents.packs.push(ParentPack { pack, path });
        let (codec, index) = (Codec::Plain, ChunkIndex(0));
        let chunk =
            Chunk { index, pack: PackIndex(1), offset: 0, codec, stored_len: 10, raw_len: 10, digest };
        let mut map = Map { chunks: vec![chunk.to_raw().unwrap()], ..Map::default() };
        map.chunk_digests.push(digest);
        absorb(&mut map, &parents, &[], &mut NewPack::create(dir, false)?)
    }

    #[test]
    fn a_fifo_that_has_the_name_of_a_pack_by_now_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("pack");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let (sender, done) = mpsc::channel();
        thread::spawn(move || sender.send(absorb_from(fifo, dir.path()).map_err(|error| error.to_string())));
        let absorbed = done.recv_timeout(Duration::from_secs(60)).expect("it waits for a writer");
        assert!(absorbed.unwrap_err().contains("neither a regular file nor a block device"));
    }

    #[test]
    fn packs_are_absorbed_while_they_have_less_than_the_new_one() {
        assert_eq!(kept(&[1000, 100], 10), [0, 1]);
        assert_eq!(kept(&[1000, 100], 100), [0, 1]);
        assert_eq!(kept(&[1000, 100], 101), [0]);
        // Each that is absorbed counts for the next one.
        assert_eq!(kept(&[1000, 100, 60], 61), [0]);
        assert_eq!(kept(&[1000, 130, 60], 61), [0, 1]);
        // The base, too.
        assert_eq!(kept(&[1000], 1001), [0_usize; 0]);
        // Nothing is new.
        assert_eq!(kept(&[1000, 1], 0), [0, 1]);
    }

    #[test]
    fn an_image_has_a_base_and_four_other_packs_at_most() {
        assert_eq!(kept(&[100_000, 10_000, 1000, 100], 10), [0, 1, 2, 3]);
        assert_eq!(kept(&[1_000_000, 100_000, 10_000, 1000, 100], 10), [0, 1, 2, 3]);
        assert_eq!(kept(&[1_000_000, 100_000, 10_000, 1000, 100], 0), [0, 1, 2, 3, 4]);
        assert_eq!(kept(&[10_000_000, 1_000_000, 100_000, 10_000, 1000, 100], 0), [0, 1, 2, 3]);
        // A pack of which the image has nothing is none.
        assert_eq!(kept(&[1_000_000, 0, 10_000, 0, 100], 10), [0, 2, 4]);
    }
}
