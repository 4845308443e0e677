// SPDX-License-Identifier: GPL-2.0-or-later

//! Writes the first inputs of all fuzz targets, `corpus DIR`: one folder for each target.
//!
//! They are made by mkfs from archives and from a directory, and by the tiny writer of the format crate's tests, so that
//! every kind of file and every table is among them; the same in each run.
//!
//! It shares the targets' instrumented libraries, which link to nothing but libFuzzer. So libFuzzer has the
//! main function, and this runs before that begins.

#![no_main]

use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::{progress, Options};
use mkfs_tesserafs::config::{default_profile, Config, SourcePath, DEFAULT_LEVEL};
use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::source::{Devices, Filter, Override};
use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_fuzz::archive::Archive;
use tesserafs_fuzz::draft::{self, pattern, Draft};
use tesserafs_fuzz::memory_file::MemoryFile;
use tesserafs_fuzz::tables::Tables;

libfuzzer_sys::fuzz_target!(
    init: write_and_exit(),
    |_data: &[u8]| {}
);

fn write_and_exit() {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: corpus DIR");
        std::process::exit(2);
    };
    let archives = archives();
    let images = images(&archives);
    let corpus = Corpus(folder);
    for (name, archive) in &archives {
        corpus.add("mkfs_tar", name, archive);
        corpus.add("mkfs_tar", &format!("{name}.zst"), &compressed(archive));
    }
    for (name, image) in &images {
        corpus.add("superblock", name, &image[..0x250]);
        let tables = Tables::input(image);
        corpus.add("records", name, &tables);
        corpus.add("walk", name, &tables);
        assert_clean(&Tables::parse(&tables).expect("tables").sealed());
        corpus.add("check", name, &tables);
        frames(&corpus, name, image);
    }
    corpus.add("check", "changes", &[1, 0, 0, 2, 0, 0]);
    for blocks in [1_u64, 128, 129, 16_384, 16_385, 1 << 21, 1 << 35] {
        let picks = [blocks, 0, blocks - 1, blocks + 1].map(u64::to_le_bytes).concat();
        corpus.add("merkle", &blocks.to_string(), &picks);
    }
    corpus.add("verified", "one", &[1, 0, 0, 0, 0, 1]);
    corpus.add("verified", "some", &pattern(200, 1));
    corpus.add(
        "frame",
        "text",
        &[&[1, 0, 0x80, 0, 0], &b"\x00\x10\x1athe same line once again.\n"[..]].concat(),
    );
    corpus.add("frame", "noise", &[&[1, 1, 0, 0, 0, 255, 0, 240][..], &pattern(240, 2)].concat());
    let calls = [&[100, 0][..], b"\xe8\x10\0\0\0\xe9\xf0\xff\xff\xff\xe8\xe8\xe8\0\0\0\x90\x90\xe9"].concat();
    corpus.add("x86", "calls", &calls);
    corpus.add("x86", "noise", &pattern(500, 3));
    for (number, text) in DATABASES.iter().enumerate() {
        corpus.add("packages", &number.to_string(), &[&[number as u8][..], text].concat());
    }
    corpus.add("packages", "rpm", &[vec![2], rpm_database()].concat());
    std::process::exit(0);
}

/// Databases of packages, in the order of that target's paths; that of rpm is made.
const DATABASES: [&[u8]; 7] = [
    b"Package: a\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nConffiles:\n /etc/a \
      d41d8cd98f00b204e9800998ecf8427e\nDescription: x\n y\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 2\n",
    b"C:Q1abc=\nP:a\nV:1\nA:x86_64\nL:MIT\nF:bin\nR:sh\na:0:0:755\nZ:Q12jmj7l5rSw0yVb/vlWAYkK/YBwk=\n\n",
    b"SQLite format 3\0",
    b"Metadata-Version: 2.1\nName: A_b\nVersion: 1\nLicense: MIT OR ISC\nAuthor: c\n\ntext\n",
    br#"{"name":"@scope/x","version":"1.0.0","license":{"type":"MIT"},"author":"a"}"#,
    b"version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"00\"\n",
    b"ID=debian\nVERSION_ID=\"13\"\nHOME_URL='https://a.example/'\nCPE_NAME=\"cpe:/o:a:b:1\"\n",
];

