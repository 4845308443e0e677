// SPDX-License-Identifier: GPL-2.0
//! Inodes, attributes, names, the tree that they make, and xattrs.

use anyhow::Result;
use tesserafs_format::raw::{RawDirent, RawInode, RawXattrSet};
use tesserafs_format::Rule;

use super::super::parts::Parts;
use super::super::reader::At::{Data, List, Lookup, Xattr};
use super::super::Case;
use super::{canonical, fails, refused, set16, set32, set64, set8, valid};

/// Bits of an entry that say where its name begins.
const BEGIN: u32 = (1 << 29) - 1;

/// Nanoseconds of a stored time.
const NSEC: u64 = (1 << 30) - 1;

#[rustfmt::skip]
pub(super) fn inodes() -> Vec<Case> {
    vec![
        fails("inode-attributes-end", Lookup, Rule::InodeAttributes, |p| { let end = p.attributes.len() as u32; set32(&mut p.inode("fifo")?.attributes, end) }),
        fails("inode-attributes-max", Lookup, Rule::InodeAttributes, |p| set32(&mut p.inode("fifo")?.attributes, u32::MAX)),
        canonical("inode-attributes-of-another", Rule::TreeAttributes, |p| { let other = p.inode("big")?.attributes; p.inode("text")?.attributes = other; Ok(()) }),
        fails("inode-attributes-of-another-type", Lookup, Rule::DirentType, |p| { let other = p.inode("sock")?.attributes; p.inode("fifo")?.attributes = other; Ok(()) }),
        fails("inode-nlink-zero", Lookup, Rule::InodeNlink, |p| set32(&mut p.inode("fifo")?.nlink, 0)),
        canonical("inode-nlink-one-of-two", Rule::TreeNlink, |p| set32(&mut p.inode("small1")?.nlink, 1)),
        canonical("inode-nlink-two-of-one", Rule::TreeNlink, |p| set32(&mut p.inode("big")?.nlink, 2)),
        canonical("inode-nlink-max", Rule::TreeNlink, |p| set32(&mut p.inode("big")?.nlink, u32::MAX)),
        canonical("directory-nlink-one", Rule::TreeNlink, |p| set32(&mut p.inode("a")?.nlink, 1)),
        canonical("directory-nlink-max", Rule::TreeNlink, |p| set32(&mut p.inode("")?.nlink, u32::MAX)),
        fails("inode-time-second", Lookup, Rule::InodeTime, |p| set64(&mut p.inode("fifo")?.mtime, 1_000_000_000)),
        fails("inode-time-max", Lookup, Rule::InodeTime, |p| set64(&mut p.inode("fifo")?.mtime, u64::MAX)),
        valid("inode-time-first", |p| set64(&mut p.inode("fifo")?.mtime, 0)),
        valid("inode-time-last", |p| set64(&mut p.inode("fifo")?.mtime, !NSEC | 999_999_999)),
        refused("root-time-max", Rule::InodeTime, |p| set64(&mut p.inode("")?.mtime, u64::MAX)),
        // Sizes.
        fails("file-size-2^63", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("big")?.size, 1 << 63)),
        fails("file-size-max", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("big")?.size, u64::MAX)),
        fails("file-size-2^63-1", Data, Rule::ExtentRange, |p| set64(&mut p.inode("holes")?.size, i64::MAX as u64)),
        fails("file-size-one-more", Data, Rule::ExtentRange, |p| { let size = p.inode("text")?.size.get(); set64(&mut p.inode("text")?.size, size + 1) }),
        canonical("file-size-one-less", Rule::ContentDigest, |p| { let size = p.inode("text")?.size.get(); set64(&mut p.inode("text")?.size, size - 1) }),
        fails("file-size-of-the-first-extent", Data, Rule::ExtentOrder, |p| { set32(&mut p.inode("holes")?.extra, 1)?; set64(&mut p.inode("holes")?.size, 4096) }),
        fails("file-size-zero-with-content", Lookup, Rule::InodePadding, |p| { set64(&mut p.inode("text")?.size, 0)?; set32(&mut p.inode("text")?.extra, 0) }),
        fails("file-empty-with-size", Lookup, Rule::InodeBlocks, |p| set32(&mut p.inode("empty")?.extra, 1)),
        fails("file-blocks-over", Lookup, Rule::InodeBlocks, |p| set32(&mut p.inode("text")?.extra, 26)),
        fails("file-blocks-max", Lookup, Rule::InodeBlocks, |p| set32(&mut p.inode("text")?.extra, u32::MAX)),
        canonical("file-blocks-fewer", Rule::InodeBlocks, |p| set32(&mut p.inode("text")?.extra, 24)),
        canonical("file-blocks-zero", Rule::InodeBlocks, |p| set32(&mut p.inode("text")?.extra, 0)),
        canonical("file-size-of-one-name-of-a-content", Rule::ContentSize, |p| { let size = p.inode("a/copy")?.size.get(); set64(&mut p.inode("a/copy")?.size, size - 1) }),
        fails("file-content-end", Lookup, Rule::InodeContent, |p| { let end = p.contents.len() as u32; set32(&mut p.inode("text")?.start, end) }),
        fails("file-content-max", Lookup, Rule::InodeContent, |p| set32(&mut p.inode("text")?.start, u32::MAX)),
        fails("file-content-of-a-longer", Data, Rule::ExtentOrder, |p| { let other = p.inode("holes")?.start; p.inode("a/small2")?.start = other; Ok(()) }).for_fsck(Rule::ContentSize),
        fails("symlink-size-zero", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("link")?.size, 0)),
        fails("symlink-size-over", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("link")?.size, 4096)),
        fails("symlink-size-max", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("link")?.size, u64::MAX)),
        fails("symlink-target-one-over", Lookup, Rule::InodeTarget, |p| { let end = p.targets.len() as u32; set32(&mut p.inode("link")?.start, end)?; set64(&mut p.inode("link")?.size, 1) }),
        fails("symlink-target-max", Lookup, Rule::InodeTarget, |p| set32(&mut p.inode("link")?.start, u32::MAX)),
        fails("symlink-target-nul", Lookup, Rule::TargetBytes, |p| set8(&mut p.targets[2], 0)),
        fails("symlink-target-nul-first", Lookup, Rule::TargetBytes, |p| set8(&mut p.targets[0], 0)),
        canonical("symlink-targets-overlap", Rule::TreeTargets, |p| set32(&mut p.inode("a/b/link2")?.start, 1)),
        canonical("symlink-target-unused", Rule::TreeTargets, |p| { p.targets.push(b'x'); Ok(()) }),
        fails("symlink-extra", Lookup, Rule::InodePadding, |p| set32(&mut p.inode("link")?.extra, 1)),
        fails("fifo-size", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("fifo")?.size, 1)),
        fails("fifo-start", Lookup, Rule::InodePadding, |p| set32(&mut p.inode("fifo")?.start, 1)),
        fails("socket-extra", Lookup, Rule::InodePadding, |p| set32(&mut p.inode("sock")?.extra, u32::MAX)),
        fails("whiteout-size", Lookup, Rule::InodeSize, |p| set64(&mut p.inode("wh")?.size, u64::MAX)),
        // Attributes.
        fails("attributes-type-zero", Lookup, Rule::AttributesType, |p| set8(&mut p.attributes("fifo")?.file_type, 0)),
        fails("attributes-type-seven", Lookup, Rule::AttributesType, |p| set8(&mut p.attributes("fifo")?.file_type, 7)),
        fails("attributes-type-max", Lookup, Rule::AttributesType, |p| set8(&mut p.attributes("fifo")?.file_type, 255)),
        fails("attributes-type-of-another", Lookup, Rule::DirentType, |p| set8(&mut p.attributes("fifo")?.file_type, 5)),
        fails("attributes-file-as-directory", Lookup, Rule::InodeEntries, |p| set8(&mut p.attributes("text")?.file_type, 2)),
        fails("attributes-directory-as-file", Lookup, Rule::InodeContent, |p| set8(&mut p.attributes("a")?.file_type, 1)),
        fails("attributes-padding", Lookup, Rule::AttributesPadding, |p| set8(&mut p.attributes("fifo")?.reserved, 1)),
        fails("attributes-mode-over", Lookup, Rule::AttributesMode, |p| set16(&mut p.attributes("fifo")?.mode, 0o10000)),
        fails("attributes-mode-max", Lookup, Rule::AttributesMode, |p| set16(&mut p.attributes("fifo")?.mode, u16::MAX)),
        fails("attributes-mode-of-a-symlink", Lookup, Rule::AttributesMode, |p| set16(&mut p.attributes("link")?.mode, 0o755)),
        valid("attributes-mode-all", |p| set16(&mut p.attributes("fifo")?.mode, 0o7777)),
        valid("attributes-mode-of-the-root-none", |p| set16(&mut p.attributes("")?.mode, 0)),
        fails("attributes-uid-nobody", Lookup, Rule::AttributesOwner, |p| set32(&mut p.attributes("fifo")?.uid, u32::MAX)),
        fails("attributes-gid-nobody", Lookup, Rule::AttributesOwner, |p| set32(&mut p.attributes("fifo")?.gid, u32::MAX)),
        valid("attributes-uid-last", |p| set32(&mut p.attributes("fifo")?.uid, u32::MAX - 1)),
        fails("attributes-xattrs-over", Lookup, Rule::AttributesXattrs, |p| { let end = p.xattr_sets.len() as u32; set32(&mut p.attributes("fifo")?.xattrs, end + 1) }),
        fails("attributes-xattrs-max", Lookup, Rule::AttributesXattrs, |p| set32(&mut p.attributes("fifo")?.xattrs, u32::MAX)),
        canonical("attributes-twice", Rule::TreeAttributes, |p| { let other = *p.attributes("fifo")?; *p.attributes("sock")? = other; retype(p, "sock", 4) }),
        canonical("attributes-unused", Rule::TreeAttributes, |p| { let mut other = *p.attributes("fifo")?; other.uid = 77.into(); p.attributes.push(other); Ok(()) }),
        // The root.
        refused("root-is-a-fifo", Rule::RootType, |p| { *p.inode("")? = RawInode { attributes: 0.into(), nlink: 1.into(), ..RawInode::default() }; set8(&mut p.attributes("")?.file_type, 4) }),
        refused("root-parent-other", Rule::RootType, |p| set32(&mut p.inode("")?.extra, 2)),
        refused("root-parent-zero", Rule::InodeParent, |p| set32(&mut p.inode("")?.extra, 0)),
        refused("root-parent-max", Rule::InodeParent, |p| set32(&mut p.inode("")?.extra, u32::MAX)),
        refused("root-nlink-zero", Rule::InodeNlink, |p| set32(&mut p.inode("")?.nlink, 0)),
        refused("root-entries-over", Rule::InodeEntries, |p| { let end = p.dirents.len() as u64; set64(&mut p.inode("")?.size, end) }),
        refused("root-entries-max", Rule::InodeEntries, |p| set64(&mut p.inode("")?.size, u32::MAX.into())),
        refused("root-names-max", Rule::InodeNames, |p| { let size = p.inode("")?.size.get(); set64(&mut p.inode("")?.size, size | 0xffff_ffff << 32) }),
        refused("root-attributes-over", Rule::InodeAttributes, |p| set32(&mut p.inode("")?.attributes, u32::MAX)),
        // Inodes that nobody names, and numbers that two records claim.
        canonical("inode-without-a-name", Rule::TreeUnreachable, |p| { let fifo = *p.inode("fifo")?; p.inodes.push(fifo); Ok(()) }),
        canonical("inode-twice", Rule::TreeContents, |p| { let big = *p.inode("big")?; *p.inode("text")? = RawInode { attributes: p.inode("text")?.attributes, ..big }; Ok(()) }),
    ]
}

