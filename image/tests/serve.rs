// SPDX-License-Identifier: GPL-2.0-or-later

//! Ranges of files, read by many threads at once.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use mkfs_tesserafs::config::{default_profile, Config, SourcePath};
use mkfs_tesserafs::packs::SharedForm;
use tesserafs_format::{FileKind, Image, Ino, Inode, PackIndex};
use tesserafs_image::serve::{Files, Seek, Tree};
use tesserafs_image::{superblock, Source, VerifiedMetadata};

/// Bytes of the large file.
const LARGE: usize = 8 << 20;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + (state % 23) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn image() -> (tempfile::TempDir, PathBuf) {
    image_of(false)
}

/// An image, in one file or with a pack beside it.
fn image_of(has_pack: bool) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, path) = (folder.path().join("root"), folder.path().join("image.tess"));
    std::fs::create_dir(&root).expect("a directory");
    std::fs::write(root.join("large"), noise(1, LARGE)).expect("a file");
    for n in 0..300 {
        std::fs::write(root.join(format!("small-{n:03}")), noise(n + 2, 1000)).expect("a file");
    }
    let config = Config {
        image: path.clone(),
        source: SourcePath::Directory(root),
        filter: Default::default(),
        profile: default_profile(3),
        threads: std::num::NonZeroUsize::MIN,
        annotations: Default::default(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: has_pack.then(|| SharedForm { dir: folder.path().to_owned(), ..SharedForm::default() }),
        force: false,
        dry_run: false,
    };
    mkfs_tesserafs::build(&config, &mkfs_tesserafs::progress::Silent).expect("an image");
    (folder, path)
}

/// Does something with the files of the image, while a thread decodes ahead.
fn with_files(cached: usize, work: impl FnOnce(&Tree<'_>, &Files<'_>)) {
    let (folder, path) = image();
    let source = Source::open(&path).expect("an image");
    let sb = superblock::read(&source).expect("a superblock");
    let metadata = VerifiedMetadata::with_cache(&source, &sb, 16);
    let files = Files::open(&metadata, folder.path(), cached).expect("packs");
    /// Lets the thread go, also when an assertion fails.
    struct Stop<'a>(&'a Files<'a>);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| files.work_ahead());
        let _stop = Stop(&files);
        work(&Tree::new(&metadata), &files);
    });
}

fn find(tree: &Tree<'_>, name: &str) -> Inode {
    let root = tree.inode(1).expect("an inode").expect("a root");
    let FileKind::Directory(directory) = root.kind else { panic!("no directory") };
    tree.lookup(Ino::ROOT, &directory, name.as_bytes()).expect("names").expect("a file")
}

fn read(files: &Files<'_>, inode: &Inode, start: u64, len: u64) -> Vec<u8> {
    files.read(inode, start..start + len, &mut Vec::new(), <[u8]>::to_vec).expect("bytes")
}

#[test]
fn a_reader_in_order_has_each_chunk_decoded_once() {
    with_files(16 << 20, |tree, files| {
        let (inode, expected) = (find(tree, "large"), noise(1, LARGE));
        let next = AtomicU64::new(0);
        let window = 100_000;
        // As a server does: its threads take one request after the other.
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| loop {
                    let start = next.fetch_add(window, Ordering::Relaxed);
                    if start >= LARGE as u64 {
                        break;
                    }
                    let bytes = read(files, &inode, start, window);
                    let end = (start + window).min(LARGE as u64);
                    assert!(bytes == expected[start as usize..end as usize], "{start}");
                });
            }
        });
        // Some chunks behind the file may have been decoded ahead, too.
        let decoded = files.decoded_bytes();
        assert!((LARGE as u64..LARGE as u64 * 11 / 10 + (1 << 20)).contains(&decoded), "{decoded}");
    });
}

#[test]
fn small_files_of_a_group_have_it_decoded_once() {
    with_files(16 << 20, |tree, files| {
        for n in 0..300 {
            assert_eq!(read(files, &find(tree, &format!("small-{n:03}")), 0, 4096), noise(n + 2, 1000));
        }
        let decoded = files.decoded_bytes();
        assert!((300_000..400_000).contains(&decoded), "{decoded}");
    });
}

