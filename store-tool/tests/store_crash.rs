// SPDX-License-Identifier: GPL-2.0-or-later

//! Processes that end at any moment, that work at once, and that find no room: what a name leads to is there, and the next run goes on.

mod support;

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use support::store::{artifact, blob, make, problems, pull, reference, tree, two, Made};
use support::{done, noise, TESSERAFS};
use tempfile::TempDir;
use tesserafs_store::store::{Places, Store, Wanted};

const ONE: &str = "registry.example/app:1";
const TWO: &str = "registry.example/app:2";

/// The pull that the child of a test is to do: a store, a name and an image.
const CHILD: [&str; 3] = ["TESSERAFS_TEST_STORE", "TESSERAFS_TEST_NAME", "TESSERAFS_TEST_IMAGE"];

/// A process that pulls an image, as this program does when it finds these variables.
fn puller(store: &Path, name: &str, made: &Made) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program"));
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (variable, value) in CHILD.iter().zip([store.as_os_str(), name.as_ref(), made.path.as_os_str()]) {
        command.env(variable, value);
    }
    command
}

/// Not a test: what [`puller`] runs.
#[test]
fn child() {
    let [Some(store), Some(name), Some(image)] = CHILD.map(env::var_os) else { return };
    let path = PathBuf::from(image);
    let packs = path.parent().expect("a folder").join("packs");
    let made = Made { artifact: artifact(&path), path, packs };
    let pulled = Store::create(store.as_ref()).map_err(|error| error.to_string());
    let pulled = pulled.and_then(|store| pull(&store, name.to_str().expect("text"), &made));
    if let Err(error) = pulled {
        eprintln!("{error}");
        std::process::exit(3);
    }
}

/// The system calls that change something, or that others wait for.
const CALLS: [&str; 16] = [
    "mkdir",
    "mkdirat",
    "rmdir",
    "unlink",
    "unlinkat",
    "linkat",
    "symlinkat",
    "renameat",
    "renameat2",
    "fallocate",
    "pwrite64",
    "write",
    "fchmod",
    "fsync",
    "fdatasync",
    "flock",
];

/// The command, which is killed where it calls `call` for the time `when`; `None` where this machine cannot do that.
fn ended_at(command: &Command, call: &str, when: usize) -> Option<Command> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qqq", "-o", "/dev/null", "-e"]).arg(format!("trace=?{call}")).arg("-e");
    strace.arg(format!("inject=?{call}:signal=SIGKILL:when={when}"));
    strace.arg(command.get_program()).args(command.get_args());
    for (variable, value) in command.get_envs() {
        strace.env(variable, value.expect("a value"));
    }
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A container may forbid it to trace.
    let works =
        Command::new("strace").args(["-qqq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this machine has no strace that works");
        return None;
    }
    Some(strace)
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(128 + 9)
}

