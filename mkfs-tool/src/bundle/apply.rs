// SPDX-License-Identifier: GPL-2.0-or-later

//! From an image and a bundle to the other image, byte for byte, under other names until all of it is compared with the image ID.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::time::Instant;

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::raw::MAGIC;
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{Digest, PackKind, SuperBlock};
use tesserafs_image::{superblock, Source};

use super::partial::{NewFile, Partial};
use super::rebuild::{PackFiles, Rebuild};
use super::side::Side;
use super::stream::{Header, Kind, Reader};
use super::wanted::Wanted;
use super::{head, in_pool, ApplyReport, ApplyRequest};
use crate::convert::broken;
use crate::encode::{sha256, zstd_version, Sha2};
use crate::error::{Error, Result, Shown};
use crate::output::is_stdout;
use crate::progress::Progress;

/// Threads, at most: each holds sections of 8 MiB, and a prefix and raw chunks of 17.
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
    if image.file.is_begun && (image.file.read(0, &mut *there).is_err() || there != block) {
        // Of another image; or a file of the user's.
        let is_ours = there.starts_with(&MAGIC) || there.iter().all(|byte| *byte == 0);
        if !is_ours && !request.force {
            return Err(Error::unsupported(
                image.file.path(),
                "is in the way, and no unfinished image; --force replaces it",
            ));
        }
        image.restart()?;
    }
    let begun = Rebuild::begin(&mut reader, &old, &image.file, &sb)
        .and_then(|begun| write_head(&image.file, &block, &signature, &sb).map(|()| begun));
    let rebuild = begun.inspect_err(|_| {
        if !image.file.is_begun {
            image.remove();
        }
    })?;
    let wanted = complete(request, rebuild, &image, &mut reader, progress)?;
    image.commit()?;
    Ok(ApplyReport::new(request, &header, &sb, &wanted, reader.at(), started))
}

/// Brings the chunks, compares everything, and gives packs their names.
fn complete<R: Read>(
    request: &ApplyRequest,
    mut rebuild: Rebuild<'_, '_>,
    image: &Partial,
    reader: &mut Reader<R>,
    progress: &dyn Progress,
) -> Result<Wanted> {
    let unfinished = |cause| Error::Unfinished { cause: Box::new(cause), path: image.file.path().to_owned() };
    let beside = request.new.parent().unwrap_or(Path::new(""));
    let dir = request.pack_dir.as_deref().unwrap_or(beside);
    let packs = open_packs(dir, &rebuild).map_err(unfinished)?;
    let made = packs.iter().map(|pack| pack.as_ref().map(|pack| &pack.file)).collect();
    let files = PackFiles { made, dir };
    rebuild.fill(reader, &files, progress).map_err(unfinished)?;
    let is_begun = image.file.is_begun || files.made.iter().flatten().any(|file| file.is_begun);
    let packs_are_right = rebuild.wanted.packs.par_iter().try_for_each(|pack| rebuild.check(&files, *pack));
    let finished = packs_are_right.and_then(|()| {
        let (root, wanted) = rebuild.finish(&files, true)?;
        root.map(|()| wanted).map_err(|reason| reader.broken(reader.at(), reason))
    });
    match finished {
        Ok(wanted) => {
            packs.into_iter().flatten().try_for_each(Partial::commit).map_err(unfinished)?;
            Ok(wanted)
        }
        // Nothing of it can be told from what is right.
        Err(cause) => {
            packs.iter().flatten().chain([image]).for_each(Partial::remove);
            let cause = Box::new(cause);
            Err(if is_begun { Error::BadRest { cause, path: image.file.path().to_owned() } } else { *cause })
        }
    }
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
    let parse = || -> Result<ImageHead, String> {
        let (block, signature) = head::decode(&section).ok_or("found no block and signature")?;
        let id = check_prefix::<Sha2>(&block).map_err(|error| error.to_string())?;
        if id != header.new {
            return Err(format!("found the image sha256:{id}, expected sha256:{}", header.new));
        }
        let sb = SuperBlock::parse(&block).map_err(|error| error.to_string())?;
        let (found, expected) = (signature.len(), sb.signature_bytes as usize);
        if found != expected {
            return Err(format!("found a signature of {found} bytes, expected {expected}"));
        }
        let (found, expected) = (sha256(&signature), sb.signature_digest);
        if !signature.is_empty() && found != expected {
            return Err(format!("found a signature with the digest {found}, expected {expected}"));
        }
        Ok((block, signature, sb))
    };
    parse().map_err(|reason| reader.broken(at, reason))
}

/// Writes the first block and the signature. That the block is there says which image it will be.
fn write_head(image: &NewFile, block: &[u8; BLOCK_SIZE], signature: &[u8], sb: &SuperBlock) -> Result<()> {
    let behind = sb.layout.image_bytes + signature.len() as u64;
    image.write(sb.layout.image_bytes, signature)?;
    image.write(behind, &vec![0; (sb.file_bytes() - behind) as usize])?;
    image.write(0, block)
}

/// The files of the packs that are to be made, by their indices; those that are not must be in the directory.
fn open_packs(dir: &Path, rebuild: &Rebuild<'_, '_>) -> Result<Vec<Option<Partial>>> {
    let mut files = Vec::new();
    for pack in &rebuild.tables().packs {
        let path = dir.join(pack.digest.to_string());
        let is_made = rebuild.wanted.packs.contains(&pack.index.0);
        files.push(match pack.kind {
            PackKind::Embedded => None,
            PackKind::File if is_made => {
                let pack_file = Partial::open(&path, true, &[])?;
                pack_file.file.set_len(pack.bytes)?;
                Some(pack_file)
            }
            PackKind::File => {
                let is_there =
                    path.metadata().is_ok_and(|found| found.is_file() && found.len() == pack.bytes);
                if !is_there {
                    let reason =
                        "is a pack of both images, and not there: copy it, or say by --packdir where it is";
                    return Err(Error::unsupported(&path, reason));
                }
                None
            }
        });
    }
    Ok(files)
}
