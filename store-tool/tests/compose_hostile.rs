// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs compose` of images that no builder makes, all with right digests: a refusal that names image, rule and place, or an image;
//! within a bound of memory, and nothing is left of what was refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use fsck_tesserafs::{check, Options};
use mkfs_tesserafs::compose::{compose, Composition, LayerPath};
use tempfile::TempDir;
use tesserafs_format::raw::{RawPack, RawXattrSet};
use tesserafs_format::{Digest, Image, Rule};
use tesserafs_image::{superblock, Cancel, Silent, Source, VerifiedMetadata};

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use common::{inode, pattern, sha256, Draft, DraftInode, Piece};
use support::TESSERAFS;

/// KiB of address space that the program gets here. Each of these images has 64 MiB at most, and those that are refused for it would take
/// gigabytes if they were believed.
const MEMORY: u64 = 640 << 10;

/// Seconds of CPU time that it gets.
const TIME: u64 = 20;

const FILE: u8 = 1;
const DIRECTORY: u8 = 2;
const SYMLINK: u8 = 3;
const FIFO: u8 = 4;

/// A folder with images.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self, name: &str, draft: &Draft) {
        fs::write(self.at(name), draft.image()).expect("written");
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.0.path()).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    }

    fn run(&self, images: &[&str]) -> Output {
        Command::new("sh")
            .args([
                "-c",
                &format!("ulimit -v {MEMORY}; ulimit -t {TIME}; exec \"$0\" compose --force new.tess \"$@\""),
            ])
            .arg(TESSERAFS)
            .args(images)
            .current_dir(self.0.path())
            .output()
            .expect("a program")
    }

    /// Proves that images are refused with one line that begins so, and that there is no file more than before.
    fn refused(&self, images: &[&str], expected: &str) {
        let _ = fs::remove_file(self.at("new.tess"));
        let before = self.names();
        let output = self.run(images);
        let said = support::error(&output);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{images:?}, expected {expected}: {:?} {said}",
            output.status
        );
        assert!(said.starts_with(&format!("tesserafs: {expected}")), "found {said}, expected {expected}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
        assert_eq!(self.names(), before, "{images:?}");
    }

    /// Composes images, which are not refused; the findings of a check of the result.
    fn composed(&self, images: &[&str]) -> BTreeSet<Rule> {
        let output = self.run(images);
        assert!(output.status.success(), "{images:?}: {:?} {}", output.status, support::error(&output));
        self.findings("new.tess")
    }

    fn findings(&self, image: &str) -> BTreeSet<Rule> {
        let source = Source::open(&self.at(image)).expect("opened");
        let options = Options { pack_dir: Some(self.at("")), threads: 1, ..Options::default() };
        let report = check(&source, &options, &Silent, &Cancel::default());
        assert!(report.error.is_none(), "{image}: {report:?}");
        report.findings.iter().map(|finding| finding.rule).collect()
    }
}

/// Moves pack 0 to a pack beside the image; its bytes.
fn share(draft: &mut Draft) -> Vec<u8> {
    let pack = std::mem::take(&mut draft.pack);
    draft.seal();
    draft.packs.push(beside(&pack));
    for chunk in &mut draft.chunks {
        chunk.place = (chunk.place.get() | 1 << 48).into();
    }
    pack
}

fn beside(pack: &[u8]) -> RawPack {
    let (digest, bytes) = (sha256(pack), (pack.len() as u64).into());
    RawPack { digest, bytes, kind: 1.into(), ..RawPack::default() }
}

/// An image of a root directory with files of these types, by name.
fn tree(names: &[(&[u8], u32, u8)]) -> Draft {
    let mut draft = Draft::empty();
    let directories = names.iter().filter(|(_, _, kind)| *kind == DIRECTORY).count();
    draft.directory(1, names.len() as u64, 2 + directories as u32, 0);
    for (name, ino, kind) in names {
        draft.dirent(name, *ino, *kind);
    }
    draft.seal();
    draft
}

/// Adds a directory; [`Draft::directory`] adds up all before it.
fn directory(draft: &mut Draft, parent: u32, entries: usize, start: usize) {
    draft.directories.push((draft.inodes.len(), entries));
    draft.inode(DraftInode {
        file_type: DIRECTORY,
        size: (entries as u64).into(),
        start: (start as u32).into(),
        parent: parent.into(),
        mode: 0o755.into(),
        ..inode(2)
    });
}

