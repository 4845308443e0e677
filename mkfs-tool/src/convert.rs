// SPDX-License-Identifier: GPL-2.0-or-later

//! From one form of an image to another (`FORMAT.md` 5.7): stored chunks are copied, and none is decoded.
//!
//! - [`tables`] reads the map region and proves it, as far as it is followed;
//! - [`order`] puts chunks in the order in which a builder stores them;
//! - [`report`] tells of it.
//!
//! The tree region is copied, so the tree ID stays what it is. So a build of a tree in either form gives, converted, byte for byte what
//! a build in the other form gives.

mod order;
mod report;
mod tables;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tesserafs_format::extent::HOLE;
use tesserafs_format::raw::RawChunk;
use tesserafs_format::{Chunk, PackIndex};
use tesserafs_image::packs::Packs;
use tesserafs_image::{superblock, Broken, Source, VerifiedMetadata};

pub use self::order::storage_order;
pub use self::report::ConvertReport;
pub use self::tables::{annotations, Tables};
use crate::encode::{Map, PackWriter};
use crate::error::{Error, Result};
use crate::image::{ImageFile, ImageWriter, Written};
use crate::output::Output;
use crate::packs::{arrange, NewPack, PacksReport, Parents, SharedForm};
use crate::progress::{step, Progress};

/// Bytes of the tree region that are copied at once.
const PIECE: u64 = 1 << 18;

/// The form that an image gets.
#[derive(Clone, Debug)]
pub enum Form {
    /// All chunks in pack 0.
    OneFile,
    /// All chunks in packs beside it.
    Shared(SharedForm),
}

/// A request to convert an image.
#[derive(Clone, Debug)]
pub struct Conversion {
    /// The image that is made.
    pub output: PathBuf,
    /// The image that there is.
    pub image: PathBuf,
    /// Where its packs are, if they are not beside it.
    pub pack_dir: Option<PathBuf>,
    /// The form of the new one.
    pub form: Form,
    /// Whether a file of its name is replaced.
    pub force: bool,
}

/// An image that is read to be converted.
struct Old<'a> {
    path: &'a Path,
    metadata: VerifiedMetadata<'a>,
    packs: Packs<'a>,
    tables: Tables,
    /// Its chunks, in the order in which a builder stores them.
    order: Vec<u32>,
}

/// Converts an image.
pub fn convert(conversion: &Conversion, progress: &dyn Progress) -> Result<ConvertReport> {
    let started = Instant::now();
    let output = Output::create(&conversion.output, conversion.force)?;
    let path = &*conversion.image;
    let source = Source::open(path)?;
    let sb = superblock::read(&source).map_err(broken(path))?;
    let old = Old::read(conversion, &source, &sb)?;
    for chunk in &old.tables.chunks {
        progress.found(chunk.stored_len.into());
    }
    let file = ImageFile::new(output.file()?, &conversion.output);
    let (written, packs) = match &conversion.form {
        Form::OneFile => {
            let written = old.write_one_file(file, progress)?;
            output.commit()?;
            (written, None)
        }
        Form::Shared(form) => {
            let (written, packs, pack) = old.write_shared(form, file, progress)?;
            pack.commit_before(output)?;
            (written, Some(packs))
        }
    };
    Ok(ConvertReport::new(conversion, &sb, &written, &old.tables, packs, started.elapsed()))
}

/// Adds the name of the image to an error.
pub(crate) fn broken(path: &Path) -> impl Fn(Broken) -> Error + '_ {
    |error| match error {
        Broken::Rule(source) => Error::Image { path: path.to_owned(), source },
        Broken::Stop(error) => error.into(),
    }
}

impl<'a> Old<'a> {
    fn read(
        conversion: &'a Conversion,
        source: &'a Source,
        sb: &'a tesserafs_format::SuperBlock,
    ) -> Result<Self> {
        let path = &*conversion.image;
        let metadata = VerifiedMetadata::new(source, sb);
        let tables = Tables::read(&tesserafs_format::Image::new(sb, &metadata)).map_err(broken(path))?;
        let is_one_file = tables.packs.len() == 1;
        if is_one_file && matches!(conversion.form, Form::OneFile) {
            return Err(Error::unsupported(path, "is an image in one file already"));
        }
        let beside = path.parent().unwrap_or(Path::new(""));
        let dir = conversion.pack_dir.as_deref().unwrap_or(beside);
        let packs: Vec<_> = tables.packs.iter().copied().map(Some).collect();
        let packs = Packs::open(source, &packs, dir)?;
        let order = storage_order(&tables, &sb.profile);
        Ok(Self { path, metadata, packs, tables, order })
    }

