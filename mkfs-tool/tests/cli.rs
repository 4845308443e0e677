// SPDX-License-Identifier: GPL-2.0-or-later

//! The program as a user meets it: options, errors, exit codes, and nothing left behind.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

use common::{noise, read_image, Sandbox};
use rustix::fs::{lsetxattr, mknodat, FileType, Mode, XattrFlags, CWD};

#[test]
fn help_has_examples_and_exit_codes() {
    let sandbox = Sandbox::new();
    let help = sandbox.mkfs(["--help"]);
    for part in ["Examples:", "--attach-signature", "Exit status:", "Memory:", "SOURCE_DATE_EPOCH"] {
        assert!(help.contains(part), "{part}");
    }
}

#[test]
fn a_senseless_command_line_is_status_2_and_touches_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    for args in [
        &["image"][..],
        &["--level", "23", "image", "src"],
        &["--level", "0", "image", "src"],
        &["--sign-key", "k", "image", "src"],
        &["--sign-cert", "c", "image", "src"],
        &["--tar", "t", "image", "src"],
        &["--chunk-size", "64,32,128", "image", "src"],
        &["--chunk-size", "64,128", "image", "src"],
        &["--group-size", "513", "image", "src"],
        &["--profile", "Small", "image", "src"],
        &["--profile", "fast", "--small-max", "64", "image", "src"],
        &["--small-max", "512", "image", "src"],
        &["--annotate", "key", "image", "src"],
        &["--exclude", "a[", "image", "src"],
        &["--devices=maybe", "image", "src"],
    ] {
        sandbox.refused(2, args);
    }
    assert_eq!(sandbox.names(), ["src"]);
}

#[test]
fn attributes_of_all_types_arrive() {
    let sandbox = Sandbox::new();
    let file = sandbox.write("src/dir/file", "bytes");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(&file, sandbox.path("src/again")).unwrap();
    let user_xattrs = lsetxattr(&file, "user.comment", b"hi\n\0there", XattrFlags::empty()).is_ok();
    symlink("x".repeat(4095), sandbox.path("src/link")).unwrap();
    mknodat(CWD, sandbox.path("src/fifo"), FileType::Fifo, Mode::from_raw_mode(0o620), 0).unwrap();
    let _socket = UnixListener::bind(sandbox.path("src/socket")).unwrap();
    sandbox.write("src/empty", "");
    let times =
        fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH - Duration::from_nanos(1_500_000_000));
    OpenOptions::new().write(true).open(&file).unwrap().set_times(times).unwrap();
    let report = sandbox.report(["image", "src"]);
    let read = read_image(&sandbox.path("image"));
    let item = read.item("dir/file");
    assert_eq!((item.kind, item.mode, item.nlink, item.mtime), ('f', 0o4751, 2, (-2, 500_000_000)));
    assert_eq!(item.bytes, b"bytes");
    let owner = fs::metadata(&file).unwrap();
    assert_eq!((item.uid, item.gid), (owner.uid(), owner.gid()));
    if user_xattrs {
        assert_eq!(item.xattrs, [("user.comment".to_owned(), b"hi\n\0there".to_vec())]);
    }
    assert_eq!(read.item("again"), item);
    assert_eq!(read.item("link").bytes, [b'x'; 4095]);
    assert_eq!((read.item("fifo").kind, read.item("socket").kind), ('p', 's'));
    assert_eq!((read.item("empty").kind, read.item("empty").size), ('f', 0));
    assert_eq!((read.item("/").nlink, read.item("dir").nlink), (3, 2));
    let counts = &report["counts"];
    assert_eq!((&counts["files"], &counts["hard_links"]), (&2.into(), &1.into()));
    assert_eq!(report["image_bytes"], read.bytes.len());
}