/// A database of one package, with a name, a version and a licence.
fn rpm_database() -> Vec<u8> {
    let store = b"a\x001\x00MIT\x00";
    let entries: [[u32; 4]; 3] = [[1000, 6, 0, 1], [1001, 6, 2, 1], [1014, 6, 4, 1]];
    let head = [entries.len() as u32, store.len() as u32].map(u32::to_be_bytes).concat();
    let entries: Vec<u8> = entries.iter().flatten().flat_map(|number| number.to_be_bytes()).collect();
    let header = [head, entries, store.to_vec()].concat();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rpmdb.sqlite");
    let database = rusqlite::Connection::open(&path).expect("a database");
    let table =
        "PRAGMA page_size = 512; CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)";
    database.execute_batch(table).expect("a table");
    database.execute("INSERT INTO Packages (blob) VALUES (?1)", [header]).expect("a package");
    database.close().expect("closed");
    fs::read(path).expect("read")
}

/// A folder with a folder for each target.
struct Corpus(PathBuf);

impl Corpus {
    fn add(&self, target: &str, name: &str, input: &[u8]) {
        let folder = self.0.join(target);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(name), input).expect("written");
    }
}

/// Each chunk of an image, to be ended early.
fn frames(corpus: &Corpus, name: &str, image: &[u8]) {
    let layout = draft::layout(image);
    let tables = Tables::parse(&Tables::input(image)).expect("tables");
    let view = tesserafs_format::Image::new(&tables.sb, &tables);
    for index in 0..layout.chunks.records() as u32 {
        let chunk = view.chunk(tesserafs_format::ChunkIndex(index)).expect("a chunk");
        let start = BLOCK_SIZE + chunk.offset as usize;
        let stored = &image[start..start + chunk.stored_len as usize];
        let wanted = (chunk.raw_len / 2).to_le_bytes();
        corpus.add("frame", &format!("{name}-{index}"), &[&[0], &wanted[..], stored].concat());
    }
}

/// A mutation of an image that is broken already shows no difference between readers.
fn assert_clean(image: &[u8]) {
    let file = MemoryFile::new(image);
    let source = fsck_tesserafs::Source::open(&file.path()).expect("opened");
    let cancel = Cancel::default();
    let report = fsck_tesserafs::check(&source, &Options::default(), &progress::Silent, &cancel);
    assert!(report.is_clean() && report.error.is_none(), "{:?}", report.findings);
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd_safe::compress(&mut frame, bytes, 3).expect("compressed");
    frame
}

