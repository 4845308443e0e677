// SPDX-License-Identifier: GPL-2.0-or-later

//! From an image and a bundle to the other image, byte for byte.
//!
//! The metadata comes first, and is compared with the image ID. It says what chunks there are: each is verified before it is written. A
//! run that goes on with the file of an earlier one reads each chunk back, and keeps it if it has its digest; all other bytes are
//! written anew.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Instant;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use sha2::{Digest as _, Sha256};
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, DIGESTS_PER_BLOCK};
use tesserafs_format::raw::MAGIC;
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{chunk_digest, Digest, Image, PackKind, SuperBlock};
use tesserafs_image::{superblock, Source, VerifiedMetadata};

use super::create::bytes;
use super::partial::Partial;
use super::piece::{count, decode};
use super::side::Side;
use super::stream::{Header, Kind, Reader};
use super::tables::parts;
use super::wanted::Wanted;
use super::{head, in_pool, ApplyReport, ApplyRequest};
use crate::convert::{broken, Tables};
use crate::encode::{sha256, zstd_version, Sha2};
use crate::error::{Error, Result, Shown};
use crate::output::is_stdout;
use crate::progress::Progress;

/// Bytes that are hashed at once.
const PIECE: u64 = 1 << 20;

/// Sections that are decoded at once, for each processor.
const AT_ONCE: usize = 2;

/// Threads, at most: each takes some 70 MiB.
const THREADS_MAX: usize = 12;

/// Applies a bundle.
pub fn apply(request: &ApplyRequest, progress: &dyn Progress) -> Result<ApplyReport> {
    in_pool(THREADS_MAX, || apply_bundle(request, progress))
}

fn apply_bundle(request: &ApplyRequest, progress: &dyn Progress) -> Result<ApplyReport> {
    let started = Instant::now();
    if is_stdout(&request.new) {
        return Err(Error::Usage("an image is written at places: name a file".to_owned()));
    }
    let source = Source::open(&request.old)?;
    let old = superblock::read_head(&source).map_err(broken(&request.old))?;
    let from: Box<dyn Read> = match &*request.bundle {
        path if path == Path::new("-") => Box::new(io::stdin().lock()),
        path => Box::new(BufReader::new(File::open(path).map_err(Error::io("open", path))?)),
    };
    let (mut reader, header) = Reader::open(from, &request.bundle)?;
    check(request, &header, old.id)?;
    let old = Side::open(&source, &old.sb, request.pack_dir.as_deref())?;
    let (block, signature, sb) = read_head(&mut reader, &header)?;

    let inputs = [&*request.old, &*request.bundle];
    let mut image = Partial::open(&request.new, request.force, &inputs)?;
    let mut there = Box::new([0; BLOCK_SIZE]);
    if image.is_begun && (image.read(0, &mut *there).is_err() || there != block) {
        // Of another image; or a file that is nobody's business here.
        let is_ours = there.starts_with(&MAGIC) || there.iter().all(|byte| *byte == 0);
        if !is_ours && !request.force {
            return Err(Error::unsupported(
                image.path(),
                "is in the way, and no unfinished image; --force replaces it",
            ));
        }
        image.restart()?;
    }
    let written = write_metadata(&mut reader, &old, &image, &block, &signature, &sb);
    written.inspect_err(|_| {
        if !image.is_begun {
            image.remove();
        }
    })?;
    let kept = image.path().to_owned();
    let finished = Target { request, old: &old, sb: &sb, image }.fill(reader, progress);
    let (wanted, bundle_bytes) =
        finished.map_err(|error| Error::Unfinished { cause: Box::new(error), path: kept })?;
    Ok(ApplyReport::new(request, &header, &sb, &wanted, bundle_bytes, started))
}

/// Refuses a bundle for another image, or another libzstd, before anything is written.
fn check(request: &ApplyRequest, header: &Header, old: Digest) -> Result<()> {
    if header.old != old {
        return Err(Error::unsupported(
            &request.bundle,
            format!("is for the image sha256:{}, found sha256:{old} in {}", header.old, Shown(&request.old)),
        ));
    }
    let (found, expected) = (zstd_version(), header.zstd_version);
    if !header.portable && found != expected {
        return Err(Error::unsupported(
            &request.bundle,
            format!(
                "needs libzstd {}, found {} in this program: chunks would be compressed to other bytes; take a bundle that was \
                 made with --portable",
                tesserafs_image::profile::version(expected),
                tesserafs_image::profile::version(found)
            ),
        ));
    }
    Ok(())
}

/// The first block, the signature, and the superblock.
type ImageHead = (Box<[u8; BLOCK_SIZE]>, Vec<u8>, SuperBlock);

