// SPDX-License-Identifier: GPL-2.0-or-later

//! Names that change while fsck works.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::bench::Bench;
use crate::common::Draft;
use crate::{many_directories, Canary, HANG};

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