/// Gives the entry of a path another type.
fn retype(p: &mut Parts, path: &str, file_type: u32) -> Result<()> {
    let name = p.dirent(path)?.name.get() & BEGIN;
    set32(&mut p.dirent(path)?.name, name | file_type << 29)
}

/// Makes an entry point to the inode of another path, with the type of that.
fn alias(p: &mut Parts, entry: &str, other: &str) -> Result<()> {
    let (ino, file_type) = match other {
        "" => (1, 2),
        _ => (p.ino(other)?, p.dirent(other)?.name.get() >> 29),
    };
    retype(p, entry, file_type)?;
    set32(&mut p.dirent(entry)?.ino, ino)
}

/// Moves where the name of an entry begins.
fn begin(p: &mut Parts, path: &str, change: fn(u32) -> u32) -> Result<()> {
    let name = p.dirent(path)?.name.get();
    set32(&mut p.dirent(path)?.name, name & !BEGIN | change(name & BEGIN) & BEGIN)
}

fn rename(p: &mut Parts, path: &str, name: &[u8]) -> Result<()> {
    let bytes = p.name_bytes(path)?;
    anyhow::ensure!(bytes.len() == name.len(), "another length");
    bytes.copy_from_slice(name);
    Ok(())
}

#[rustfmt::skip]
pub(super) fn entries() -> Vec<Case> {
    vec![
        // Tables.
        fails("directory-first-max", Lookup, Rule::InodeEntries, |p| set32(&mut p.inode("c")?.start, u32::MAX)),
        fails("directory-fence-over", Lookup, Rule::InodeEntries, |p| { let first = p.inode("c")?.start.get(); let len = p.dirents.len() as u64 - u64::from(first); let size = p.inode("c")?.size.get() >> 32 << 32; set64(&mut p.inode("c")?.size, size | len) }),
        fails("directory-entries-max", Lookup, Rule::InodeEntries, |p| set64(&mut p.inode("c")?.size, u32::MAX.into())),
        fails("directory-names-over", Lookup, Rule::InodeNames, |p| { let size = p.inode("c")?.size.get() as u32; let units = p.names.len() as u64 / 16 + 1; set64(&mut p.inode("c")?.size, u64::from(size) | units << 32) }),
        fails("directory-names-end", List, Rule::DirentNameRange, |p| { let size = p.inode("c")?.size.get() as u32; let units = p.names.len() as u64 / 16; set64(&mut p.inode("c")?.size, u64::from(size) | units << 32) }),
        fails("directory-parent-zero", Lookup, Rule::InodeParent, |p| set32(&mut p.inode("c")?.extra, 0)),
        fails("directory-parent-over", Lookup, Rule::InodeParent, |p| { let end = p.inodes.len() as u32; set32(&mut p.inode("c")?.extra, end + 1) }),
        canonical("directory-without-its-entries", Rule::TreeEntries, |p| { let size = p.inode("c")?.size.get() >> 32 << 32; set64(&mut p.inode("c")?.size, size) }),
        fails("directory-one-entry-more", List, Rule::DirentInode, |p| { let size = p.inode("a")?.size.get(); set64(&mut p.inode("a")?.size, size + 1) }),
        canonical("directory-one-entry-fewer", Rule::TreeEntries, |p| { let size = p.inode("a")?.size.get(); set64(&mut p.inode("a")?.size, size - 1) }),
        fails("directory-entries-of-another", Lookup, Rule::TreeParent, |p| { let (first, size) = (p.inode("a")?.start, p.inode("a")?.size); let c = p.inode("c")?; (c.start, c.size) = (first, size); Ok(()) }).for_fsck(Rule::TreeEntries),
        canonical("entry-without-a-directory", Rule::TreeEntries, |p| { let last = *p.dirents.last().expect("entries"); p.dirents.push(RawDirent { ino: 2.into(), ..last }); Ok(()) }),
        // Names.
        fails("name-empty", List, Rule::DirentNameLength, |p| begin(p, "big", |at| at - 1)),
        fails("name-ends-before-it-begins", List, Rule::DirentNameLength, |p| begin(p, "c", |_| 0)),
        fails("name-256", List, Rule::DirentNameLength, |p| { let names = p.fence("")?.name.get(); set32(&mut p.fence("")?.name, names + 256) }),
        fails("name-begins-at-max", List, Rule::DirentNameLength, |p| begin(p, "fifo", |_| BEGIN)),
        fails("name-behind-the-table", List, Rule::DirentNameRange, |p| { let end = p.names.len() as u32; let names = (p.inode("a/b")?.size.get() >> 32) as u32 * 16; set32(&mut p.fence("a/b")?.name, end - names + 1) }),
        canonical("name-one-byte-shorter", Rule::TreeNames, |p| { let names = p.fence("a/b")?.name.get(); set32(&mut p.fence("a/b")?.name, names - 1) }),
        canonical("name-begins-late", Rule::TreeNames, |p| begin(p, "a/b/link2", |_| 1)),
        canonical("names-behind-the-fence", Rule::TreeNames, |p| { let end = p.names.len(); set8(&mut p.names[end - 1], 1) }),
        canonical("names-unused", Rule::TreeNames, |p| { p.names.extend([0; 16]); Ok(()) }),
        canonical("names-shared-by-directories", Rule::TreeNames, |p| {
            let (a, c) = (p.inode("a")?.size.get() >> 32, p.inode("c")?.size.get() as u32);
            set64(&mut p.inode("c")?.size, u64::from(c) | a << 32)
        }),
        fails("name-slash", List, Rule::DirentNameBytes, |p| rename(p, "code", b"co/e")),
        fails("name-slash-alone", List, Rule::DirentNameBytes, |p| rename(p, "c", b"/")),
        fails("name-nul", List, Rule::DirentNameBytes, |p| rename(p, "code", b"cod\0")),
        fails("name-nul-alone", List, Rule::DirentNameBytes, |p| rename(p, "a", b"\0")),
        fails("name-dot", List, Rule::DirentNameBytes, |p| rename(p, "a", b".")),
        fails("name-dotdot", List, Rule::DirentNameBytes, |p| rename(p, "wh", b"..")),
        fails("name-dotdot-of-a-directory", List, Rule::DirentNameBytes, |p| {
            // `b` takes the first byte of the next name.
            begin(p, "a/copy", |at| at + 1)?;
            rename(p, "a/bc", b"..")
        }),
        valid("name-dots", |p| rename(p, "link", b"j...")),
        valid("name-not-unicode", |p| rename(p, "wh", b"\xff\xfe")),
        canonical("names-unsorted", Rule::DirentOrder, |p| rename(p, "wh", b"aa")),
        canonical("name-of-another", Rule::DirentOrder, |p| rename(p, "fifo", b"link")),
        canonical("name-twice", Rule::DirentOrder, |p| rename(p, "sock", b"text")),
        canonical("name-twice-one-letter", Rule::DirentOrder, |p| rename(p, "c", b"a")),
        // The inodes that they point to.
        fails("entry-inode-zero", List, Rule::DirentInode, |p| set32(&mut p.dirent("fifo")?.ino, 0)),
        fails("entry-inode-over", List, Rule::DirentInode, |p| { let end = p.inodes.len() as u32; set32(&mut p.dirent("fifo")?.ino, end + 1) }),
        fails("entry-inode-max", List, Rule::DirentInode, |p| set32(&mut p.dirent("fifo")?.ino, u32::MAX)),
        fails("entry-type-zero", List, Rule::DirentType, |p| retype(p, "fifo", 0)),
        fails("entry-type-seven", List, Rule::DirentType, |p| retype(p, "fifo", 7)),
        fails("entry-type-of-another", Lookup, Rule::DirentType, |p| retype(p, "fifo", 5)),
        fails("entry-type-directory", Lookup, Rule::DirentType, |p| retype(p, "fifo", 2)),
        fails("entry-type-of-a-directory", Lookup, Rule::DirentType, |p| retype(p, "a", 1)),
        canonical("fence-inode", Rule::DirentFence, |p| set32(&mut p.fence("")?.ino, 1)),
        canonical("fence-type", Rule::DirentFence, |p| { let fence = p.fence("a")?; let name = fence.name.get(); set32(&mut fence.name, name | 1 << 29) }),
        fails("fence-missing", List, Rule::DirentNameLength, |p| { let index = p.entry("a/b")?; p.dirents[index - 1] = p.dirents[index]; Ok(()) }),
        fails("fence-zero", List, Rule::DirentNameLength, |p| set32(&mut p.fence("")?.name, 0)),
        canonical("hard-link-more", Rule::TreeNlink, |p| alias(p, "code", "big")),
        canonical("hard-link-of-fewer", Rule::TreeNlink, |p| alias(p, "a/hard", "big")),
        canonical("inodes-out-of-order", Rule::TreeOrder, |p| {
            let (fifo, sock) = (p.index("fifo")?, p.index("sock")?);
            let (first, second) = (p.dirent("fifo")?.ino, p.dirent("sock")?.ino);
            p.inodes.swap(fifo, sock);
            p.dirent("fifo")?.ino = second;
            p.dirent("sock")?.ino = first;
            Ok(())
        }),
    ]
}

