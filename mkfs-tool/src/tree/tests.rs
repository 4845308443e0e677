// SPDX-License-Identifier: GPL-2.0-or-later

use tesserafs_format::limits::{MTIME_MAX, MTIME_MIN};

use super::*;
use crate::source::Filter;

fn with_xattrs(xattrs: &[(&str, &str)]) -> Attributes {
    let xattrs = xattrs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    Attributes { xattrs: xattrs.collect(), ..Attributes::default() }
}

#[test]
fn xattr_sets_are_sorted_and_shared() {
    let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
    builder.open_directory(1).unwrap();
    let kind = Kind::Regular { size: 0 };
    builder.add(b"a", &kind, with_xattrs(&[("user.b", "2"), ("user.a", "1")])).unwrap();
    builder.add(b"b", &kind, with_xattrs(&[("user.c", "3")])).unwrap();
    builder.add(b"c", &kind, with_xattrs(&[("user.a", "1"), ("user.b", "2")])).unwrap();
    let tree = builder.finish().unwrap();
    let xattrs = |node: &Node| tree.attributes[node.attributes as usize].xattrs.get();
    assert_eq!(tree.nodes.iter().map(xattrs).collect::<Vec<_>>(), [0, 1, 2, 1]);
    assert_eq!(tree.nodes.iter().map(|node| node.attributes).collect::<Vec<_>>(), [0, 1, 2, 1]);
    assert_eq!(tree.xattr_sets.len(), 2);
    // Header, name and value, padded to 8: user.a first.
    assert_eq!(&tree.xattr_entries[..32], b"\x01\0\0\0\x06\0\0\0user.a1\0\x01\0\0\0\x06\0\0\0user.b2\0");
}

#[test]
fn what_an_image_cannot_hold_is_refused() {
    let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
    let mut add = |name: &[u8], kind: Kind, attributes| builder.add(name, &kind, attributes).err();
    let plain = Attributes::default;
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0b", &[b'x'; 256]] {
        assert_eq!(add(name, Kind::Fifo, plain()), Some(TreeError::Name));
    }
    assert_eq!(add(&[b'x'; 255], Kind::Fifo, plain()), None);
    assert_eq!(add(b"s", Kind::Symlink(vec![b'x'; 4096]), plain()), Some(TreeError::Target));
    assert_eq!(add(b"s", Kind::Symlink(vec![b'x'; 4095]), plain()), None);
    assert_eq!(add(b"f", Kind::Regular { size: 1 << 63 }, plain()), Some(TreeError::Size));
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
        let attributes = Attributes { uid, gid, ..plain() };
        assert_eq!(add(b"f", Kind::Fifo, attributes), Some(TreeError::Owner));
    }
    assert_eq!(add(b"f", Kind::Regular { size: (1 << 63) - 1 }, plain()), None);
    for (sec, nsec) in [(MTIME_MIN - 1, 0), (MTIME_MAX + 1, 0), (0, 1_000_000_000)] {
        let mtime = Timestamp { sec, nsec };
        let attributes = Attributes { mtime, ..plain() };
        assert_eq!(add(b"t", Kind::Fifo, attributes), Some(TreeError::Time(mtime)));
    }
    for (sec, nsec) in [(MTIME_MIN, 0), (MTIME_MAX, 999_999_999)] {
        let attributes = Attributes { mtime: Timestamp { sec, nsec }, ..plain() };
        assert_eq!(add(b"t", Kind::Fifo, attributes), None);
    }
    for bad in [&[("system.foo", "")][..], &[("user.", "")], &[("user.a", "1"), ("user.a", "1")]] {
        assert!(matches!(add(b"x", Kind::Directory, with_xattrs(bad)), Some(TreeError::Xattr(_))));
    }
}

#[test]
fn xattrs_that_nobody_could_set_are_left_out_and_told() {
    let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
    builder.open_directory(1).unwrap();
    let dir = builder.add(b"dir", &Kind::Directory, with_xattrs(&[("user.a", "1")])).unwrap();
    builder.open_directory(dir).unwrap();
    let xattrs = with_xattrs(&[("user.a", "1"), ("trusted.b", "2")]);
    builder.add(b"link", &Kind::Symlink(b"x".to_vec()), xattrs).unwrap();
    let tree = builder.finish().unwrap();
    assert_eq!(tree.xattr_sets.len(), 2);
    let [refused] = &tree.refused_xattrs[..] else { panic!("{:?}", tree.refused_xattrs) };
    assert_eq!(
        (tree.path(refused.dir), &*refused.file, &*refused.xattr),
        (b"dir".to_vec(), &b"link"[..], &b"user.a"[..])
    );
}

#[test]
fn a_copy_has_what_its_original_has() {
    let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
    builder.configure(&Filter { hard_dereference: true, ..Filter::default() }).unwrap();
    builder.open_directory(1).unwrap();
    let link = builder.add(b"a", &Kind::Symlink(b"there".to_vec()), Attributes::default()).unwrap();
    let file = builder.add(b"b", &Kind::Regular { size: 7 }, Attributes::default()).unwrap();
    builder.add_link(b"c", link).unwrap();
    builder.add_link(b"d", file).unwrap();
    let tree = builder.finish().unwrap();
    assert_eq!(tree.targets, b"therethere");
    assert_eq!(tree.copies, [(5, 3)]);
    let facts: Vec<_> = tree.nodes[1..].iter().map(|node| (node.nlink, node.size, node.start)).collect();
    assert_eq!(facts, [(1, 5, 0), (1, 7, 0), (1, 5, 5), (1, 7, 0)]);
}

#[test]
fn links_and_directories_are_counted() {
    let mut builder = TreeBuilder::new(Attributes::default()).unwrap();
    builder.open_directory(1).unwrap();
    let dir = builder.add(b"d", &Kind::Directory, Attributes::default()).unwrap();
    let file = builder.add(b"f", &Kind::Fifo, Attributes::default()).unwrap();
    builder.open_directory(dir).unwrap();
    builder.add_link(b"g", file).unwrap();
    let tree = builder.finish().unwrap();
    let facts: Vec<_> =
        tree.nodes.iter().map(|node| (node.nlink, node.size, node.start, node.parent)).collect();
    // The names of the second directory begin at 16, behind those of the first and zeros.
    assert_eq!(facts, [(3, 2, 0, 1), (2, 1 | 1 << 32, 3, 1), (2, 0, 0, 0)]);
    assert_eq!(tree.names, b"df\0\0\0\0\0\0\0\0\0\0\0\0\0\0g\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let entries: Vec<_> = tree.entries.iter().map(|entry| (entry.ino.get(), entry.name.get())).collect();
    assert_eq!(entries, [(2, 2 << 29), (3, 4 << 29 | 1), (0, 2), (3, 4 << 29), (0, 1)]);
}