#[test]
fn holes_duplicates_and_small_files_are_stored_once() {
    let sandbox = Sandbox::new();
    let big = noise(1, 3 << 20);
    sandbox.write("src/a", &big);
    sandbox.write("src/b", &big);
    let mut other = big.clone();
    other[1 << 20] ^= 1;
    sandbox.write("src/c", &other);
    let mut holes = noise(2, 8192);
    holes.resize(4 << 20, 0);
    holes.extend(noise(3, 5000));
    sandbox.write("src/holes", &holes);
    let sparse = fs::File::create(sandbox.path("src/sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &holes[..8192], 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &holes[4 << 20..], 4 << 20).unwrap();
    for i in 0..50 {
        sandbox.write(&format!("src/small/{i}"), format!("{i}\n").repeat(i + 1));
    }
    let report = sandbox.report(["image", "src"]);
    let read = read_image(&sandbox.path("image"));
    for name in ["a", "b", "c", "holes", "sparse"] {
        let source = fs::read(sandbox.path("src").join(name)).unwrap();
        assert!(read.item(name).bytes == source, "{name}");
    }
    assert_eq!(read.item("holes").holes, (4 << 20) - 8192);
    assert_eq!(report["duplicate_files"], 2, "{report}");
    assert!(report["duplicate_chunks"].as_u64() > Some(10), "{report}");
    assert_eq!(report["groups"], 1);
    assert!((read.bytes.len() as u64) < 4 << 20);
}

#[test]
fn the_largest_sparse_file_takes_no_time() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("src")).unwrap();
    let file = fs::File::create(sandbox.path("src/huge")).unwrap();
    let size = [(1 << 63) - 1, 1 << 43].into_iter().find(|size| file.set_len(*size).is_ok()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"here", size / 2).unwrap();
    let started = Instant::now();
    sandbox.mkfs(["image", "src"]);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let read = read_image(&sandbox.path("image"));
    assert_eq!(read.item("huge").size, size);
    assert!(read.item("huge").holes >= size - 4096);
}

#[test]
fn a_long_hole_is_not_digested_byte_by_byte() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("src")).unwrap();
    // The least size above the limit at which both bytes lie in one block, and one that took 45 s once.
    for size in [(1_u64 << 33) + 2, 60 << 30] {
        let file = fs::File::create(sandbox.path("src/sparse")).unwrap();
        file.set_len(size).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"xx", size - 2).unwrap();
        let started = Instant::now();
        sandbox.mkfs(["--force", "image", "src"]);
        assert!(started.elapsed() < Duration::from_secs(3), "{size}: {:?}", started.elapsed());
        // FORMAT.md 4.7: the tag, the size, and the one run with where it is and how long; of that the complement.
        let start = (size - 1) / 4096 * 4096;
        let run = [vec![0; (size - start) as usize - 2], b"xx".to_vec()].concat();
        let len = (run.len() as u64).to_le_bytes();
        let spec = [b"TESSRAFS-SPARSE\0", &size.to_le_bytes()[..], &start.to_le_bytes(), &run, &len].concat();
        let expected = mkfs_tesserafs::encode::sha256(&spec).0.map(|byte| !byte);
        let read = read_image(&sandbox.path("image"));
        let at = read.superblock.layout.content_digests.offset() as usize;
        assert_eq!(&read.bytes[at..at + 32], expected, "{size}");
    }
}

#[test]
fn an_existing_image_needs_force_and_survives_a_failure() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    sandbox.write("image", "precious");
    assert!(sandbox.refused(1, ["image", "src"]).contains("--force"));
    assert!(sandbox.refused(1, ["--force", "image", "nowhere"]).contains("nowhere"));
    assert_eq!(fs::read(sandbox.path("image")).unwrap(), b"precious");
    sandbox.mkfs(["--force", "image", "src"]);
    read_image(&sandbox.path("image"));
    assert_eq!(sandbox.names(), ["image", "src"]);
}

