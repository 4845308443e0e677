// SPDX-License-Identifier: GPL-2.0-or-later

//! Whether an image is canonical: byte for byte what a builder makes of its tree, profile and annotations (`FORMAT.md` 9.1).
//!
//! The image is the source of a build by the builder's own library, whose bytes are compared with those of the image instead of being
//! written: no second image is needed, and the first byte that differs is known. Where one does, the tables that were built say why.
//!
//! - `source`: the tree and the files of the image, for the builder;
//! - `compare`: the sink that the builder writes to;
//! - `packs`: the same for an image whose chunks lie in packs;
//! - `contents`, `chunks`: from the tables to the freedom that was taken; `difference` names it.
//!
//! Memory: what a build takes, see [`mkfs_tesserafs`], beside what the check keeps.

mod chunks;
mod compare;
mod contents;
mod difference;
mod packs;
mod source;

use mkfs_tesserafs::encode::{encode, zstd_version, Map, Resources};
use mkfs_tesserafs::image::{Annotations, ImageFile, ImageWriter, Sink, Written};
use mkfs_tesserafs::memory_budget;
use mkfs_tesserafs::packs::Parents;
use tesserafs_format::superblock::Layout;
use tesserafs_format::{Place, Rule};
use tesserafs_image::context::read;
use tesserafs_image::error::{vec_of, Error};
use tesserafs_image::parallel::First;
use tesserafs_image::profile::version;
use tesserafs_image::walk::{self, Tree};
use tesserafs_image::{Contents, Context, Finding};

use self::compare::Compare;
pub use self::difference::{Difference, Freedom};
use self::difference::{Explanation, FirstByte};
use self::source::ImageSource;

/// Builds the image again, and compares; the difference, if there is one, which is a finding then. Nothing is wrong with
/// the image.
pub(crate) fn check(context: &Context<'_>, tree: &mut Tree) -> Result<Option<Difference>, Error> {
    let sb = context.image.sb;
    context.progress.begin("encode", tree.file_bytes());
    let annotations = annotations(context)?;
    let contents = Contents::open(context)?;
    let (difference, chunks) = if sb.layout.packs.records() > 1 {
        // No reason to stop it: nothing is written.
        let stopped = First::default();
        let writer = ImageWriter::new(None::<ImageFile>);
        let (map, written) = build(context, tree, &contents, &annotations, writer, &stopped)?;
        let difference = packs::compare(context, tree, &contents, &map, &written)?;
        (difference.map(|(first, explanation)| (first, sb.layout, explanation)), map.chunks.len())
    } else {
        let (stopped, mut compare) = (First::default(), Compare::new(context));
        let writer = ImageWriter::new(compare.sink(&stopped));
        let (map, written) = build(context, tree, &contents, &annotations, writer, &stopped)?;
        let explain = |first| {
            let explanation = explain(context, tree, &contents, &map, &first)?;
            Ok::<_, Error>((first, written.superblock.layout, explanation))
        };
        (compare.first().map(explain).transpose()?, map.chunks.len())
    };
    if let Some((first, layout, explanation)) = difference {
        return found(context, tree, &first, &layout, explanation).map(Some);
    }
    let (own, theirs) = (zstd_version(), sb.profile.zstd_version);
    if own == theirs || chunks == 0 {
        return Ok(None);
    }
    let (own, theirs) = (version(own), version(theirs));
    Err(not_compared(&format!(
        "it is what libzstd {own} makes, which is in this program, but by its profile it is made by libzstd {theirs}"
    )))
}

fn not_compared(why: &str) -> Error {
    Error::Refused(format!("whether the image is canonical is not known: {why}"))
}

/// Runs the builder, which `stopped` says the reason of where its sink ends it; its map, and what it made.
fn build<S: Sink>(
    context: &Context<'_>,
    tree: &Tree,
    contents: &Contents<'_>,
    annotations: &Annotations,
    mut writer: ImageWriter<S>,
    stopped: &First,
) -> Result<(Map, Written), Error> {
    let profile = &context.image.sb.profile;
    let resources = Resources { threads: context.threads, budget: memory_budget(context.threads) };
    let source = ImageSource::new(context, tree, contents, stopped);
    let result = encode(&source, profile, resources, &Parents::default(), &mut writer, &source).and_then(
        |(walked, map)| {
            let written = writer.finish(&walked.tree, &map, profile, annotations)?;
            Ok((map, written))
        },
    );
    drop(source);
    stopped.take()?;
    result.map_err(|error| not_compared(&format!("it cannot be built again: {error}")))
}

/// The annotations of the image.
fn annotations(context: &Context<'_>) -> Result<Annotations, Error> {
    let image = &context.image;
    let mut annotations = Annotations::new();
    for number in 0..image.sb.layout.annotations.records() {
        context.cancel.check()?;
        let index = u32::try_from(number).unwrap_or(u32::MAX);
        let annotation = read(image.annotation(index))?;
        let mut key: Vec<u8> = vec_of(annotation.key_len.into(), "the key of an annotation")?;
        let mut value: Vec<u8> = vec_of(annotation.value_len.into(), "an annotation")?;
        read(image.annotation_bytes(index, annotation.key_offset, &mut key))?;
        let value_offset = annotation.key_offset + u64::from(annotation.key_len);
        read(image.annotation_bytes(index, value_offset, &mut value))?;
        annotations.insert(key, value);
    }
    Ok(annotations)
}

/// Says which freedom was taken.
fn explain(
    context: &Context<'_>,
    tree: &Tree,
    contents: &Contents<'_>,
    map: &Map,
    first: &FirstByte,
) -> Result<Explanation, Error> {
    if let Some(explanation) = contents::compare(context, tree, map)? {
        return Ok(explanation);
    }
    let order: Vec<u32> =
        (0..u32::try_from(context.image.sb.layout.chunks.records()).unwrap_or(u32::MAX)).collect();
    if let Some(explanation) = chunks::compare(context, contents, map, &order)? {
        return Ok(explanation);
    }
    let byte = |byte: Option<u8>| byte.map_or("nothing".to_owned(), |byte| format!("the byte {byte:#04x}"));
    Ok(Explanation {
        found: byte(first.found),
        expected: byte(first.expected),
        ..Explanation::new(Freedom::Other)
    })
}

/// Makes a finding of a difference.
fn found(
    context: &Context<'_>,
    tree: &mut Tree,
    first: &FirstByte,
    built: &Layout,
    explanation: Explanation,
) -> Result<Difference, Error> {
    let Explanation { freedom, about, found, expected, more } = explanation;
    let region = first.region(&context.image.sb.layout, built);
    let mut detail = format!("in the {region}: {}", freedom.text());
    for part in more.into_iter().chain(first.chunk(context)?) {
        detail.push_str("; ");
        detail.push_str(&part);
    }
    let place = Place::Byte(first.offset);
    let mut finding = Finding::new(Rule::Canonical, about.unwrap_or(place), found, expected).detail(detail);
    walk::name_file(context, tree, &mut finding)?;
    finding.place = place;
    context.findings.add(finding);
    Ok(Difference { byte: first.offset, region, freedom })
}
