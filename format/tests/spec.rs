// SPDX-License-Identifier: GPL-2.0 OR MIT

//! `FORMAT.md` and the code say the same: the rules, and where each field lies.

use std::mem::{offset_of, size_of};

use tesserafs_format::raw::{
    RawAnnotation, RawAttributes, RawChunk, RawDirent, RawExtent, RawInode, RawMap, RawPack, RawProfile,
    RawSuperBlock, RawTree, RawXattrEntry, RawXattrSet,
};
use tesserafs_format::{Profile, Rule};

const SPEC: &str = include_str!("../FORMAT.md");

/// The text of the section whose heading begins with `heading`.
fn section(heading: &str) -> &'static str {
    let start = SPEC.find(&format!("\n{heading}")).unwrap_or_else(|| panic!("no section {heading}")) + 1;
    let body = &SPEC[start + heading.len()..];
    let end = body.find("\n## ").unwrap_or(body.len());
    let end =
        if heading.starts_with("### ") { body.find("\n### ").map_or(end, |at| at.min(end)) } else { end };
    &body[..end]
}

#[test]
fn section_9_lists_exactly_the_rules() {
    let rows: Vec<(&str, &str)> = section("## 9.")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.strip_suffix(" |")?.splitn(2, "` | ");
            Some((cells.next()?, cells.next()?))
        })
        .collect();
    let rules: Vec<(&str, &str)> = Rule::ALL.iter().map(|rule| (rule.name(), rule.text())).collect();
    assert_eq!(rows, rules);
}

#[test]
fn rule_names_are_distinct_words() {
    let mut names: Vec<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Rule::ALL.len());
}

/// Lines `0xOFFSET  [name]  SIZE  ...` of the first box in `text`, and of those after it: (offset, name, size).
fn fields(text: &str) -> Vec<(usize, &str, usize)> {
    let boxes: Vec<&str> = text.split("```").skip(1).step_by(2).collect();
    let mut fields = Vec::new();
    for line in boxes.iter().flat_map(|text| text.lines()) {
        // A box of two columns has two fields in a line; a record's box begins with its name.
        for part in line.split("0x").skip(1) {
            let mut words = part.split_whitespace();
            let Some(Ok(offset)) = words.next().map(|word| usize::from_str_radix(word, 16)) else { continue };
            let Some(word) = words.next() else { continue };
            let (name, size) = match word.parse() {
                Ok(size) => ("", Some(size)),
                Err(_) => (word, words.next().and_then(|word| word.parse().ok())),
            };
            if let Some(size) = size {
                fields.push((offset, name, size));
            }
        }
    }
    fields
}

/// (name, offset, bytes) of fields of a record.
macro_rules! offsets {
    ($record:ty: $($name:literal = $($field:ident).+: $bytes:expr),* $(,)?) => {
        [$(($name, offset_of!($record, $($field).+), $bytes)),*]
    };
}

fn compare(text: &str, expected: &[(&str, usize, usize)]) {
    let fields = fields(text);
    for (name, offset, bytes) in expected {
        let is_said = fields.contains(&(*offset, name, *bytes));
        assert!(is_said, "{name} at {offset:#x}, {bytes} bytes: not in {fields:#?}");
    }
}

#[test]
fn the_superblock_lies_as_section_3_says() {
    let text = section("## 3.");
    let fields_of = offsets!(RawSuperBlock:
        "magic" = magic: 8,
        "version" = version: 4,
        "" = reserved0: 4,
        "compat" = compat: 8,
        "incompat" = incompat: 8,
        "image_bytes" = image_bytes: 8,
        "tree_offset" = tree_offset: 8,
        "" = reserved1: 16,
        "tree" = tree: size_of::<RawTree>(),
        "inodes" = tree.inodes: 8,
        "attributes" = tree.attributes: 8,
        "dirents" = tree.dirents: 8,
        "name_bytes" = tree.name_bytes: 8,
        "target_bytes" = tree.target_bytes: 8,
        "xattr_sets" = tree.xattr_sets: 8,
        "xattr_bytes" = tree.xattr_bytes: 8,
        "contents" = tree.contents: 8,
        "map" = map: size_of::<RawMap>(),
        "packs" = map.packs: 8,
        "chunks" = map.chunks: 8,
        "extents" = map.extents: 8,
        "annotations" = map.annotations: 8,
        "annotation_bytes" = map.annotation_bytes: 8,
        "" = map.reserved: 24,
        "profile" = profile: size_of::<RawProfile>(),
        "merkle_root" = merkle_root: 32,
        "tree_id" = tree_id: 32,
        "" = reserved2: 224,
        "prefix_digest" = prefix_digest: 32,
        "signature_bytes" = signature_bytes: 4,
        "" = reserved3: 12,
        "signature_digest" = signature_digest: 32,
        "" = reserved4: 3504,
    );
    compare(text, &fields_of);
    // Nothing in the box but these, and they tile the block.
    assert_eq!(fields(text).len(), fields_of.len());
    let mut at = 0;
    for (offset, name, bytes) in fields(text) {
        if matches!(name, "tree" | "map") {
            // Its fields follow.
            continue;
        }
        assert_eq!(offset, at, "{name}");
        at = offset + bytes;
    }
    assert_eq!(at, size_of::<RawSuperBlock>());
}

