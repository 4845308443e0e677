// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Where several rules are broken, the one is named that section 9 of `FORMAT.md` has first.

use tesserafs_format::raw::RawXattrEntry;
use tesserafs_format::{
    AttributesIndex, FormatError, Image, Ino, PackIndex, Place, Rule, SuperBlock, XattrSetIndex,
};

mod common;

use common::{first_block, superblock, Draft, Memory, Tables};

/// A break of tables.
type Change = fn(&mut Tables);

fn read<T>(
    draft: &Draft,
    read: impl FnOnce(Image<'_, Memory<'_>>) -> Result<T, FormatError>,
) -> Option<(Rule, Place)> {
    let image = draft.image();
    let sb = SuperBlock::parse(first_block(&image)).expect("a superblock");
    let memory = Memory(&image);
    read(Image::new(&sb, &memory)).err().map(|error| (error.rule, error.place))
}

/// The rule that inode `number` breaks, if `change` is done to the tables.
fn of_inode(number: u32, change: Change) -> Option<Rule> {
    let draft = Draft { change: Some(change), ..Draft::sample() };
    read(&draft, |image| image.inode(Ino::from_number(number).expect("a number"))).map(|(rule, _)| rule)
}

#[test]
fn of_an_inode_the_first_in_order_is_named() {
    let cases: [(u32, Change, Rule); 13] = [
        (5, |t| (t.inodes[4].attributes, t.inodes[4].nlink) = (99.into(), 0.into()), Rule::InodeAttributes),
        (5, |t| (t.inodes[4].nlink, t.inodes[4].mtime) = (0.into(), u64::MAX.into()), Rule::InodeNlink),
        (5, |t| (t.inodes[4].mtime, t.inodes[4].size) = (u64::MAX.into(), 1.into()), Rule::InodeTime),
        // A FIFO.
        (5, |t| (t.inodes[4].size, t.inodes[4].start) = (1.into(), 1.into()), Rule::InodeSize),
        (5, |t| t.inodes[4].start = 1.into(), Rule::InodePadding),
        (5, |t| t.inodes[4].extra = 1.into(), Rule::InodePadding),
        // A regular file.
        (3, |t| (t.inodes[2].size, t.inodes[2].start) = (u64::MAX.into(), 99.into()), Rule::InodeSize),
        (3, |t| (t.inodes[2].extra, t.inodes[2].start) = (99.into(), 99.into()), Rule::InodeBlocks),
        (3, |t| t.inodes[2].start = 99.into(), Rule::InodeContent),
        // A directory.
        (2, |t| (t.inodes[1].start, t.inodes[1].extra) = (99.into(), 0.into()), Rule::InodeEntries),
        (2, |t| (t.inodes[1].size, t.inodes[1].extra) = ((4 | 99 << 32).into(), 0.into()), Rule::InodeNames),
        (2, |t| t.inodes[1].extra = 0.into(), Rule::InodeParent),
        // A symlink.
        (7, |t| (t.inodes[6].start, t.inodes[6].extra) = (99.into(), 1.into()), Rule::InodeTarget),
    ];
    for (case, (number, change, rule)) in cases.into_iter().enumerate() {
        assert_eq!(of_inode(number, change), Some(rule), "case {case}");
    }
}

#[test]
fn a_root_of_another_type_is_named_before_what_its_other_fields_break() {
    // Of each type, with the fields of a directory: most are wrong for it.
    let cases: [Change; 6] = [
        |t| t.attributes[0].file_type = 1,
        |t| (t.attributes[0].file_type, t.attributes[0].mode) = (3, 0o777.into()),
        |t| t.attributes[0].file_type = 4,
        |t| t.attributes[0].file_type = 5,
        |t| t.attributes[0].file_type = 6,
        |t| (t.attributes[0].file_type, t.inodes[0].nlink) = (4, 0.into()),
    ];
    for (case, change) in cases.into_iter().enumerate() {
        assert_eq!(of_inode(1, change), Some(Rule::RootType), "case {case}");
    }
    assert_eq!(of_inode(1, |t| t.inodes[0].extra = 2.into()), Some(Rule::RootType));
    assert_eq!(of_inode(1, |t| t.inodes[0].extra = 0.into()), Some(Rule::InodeParent));
    assert_eq!(of_inode(1, |t| t.inodes[0].nlink = 0.into()), Some(Rule::InodeNlink));
}

