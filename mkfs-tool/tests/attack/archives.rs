// SPDX-License-Identifier: GPL-2.0-or-later

//! Archives that lead out of themselves, are larger than anything, or end too soon.

use std::fs::{self, OpenOptions};

use crate::archive::Archive;
use crate::common::{noise, read_image, Sandbox};
use crate::{assert_plain, end};

/// A file of 2^63-1 bytes.
const LARGEST: u64 = (1 << 63) - 1;

/// Builds from an archive that must be refused for this reason, and in any case ends soon and leaves nothing.
fn refused(archive: &[u8], reason: &str) {
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", archive);
    let output = end(sandbox.command(["--tar", "a.tar", "image"]));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{reason}: {text}");
    assert!(text.contains(reason), "{reason}: {text}");
    assert_plain(&output);
    assert_eq!(sandbox.names(), ["a.tar"]);
}

#[test]
fn an_archive_reaches_nothing_outside_of_itself() {
    type Make = fn(&mut Archive) -> &mut Archive;
    let refusals: [(Make, &str); 12] = [
        (|a| a.file("..", b"x"), "by way of .."),
        (|a| a.file("a/../..", b"x"), "by way of .."),
        (|a| a.dir("/../etc"), "by way of .."),
        (|a| a.link(b'2', "../../etc/cron.d/x", "y"), "by way of .."),
        (|a| a.pax(b'x', &[(b"path", b"a/../../x")]).file("harmless", b"x"), "by way of .."),
        (|a| a.raw(b"long", b'L', b"", b"../x\0", |_| {}).file("harmless", b"x"), "by way of .."),
        // A link first, and then something through it.
        (|a| a.link(b'2', "etc", "/etc").file("etc/passwd", b"x"), "no directory"),
        (|a| a.link(b'2', "up", "..").link(b'1', "own", "up/passwd"), "not in the archive"),
        (|a| a.link(b'1', "own", "/etc/passwd"), "not in the archive"),
        (|a| a.link(b'1', "self", "self"), "not in the archive"),
        (|a| a.link(b'1', "early", "late").file("late", b"x"), "not in the archive"),
        (|a| a.pax(b'x', &[(b"linkpath", b"../../etc/passwd")]).link(b'1', "own", "x"), "not in the archive"),
    ];
    for (make, reason) in refusals {
        refused(&make(&mut Archive::default()).end(), reason);
    }

    let sandbox = Sandbox::new();
    let mut archive = Archive::default();
    archive.file("/etc/passwd", b"own").link(b'2', "out", "../../../etc/passwd").link(b'1', "again", "out");
    sandbox.write("a.tar", archive.link(b'1', "etc/hard", "//./etc/passwd").end());
    sandbox.mkfs(["--tar", "a.tar", "image"]);
    let read = read_image(&sandbox.path("image"));
    assert_eq!(read.items.keys().collect::<Vec<_>>(), ["/", "again", "etc", "etc/hard", "etc/passwd", "out"]);
    // A link is itself, also by another name; its target was not looked at.
    assert_eq!((read.item("again").kind, read.item("again").ino), ('l', read.item("out").ino));
    assert_eq!(read.item("etc/hard").bytes, b"own");
}

/// A number in the form that headers have for numbers that are too large for octal digits.
fn binary(number: u64) -> [u8; 12] {
    let mut field = [0; 12];
    field[0] = 0x80;
    field[4..].copy_from_slice(&number.to_be_bytes());
    field
}

/// A file of `size` bytes in GNU's old form for sparse files: `map` is in the header, 4 pairs at most.
fn old_sparse(size: u64, map: &[(u64, u64)], bytes: &[u8]) -> Vec<u8> {
    let edit = |header: &mut [u8; 512]| {
        header[257..265].copy_from_slice(b"ustar  \0");
        for (n, (start, len)) in map.iter().enumerate() {
            header[386 + n * 24..][..12].copy_from_slice(&binary(*start));
            header[398 + n * 24..][..12].copy_from_slice(&binary(*len));
        }
        header[483..495].copy_from_slice(&binary(size));
    };
    Archive::default().raw(b"bomb", b'S', b"", bytes, edit).end()
}

