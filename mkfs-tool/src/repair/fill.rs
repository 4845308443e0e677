// SPDX-License-Identifier: GPL-2.0-or-later

//! The chunks that are damaged: from images, packs and bundles, to their places in the new files.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::Chunk;
use tesserafs_image::{profile, Source};

use super::contents::{parts, Files};
use super::donor::{count, Donor, Kind};
use super::head::Head;
use super::new_files::NewPack;
use super::places::PackPlace;
use super::supply::{Copy, Fetched, Supply, Tools, Wanted};
use super::work::Work;
use crate::bundle::salvage::{Search, TakeChunk, TakeGap};
use crate::convert::Tables;
use crate::encode::zstd_version;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The sources that new files are filled from, and these files.
pub(super) struct Fill<'a> {
    pub(super) head: &'a Head,
    pub(super) tables: &'a Tables,
    pub(super) donors: &'a [Donor],
    pub(super) supply: Supply<'a>,
    /// The new image, if it is made.
    pub(super) new: Option<&'a Work>,
    /// The new packs, by their indices.
    pub(super) packs: &'a BTreeMap<u16, NewPack>,
    /// Where packs are.
    pub(super) dirs: &'a [PathBuf],
    pub(super) progress: &'a dyn Progress,
}

/// The chunks that were not found.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    /// Their numbers, in order.
    pub(super) chunks: Vec<u32>,
    /// Those of them whose raw bytes some file has, which this program compresses otherwise.
    pub(super) otherwise: u64,
    /// Why it does so, where that is known.
    pub(super) why: Option<String>,
}

impl Lacking {
    /// Whether one of them is in this pack.
    pub(super) fn of_pack(&self, tables: &Tables, place: &PackPlace) -> bool {
        self.chunks.iter().any(|number| tables.chunks[*number as usize].pack == place.pack.index)
    }
}

impl<'a> Fill<'a> {
    /// The new file that a pack is in, and where it begins there; none if the pack is not made.
    pub(super) fn file(&self, pack: u16) -> Option<(&'a Work, u64)> {
        if pack == 0 {
            return self.new.map(|new| (new, BLOCK_BYTES));
        }
        self.packs.get(&pack).map(|pack| (&pack.file, 0))
    }

    /// Writes a chunk to its place.
    pub(super) fn put(&self, chunk: &Chunk, stored: &[u8]) -> Result<()> {
        match self.file(chunk.pack.0) {
            Some((file, start)) => file.write(start + chunk.offset, stored),
            None => Ok(()),
        }
    }

    /// Finds these chunks, and writes them; those that no file has are the answer.
    pub(super) fn chunks(&self, bad: &[u32]) -> Result<Lacking> {
        let bytes = |number: &u32| u64::from(self.tables.chunks[*number as usize].stored_len);
        self.progress.found(bad.iter().map(bytes).sum());
        let (mut lacking, mut otherwise) = self.by_images(bad)?;
        if !lacking.is_empty() {
            let files = Files::open(self.donors, self.dirs);
            (lacking, otherwise) = self.by_contents(&files, &lacking, otherwise)?;
            self.by_bundles(&files, &mut lacking)?;
        }
        let otherwise = otherwise.intersection(&lacking.iter().copied().collect()).count() as u64;
        let (own, found) = (self.head.sb.profile.zstd_version, zstd_version());
        let why = (own != found && otherwise > 0).then(|| {
            let (own, found) = (profile::version(own), profile::version(found));
            format!("the image was made with libzstd {own}, and this program has {found}")
        });
        Ok(Lacking { chunks: lacking, otherwise, why })
    }

    /// By the chunk tables of images, and by offset in copies.
    fn by_images(&self, bad: &[u32]) -> Result<(Vec<u32>, HashSet<u32>)> {
        let wanted: Vec<Wanted> = bad
            .iter()
            .map(|number| Wanted {
                chunk: self.tables.chunks[*number as usize],
                raw: Some(self.tables.raw_digests[*number as usize]),
            })
            .collect();
        let known = self.supply.locate(&wanted);
        let jobs: Vec<_> = wanted.iter().zip(&known).zip(bad).collect();
        self.each(&jobs, |((wanted, known), number), tools| {
            let pack = usize::from(wanted.chunk.pack.0);
            Ok((**number, self.supply.fetch(pack, wanted, known, tools)?))
        })
    }

    /// By the files that have their bytes.
    fn by_contents(
        &self,
        files: &Files<'_>,
        lacking: &[u32],
        mut otherwise: HashSet<u32>,
    ) -> Result<(Vec<u32>, HashSet<u32>)> {
        let parts = parts(self.tables, &lacking.iter().copied().collect());
        let (lacking, more) = self.each(lacking, |number, tools| {
            let parts = parts.get(number).map_or(&[][..], Vec::as_slice);
            Ok((*number, files.fetch(self.tables, *number, parts, tools)?))
        })?;
        otherwise.extend(more);
        Ok((lacking, otherwise))
    }