/// An image with one file of one chunk, in a pack that is there.
fn one_file(folder: &Folder, name: &str, bytes: &[u8], change: impl FnOnce(&mut Draft)) {
    let mut draft = tree(&[(name.as_bytes(), 2, FILE)]);
    let content = draft.content(&[Piece::Data(bytes)], bytes);
    draft.regular(content, bytes.len() as u64, 1, 0);
    let pack = share(&mut draft);
    fs::write(folder.at(&Digest(sha256(&pack)).to_string()), &pack).expect("written");
    change(&mut draft);
    folder.image(&format!("{name}.tess"), &draft);
}

#[test]
fn directories_that_are_no_tree_are_refused() {
    let folder = Folder::new();
    // The root in the root.
    folder.image("a.tess", &tree(&[(b"root", 1, DIRECTORY)]));
    folder.refused(&["a.tess"], "a.tess: tree-nlink @ ino 1: found 2, expected 1");
    // The root, and a directory itself, in a directory.
    for below in [1, 2] {
        let mut draft = tree(&[(b"a", 2, DIRECTORY)]);
        draft.directory(1, 1, 3, 0);
        draft.dirent(b"up", below, DIRECTORY);
        folder.image("a.tess", &draft);
        folder.refused(&["a.tess"], &format!("a.tess: inode-parent @ ino {below}: found 1, expected 2"));
    }
    // One directory by two names, of which one is hidden or not.
    let mut draft = tree(&[(b"a", 2, DIRECTORY), (b"b", 2, DIRECTORY)]);
    draft.directory(1, 0, 2, 0);
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: tree-nlink @ ino 2");
    // Below a directory of another image, too.
    folder.image("lower.tess", &{
        let mut draft = tree(&[(b"b", 2, DIRECTORY)]);
        draft.directory(1, 0, 2, 0);
        draft
    });
    folder.refused(&["a.tess", "lower.tess"], "a.tess: tree-nlink @ ino 2");
    folder.refused(&["lower.tess", "--at", "b/c", "a.tess"], "a.tess: tree-nlink @ ino 2");
    // Two directories that name each other, which nobody else names, are not met.
    let mut draft = tree(&[]);
    for (parent, start) in [(3, 1), (2, 3)] {
        directory(&mut draft, parent, 1, start);
        draft.dirent(b"x", parent, DIRECTORY);
    }
    folder.image("a.tess", &draft);
    assert_eq!(folder.composed(&["a.tess"]), BTreeSet::new());
}

#[test]
fn names_that_do_not_ascend_are_refused() {
    let folder = Folder::new();
    for (names, place) in [([b"a", b"a"], 1), ([b"b", b"a"], 1)] {
        let mut draft = tree(&names.map(|name| (&name[..], 2, FIFO)));
        draft.inode(DraftInode { file_type: FIFO, ..inode(2) });
        folder.image("a.tess", &draft);
        folder.refused(&["a.tess"], &format!("a.tess: dirent-order @ dirent {place}"));
    }
    for (name, rule) in
        [(&b".."[..], "dirent-name-bytes"), (b"a/b", "dirent-name-bytes"), (b"", "dirent-name-length")]
    {
        let mut draft = tree(&[(name, 2, FIFO)]);
        draft.inode(DraftInode { file_type: FIFO, ..inode(1) });
        folder.image("a.tess", &draft);
        folder.refused(&["a.tess"], &format!("a.tess: {rule} @ dirent 0"));
    }
}