#[rustfmt::skip]
pub(super) fn cycles() -> Vec<Case> {
    let cycle = |name, rule, change| fails(name, Lookup, rule, change).for_fsck(Rule::TreeOrder);
    vec![
        cycle("directory-contains-itself", Rule::TreeParent, |p| alias(p, "a/b", "a")),
        cycle("directory-contains-itself-as-parent", Rule::TreeParent, |p| { alias(p, "a/b", "a")?; let ino = p.ino("a")?; set32(&mut p.inode("a")?.extra, ino) }),
        cycle("directory-contains-the-root", Rule::TreeParent, |p| alias(p, "a/b", "")),
        cycle("root-contains-itself", Rule::TreeParent, |p| alias(p, "a", "")),
        cycle("directory-contains-its-parent", Rule::TreeParent, |p| alias(p, "a/b/link2", "a")),
        cycle("directory-contains-its-parent-which-agrees", Rule::TreeParent, |p| { let ino = p.ino("a/b")?; alias(p, "a/b/link2", "a")?; set32(&mut p.inode("a")?.extra, ino) }),
        fails("directory-parent-is-itself", Lookup, Rule::TreeParent, |p| { let ino = p.ino("a/b")?; set32(&mut p.inode("a/b")?.extra, ino) }),
        fails("directory-parent-is-the-root", Lookup, Rule::TreeParent, |p| set32(&mut p.inode("a/b")?.extra, 1)),
        fails("directory-parent-is-a-file", Lookup, Rule::TreeParent, |p| { let ino = p.ino("big")?; set32(&mut p.inode("a/b")?.extra, ino) }),
        fails("directory-of-two-parents", Lookup, Rule::TreeParent, |p| alias(p, "c/one", "a")).for_fsck(Rule::TreeUnreachable),
        // The VFS moves its dentry from one name to the other.
        canonical("directory-of-two-names-in-one-parent", Rule::TreeUnreachable, |p| alias(p, "big", "a")),
        canonical("directory-of-three-names-in-one-parent", Rule::TreeUnreachable, |p| { alias(p, "big", "a")?; alias(p, "wh", "a") }),
    ]
}

