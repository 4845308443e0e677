// SPDX-License-Identifier: GPL-2.0-or-later

//! Pulls that end at any moment: what is there is right, and the next one goes on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use mkfs_tesserafs::progress::Silent;

use super::registry::Wrong;
use super::support::store::{problems, tree};
use super::support::TESSERAFS;
use super::{bytes, name_of, pull, Made, Place};

/// The program, which pulls a tag.
fn puller(place: &Place, tag: &str) -> Command {
    let mut command = Command::new(TESSERAFS);
    command
        .args(["pull", "--plain-http", "--authfile", "/dev/null", "--tries", "2", "--quiet", "--store"])
        .arg(place.path().join("store"))
        .arg(place.name(tag))
        .stdin(Stdio::null());
    command
}

/// The command, which is killed where it calls `call` for the time `when`; `None` where this machine cannot do that.
fn ended_at(command: &Command, call: &str, when: usize) -> Option<Command> {
    let works =
        Command::new("strace").args(["-qqq", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: this machine has no strace that works");
        return None;
    }
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qqq", "-o", "/dev/null", "-e"]).arg(format!("trace=?{call}")).arg("-e");
    strace.arg(format!("inject=?{call}:signal=SIGKILL:when={when}"));
    strace.arg(command.get_program()).args(command.get_args());
    strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Some(strace)
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9) || status.code() == Some(128 + 9)
}

/// An image, and an update of it with a bundle, which is larger than the image file of that.
fn update(place: &Place) -> [Made; 2] {
    let old = place.image("old.tess", &[("a", 1, 400_000), ("b", 2, 1_200_000)], &[]);
    let mut new = place.image("new.tess", &[("a", 3, 400_000), ("b", 2, 1_200_000)], &[&old]);
    place.compress(&mut new);
    assert_eq!(new.artifact.packs.len(), 2);
    place.publish(&old, "old");
    place.publish(&new, "new");
    place.publish_bundle(&old, &new, false);
    [old, new]
}

/// The store after a pull that ended somewhere, and after the next one.
fn check_after(place: &Place, tag: &str, image: &Made, what: &str) {
    let root = place.path().join("store");
    if let Some(store) = tesserafs_store::store::Store::open(&root).expect("a store") {
        let errors: Vec<_> = problems(&store).into_iter().filter(|problem| problem.is_error).collect();
        assert!(errors.is_empty(), "{what}: {errors:?}");
    }
    pull(&place.request(tag), &Silent).unwrap_or_else(|error| panic!("{what}: {error}"));
    place.check(tag, image);
    assert_eq!(tree(&root.join("filling")), [""; 0], "{what}");
}

const CALLS: [&str; 12] = [
    "mkdirat",
    "unlinkat",
    "unlink",
    "linkat",
    "symlinkat",
    "renameat,renameat2,rename",
    "fallocate",
    "pwrite64",
    "fchmod",
    "fsync",
    "ftruncate",
    "flock",
];

#[test]
fn a_pull_can_be_killed_at_any_step() {
    let place = Place::new();
    let [old, new] = update(&place);
    let (root, kept) = (place.path().join("store"), place.path().join("kept"));
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let _ = fs::remove_dir_all(to);
        let done = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
        assert!(done.success());
    };
    place.pull("old");
    copy(&root, &kept);
    let mut killed = 0;
    for (tag, image) in [("old", &old), ("new", &new)] {
        for call in CALLS {
            let mut when = 1;
            loop {
                match tag {
                    "old" => drop(fs::remove_dir_all(&root)),
                    _ => copy(&kept, &root),
                }
                let Some(mut command) = ended_at(&puller(&place, tag), call, when) else { return };
                if !was_killed(command.status().expect("strace")) {
                    break;
                }
                killed += 1;
                check_after(&place, tag, image, &format!("{tag}: {call} {when}"));
                // All of the first ones, and then some.
                when += 1 + when / 4;
            }
        }
    }
    eprintln!("killed at {killed} steps");
    assert!(killed > 60, "{killed}");
}

#[test]
fn what_came_before_the_end_does_not_come_again() {
    let place = Place::new();
    let files: Vec<_> = ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .zip(1..)
        .map(|(name, seed)| (name, seed, 8_000_000))
        .collect();
    let image = place.image("image.tess", &files, &[]);
    place.publish(&image, "v1");
    let pack = &image.artifact.packs[0];
    let name = name_of(&pack.digest);
    let before_chunk = 2 << 20;
    for sent in [1_000_000_usize, 5_000_000, 7_900_000] {
        let _ = fs::remove_dir_all(place.path().join("store"));
        // The first request is cut off, and whoever asks for the rest waits for ever.
        place.registry.wrong("GET", &name, 1, Wrong::Cut(sent));
        place.registry.wrong("GET", &name, 100, Wrong::Silent(Duration::from_secs(60)));
        let mut child = puller(&place, "v1").spawn().expect("tesserafs");
        let rest = format!("bytes={sent}-");
        let is_rest = |range: &String| range.starts_with(&rest);
        let cut_off = || place.registry.seen().iter().any(|seen| seen.range.as_ref().is_some_and(is_rest));
        super::support::wait("the request for the rest", cut_off);
        child.kill().expect("a process");
        child.wait().expect("a process");
        place.registry.right();
        place.asked();
        let report = place.pull("v1");
        place.check("v1", &image);
        let again = bytes(&place.asked()[&name]);
        assert!(again <= pack.len - sent as u64 + before_chunk, "{again} of {} after {sent}", pack.len);
        assert!(again >= pack.len - sent as u64);
        // Nor does the image file.
        assert_eq!(report.fetched_bytes, again);
    }
}

#[test]
fn a_tag_that_moved_is_no_new_beginning() {
    let place = Place::new();
    let base = place.image("base.tess", &[("a", 1, 4_000_000)], &[]);
    let next = place.image("next.tess", &[("a", 1, 4_000_000), ("b", 2, 500_000)], &[&base]);
    let pack = base.artifact.packs[0];
    assert_eq!(next.artifact.packs[0], pack);
    place.publish(&base, "v1");
    let name = name_of(&pack.digest);
    place.registry.wrong("GET", &name, 1, Wrong::Cut(1_500_000));
    place.registry.wrong("GET", &name, 100, Wrong::Status(404, Vec::new(), String::new()));
    place.try_pull("v1").expect_err("not all came");
    place.registry.right();
    place.publish(&next, "v1");
    place.asked();
    let report = place.pull("v1");
    place.check("v1", &next);
    let again = bytes(&place.asked()[&name]);
    assert!(again < pack.len - 1_000_000, "{again} of {}", pack.len);
    assert!(report.copied_bytes > 1_000_000, "{report:?}");
}

#[test]
fn a_pull_that_was_complete_but_for_its_names_fetches_nothing() {
    let place = Place::new();
    let mut image = place.image("image.tess", &[("a", 1, 400_000)], &[]);
    place.compress(&mut image);
    place.publish(&image, "v1");
    let Some(mut command) = ended_at(&puller(&place, "v1"), "symlinkat", 1) else { return };
    assert!(was_killed(command.status().expect("strace")));
    place.asked();
    assert_eq!(place.pull("v1").fetched_bytes, 0);
    assert!(place.asked().is_empty());
    place.check("v1", &image);
}