#[test]
fn a_page_costs_the_beginning_of_its_chunk() {
    with_files(1 << 20, |tree, files| {
        let (inode, expected) = (find(tree, "large"), noise(1, LARGE));
        let (mut state, mut pages) = (1_u64, 0_u64);
        for _ in 0..200 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let start = (state >> 33) % (LARGE as u64 / 4096) * 4096;
            assert!(read(files, &inode, start, 4096) == expected[start as usize..][..4096], "{start}");
            pages += 1;
        }
        // Chunks have 64 KiB on average, longer ones more pages: much less than all of each.
        let each = files.decoded_bytes() / pages;
        assert!(each < 64 << 10, "{each}");
    });
}

#[test]
fn ranges_end_where_the_file_does() {
    with_files(1 << 20, |tree, files| {
        let inode = find(tree, "small-007");
        assert_eq!(read(files, &inode, 990, 4096), &noise(9, 1000)[990..]);
        assert_eq!(read(files, &inode, 1000, 4096), b"");
        assert_eq!(read(files, &inode, u64::MAX - 4096, 4096), b"");
        assert_eq!(files.seek(&inode, 5, Seek::Data).expect("a position"), Some(5));
        assert_eq!(files.seek(&inode, 5, Seek::Hole).expect("a position"), Some(1000));
        assert_eq!(files.seek(&inode, 1000, Seek::Hole).expect("a position"), None);
        let root = tree.inode(1).expect("an inode").expect("a root");
        assert_eq!(read(files, &root, 0, 4096), b"");
        assert!(
            tree.inode(0).expect("no inode").is_none() && tree.inode(u64::MAX).expect("no inode").is_none()
        );
    });
}

/// As the kernel driver does when it mounts an image.
#[test]
fn another_file_under_the_name_of_a_pack_is_refused_at_once() {
    let (folder, path) = image_of(true);
    let source = Source::open(&path).expect("an image");
    let sb = superblock::read(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &sb);
    let image = Image::new(&sb, &metadata);
    let pack = image.pack(PackIndex(1)).expect("a pack");
    let name = folder.path().join(pack.digest.to_string());
    let bytes = std::fs::read(&name).expect("a pack");
    let open = || Files::open(&metadata, folder.path(), 0).map(drop).map_err(|error| error.to_string());
    let first = image.first_chunk(pack.index).expect("chunks").expect("a chunk");
    assert_eq!((first.index.0, first.offset), (0, 0));
    assert!(image.first_chunk(PackIndex(0)).expect("chunks").is_none());
    assert!(image.first_chunk(PackIndex(2)).expect("chunks").is_none());
    open().expect("packs");

    let (len, named) = (bytes.len(), name.display());
    for other in [&bytes[1..], &[&bytes[..], b"1"].concat(), b""] {
        std::fs::write(&name, other).expect("a pack");
        let found = other.len();
        let expected = format!("{named}: pack-digest @ pack 1: found {found}, expected {len} (rule: ");
        let said = open().expect_err("another length");
        assert!(said.starts_with(&expected), "{said}");
    }
    let mut changed = bytes.clone();
    changed[first.stored_len as usize - 1] ^= 1;
    std::fs::write(&name, &changed).expect("a pack");
    let said = open().expect_err("another pack");
    assert!(said.starts_with(&format!("{named}: chunk-digest @ chunk 0: found ")), "{said}");
    // A byte behind it is met by those who read it.
    let mut changed = bytes.clone();
    changed[first.stored_len as usize] ^= 1;
    std::fs::write(&name, &changed).expect("a pack");
    open().expect("the first chunk is right");

    std::fs::remove_file(&name).expect("removed");
    let said = open().expect_err("no pack");
    assert!(said.starts_with(&format!("pack 1 is not there: no file {} in ", pack.digest)), "{said}");
    // It cannot be opened, and is not missing.
    std::os::unix::fs::symlink(&name, &name).expect("a link to itself");
    assert_eq!(open().expect_err("a loop"), format!("cannot open {named}"));
}
