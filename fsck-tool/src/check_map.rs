// SPDX-License-Identifier: GPL-2.0-or-later

//! The records of the map region: packs, chunks, extents, annotations, and that they fill their tables.

use std::collections::HashMap;

use tesserafs_format::limits::{plain_holes_max, ANNOTATION_KEY_MAX, BLOCK_BYTES, PLAIN_DIGEST_MAX};
use tesserafs_format::{ChunkIndex, ContentIndex, Extent, Pack, PackIndex, Place, Rule, Target};

use tesserafs_image::error::{vec_of, Broken, Error};
use tesserafs_image::finding::{Finding, Severity};
use tesserafs_image::walk::Tree;
use tesserafs_image::Context;

/// Records between two looks at the cancel flag.
const STEP: u64 = 1 << 12;

/// A set of indices.
#[derive(Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    pub(crate) fn new(len: u64, what: &'static str) -> Result<Self, Error> {
        Ok(Self(vec_of(len.div_ceil(64), what)?))
    }

    pub(crate) fn get(&self, index: u32) -> bool {
        self.0.get(index as usize / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds an index; whether it was new.
    pub(crate) fn set(&mut self, index: u32) -> bool {
        let Some(word) = self.0.get_mut(index as usize / 64) else { return false };
        let mask = 1 << (index % 64);
        let is_new = *word & mask == 0;
        *word |= mask;
        is_new
    }
}

/// A content that is a range of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) chunk: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
    pub(crate) content: u32,
}

/// The facts in the map region, as far as they can be relied on.
#[derive(Debug)]
pub(crate) struct Map {
    /// The packs that could be read.
    pub(crate) packs: Vec<Option<Pack>>,
    /// Contents that are a range of one chunk, by chunk.
    pub(crate) members: Vec<Member>,
    /// Contents whose extents cannot be followed.
    pub(crate) broken: Bits,
    /// The contents have more holes than anybody wants to digest.
    pub(crate) too_many_holes: bool,
    /// Chunks that are in their pack.
    pub(crate) sound: Bits,
    /// Packs that have a chunk.
    used_packs: Bits,
    /// Stored bytes of the chunks that are not in pack 0.
    stored_elsewhere: u64,
}

impl Map {
    /// The members of a chunk.
    pub(crate) fn members_of(&self, chunk: u32) -> &[Member] {
        let start = self.members.partition_point(|member| member.chunk < chunk);
        let len = self.members[start..].partition_point(|member| member.chunk == chunk);
        &self.members[start..start + len]
    }
}

/// Checks the records of the map region.
pub(crate) fn check(context: &Context<'_>, tree: &Tree) -> Result<Map, Error> {
    let layout = &context.image.sb.layout;
    let records = layout.chunks.records() + layout.content_map.records() + layout.annotations.records();
    context.progress.begin("map", records);
    let mut map = Map {
        packs: check_packs(context)?,
        members: Vec::new(),
        broken: Bits::new(layout.content_map.records(), "a bit for each content")?,
        too_many_holes: false,
        sound: Bits::new(layout.chunks.records(), "a bit for each chunk")?,
        used_packs: Bits::new(layout.packs.records(), "a bit for each pack")?,
        stored_elsewhere: 0,
    };
    // All of it at once: growing would need half as much again.
    let contents = usize::try_from(layout.content_map.records()).unwrap_or(usize::MAX);
    let memory = |_| Error::Memory { what: "a record for each content" };
    map.members.try_reserve_exact(contents).map_err(memory)?;
    check_chunks(context, &mut map)?;
    check_contents(context, tree, &mut map)?;
    check_annotations(context)?;
    map.members.sort_unstable();
    Ok(map)
}

fn step(context: &Context<'_>, record: u64) -> Result<(), Error> {
    if record % STEP == 0 {
        context.cancel.check()?;
        context.progress.advance(STEP);
    }
    Ok(())
}

