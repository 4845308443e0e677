// SPDX-License-Identifier: GPL-2.0-or-later

//! The images that are composed.

use std::path::Path;

use tesserafs_format::{Profile, SuperBlock};
use tesserafs_image::profile::{version, ProfileReport};
use tesserafs_image::sbom::KEY;
use tesserafs_image::unchecked::Unchecked;
use tesserafs_image::{Source, VerifiedMetadata};

use super::Composition;
use crate::convert::{broken, Tables};
use crate::error::{Error, Result, Shown};
use crate::image::Annotations;

/// An image that is composed.
pub(super) struct Layer<'a> {
    pub(super) path: &'a Path,
    /// The names on the way to where its root is.
    pub(super) at: &'a [Vec<u8>],
    pub(super) metadata: VerifiedMetadata<'a>,
    pub(super) tables: Tables,
}

impl Layer<'_> {
    pub(super) fn image(&self) -> Unchecked<'_> {
        Unchecked::new(&self.metadata)
    }

    pub(super) fn is_signed(&self) -> bool {
        self.metadata.superblock().signature_bytes != 0
    }
}

/// Reads the tables of all images.
pub(super) fn open<'a>(
    composition: &'a Composition,
    sources: &'a [(Source, SuperBlock)],
) -> Result<Vec<Layer<'a>>> {
    let mut layers = Vec::new();
    for (layer, (source, sb)) in composition.layers.iter().zip(sources) {
        let path = &*layer.image;
        let (packs, chunks) = (sb.layout.packs.records(), sb.layout.chunks.records());
        if packs == 1 && chunks > 0 {
            return Err(Error::unsupported(
                path,
                format!(
                    "is an image in one file, whose chunks no other image can use; the shared form of it is made by \
                     tesserafs pack --packdir DIR SHARED.tess {}",
                    Shown(path)
                ),
            ));
        }
        let metadata = VerifiedMetadata::new(source, sb);
        let tables = Tables::read(&tesserafs_format::Image::new(sb, &metadata)).map_err(broken(path))?;
        layers.push(Layer { path, at: &layer.at, metadata, tables });
    }
    Ok(layers)
}

/// The profile that all images have.
///
/// It says how each chunk was cut and compressed, and what a build with this image as its parent may take from it: with two of them it
/// would be true of none.
pub(super) fn profile(layers: &[Layer<'_>]) -> Result<Profile> {
    let Some((first, others)) = layers.split_first() else {
        return Err(Error::Usage("no image to compose".to_owned()));
    };
    let profile = first.metadata.superblock().profile;
    for layer in others {
        let other = layer.metadata.superblock().profile;
        if other != profile {
            return Err(Error::unsupported(
                layer.path,
                format!(
                    "is cut or compressed otherwise than {}: {}, expected {}; build one of them again with the options of the \
                     other",
                    Shown(first.path),
                    text(&other),
                    text(&profile)
                ),
            ));
        }
    }
    Ok(profile)
}

fn text(profile: &Profile) -> String {
    let Profile { chunk_min, chunk_avg, chunk_max, group_size, small_max, hole_min, level, zstd_version } =
        profile;
    format!(
        "chunks of {chunk_min},{chunk_avg},{chunk_max} bytes, groups of {group_size} with files up to {small_max}, holes from \
         {hole_min}, level {level} of libzstd {}{}",
        version(*zstd_version),
        ProfileReport::from(*profile).named(", ")
    )
}

/// The annotations of all images; of several with one key that of the uppermost. Bills of materials are those of the images, and would
/// be wrong of the result.
pub(super) fn annotations(layers: &[Layer<'_>]) -> Result<Annotations> {
    let mut all = Annotations::new();
    for layer in layers {
        let image = tesserafs_format::Image::new(layer.metadata.superblock(), &layer.metadata);
        all.extend(crate::convert::annotations(&image).map_err(broken(layer.path))?);
    }
    all.remove(KEY);
    Ok(all)
}
