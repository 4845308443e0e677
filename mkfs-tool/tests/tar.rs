// SPDX-License-Identifier: GPL-2.0-or-later

//! Archives: every dialect, the same tree as from a directory, and refusals.

#[path = "common/archive.rs"]
mod archive;
#[path = "common/built.rs"]
mod built;
mod common;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use archive::Archive;
use common::{noise, read_image, Read, Sandbox};

fn keys(read: &Read) -> Vec<&str> {
    read.items.keys().map(String::as_str).collect()
}

#[test]
fn plain_entries_have_their_attributes_and_missing_parents_the_default() {
    let read = Archive::default()
        .file("./a/b/file", b"bytes")
        .link(b'2', "/a/symlink", "../x")
        .link(b'1', "hard", "a/b/file")
        .link(b'6', "fifo", "")
        .link(b'3', "whiteout", "")
        .image();
    assert_eq!(keys(&read), ["/", "a", "a/b", "a/b/file", "a/symlink", "fifo", "hard", "whiteout"]);
    let file = read.item("hard");
    assert_eq!((file.mode, file.uid, file.gid, file.mtime, file.nlink), (0o644, 1, 2, (100, 0), 2));
    assert_eq!((&*file.bytes, file), (&b"bytes"[..], read.item("a/b/file")));
    assert_eq!(read.item("a/symlink").bytes, b"../x");
    assert_eq!((read.item("fifo").kind, read.item("whiteout").kind), ('p', 'w'));
    for name in ["/", "a", "a/b"] {
        let dir = read.item(name);
        assert_eq!((dir.mode, dir.uid, dir.gid, dir.mtime), (0o755, 0, 0, (0, 0)));
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let read = Archive::default()
        .file("f", b"old")
        .file("f", b"new")
        .file("dir/kept", b"x")
        .dir("dir")
        .file("gone/x", b"x")
        .file("gone", b"a file now")
        .link(b'2', "was-link", "x")
        .dir("was-link")
        .dir("./")
        .image();
    assert_eq!(keys(&read), ["/", "dir", "dir/kept", "f", "gone", "was-link"]);
    assert_eq!(read.item("f").bytes, b"new");
    assert_eq!((read.item("dir").uid, read.item("/").uid), (1, 1));
    assert_eq!((read.item("gone").kind, read.item("was-link").kind), ('f', 'd'));
}

#[test]
fn pax_records_count_more_than_headers() {
    let long = "n".repeat(200);
    let capability = b"\x01\0\0\x02\x0a\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let name = format!("dir/{long}");
    let read = Archive::default()
        .pax(b'g', &[(b"mtime", b"5.25"), (b"comment", b"x")])
        .pax(
            b'x',
            &[
                (b"path", name.as_bytes()),
                (b"uid", b"4000000000"),
                (b"mtime", b"-1.5"),
                (b"SCHILY.xattr.security.capability", capability),
                (b"SCHILY.xattr.user.k=v\n", b""),
                (b"SCHILY.xattr.odd.name", b"x"),
            ],
        )
        .file("short", b"x")
        .pax(b'x', &[(b"linkpath", long.as_bytes()), (b"mtime", b"")])
        .link(b'2', "l", "short")
        .file("global", b"y")
        .image();
    let file = read.item(&name);
    assert_eq!((file.uid, file.gid, file.mtime), (4_000_000_000, 2, (-2, 500_000_000)));
    // The key ends at the first equals sign.
    let xattrs =
        [("security.capability".to_owned(), capability.to_vec()), ("user.k".to_owned(), b"v\n=".to_vec())];
    assert_eq!(file.xattrs, xattrs);
    assert_eq!(read.item("l").bytes, long.as_bytes());
    assert_eq!(read.item("l").mtime, (100, 0));
    assert_eq!(read.item("global").mtime, (5, 250_000_000));
}

/// A global header between a header and its entry took back the name that the former gives.
#[test]
fn what_is_said_of_one_entry_counts_more_than_what_is_said_of_all() {
    for swapped in [false, true] {
        let own: &[(&[u8], &[u8])] = &[(b"path", b"long"), (b"uid", b"9"), (b"GNU.sparse.name", b"")];
        let all: &[(&[u8], &[u8])] = &[(b"path", b"all"), (b"uid", b"7"), (b"mtime", b"5")];
        let mut archive = Archive::default();
        if swapped {
            archive.pax(b'g', all).pax(b'x', own);
        } else {
            archive.pax(b'x', own).pax(b'g', all);
        }
        let read = archive.file("short", b"x").pax(b'x', &[(b"path", b"")]).file("next", b"").image();
        assert_eq!(keys(&read), ["/", "long", "next"], "{swapped}");
        let of = |path| (read.item(path).uid, read.item(path).mtime);
        assert_eq!([of("long"), of("next")], [(9, (5, 0)), (7, (5, 0))]);
    }
}

#[test]
fn headers_of_one_entry_have_64_mib_at_most() {
    let half = vec![b'v'; 33 << 20];
    let error = Archive::default()
        .pax(b'x', &[(b"comment", &half)])
        .pax(b'x', &[(b"comment", &half)])
        .file("x", b"")
        .refusal();
    assert!(error.contains("PAX headers of 69206") && error.contains("for one entry"), "{error}");
}

#[test]
fn gnu_long_names_and_binary_numbers_are_read() {
    let name = format!("{}/{}", "d".repeat(150), "f".repeat(200));
    let target = "t".repeat(3000);
    let with_nul = |text: &str| [text.as_bytes(), b"\0"].concat();
    let read = Archive::default()
        .raw(b"././@LongLink", b'L', b"", &with_nul(&name), |_| {})
        .raw(b"././@LongLink", b'K', b"", &with_nul(&target), |_| {})
        .raw(b"cut", b'2', b"cut", b"", |header| {
            header[257..265].copy_from_slice(b"ustar  \0");
            // 2^32-2 and -3 in base 256.
            header[108..116].copy_from_slice(b"\x80\0\0\0\xff\xff\xff\xfe");
            header[136..148].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfd");
        })
        .raw(b"name", b'0', b"", b"x", |header| header[345..351].copy_from_slice(b"prefix"))
        .image();
    let link = read.item(&name);
    assert_eq!((link.uid, link.mtime, &*link.bytes), (u32::MAX - 1, (-3, 0), target.as_bytes()));
    assert_eq!(read.item("prefix/name").bytes, b"x");
}

#[test]
fn oci_whiteouts_become_whiteouts_and_opaque_directories() {
    let read = Archive::default()
        .file("dir/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .dir("opaque")
        // A whiteout never hides a file of its own layer.
        .file("file", b"here")
        .file(".wh.file", b"")
        .file(".wh.file2", b"")
        .file("file2", b"here")
        .dir("again1")
        .file(".wh.again1", b"")
        .file(".wh.again2", b"")
        .file("again2/x", b"")
        .image();
    let gone = read.item("dir/gone");
    assert_eq!((gone.kind, gone.mode, gone.uid, gone.mtime), ('w', 0, 0, (100, 0)));
    // overlayfs reads the one, or with its option `userxattr` the other.
    let opaque =
        ["trusted.overlay.opaque", "user.overlay.opaque"].map(|name| (name.to_owned(), b"y".to_vec()));
    assert_eq!((&read.item("opaque").xattrs[..], read.item("opaque").uid), (&opaque[..], 1));
    assert_eq!((read.item("again1").xattrs == opaque, read.item("again2").xattrs == opaque), (true, true));
    assert_eq!((&*read.item("file").bytes, &*read.item("file2").bytes), (&b"here"[..], &b"here"[..]));
    assert!(!read.items.keys().any(|name| name.contains(".wh.")));
}

#[test]
fn paths_that_leave_the_archive_and_other_nonsense_are_refused() {
    for (archive, reason) in [
        (Archive::default().file("../x", b""), "by way of .."),
        (Archive::default().file("a/../../x", b""), "by way of .."),
        (Archive::default().link(b'1', "a", "../../etc/passwd"), "not in the archive"),
        (Archive::default().link(b'1', "a", "nowhere"), "not in the archive"),
        (Archive::default().dir("d").link(b'1', "a", "d"), "a hard link to the directory"),
        (Archive::default().file(".wh.a", b"").link(b'1', "b", "a").file("a/x", b""), "which is a whiteout"),
        (
            Archive::default().link(b'2', "b/a", "d").file("b/a/x", b""),
            "b/a/x: lies below b/a, which is a symlink",
        ),
        (
            Archive::default().file("f", b"").file("./f/x", b""),
            "f/x: lies below f, which is a file, no directory",
        ),
        (Archive::default().file(".wh.", b""), "without a name"),
        (Archive::default().file(".", b"x"), "not a directory"),
        (Archive::default().link(b'2', "/", "x"), "not a directory"),
        (Archive::default().raw(b"x", b'A', b"", b"", |_| {}), "Solaris"),
        (Archive::default().raw(b"x", b'M', b"", b"", |_| {}), "another volume"),
        (Archive::default().link(b'3', "null", "").raw(b"sda", b'4', b"", b"", |_| {}), "--devices=skip"),
        (Archive::default().pax(b'x', &[(b"path", b"a\0b")]).file("x", b""), "name"),
        (Archive::default().raw(b"x", b'x', b"", b"99 path=x\n", |_| {}).file("x", b""), "PAX"),
    ] {
        let error = archive.refusal();
        assert!(error.contains(reason), "{reason}: {error}");
    }
}

#[test]
fn an_archive_that_is_cut_off_or_none_is_refused() {
    let whole = Archive::default().file("a", &noise(1, 3000)).file("b", b"b").end();
    let sandbox = Sandbox::new();
    for len in [0, 100, 512, 2000, 512 + 3072 + 200, 512 + 3072 + 512] {
        sandbox.write("a.tar", &whole[..len]);
        sandbox.refused(1, ["--tar", "a.tar", "image"]);
    }
    let mut damaged = whole.clone();
    damaged[3] ^= 1;
    sandbox.write("a.tar", &damaged);
    assert!(sandbox.refused(1, ["--tar", "a.tar", "image"]).contains("checksum"));
    sandbox.write("a.tar", b"\xfd7zXZ\0 and so on");
    assert!(sandbox.refused(1, ["--tar", "a.tar", "image"]).contains("xz -dc"));
    assert_eq!(sandbox.names(), ["a.tar"]);
}

/// Builds from standard input.
fn from_pipe(sandbox: &Sandbox, image: &str, bytes: &[u8]) -> std::process::ExitStatus {
    let mut child = sandbox.command(["-q", "--tar", "-", image]).stdin(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(bytes);
    child.wait().unwrap()
}

#[test]
fn compression_and_pipes_make_no_difference() {
    let mut archive = Archive::default();
    for i in 0..30_u64 {
        archive.file(&format!("d/{i}"), &noise(i % 20, 1 << (i % 20)));
    }
    let plain = archive.end();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let sandbox = Sandbox::new();
    sandbox.write("plain", &plain);
    sandbox.mkfs(["--tar", "plain", "image"]);
    let expected = fs::read(sandbox.path("image")).unwrap();
    for (name, bytes) in [("a.gz", &gzip), ("a.zst", &zstd), ("a.tar", &plain)] {
        sandbox.write(name, bytes);
        sandbox.mkfs(["--force", "--tar", name, "image"]);
        assert!(fs::read(sandbox.path("image")).unwrap() == expected, "{name}");
        fs::remove_file(sandbox.path("image")).unwrap();
        assert!(from_pipe(&sandbox, "image", bytes).success());
        assert!(fs::read(sandbox.path("image")).unwrap() == expected, "{name} from a pipe");
    }
    // A pipe that gives a byte at first.
    fs::remove_file(sandbox.path("image")).unwrap();
    for bytes in [&gzip, &zstd, &plain] {
        let mut child =
            sandbox.command(["-qf", "--tar", "-", "image"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        pipe.write_all(&bytes[..1]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(300));
        pipe.write_all(&bytes[1..]).unwrap();
        drop(pipe);
        assert!(child.wait().unwrap().success());
        assert!(fs::read(sandbox.path("image")).unwrap() == expected);
    }
    // Cut off in the middle.
    fs::remove_file(sandbox.path("image")).unwrap();
    for bytes in [&gzip, &zstd, &plain] {
        assert_eq!(from_pipe(&sandbox, "image", &bytes[..bytes.len() / 2]).code(), Some(1));
    }
    assert!(!sandbox.path("image").exists());
}

#[test]
fn the_tar_program_gives_what_the_directory_gives() {
    let sandbox = Sandbox::new();
    let mut sparse = vec![0; 1 << 20];
    sparse.extend(noise(1, 10_000));
    sparse.resize(3 << 20, 0);
    sparse.extend(noise(2, 100));
    sandbox.write("src/plain", noise(3, 500_000));
    sandbox.write(&format!("src/{}/{}", "d".repeat(120), "f".repeat(200)), "long");
    let file = fs::File::create(sandbox.path("src/sparse")).unwrap();
    for (at, range) in [(1_u64 << 20, 1 << 20..(1 << 20) + 10_000), (3 << 20, 3 << 20..sparse.len())] {
        std::os::unix::fs::FileExt::write_all_at(&file, &sparse[range], at).unwrap();
    }
    // Many segments: more than one header holds.
    let file = fs::File::create(sandbox.path("src/many")).unwrap();
    for i in 0..60_u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(i, 4096), i << 16).unwrap();
    }
    fs::hard_link(sandbox.path("src/plain"), sandbox.path("src/zz")).unwrap();
    std::os::unix::fs::symlink("plain", sandbox.path("src/link")).unwrap();
    let epoch = |args: &[&str]| {
        let status = sandbox.command(args).env("SOURCE_DATE_EPOCH", "1").status().unwrap();
        assert!(status.success(), "{args:?}");
    };
    epoch(&["-q", "image", "src"]);
    let expected = fs::read(sandbox.path("image")).unwrap();
    assert!(read_image(&sandbox.path("image")).item("sparse").bytes == sparse);
    for format in [
        &["--format=gnu"][..],
        &["--format=gnu", "--sparse"],
        &["--format=posix"],
        &["--format=posix", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
    ] {
        let made = Command::new("tar")
            .args(format)
            .args(["-C", "src", "-cf", "a.tar", "."])
            .current_dir(sandbox.path("."))
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("no GNU tar; this test needs it");
            return;
        }
        epoch(&["-q", "--force", "--tar", "a.tar", "image2"]);
        assert!(fs::read(sandbox.path("image2")).unwrap() == expected, "{format:?}");
    }
}

#[test]
fn directories_in_directories_take_time_by_their_number() {
    // One path; the paths of all its directories together have 490 GB.
    let depth = 700_000;
    let path = b"d/".repeat(depth);
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", Archive::default().pax(b'x', &[(b"path", &path)]).dir("cut").end());
    // Processor time, which other work of the machine does not use up; to write all paths takes many times as long.
    let program = env!("CARGO_BIN_EXE_mkfs-tesserafs");
    let output = std::process::Command::new("sh")
        .args(["-c", "ulimit -t 60; exec \"$0\" \"$@\"", program, "--json", "--tar", "a.tar", "image"])
        .current_dir(sandbox.path("."))
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["counts"]["inodes"], depth + 1, "{report}");
}

#[test]
fn what_is_said_of_all_entries_is_short() {
    // Kept for each entry, and each has no more than 512 bytes: an archive of megabytes would take terabytes.
    let value = vec![b'v'; 5000];
    let archive = Archive::default().pax(b'g', &[(b"SCHILY.xattr.user.all", &value)]).file("x", b"").end();
    let sandbox = Sandbox::new();
    sandbox.write("a.tar", archive);
    assert!(sandbox.refused(1, ["--tar", "a.tar", "image"]).contains("for all entries"));
    let halves: [&[(&[u8], &[u8])]; 2] =
        [&[(b"SCHILY.xattr.user.a", &value[..2500])], &[(b"SCHILY.xattr.user.b", &value[..2500])]];
    let error = Archive::default().pax(b'g', halves[0]).pax(b'g', halves[1]).file("x", b"").refusal();
    assert!(error.contains("for all entries"), "{error}");
    let read = Archive::default().pax(b'g', halves[0]).file("x", b"").image();
    assert_eq!(read.item("x").xattrs, [("user.a".to_owned(), value[..2500].to_vec())]);
}

#[test]
fn more_xattrs_than_an_inode_can_have_are_refused_before_they_are_compared() {
    let keys: Vec<String> = (0..100_000).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let records: Vec<(&[u8], &[u8])> = keys.iter().map(|key| (key.as_bytes(), &b""[..])).collect();
    let error = Archive::default().pax(b'x', &records).file("x", b"").refusal();
    assert!(error.contains("more names of xattrs than an inode can have"), "{error}");
}

#[test]
fn exclusion_works_on_archives_too() {
    let sandbox = Sandbox::new();
    let archive = Archive::default().file("a/x", b"bytes").link(b'1', "b", "a/x").end();
    sandbox.write("a.tar", archive);
    sandbox.mkfs(["--exclude", "a", "--tar", "a.tar", "image"]);
    let read = read_image(&sandbox.path("image"));
    assert_eq!(keys(&read), ["/", "b"]);
    assert_eq!((read.item("b").nlink, &*read.item("b").bytes), (1, &b"bytes"[..]));
}

#[test]
fn a_sparse_file_that_is_too_large_is_told_by_its_size() {
    let refusal = |size: &[u8]| {
        let records: &[(&[u8], &[u8])] = &[(b"GNU.sparse.size", size), (b"GNU.sparse.map", b"0,1")];
        Archive::default().pax(b'x', records).file("huge", b"x").refusal()
    };
    let error = refusal(b"9223372036854775808");
    assert!(error.contains("huge: a sparse file of 9223372036854775808 bytes, more than the "), "{error}");
    assert!(refusal(b"0").contains("huge: a damaged map of a sparse file"));
}

#[test]
fn files_are_read_right_beside_each_other_and_apart() {
    // Sizes and places: files that are read together, too many bytes for that, others between them, in the order of names and in none.
    let sizes = [1, 511, 512, 513, 0, 4096, 90_000, 120_000, 100_000, 3, 700, 200_000, 12, 60_000, 0, 1];
    let file = |n: usize| (format!("d/{n:03}"), noise(n as u64, sizes[n % sizes.len()]));
    let order = |step: usize| (0..80).map(move |n| n * step % 80);
    for step in [1, 7, 79] {
        let mut archive = Archive::default();
        for (place, n) in order(step).enumerate() {
            let (name, bytes) = file(n);
            if place % 9 == 4 {
                // It comes behind all others, and lies between them.
                archive.file(&format!("e/{n:03}"), &noise(1000 + n as u64, 2500));
            }
            if place % 11 == 5 {
                archive.pax(b'x', &[(b"comment", &[b'x'; 3000])]);
            }
            archive.file(&name, &bytes);
        }
        let read = archive.image();
        for n in 0..80 {
            let (name, bytes) = file(n);
            assert!(read.item(&name).bytes == bytes, "{name}, one in {step}");
        }
        for (_, n) in order(step).enumerate().filter(|(place, _)| place % 9 == 4) {
            assert!(
                read.item(&format!("e/{n:03}")).bytes == noise(1000 + n as u64, 2500),
                "{n}, one in {step}"
            );
        }
    }
}