fn read_head<R: Read>(reader: &mut Reader<R>, header: &Header) -> Result<ImageHead> {
    let at = reader.at();
    let (_, section) = reader.next(&[Kind::Head])?;
    let parsed = head::decode(&section).and_then(|(block, signature)| {
        let sb = SuperBlock::parse(&block).ok()?;
        let id = check_prefix::<Sha2>(&block).ok()?;
        let is_signed = signature.len() == sb.signature_bytes as usize
            && (signature.is_empty() || sha256(&signature) == sb.signature_digest);
        (id == header.new && is_signed).then_some((block, signature, sb))
    });
    parsed
        .ok_or_else(|| reader.broken(at, format!("this is not the head of the image sha256:{}", header.new)))
}

/// Writes all but the chunks, and compares it with the superblock.
fn write_metadata<R: Read>(
    reader: &mut Reader<R>,
    old: &Side<'_>,
    image: &Partial,
    block: &[u8; BLOCK_SIZE],
    signature: &[u8],
    sb: &SuperBlock,
) -> Result<()> {
    let layout = &sb.layout;
    image.set_len(sb.file_bytes())?;
    let mut end_of_last = layout.tree_offset;
    let zeros = |from: u64, until: u64| image.write(from, &vec![0; until.saturating_sub(from) as usize]);
    for part in parts(&old.superblock().layout, layout) {
        let at = reader.at();
        let (_, section) = reader.next(&[Kind::Table])?;
        let bytes = part.decode(&section, &bytes(old, part.old)?);
        let bytes =
            bytes.ok_or_else(|| reader.broken(at, "this is no table that refers to the old image"))?;
        // Less than a block is between two tables.
        zeros(end_of_last, part.new.offset)?;
        image.write(part.new.offset, &bytes)?;
        end_of_last = part.new.offset + part.new.len;
    }
    zeros(end_of_last, layout.hash_offset)?;
    let offset = |number: u64| layout.tree_offset + number * BLOCK_BYTES;
    let mut below = (0, layout.geometry.metadata_blocks());
    let mut root = Digest::default();
    for level in layout.geometry.levels() {
        for (hashes, first) in (level.0..).zip((0..below.1).step_by(DIGESTS_PER_BLOCK as usize)) {
            let mut digests = Vec::with_capacity(BLOCK_SIZE);
            let blocks = DIGESTS_PER_BLOCK.min(below.1 - first);
            let mut bytes = vec![0; (blocks * BLOCK_BYTES) as usize];
            image.read(offset(below.0 + first), &mut bytes)?;
            bytes.chunks_exact(BLOCK_SIZE).for_each(|block| digests.extend(sha256(block).0));
            digests.resize(BLOCK_SIZE, 0);
            root = sha256(&digests);
            image.write(offset(hashes), &digests)?;
        }
        below = level;
    }
    if root != sb.merkle_root {
        return Err(reader.broken(
            reader.at(),
            format!("the tables have the Merkle root {root}, expected {}", sb.merkle_root),
        ));
    }
    image.write(layout.image_bytes, signature)?;
    zeros(layout.image_bytes + signature.len() as u64, sb.file_bytes())?;
    image.write(0, block)
}

/// The image whose metadata is there, and whose chunks are to come.
struct Target<'r, 'a> {
    request: &'r ApplyRequest,
    old: &'r Side<'a>,
    sb: &'r SuperBlock,
    image: Partial,
}

/// Where the bytes of a pack go.
struct Place<'p> {
    file: &'p Partial,
    start: u64,
}

