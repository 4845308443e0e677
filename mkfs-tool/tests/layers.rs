// SPDX-License-Identifier: GPL-2.0-or-later

//! The things that container layers and tar programs put into archives beside files: marks, access control lists, labels, and what is
//! left out of an image, which the report says.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/built.rs"]
mod built;
mod common;

use std::fs;
use std::io::Write;

use archive::Archive;
use common::{read_image, Item, Read, Sandbox};

fn keys(read: &Read) -> Vec<&str> {
    read.items.keys().map(String::as_str).collect()
}

fn xattrs(item: &Item) -> Vec<(&str, &[u8])> {
    item.xattrs.iter().map(|(name, value)| (name.as_str(), &value[..])).collect()
}

#[test]
fn whiteouts_below_an_opaque_directory_hide_nothing_and_are_left_out() {
    let (read, report) = Archive::default()
        // Before the mark, behind it, deeper, and as the device that overlayfs has.
        .file("d/.wh.before", b"")
        .file("d/.wh..wh..opq", b"")
        .file("d/.wh.behind", b"")
        .file("d/sub/.wh.deep", b"")
        .link(b'3', "d/device", "")
        .file("d/kept", b"x")
        // A directory that is there again is opaque, too.
        .file(".wh.again", b"")
        .file("again/.wh.x", b"")
        // As is one that the archive says so of.
        .pax(b'x', &[(b"SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("marked")
        .file("marked/.wh.x", b"")
        .pax(b'x', &[(b"SCHILY.xattr.trusted.overlay.opaque", b"n")])
        .dir("other")
        .file("other/.wh.x", b"")
        .image_and_report(&["-v"]);
    assert_eq!(keys(&read), ["/", "again", "d", "d/kept", "d/sub", "marked", "other", "other/x"]);
    assert!(report.contains("left out: 6 whiteouts"), "{report}");
    for name in ["d/before", "d/behind", "d/sub/deep", "d/device", "again/x", "marked/x"] {
        assert!(report.contains(&format!("  {name}: a whiteout")), "{name}: {report}");
    }
}

#[test]
fn the_mark_of_a_root_hides_nothing() {
    let read = Archive::default().file(".wh..wh..opq", b"").file(".wh.x", b"").file("a/.wh.y", b"").image();
    assert_eq!(keys(&read), ["/", "a", "a/y", "x"]);
    assert_eq!(read.item("/").xattrs.len(), 2);
}

#[test]
fn files_of_aufs_are_no_part_of_a_tree_but_links_to_them_are_good() {
    let (read, report) = Archive::default()
        .file(".wh..wh.aufs", b"")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/1.2", b"shared")
        .file("d/.wh..wh.orph/x", b"")
        // As AUFS made its whiteouts.
        .link(b'1', "d/.wh.gone", ".wh..wh.aufs")
        .link(b'1', "d/f", ".wh..wh.plnk/1.2")
        .link(b'1', "g", ".wh..wh.plnk/1.2")
        .image_and_report(&[]);
    assert_eq!(keys(&read), ["/", "d", "d/f", "d/gone", "g"]);
    assert_eq!((read.item("g").nlink, &*read.item("d/f").bytes), (2, &b"shared"[..]));
    assert!(report.contains("left out: 3 names of files of AUFS"), "{report}");
}

#[test]
fn nothing_lies_below_a_whiteout() {
    for path in ["a/.wh.b/c", "a/.wh..wh..opq/c"] {
        let error = Archive::default().file(path, b"").refusal();
        assert!(error.contains(&format!("{path}: lies below the OCI whiteout a/")), "{error}");
    }
}

#[test]
fn xattrs_labels_and_lists_of_all_writers_are_read() {
    let acl = b"user::rw-,user:alice:rw-,group::r--,group:7:---,mask::rw-,other::---";
    let read = Archive::default()
        .pax(
            b'x',
            &[
                (b"SCHILY.xattr.user.a%3Db%25", b"1"),
                (b"RHT.security.selinux", b"system_u:object_r:etc_t:s0"),
                (b"SCHILY.acl.access", acl),
            ],
        )
        .file("gnu", b"x")
        .pax(b'x', &[(b"SCHILY.xattr.user.a%3Db", b"1"), (b"LIBARCHIVE.xattr.user.a%253Db", b"MQ")])
        .file("libarchive", b"x")
        // The name of a later header serves, too.
        .pax(b'x', &[(b"uname", b"alice"), (b"uid", b"1000")])
        .file("hers", b"x")
        .pax(b'x', &[(b"SCHILY.acl.default", b"user::rwx\ngroup::r-x\nother::---\n")])
        .dir("d")
        .image();
    let entry = |tag: u16, bits: u16, id: u32| {
        [tag.to_le_bytes(), bits.to_le_bytes()].concat().into_iter().chain(id.to_le_bytes())
    };
    let list = |entries: &[(u16, u16, u32)]| -> Vec<u8> {
        let entries = entries.iter().flat_map(|(tag, bits, id)| entry(*tag, *bits, *id));
        [2, 0, 0, 0].into_iter().chain(entries).collect()
    };
    let none = u32::MAX;
    let access = list(&[(1, 6, none), (2, 6, 1000), (4, 4, none), (8, 0, 7), (16, 6, none), (32, 0, none)]);
    let gnu = read.item("gnu");
    // The group's bits are those of the mask.
    assert_eq!(gnu.mode, 0o660);
    let expected: [(&str, &[u8]); 3] = [
        ("security.selinux", b"system_u:object_r:etc_t:s0\0"),
        ("system.posix_acl_access", &access),
        ("user.a=b%", b"1"),
    ];
    assert_eq!(xattrs(gnu), expected);
    assert_eq!(xattrs(read.item("libarchive")), [("user.a%3Db", &b"1"[..])]);
    let default = list(&[(1, 7, none), (4, 5, none), (32, 0, none)]);
    assert_eq!(xattrs(read.item("d")), [("system.posix_acl_default", &default[..])]);
}

#[test]
fn a_list_that_names_an_unknown_user_is_refused_with_a_way_out() {
    let acl: &[(&[u8], &[u8])] =
        &[(b"SCHILY.acl.access", b"user::rw-,user:root:r--,group::r--,mask::r--,other::---")];
    let error = Archive::default().pax(b'x', acl).file("d/f", b"x").refusal();
    assert!(
        error.contains("d/f: ") && error.contains("user root") && error.contains("--acl-names=host"),
        "{error}"
    );
    // A file that is replaced needs no list.
    Archive::default().pax(b'x', acl).file("f", b"x").file("f", b"y").image();
    let (read, _) = Archive::default().pax(b'x', acl).file("f", b"x").image_and_report(&["--acl-names=host"]);
    assert_eq!(read.item("f").xattrs[0].1[12..20], *b"\x02\0\x04\0\0\0\0\0");
}

#[test]
fn what_no_image_holds_is_counted_and_named() {
    let archive = || {
        let mut archive = Archive::default();
        archive
            .pax(b'x', &[(b"SCHILY.xattr.system.nfs4_acl", b"x"), (b"SCHILY.acl.ace", b"x")])
            .file("f", b"x")
            .pax(b'x', &[(b"SCHILY.acl.access", b"u::rwx,g::rwx,o::rwx"), (b"SCHILY.acl.default", b"u::rwx")])
            .link(b'2', "l", "f");
        archive
    };
    let (_, report) = archive().image_and_report(&["--verbose"]);
    assert!(report.contains("left out: 4 xattrs"), "{report}");
    for line in ["f: xattr system.nfs4_acl", "f: xattr SCHILY.acl.ace", "l: xattr SCHILY.acl.access"] {
        assert!(report.contains(line), "{report}");
    }
    let (_, report) = archive().image_and_report(&[]);
    assert!(report.contains("left out: 4 xattrs") && !report.contains("nfs4_acl"), "{report}");
    // --quiet hides the report, not that.
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", archive().end());
    let output = sandbox.run(["--quiet", "--tar", "a.tar", "image"]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("left out: 4 xattrs"));
    let report = sandbox.report(["-f", "-v", "--tar", "a.tar", "image"]);
    assert_eq!(report["left_out"]["xattrs"], 4);
    assert_eq!(report["left_out"]["names"][0]["name"], "f");
}

#[test]
fn what_follows_the_end_mark_is_counted() {
    let one = Archive::default().file("one", b"1").end();
    let two = Archive::default().file("two", b"2").end();
    let sandbox = Sandbox::new();
    for (archive, bytes, what) in [
        ([&one[..], &two].concat(), two.len(), "another archive begins there"),
        // A record of zeros alone ends an archive to tar, bsdtar and Python, too.
        ([&one[..one.len() - 512], &two].concat(), two.len(), "another archive begins there"),
        ([&one[..], &[0; 5000], b"garbage"].concat(), 7, "behind the end mark"),
    ] {
        sandbox.write("a.tar", &archive);
        let report = sandbox.mkfs(["-f", "--tar", "a.tar", "image"]);
        assert!(report.contains(&format!("left out: {bytes} bytes")) && report.contains(what), "{report}");
        assert_eq!(keys(&read_image(&sandbox.path("image"))), ["/", "one"]);
    }
    sandbox.write("a.tar", [&one[..], &[0; 20_000]].concat());
    assert!(!sandbox.mkfs(["-f", "--tar", "a.tar", "image"]).contains("left out"));
}

#[test]
fn directories_without_an_entry_are_counted_and_named() {
    let (_, report) = Archive::default()
        .dir("./")
        .file("tmp/x/y", b"")
        .file("later/x", b"")
        .dir("later")
        .image_and_report(&["-v"]);
    assert!(report.contains("note: 2 directories without an entry"), "{report}");
    assert!(
        report.contains("  tmp: a directory without") && report.contains("  tmp/x: a directory"),
        "{report}"
    );
    let (_, report) = Archive::default().dir(".").dir("tmp").file("tmp/x", b"").image_and_report(&[]);
    assert!(!report.contains("without an entry"), "{report}");
}

#[test]
fn a_part_of_an_archive_can_be_the_root() {
    let archive = || {
        let mut archive = Archive::default();
        archive
            .file("metadata.yaml", b"m")
            .raw(b"./rootfs/", b'5', b"", b"", |header| header[100..107].copy_from_slice(b"0000700"))
            .file("rootfs/etc/x", b"x")
            .link(b'1', "rootfs/y", "rootfs/etc/x");
        archive
    };
    for (options, left_out) in [(["--prefix", "/rootfs"], 1), (["--strip", "1"], 1)] {
        let (read, report) = archive().image_and_report(&options);
        assert_eq!((keys(&read), read.item("/").mode), (vec!["/", "etc", "etc/x", "y"], 0o700));
        assert_eq!((read.item("y").nlink, &*read.item("y").bytes), (2, &b"x"[..]));
        assert!(report.contains(&format!("left out: {left_out} entries")), "{report}");
    }
    for (options, reason) in [
        (["--prefix", "nowhere"], "no directory nowhere"),
        (["--prefix", "metadata.yaml"], "no directory metadata.yaml"),
        (["--strip", "3"], "a/b/c/d: a hard link to rootfs/y, which --strip leaves out"),
    ] {
        let error = archive().link(b'1', "a/b/c/d", "rootfs/y").refusal_with(&options);
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn times_out_of_range_are_clamped_where_that_is_asked_for() {
    let archive = || {
        let mut archive = Archive::default();
        archive
            .pax(b'x', &[(b"mtime", b"-6795351667.5")])
            .file("early", b"")
            .pax(b'x', &[(b"mtime", b"99999999999999999999")])
            .file("late", b"")
            .file("now", b"");
        archive
    };
    let error = archive().refusal();
    assert!(error.contains("early: its mtime") && error.contains("--clamp-mtime"), "{error}");
    let (read, _) = archive().image_and_report(&["--clamp-mtime"]);
    let times = ["early", "late", "now"].map(|name| read.item(name).mtime);
    assert_eq!(times, [(-(1 << 31), 0), ((1 << 34) - (1 << 31) - 1, 999_999_999), (100, 0)]);
}

#[test]
fn zeros_behind_compressed_data_say_nothing_and_other_bytes_are_refused() {
    let plain = Archive::default().file("f", b"x").end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let sandbox = Sandbox::new();
    for packed in [gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()] {
        for zeros in [1, 512, 1 << 19] {
            sandbox.write("a", [&packed[..], &vec![0; zeros]].concat());
            sandbox.mkfs(["-f", "--tar", "a", "image"]);
            assert_eq!(keys(&read_image(&sandbox.path("image"))), ["/", "f"]);
        }
        fs::remove_file(sandbox.path("image")).unwrap();
        for behind in [&b"garbage"[..], b"\0\0garbage"] {
            sandbox.write("a", [&packed[..], behind].concat());
            let error = sandbox.refused(1, ["--tar", "a", "image"]);
            let place = packed.len() + behind.len() - 7;
            assert!(error.contains(&format!("a at byte {place}: neither zeros nor another")), "{error}");
        }
    }
}

#[test]
fn archives_of_images_and_archives_as_directories_are_told_by_name() {
    let sandbox = Sandbox::new();
    let digest = "0".repeat(64);
    let docker = Archive::default()
        .file("manifest.json", b"[]")
        .file("repositories", b"{}")
        .file(&format!("{digest}/layer.tar"), b"")
        .end();
    let oci = Archive::default()
        .file("oci-layout", b"{}")
        .file("index.json", b"{}")
        .dir("blobs")
        .file("blobs/sha256/x", b"")
        .end();
    for (archive, name) in [(docker, "docker save"), (oci, "OCI layout")] {
        sandbox.write("a.tar", &archive);
        let error = sandbox.refused(1, ["--tar", "a.tar", "image"]);
        assert!(error.contains(name) && error.contains("--oci"), "{error}");
    }
    // A tree may have such a name.
    Archive::default().file("manifest.json", b"[]").file("etc/x", b"").image();
    Archive::default().file("index.json", b"[]").dir("blobs").image();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"x").unwrap();
    for archive in [Archive::default().file("f", b"").end(), gzip.finish().unwrap(), b"\xfd7zXZ\0".to_vec()] {
        sandbox.write("a.tar", archive);
        let error = sandbox.refused(1, ["image", "a.tar"]);
        assert!(error.contains("a.tar: is an archive") && error.contains("--tar"), "{error}");
    }
    sandbox.write("a.tar", b"text");
    assert!(sandbox.refused(1, ["image", "a.tar"]).contains("SOURCE must be a directory"));
    assert_eq!(sandbox.names(), ["a.tar"]);
}