#[test]
fn an_image_inside_its_source_does_not_swallow_itself() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    let left_out = |args: &[&str]| sandbox.report(args)["left_out"]["image"].as_u64().expect("a number");
    // An unfinished image has a name where a file system has no files without one.
    let unfinished = left_out(&["src/image", "src"]);
    assert!(unfinished <= 1);
    assert_eq!(left_out(&["--force", "src/image", "src"]), unfinished + 1);
    let read = read_image(&sandbox.path("src/image"));
    assert_eq!(read.items.keys().collect::<Vec<_>>(), ["/", "f"]);
}

#[test]
fn excluded_names_take_what_is_below_with_them() {
    let sandbox = Sandbox::new();
    for name in ["a/keep", "a/x.pyc", "b/c/x.pyc", "cache/1", "cache/d/2", "log/x"] {
        sandbox.write(&format!("src/{name}"), name);
    }
    sandbox.mkfs(["--exclude", "**/*.pyc", "--exclude", "/cache/*", "--exclude", "./log/", "image", "src"]);
    let read = read_image(&sandbox.path("image"));
    assert_eq!(read.items.keys().collect::<Vec<_>>(), ["/", "a", "a/keep", "b", "b/c", "cache"]);
}

#[test]
fn owners_and_times_can_be_forced() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    let mut command = sandbox.command(["--uid", "7", "--gid", "4294967294", "-q", "image", "src"]);
    assert!(command.env("SOURCE_DATE_EPOCH", "1000").status().unwrap().success());
    for item in read_image(&sandbox.path("image")).items.values() {
        assert_eq!((item.uid, item.gid, item.mtime), (7, u32::MAX - 1, (1000, 0)));
    }
    let mut command = sandbox.command(["image2", "src"]);
    assert_eq!(command.env("SOURCE_DATE_EPOCH", "today").status().unwrap().code(), Some(2));
}

#[test]
fn device_nodes_are_listed_or_skipped_and_whiteouts_are_fine() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    let node =
        |name: &str, kind, dev| mknodat(CWD, sandbox.path(name), kind, Mode::from_raw_mode(0o600), dev);
    node("src/whiteout", FileType::CharacterDevice, 0).unwrap();
    if node("src/null", FileType::CharacterDevice, 0x103).is_err() {
        eprintln!("not allowed to make device nodes; the rest of this test needs them");
        return;
    }
    node("src/disk", FileType::BlockDevice, 0x800).unwrap();
    let error = sandbox.refused(1, ["image", "src"]);
    assert!(
        error.contains("src/null") && error.contains("src/disk") && error.contains("--devices=skip"),
        "{error}"
    );
    let report = sandbox.report(["--devices=skip", "image", "src"]);
    assert_eq!(report["left_out"]["devices"], 2);
    let read = read_image(&sandbox.path("image"));
    assert_eq!(read.items.keys().collect::<Vec<_>>(), ["/", "f", "whiteout"]);
    assert_eq!(read.item("whiteout").kind, 'w');
}

#[test]
fn annotations_are_embedded_in_order() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    sandbox.write("config", "{}");
    sandbox.write("bom", "bill=of=materials");
    sandbox.mkfs(["--annotate", "org.z=config", "--annotate", "org.a=bom", "image", "src"]);
    let read = read_image(&sandbox.path("image"));
    assert_eq!(read.superblock.layout.annotations.records(), 2);
    let start = read.superblock.layout.annotation_data.offset() as usize;
    let expected = b"org.abill=of=materialsorg.z{}";
    assert_eq!(&read.bytes[start..start + expected.len()], expected);
}

