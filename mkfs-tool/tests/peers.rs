// SPDX-License-Identifier: GPL-2.0-or-later

//! Archives as GNU tar, bsdtar and Python read them: the same tree as in the image, and the differences that `FORMAT.md` 4.9 states.
//!
//! A program that is not installed is left out, with a line that says so.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/built.rs"]
mod built;
mod common;
#[path = "common/peer.rs"]
mod peer;

use std::fs;

use archive::Archive;
use common::{noise, read_image, Sandbox};
use peer::{of_item, shown, Peer, Tree, ALL};

/// The tree in the image of an archive.
fn ours(sandbox: &Sandbox, archive: &str) -> Tree {
    sandbox.mkfs(["-q", "-f", "--tar", archive, "image"]);
    let read = read_image(&sandbox.path("image"));
    let items = read.items.iter().filter(|(path, _)| *path != "/");
    items.map(|(path, item)| (path.clone(), of_item(item))).collect()
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.below(some.len() as u64) as usize]
    }
}

/// Sets the magic of an older format.
fn set_magic(header: &mut [u8; 512], magic: &[u8; 8]) {
    header[257..265].copy_from_slice(magic);
}

const USTAR: &[u8; 8] = b"ustar\x0000";
const GNU: &[u8; 8] = b"ustar  \0";
const V7: &[u8; 8] = &[0; 8];

/// An archive of everything that the three read alike: sizes where there are no data, unknown types, PAX and GNU names and times,
/// entries twice, sparse files, links to links.
fn generated(seed: u64) -> Archive {
    let mut dice = Dice(seed);
    let mut archive = Archive::default();
    let mut files: Vec<String> = Vec::new();
    let mut linked: Vec<String> = Vec::new();
    // Directories that nothing else takes the place of, and names in them.
    let dirs = ["", "d/", "d/e/", "long-name-of-a-directory/"];
    for dir in &dirs[1..] {
        archive.dir(dir);
    }
    for n in 0..40 {
        let dir = dice.of(&dirs);
        let fresh = format!("{dir}n{n}");
        let magic = dice.of(&[USTAR, GNU, V7]);
        // A size that says nothing.
        let size = dice.of(&["00000000000", "00000001000", "00000000777", "00000100000"]);
        let idle = |header: &mut [u8; 512]| {
            set_magic(header, magic);
            header[124..135].copy_from_slice(size.as_bytes());
        };
        match dice.below(12) {
            0 => drop(archive.raw(fresh.as_bytes(), b'5', b"", b"", idle)),
            1 => drop(archive.raw(fresh.as_bytes(), b'2', b"somewhere", b"", idle)),
            2 => drop(archive.raw(fresh.as_bytes(), b'6', b"", b"", idle)),
            3 | 4 => {
                if let Some(target) = files
                    .get(dice.below(files.len().max(1) as u64) as usize)
                    .filter(|name| name.len() < 90)
                    .cloned()
                {
                    // bsdtar takes it for that of data behind PAX headers.
                    let magic = dice.of(&[GNU, V7]);
                    archive.raw(fresh.as_bytes(), b'1', target.as_bytes(), b"", |header| {
                        idle(header);
                        set_magic(header, magic);
                    });
                    linked.extend([target, fresh.clone()]);
                    files.push(fresh);
                }
            }
            5 => {
                let name = format!("{fresh}/");
                archive.raw(name.as_bytes(), 0, b"", b"", idle);
            }
            6 => {
                let mtime = dice.of(&["0", "1.5", "1000000000.25", "12345."]);
                let long = format!("{fresh}{}", "x".repeat(dice.below(150) as usize));
                archive.pax(b'x', &[(b"path", long.as_bytes()), (b"mtime", mtime.as_bytes())]);
                archive.file("short", &noise(seed, dice.below(2000) as usize));
                files.push(long);
            }
            7 => {
                let long = format!("{fresh}{}\0", "y".repeat(120));
                archive.raw(b"././@LongLink", b'L', b"", long.as_bytes(), |header| set_magic(header, GNU));
                archive.raw(b"short", b'0', b"", &noise(n, 700), |header| set_magic(header, GNU));
                files.push(long.trim_end_matches('\0').to_owned());
            }
            8 => {
                let kind = dice.of(b"ZNEIB");
                archive.raw(fresh.as_bytes(), kind, b"", &noise(n, 600), |_| {});
                files.push(fresh);
            }
            9 => {
                // Again, with other bytes. Python would write them into the other names of a file that has some.
                let name = files.last().cloned().unwrap_or(fresh);
                if name.len() < 90 && !linked.contains(&name) {
                    archive.file(&name, &noise(seed + n, 1500));
                    files.push(name);
                }
            }
            10 => {
                // 600 bytes at 4096, of 8000, in form 0.1 of PAX.
                let name = fresh.as_bytes();
                archive.pax(
                    b'x',
                    &[
                        (b"GNU.sparse.size", b"8000"),
                        (b"GNU.sparse.numblocks", b"2"),
                        (b"GNU.sparse.name", name),
                        (b"GNU.sparse.map", b"4096,600,8000,0"),
                    ],
                );
                archive.file("GNUSparseFile.0/x", &noise(n, 600));
                files.push(fresh);
            }
            _ => {
                let size = dice.of(&[0, 1, 511, 512, 513, 5000]);
                archive.raw(fresh.as_bytes(), dice.of(b"\x0007"), b"", &noise(n, size), |header| {
                    set_magic(header, magic);
                    header[100..107].copy_from_slice(dice.of(&[b"0000600", b"0000755", b"0000711"]));
                });
                files.push(fresh);
            }
        }
    }
    archive
}