/// A folder with two images, which share a pack.
fn folder() -> (TempDir, [Made; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let images = two(folder.path());
    (folder, images)
}

/// A store with the first image.
fn store(folder: &Path, name: &str, one: &Made) -> Store {
    let store = Store::create(&folder.join(name)).expect("a store");
    pull(&store, ONE, one).expect("an image");
    store
}

/// The files of the store if nothing has happened to either pull.
fn expected(folder: &Path, [one, two]: &[Made; 2]) -> [Vec<String>; 2] {
    let store = store(folder, "expected", one);
    let first = tree(store.path());
    pull(&store, TWO, two).expect("an image");
    [first, tree(store.path())]
}

/// Whether the second image has its name: each name leads to all that its image needs, and nothing is broken.
fn is_whole(store: &Store, what: &str) -> bool {
    let errors: Vec<_> = problems(store).into_iter().filter(|problem| problem.is_error).collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
    assert!(store.image(&reference(ONE)).expect(what).is_some(), "{what}");
    let wanted = Wanted { places: &Places::default(), unfinished: Duration::ZERO };
    store.garbage(&wanted).expect(what);
    store.image(&reference(TWO)).expect(what).is_some()
}

/// Removes what can go, and what was begun.
fn sweep(store: &Store) {
    let wanted = Wanted { places: &Places::default(), unfinished: Duration::ZERO };
    store.try_collect(support::PATIENCE).expect("a lock").expect("the lock").sweep(&wanted).expect("garbage");
}

/// Proves what must be true of a store after a pull of the second image ended anywhere.
fn check_after_crash(store: &Store, [first, both]: &[Vec<String>; 2], two: &Made, goes_on: bool, what: &str) {
    let has_name = is_whole(store, what);
    if goes_on {
        pull(store, TWO, two).expect(what);
        // But for files that are nothing yet.
        sweep(store);
        assert_eq!(&tree(store.path()), both, "{what}");
    } else {
        sweep(store);
        assert_eq!(&tree(store.path()), if has_name { both } else { first }, "{what}");
    }
    assert_eq!(problems(store), [], "{what}");
    assert_eq!(fs::read_dir(store.path().join("filling")).expect("a directory").count(), 0, "{what}");
}

/// Runs a command on a store once for each system call in it, which is its last. `prepare` makes the store, and `check` what was left
/// of it. The result is how often it was killed; `None` where this machine cannot do that.
fn at_each_step(
    command: impl Fn(&Store) -> Command,
    prepare: impl Fn(&str) -> Store,
    mut check: impl FnMut(&Store, bool, &str),
) -> Option<usize> {
    let mut steps = 0;
    for call in CALLS {
        for when in 1.. {
            let what = format!("at {call} number {when}");
            let store = prepare(&format!("store-{call}-{when}"));
            let status = ended_at(&command(&store), call, when)?.status().expect("strace");
            let killed = was_killed(status);
            assert!(killed || status.success(), "{what}: {status}");
            check(&store, killed, &what);
            fs::remove_dir_all(store.path()).expect("a store");
            if !killed {
                break;
            }
            steps += 1;
        }
    }
    Some(steps)
}

#[test]
fn a_pull_that_ends_at_any_step_leaves_what_verifies() {
    let (folder, images) = folder();
    let expected = expected(folder.path(), &images);
    let [one, two] = &images;
    let mut goes_on = false;
    let steps = at_each_step(
        |store| puller(store.path(), TWO, two),
        |name| store(folder.path(), name, one),
        |store, killed, what| {
            assert!(killed || is_whole(store, what), "{what}");
            goes_on = !goes_on;
            check_after_crash(store, &expected, two, goes_on, what);
        },
    );
    let Some(steps) = steps else { return };
    eprintln!("a pull: {steps} steps");
    assert!(steps > 30, "{steps}");
}

#[test]
fn a_pull_that_ends_at_any_time_leaves_what_verifies() {
    let (folder, images) = folder();
    let expected = expected(folder.path(), &images);
    let [one, two] = &images;
    let whole = store(folder.path(), "whole", one);
    let begun = Instant::now();
    assert!(puller(whole.path(), TWO, two).status().expect("a child").success());
    let time = begun.elapsed();
    let mut killed = 0;
    for number in 0..40 {
        let store = store(folder.path(), &format!("store-{number}"), one);
        let mut child = puller(store.path(), TWO, two).spawn().expect("a child");
        std::thread::sleep(time * number / 40);
        child.kill().expect("a signal");
        killed += u32::from(was_killed(child.wait().expect("a status")));
        check_after_crash(&store, &expected, two, number % 2 == 0, &format!("kill {number}"));
    }
    eprintln!("{killed} of 40 were killed, within {time:?}");
    // A machine that has other work to do may have been slower when the time was taken.
    assert!(killed > 3, "{killed}");
}

#[test]
fn rm_and_gc_that_end_at_any_step_leave_what_verifies() {
    let (folder, images) = folder();
    let [first, _] = expected(folder.path(), &images);
    let [one, two] = &images;
    let name = |store: &Store| store.path().join("refs/registry.example/app:2");
    for verb in [&["rm", TWO][..], &["gc", "--unfinished"]] {
        let prepare = |path: &str| {
            let store = store(folder.path(), path, one);
            pull(&store, TWO, two).expect("an image");
            if verb[0] == "gc" {
                fs::remove_file(name(&store)).expect("a name");
                let begun = store.path().join("filling").join("0".repeat(64));
                fs::create_dir(&begun).expect("a directory");
                fs::write(begun.join("0".repeat(64)), "").expect("a file");
                fs::write(store.path().join("images/sha256/.new-1-1"), "").expect("a file");
            }
            store
        };
        let command = |store: &Store| {
            let mut command = Command::new(TESSERAFS);
            command.arg(verb[0]).arg("--store").arg(store.path()).args(&verb[1..]);
            command
        };
        let steps = at_each_step(command, prepare, |store, killed, what| {
            let has_name = is_whole(store, what);
            assert!(killed || !has_name, "{what}");
            if has_name {
                fs::remove_file(name(store)).expect("a name");
            }
            if killed {
                sweep(store);
            }
            assert_eq!((tree(store.path()), problems(store)), (first.clone(), vec![]), "{what}");
        });
        let Some(steps) = steps else { return };
        eprintln!("{}: {steps} steps", verb[0]);
        assert!(steps > 8, "{steps}");
    }
}

#[test]
fn pulls_at_once_and_those_who_remove_do_not_hinder_each_other() {
    let (folder, images) = folder();
    let [_, both] = expected(folder.path(), &images);
    let path = folder.path().join("store");
    Store::create(&path).expect("a store");
    let text = path.to_str().expect("text");
    let verb = |verb: &str, arguments: &[&str]| {
        let all = [&[verb, "--store", text][..], arguments].concat();
        done(folder.path(), &all)
    };
    let mut collected = 0;
    std::thread::scope(|scope| {
        let pulls: Vec<_> = [(ONE, &images[0]), (TWO, &images[1])]
            .map(|(name, made)| {
                scope.spawn(move || {
                    for round in 0..15 {
                        if round > 0 {
                            verb("rm", &["-q", name]);
                        }
                        // Two of the same image.
                        let mut children =
                            [(); 2].map(|()| puller(path_of(text), name, made).spawn().expect("a child"));
                        for child in &mut children {
                            assert!(child.wait().expect("a status").success(), "{name}, round {round}");
                        }
                    }
                })
            })
            .into();
        while !pulls.iter().all(|pull| pull.is_finished()) {
            // Files that pulls have begun are theirs as long as they run.
            verb("gc", &["--unfinished"]);
            collected += 1;
        }
    });
    eprintln!("{collected} collections");
    let store = Store::open(&path).expect("a store").expect("a store");
    assert!(is_whole(&store, "after all pulls"));
    assert_eq!((tree(&path), problems(&store)), (both, vec![]));
}

fn path_of(text: &str) -> &Path {
    Path::new(text)
}

/// A filesystem of a few bytes, which ends with the test.
struct Small(PathBuf);

impl Small {
    /// `None` where this machine cannot mount.
    fn new(dir: &Path, size: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: not root");
            return None;
        }
        fs::create_dir(dir).expect("a directory");
        let small = Self(dir.to_owned());
        small.mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=0755"), "none"]).then_some(small)
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        Command::new("mount").args(arguments).arg(&self.0).status().expect("mount").success()
    }

    fn remount(&self, options: &str) {
        assert!(self.mount(&["-o", &format!("remount,{options}")]), "{options}");
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("a filesystem");
        stat.f_bavail * stat.f_bsize
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_a_pull_and_nothing_else() {
    let (folder, [one, _]) = folder();
    let big = make(folder.path(), "big.tess", &[("big", &noise(9, 4_000_000))], &[]);
    let Some(small) = Small::new(&folder.path().join("small"), "1m") else { return };
    let store = store(&small.0, "store", &one);
    let (before, free) = (tree(store.path()), small.free());
    let error = pull(&store, TWO, &big).expect_err("a full disk");
    let pack = &big.artifact.packs[0];
    let path =
        store.path().join("filling").join(big.artifact.image_id.to_string()).join(pack.digest.to_string());
    assert_eq!(
        error,
        format!(
            "cannot take {} bytes for {}: No space left on device (os error 28)",
            pack.len,
            path.display()
        )
    );
    assert!(!path.exists());
    // The image file is there, for the next pull.
    assert!(
        free - small.free() <= big.artifact.image.len.next_multiple_of(4096) + 4096,
        "{free}, {}",
        small.free()
    );
    assert!(blob(&store, &big.artifact.image.digest).is_file());
    assert!(!is_whole(&store, "a full disk"));
    // Not a byte is left: documents and names.
    let fill = fs::File::create(small.0.join("fill")).expect("a file");
    rustix::fs::fallocate(&fill, rustix::fs::FallocateFlags::empty(), 0, small.free()).expect("bytes");
    let using = support::store::using(&store);
    let error =
        using.add_document(&noise(4, 10_000)).map_err(|error| error.to_string()).expect_err("a full disk");
    assert!(error.starts_with("cannot write "), "{error}");
    drop(using);
    assert!(!is_whole(&store, "a full disk"));
    done(folder.path(), &["gc", "--unfinished", "--store", store.path().to_str().expect("text")]);
    assert_eq!(tree(store.path()), before);
    fs::remove_file(small.0.join("fill")).expect("a file");
    drop(fill);
    small.remount("size=16m");
    pull(&store, TWO, &big).expect("an image");
    assert!(is_whole(&store, "room"));
    assert_eq!(problems(&store), []);
}

#[test]
fn a_file_that_may_not_be_so_long_fails_a_pull_and_nothing_else() {
    let (folder, [one, two]) = folder();
    let store = store(folder.path(), "store", &one);
    let before = tree(store.path());
    let child = puller(store.path(), TWO, &two);
    // Blocks of 512 bytes or of 1024, by the shell: less than the pack has, and more than the image file.
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 40; exec \"$@\"", "sh"])
        .arg(child.get_program())
        .args(child.get_args());
    for (variable, value) in child.get_envs() {
        command.env(variable, value.expect("a value"));
    }
    let output = command.output().expect("sh");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("File too large (os error 27)"), "{said}");
    let said = said.lines().find(|line| line.starts_with("cannot take ")).expect("an error");
    assert!(said.contains(&two.artifact.packs[1].digest.to_string()), "{said}");
    assert!(!is_whole(&store, "a limit"));
    sweep(&store);
    assert_eq!(tree(store.path()), before);
    pull(&store, TWO, &two).expect("an image");
    assert_eq!(problems(&store), []);
}