#[test]
fn a_file_that_changes_is_an_error_and_leaves_no_image() {
    let sandbox = Sandbox::new();
    let path = sandbox.write("src/log", noise(1, 8 << 20));
    let stop = AtomicBool::new(false);
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = OpenOptions::new().append(true).open(&path).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"line\n").unwrap();
            }
        });
        thread::sleep(Duration::from_millis(20));
        let error = sandbox.refused(1, ["image", "src"]);
        stop.store(true, Ordering::Relaxed);
        error
    });
    assert!(error.contains("log changed while it was read"), "{error}");
    assert_eq!(sandbox.names(), ["src"]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_image() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", noise(1, 2 << 20));
    // A limit on the size of files is the full disk that needs no privilege.
    let output = Command::new("sh")
        .args([
            "-c",
            "ulimit -f 100; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_mkfs-tesserafs"),
            "image",
            "src",
        ])
        .current_dir(sandbox.path("."))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("cannot write image"), "{text}");
    assert_eq!(sandbox.names(), ["src"]);
}

#[test]
fn a_signal_leaves_no_image() {
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let sandbox = Sandbox::new();
        // Standard input that never ends, and of which more is read than a pipe holds: then the image is begun.
        let mut child = sandbox
            .command(["--tar", "-", "image"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&noise(1, 4 << 20)).unwrap();
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{status}");
        let text = io::read_to_string(child.stderr.take().unwrap()).unwrap();
        assert!(text.contains(&format!("SIG{signal}")), "{text}");
        assert!(sandbox.names().is_empty());
    }
}

#[test]
fn a_signal_that_is_ignored_ends_nothing() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", noise(1, 4 << 20));
    let tar = Command::new("tar").args(["-cf", "-", "."]).current_dir(sandbox.path("src")).output().unwrap();
    // As nohup starts it.
    let mut child = Command::new("sh")
        .args(["-c", "trap '' HUP; exec \"$0\" --tar - image", env!("CARGO_BIN_EXE_mkfs-tesserafs")])
        .current_dir(sandbox.path("."))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // More than a pipe holds: some of it was read, after the program has said which signals it heeds.
    let (first, rest) = tar.stdout.split_at(2 << 20);
    stdin.write_all(first).unwrap();
    Command::new("kill").args(["-s", "HUP", &child.id().to_string()]).status().unwrap();
    stdin.write_all(rest).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    assert_eq!(sandbox.names(), ["image", "src"]);
}

#[test]
fn deep_trees_and_odd_names_are_fine() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("src")).unwrap();
    // Deeper than PATH_MAX: made step by step.
    let name = "d".repeat(255);
    let mut dir = rustix::fs::open(sandbox.path("src"), rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    for _ in 0..20 {
        rustix::fs::mkdirat(&dir, &*name, Mode::from_raw_mode(0o755)).unwrap();
        dir = rustix::fs::openat(&dir, &*name, rustix::fs::OFlags::PATH, Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    let file = rustix::fs::openat(&dir, "bottom", flags, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"here").unwrap();
    let odd = std::os::unix::ffi::OsStrExt::as_bytes(std::ffi::OsStr::new("new\nline"));
    sandbox.write("src/new\nline", odd);
    fs::write(sandbox.path("src").join(mkfs_tesserafs::error::path_of(b"\xff\xfe")), "x").unwrap();
    sandbox.mkfs(["image", "src"]);
    let read = read_image(&sandbox.path("image"));
    let bottom = format!("{}/bottom", vec![name; 20].join("/"));
    assert_eq!(read.item(&bottom).bytes, b"here");
    assert_eq!(read.item("new\nline").bytes, odd);
    assert_eq!(read.items.len(), 24);
    // Too deep for TempDir's own removal on some systems; this one copes.
    Command::new("rm").arg("-rf").arg(sandbox.path("src")).status().unwrap();
}

#[test]
fn a_report_is_silent_on_request() {
    let sandbox = Sandbox::new();
    sandbox.write("src/f", "x");
    assert_eq!(sandbox.mkfs(["--quiet", "image", "src"]), "");
    let text = sandbox.mkfs(["--force", "image", "src"]);
    assert!(text.contains("image ID  sha256:") && text.contains("tree ID   sha256:"), "{text}");
}
