// SPDX-License-Identifier: GPL-2.0
//! Superblock, digests, padding, signature.

use std::mem::offset_of;

use anyhow::{Context, Result};
use tesserafs_format::raw::RawSuperBlock;
use tesserafs_format::superblock::Layout;
use tesserafs_format::Rule;

use super::super::parts::{change_head, sha256};
use super::super::{Break, Case, Kernel};
use super::{canonical, refused, set32, valid};

/// A change of the superblock behind right digests.
fn head(name: &'static str, rule: Rule, change: fn(&mut Vec<u8>, &Layout) -> Result<()>) -> Case {
    Case { name, kernel: Kernel::Refuses(rule), fsck: Some(rule), breaks: Break::Digested(change) }
}

fn late(name: &'static str, rule: Rule, change: fn(&mut Vec<u8>, &Layout) -> Result<()>) -> Case {
    Case { name, kernel: Kernel::Refuses(rule), fsck: Some(rule), breaks: Break::Late(change) }
}

/// A byte of a finished image.
fn byte(image: &mut [u8], at: u64) -> Result<&mut u8> {
    image.get_mut(usize::try_from(at)?).context("a byte beyond the image")
}

/// A byte that is digested next.
fn laid(name: &'static str, rule: Rule, change: fn(&mut [u8], &Layout) -> Result<()>) -> Case {
    Case { name, kernel: Kernel::Reads, fsck: Some(rule), breaks: Break::Laid(change) }
}

/// Sets the byte at an offset of the superblock.
macro_rules! head_byte {
    ($name:literal, $rule:expr, $at:expr, $value:expr) => {
        head($name, $rule, |image, _| {
            image[$at] = $value;
            change_head(image, |_| ())
        })
    };
}

/// Sets a field of the superblock.
macro_rules! head_field {
    ($name:literal, $rule:expr, |$sb:ident| $change:expr) => {
        head($name, $rule, |image, _| change_head(image, |$sb| $change))
    };
}

