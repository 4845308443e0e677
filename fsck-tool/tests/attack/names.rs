// SPDX-License-Identifier: GPL-2.0-or-later

//! Names and links that lead out of the destination.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};
use std::path::Path;

use crate::bench::text;
use crate::common::{inode, Draft, DraftInode};
use crate::{many_directories, states, Canary};

/// An image with two entries in its root: a symlink to `../outside`, and something else.
fn two_entries(names: [&[u8]; 2], second: DraftInode) -> Draft {
    let mut draft = Draft::empty();
    draft.directory(1, 2, 2 + u64::from(second.file_type == 2) as u32, 0);
    draft.symlink(b"../outside");
    draft.inode(second);
    draft.dirent(names[0], 2, 3);
    draft.dirent(names[1], 3, second.file_type);
    draft
}

#[test]
fn names_that_lead_out_extract_nothing() {
    let fifo = DraftInode { file_type: 4, ..inode(1) };
    for name in [
        b"..".as_slice(),
        b".",
        b"",
        b"/",
        b"../escaped",
        b"a/../../escaped",
        b"/tmp/escaped-by-fsck-tesserafs",
        b"link/escaped",
        b"nul\0",
        // Twice the same, a symlink first.
        b"link",
    ] {
        for position in [0, 1] {
            let mut names = [b"link".as_slice(), b"link"];
            names[position] = name;
            let mut draft = two_entries(names, fifo);
            draft.seal();
            let canary = Canary::new(&draft.image());
            let output = canary.extract();
            let what = format!("{}: {}{}", name.escape_ascii(), text(&output.stdout), text(&output.stderr));
            assert_eq!(output.status.code(), Some(4), "{what}");
            assert!(what.contains("dirent-name-") || what.contains("dirent-order"), "{what}");
            assert!(!canary.out().exists(), "{what}");
            canary.assert_untouched(&what);
            assert!(!Path::new("/tmp/escaped-by-fsck-tesserafs").exists());
        }
    }
}

#[test]
fn nothing_is_extracted_through_a_symlink() {
    // A directory of the name of a symlink before it, with a file in it.
    let mut draft = Draft::empty();
    draft.directory(1, 2, 3, 0);
    draft.symlink(b"../outside");
    draft.directory(1, 1, 2, 0);
    draft.inode(DraftInode { file_type: 1, ..inode(1) });
    draft.dirent(b"a", 2, 3);
    draft.dirent(b"a", 3, 2);
    draft.dirent(b"escaped", 4, 1);
    draft.seal();
    let canary = Canary::new(&draft.image());
    assert_eq!(canary.extract().status.code(), Some(4));
    assert!(!canary.out().exists());
    canary.assert_untouched("a directory over a symlink");

    // A symlink that says to be a directory, and has entries.
    draft.dirents[1].name = b"b".to_vec();
    draft.dirents[0].file_type = 2;
    let canary = Canary::new(&draft.image());
    assert_eq!(canary.extract().status.code(), Some(4));
    assert!(!canary.out().exists());
    canary.assert_untouched("a symlink as a directory");

    // Symlinks that lead out, by several names, are what an image may have: they are made, and not followed.
    let mut draft = Draft::empty();
    draft.directory(1, 4, 2, 0);
    draft.symlink(b"../outside/file");
    draft.inodes[1].nlink = 2.into();
    draft.inodes[1].uid = 7.into();
    draft.inodes[1].mode = 0o777.into();
    draft.symlink(b"/");
    draft.symlink(b"../outside/new");
    for (name, ino) in [(b"a", 2), (b"b", 2), (b"c", 3), (b"d", 4)] {
        draft.dirent(name, ino, 3);
    }
    draft.seal();
    let canary = Canary::new(&draft.image());
    let output = canary.extract();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let link = |name: &str| fs::symlink_metadata(canary.out().join(name)).expect("a link");
    assert_eq!((link("a").ino(), link("a").nlink()), (link("b").ino(), 2));
    assert_eq!(fs::read_link(canary.out().join("b")).expect("a link"), Path::new("../outside/file"));
    canary.assert_untouched("symlinks that lead out");
}

#[test]
fn what_is_in_the_destination_stays_as_it_is() {
    let image = Draft::sample().image();
    type Make = fn(&Path);
    let made: [(&str, Make); 6] = [
        ("a file", |out| fs::write(out, "mine").expect("written")),
        ("a symlink to nothing", |out| symlink("outside/new", out).expect("a link")),
        ("a symlink to a directory in use", |out| symlink("outside", out).expect("a link")),
        ("a symlink to a file", |out| symlink("outside/file", out).expect("a link")),
        ("a directory with a file of the image", |out| {
            fs::create_dir(out).expect("a directory");
            fs::write(out.join("big"), "mine").expect("written");
        }),
        ("a directory with a symlink instead of one", |out| {
            fs::create_dir(out).expect("a directory");
            symlink("../outside", out.join("a")).expect("a link");
        }),
    ];
    for (what, make) in made {
        let canary = Canary::new(&image);
        make(&canary.out());
        let before = states(&canary.out());
        let output = canary.extract();
        assert_eq!(output.status.code(), Some(8), "{what}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("nothing was extracted"), "{what}: {}", text(&output.stderr));
        assert_eq!(states(&canary.out()), before, "{what}");
        canary.assert_untouched(what);
    }
    // The way there is the user's: a symlink in it is followed, and only the destination is made.
    let canary = Canary::new(&many_directories(1, 1).image());
    fs::create_dir(canary.out()).expect("a directory");
    symlink(canary.out(), canary.bench.path("outside/way")).expect("a link");
    let dir = canary.bench.path("outside/way/tree");
    let output = canary.bench.run([OsStr::new("--extract"), dir.as_os_str()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_dir(canary.out()).expect("a directory").count(), 1);
    assert!(canary.out().join("tree/dir000/file000").is_file());
    fs::remove_file(canary.bench.path("outside/way")).expect("removed");
    let now = states(&canary.bench.path("outside/dir"));
    assert!(now.iter().all(|(path, state)| canary.before[path] == *state));
}