impl Target<'_, '_> {
    /// Brings the chunks, and gives image and packs their names.
    fn fill<R: Read>(self, mut reader: Reader<R>, progress: &dyn Progress) -> Result<(Wanted, u64)> {
        let source = Source::from_file(self.image.handle()?, self.image.path())?;
        let metadata = VerifiedMetadata::new(&source, self.sb);
        let new = Tables::read(&Image::new(self.sb, &metadata)).map_err(broken(self.image.path()))?;
        let wanted = Wanted::new(&self.old.tables, &new);
        let (behind_pack, tree_offset) = (BLOCK_BYTES + new.packs[0].bytes, self.sb.layout.tree_offset);
        if behind_pack.next_multiple_of(BLOCK_BYTES) != tree_offset {
            let reason =
                format!("has {behind_pack} bytes with pack 0, and its tables begin at byte {tree_offset}");
            return Err(Error::unsupported(self.image.path(), reason));
        }
        self.image.write(behind_pack, &vec![0; (tree_offset - behind_pack) as usize])?;

        let beside = self.request.new.parent().unwrap_or(Path::new(""));
        let dir = self.request.pack_dir.as_deref().unwrap_or(beside);
        let mut files: Vec<Option<Partial>> = new.packs.iter().map(|_| None).collect();
        for pack in new.packs.iter().filter(|pack| pack.kind == PackKind::File) {
            let path = dir.join(pack.digest.to_string());
            let is_there = path.metadata().is_ok_and(|found| found.is_file() && found.len() == pack.bytes);
            if !wanted.packs.contains(&pack.index.0) && !is_there {
                let reason =
                    "is a pack of both images, and not there: copy it, or say by --packdir where it is";
                return Err(Error::unsupported(&path, reason));
            }
        }
        for index in &wanted.packs {
            let pack = &new.packs[usize::from(*index)];
            if pack.kind == PackKind::File {
                let file = Partial::open(&dir.join(pack.digest.to_string()), true, &[])?;
                file.set_len(pack.bytes)?;
                files[usize::from(*index)] = Some(file);
            }
        }
        let place = |pack: u16| match &files[usize::from(pack)] {
            Some(file) => Place { file, start: 0 },
            None => Place { file: &self.image, start: BLOCK_BYTES },
        };
        let bytes_of = |chunk: &u32| u64::from(new.chunks[*chunk as usize].stored_len);
        progress.found(wanted.known.iter().map(|(chunk, _)| bytes_of(chunk)).sum());
        progress.found(wanted.lacking.iter().map(bytes_of).sum());
        // Whether an earlier run has written a chunk.
        let is_there = |chunk: u32| -> Result<bool> {
            let chunk = &new.chunks[chunk as usize];
            let place = place(chunk.pack.0);
            if !place.file.is_begun {
                return Ok(false);
            }
            let mut stored = vec![0; chunk.stored_len as usize];
            place.file.read(place.start + chunk.offset, &mut stored)?;
            Ok(chunk_digest::<Sha2>(&stored) == chunk.digest)
        };
        let write = |chunk: u32, stored: &[u8]| {
            let chunk = &new.chunks[chunk as usize];
            let place = place(chunk.pack.0);
            progress.read(stored.len() as u64);
            place.file.write(place.start + chunk.offset, stored)
        };

        wanted.known.par_iter().try_for_each(|(chunk, known)| {
            if is_there(*chunk)? {
                progress.read(bytes_of(chunk));
                return Ok(());
            }
            let mut stored = Vec::new();
            let known = &self.old.tables.chunks[*known as usize];
            self.old.packs.read_stored(known, &mut stored).map_err(broken(self.old.path))?;
            write(*chunk, &stored)
        })?;
        for gap in &wanted.gaps {
            for (offset, len) in gap.sections() {
                let at = reader.at();
                let (_, bytes) = reader.next(&[Kind::Gap])?;
                if bytes.len() as u64 != len {
                    return Err(reader.broken(at, format!("found {} bytes, expected {len}", bytes.len())));
                }
                let place = place(gap.pack);
                place.file.write(place.start + offset, &bytes)?;
            }
        }
        let mut rest = &*wanted.lacking;
        let mut ends = false;
        while !ends {
            let mut some = Vec::new();
            while some.len() < rayon::current_num_threads() * AT_ONCE {
                let at = reader.at();
                let (kind, section) = reader.next(&[Kind::Piece, Kind::End])?;
                if kind == Kind::End {
                    ends = true;
                    break;
                }
                let count = count(&section).filter(|count| *count <= rest.len());
                let count = count.ok_or_else(|| {
                    reader.broken(
                        at,
                        format!("found no piece of 1 to {} chunks, which are lacking", rest.len()),
                    )
                })?;
                let (chunks, behind) = rest.split_at(count);
                rest = behind;
                some.push((at, chunks, section));
            }
            let level = self.sb.profile.level;
            let decoded: Result<Vec<_>> = some
                .par_iter()
                .map(|(_, chunks, section)| {
                    if chunks.iter().try_fold(true, |all, chunk| Ok::<_, Error>(all && is_there(*chunk)?))? {
                        progress.read(chunks.iter().map(bytes_of).sum());
                        return Ok(Ok(()));
                    }
                    decode(self.old, &new, level, chunks, section, write)
                })
                .collect();
            for ((at, ..), decoded) in some.iter().zip(decoded?) {
                decoded.map_err(|reason| reader.broken(*at, reason))?;
            }
        }
        if !rest.is_empty() {
            return Err(reader.broken(reader.at(), format!("{} chunks are missing", rest.len())));
        }
        for index in &wanted.packs {
            let place = place(*index);
            let pack = &new.packs[usize::from(*index)];
            let found = digest(&place, pack.bytes)?;
            if found != pack.digest {
                let reason = format!("pack {index} has digest {found}, expected {}", pack.digest);
                return Err(Error::unsupported(place.file.path(), reason));
            }
        }
        let bundle_bytes = reader.at();
        files.into_iter().flatten().try_for_each(Partial::commit)?;
        self.image.commit()?;
        Ok((wanted, bundle_bytes))
    }
}

fn digest(place: &Place<'_>, bytes: u64) -> Result<Digest> {
    let mut hasher = Sha256::new();
    let mut piece = vec![0; PIECE.min(bytes) as usize];
    let mut at = 0;
    while at < bytes {
        let piece = &mut piece[..PIECE.min(bytes - at) as usize];
        place.file.read(place.start + at, piece)?;
        hasher.update(&*piece);
        at += piece.len() as u64;
    }
    Ok(Digest(hasher.finalize().into()))
}