#[test]
fn a_store_that_nobody_can_write_serves() {
    let (folder, [one, two]) = folder();
    let Some(small) = Small::new(&folder.path().join("small"), "16m") else { return };
    let made = store(&small.0, "store", &one);
    let (path, text) = (made.path().to_owned(), made.path().to_str().expect("text").to_owned());
    fs::write(path.join("blobs/sha256").join("0".repeat(64)), "garbage").expect("a file");
    for has_lock in [true, false] {
        small.remount("rw");
        if !has_lock {
            fs::remove_file(path.join("lock")).expect("a file");
        }
        small.remount("ro");
        let run = |arguments: &[&str]| {
            let mut command = Command::new(TESSERAFS);
            command
                .current_dir(folder.path())
                .arg(arguments[0])
                .args(["--store", &text])
                .args(&arguments[1..]);
            command.output().expect("tesserafs")
        };
        for arguments in [&["images"][..], &["export", "-qf", ONE, "one-file.tess"], &["gc", "--dry-run"]] {
            let output = run(arguments);
            assert!(output.status.success(), "{output:?}");
        }
        // The stray file is one.
        assert_eq!(run(&["fsck"]).status.code(), Some(1));
        for arguments in [&["gc"][..], &["rm", ONE]] {
            let output = run(arguments);
            let said = support::error(&output);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("Read-only file system (os error 30)"), "{said}");
        }
        let store = Store::open(&path).expect("a store").expect("a store");
        let error = pull(&store, TWO, &two).expect_err("a store that cannot be written");
        assert!(error.contains("Read-only file system"), "{error}");
    }
}
