// SPDX-License-Identifier: GPL-2.0

//! Images that are meant to do harm, and ends that come early: nothing outside of the destination is created or changed,
//! no file is there by half, nothing that a terminal obeys is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

mod bench;
#[path = "../../format/tests/common/mod.rs"]
mod common;

use bench::{run, text, Bench};
use common::{inode, pattern, Draft, DraftInode, Piece};
use rustix::process::{kill_process, Pid, Signal};

/// The longest that any of these programs may take before the test takes it for one that hangs.
const HANG: Duration = Duration::from_secs(60);

/// The state of a path: type and mode, owner and group, size, mtime, bytes or target.
type State = (u32, u32, u32, u64, (i64, i64), Vec<u8>);

/// All that is in a directory, and it itself.
fn states(root: &Path) -> BTreeMap<PathBuf, State> {
    let mut states = BTreeMap::new();
    let mut paths = vec![root.to_owned()];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).expect("a file");
        let bytes = match metadata.file_type() {
            kind if kind.is_symlink() => {
                fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
            }
            kind if kind.is_file() => fs::read(&path).expect("a file"),
            kind if kind.is_dir() => {
                paths.extend(
                    fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("one").path()),
                );
                Vec::new()
            }
            _ => Vec::new(),
        };
        let time = (metadata.mtime(), metadata.mtime_nsec());
        let size = if metadata.is_dir() { 0 } else { metadata.size() };
        let state = (metadata.mode(), metadata.uid(), metadata.gid(), size, time, bytes);
        states.insert(path, state);
    }
    states
}

/// An image beside a tree that nothing may touch, and the destination `out`, which is not there.
struct Canary {
    bench: Bench,
    before: BTreeMap<PathBuf, State>,
}

impl Canary {
    fn new(image: &[u8]) -> Self {
        let bench = Bench::new(image);
        for (name, bytes) in
            [("outside/file", "precious"), ("outside/dir/deep", "precious"), ("outside/fifo", "")]
        {
            let path = bench.path(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
            fs::write(path, bytes).expect("written");
        }
        fs::set_permissions(bench.path("outside/file"), fs::Permissions::from_mode(0o640)).expect("a mode");
        let before = states(&bench.path("outside"));
        Self { bench, before }
    }

    fn out(&self) -> PathBuf {
        self.bench.path("out")
    }

    fn extract(&self) -> Output {
        self.bench.run([OsStr::new("--extract"), self.out().as_os_str()])
    }

    /// Nothing but the destination is new, and nothing is changed.
    fn assert_untouched(&self, what: &str) {
        assert_eq!(states(&self.bench.path("outside")), self.before, "{what}");
        let names = fs::read_dir(self.bench.dir.path()).expect("the directory");
        let names: BTreeSet<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
        let known = ["image", "out", "outside"].map(Into::into);
        assert!(names.is_subset(&known.into()), "{what}: {names:?}");
    }
}

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

/// An image of directories, each with files and FIFOs in it.
fn many_directories(dirs: u32, each: u32) -> Draft {
    let mut draft = Draft::empty();
    draft.directory(1, dirs.into(), 2 + dirs, 0);
    for dir in 0..dirs {
        draft.directory(1, u64::from(each) * 2, 2, 0);
        draft.dirent(format!("dir{dir:03}").as_bytes(), dir + 2, 2);
    }
    let mut ino = dirs + 2;
    for dir in 0..dirs {
        for n in 0..each {
            draft.inode(DraftInode { file_type: 4, mode: 0o666.into(), uid: 1.into(), ..inode(1) });
            draft.dirent(format!("fifo{n:03}").as_bytes(), ino + n, 4);
        }
        for n in 0..each {
            let bytes = pattern(3000, u64::from(dir * each + n));
            let content = draft.content(&[Piece::Data(&bytes)], &bytes);
            draft.regular(content, 3000, 1, 0);
            draft.dirent(format!("file{n:03}").as_bytes(), ino + each + n, 1);
        }
        ino += 2 * each;
    }
    draft.seal();
    draft
}

#[test]
fn who_swaps_names_during_an_extraction_redirects_nothing() {
    let image = many_directories(12, 12).image();
    for round in 0..6 {
        let canary = Canary::new(&image);
        let (out, outside) = (canary.out(), canary.bench.path("outside"));
        // The most that a user who can write in the destination may do.
        fs::create_dir(&out).expect("a directory");
        let stop = AtomicBool::new(false);
        let status = thread::scope(|scope| {
            scope.spawn(|| {
                for n in (0..12).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (dir, aside) = (out.join(format!("dir{n:03}")), out.join(format!("aside{n:03}")));
                    let fifo = dir.join(format!("fifo{:03}", (n + round) % 12));
                    if round % 2 == 0 {
                        // A directory for a symlink, and back.
                        if fs::rename(&dir, &aside).is_ok() {
                            let _ = symlink(&outside, &dir);
                            thread::yield_now();
                            let _ = fs::remove_file(&dir);
                            let _ = fs::rename(&aside, &dir);
                        }
                    } else if fs::remove_file(&fifo).is_ok() {
                        // A special file for a file elsewhere, whose owner and mode are to become the image's.
                        let _ = fs::hard_link(outside.join("file"), &fifo);
                    }
                }
            });
            let status = canary.extract().status;
            stop.store(true, Ordering::Relaxed);
            status
        });
        assert!(matches!(status.code(), Some(0 | 8)), "{round}: {status}");
        canary.assert_untouched(&format!("round {round}"));
    }
}