/// The index of a record of a table whose count was proven to be below 2^32.
fn index_of(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn check_packs(context: &Context<'_>) -> Result<Vec<Option<Pack>>, Error> {
    let layout = &context.image.sb.layout;
    let mut packs = Vec::new();
    for number in 0..layout.packs.records() {
        let index = PackIndex(u16::try_from(number).unwrap_or(u16::MAX));
        packs.push(context.note(context.image.pack(index))?);
    }
    if let Some(Some(pack)) = packs.first() {
        check_padding(context, pack)?;
    }
    let mut indices = HashMap::new();
    for pack in packs.iter().flatten() {
        if let Some(first) = indices.insert(pack.digest, pack.index) {
            let (place, expected) = (Place::Pack(pack.index.0), "another digest than the packs before");
            let found = format!("the digest of pack {}", first.0);
            context.findings.add(Finding::new(Rule::MapPacks, place, found, expected));
        }
    }
    Ok(packs)
}

/// Checks that pack 0 is padded with zeros to a block, where the tree region begins.
fn check_padding(context: &Context<'_>, pack: &Pack) -> Result<(), Error> {
    let tree_offset = context.image.sb.layout.tree_offset;
    let end = BLOCK_BYTES + pack.bytes;
    let padded = end.next_multiple_of(BLOCK_BYTES);
    if padded != tree_offset {
        let finding = padding_finding(Place::Pack(0), tree_offset, padded);
        context.findings.add(finding.detail("the tree region does not begin at the block behind pack 0"));
    }
    let mut padding = [0; BLOCK_BYTES as usize];
    let padding = &mut padding[..(padded.min(tree_offset) - end) as usize];
    context.metadata.source().read_at(end, padding)?;
    if let Some(at) = padding.iter().position(|byte| *byte != 0) {
        let place = Place::Byte(end + at as u64);
        context.findings.add(padding_finding(place, padding[at].into(), 0));
    }
    Ok(())
}

/// A finding about bytes behind pack 0, which no reader looks at; the bytes of its record every one does.
fn padding_finding(place: Place, found: u64, expected: u64) -> Finding {
    Finding::new(Rule::PackPadding, place, found, expected).severity(Severity::Form)
}

/// Checks each chunk by itself and in its pack, that they follow each other there, that pack 0 is filled, and that each other pack has one.
fn check_chunks(context: &Context<'_>, map: &mut Map) -> Result<(), Error> {
    // The pack and the byte where the next chunk begins, at least.
    let mut next = Some((PackIndex(0), 0));
    for number in 0..context.image.sb.layout.chunks.records() {
        step(context, number)?;
        let index = ChunkIndex(index_of(number));
        let place = Place::Chunk(index.0);
        let Some(chunk) = context.note(context.image.chunk(index))? else {
            next = None;
            continue;
        };
        let Some(Some(pack)) = map.packs.get(usize::from(chunk.pack.0)) else {
            next = None;
            continue;
        };
        let here = (chunk.pack, chunk.offset);
        let end = (chunk.pack, chunk.offset.saturating_add(chunk.stored_len.into()));
        let before = next.replace(end);
        // In pack 0 there is no gap.
        let is_next = |before: (PackIndex, u64)| if here.0 .0 == 0 { here == before } else { here >= before };
        if let Some(before) = before.filter(|before| !is_next(*before)) {
            let text = |(pack, offset): (PackIndex, u64)| format!("byte {offset} of pack {}", pack.0);
            context.findings.add(Finding::new(Rule::MapChunks, place, text(here), text(before)));
        }
        map.used_packs.set(chunk.pack.0.into());
        if chunk.pack.0 != 0 {
            map.stored_elsewhere = map.stored_elsewhere.saturating_add(chunk.stored_len.into());
        }
        match chunk.check_range(pack) {
            Ok(()) => drop(map.sound.set(index.0)),
            Err(error) => context.findings.add(error),
        }
    }
    let Some((last, end)) = next else { return Ok(()) };
    if let Some(Some(pack)) = map.packs.first() {
        let end = if last.0 == 0 { end } else { 0 };
        if end != pack.bytes {
            context.findings.add(Finding::new(Rule::MapChunks, Place::Pack(0), pack.bytes, end));
        }
    }
    for pack in map.packs.iter().skip(1).flatten() {
        if !map.used_packs.get(pack.index.0.into()) {
            let place = Place::Pack(pack.index.0);
            context.findings.add(Finding::new(Rule::MapPacks, place, "no chunk", "a chunk"));
        }
    }
    Ok(())
}

/// Checks the extents of all contents, and that each chunk is used.
fn check_contents(context: &Context<'_>, tree: &Tree, map: &mut Map) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let mut used = Bits::new(layout.chunks.records(), "a bit for each chunk")?;
    let mut next = Some(0);
    let mut covered = 0;
    let mut is_whole = true;
    let mut plain_holes = 0_u64;
    for number in 0..layout.content_map.records() {
        step(context, number)?;
        let content = ContentIndex(index_of(number));
        // A content that no file has, which is a finding of the walk, has no size.
        let size = tree.sizes[number as usize];
        let extents = match size {
            0 => None,
            size => context.note(context.image.extents(content, size))?,
        };
        let Some(extents) = extents else {
            map.broken.set(content.0);
            (next, is_whole) = (None, false);
            continue;
        };
        let expected = next.replace(extents.end).filter(|expected| *expected != extents.first);
        if let Some(expected) = expected {
            let place = Place::Content(content.0);
            context.findings.add(Finding::new(Rule::MapExtents, place, extents.first, expected));
        }
        // Contents that share extents are not canonical, which was just said; following them all would take for ever.
        if extents.first < covered {
            map.broken.set(content.0);
            is_whole = false;
            continue;
        }
        covered = extents.end;
        let mut before = None;
        for index in extents.first..extents.end {
            step(context, index.into())?;
            let extent = check_extent(context, map, &mut used, context.image.extent(&extents, index))?;
            let Some(extent) = extent else {
                map.broken.set(content.0);
                (before, is_whole) = (None, false);
                continue;
            };
            if before.is_some_and(|before| continues(&before, &extent)) {
                let finding = Finding::new(
                    Rule::MapExtents,
                    Place::Extent(index),
                    "a part of the extent before it",
                    "an extent of its own",
                );
                context.findings.add(finding);
            }
            before = Some(extent);
            if extent.target == Target::Hole && size <= PLAIN_DIGEST_MAX {
                plain_holes = plain_holes.saturating_add(extent.len());
            }
            if let (1, Target::Chunk { index, offset }) = (extents.end - extents.first, extent.target) {
                // An extent in a chunk is no longer than the chunk.
                let len = u32::try_from(extent.len()).unwrap_or(u32::MAX);
                map.members.push(Member { chunk: index.0, offset, len, content: content.0 });
            }
        }
    }
    if next.is_some_and(|next| u64::from(next) != layout.extents.records()) {
        let (found, expected) = (layout.extents.records(), u64::from(next.unwrap_or(0)));
        context.findings.add(Finding::new(Rule::MapExtents, Place::SuperBlock(0x90), found, expected));
    }
    let limit = plain_holes_max(layout.image_bytes.saturating_add(map.stored_elsewhere));
    if plain_holes > limit {
        map.too_many_holes = true;
        let finding = Finding::new(Rule::ContentHoles, Place::SuperBlock(0x78), plain_holes, limit);
        context.findings.add(finding.detail("no digest of a content is compared"));
    }
    if is_whole {
        for number in 0..layout.chunks.records() {
            if !used.get(index_of(number)) {
                let place = Place::Chunk(index_of(number));
                context.findings.add(Finding::new(Rule::MapChunks, place, "no use", "a use"));
            }
        }
    }
    Ok(())
}

/// Checks an extent with its chunk; `None` where it cannot be followed.
fn check_extent(
    context: &Context<'_>,
    map: &Map,
    used: &mut Bits,
    extent: Result<Extent, Broken>,
) -> Result<Option<Extent>, Error> {
    let Some(extent) = context.note(extent)? else { return Ok(None) };
    let Target::Chunk { index, .. } = extent.target else { return Ok(Some(extent)) };
    used.set(index.0);
    match context.image.chunk(index) {
        Ok(chunk) => match extent.check_range(&chunk) {
            Ok(()) => Ok(map.sound.get(index.0).then_some(extent)),
            Err(error) => {
                context.findings.add(error);
                Ok(None)
            }
        },
        // A broken chunk was found with its table; an index that no chunk has is the extent's fault.
        Err(Broken::Rule(error)) => {
            if error.rule == Rule::ChunkIndex {
                let place = Place::Extent(extent.index);
                context.findings.add(Finding::new(error.rule, place, error.found, error.expected));
            }
            Ok(None)
        }
        Err(Broken::Stop(error)) => Err(error),
    }
}

/// Whether two neighbours should be one extent.
fn continues(a: &Extent, b: &Extent) -> bool {
    match (a.target, b.target) {
        (Target::Hole, Target::Hole) => true,
        (Target::Chunk { index: a_chunk, offset: from }, Target::Chunk { index, offset }) => {
            a_chunk == index && u64::from(from) + a.len() == u64::from(offset)
        }
        _ => false,
    }
}

fn check_annotations(context: &Context<'_>) -> Result<(), Error> {
    let layout = &context.image.sb.layout;
    let mut next = Some(0);
    let mut before: Vec<u8> = Vec::new();
    for number in 0..layout.annotations.records() {
        step(context, number)?;
        let index = index_of(number);
        let place = Place::Annotation(index);
        let Some(annotation) = context.note(context.image.annotation(index))? else {
            next = None;
            before.clear();
            continue;
        };
        let start = annotation.key_offset;
        let end = annotation.value_offset().saturating_add(annotation.value_len.into());
        if let Some(expected) = next.replace(end).filter(|expected| *expected != start) {
            context.findings.add(Finding::new(Rule::AnnotationRange, place, start, expected));
        }
        let mut key = [0; ANNOTATION_KEY_MAX as usize];
        let key = &mut key[..annotation.key_len as usize];
        if context.note(context.image.annotation_bytes(index, start, key))?.is_none() {
            before.clear();
            continue;
        }
        if *key <= *before.as_slice() {
            let found = tesserafs_image::text::escape(key);
            let expected = format!("a key behind {}", tesserafs_image::text::escape(&before));
            context.findings.add(Finding::new(Rule::AnnotationOrder, place, found, expected));
        }
        before.clear();
        before.extend_from_slice(key);
    }
    if let Some(next) = next.filter(|next| *next != layout.annotation_data.records()) {
        let (place, found) = (Place::SuperBlock(0xa0), layout.annotation_data.records());
        context.findings.add(Finding::new(Rule::AnnotationRange, place, found, next));
    }
    Ok(())
}
