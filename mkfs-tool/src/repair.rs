// SPDX-License-Identifier: GPL-2.0-or-later

//! A damaged image made whole: by good bytes from other files, into a new file that is, byte for byte, the one that the image ID names.
//!
//! The ID proves the first 512 bytes, these the metadata by its Merkle tree, and that the stored bytes of each chunk. So whatever file has
//! the bytes that are lacking may be an older version, in another form, damaged itself, or from a stranger: all of it is compared with
//! digests before it counts. Nothing is put in place unless all of it is there and was read back.
//!
//! - [`donor`]: the other files, and what each is;
//! - [`head`]: the first block, and the signature;
//! - [`mod@mend`]: the metadata; [`blocks`]: from the root of the Merkle tree down; [`hashes`]: blocks that follow from those below;
//! - [`places`]: where chunks lie, and which of them are damaged;
//! - [`supply`]: chunks of images and packs; [`contents`]: those by the files that have their bytes; [`fill`] asks both, and bundles;
//! - [`dead`]: bytes of packs that no chunk of the image has;
//! - [`new_files`], each of which is a [`work`]; [`whole`]: the proof that they are right;
//! - [`lost`]: the names of files whose bytes no file has; [`report`] tells of all that, by [`text`], too.
//!
//! Memory grows with the metadata of the image and that of bundles' old images, and with the chunks that threads work on.

mod blocks;
mod contents;
mod dead;
mod donor;
mod fill;
mod hashes;
mod head;
mod lost;
mod mend;
mod new_files;
mod places;
mod report;
mod supply;
mod text;
mod whole;
mod work;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Digest, Image};
use tesserafs_image::{Source, VerifiedMetadata};

use self::donor::Donor;
use self::fill::Fill;
use self::head::Head;
use self::lost::Lost;
use self::mend::mend;
use self::new_files::{begin, begin_packs, put_in_place};
use self::places::PackPlace;
pub use self::report::{
    DamageReport, DonorReport, LostBlock, LostFile, LostReport, PackDamage, RepairReport,
};
use self::supply::Supply;
use self::work::Work;
use crate::bundle::in_pool;
use crate::convert::{broken, Tables};
use crate::error::{Error, Result};
use crate::output::is_stdout;
use crate::progress::{step, Progress};

/// Threads, at most: each holds sections of a bundle of 8 MiB, and a prefix and raw chunks of 17.
const THREADS_MAX: usize = 12;

/// A request to repair an image.
#[derive(Clone, Debug, Default)]
pub struct RepairRequest {
    /// The image.
    pub image: PathBuf,
    /// The files that good bytes are looked for in: images, packs and bundles.
    pub from: Vec<PathBuf>,
    /// The image ID that it should have, where its own first bytes do not tell.
    pub id: Option<Digest>,
    /// Where its packs are, if they are not beside it.
    pub pack_dir: Option<PathBuf>,
    /// The file that is written instead of the image, which stays as it is.
    pub output: Option<PathBuf>,
    /// Whether an existing `output` is replaced.
    pub force: bool,
    /// The suffix under which files that are replaced are kept.
    pub keep: Option<OsString>,
    /// Whether the image is unsigned if its signature cannot be had.
    pub drop_signature: bool,
    /// Whether nothing is put in place.
    pub dry_run: bool,
}

/// Repairs an image. The report says whether it is whole.
pub fn repair(request: &RepairRequest, progress: &dyn Progress) -> Result<RepairReport> {
    in_pool(THREADS_MAX, || repair_image(request, progress))
}