#[test]
fn indices_out_of_range_are_refused() {
    let folder = Folder::new();
    let bytes = pattern(5000, 1);
    let case = |expected: &str, change: &dyn Fn(&mut Draft)| {
        one_file(&folder, "a", &bytes, change);
        folder.refused(&["a.tess"], &format!("a.tess: {expected}"));
    };
    case("inode-content @ ino 2: found 1, expected 1", &|draft| draft.inodes[1].start = 1.into());
    case("chunk-index @ extent 0: found 7, expected 1", &|draft| draft.extents[0].chunk = 7.into());
    case("extent-range @ extent 0: found 5001, expected 5000", &|draft| {
        draft.extents[0].chunk_offset = 1.into();
    });
    case("pack-index @ chunk 0: found 9, expected 2", &|draft| draft.chunks[0].place = (9 << 48).into());
    case("chunk-range @ chunk 0: found 5001, expected 5000", &|draft| {
        draft.chunks[0].place = (1 << 48 | 1).into();
    });
    // Pack 0 has no bytes.
    case("chunk-range @ chunk 0: found 5000, expected 0", &|draft| draft.chunks[0].place = 0.into());
    case("attributes-xattrs @", &|draft| draft.inodes[1].xattrs = 1.into());
    case("inode-entries @ ino 1", &|draft| draft.inodes[0].start = 1.into());
    case("dirent-inode @ dirent 0: found 3, expected 2", &|draft| draft.dirents[0].ino = 3.into());
    // Files that say different sizes of one content; a content that no file has.
    case("content-size @ ino 3", &|draft| draft.regular(0, 4999, 1, 0));
    case("tree-contents @ content 1", &|draft| {
        draft.content_of_digest(&[Piece::Hole(1)], [7; 32]);
    });
    case("map-chunks @ chunk 1", &|draft| {
        draft.chunks.push(draft.chunks[0]);
        draft.chunk_digests.push([1; 32]);
        draft.raw_digests.push([1; 32]);
    });
}

#[test]
fn deep_trees_take_no_more_memory_than_their_names() {
    let folder = Folder::new();
    let chain = |levels: usize, name: &[u8], last: usize| {
        let mut draft = Draft::empty();
        for level in 0..levels {
            directory(&mut draft, (level as u32).max(1), 1, 2 * level);
            draft.dirent(name, level as u32 + 2, DIRECTORY);
            draft.inodes[level].nlink = 3.into();
        }
        directory(&mut draft, levels as u32, last, 2 * levels);
        draft.inodes[levels].nlink = (2 + last as u32).into();
        for number in 0..last {
            directory(&mut draft, levels as u32 + 1, 0, 2 * levels + last + 1 + number);
            draft.dirent(format!("{number:06}").as_bytes(), (levels + 2 + number) as u32, DIRECTORY);
        }
        draft.seal();
        draft
    };
    // Twice, so that both are walked at once.
    folder.image("a.tess", &chain(80_000, &[b'n'; 255], 0));
    assert_eq!(folder.composed(&["a.tess", "a.tess"]), BTreeSet::new());
    // With their paths, these directories would take 25 GB.
    folder.image("a.tess", &chain(2000, &[b'n'; 255], 50_000));
    assert_eq!(folder.composed(&["a.tess", "a.tess"]), BTreeSet::new());
    // The path of an error is cut where nobody reads on.
    let mut draft = chain(80_000, &[b'n'; 255], 1);
    draft.inodes[80_001] = DraftInode { file_type: FIFO, ..inode(1) };
    draft.dirents[80_000].file_type = FIFO;
    draft.directories.pop();
    let mark = draft.xattr_set(&[(b"trusted.overlay.redirect", b"/x")]);
    draft.inodes[80_001].xattrs = mark.into();
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: nnnnnnnn");
}

#[test]
fn a_million_hard_links_are_a_million_names() {
    let folder = Folder::new();
    let names: Vec<String> = (0..1_000_000).map(|number| format!("{number:07}")).collect();
    let names: Vec<_> = names.iter().map(|name| (name.as_bytes(), 2, FIFO)).collect();
    let mut draft = tree(&names);
    draft.inode(DraftInode { file_type: FIFO, ..inode(1_000_000) });
    folder.image("a.tess", &draft);
    let mut draft = tree(&[(b"0000000", 2, FIFO), (b"z", 2, FIFO)]);
    draft.inode(DraftInode { file_type: FIFO, ..inode(2) });
    folder.image("b.tess", &draft);
    assert_eq!(folder.composed(&["a.tess", "b.tess"]), BTreeSet::new());
    let source = Source::open(&folder.at("new.tess")).expect("opened");
    let sb = superblock::read(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &sb);
    let image = Image::new(&sb, &metadata);
    let links = [2, 3].map(|ino| {
        image.inode(tesserafs_format::Ino::from_number(ino).expect("a number")).expect("an inode").nlink
    });
    assert_eq!(links, [2, 999_999]);
}

