// SPDX-License-Identifier: GPL-2.0-or-later

//! SIGINT and its like: one sentence, an end by the signal, and a store with which the next pull goes on.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{kill_process, Pid, Signal};

use super::hostile::taken;
use super::registry::Wrong;
use super::support::store::problems;
use super::support::{error, wait, TESSERAFS};
use super::{bytes, name_of, Made, Place, REPOSITORY};

const SENTENCE: &str = "what came is kept, and the next pull of the image goes on with it\n";

/// An image of two packs, of which the first one has several requests.
fn image(place: &Place) -> Made {
    let files: Vec<_> =
        ["a", "b", "c", "d"].into_iter().zip(1..).map(|(name, seed)| (name, seed, 8_000_000)).collect();
    let base = place.image("base.tess", &files, &[]);
    let mut more = files;
    more.push(("e", 9, 3_000_000));
    let image = place.image("image.tess", &more, &[&base]);
    assert_eq!(image.artifact.packs.len(), 2);
    place.publish(&image, "v1");
    image
}

fn puller(place: &Place) -> Child {
    Command::new(TESSERAFS)
        .args([
            "pull",
            "--plain-http",
            "--authfile",
            "/dev/null",
            "--tries",
            "5",
            "--connections",
            "1",
            "--store",
        ])
        .arg(place.path().join("store"))
        .arg(place.name("v1"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("tesserafs")
}

fn kill(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("a process");
}

/// The first bytes of the first pack come, and then nothing: whoever asks for more is answered so. The program, which waits.
fn begun(place: &Place, image: &Made, sent: usize, then: Wrong) -> Child {
    let name = name_of(&image.artifact.packs[0].digest);
    place.registry.wrong("GET", &name, 1, Wrong::Cut(sent));
    place.registry.wrong("GET", &name, 100, then);
    place.registry.seen();
    let child = puller(place);
    let is_asked = || place.registry.seen().iter().any(|seen| seen.target.contains(&name));
    wait("the first bytes", is_asked);
    wait("the next request", is_asked);
    child
}

/// The program ended by the signal, and said so in one line.
fn ended_by(output: &Output, signal: Signal, name: &str) {
    assert_eq!(output.status.signal(), Some(signal.as_raw()), "{output:?}");
    assert_eq!(error(output), format!("tesserafs: interrupted by {name}; {SENTENCE}"));
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// All that came is there, and the rest comes.
fn goes_on(place: &Place, image: &Made, sent: usize) {
    place.registry.right();
    assert!(place.store().image(&super::reference(&place.name("v1"))).expect("a store").is_none());
    assert_eq!(problems(&place.store()), []);
    place.asked();
    place.pull("v1");
    place.check("v1", image);
    let pack = &image.artifact.packs[0];
    let again = bytes(&place.asked()[&name_of(&pack.digest)]);
    // All but the chunk that was cut off.
    assert!(again <= pack.len - sent as u64 + (1 << 20), "{again} of {}", pack.len);
}

#[test]
fn a_pull_that_waits_for_a_server_ends_and_the_next_one_goes_on() {
    const SENT: usize = 3_000_000;
    for (signal, name) in [(Signal::INT, "SIGINT"), (Signal::TERM, "SIGTERM"), (Signal::HUP, "SIGHUP")] {
        let place = Place::new();
        let image = image(&place);
        let busy = Wrong::Status(429, vec![("Retry-After", "200".into())], String::new());
        let child = begun(&place, &image, SENT, busy);
        kill(&child, signal);
        let output = child.wait_with_output().expect("tesserafs");
        ended_by(&output, signal, name);
        // The room of the pack of which nothing came is free.
        let kept = taken(&place.store().path().join("filling"));
        let [first, second] = [0, 1].map(|pack| image.artifact.packs[pack].len);
        assert!(kept < first + second, "{kept} of {first} and {second}");
        goes_on(&place, &image, SENT);
    }
}

/// A pull that got so many bytes, and the first signal while its server is silent. It would wait for 30 s, five times.
fn interrupted(sent: usize) -> (Place, Made, Child) {
    let place = Place::new();
    let image = image(&place);
    let child = begun(&place, &image, sent, Wrong::Silent(Duration::from_secs(600)));
    kill(&child, Signal::INT);
    (place, image, child)
}

#[test]
fn a_server_that_is_silent_does_not_hold_up_an_interrupt() {
    let (place, image, child) = interrupted(3_000_000);
    ended_by(&child.wait_with_output().expect("tesserafs"), Signal::INT, "SIGINT");
    goes_on(&place, &image, 3_000_000);
}

#[test]
fn a_second_signal_ends_at_once() {
    let (place, image, child) = interrupted(3_000_000);
    // The second one has to find the first one heard.
    let status = format!("/proc/{}/status", child.id());
    let is_heard = || fs::read_to_string(&status).expect("a process").contains("ShdPnd:\t0000000000000000\n");
    wait("the first signal is heard", is_heard);
    kill(&child, Signal::TERM);
    let output = child.wait_with_output().expect("tesserafs");
    // Without a word: the program had no time to end by itself. One thread may hear the second signal before another one is done with the
    // first, and then it is that one which ends the process.
    let ends = [Signal::INT, Signal::TERM].map(|signal| Some(signal.as_raw()));
    assert!(ends.contains(&output.status.signal()), "{:?}", output.status);
    assert_eq!(error(&output), "");
    goes_on(&place, &image, 3_000_000);
}

#[test]
fn a_pull_that_waits_for_another_process_ends() {
    let place = Place::new();
    let image = image(&place);
    let first = begun(&place, &image, 1_000_000, Wrong::Silent(Duration::from_secs(600)));
    let second = puller(&place);
    // It has asked for the manifest, and waits for the image that the other one fills.
    let manifest = format!("/v2/{REPOSITORY}/manifests/v1");
    wait("the second one", || place.registry.seen().iter().any(|seen| seen.target == manifest));
    kill(&second, Signal::INT);
    let output = second.wait_with_output().expect("tesserafs");
    assert_eq!(output.status.signal(), Some(Signal::INT.as_raw()), "{output:?}");
    assert!(error(&output).ends_with(&format!("tesserafs: interrupted by SIGINT; {SENTENCE}")), "{output:?}");
    kill(&first, Signal::KILL);
    first.wait_with_output().expect("tesserafs");
    goes_on(&place, &image, 1_000_000);
}

/// `nohup` has it ignore SIGHUP, and a shell has jobs in the background ignore SIGINT.
#[test]
fn signals_that_are_ignored_end_nothing() {
    let place = Place::new();
    let image = image(&place);
    let name = name_of(&image.artifact.packs[0].digest);
    place.registry.wrong("GET", &name, 1, Wrong::Silent(Duration::from_secs(2)));
    let child = Command::new("sh")
        .args(["-c", "trap '' HUP INT; exec \"$0\" pull \"$@\""])
        .arg(TESSERAFS)
        .args(["--plain-http", "--authfile", "/dev/null", "--quiet", "--store"])
        .arg(place.path().join("store"))
        .arg(place.name("v1"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sh");
    wait("it asks", || place.registry.seen().iter().any(|seen| seen.target.contains(&name)));
    for signal in [Signal::HUP, Signal::INT] {
        kill(&child, signal);
    }
    let output = child.wait_with_output().expect("tesserafs");
    assert!(output.status.success(), "{output:?}");
    place.check("v1", &image);
}