/// The first set gets these bytes.
fn set(p: &mut Parts, change: fn(&mut RawXattrSet)) -> Result<()> {
    let set = p.set("a")?;
    change(&mut p.xattr_sets[set]);
    Ok(())
}

/// Replaces all xattrs of `/big`, which has the last set but one, at the end of the table.
fn xattrs(p: &mut Parts, all: &[(&[u8], &[u8])]) -> Result<()> {
    let set = p.set("big")?;
    let start = p.xattr_entries.len();
    for (name, value) in all {
        p.xattr_entries.extend(u32::try_from(value.len())?.to_le_bytes());
        p.xattr_entries.extend([u8::try_from(name.len())?, 0, 0, 0]);
        p.xattr_entries.extend(*name);
        p.xattr_entries.extend(*value);
        let len = p.xattr_entries.len().next_multiple_of(8);
        p.xattr_entries.resize(len, 0);
    }
    p.xattr_sets[set] = RawXattrSet {
        offset: (start as u64).into(),
        bytes: u32::try_from(p.xattr_entries.len() - start)?.into(),
        count: u32::try_from(all.len())?.into(),
    };
    Ok(())
}

#[rustfmt::skip]
pub(super) fn xattr_sets() -> Vec<Case> {
    vec![
        fails("xattr-set-offset-odd", Xattr, Rule::XattrSetRange, |p| set(p, |set| set.offset = (set.offset.get() + 4).into())),
        fails("xattr-set-offset-end", Xattr, Rule::XattrSetRange, |p| { let end = p.xattr_entries.len() as u64; let set = p.set("a")?; set64(&mut p.xattr_sets[set].offset, end) }),
        fails("xattr-set-offset-max", Xattr, Rule::XattrSetRange, |p| set(p, |set| set.offset = (u64::MAX - 7).into())),
        fails("xattr-set-bytes-over", Xattr, Rule::XattrSetRange, |p| { let over = p.xattr_entries.len() as u32 + 8; let set = p.set("a")?; set32(&mut p.xattr_sets[set].bytes, over) }),
        fails("xattr-set-bytes-max", Xattr, Rule::XattrSetRange, |p| set(p, |set| set.bytes = u32::MAX.into())),
        fails("xattr-set-bytes-zero", Xattr, Rule::XattrSetCount, |p| set(p, |set| set.bytes = 0.into())),
        fails("xattr-set-bytes-of-the-first", Xattr, Rule::XattrEntryRange, |p| set(p, |set| set.bytes = (set.bytes.get() - 16).into())),
        fails("xattr-set-count-zero", Xattr, Rule::XattrSetCount, |p| set(p, |set| set.count = 0.into())),
        fails("xattr-set-count-one-less", Xattr, Rule::XattrSetCount, |p| set(p, |set| set.count = 1.into())),
        fails("xattr-set-count-one-more", Xattr, Rule::XattrEntryRange, |p| set(p, |set| set.count = 3.into())),
        fails("xattr-set-count-max", Xattr, Rule::XattrSetCount, |p| set(p, |set| set.count = u32::MAX.into())),
    ]
}