/// Records of which several lead to the same bytes would be many times as much in the result.
#[test]
fn records_that_share_bytes_are_refused() {
    let folder = Folder::new();
    // 3000 directories with the same 100,000 entries.
    let mut draft = Draft::empty();
    directory(&mut draft, 1, 3000, 0);
    for number in 0..3000 {
        draft.dirent(format!("{number:04}").as_bytes(), number + 2, DIRECTORY);
        directory(&mut draft, 1, if number == 0 { 100_000 } else { 0 }, 3001);
    }
    for number in 0..100_000 {
        draft.dirent(format!("{number:06}").as_bytes(), 3002, FIFO);
    }
    draft.inode(DraftInode { file_type: FIFO, ..inode(1) });
    draft.change = Some(|tables| {
        let first = tables.inodes[1];
        for inode in &mut tables.inodes[2..=3000] {
            (inode.size, inode.start) = (first.size, first.start);
        }
    });
    draft.seal();
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: tree-entries @ ino 3: found ");

    // Directories with entries of their own, and the same names.
    let mut draft = tree(&[(b"a", 2, DIRECTORY), (b"b", 3, DIRECTORY)]);
    for _ in 0..2 {
        draft.directory(1, 1, 2, 0);
        draft.dirent(&[b'n'; 255], 4, FIFO);
    }
    draft.inode(DraftInode { file_type: FIFO, ..inode(2) });
    draft.change = Some(|tables| {
        tables.inodes[2].size = tables.inodes[1].size;
        tables.names.truncate(16 + 256);
    });
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: tree-names @ ino 3: found 528, expected 272");

    // Half a million symlinks with one target.
    let names: Vec<String> = (0..500_000).map(|number| format!("{number:06}")).collect();
    let names: Vec<_> = (2..).zip(&names).map(|(ino, name)| (name.as_bytes(), ino, SYMLINK)).collect();
    let mut draft = tree(&names);
    draft.targets = vec![b't'; 4095];
    for _ in &names {
        draft.inode(DraftInode { file_type: SYMLINK, size: 4095.into(), mode: 0o777.into(), ..inode(1) });
    }
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: tree-targets @ ino 3: found 8190, expected 4095");

    // 20,000 annotations with the same value.
    let mut draft = tree(&[]);
    for number in 0..20_000_u32 {
        draft.annotation(&number.to_be_bytes(), b"");
    }
    draft.annotation_data.extend(vec![0; 1 << 20]);
    let end = draft.annotation_data.len() as u64;
    for annotation in &mut draft.annotations {
        annotation.value_len = ((end - annotation.offset.get() - 4) as u32).into();
    }
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: annotation-range @ annotation 1: found 4, expected ");

    // Annotations with one key, or in another order.
    for keys in [[b"a", b"a"], [b"b", b"a"]] {
        let mut draft = tree(&[]);
        keys.iter().for_each(|key| draft.annotation(*key, b"value"));
        folder.image("a.tess", &draft);
        folder.refused(&["a.tess"], "a.tess: annotation-order @ annotation 1");
    }
}

