// SPDX-License-Identifier: GPL-2.0

//! Input that is meant to do harm, and ends that come early: an image that keeps all rules, or an error that names the
//! place; nothing outside of the image, nothing left of one that is not finished, nothing that a terminal obeys.

#[path = "common/archive.rs"]
mod archive;
mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, FileExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use archive::Archive;
use common::{noise, read_image, Sandbox};
use mkfs_tesserafs::source::dir::{DirFile, DirSource};
use mkfs_tesserafs::source::{FileTask, Filter, OpenFile, Source};
use rustix::fs::{mknodat, FileType, Mode, CWD};

/// The longest that any of these programs may take before the test takes it for one that hangs.
const HANG: Duration = Duration::from_secs(60);

/// A file of 2^63-1 bytes.
const LARGEST: u64 = (1 << 63) - 1;

/// Waits for a program, which must not hang; its output is less than a pipe holds.
fn end(mut command: Command) -> Output {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > HANG {
            child.kill().unwrap();
            panic!("it hangs: {command:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().unwrap()
}

/// The output of a program holds nothing that a terminal obeys.
fn assert_plain(output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        let obeyed = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(obeyed), "{}", bytes.escape_ascii());
    }
}

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

/// A change that somebody may make to a file while it is read.
type Swap = fn(&Path);

fn swaps() -> Vec<(&'static str, Swap)> {
    fn gone(path: &Path) {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    }
    vec![
        ("vanished", gone),
        ("grew", |path| {
            let mut file = OpenOptions::new().append(true).open(path).unwrap();
            file.write_all(b"more").unwrap();
        }),
        ("shrank", |path| OpenOptions::new().write(true).open(path).unwrap().set_len(7).unwrap()),
        ("became empty", |path| fs::write(path, b"").unwrap()),
        ("became a symlink", |path| {
            gone(path);
            symlink("/etc/passwd", path).unwrap();
        }),
        ("became a symlink to itself", |path| {
            gone(path);
            symlink("file", path).unwrap();
        }),
        ("became a FIFO", |path| {
            gone(path);
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        }),
        ("became a directory", |path| {
            gone(path);
            fs::create_dir(path).unwrap();
        }),
        ("became another file", |path| {
            let len = fs::metadata(path).unwrap().len();
            gone(path);
            fs::write(path, vec![b'o'; len as usize]).unwrap();
        }),
        ("was below something that became a symlink", |path| {
            let (dir, aside) = (path.parent().unwrap(), path.parent().unwrap().with_extension("aside"));
            fs::rename(dir, &aside).unwrap();
            symlink(&aside, dir).unwrap();
        }),
    ]
}

#[test]
fn what_is_swapped_between_walk_and_reading_is_an_error_that_names_it() {
    for (what, swap) in swaps() {
        for len in [100, 3 << 20] {
            let sandbox = Sandbox::new();
            let path = sandbox.write("tree/dir/file", noise(1, len));
            let source = DirSource::open(&sandbox.path("tree"), Filter::default()).unwrap();
            let mut tasks: Vec<FileTask<DirFile>> = Vec::new();
            source
                .walk(&mut |task| {
                    tasks.push(task);
                    Ok(())
                })
                .unwrap();
            swap(&path);
            let task = &tasks[0];
            let read = || {
                let mut open = source.open(task)?;
                open.read(0..task.size, &mut Vec::new())?;
                open.close()
            };
            let error = read().expect_err(what).to_string();
            assert!(error.contains("tree/dir/file"), "{what}: {error}");
        }
    }
}

