// SPDX-License-Identifier: GPL-2.0-or-later

//! An image of the store as one file.

use std::io::Write;
use std::path::Path;

use mkfs_tesserafs::convert::{convert, Conversion, ConvertReport, Form};
use mkfs_tesserafs::error::Error;
use mkfs_tesserafs::output::Output;
use mkfs_tesserafs::progress::Progress;
use tesserafs_image::hash::Hasher;
use tesserafs_image::{text, Source};

use crate::store::{check_image, Image};

/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// How the file was made.
#[derive(Debug)]
pub enum Exported {
    /// Of packs.
    Converted(Box<ConvertReport>),
    /// As it is: so many bytes.
    Copied(u64),
}

/// Makes `new` of an image of the store, in one file. A file of that name is replaced with `force` only.
pub fn export(image: &Image, new: &Path, force: bool, progress: &dyn Progress) -> Result<Exported, Error> {
    let source = Source::open(&image.path)?;
    check_image(&image.artifact, &source)?;
    if image.artifact.packs.is_empty() {
        return copy(image, &source, new, force, progress).map(Exported::Copied);
    }
    let conversion = Conversion {
        output: new.to_owned(),
        image: image.path.clone(),
        pack_dir: Some(image.pack_dir.clone()),
        form: Form::OneFile,
        force,
    };
    Ok(Exported::Converted(Box::new(convert(&conversion, progress)?)))
}

/// Copies the image file, and compares it with its digest on the way.
fn copy(
    image: &Image,
    source: &Source,
    new: &Path,
    force: bool,
    progress: &dyn Progress,
) -> Result<u64, Error> {
    let output = Output::create(new, force)?;
    let mut file = output.file()?;
    let len = source.len();
    progress.found(len);
    let mut hasher = Hasher::default();
    let mut piece = vec![0; usize::try_from(PIECE.min(len)).unwrap_or(0)];
    let mut at = 0;
    while at < len {
        let bytes = &mut piece[..usize::try_from(PIECE.min(len - at)).unwrap_or(0)];
        source.read_at(at, bytes)?;
        hasher.update(bytes);
        file.write_all(bytes).map_err(|source| Error::Io {
            action: "write",
            path: new.to_owned(),
            source,
        })?;
        progress.read(bytes.len() as u64);
        at += bytes.len() as u64;
    }
    let (found, expected) = (hasher.finish(), image.artifact.image.digest);
    if found != expected {
        let path = text::path(source.path());
        let said = format!("{path}: found a file whose digest is {found}, expected {expected}");
        return Err(tesserafs_image::Error::Refused(said).into());
    }
    output.commit()?;
    Ok(len)
}