#[test]
fn xattrs_that_no_file_has_are_refused() {
    let folder = Folder::new();
    // 4000 files with sets of their own, which are the same megabyte.
    let names: Vec<String> = (0..4000).map(|number| format!("{number:04}")).collect();
    let names: Vec<_> = (2..).zip(&names).map(|(ino, name)| (name.as_bytes(), ino, FILE)).collect();
    let mut draft = tree(&names);
    let values: Vec<_> = (0..16).map(|n| (format!("user.{n:02}").into_bytes(), pattern(65_000, n))).collect();
    let values: Vec<_> = values.iter().map(|(name, value)| (&name[..], &value[..])).collect();
    draft.xattr_set(&values);
    draft.xattr_sets = vec![draft.xattr_sets[0]; 4000];
    for number in 0..4000 {
        draft.inode(DraftInode { file_type: FILE, xattrs: (number + 1).into(), ..inode(1) });
    }
    folder.image("a.tess", &draft);
    let bytes = draft.xattr_sets[0].bytes.get();
    folder.refused(&["a.tess"], &format!("a.tess: tree-xattrs @ xattr set 1: found 0, expected {bytes}"));

    let case = |xattrs: &[(&[u8], &[u8])], kind: u8, expected: &str| {
        let mut draft = tree(&[(b"a", 2, kind)]);
        let set = draft.xattr_set(xattrs);
        draft.inode(DraftInode { file_type: kind, xattrs: set.into(), ..inode(1) });
        folder.image("a.tess", &draft);
        folder.refused(&["a.tess"], &format!("a.tess: {expected}"));
    };
    case(&[(b"user.a", b"1"), (b"user.a", b"2")], FILE, "xattr-order @ xattr set 0");
    case(&[(b"user.b", b"1"), (b"user.a", b"2")], FILE, "xattr-order @ xattr set 0");
    case(&[(b"system.b", b"1")], FILE, "xattr-name @ xattr set 0");
    case(&[(b"user.a", &[0; 65_537])], FILE, "xattr-value-length @ xattr set 0: found 65537, expected 65536");
    let names: Vec<_> = (0..300).map(|n| format!("user.{n:0250}").into_bytes()).collect();
    let many: Vec<_> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    case(&many, FILE, "xattr-list-length @ xattr set 0: found 76800, expected 65536");
    case(&[(b"user.a", b"1")], FIFO, "xattr-settable @ ino 2");
    case(&[(b"security.capability", b"no")], FILE, "xattr-settable @ ino 2");

    // As many as there can be, of many files: one set, and not one for each of them.
    let names: Vec<String> = (0..300).map(|number| format!("{number:04}")).collect();
    let names: Vec<_> = (2..).zip(&names).map(|(ino, name)| (name.as_bytes(), ino, FILE)).collect();
    let mut draft = tree(&names);
    let xattrs: Vec<_> = (0..5000).map(|n| format!("user.{n:04}").into_bytes()).collect();
    let xattrs: Vec<_> = xattrs.iter().map(|name| (&name[..], &b"value"[..])).collect();
    let set = draft.xattr_set(&xattrs);
    for _ in &names {
        draft.inode(DraftInode { file_type: FILE, xattrs: set.into(), ..inode(1) });
    }
    folder.image("a.tess", &draft);
    assert_eq!(folder.composed(&["a.tess", "a.tess"]), BTreeSet::new());
    assert!(fs::metadata(folder.at("new.tess")).expect("an image").len() < 1 << 19);
    // A set that ends behind the table.
    let offset = draft.xattr_entries.len() as u64;
    draft.xattr_sets.push(RawXattrSet { offset: offset.into(), bytes: 16.into(), count: 1.into() });
    draft.inodes[1].xattrs = 2.into();
    folder.image("a.tess", &draft);
    folder.refused(&["a.tess"], "a.tess: xattr-set-range @ xattr set 1");
}

#[test]
fn images_that_contradict_each_other_are_refused() {
    let folder = Folder::new();
    let (bytes, other) = (pattern(5000, 1), pattern(9000, 2));
    one_file(&folder, "a", &bytes, |_| ());
    assert_eq!(folder.composed(&["a.tess"]), BTreeSet::new());
    // One pack, of two lengths: the chunk is in its range for one of them only.
    one_file(&folder, "b", &other, |draft| draft.packs[1].digest = sha256(&bytes));
    folder.refused(
        &["a.tess", "b.tess"],
        "b.tess: pack 1 has 9000 bytes, expected 5000, as a.tess says of a pack with the same digest",
    );
    folder.refused(&["b.tess", "a.tess"], "a.tess: pack 1 has 5000 bytes, expected 9000");
    one_file(&folder, "b", &bytes, |draft| {
        draft.packs.push(RawPack { bytes: 4999.into(), ..draft.packs[1] });
    });
    folder.refused(&["b.tess"], "b.tess: pack 2 has 4999 bytes, expected 5000");
    // One chunk, of two lengths.
    one_file(&folder, "b", &other, |draft| draft.raw_digests[0] = sha256(&bytes));
    folder.refused(
        &["a.tess", "b.tess"],
        "b.tess: chunk 0 has 9000 raw bytes, expected 5000, as a.tess says of a chunk with the same digest",
    );
    // That of the first file counts, and not that of the lowest image.
    folder.refused(&["b.tess", "a.tess"], "b.tess: chunk 0 has 9000 raw bytes, expected 5000");
    // One content, of two lengths.
    one_file(&folder, "b", &other, |draft| draft.contents[0] = sha256(&bytes));
    folder.refused(
        &["a.tess", "b.tess"],
        "b.tess: content 0 has 9000 bytes, expected 5000, as a.tess says of a content with the same digest",
    );
    folder.refused(&["b.tess", "a.tess"], "b.tess: content 0 has 9000 bytes, expected 5000");
}