#[test]
fn a_tree_that_is_swapped_all_the_time_gives_an_image_or_an_error() {
    let sandbox = Sandbox::new();
    for n in 0..20 {
        sandbox.write(&format!("src/{n}"), noise(n, 20_000));
    }
    let path = sandbox.write("src/dir/file", noise(1, 20_000));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The last one leaves nothing to swap.
            for (_, swap) in swaps().split_last().unwrap().1.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
                fs::write(&path, noise(1, 20_000)).unwrap();
                thread::yield_now();
                swap(&path);
                thread::yield_now();
            }
        });
        for round in 0..20 {
            let output = end(sandbox.command(["-q", "--threads", "2", "image", "src"]));
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(0) => {
                    read_image(&sandbox.path("image"));
                    fs::remove_file(sandbox.path("image")).unwrap();
                }
                Some(1) if text.contains("src/dir") => (),
                _ => {
                    stop.store(true, Ordering::Relaxed);
                    panic!("{round}: {} {text}", output.status);
                }
            }
            assert_eq!(sandbox.names(), ["src"], "{round}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Colours, clears, rings, reorders, and is no UTF-8.
const EVIL: &str = "\x1b[2J\x1b[31m\u{202e}e\x07\r\u{9b}";

#[test]
fn nothing_that_is_printed_is_obeyed_by_a_terminal() {
    let sandbox = Sandbox::new();
    let odd = OsStr::from_bytes(b"\x1b]0;title\x07\xff");
    let name = |what: &str| format!("{what}{EVIL}");
    let path = name("path");
    let archives = [
        Archive::default().file(&name("../"), b"").end(),
        Archive::default().link(b'1', "x", &name("to")).end(),
        Archive::default().dir(&name("d")).link(b'1', "x", &name("d")).end(),
        Archive::default()
            .link(b'2', &name("l"), "x")
            .file(&name("l"), b"")
            .file(&format!("{}/x", name("l")), b"")
            .end(),
        Archive::default().link(b'3', &name("null"), "").raw(b"sda\x1b[m", b'4', b"", b"", |_| {}).end(),
        Archive::default().pax(b'x', &[(b"mtime", path.as_bytes())]).file("x", b"").end(),
        Archive::default()
            .pax(b'x', &[(path.as_bytes(), b"1"), (b"uid", path.as_bytes())])
            .file("x", b"")
            .end(),
        Archive::default().pax(b'x', &[(b"uid", b"4294967295")]).file(&name("nobody"), b"").end(),
        Archive::default().pax(b'x', &[(b"linkpath", &[0x1b; 5000])]).link(b'2', &name("l"), "").end(),
        Archive::default().pax(b'x', &[(b"SCHILY.xattr.user.\x1b[m", &[0x1b; 70_000])]).file("x", b"").end(),
        Archive::default()
            .file(&"\x1b".repeat(99), b"")
            .pax(b'x', &[(b"path", &[0x1b; 300])])
            .file("x", b"")
            .end(),
    ];
    for archive in archives {
        sandbox.write("a.tar", archive);
        let output = sandbox.run(["--tar", "a.tar", "image"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!output.stderr.is_empty());
        assert_plain(&output);
    }
    sandbox.write(&path, b"PAX?");
    sandbox.write("src/x", b"x");
    let annotation = name("key=");
    let annotate = format!("{EVIL}={path}");
    for args in [
        &["--tar", &path, "image"][..],
        &["image", &name("nowhere")],
        &[&name("nowhere/"), "src"],
        &[&path, "src"],
        &["image", "src", &path],
        &["--annotate", &annotation, "image", "src"],
        &["--annotate", EVIL, "image", "src"],
        &["--annotate", &annotate, "--annotate", &annotate, "image", "src"],
        &["--exclude", &name("["), "image", "src"],
        &["--level", EVIL, "image", "src"],
        &[&name("--"), "image", "src"],
        &["--attach-signature", &path, &path],
        &["--sign-key", &path, "--sign-cert", &path, "image", "src"],
    ] {
        let output = sandbox.run(args);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
        assert_plain(&output);
    }
    // Reports of success hold none of them either: in names, targets, annotations, and the image's own name.
    sandbox.write(&format!("src/kept{path}"), b"x");
    fs::write(sandbox.path("src").join(odd), b"x").unwrap();
    symlink(EVIL, sandbox.path("src/link")).unwrap();
    for args in [&["--force"][..], &["--force", "--json"]] {
        let image = name("image");
        let output = sandbox.run(args.iter().chain(&[
            "--annotate",
            &annotate,
            "--exclude",
            "nothing\x1b",
            &image,
            "src",
        ]));
        assert!(output.status.success(), "{}", output.stderr.escape_ascii());
        assert_plain(&output);
        if args.contains(&"--json") {
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert!(!report["image"].as_str().expect("a name").contains(char::is_control));
        }
    }
}

/// The program with that limit of prlimit(1), in KiB.
fn limited(sandbox: &Sandbox, limit: &str, kib: u64, args: &[&str]) -> Output {
    let mut command = Command::new("prlimit");
    // No core for one that is aborted.
    command.args(["--core=0", &format!("--{limit}={}", kib << 10)]);
    command.arg(env!("CARGO_BIN_EXE_mkfs-tesserafs")).args(args).current_dir(sandbox.path("."));
    end(command)
}

/// A tree of small and large files, and the archive of another.
fn limited_sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    for n in 0..50 {
        sandbox.write(&format!("src/{n}"), noise(n, 1000));
    }
    sandbox.write("src/large", noise(1, 512 << 10));
    let archive = Archive::default().file("large", &noise(1, 512 << 10)).end();
    sandbox.write("a.tar.zst", zstd::encode_all(&archive[..], 1).unwrap());
    sandbox
}

#[test]
fn little_memory_is_an_error_and_leaves_nothing() {
    let sandbox = limited_sandbox();
    let mut ends = BTreeSet::new();
    // Below that it is the system that cannot begin the program.
    let starts =
        (1..).find(|mib| limited(&sandbox, "as", mib << 10, &["--version"]).status.success()).unwrap();
    let more = [0, 1, 2, 4, 6, 9, 13, 32, 64, 160, 600, 8192];
    for mib in more.map(|more| starts + more) {
        for from in [&["src"][..], &["--tar", "a.tar.zst"]] {
            let args = [&["-q", "--threads", "8", "image"], from].concat();
            let output = limited(&sandbox, "as", mib << 10, &args);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            // A thread that gets no stack for signals is aborted by the standard library.
            let is_ours = text.contains("panicked") && !text.contains("alternative stack");
            assert!(!is_ours, "{mib} MiB: {text}");
            // As --help says: a program that gets no memory at all is aborted.
            let is_known = matches!(output.status.code(), Some(0 | 1)) || output.status.signal() == Some(6);
            assert!(is_known, "{mib} MiB: {} {text}", output.status);
            if output.status.success() {
                read_image(&sandbox.path("image"));
                fs::remove_file(sandbox.path("image")).unwrap();
            } else {
                assert!(!text.is_empty(), "{mib} MiB: {}", output.status);
            }
            ends.insert(output.status.success());
            assert_eq!(sandbox.names(), ["a.tar.zst", "src"], "{mib} MiB");
        }
    }
    assert_eq!(ends, BTreeSet::from([false, true]), "limits that are too low, and ones that are not");
}

#[test]
fn a_limit_of_file_size_is_an_error_and_leaves_nothing() {
    let sandbox = limited_sandbox();
    for kib in [0, 1, 4, 100, 500] {
        for from in [&["src"][..], &["--tar", "a.tar.zst"], &["--force", "src"]] {
            let output = limited(&sandbox, "fsize", kib, &[&["image"], from].concat());
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{kib} KiB: {text}");
            assert!(text.contains("File too large"), "{kib} KiB: {text}");
            assert_eq!(sandbox.names(), ["a.tar.zst", "src"], "{kib} KiB");
        }
    }
    sandbox.mkfs(["-q", "image", "src"]);
    // The image is long, what is to be signed is not: neither is half there.
    let output = limited(&sandbox, "fsize", 0, &["--emit-signed-data", "data", "image"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(sandbox.names(), ["a.tar.zst", "image", "src"]);
    let output = limited(&sandbox, "fsize", 1, &["--emit-signed-data", "data", "image"]);
    assert!(output.status.success());
    assert_eq!(fs::read(sandbox.path("data")).unwrap(), &fs::read(sandbox.path("image")).unwrap()[..512]);
}

/// Sends a signal after that time; how the program ended, and what it said.
fn interrupted(mut command: Command, signal: &str, after: Duration) -> (ExitStatus, String) {
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    thread::sleep(after);
    // It may have ended. Then nothing gets the signal: its number is not given to another process before it
    // is waited for.
    let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let status = child.wait().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (status, text)
}

#[test]
fn signals_at_any_moment_leave_all_of_an_image_or_none() {
    let sandbox = limited_sandbox();
    let args = ["-q", "--force", "--threads", "2", "image", "src"];
    let started = Instant::now();
    sandbox.mkfs(args);
    let whole = started.elapsed();
    let image = fs::read(sandbox.path("image")).unwrap();
    // Seeded: the same moments, as parts of the time that it takes, in each run.
    let moments = noise(7, 160);
    for (round, moment) in moments.chunks_exact(4).enumerate() {
        let (signal, number) = [("INT", 2), ("TERM", 15), ("HUP", 1), ("KILL", 9)][round % 4];
        // Over an image, and where there is none.
        let is_there = round % 8 < 4;
        if is_there {
            fs::write(sandbox.path("image"), b"the one before").unwrap();
        } else {
            let _ = fs::remove_file(sandbox.path("image"));
        }
        let part = u32::from_le_bytes(moment.try_into().unwrap());
        let after = whole.mul_f64(f64::from(part) / f64::from(u32::MAX));
        let (status, text) = interrupted(sandbox.command(args), signal, after);
        assert!(
            status.success() || status.signal() == Some(number),
            "{signal} after {after:?}: {status} {text}"
        );
        let now = fs::read(sandbox.path("image")).ok();
        let is_old = now.as_deref() == is_there.then_some(b"the one before".as_slice());
        let is_new = now.as_deref() == Some(&image);
        assert!(is_new || is_old && !status.success(), "{signal} after {after:?}: {status} {text}");
        if text.contains("no image was written") {
            assert!(is_old, "{signal} after {after:?}");
        }
        let mut names = sandbox.names();
        names.retain(|name| name != "image");
        // Killed between the link and the rename that replace an image: all of the new one is there, beside the old one.
        if signal == "KILL" && is_there && is_old && names[0].starts_with(".mkfs-tesserafs-") {
            let left = sandbox.path(&names.remove(0));
            assert_eq!(fs::read(&left).unwrap(), image, "{left:?} after {after:?}");
            fs::remove_file(left).unwrap();
        }
        assert_eq!(names, ["a.tar.zst", "src"], "{signal} after {after:?}");
    }
}

#[test]
fn an_archive_that_shrinks_is_an_error() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("a.tar", Archive::default().file("large", &noise(1, 4 << 20)).end());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let source =
        mkfs_tesserafs::source::tar::TarSource::open(&path, &sandbox.path("."), Filter::default()).unwrap();
    let mut tasks = Vec::new();
    source
        .walk(&mut |task| {
            tasks.push(task);
            Ok(())
        })
        .unwrap();
    file.set_len(1 << 20).unwrap();
    let mut open = source.open(&tasks[0]).unwrap();
    let error = open.read(0..4 << 20, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("a.tar"), "{error}");
    // As long as before, and other bytes.
    file.set_len(Archive::default().file("large", &noise(1, 4 << 20)).end().len() as u64).unwrap();
    file.write_all_at(b"other", 4096).unwrap();
    let mut open = source.open(&tasks[0]).unwrap();
    open.read(0..4 << 20, &mut Vec::new()).unwrap();
    assert!(open.close().unwrap_err().to_string().contains("a.tar changed while it was read"));
}
