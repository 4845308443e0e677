// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The counts of the superblock have the limits that section 3 of `FORMAT.md` says, each and every one.

use tesserafs_format::raw::{RawMap, RawTree};
use tesserafs_format::superblock::Layout;
use tesserafs_format::{FormatError, Place, Rule};
use zerocopy::little_endian::U64;

const SPEC: &str = include_str!("../FORMAT.md");

/// Where the counts begin and end in the superblock.
const COUNTS: std::ops::Range<u32> = 0x40..0xa8;

/// `2^46`, `2^32-2`, `1024`.
fn number(text: &str) -> u64 {
    let (power, less) = text.split_once('-').unwrap_or((text, "0"));
    let value = match power.strip_prefix("2^") {
        Some(exponent) => 1 << exponent.parse::<u32>().expect("an exponent"),
        None => power.parse().expect("a number"),
    };
    value - less.parse::<u64>().expect("a number")
}

/// Offset and limit of each count in the box of section 3.
fn limits() -> Vec<(u32, u64)> {
    let (_, text) = SPEC.split_once("## 3. Superblock").expect("a section");
    let lines = text.split("```").nth(1).expect("a box").lines();
    let counts = lines.filter_map(|line| {
        let (offset, rest) = line.strip_prefix("0x")?.split_once(' ')?;
        let offset = u32::from_str_radix(offset, 16).ok().filter(|offset| COUNTS.contains(offset))?;
        // The descriptors, whose fields follow.
        let is_field = rest.starts_with("   ");
        is_field.then(|| (offset, number(rest.rsplit(' ').next().expect("a word"))))
    });
    counts.collect()
}

/// The layout of an image that has a root, a pack, and `count` where the superblock has it at `offset`.
fn layout(offset: u32, count: u64) -> Result<Layout, FormatError> {
    let (mut tree, mut map) = (RawTree::default(), RawMap::default());
    (tree.inodes, map.packs) = (1.into(), 1.into());
    let fields: [&mut U64; 13] = [
        &mut tree.inodes,
        &mut tree.attributes,
        &mut tree.dirents,
        &mut tree.name_bytes,
        &mut tree.target_bytes,
        &mut tree.xattr_sets,
        &mut tree.xattr_bytes,
        &mut tree.contents,
        &mut map.packs,
        &mut map.chunks,
        &mut map.extents,
        &mut map.annotations,
        &mut map.annotation_bytes,
    ];
    *fields.into_iter().nth((offset - COUNTS.start) as usize / 8).expect("a field") = count.into();
    Layout::new(4096, &tree, &map)
}

#[test]
fn each_count_has_the_limit_that_the_specification_says() {
    let limits = limits();
    assert_eq!(limits.len(), 13, "{limits:x?}");
    for (offset, limit) in limits {
        let place = Place::SuperBlock(offset);
        let over = layout(offset, limit + 1).expect_err("over the limit");
        assert_eq!((over.rule, over.place, over.expected), (Rule::Count, place, limit), "{offset:#x}");
        // A table at its limit may be too much for all of the metadata.
        let at = layout(offset, limit).map_err(|error| (error.rule, error.expected));
        assert!(matches!(at, Ok(_) | Err((Rule::Count, 0x4000_0000_0000))), "{offset:#x}: {at:?}");
        // No more than one of the tables of bytes may be that long.
        assert_eq!(at.is_err(), matches!(offset, 0x70 | 0xa0), "{offset:#x}");
    }
}
