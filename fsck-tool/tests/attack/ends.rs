// SPDX-License-Identifier: GPL-2.0-or-later

//! Ends that come early: no room, no memory, signals; and work that must not be done again and again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, Pid, Signal};

use crate::bench::{text, Bench};
use crate::common::{pattern, Draft, Piece};
use crate::{states, HANG};

/// Runs the program with that limit of prlimit(1), in KiB, on an image.
fn limited(bench: &Bench, limit: &str, kib: u64, args: &[&OsStr]) -> Output {
    let mut command = Command::new("prlimit");
    // No core for one that is aborted.
    command.args(["--core=0", &format!("--{limit}={}", kib << 10)]);
    command.arg(env!("CARGO_BIN_EXE_fsck-tesserafs")).args(args).arg(&bench.image);
    // The standard library waits for itself where the memory for a backtrace is lacking.
    command.env("RUST_BACKTRACE", "0");
    command.output().expect("fsck runs")
}

/// Each file of an extraction that is there is as it is in the whole one.
fn assert_files_whole(out: &Path, whole: &Path, what: &str) -> usize {
    let mut files = 0;
    if !out.exists() {
        return files;
    }
    for (path, (mode, .., bytes)) in states(out) {
        if mode & 0o170_000 == 0o100_000 {
            let (now, expected) =
                (states(&path), states(&whole.join(path.strip_prefix(out).expect("below"))));
            assert!(
                now.into_values().eq(expected.into_values()),
                "{what}: {path:?} of {} bytes",
                bytes.len()
            );
            files += 1;
        }
    }
    files
}

/// An image with a few files of a size, and extracted.
fn extracted(files: u32, size: usize) -> (Bench, PathBuf) {
    let mut draft = Draft::empty();
    draft.directory(1, files.into(), 2, 0);
    for n in 0..files {
        let bytes = pattern(size, n.into());
        let pieces: Vec<Piece<'_>> = bytes.chunks(1 << 16).map(Piece::Data).collect();
        let content = draft.content(&pieces, &bytes);
        draft.regular(content, size as u64, 1, 0);
        draft.dirent(format!("{n:04}").as_bytes(), n + 2, 1);
    }
    draft.seal();
    let bench = Bench::new(&draft.image());
    let whole = bench.path("whole");
    assert!(bench.run([OsStr::new("--extract"), whole.as_os_str()]).status.success());
    (bench, whole)
}