/// A chunk that one image has compressed, and another one has not: that of the first file counts, whichever image is the lowest.
#[test]
fn of_two_encodings_of_a_chunk_the_first_counts() {
    let folder = Folder::new();
    let bytes = vec![7; 5000];
    let compressed = |draft: &mut Draft| {
        draft.chunks[0].stored = (1 << 24 | 100).into();
        draft.chunks[0].raw_len = 5000.into();
        draft.raw_digests[0] = sha256(&bytes);
        draft.inodes[1].size = 5000.into();
        draft.inodes[1].blocks = 2.into();
        // Another content, so that it is looked for.
        draft.contents[0] = [1; 32];
    };
    // Nobody decodes what is no frame to compose.
    let no_frame = pattern(100, 1);
    one_file(&folder, "a-plain", &bytes, |_| ());
    one_file(&folder, "b-compressed", &no_frame, compressed);
    for images in [["a-plain.tess", "b-compressed.tess"], ["b-compressed.tess", "a-plain.tess"]] {
        assert_eq!(folder.composed(&images), BTreeSet::from([Rule::ContentDigest]), "plain bytes under both");
    }
    one_file(&folder, "c-plain", &bytes, |_| ());
    for images in [["c-plain.tess", "b-compressed.tess"], ["b-compressed.tess", "c-plain.tess"]] {
        assert_eq!(folder.composed(&images), BTreeSet::from([Rule::ChunkDecode]), "no frame under both");
    }
}

#[test]
fn sizes_are_not_added_up_to_less() {
    let folder = Folder::new();
    // Holes of 2^63 - 1 bytes: more than 64 bits together, and one content in two files.
    let size = i64::MAX as u64;
    let mut draft = tree(&[(b"a", 2, FILE), (b"b", 3, FILE), (b"c", 4, FILE), (b"d", 5, FILE)]);
    for seed in 0..3 {
        let content = draft.content_of_digest(&[Piece::Hole(size)], sha256(&[seed]));
        draft.regular(content, size, 1, 0);
    }
    draft.regular(2, size, 1, 0);
    folder.image("a.tess", &draft);
    let output = folder.run(&["--json", "a.tess", "a.tess"]);
    assert!(output.status.success(), "{}", support::error(&output));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["raw_bytes"], u64::MAX);
    // Holes that nobody would digest, of images that each have half of what is admitted.
    let holes = |seed: u8| {
        let names: Vec<String> = (2..7).map(|ino| format!("{seed}{ino}")).collect();
        let names: Vec<_> = (2..).zip(&names).map(|(ino, name)| (name.as_bytes(), ino, FILE)).collect();
        let mut draft = tree(&names);
        for number in 0..5 {
            let content = draft.content_of_digest(&[Piece::Hole(1 << 33)], sha256(&[seed, number]));
            draft.regular(content, 1 << 33, 1, 0);
        }
        draft
    };
    folder.image("a.tess", &holes(0));
    folder.image("b.tess", &holes(1));
    folder.refused(&["a.tess", "b.tess"], "more ");
}

/// Packs of which each image has as many as it can.
#[test]
fn packs_are_counted() {
    let folder = Folder::new();
    let image = |seed: u32, packs: u32| {
        let names: Vec<String> = (0..packs).map(|number| format!("{seed:02}-{number:04}")).collect();
        let names: Vec<_> = (2..).zip(&names).map(|(ino, name)| (name.as_bytes(), ino, FILE)).collect();
        let mut draft = tree(&names);
        for number in 0..packs {
            let bytes = [&seed.to_le_bytes()[..], &number.to_le_bytes()].concat();
            let content = draft.content(&[Piece::Data(&bytes)], &bytes);
            draft.regular(content, 8, 1, 0);
            draft.packs.push(beside(&bytes));
            draft.chunks[number as usize].place = (u64::from(number + 1) << 48).into();
        }
        draft.pack.clear();
        draft.seal();
        folder.image(&format!("{seed}.tess"), &draft);
        format!("{seed}.tess")
    };
    // 64 * 1023 + 64 are 65536.
    let mut images: Vec<String> = (0..64).map(|seed| image(seed, 1023)).collect();
    let output = folder.run(&[&images[0]]);
    assert!(output.status.success(), "{}", support::error(&output));
    for more in [1, 64, 65] {
        images.truncate(64);
        images.push(image(64, more));
        let images: Vec<_> = images.iter().map(String::as_str).collect();
        folder.refused(&images, "more packs than an image can hold");
        folder.refused(&[images[0], images[64]], "more packs than an image can hold");
    }
}