#[test]
fn the_tree_records_lie_as_section_4_says() {
    compare(
        section("### 4.3 "),
        &offsets!(RawInode:
            "attributes" = attributes: 4,
            "nlink" = nlink: 4,
            "mtime" = mtime: 8,
            "size" = size: 8,
            "start" = start: 4,
            "extra" = extra: 4,
        ),
    );
    compare(
        section("### 4.3 "),
        &offsets!(RawAttributes:
            "type" = file_type: 1,
            "" = reserved: 1,
            "mode" = mode: 2,
            "uid" = uid: 4,
            "gid" = gid: 4,
            "xattrs" = xattrs: 4,
        ),
    );
    let mut at = 0;
    for (offset, name, bytes) in fields(section("### 4.3 ")) {
        // The second record begins at 0 again.
        assert!(offset == at || offset == 0 && at == size_of::<RawInode>(), "{name}");
        at = offset + bytes;
    }
    assert_eq!(at, size_of::<RawAttributes>());
    compare(
        section("### 4.4 "),
        &offsets!(RawDirent:
            "ino" = ino: 4,
            "name" = name: 4,
        ),
    );
    compare(
        section("### 4.6 "),
        &offsets!(RawXattrSet:
            "offset" = offset: 8,
            "bytes" = bytes: 4,
            "count" = count: 4,
        ),
    );
    compare(
        section("### 4.6 "),
        &offsets!(RawXattrEntry:
            "value_len" = value_len: 4,
            "name_len" = name_len: 1,
            "" = reserved: 3,
        ),
    );
}

#[test]
fn the_map_records_lie_as_section_5_says() {
    let text = section("## 5.");
    compare(
        text,
        &offsets!(RawPack:
            "digest" = digest: 32,
            "bytes" = bytes: 8,
            "kind" = kind: 4,
            "" = reserved: 20,
        ),
    );
    compare(
        text,
        &offsets!(RawChunk:
            "place" = place: 8,
            "stored" = stored: 4,
            "raw_len" = raw_len: 4,
        ),
    );
    compare(
        text,
        &offsets!(RawExtent:
            "file_offset" = file_offset: 8,
            "chunk" = chunk: 4,
            "chunk_offset" = chunk_offset: 4,
        ),
    );
    compare(
        text,
        &offsets!(RawAnnotation:
            "offset" = offset: 8,
            "key_len" = key_len: 4,
            "value_len" = value_len: 4,
        ),
    );
    compare(
        section("### 5.2 "),
        &offsets!(RawProfile:
            "chunk_min" = chunk_min: 4,
            "chunk_avg" = chunk_avg: 4,
            "chunk_max" = chunk_max: 4,
            "group_size" = group_size: 4,
            "small_max" = small_max: 4,
            "hole_min" = hole_min: 4,
            "level" = level: 4,
            "zstd_version" = zstd_version: 4,
        ),
    );
}

#[test]
fn an_odd_chunk_size_is_refused_as_section_5_2_says() {
    assert!(section("### 5.2 ").contains("The three chunk sizes are even."));
    let raw = RawProfile {
        chunk_min: 4096.into(),
        chunk_avg: 8192.into(),
        chunk_max: 16384.into(),
        hole_min: 4096.into(),
        level: 3.into(),
        ..RawProfile::default()
    };
    assert!(Profile::parse(&raw).is_ok());
    assert!(Profile::parse(&RawProfile { chunk_max: 16385.into(), ..raw }).is_err());
}

#[test]
fn sizes_are_those_of_the_tables() {
    for (row, size) in [
        ("| inodes | 32 |", size_of::<RawInode>()),
        ("| attributes | 16 |", size_of::<RawAttributes>()),
        ("| entries | 8 |", size_of::<RawDirent>()),
        ("| xattr sets | 16 |", size_of::<RawXattrSet>()),
        ("| packs | 64 |", size_of::<RawPack>()),
        ("| chunks | 16 |", size_of::<RawChunk>()),
        ("| extents | 16 |", size_of::<RawExtent>()),
        ("| annotations | 16 |", size_of::<RawAnnotation>()),
    ] {
        assert!(SPEC.contains(row), "{row}");
        assert!(row.ends_with(&format!("| {size} |")), "{row}");
    }
}