    /// Hands each chunk that `wants`, with its stored bytes, to `take`: in the order in which a builder stores them.
    fn copy(
        &self,
        progress: &dyn Progress,
        mut wants: impl FnMut(usize) -> bool,
        mut take: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut stored = Vec::new();
        for number in &self.order {
            let number = *number as usize;
            let chunk = &self.tables.chunks[number];
            if wants(number) {
                self.packs.read_stored(chunk, &mut stored).map_err(broken(self.path))?;
                take(number, &stored)?;
            }
            progress.read(chunk.stored_len.into());
        }
        Ok(())
    }

    fn write_one_file(&self, file: ImageFile, progress: &dyn Progress) -> Result<Written> {
        let mut writer = ImageWriter::new(Some(file));
        let mut map = self.map();
        self.copy(
            progress,
            |_| true,
            |number, stored| {
                let chunk =
                    Chunk { pack: PackIndex(0), offset: map.pack_bytes, ..self.tables.chunks[number] };
                push(&mut map, &chunk, &self.tables)?;
                map.pack_bytes += stored.len() as u64;
                writer.append(stored)
            },
        )?;
        self.finish(writer, &map, progress)
    }

    fn write_shared(
        &self,
        form: &SharedForm,
        file: ImageFile,
        progress: &dyn Progress,
    ) -> Result<(Written, PacksReport, NewPack)> {
        let profile = &self.metadata.superblock().profile;
        let mut parents = Parents::open(form, profile)?;
        let mut pack = NewPack::create(&form.dir, false)?;
        let mut map = self.map();
        // Two chunks of the same raw bytes stay two: each has its own bytes in a pack.
        let mut met = HashSet::new();
        let mut known = vec![None; self.tables.chunks.len()];
        for number in &self.order {
            let raw = self.tables.raw_digests[*number as usize];
            if met.insert(raw) {
                // A broken parent may say that it has these bytes, and how many others.
                let own = self.tables.chunks[*number as usize].raw_len;
                known[*number as usize] = parents.get(&raw).filter(|known| known.raw_len == own).copied();
            }
        }
        let mut places = vec![0; self.tables.chunks.len()];
        self.copy(
            progress,
            |number| known[number].is_none(),
            |number, stored| {
                places[number] = pack.bytes();
                pack.append(stored)
            },
        )?;
        for number in &self.order {
            let number = *number as usize;
            let own = self.tables.chunks[number];
            let chunk = match &known[number] {
                None => Chunk { pack: PackIndex(0), offset: places[number], ..own },
                Some(known) => known.to_chunk(own.index),
            };
            push(&mut map, &chunk, &self.tables)?;
        }
        let report = arrange(&mut map, &mut parents, form.rebase, &mut pack)?;
        let written = self.finish(ImageWriter::new(Some(file)), &map, progress)?;
        Ok((written, report, pack))
    }

    /// The map with everything but the chunks, which extents name by the order in which a builder stores them.
    fn map(&self) -> Map {
        let mut index_of = vec![HOLE; self.tables.chunks.len()];
        for (new, old) in (0..).zip(&self.order) {
            index_of[*old as usize] = new;
        }
        let mut map = Map {
            content_map: self.tables.content_map.clone(),
            extents: self.tables.extents.clone(),
            plain_hole_bytes: self.tables.plain_hole_bytes,
            ..Map::default()
        };
        for extent in map.extents.iter_mut().filter(|extent| extent.chunk.get() != HOLE) {
            extent.chunk = index_of[extent.chunk.get() as usize].into();
        }
        map
    }

    /// Writes the tables, with the tree region that there is.
    fn finish(
        &self,
        writer: ImageWriter<Option<ImageFile>>,
        map: &Map,
        progress: &dyn Progress,
    ) -> Result<Written> {
        let _step = step(progress, || "writing the tables".to_owned());
        let sb = self.metadata.superblock();
        let image = tesserafs_format::Image::new(sb, &self.metadata);
        let annotations = annotations(&image).map_err(broken(self.path))?;
        writer.finish_with(&sb.raw_tree(), map, &sb.profile, &annotations, |out, _| {
            let layout = &sb.layout;
            let mut piece = vec![0; PIECE as usize];
            let mut at = layout.tree_offset;
            while at < layout.map_offset {
                let bytes = &mut piece[..PIECE.min(layout.map_offset - at) as usize];
                tesserafs_format::Metadata::read(&self.metadata, at, bytes).map_err(broken(self.path))?;
                out.write(bytes)?;
                at += bytes.len() as u64;
            }
            Ok(())
        })
    }
}

/// Adds a chunk, which is that of `tables` with its index.
fn push(map: &mut Map, chunk: &Chunk, tables: &Tables) -> Result<()> {
    let raw: RawChunk = chunk.to_raw().ok_or(Error::TooMany("bytes in a pack"))?;
    map.chunks.push(raw);
    map.chunk_digests.push(chunk.digest);
    map.raw_digests.push(tables.raw_digests[chunk.index.0 as usize]);
    map.figures.stored_bytes += u64::from(chunk.stored_len);
    Ok(())
}