/// Small archives of all dialects, with every kind of entry.
fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let old_sparse = |header: &mut [u8; 512]| {
        header[257..265].copy_from_slice(b"ustar  \0");
        header[386..397].copy_from_slice(b"00000010000");
        header[398..409].copy_from_slice(b"00000000005");
        header[483..494].copy_from_slice(b"00000020000");
    };
    vec![
        ("empty", Archive::default().end()),
        (
            "kinds",
            Archive::default()
                .file("./a/b/file", b"bytes")
                .link(b'2', "/a/symlink", "../x")
                .link(b'1', "hard", "a/b/file")
                .link(b'6', "fifo", "")
                .link(b'3', "whiteout", "")
                .raw(b"sda", b'4', b"", b"", |header| header[329] = b'1')
                .file("empty", b"")
                .dir("a/")
                .end(),
        ),
        (
            "whiteouts",
            Archive::default()
                .file("dir/.wh.gone", b"")
                .file("opaque/.wh..wh..opq", b"")
                .dir("opaque")
                .file("file", b"here")
                .file(".wh.file", b"")
                .file(".wh.again", b"")
                .file("again/x", b"")
                .end(),
        ),
        (
            "pax",
            Archive::default()
                .pax(b'g', &[(b"mtime", b"-5.25"), (b"uid", b"7")])
                .pax(
                    b'x',
                    &[
                        (b"path", b"dir/a name"),
                        (b"uid", b"4000000000"),
                        (b"SCHILY.xattr.security.capability", b"\x01\0\0\x02\x0a\n\0\0"),
                        (b"SCHILY.xattr.user.x", b"value"),
                        (
                            b"SCHILY.acl.access",
                            b"user::rwx,user:daemon:r-x:1,group::r-x,mask::r-x,other::r--",
                        ),
                    ],
                )
                .file("cut", b"bytes")
                .pax(b'x', &[(b"linkpath", b"a/target")])
                .link(b'2', "link", "cut")
                .end(),
        ),
        (
            "gnu",
            Archive::default()
                .raw(b"././@LongLink", b'L', b"", &[&[b'n'; 120][..], b"\0"].concat(), |_| {})
                .raw(b"././@LongLink", b'K', b"", b"target\0", |_| {})
                .raw(b"cut", b'2', b"cut", b"", |header| {
                    header[257..265].copy_from_slice(b"ustar  \0");
                    header[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xfe");
                    header[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfd");
                })
                .end(),
        ),
        (
            "sparse",
            Archive::default()
                .raw(b"old", b'S', b"", b"bytes", old_sparse)
                .pax(
                    b'x',
                    &[
                        (b"GNU.sparse.major", b"1"),
                        (b"GNU.sparse.name", b"new"),
                        (b"GNU.sparse.realsize", b"9000"),
                    ],
                )
                .file("x", &[&b"1\n4096\n5\n"[..], &[0; 503], b"bytes"].concat())
                .pax(b'x', &[(b"GNU.sparse.size", b"9000"), (b"GNU.sparse.map", b"4096,5")])
                .file("y", b"bytes")
                .end(),
        ),
        (
            "contents",
            Archive::default()
                .file("one", &pattern(3000, 1))
                .file("same", &pattern(3000, 1))
                .file("text", &b"the same line again and again\n".repeat(300))
                .file("zeros", &[0; 40_960])
                .end(),
        ),
    ]
}

/// Images of the archives, of a directory, and of drafts.
fn images(archives: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    let scratch = tempfile::tempdir().expect("a folder");
    let mut images: Vec<(&'static str, Vec<u8>)> = archives
        .iter()
        .map(|(name, archive)| {
            let path = scratch.path().join("archive.tar");
            fs::write(&path, archive).expect("written");
            (*name, image(scratch.path(), SourcePath::Tar(path)))
        })
        .collect();
    let tree = scratch.path().join("tree");
    directory(&tree);
    images.push(("directory", image(scratch.path(), SourcePath::Directory(tree))));
    let mut root = Draft::empty();
    root.directory(1, 0, 2, 0);
    root.seal();
    images.push(("draft-root", root.image()));
    images.push(("draft", Draft::sample().image()));
    images
}

/// A tree with things that an archive cannot hold.
fn directory(root: &Path) {
    fs::create_dir_all(root.join("a/b")).expect("folders");
    fs::write(root.join("a/file"), pattern(5_000, 4)).expect("written");
    fs::write(root.join("a/b/text"), b"from a directory\n".repeat(6000)).expect("written");
    let sparse = fs::File::create(root.join("sparse")).expect("created");
    sparse.set_len(1 << 20).expect("set");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"somewhere", 300_000).expect("written");
    fs::hard_link(root.join("a/file"), root.join("hard")).expect("a link");
    std::os::unix::fs::symlink("a/file", root.join("link")).expect("a symlink");
    UnixListener::bind(root.join("socket")).expect("a socket");
}

fn image(folder: &Path, source: SourcePath) -> Vec<u8> {
    let path = folder.join("image");
    let attributes =
        Override { mtime_max: Some(1_700_000_000), uid: Some(0), gid: Some(0), ..Override::default() };
    let config = Config {
        image: path.clone(),
        source,
        filter: Filter { devices: Devices::Skip, attributes, ..Filter::default() },
        profile: default_profile(DEFAULT_LEVEL),
        threads: NonZeroUsize::MIN,
        annotations: [(b"oci.config".to_vec(), b"{}".to_vec()), (b"spdx".to_vec(), b"tag".to_vec())].into(),
        signer: None,
        signed_data: None,
        sbom: false,
        shared: None,
        force: true,
        dry_run: false,
    };
    mkfs_tesserafs::build(&config, &Silent).expect("an image");
    fs::read(path).expect("the image")
}