#[rustfmt::skip]
pub(super) fn cases() -> Vec<Case> {
    vec![
        head_byte!("magic", Rule::Magic, 0, b'X'),
        head_byte!("version-next", Rule::Version, 8, 2),
        head_byte!("version-zero", Rule::Version, 8, 0),
        head_field!("version-max", Rule::Version, |sb| sb.version = u32::MAX.into()),
        head_field!("incompat-first-bit", Rule::Incompat, |sb| sb.incompat = 1.into()),
        head_field!("incompat-last-bit", Rule::Incompat, |sb| sb.incompat = (1 << 63).into()),
        Case {
            name: "compat-all-bits",
            kernel: Kernel::Reads,
            fsck: None,
            breaks: Break::Digested(|image, _| change_head(image, |sb| sb.compat = u64::MAX.into())),
        },
        head_byte!("superblock-padding-version", Rule::SuperBlockPadding, 0xc, 1),
        head_byte!("superblock-padding-tree-offset", Rule::SuperBlockPadding, 0x30, 1),
        head_byte!("superblock-padding-map", Rule::SuperBlockPadding, 0xbf, 0x80),
        head_byte!("superblock-padding-prefix-end", Rule::SuperBlockPadding, 0x1ff, 1),
        head_byte!("superblock-padding-signature", Rule::SuperBlockPadding, 0x224, 1),
        late("superblock-padding-last-byte", Rule::SuperBlockPadding, |image, _| { image[0xfff] = 1; Ok(()) }),
        // Counts.
        head_field!("count-inodes-zero", Rule::Count, |sb| sb.tree.inodes = 0.into()),
        head_field!("count-inodes-over", Rule::Count, |sb| sb.tree.inodes = 0xffff_ffff.into()),
        head_field!("count-inodes-max", Rule::Count, |sb| sb.tree.inodes = u64::MAX.into()),
        head_field!("count-inodes-huge", Rule::ImageBytes, |sb| sb.tree.inodes = 0xffff_fffe.into()),
        head_field!("count-attributes-over", Rule::Count, |sb| sb.tree.attributes = 0xffff_ffff.into()),
        head_field!("count-dirents-over", Rule::Count, |sb| sb.tree.dirents = (1 << 32).into()),
        head_field!("count-names-over", Rule::Count, |sb| sb.tree.name_bytes = ((1 << 36) + 1).into()),
        head_field!("count-targets-over", Rule::Count, |sb| sb.tree.target_bytes = (1 << 32).into()),
        head_field!("count-xattr-sets-over", Rule::Count, |sb| sb.tree.xattr_sets = u64::MAX.into()),
        head_field!("count-xattr-bytes-over", Rule::Count, |sb| sb.tree.xattr_bytes = u64::MAX.into()),
        head_field!("count-xattr-bytes-at-limit", Rule::Count, |sb| sb.tree.xattr_bytes = (1 << 46).into()),
        head_field!("count-contents-over", Rule::Count, |sb| sb.tree.contents = (1 << 63).into()),
        head_field!("count-packs-zero", Rule::Count, |sb| sb.map.packs = 0.into()),
        head_field!("count-packs-over", Rule::Count, |sb| sb.map.packs = 1025.into()),
        head_field!("count-chunks-over", Rule::Count, |sb| sb.map.chunks = 0xffff_ffff.into()),
        head_field!("count-extents-over", Rule::Count, |sb| sb.map.extents = 0xffff_ffff.into()),
        head_field!("count-annotations-over", Rule::Count, |sb| sb.map.annotations = 65_536.into()),
        head_field!("count-annotation-bytes-max", Rule::Count, |sb| sb.map.annotation_bytes = u64::MAX.into()),
        // Regions.
        head_field!("region-offset-zero", Rule::RegionOffset, |sb| sb.tree_offset = 0.into()),
        head_field!("region-offset-odd", Rule::RegionOffset, |sb| sb.tree_offset = 4097.into()),
        head_field!("region-offset-max", Rule::RegionOffset, |sb| sb.tree_offset = (u64::MAX - 4095).into()),
        head_field!("region-offset-sign", Rule::RegionOffset, |sb| sb.tree_offset = (1 << 63).into()),
        head_field!("region-offset-far", Rule::ImageBytes, |sb| sb.tree_offset = (1 << 62).into()),
        head_field!("image-bytes-zero", Rule::ImageBytes, |sb| sb.image_bytes = 0.into()),
        head_field!("image-bytes-one-block-more", Rule::ImageBytes, |sb| sb.image_bytes = (sb.image_bytes.get() + 4096).into()),
        head_field!("image-bytes-max", Rule::ImageBytes, |sb| sb.image_bytes = u64::MAX.into()),
        // All of it moved behind the end of the file, consistently.
        head_field!("image-behind-the-file", Rule::FileLength, |sb| {
            let moved = 1 << 40;
            (sb.tree_offset, sb.image_bytes) =
                ((sb.tree_offset.get() + moved).into(), (sb.image_bytes.get() + moved).into());
        }),
        // Profile.
        refused("profile-chunk-min-small", Rule::ProfileRange, |p| set32(&mut p.head.profile.chunk_min, 4094)),
        refused("profile-chunk-min-odd", Rule::ProfileRange, |p| set32(&mut p.head.profile.chunk_min, 4097)),
        refused("profile-chunk-avg-below-min", Rule::ProfileRange, |p| set32(&mut p.head.profile.chunk_avg, 4096)),
        refused("profile-chunk-max-over", Rule::ProfileRange, |p| set32(&mut p.head.profile.chunk_max, (1 << 20) + 2)),
        refused("profile-chunk-max-below-avg", Rule::ProfileRange, |p| set32(&mut p.head.profile.chunk_max, 4096)),
        refused("profile-group-over", Rule::ProfileRange, |p| set32(&mut p.head.profile.group_size, (512 << 10) + 1)),
        refused("profile-small-over-group", Rule::ProfileRange, |p| set32(&mut p.head.profile.small_max, u32::MAX)),
        refused("profile-hole-zero", Rule::ProfileRange, |p| set32(&mut p.head.profile.hole_min, 0)),
        refused("profile-hole-odd", Rule::ProfileRange, |p| set32(&mut p.head.profile.hole_min, 4095)),
        refused("profile-level-zero", Rule::ProfileRange, |p| set32(&mut p.head.profile.level, 0)),
        refused("profile-level-over", Rule::ProfileRange, |p| set32(&mut p.head.profile.level, 23)),
        valid("profile-zstd-version-max", |p| set32(&mut p.head.profile.zstd_version, u32::MAX)),
        // Digests.
        head_byte!("tree-id-as-other", Rule::TreeId, offset_of!(RawSuperBlock, tree_id), 0).reads(),
        head_byte!("merkle-root-wrong", Rule::HashBlock, offset_of!(RawSuperBlock, merkle_root), 0),
        late("prefix-digest-wrong", Rule::PrefixDigest, |image, _| { image[0x200] ^= 1; Ok(()) }),
        head("hash-block-zero", Rule::HashBlock, |image, layout| {
            let start = usize::try_from(layout.hash_offset)?;
            image[start..].fill(0);
            Ok(())
        }),
        Case {
            name: "hash-block-of-another-slot",
            kernel: Kernel::Refuses(Rule::HashBlock),
            fsck: Some(Rule::HashBlock),
            breaks: Break::Digested(|image, layout| {
                let start = usize::try_from(layout.hash_offset)?;
                image.copy_within(start + 32..start + 64, start);
                let root = sha256(&image[start..start + 4096]);
                change_head(image, |sb| sb.merkle_root = root)
            }),
        },
        Case {
            name: "hash-padding",
            kernel: Kernel::Reads,
            fsck: Some(Rule::HashPadding),
            breaks: Break::Digested(|image, layout| {
                let start = usize::try_from(layout.hash_offset)?;
                image[start + 4095] = 1;
                let root = sha256(&image[start..start + 4096]);
                change_head(image, |sb| sb.merkle_root = root)
            }),
        },
        // Padding.
        laid("table-padding-tree", Rule::TablePadding, |image, layout| {
            *byte(image, layout.map_offset - 1)? = 1;
            Ok(())
        }),
        laid("table-padding-map", Rule::TablePadding, |image, layout| {
            *byte(image, layout.hash_offset - 1)? = 1;
            Ok(())
        }),
        laid("pack-padding-byte", Rule::PackPadding, |image, layout| {
            *byte(image, layout.tree_offset - 1)? = 1;
            Ok(())
        }),
        canonical("pack-padding-block", Rule::PackPadding, |p| {
            let len = p.pack.len();
            p.pack.resize(len + 8192, 0);
            Ok(())
        }),
        // The file and the signature.
        late("file-one-byte-short", Rule::FileLength, |image, _| { image.pop(); Ok(()) }),
        late("file-one-block-short", Rule::FileLength, |image, _| { image.truncate(image.len() - 4096); Ok(()) }),
        late("file-is-a-superblock", Rule::FileLength, |image, _| { image.truncate(4096); Ok(()) }),
        late("file-longer", Rule::FileLength, |image, _| { image.push(0); Ok(()) }).reads(),
        head_field!("signature-bytes-over", Rule::SignatureBytes, |sb| sb.signature_bytes = 65_537.into()).unsigned(),
        head_field!("signature-bytes-max", Rule::SignatureBytes, |sb| sb.signature_bytes = u32::MAX.into()).unsigned(),
        head_field!("signature-behind-the-file", Rule::FileLength, |sb| sb.signature_bytes = 65_536.into()).unsigned(),
        head_field!("signature-digest-without-signature", Rule::SuperBlockPadding, |sb| (sb.signature_bytes, sb.signature_digest) = (0.into(), [1; 32])).unsigned(),
        late("signature-digest-wrong", Rule::SignatureDigest, |image, _| {
            // An unsigned image gets a signature of one byte, and a digest of another.
            if image[0x220..0x224] == [0; 4] {
                image[0x220] = 1;
                image.resize(image.len() + 4096, 0);
            }
            image[0x230] ^= 1;
            Ok(())
        }),
        late("signature-padding", Rule::SignaturePadding, |image, _| {
            if image[0x220..0x224] == [0; 4] {
                super::super::parts::attach(image, b"no signature")?;
            }
            *image.last_mut().context("an empty image")? = 1;
            Ok(())
        }).reads(),
    ]
}

impl Case {
    /// The same, where the kernel need not look.
    fn reads(self) -> Self {
        Self { kernel: Kernel::Reads, ..self }
    }

    /// A change of the fields that describe the signature is made after signing, which would overwrite them.
    fn unsigned(self) -> Self {
        match self.breaks {
            Break::Digested(change) => Self { breaks: Break::Late(change), ..self },
            _ => self,
        }
    }
}