#[test]
fn a_limit_of_file_size_is_an_error_and_leaves_no_half_of_a_file() {
    let (bench, whole) = extracted(4, 300_000);
    let out = bench.path("out");
    for kib in [0, 1, 64, 200, 292] {
        let output = limited(&bench, "fsize", kib, &[OsStr::new("--extract"), out.as_os_str()]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{kib} KiB: {} {said}", output.status);
        assert!(said.contains("File too large") && said.contains("not complete"), "{kib} KiB: {said}");
        assert_eq!(assert_files_whole(&out, &whole, &said), 0);
        fs::remove_dir_all(&out).expect("removed");
    }
}

#[test]
fn little_memory_is_an_error_and_leaves_no_half_of_a_file() {
    let (bench, whole) = extracted(8, 100_000);
    let out = bench.path("out");
    let mut ends = BTreeSet::new();
    // Below that it is the system that cannot begin the program.
    let version = [OsStr::new("--version")];
    let starts =
        (1..).find(|mib| limited(&bench, "as", mib << 10, &version).status.success()).expect("a limit");
    for more in [0, 1, 2, 4, 6, 9, 13, 32, 64, 160, 8192] {
        for args in [&["--threads=8", "--extract", "out"][..], &["--threads=8"]] {
            let extracts = args.contains(&"out");
            let args = args.iter().map(|arg| if *arg == "out" { out.as_os_str() } else { OsStr::new(arg) });
            let output = limited(&bench, "as", (starts + more) << 10, &args.collect::<Vec<_>>());
            let said = text(&output.stderr);
            // A thread that gets no stack for signals is aborted by the standard library.
            let is_ours = said.contains("panicked") && !said.contains("alternative stack");
            assert!(!is_ours, "{more} MiB: {said}");
            // As --help says: a program that gets no memory at all is aborted.
            let is_known = matches!(output.status.code(), Some(0 | 8)) || output.status.signal() == Some(6);
            assert!(is_known, "{more} MiB: {} {said}", output.status);
            assert!(output.status.success() || !said.is_empty(), "{more} MiB: {}", output.status);
            let files = assert_files_whole(&out, &whole, &said);
            assert!(files == 8 || !output.status.success() || !extracts, "{more} MiB: {files} files");
            let _ = fs::remove_dir_all(&out);
            ends.insert(output.status.success());
        }
    }
    assert_eq!(ends, BTreeSet::from([false, true]), "limits that are too low, and ones that are not");
}

#[test]
fn a_content_is_digested_once_for_all_of_its_files() {
    // A quarter of a terabyte of zeros, in an image of half a megabyte.
    const FILES: u32 = 4000;
    const SIZE: usize = 64 << 20;
    let mut bytes = pattern(4096, 1);
    bytes.resize(SIZE, 0);
    let mut draft = Draft::empty();
    draft.directory(1, FILES.into(), 2, 0);
    let pieces = [Piece::Data(&bytes[..4096]), Piece::Hole(SIZE as u64 - 4096)];
    let content = draft.content(&pieces, &bytes);
    for number in 0..FILES {
        draft.dirent(format!("{number:04}").as_bytes(), number + 2, 1);
        draft.regular(content, SIZE as u64, 1, 0);
    }
    draft.seal();
    let bench = Bench::new(&draft.image());
    let out = bench.path("out");
    let started = Instant::now();
    let output = bench.run([OsStr::new("--extract"), out.as_os_str()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(started.elapsed() < HANG, "{:?}", started.elapsed());
    let file = fs::metadata(out.join("3999")).expect("the last file");
    assert_eq!((file.len(), file.blocks()), (SIZE as u64, 8));
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("waited for") {
            return status;
        }
        if started.elapsed() > HANG {
            child.kill().expect("killed");
            panic!("it hangs");
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn signals_at_any_moment_leave_no_half_of_a_file() {
    let (bench, whole) = extracted(40, 50_000);
    let out = bench.path("out");
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-tesserafs"));
        command.args(["--threads=2", "-q", "--extract"]).args([&out, &bench.image]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("fsck runs")
    };
    let started = Instant::now();
    assert!(wait(&mut command()).success());
    let time = started.elapsed();
    // Seeded: the same moments, as parts of the time that it takes, in each run.
    for (round, moment) in pattern(160, 7).chunks_exact(4).enumerate() {
        fs::remove_dir_all(&out).expect("removed");
        let signal = [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL][round % 4];
        let part = u32::from_le_bytes(moment.try_into().expect("4 bytes"));
        let after = time.mul_f64(f64::from(part) / f64::from(u32::MAX));
        let mut child = command();
        thread::sleep(after);
        // Not yet waited for, so that its number is its own.
        kill_process(Pid::from_child(&child), signal).expect("sent");
        let status = wait(&mut child);
        let what = format!("{signal:?} after {after:?}: {status}");
        // Before it catches signals it ends as any program does.
        let is_known = matches!(status.code(), Some(0 | 32)) || status.signal() == Some(signal.as_raw());
        assert!(is_known, "{what}");
        let files = assert_files_whole(&out, &whole, &what);
        assert!(files == 40 || !status.success(), "{what}: {files} files");
        let names = fs::read_dir(bench.dir.path()).expect("the directory").count();
        assert_eq!(names, 2 + usize::from(out.exists()), "{what}");
        fs::create_dir_all(&out).expect("a directory");
    }
}