/// The same in GNU's form for PAX, version 0.1 or 1.0.
fn pax_sparse(size: &str, map: &str, bytes: &[u8]) -> Vec<u8> {
    let mut archive = Archive::default();
    let records: &[(&[u8], &[u8])] = match map {
        "" => &[(b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", size.as_bytes())],
        _ => &[(b"GNU.sparse.map", map.as_bytes()), (b"GNU.sparse.size", size.as_bytes())],
    };
    archive.pax(b'x', records).file("bomb", bytes).end()
}

#[test]
fn sparse_bombs_are_holes_or_refused() {
    let largest = LARGEST.to_string();
    let last = format!("{},1", LARGEST - 1);
    let in_front = [b"1\n9223372036854775806\n1\n".as_slice(), &[0; 489], b"x"].concat();
    for archive in [
        old_sparse(LARGEST, &[(LARGEST - 1, 1)], b"x"),
        pax_sparse(&largest, &last, b"x"),
        pax_sparse(&largest, "", &in_front),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("a.tar", archive);
        let output = end(sandbox.command(["--tar", "a.tar", "image"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let read = read_image(&sandbox.path("image"));
        assert_eq!(read.item("bomb").size, LARGEST);
        assert!(read.item("bomb").holes > LARGEST - 8192);
        assert!(read.bytes.len() < 1 << 20);
    }
    let too_large = (LARGEST + 1).to_string();
    for archive in [
        old_sparse(LARGEST + 1, &[], b""),
        old_sparse(u64::MAX, &[(u64::MAX - 1, 1)], b"x"),
        pax_sparse(&too_large, &last, b"x"),
        // Overlapping, descending, beyond the end, more than is there, a map that is none.
        old_sparse(100, &[(0, 50), (40, 50)], &[1; 100]),
        old_sparse(100, &[(50, 10), (0, 10)], &[1; 100]),
        old_sparse(100, &[(100, 10)], &[1; 100]),
        old_sparse(100_000, &[(0, 600)], &[1; 512]),
        old_sparse(u64::MAX, &[(u64::MAX, u64::MAX)], &[1; 512]),
        pax_sparse("100", "0", b"x"),
        pax_sparse("100", "0,x", b"x"),
        pax_sparse("100", "", b"99999999999999999999999999"),
        pax_sparse("100", "", b"18446744073709551615\n"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write("a.tar", archive);
        let output = end(sandbox.command(["--tar", "a.tar", "image"]));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("a.tar at byte"), "{text}");
        assert_eq!(sandbox.names(), ["a.tar"]);
    }
}

/// Writes an archive that begins with a header of so many bytes. They are zeros, and take no place on the
/// disk.
fn with_huge_header(sandbox: &Sandbox, kind: u8, size: u64) {
    let mut archive = Archive::default();
    archive.raw(b"pax", kind, b"", b"", |header| header[124..136].copy_from_slice(&binary(size)));
    let path = sandbox.write("a.tar", &archive.end()[..512]);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(1536 + size.next_multiple_of(512)).unwrap();
}

#[test]
fn headers_without_measure_are_refused() {
    for (kind, size, reason) in [
        (b'x', (64 << 20) + 1, "a header of 67108865 bytes"),
        (b'g', 1 << 40, "a header of 1099511627776 bytes"),
        (b'L', 1 << 40, "a header of"),
        (b'K', (64 << 20) + 1, "a header of"),
    ] {
        let sandbox = Sandbox::new();
        with_huge_header(&sandbox, kind, size);
        let error = sandbox.refused(1, ["--tar", "a.tar", "image"]);
        assert!(error.contains(reason), "{error}");
        assert_eq!(sandbox.names(), ["a.tar"]);
    }
    let long = vec![b'n'; 1 << 20];
    let target = vec![b't'; 4096];
    let many = b"d/".repeat(1000);
    let mut huge = Archive::default();
    huge.raw(b"pax", b'x', b"", b"", |header| header[124..136].copy_from_slice(&binary(u64::MAX >> 1)));
    for (archive, reason) in [
        (Archive::default().pax(b'x', &[(b"path", &long)]).file("x", b"").end(), "no name for a directory"),
        (
            Archive::default().raw(b"l", b'L', b"", &long, |_| {}).file("x", b"").end(),
            "no name for a directory",
        ),
        (Archive::default().pax(b'x', &[(b"linkpath", &target)]).link(b'2', "x", "").end(), "its target"),
        (Archive::default().link(b'2', "x", "").end(), "its target"),
        (Archive::default().pax(b'x', &[(b"path", &many)]).link(b'1', "x", "x").end(), "not in the archive"),
        (huge.end(), "a header of"),
        (Archive::default().pax(b'x', &[(b"size", b"99999999999")]).file("x", b"x").end(), "cut off"),
        (Archive::default().pax(b'x', &[(b"uid", b"4294967296")]).file("x", b"x").end(), "32 bits"),
        (Archive::default().pax(b'x', &[(b"uid", b"4294967295")]).file("x", b"x").end(), "no owner"),
        (Archive::default().pax(b'x', &[(b"mtime", b"99999999999")]).file("x", b"x").end(), "its mtime"),
    ] {
        refused(&archive, reason);
    }
}

#[test]
fn an_archive_is_refused_wherever_it_is_cut_but_between_entries() {
    let mut archive = Archive::default();
    // Where the bytes of an entry end, and where its padding does.
    let mut ends = Vec::new();
    let mut end = |archive: &Archive, padding: usize| {
        let len = archive.end().len() - 1024;
        ends.push(len - padding..=len);
    };
    end(archive.pax(b'g', &[(b"comment", b"all")]), 512 - b"15 comment=all\n".len());
    end(archive.dir("d"), 0);
    end(archive.pax(b'x', &[(b"mtime", b"1.5")]).file("d/f", &noise(1, 3000)), 72);
    archive.raw(b"long", b'L', b"", &[b'n'; 200], |_| {});
    end(archive.file("cut", b"x"), 511);
    end(archive.link(b'2', "l", "d/f"), 0);
    end(archive.link(b'1', "h", "l"), 0);
    let whole = archive.end();
    let sandbox = Sandbox::new();
    for len in (0..whole.len() - 1024).step_by(173).chain((0..whole.len() - 1024).step_by(512)) {
        sandbox.write("a.tar", &whole[..len]);
        if ends.iter().any(|end| end.contains(&len)) {
            assert!(sandbox.mkfs(["-f", "--tar", "a.tar", "image"]).contains("no end mark"), "{len}");
            fs::remove_file(sandbox.path("image")).unwrap();
            continue;
        }
        let error = sandbox.refused(1, ["--tar", "a.tar", "image"]);
        assert!(error.contains("a.tar"), "{len}: {error}");
        assert_eq!(sandbox.names(), ["a.tar"], "{len}");
    }
    // The first record of zeros ends it.
    sandbox.write("a.tar", &whole[..whole.len() - 512]);
    assert!(!sandbox.mkfs(["--tar", "a.tar", "image"]).contains("no end mark"));
    assert_eq!(read_image(&sandbox.path("image")).items.len(), 6);
}
