// SPDX-License-Identifier: GPL-2.0-or-later

//! Sources that change while they are read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::{symlink, FileExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::UNIX_EPOCH;

use mkfs_tesserafs::build;
use mkfs_tesserafs::config::{default_profile, Config, SourcePath};
use mkfs_tesserafs::image::Annotations;
use mkfs_tesserafs::progress::{Progress, Silent};
use mkfs_tesserafs::source::dir::{DirFile, DirSource};
use mkfs_tesserafs::source::{FileTask, Filter, OpenFile, Source};
use rustix::fs::{mknodat, FileType, Mode, CWD};

use crate::archive::Archive;
use crate::common::{noise, read_image, Sandbox};
use crate::end;

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
    open.close().unwrap();
    assert!(source.close().unwrap_err().to_string().contains("a.tar changed while it was read"));
}

/// Changes an archive, and not its length, when the first file of it was found.
struct Changes<'a>(&'a Path, AtomicBool);

impl Progress for Changes<'_> {
    fn found(&self, _: u64) {
        if !self.1.swap(true, Ordering::Relaxed) {
            let file = OpenOptions::new().write(true).open(self.0).unwrap();
            file.write_all_at(b"other", 4096).unwrap();
        }
    }

    fn read(&self, _: u64) {}
}

#[test]
fn an_archive_that_changes_during_a_build_is_an_error() {
    let sandbox = Sandbox::new();
    let mut archive = Archive::default();
    for n in 0..100 {
        archive.file(&format!("file-{n}"), &noise(n, 3000));
    }
    let path = sandbox.write("a.tar", archive.end());
    // Two changes within one tick of the clock have one mtime.
    let age = || OpenOptions::new().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    for (name, sbom) in [("plain", false), ("sbom", true)] {
        age();
        let image = sandbox.path(name);
        let config = Config {
            image: image.clone(),
            source: SourcePath::Tar(path.clone()),
            filter: Filter::default(),
            profile: default_profile(1),
            threads: NonZeroUsize::new(2).unwrap(),
            annotations: Annotations::default(),
            sbom,
            signer: None,
            signed_data: None,
            shared: None,
            force: false,
            dry_run: false,
        };
        let error = build(&config, &Changes(&path, AtomicBool::new(false))).unwrap_err().to_string();
        assert!(error.contains("a.tar changed while it was read: its size or mtime is different"), "{error}");
        assert!(!image.exists());
        build(&config, &Silent).unwrap();
    }
}