#[test]
fn a_fifo_in_the_place_of_the_image_is_not_waited_for() {
    let bench = Bench::new(&Draft::sample().image());
    let (image, fifo) = (bench.path("as-image"), bench.path("fifo"));
    fs::copy(&bench.image, &image).expect("copied");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).expect("a FIFO");
    let (done, is_done) = mpsc::channel();
    let opened = image.clone();
    // Left behind where it waits for a writer.
    thread::spawn(move || {
        let ends: BTreeSet<bool> =
            (0..20_000).map(|_| fsck_tesserafs::Source::open(&opened).is_ok()).collect();
        let _ = done.send(ends);
    });
    let started = Instant::now();
    let ends = loop {
        // One of the two is there at any moment.
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, &image, cwd, &fifo, exchange).expect("swapped");
        if let Ok(ends) = is_done.try_recv() {
            break ends;
        }
        assert!(started.elapsed() < HANG, "it waits for the other end of a FIFO");
    };
    assert_eq!(ends, BTreeSet::from([false, true]));
}

/// Colours, clears, rings, reorders, and is no UTF-8.
const EVIL: &[u8] = b"\x1b[2J\x1b[31m\xe2\x80\xaee\x07\r\xc2\x9b\xff";

/// The output of a program holds nothing that a terminal obeys.
fn assert_plain(output: &Output, what: &str) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        let obeyed = |c: char| c.is_control() && c != '\n' || matches!(c, '\u{202a}'..='\u{202e}');
        assert!(!text.contains(obeyed), "{what}: {}", bytes.escape_ascii());
    }
}

/// The output of `fsck-tesserafs` with these arguments on a terminal.
fn on_a_terminal(arguments: &str, image: &Path) -> Output {
    let command = format!("{} {arguments} {}", env!("CARGO_BIN_EXE_fsck-tesserafs"), image.display());
    let output = Command::new("script").args(["-qefc", &command, "/dev/null"]).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = output.expect("script, of util-linux");
    // Behind the progress bar, and with ends of lines as before the terminal driver.
    let shown = text(&stdout).replace("\r\n", "\n");
    let shown = shown.rsplit_once("\r\x1b[2K").map_or(&*shown, |(_, shown)| shown);
    Output { status, stdout: shown.as_bytes().to_vec(), stderr }
}

#[test]
fn bytes_that_are_wanted_as_they_are_keep_from_the_terminal() {
    let mut draft = Draft::empty();
    draft.directory(1, 1, 2, 0);
    let bytes = pattern(5000, 1);
    let content = draft.content(&[Piece::Data(&bytes)], &bytes);
    draft.regular(content, 5000, 1, 0);
    let name = "f\x1b[31m\u{202e}\u{e4}";
    draft.dirent(name.as_bytes(), 2, 1);
    // Characters of two bytes at odd places: one lies across the end of each piece that is read.
    let letters = "\u{e4}".repeat(100_000);
    draft.annotation(b"letters", format!("x{letters}\n").as_bytes());
    draft.annotation(b"worst", EVIL);
    draft.seal();
    let bench = Bench::new(&draft.image());

    let plain = bench.run(["--annotation", "worst"]);
    assert_eq!(plain.stdout, EVIL);
    let worst = on_a_terminal("--annotation worst", &bench.image);
    assert!(worst.status.success());
    assert_plain(&worst, "worst");
    assert!(text(&worst.stdout).starts_with("?[2J?[31m?e??"), "{}", worst.stdout.escape_ascii());
    let shown = on_a_terminal("--annotation letters", &bench.image);
    assert!(text(&shown.stdout) == format!("x{letters}\n"), "a character is broken");
    let listed = on_a_terminal("--list=sha256", &bench.image);
    assert_plain(&listed, "list");
    assert!(text(&listed.stdout).ends_with("  f?[31m?\u{e4}\n"));
}