#[test]
fn generated_archives_are_read_as_others_read_them() {
    let sandbox = Sandbox::new();
    let peers = Peer::installed();
    for seed in 0..10 {
        sandbox.write("a.tar", generated(seed).end());
        let image = ours(&sandbox, "a.tar");
        assert!(image.len() > 3);
        for peer in &peers {
            let to = sandbox.path("out");
            let theirs = peer.extract(&sandbox.path("a.tar"), &to);
            fs::remove_dir_all(&to).unwrap();
            let theirs = theirs.unwrap_or_else(|| panic!("{peer:?} refuses archive {seed}"));
            let differ = |path: &&String| image.get(*path) != theirs.get(*path);
            let different: Vec<_> = image.keys().chain(theirs.keys()).filter(differ).collect();
            let both = different.first().map(|path| [&image, &theirs].map(|tree| tree.get(*path).map(shown)));
            assert!(
                different.is_empty(),
                "{peer:?} reads {different:?} of archive {seed} otherwise: {both:?}"
            );
        }
    }
}

#[test]
fn the_differences_between_programs_are_those_of_the_specification() {
    let data = noise(1, 1024);
    let sized = |header: &mut [u8; 512]| header[124..135].copy_from_slice(b"00000002000");
    // Entries between two others, and the programs that find the same names and bytes.
    let cases: [(&str, Archive, &[Peer]); 16] = [
        (
            "hard link after PAX, no data",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").pax(b'x', &[(b"comment", b"x")]).raw(b"e", b'1', b"a", b"", sized);
                archive
            },
            &[Peer::GnuTar, Peer::Python],
        ),
        (
            "hard link after PAX, data",
            {
                let mut archive = Archive::default();
                archive.file("a", &data).pax(b'x', &[(b"comment", b"x")]).raw(
                    b"e",
                    b'1',
                    b"a",
                    &data,
                    |_| {},
                );
                archive
            },
            &[Peer::BsdTar],
        ),
        (
            "directory with a size of PAX",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").pax(b'x', &[(b"size", b"1024")]).dir("e");
                archive
            },
            &[Peer::GnuTar, Peer::Python],
        ),
        (
            "slash at the end, 0",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").raw(b"e/", b'0', b"", b"", sized);
                archive
            },
            &[Peer::GnuTar, Peer::BsdTar],
        ),
        (
            "slash at the end, 7",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").raw(b"e/", b'7', b"", b"", sized);
                archive
            },
            &[Peer::GnuTar, Peer::BsdTar],
        ),
        (
            "V",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").raw(b"label", b'V', b"", &data, |header| set_magic(header, GNU));
                archive
            },
            &[Peer::GnuTar],
        ),
        (
            "D",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").raw(b"e/", b'D', b"", &data, |header| set_magic(header, GNU));
                archive
            },
            &[Peer::GnuTar, Peer::BsdTar],
        ),
        (
            "x before g",
            {
                let mut archive = Archive::default();
                archive.pax(b'x', &[(b"path", b"e")]).pax(b'g', &[(b"comment", b"x")]).file("short", b"e");
                archive
            },
            &ALL,
        ),
        (
            "g",
            {
                let mut archive = Archive::default();
                archive.pax(b'g', &[(b"mtime", b"5")]).file("e", b"e");
                archive
            },
            &[Peer::GnuTar, Peer::Python],
        ),
        (
            "two x with one key",
            {
                let mut archive = Archive::default();
                archive.pax(b'x', &[(b"path", b"d")]).pax(b'x', &[(b"path", b"e")]).file("short", b"e");
                archive
            },
            &[Peer::GnuTar],
        ),
        (
            "two x with two keys",
            {
                let mut archive = Archive::default();
                archive.pax(b'x', &[(b"path", b"e")]).pax(b'x', &[(b"mtime", b"5")]).file("short", b"e");
                archive
            },
            &[Peer::Python],
        ),
        (
            "two L",
            {
                let mut archive = Archive::default();
                archive.raw(b"d", b'L', b"", b"d\0", |_| {}).raw(b"e", b'L', b"", b"e\0", |_| {});
                archive.file("short", b"e");
                archive
            },
            &[Peer::GnuTar, Peer::BsdTar],
        ),
        (
            "a time before 1970 with a fraction",
            {
                let mut archive = Archive::default();
                archive.pax(b'x', &[(b"mtime", b"-1.5")]).file("e", b"e");
                archive
            },
            &[Peer::GnuTar, Peer::Python],
        ),
        (
            "an empty mtime",
            {
                let mut archive = Archive::default();
                archive.pax(b'x', &[(b"mtime", b"")]).file("e", b"e");
                archive
            },
            &[],
        ),
        (
            "symlink with a slash",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").link(b'2', "e/", "a");
                archive
            },
            &ALL,
        ),
        (
            "directory with data",
            {
                let mut archive = Archive::default();
                archive.file("a", b"a").raw(b"e/", b'5', b"", b"", sized);
                archive
            },
            &ALL,
        ),
    ];
    let sandbox = Sandbox::new();
    let peers = Peer::installed();
    for (what, mut archive, expected) in cases {
        archive.file("y", b"y").file("z", b"z");
        sandbox.write("a.tar", archive.end());
        let image = ours(&sandbox, "a.tar");
        assert!(image.contains_key("y") && image.contains_key("z"), "{what}");
        for peer in &peers {
            let to = sandbox.path("out");
            let theirs = peer.extract(&sandbox.path("a.tar"), &to);
            fs::remove_dir_all(&to).unwrap();
            assert_eq!(
                theirs.as_ref() == Some(&image),
                expected.contains(peer),
                "{what}: {peer:?}: {theirs:?}"
            );
        }
    }
}

#[test]
fn data_of_a_hard_link_are_stepped_over_wherever_they_can_be_told() {
    let data = noise(2, 700);
    for (bytes, counts) in [(&data[..], 1), (&[0; 1024], 1), (b"", 0)] {
        let mut archive = Archive::default();
        archive.file("a", b"a").raw(b"e", b'1', b"a", bytes, |_| {}).file("z", b"z");
        let (read, report) = archive.image_and_report(&["-v"]);
        assert_eq!((read.items.len(), read.item("e").nlink), (4, 2));
        assert_eq!(report.contains("note: 1 hard links with data"), counts == 1, "{report}");
    }
    // At the end of an archive the end mark is no data.
    let sized = |header: &mut [u8; 512]| header[124..135].copy_from_slice(b"00000001000");
    let read = Archive::default().file("a", b"a").raw(b"e", b'1', b"a", b"", sized).image();
    assert_eq!(read.item("e").nlink, 2);
    // GNU's and the oldest headers have none.
    for magic in [GNU, V7] {
        let error = Archive::default()
            .file("a", b"a")
            .raw(b"e", b'1', b"a", &data, |header| set_magic(header, magic))
            .refusal();
        assert!(error.contains("no tar header"), "{error}");
    }
}