#[test]
fn an_image_in_one_file_is_refused_before_it_is_read() {
    let folder = Folder::new();
    let convert = "is an image in one file, whose chunks no other image can use; the shared form of it is made by tesserafs pack \
                   --packdir DIR SHARED.tess a.tess";
    let mut lower = Draft::sample();
    share(&mut lower);
    folder.image("lower.tess", &lower);
    let changes: [&dyn Fn(&mut Draft); 6] = [
        &|_| (),
        &|draft| draft.dirents[0].ino = 1.into(),
        &|draft| draft.inodes[2].start = 99.into(),
        &|draft| draft.chunks[0].place = u64::MAX.into(),
        &|draft| draft.xattr_sets[0].count = u32::MAX.into(),
        &|draft| draft.profile.level = 4.into(),
    ];
    for change in changes {
        let mut draft = Draft::sample();
        change(&mut draft);
        folder.image("a.tess", &draft);
        folder.refused(&["lower.tess", "a.tess"], &format!("a.tess: {convert}"));
        folder.refused(&["a.tess", "lower.tess"], &format!("a.tess: {convert}"));
        folder.refused(&["--partial", "a.tess"], &format!("a.tess: {convert}"));
        folder.refused(&["lower.tess", "--at", "x", "a.tess"], &format!("a.tess: {convert}"));
    }
}

/// Bytes of any record, with right digests: no panic; and what is composed breaks no rule, but for those about bytes that nobody reads to
/// compose.
#[test]
fn records_of_random_bytes_end_in_a_refusal_or_an_image() {
    const INTERESTING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x10];
    let folder = Folder::new();
    let mut sample = Draft::sample();
    let pack = share(&mut sample);
    fs::write(folder.at(&Digest(sha256(&pack)).to_string()), &pack).expect("written");
    folder.image("a.tess", &sample);
    assert_eq!(folder.findings("a.tess"), BTreeSet::new());
    let mut state = 1_u64;
    let mut below = |limit: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        ((state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % limit
    };
    let of_bytes = [
        Rule::ContentDigest,
        Rule::RawDigest,
        Rule::ChunkDigest,
        Rule::ChunkDecode,
        Rule::InodeBlocks,
        // Chunks that overlap do in the result, too.
        Rule::MapChunks,
        // A content that a change gave another digest, or other extents.
        Rule::PackDigest,
    ];
    let (mut composed, mut refused) = (0, 0);
    for round in 0..900 {
        let image = sample.image_with(|metadata| {
            for _ in 0..=below(3) {
                let at = below(metadata.len() / 3);
                let value = INTERESTING[below(INTERESTING.len())];
                metadata.iter_mut().skip(at).take(1 << below(4)).for_each(|byte| *byte = value);
            }
        });
        fs::write(folder.at("b.tess"), image).expect("written");
        let names: &[&str] = [&["b.tess"][..], &["a.tess", "b.tess"], &["b.tess", "a.tess"]][round % 3];
        let layers = names.iter().map(|name| LayerPath { image: folder.at(name), at: Vec::new() });
        let composition = Composition {
            output: folder.at("new.tess"),
            layers: layers.collect(),
            partial: round % 2 == 0,
            annotations: Default::default(),
            force: true,
        };
        match compose(&composition) {
            Ok(_) => {
                composed += 1;
                let findings = folder.findings("new.tess");
                let wrong: Vec<_> = findings.iter().filter(|rule| !of_bytes.contains(rule)).collect();
                assert!(wrong.is_empty(), "round {round}, {names:?}: {wrong:?}");
            }
            Err(error) => {
                refused += 1;
                let said = error.to_string();
                assert!(
                    said.contains("b.tess: ") || said.contains("a.tess: "),
                    "round {round}, {names:?}: {said}"
                );
            }
        }
    }
    println!("{composed} composed, {refused} refused");
    assert!(composed > 200 && refused > 200, "{composed} composed, {refused} refused");
}
