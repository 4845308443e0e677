// SPDX-License-Identifier: GPL-2.0-or-later

//! Metadata of a damaged image, read through its digests.
//!
//! Invariant: whatever bytes are changed behind the superblock, a read gives the bytes that the Merkle root vouches for, or
//! an error; and it gives no error where no byte that it needs was changed.

#![no_main]

use std::sync::LazyLock;

use fsck_tesserafs::metadata::VerifiedMetadata;
use fsck_tesserafs::Source;
use libfuzzer_sys::fuzz_target;
use tesserafs_format::image::Metadata;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::{Parent, SuperBlock};
use tesserafs_fuzz::draft::{first_block, inode, Draft, DraftInode};
use tesserafs_fuzz::input::Input;
use tesserafs_fuzz::memory_file::MemoryFile;

/// Bytes that are changed, and reads, at most.
const STEPS: usize = 16;

struct Fixture {
    image: Vec<u8>,
    sb: SuperBlock,
    file: MemoryFile,
}

/// An image with two levels of hash blocks.
static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let mut draft = Draft::sample();
    draft.inodes.resize(20_000, DraftInode { file_type: 4, ..inode(1) });
    let image = draft.image();
    let sb = SuperBlock::parse(first_block(&image)).expect("a superblock");
    assert_eq!(sb.layout.geometry.levels().count(), 2);
    let file = MemoryFile::new(&image);
    Fixture { image, sb, file }
});

fuzz_target!(|data: &[u8]| {
    let Fixture { image, sb, file } = &*FIXTURE;
    let (start, end) = (sb.layout.tree_offset, sb.layout.image_bytes);
    let mut input = Input(data);
    let mut damaged = Vec::new();
    for _ in 0..usize::from(input.u8()) % STEPS {
        let at = start + u64::from(input.u32()) % (end - start);
        let byte = image[at as usize] ^ input.u8();
        file.write(at, &[byte]);
        damaged.push((at, byte != image[at as usize]));
    }
    let source = Source::open(&file.path()).expect("opened");
    let metadata = VerifiedMetadata::new(&source, sb);
    for _ in 0..STEPS {
        let at = start + u64::from(input.u32()) % (sb.layout.hash_offset - start);
        let len = (u64::from(input.u16()) % (2 * BLOCK_BYTES)).min(sb.layout.hash_offset - at);
        let mut buf = vec![0; len as usize];
        let expected = &image[at as usize..(at + len) as usize];
        match metadata.read(at, &mut buf) {
            Ok(()) => assert!(buf == expected, "unverified bytes at {at}"),
            Err(_) => assert!(is_affected(sb, &damaged, at, len), "an error for authentic bytes at {at}"),
        }
    }
    for (at, _) in &damaged {
        file.write(*at, &image[*at as usize..=*at as usize]);
    }
});

/// Whether a changed byte lies in a block that the bytes lie in, or in one on the way to the root. Later changes of a byte
/// may have undone earlier ones: then an error is not asked for, only allowed.
fn is_affected(sb: &SuperBlock, damaged: &[(u64, bool)], at: u64, len: u64) -> bool {
    let block = |at: u64| (at - sb.layout.tree_offset) / BLOCK_BYTES;
    let is_damaged = |number: u64| damaged.iter().any(|(at, changed)| *changed && block(*at) == number);
    (block(at)..=block(at + len - 1)).any(|mut number| loop {
        if is_damaged(number) {
            return true;
        }
        match sb.layout.geometry.parent(number) {
            Some(Parent::Slot { block, .. }) => number = block,
            _ => return false,
        }
    })
}
