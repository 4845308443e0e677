// SPDX-License-Identifier: GPL-2.0-or-later

//! Ends that come early: no memory, no room, signals.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::archive::Archive;
use crate::common::{noise, read_image, Sandbox};
use crate::end;

/// The program with that limit of prlimit(1), in KiB.
fn limited(sandbox: &Sandbox, limit: &str, kib: u64, args: &[&str]) -> Output {
    let mut command = Command::new("prlimit");
    // No core for one that is aborted.
    command.args(["--core=0", &format!("--{limit}={}", kib << 10)]);
    command.arg(env!("CARGO_BIN_EXE_mkfs-tesserafs")).args(args).current_dir(sandbox.path("."));
    // The standard library waits for itself where the memory for a backtrace is lacking: 3 of 450 runs hung.
    command.env("RUST_BACKTRACE", "0");
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

/// Where the reader of standard error was gone, as in a pipeline that Ctrl-C ends, the signal did not end the program.
#[test]
fn a_signal_and_an_error_end_the_program_though_nobody_reads_of_them() {
    let sandbox = Sandbox::new();
    // Nothing ever comes from this archive.
    let (archive, _writer) = UnixStream::pair().unwrap();
    let unread = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        Stdio::from(OwnedFd::from(ours))
    };
    let mut command = sandbox.command(["--tar", "-", "image"]);
    let mut child = command.stdin(OwnedFd::from(archive)).stderr(unread()).spawn().unwrap();
    // Until the signals are caught.
    let threads = format!("/proc/{}/task", child.id());
    while fs::read_dir(&threads).unwrap().count() < 2 {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(100));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > Duration::from_secs(30) {
            child.kill().unwrap();
            panic!("it goes on");
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.signal(), Some(2));
    let status = sandbox.command(["image", "nowhere"]).stderr(unread()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(sandbox.names(), Vec::<String>::new());
}
