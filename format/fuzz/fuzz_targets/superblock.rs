// SPDX-License-Identifier: GPL-2.0-or-later

//! The first block of an image: `SuperBlock::parse`, `check_prefix`, `Layout`.
//!
//! Invariant: an error, or a superblock that is written again to the same bytes, whose tables lie in order, without
//! overlap and without a record across two blocks, in the regions, and the regions in the image. No panic, no overflow.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, SIGNED_PREFIX, TABLE_ALIGN};
use tesserafs_format::raw::RawSuperBlock;
use tesserafs_format::superblock::{check_prefix, image_id, Layout};
use tesserafs_format::{SuperBlock, Table};
use tesserafs_fuzz::draft::Sha2;
use tesserafs_fuzz::input::Input;
use zerocopy::{FromBytes, IntoBytes};

fuzz_target!(|data: &[u8]| {
    let block: [u8; BLOCK_SIZE] = Input(data).bytes();
    check(&block);
    // The one field that follows from others; a mutation hardly gets it right.
    let mut raw = RawSuperBlock::read_from_bytes(&block).expect("a block");
    if let Ok(layout) = Layout::new(raw.tree_offset.get(), &raw.tree, &raw.map) {
        raw.image_bytes = layout.image_bytes.into();
        check(raw.as_bytes().first_chunk().expect("a block"));
    }
});

fn check(block: &[u8; BLOCK_SIZE]) {
    let Ok(sb) = SuperBlock::parse(block) else { return };
    let digest = image_id::<Sha2>(block);
    let mut expected = *block;
    let field = &mut expected[SIGNED_PREFIX..SIGNED_PREFIX + digest.0.len()];
    assert_eq!(check_prefix::<Sha2>(block).is_ok(), *field == digest.0);
    field.copy_from_slice(&digest.0);
    assert!(sb.to_raw::<Sha2>().as_bytes() == expected, "written as {sb:?}");

    let layout = &sb.layout;
    assert!(layout.tree_offset >= BLOCK_BYTES);
    tables(&layout.tree_tables(), layout.tree_offset, layout.map_offset);
    tables(&layout.map_tables(), layout.map_offset, layout.hash_offset);
    assert!(layout.hash_offset < layout.image_bytes && layout.image_bytes <= sb.file_bytes());
    let hashes = layout.geometry.total_blocks() - layout.geometry.metadata_blocks();
    assert_eq!(layout.hash_offset + hashes * BLOCK_BYTES, layout.image_bytes);
}

fn tables(tables: &[Table], start: u64, end: u64) {
    let mut at = start;
    for table in tables {
        assert_eq!(table.offset(), at.next_multiple_of(TABLE_ALIGN));
        at = table.end();
        let records = table.records();
        assert_eq!(table.record(records), None);
        assert_eq!(table.range(records, 1), None);
        assert_eq!(table.range(1, u64::MAX), None);
        assert_eq!(table.range(records, 0), Some(at));
        let Some(last) = records.checked_sub(1) else { continue };
        let record_bytes = (at - table.offset()) / records;
        let record = table.record(last).expect("the last record");
        assert_eq!(record + record_bytes, at);
        assert_eq!(record / BLOCK_BYTES, (at - 1) / BLOCK_BYTES, "a record across two blocks");
    }
    assert_eq!(at.next_multiple_of(BLOCK_BYTES), end);
}