fn repair_image(request: &RepairRequest, progress: &dyn Progress) -> Result<RepairReport> {
    let started = Instant::now();
    let target = target(request)?;
    let image = Arc::new(Source::open(&request.image)?);
    if image.is_device() && request.output.is_none() {
        let reason = "is a block device, and a repaired image is a new file: name one with --output, and copy it there";
        return Err(Error::unsupported(&request.image, reason));
    }
    let keep = work::kept_as(&target, request.keep.as_deref())?;
    let donors = request.from.iter().map(|path| Donor::open(path)).collect::<Result<Vec<_>>>()?;
    let head = Head::find(request, &image, &donors)?;

    let looking = step(progress, || "comparing the metadata".to_owned());
    let beside = request.image.parent().unwrap_or(Path::new("")).to_owned();
    let pack_dir = request.pack_dir.clone().unwrap_or(beside);
    let mended = mend(&head, &image, &donors, &target, &pack_dir)?;
    drop(looking);
    let mut damage = DamageReport::of(&head, &image, &mended);
    if !mended.lost.is_empty() {
        let lost = Lost::of_blocks(&head.sb, &mended, head.is_signature_lost);
        return Ok(RepairReport::new(request, &head, damage, &donors, lost, started));
    }
    let new = match mended.found.is_empty() {
        true => None,
        false => Some(begin(request, &target, &head, &image, &mended)?),
    };
    let proven = new.as_ref().map_or_else(|| Ok(image.clone()), Work::source)?;
    let metadata = VerifiedMetadata::new(&proven, &head.sb);
    let tables = Tables::read(&Image::new(&head.sb, &metadata)).map_err(broken(&request.image))?;
    check_end_of_pack(request, &head, &tables)?;

    let mut places = places::open(&image, &tables.packs, &pack_dir, progress)?;
    dead::look_at_pack_0(&mut places, &tables.chunks, progress);
    let bad = places::damaged(&places, &tables.chunks, progress);
    damage.add_chunks(&head, &image, &places, &tables, &bad);
    contradiction(request, &places, &tables, &bad)?;
    if damage.is_nothing() {
        let lost = Lost::nothing(head.is_signature_lost);
        return Ok(RepairReport::new(request, &head, damage, &donors, lost, started));
    }

    let new = match new {
        None if damage.is_of_image() => Some(begin(request, &target, &head, &image, &mended)?),
        new => new,
    };
    let packs = begin_packs(request, &places)?;
    let dirs = donor::dirs(&donors, &pack_dir);
    let copies = places.iter().map(|place| fill::copies(&head, place, &donors)).collect();
    let fill = Fill {
        head: &head,
        tables: &tables,
        donors: &donors,
        supply: Supply::new((&proven, &head.sb), &donors, &dirs, copies),
        new: new.as_ref(),
        packs: &packs,
        dirs: &dirs,
        progress,
    };
    let lacking = fill.chunks(&bad)?;
    let mut lost = Lost::of_chunks(&metadata, &tables, &lacking, head.is_signature_lost)?;
    for place in places.iter().filter(|place| place.is_damaged && !lacking.of_pack(&tables, place)) {
        lost.dead.extend(dead::complete(&fill, place)?);
    }
    drop(fill);
    let is_found = lost.is_nothing(request.drop_signature);
    if let Some(new) = new.as_ref().filter(|_| is_found) {
        new.write(BLOCK_BYTES + tables.packs[0].bytes, &zeros_behind_pack(&head, &tables))?;
        whole::check(&head, &tables, &new.source()?, &target, progress)?;
    }
    let mut report = RepairReport::new(request, &head, damage, &donors, lost, started);
    if is_found && !request.dry_run {
        put_in_place(packs, new, keep.as_deref())?;
        report.repaired = true;
    }
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// The file that is written, through a link.
fn target(request: &RepairRequest) -> Result<PathBuf> {
    let Some(output) = &request.output else {
        return fs::canonicalize(&request.image).map_err(Error::io("open", &request.image));
    };
    if is_stdout(output) {
        return Err(Error::Usage("an image is written at places: name a file by --output".to_owned()));
    }
    match fs::metadata(output) {
        Ok(found) if !found.is_file() => Err(Error::unsupported(output, "exists and is no regular file")),
        Ok(_) if !request.force => Err(Error::unsupported(output, "exists; --force replaces it")),
        Ok(_) => fs::canonicalize(output).map_err(Error::io("open", output)),
        Err(_) => Ok(output.clone()),
    }
}

/// Refuses an image of which the zeros behind pack 0 are no part of a block: no builder makes one, and they may be without end.
fn check_end_of_pack(request: &RepairRequest, head: &Head, tables: &Tables) -> Result<()> {
    let (end, tree_offset) = (BLOCK_BYTES + tables.packs[0].bytes, head.sb.layout.tree_offset);
    if end.next_multiple_of(BLOCK_BYTES) != tree_offset {
        let reason = format!(
            "was made with {end} bytes before its tables, which begin at byte {tree_offset}: no repair makes that right"
        );
        return Err(Error::unsupported(&request.image, reason));
    }
    Ok(())
}

fn zeros_behind_pack(head: &Head, tables: &Tables) -> Vec<u8> {
    vec![0; (head.sb.layout.tree_offset - BLOCK_BYTES - tables.packs[0].bytes) as usize]
}

/// Refuses an image whose digests cannot all hold: a pack is right, and a chunk in it is not.
fn contradiction(request: &RepairRequest, places: &[PackPlace], tables: &Tables, bad: &[u32]) -> Result<()> {
    for number in bad {
        let place = &places[usize::from(tables.chunks[*number as usize].pack.0)];
        if place.path.is_some() && !place.is_damaged {
            let reason = format!(
                "says that chunk {number} is in pack {}, which is not damaged and has another one there: the image was made so, and no \
                 repair makes it right",
                place.pack.digest
            );
            return Err(Error::unsupported(&request.image, reason));
        }
    }
    Ok(())
}