#[test]
fn of_an_attribute_record_the_first_in_order_is_named() {
    let cases: [(Change, Rule); 4] = [
        (|t| (t.attributes[0].file_type, t.attributes[0].reserved) = (7, 1), Rule::AttributesType),
        (|t| (t.attributes[0].reserved, t.attributes[0].mode) = (1, 0xffff.into()), Rule::AttributesPadding),
        (
            |t| (t.attributes[0].mode, t.attributes[0].uid) = (0xffff.into(), u32::MAX.into()),
            Rule::AttributesMode,
        ),
        (
            |t| (t.attributes[0].gid, t.attributes[0].xattrs) = (u32::MAX.into(), 99.into()),
            Rule::AttributesOwner,
        ),
    ];
    for (change, rule) in cases {
        let draft = Draft { change: Some(change), ..Draft::sample() };
        let found = read(&draft, |image| image.attributes(AttributesIndex(0)));
        assert_eq!(found, Some((rule, Place::Attributes(0))));
        // And none of the inode.
        assert_eq!(of_inode(1, change), Some(rule));
    }
}

#[test]
fn a_set_that_is_too_short_and_one_whose_entries_are_too_long_are_told_apart() {
    let of_set = |change: fn(&mut Draft)| {
        let mut draft = Draft::sample();
        change(&mut draft);
        let found = read(&draft, |image| {
            let mut xattrs = image.xattrs(image.xattr_set(XattrSetIndex(0))?);
            let mut buf = [0; 255];
            while xattrs.next(&mut buf)?.is_some() {}
            Ok(())
        });
        found.map(|(rule, _)| rule)
    };
    assert_eq!(of_set(|_| ()), None);
    // Two entries, 32 bytes at least.
    assert_eq!(of_set(|d| d.xattr_sets[0].bytes = 24.into()), Some(Rule::XattrSetCount));
    assert_eq!(of_set(|d| d.xattr_sets[0].bytes = 40.into()), Some(Rule::XattrEntryRange));
    assert_eq!(of_set(|d| d.xattr_sets[0].count = 1.into()), Some(Rule::XattrSetCount));
    assert_eq!(of_set(|d| d.xattr_sets[0].bytes = u32::MAX.into()), Some(Rule::XattrSetRange));
    // Of one entry: reserved bytes, no name, the length of the value, the range, the name.
    assert_eq!(of_set(|d| d.xattr_entries[4..8].copy_from_slice(&[0, 1, 0, 0])), Some(Rule::XattrPadding));
    assert_eq!(of_set(|d| d.xattr_entries[..5].copy_from_slice(&[0, 0, 2, 0, 0])), Some(Rule::XattrName));
    assert_eq!(of_set(|d| d.xattr_entries[2] = 2), Some(Rule::XattrValueLength));
    let name = size_of::<RawXattrEntry>();
    assert_eq!(name, 8);
    assert_eq!(
        of_set(|d| (d.xattr_entries[0], d.xattr_entries[8]) = (200, b'U')),
        Some(Rule::XattrEntryRange)
    );
}

#[test]
fn of_the_superblock_the_first_in_order_is_named() {
    let of = |change: fn(&mut tesserafs_format::raw::RawSuperBlock)| {
        let mut image = Draft::sample().image();
        superblock(&mut image, change);
        SuperBlock::parse(first_block(&image)).expect_err("broken").rule
    };
    assert_eq!(of(|sb| (sb.incompat, sb.reserved1[0]) = (1.into(), 1.into())), Rule::Incompat);
    assert_eq!(of(|sb| (sb.reserved4[0], sb.tree.inodes) = (1, u64::MAX.into())), Rule::SuperBlockPadding);
    assert_eq!(of(|sb| (sb.tree.inodes, sb.tree_offset) = (u64::MAX.into(), 1.into())), Rule::Count);
    assert_eq!(
        of(|sb| (sb.tree.xattr_bytes, sb.tree_offset) = ((1 << 46).into(), 1.into())),
        Rule::RegionOffset
    );
    assert_eq!(of(|sb| (sb.tree.xattr_bytes, sb.image_bytes) = ((1 << 46).into(), 1.into())), Rule::Count);
    assert_eq!(of(|sb| (sb.image_bytes, sb.profile.level) = (1.into(), 0.into())), Rule::ImageBytes);
    assert_eq!(
        of(|sb| (sb.profile.level, sb.signature_bytes) = (0.into(), u32::MAX.into())),
        Rule::ProfileRange
    );
    // The signature digest of an image without a signature.
    assert_eq!(of(|sb| sb.signature_digest[0] = 1), Rule::SuperBlockPadding);
    assert_eq!(of(|sb| (sb.signature_digest[0], sb.profile.level) = (1, 0.into())), Rule::ProfileRange);
}

#[test]
fn of_a_pack_the_first_in_order_is_named() {
    let of = |change: fn(&mut Draft)| {
        let mut draft = Draft::sample();
        change(&mut draft);
        read(&draft, |image| image.pack(PackIndex(0))).map(|(rule, _)| rule)
    };
    assert_eq!(
        of(|d| (d.packs[0].reserved[0], d.packs[0].kind) = (1.into(), 1.into())),
        Some(Rule::PackPadding)
    );
    assert_eq!(
        of(|d| (d.packs[0].kind, d.packs[0].bytes) = (1.into(), u64::MAX.into())),
        Some(Rule::PackKind)
    );
}
