// SPDX-License-Identifier: GPL-2.0-or-later

//! The progress of pulls and pushes on a terminal: bytes, files, and the time that is left.

use std::process::{Command, Stdio};

use super::registry::Wrong;
use super::support::{text, TESSERAFS};
use super::{name_of, Made, Place};

/// All that a terminal of 100 columns gets from the program, and from the shell behind it.
fn on_a_terminal(arguments: &str) -> String {
    let command = format!("stty cols 100; {TESSERAFS} {arguments}; echo status $?");
    let output = Command::new("script").args(["-qefc", &command, "/dev/null"]).stdin(Stdio::null()).output();
    String::from_utf8_lossy(&output.expect("script, of util-linux").stdout).into_owned()
}

/// The bars, in order: each takes the place of the one before.
fn bars(shown: &str) -> Vec<&str> {
    let parts = shown.split(['\r', '\n']).flat_map(|line| line.split("\x1b[2K"));
    parts.filter(|part| part.contains('[') && part.contains("MiB/")).collect()
}

fn image(place: &Place) -> Made {
    let files: Vec<_> =
        ["a", "b", "c"].into_iter().zip(1..).map(|(name, seed)| (name, seed, 8_000_000)).collect();
    let base = place.image("base.tess", &files[..2], &[]);
    let image = place.image("image.tess", &files, &[&base]);
    assert_eq!(image.artifact.packs.len(), 2);
    image
}

#[test]
fn a_pull_shows_bytes_files_and_time() {
    let place = Place::new();
    let image = image(&place);
    place.publish(&image, "v1");
    // The image file is there before the last bytes of this pack are asked for again.
    let name = name_of(&image.artifact.packs[0].digest);
    place.registry.wrong("GET", &name, 1, Wrong::Cut(3_000_000));
    let store = place.path().join("store");
    let pull =
        format!("pull --plain-http --authfile /dev/null --store {} {}", text(&store), place.name("v1"));
    let shown = on_a_terminal(&pull);
    assert!(shown.contains("fetched by ") && shown.ends_with("status 0\r\n"), "{shown:?}");
    let bars = bars(&shown);
    let is_full = |bar: &&str| bar.contains("iB/s), 1 of 3 files, ") && bar.trim_end().ends_with(" left");
    assert!(bars.iter().any(is_full), "{shown:?}");
    assert!(bars.iter().all(|bar| bar.trim_end().chars().count() <= 100), "{bars:?}");
    // The bar is gone when the report comes.
    assert!(!shown.lines().last().expect("a line").contains('['), "{shown:?}");
    place.check("v1", &image);

    // Nothing has to come: no bar is left behind.
    let shown = on_a_terminal(&pull);
    assert!(shown.contains("0 B fetched by 0 requests") && shown.ends_with("status 0\r\n"), "{shown:?}");
    // An error is on a line of its own.
    let shown = on_a_terminal(&format!("pull --plain-http --authfile /dev/null {}", place.name("none")));
    let said = shown.lines().find(|line| line.contains("no manifest none")).expect("an error");
    assert!(said.contains("tesserafs: ") && !said.contains("MiB"), "{shown:?}");
}

#[test]
fn a_push_shows_bytes_files_and_time() {
    let place = Place::new();
    let image = image(&place);
    // The packs come to their ends at different times.
    let busy = Wrong::Status(429, vec![("Retry-After", "1".into())], String::new());
    place.registry.wrong("PATCH", "/blobs/uploads/", 1, busy);
    let (path, packs) = (text(&image.path), text(&image.packs));
    let name = place.name("v1");
    let shown =
        on_a_terminal(&format!("push --plain-http --authfile /dev/null --packdir {packs} {path} {name}"));
    assert!(shown.ends_with("status 0\r\n"), "{shown:?}");
    let of_four = |bar: &&str| bar.contains(" of 4 files") && bar.contains("MiB/s)");
    assert!(bars(&shown).iter().any(of_four), "{shown:?}");
    assert!(bars(&shown).iter().any(|bar| bar.trim_end().ends_with(" left")), "{shown:?}");
}