#[test]
fn nothing_that_is_printed_is_obeyed_by_a_terminal() {
    let evil = |what: &str| [EVIL, what.as_bytes()].concat();
    let mut good = Draft::empty();
    let set = good.xattr_set(&[(&[b"user.", EVIL].concat(), EVIL)]);
    good.directory(1, 3, 2, set);
    good.inode(DraftInode { file_type: 1, xattrs: set.into(), ..inode(1) });
    let bytes = pattern(5000, 1);
    let content = good.content(&[Piece::Data(&bytes)], &bytes);
    good.regular(content, 5000, 1, 0);
    good.symlink(EVIL);
    for (name, ino, kind) in [(evil("empty"), 2, 1), (evil("file"), 3, 1), (evil("link"), 4, 3)] {
        good.dirent(&name, ino, kind);
    }
    good.annotation(EVIL, EVIL);
    good.seal();
    type Change = fn(&mut Draft);
    let changes: [(&str, Change); 7] = [
        ("clean", |_| ()),
        ("content", |d| d.contents[0][0] ^= 1),
        ("chunk", |d| d.chunk_digests[0][0] ^= 1),
        ("order", |d| d.dirents.swap(1, 2)),
        ("xattr", |d| d.xattr_entries[8] = 0x1b),
        ("target", |d| d.targets[0] = 0),
        ("link", |d| d.inodes[1].nlink = 9.into()),
    ];
    let arg = |bytes: &[u8]| std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec());
    for (what, change) in changes {
        let mut draft = good.clone();
        change(&mut draft);
        let bench = Bench::new(&draft.image());
        let image = bench.dir.path().join::<std::ffi::OsString>(arg(&evil("image")));
        fs::rename(&bench.image, &image).expect("renamed");
        let out = bench.dir.path().join::<std::ffi::OsString>(arg(&evil("out")));
        for args in
            [&[][..], &["--list"], &["--json"], &["--metadata-only"], &["--annotation", "nothing\x1b"]]
        {
            let output = run(args.iter().map(OsStr::new).chain([image.as_os_str()]));
            assert_plain(&output, what);
            if args == ["--json"] {
                let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
                assert_eq!(report["clean"], what == "clean");
            }
        }
        for _ in 0..2 {
            // The second time it is not empty, or nothing was extracted the first time either.
            assert_plain(&run([OsStr::new("--extract"), out.as_os_str(), image.as_os_str()]), what);
        }
    }
    let evil: std::ffi::OsString = arg(EVIL);
    for args in [&["--digest"][..], &["--list="], &["--threads"], &["--cert"], &["--packdir"], &["image"]] {
        let output = run(args.iter().map(OsStr::new).chain([evil.as_os_str()]));
        assert!(matches!(output.status.code(), Some(8 | 16)), "{args:?}: {}", output.status);
        assert_plain(&output, "arguments");
    }
    // As text, too: an argument that is no UTF-8 is refused before it is looked at.
    let text = "\x1b[2J\u{202e}\u{9b}";
    for args in
        [&["--digest", text, "image"][..], &["--threads", text, "image"], &[&format!("--{text}"), "image"]]
    {
        let output = run(args);
        assert_eq!(output.status.code(), Some(16), "{args:?}");
        assert_plain(&output, "arguments");
    }
}

/// Runs the program with that limit of prlimit(1), in KiB, on an image.
fn limited(bench: &Bench, limit: &str, kib: u64, args: &[&OsStr]) -> Output {
    let mut command = Command::new("prlimit");
    // No core for one that is aborted.
    command.args(["--core=0", &format!("--{limit}={}", kib << 10)]);
    command.arg(env!("CARGO_BIN_EXE_fsck-tesserafs")).args(args).arg(&bench.image);
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