    /// Does these jobs on all threads, and writes what comes of them. The answer is the chunks that are not found, and those of them that
    /// are compressed otherwise.
    fn each<J: Sync>(
        &self,
        jobs: &[J],
        fetch: impl Fn(&J, &mut Tools) -> Result<(u32, Fetched)> + Sync,
    ) -> Result<(Vec<u32>, HashSet<u32>)> {
        let tools = || Tools::new(self.head.sb.profile.level);
        let work = |tools: &mut Result<Tools>, job: &J| {
            let tools = tools.as_mut().map_err(|error| Error::Usage(error.to_string()))?;
            let (number, fetched) = fetch(job, tools)?;
            if let Fetched::Stored(stored) = &fetched {
                self.put(&self.tables.chunks[number as usize], stored)?;
                self.progress.read(stored.len() as u64);
            }
            Ok((number, matches!(fetched, Fetched::Stored(_)), matches!(fetched, Fetched::Otherwise)))
        };
        let done: Vec<(u32, bool, bool)> = jobs.par_iter().map_init(tools, work).collect::<Result<_>>()?;
        let lacking = done.iter().filter(|(_, is_found, _)| !is_found).map(|(number, ..)| *number).collect();
        let otherwise =
            done.iter().filter(|(.., is_otherwise)| *is_otherwise).map(|(number, ..)| *number).collect();
        Ok((lacking, otherwise))
    }

    /// By bundles that make this image.
    fn by_bundles(&self, files: &Files<'_>, lacking: &mut Vec<u32>) -> Result<()> {
        for donor in self.donors {
            let wanted: HashSet<u32> = lacking.iter().copied().collect();
            if wanted.is_empty() {
                break;
            }
            let found = Mutex::new(HashSet::new());
            let take = |number: u32, stored: &[u8]| {
                self.put(&self.tables.chunks[number as usize], stored)?;
                if found.lock().unwrap_or_else(PoisonError::into_inner).insert(number) {
                    count(&donor.taken.chunks, 1);
                    self.progress.read(stored.len() as u64);
                }
                Ok(())
            };
            self.search(donor, Some(files), &wanted, &take, &|_, _, _| Ok(()))?;
            let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
            lacking.retain(|number| !found.contains(number));
        }
        Ok(())
    }

    /// Looks through a bundle, if this is one that makes this image.
    pub(super) fn search(
        &self,
        donor: &Donor,
        files: Option<&Files<'_>>,
        wanted: &HashSet<u32>,
        take: &TakeChunk<'_>,
        take_gap: &TakeGap<'_>,
    ) -> Result<()> {
        let Some(header) = donor.bundle_of(self.head.id) else { return Ok(()) };
        let opened;
        let files = match files {
            Some(files) => files,
            None => {
                opened = Files::open(self.donors, self.dirs);
                &opened
            }
        };
        let is_old = |donor: &Donor| matches!(donor.kind, Kind::Image { id, .. } if id == header.old);
        let olds = self.donors.iter().enumerate().filter(|(_, donor)| is_old(donor));
        let mut olds: Vec<_> = olds.filter_map(|(old, _)| files.side(old)).map(Some).collect();
        if olds.is_empty() && !header.portable {
            donor.note(format!(
                "its old image, sha256:{}, is not among the files of --from, or its metadata is damaged: only chunks that the bundle \
                 has as they are stored are of use",
                header.old
            ));
        }
        if olds.is_empty() {
            olds.push(None);
        } else if !header.portable && header.zstd_version != zstd_version() {
            let (needed, found) = (profile::version(header.zstd_version), profile::version(zstd_version()));
            donor.note(format!("it needs libzstd {needed}, and this program has {found}"));
        }
        let search = Search { new: self.tables, sb: &self.head.sb, wanted, take, take_gap };
        // Of several copies of the old image each may be damaged elsewhere.
        for old in olds {
            if let Err(error) = search.run(&donor.source, old)? {
                donor.note(error.to_string());
            }
        }
        Ok(())
    }
}

/// The files that may have the same bytes as a pack.
pub(super) fn copies(head: &Head, place: &PackPlace, donors: &[Donor]) -> Vec<Copy> {
    let Some(path) = &place.path else {
        let same = donors.iter().enumerate().filter(|(_, donor)| donor.may_be_copy_of(head.id));
        let copy =
            |(donor, file): (usize, &Donor)| Copy { donor, source: file.source.clone(), start: BLOCK_BYTES };
        return same.map(copy).collect();
    };
    if !place.is_damaged {
        return Vec::new();
    }
    let mut copies = Vec::new();
    let mut dirs: Vec<PathBuf> = Vec::new();
    for (number, donor) in donors.iter().enumerate() {
        if matches!(donor.kind, Kind::Other) {
            copies.push(Copy { donor: number, source: donor.source.clone(), start: 0 });
        }
        let dir = donor.dir();
        if dirs.contains(&dir) {
            continue;
        }
        let named = dir.join(place.pack.digest.to_string());
        dirs.push(dir);
        if named.canonicalize().is_ok_and(|named| named != *path) {
            if let Ok(source) = Source::open(&named) {
                copies.push(Copy { donor: number, source: Arc::new(source), start: 0 });
            }
        }
    }
    copies
}