#[rustfmt::skip]
pub(super) fn xattr_entries() -> Vec<Case> {
    vec![
        canonical("xattr-sets-overlap", Rule::TreeXattrs, |p| { let (first, second) = (p.set("a")?, p.set("big")?); p.xattr_sets[second] = p.xattr_sets[first]; Ok(()) }),
        canonical("xattr-set-of-another", Rule::TreeXattrs, |p| { let set = p.attributes("a")?.xattrs; p.attributes("text")?.xattrs = set; Ok(()) }),
        canonical("xattr-set-unused", Rule::TreeXattrs, |p| { let set = p.xattr_sets[0]; p.xattr_sets.push(set); Ok(()) }),
        canonical("xattr-entries-unused", Rule::TreeXattrs, |p| { p.xattr_entries.extend([0; 8]); Ok(()) }),
        fails("xattr-value-over-the-set", Xattr, Rule::XattrEntryRange, |p| set8(p.xattr_byte("a", 0)?, 200)),
        fails("xattr-value-65537", Xattr, Rule::XattrValueLength, |p| { set8(p.xattr_byte("a", 0)?, 1)?; set8(p.xattr_byte("a", 2)?, 1) }),
        fails("xattr-value-max", Xattr, Rule::XattrValueLength, |p| (0..4).try_for_each(|at| set8(p.xattr_byte("a", at)?, 255))),
        fails("xattr-name-empty", Xattr, Rule::XattrName, |p| set8(p.xattr_byte("a", 4)?, 0)),
        fails("xattr-name-prefix-only", Xattr, Rule::XattrName, |p| set8(p.xattr_byte("a", 4)?, 5)),
        fails("xattr-name-without-prefix", Xattr, Rule::XattrName, |p| set8(p.xattr_byte("a", 8)?, b'U')),
        fails("xattr-name-nul", Xattr, Rule::XattrName, |p| set8(p.xattr_byte("a", 13)?, 0)),
        fails("xattr-name-255-over-the-set", Xattr, Rule::XattrEntryRange, |p| set8(p.xattr_byte("a", 4)?, 255)),
        fails("xattr-padding-header", Xattr, Rule::XattrPadding, |p| set8(p.xattr_byte("a", 7)?, 1)),
        canonical("xattr-padding-value", Rule::XattrPadding, |p| { let set = p.set("a")?; let end = p.xattr_sets[set].bytes.get() as usize; set8(p.xattr_byte("a", end - 1)?, 1) }),
        canonical("xattr-names-unsorted", Rule::XattrOrder, |p| set8(p.xattr_byte("a", 13)?, b'z')),
        canonical("xattr-name-twice", Rule::XattrOrder, |p| xattrs(p, &[(b"user.a", b"1"), (b"user.a", b"2")])),
        canonical("xattr-list-too-long", Rule::XattrListLength, |p| {
            let names: Vec<Vec<u8>> = (0..400).map(|n| format!("user.{n:0200}").into_bytes()).collect();
            let all: Vec<(&[u8], &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
            xattrs(p, &all)
        }),
        fails("xattr-name-of-the-system", Xattr, Rule::XattrName, |p| xattrs(p, &[(b"system.nfs4_acl", b"1")])),
        fails("xattr-name-of-no-namespace", Xattr, Rule::XattrName, |p| xattrs(p, &[(b"users.a", b"1")])),
        canonical("xattr-acl-of-nonsense", Rule::XattrSettable, |p| xattrs(p, &[(b"system.posix_acl_access", b"nonsense")])),
        canonical("xattr-capability-of-nonsense", Rule::XattrSettable, |p| xattrs(p, &[(b"security.capability", b"nonsense")])),
    ]
}
