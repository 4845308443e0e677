// SPDX-License-Identifier: GPL-2.0-or-later

//! Whether an image is canonical: byte for byte what a builder makes of its tree, profile and annotations (`FORMAT.md` 9.1).
//!
//! The image is the source of a build by the builder's own library, whose bytes are compared with those of the image instead of being
//! written: no second image is needed, and the first byte that differs is known. Where one does, the tables that were built say why.
//!
//! - `source`: the tree and the files of the image, for the builder;
//! - `compare`: the sink that the builder writes to;
//! - `contents`, `chunks`: from the tables to the freedom that was taken; `difference` names it.
//!
//! Memory: what a build takes, see [`mkfs_tesserafs`], beside what the check keeps.

mod chunks;
mod compare;
mod contents;
mod difference;
mod source;

use mkfs_tesserafs::encode::{encode, zstd_version, Map, Resources};
use mkfs_tesserafs::image::{Annotations, ImageWriter};
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

/// Where the superblock has the number of packs.
const PACKS_AT: u64 = 0x80;

/// Builds the image again, and compares; the difference, if there is one, which is a finding then. Nothing is wrong with
/// the image.
pub(crate) fn check(context: &Context<'_>, tree: &mut Tree) -> Result<Option<Difference>, Error> {
    let sb = context.image.sb;
    let packs = sb.layout.packs.records();
    if packs != 1 {
        let first = FirstByte { offset: PACKS_AT, found: None, expected: None };
        let explanation = Explanation {
            found: format!("{packs} packs"),
            expected: "pack 0 alone".to_owned(),
            ..Explanation::new(Freedom::Packs)
        };
        return found(context, tree, &first, &sb.layout, explanation).map(Some);
    }
    context.progress.begin("encode", tree.file_bytes());
    let annotations = annotations(context)?;
    let contents = Contents::open(context)?;
    let mut compare = Compare::new(context);
    let (map, layout) = build(context, tree, &contents, &annotations, &mut compare)?;
    let Some(first) = compare.first() else {
        let (own, theirs) = (zstd_version(), sb.profile.zstd_version);
        if own == theirs || map.chunks.is_empty() {
            return Ok(None);
        }
        let (own, theirs) = (version(own), version(theirs));
        return Err(not_compared(&format!(
            "it is what libzstd {own} makes, which is in this program, but by its profile it is made by libzstd {theirs}"
        )));
    };
    let explanation = explain(context, tree, &contents, &map, &first)?;
    found(context, tree, &first, &layout, explanation).map(Some)
}

fn not_compared(why: &str) -> Error {
    Error::Refused(format!("whether the image is canonical is not known: {why}"))
}

/// Runs the builder, and compares what it makes; its map, and where it places the tables.
fn build(
    context: &Context<'_>,
    tree: &Tree,
    contents: &Contents<'_>,
    annotations: &Annotations,
    compare: &mut Compare<'_>,
) -> Result<(Map, Layout), Error> {
    let profile = &context.image.sb.profile;
    let resources = Resources { threads: context.threads, budget: memory_budget(context.threads) };
    // The reason, where the builder is stopped from here.
    let stopped = First::default();
    let source = ImageSource::new(context, tree, contents, &stopped);
    let mut writer = ImageWriter::new(compare.sink(&stopped));
    let result = encode(&source, profile, resources, &Parents::default(), &mut writer, &source).and_then(
        |(walked, map)| {
            let written = writer.finish(&walked.tree, &map, profile, annotations)?;
            Ok((map, written.superblock.layout))
        },
    );
    drop(source);
    stopped.into_result()?;
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
    if let Some(explanation) = chunks::compare(context, contents, map)? {
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
