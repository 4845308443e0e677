// SPDX-License-Identifier: GPL-2.0-or-later

//! The pipeline as a library: in any shortage the result is the same, and it ends.

mod common;

use std::path::PathBuf;

use common::{noise, Sandbox};
use mkfs_tesserafs::config::default_profile;
use mkfs_tesserafs::encode::{encode, Map, PackWriter, Resources};
use mkfs_tesserafs::error::{Error, Result};
use mkfs_tesserafs::packs::Parents;
use mkfs_tesserafs::progress::Silent;
use mkfs_tesserafs::source::dir::DirSource;
use mkfs_tesserafs::source::{FileTask, Filter, Found, Source, Walked};

/// A pack in memory, which holds only so much.
struct Pack {
    bytes: Vec<u8>,
    room: usize,
}

impl PackWriter for Pack {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.bytes.len() + bytes.len() > self.room {
            return Err(Error::io("write", "pack".as_ref())(std::io::Error::from(
                std::io::ErrorKind::StorageFull,
            )));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

fn run(sandbox: &Sandbox, resources: Resources, room: usize) -> Result<(Vec<u8>, Map)> {
    let source = DirSource::open(&sandbox.path("src"), Filter::default())?;
    let mut pack = Pack { bytes: Vec::new(), room };
    let (_, map) = encode(&source, &default_profile(1), resources, &Parents::default(), &mut pack, &Silent)?;
    Ok((pack.bytes, map))
}

/// Large and small files, duplicates near and far, chunks that groups have too.
fn tree() -> Sandbox {
    let sandbox = Sandbox::new();
    let shared = noise(99, 6 << 20);
    for i in 0..40_u64 {
        let bytes = match i % 5 {
            0 => shared[(i as usize) << 12..].to_vec(),
            1 => noise(i % 3, 2 << 20),
            2 => noise(i, 50_000),
            3 => b"text, and more of it\n".repeat(i as usize * 100),
            _ => [noise(i, 3 << 20), vec![0; 3 << 20], noise(i, 1000)].concat(),
        };
        sandbox.write(&format!("src/{i:02}"), &bytes);
    }
    // A group of one file is what is also a chunk of a file: the small file is cut nowhere.
    sandbox.write("src/50", noise(50, 65_536));
    sandbox.write("src/51", [noise(50, 65_536), vec![0; 65_536]].concat());
    sandbox
}

#[test]
fn scarce_memory_and_many_threads_change_nothing_and_deadlock_nowhere() {
    let sandbox = tree();
    let (bytes, map) = run(&sandbox, Resources { threads: 1, budget: 1 << 30 }, usize::MAX).unwrap();
    for (threads, budget) in [(1, 1), (2, 1), (8, 1), (3, 1 << 20), (16, 3 << 20), (5, 64 << 20)] {
        for _ in 0..3 {
            let (again, other) = run(&sandbox, Resources { threads, budget }, usize::MAX).unwrap();
            assert!(again == bytes, "{threads} threads, {budget} bytes");
            assert_eq!(other.raw_digests, map.raw_digests);
            assert_eq!(other.chunk_digests, map.chunk_digests);
            assert_eq!(other.content_digests, map.content_digests);
            assert_eq!(other.extents, map.extents);
            assert_eq!(other.files, map.files);
        }
    }
}

#[test]
fn many_short_builds_all_end() {
    let sandbox = Sandbox::new();
    for i in 0..3_u64 {
        sandbox.write(&format!("src/{i}"), noise(i, 10));
    }
    // The end comes while threads still begin: a thread that misses it waits for ever.
    for i in 0..3000 {
        run(&sandbox, Resources { threads: 1 + i % 9, budget: 1 << 20 }, usize::MAX).unwrap();
    }
}

#[test]
fn an_error_of_the_writer_ends_everything() {
    let sandbox = tree();
    for (threads, budget) in [(1, 1), (4, 1), (4, 64 << 20)] {
        let error = run(&sandbox, Resources { threads, budget }, 1 << 20).unwrap_err();
        assert!(error.to_string().contains("cannot write pack"), "{error}");
    }
}

/// A source whose walk ends when somebody stops it.
struct Endless(DirSource);

impl Source for Endless {
    type File = <DirSource as Source>::File;
    type Open<'a> = <DirSource as Source>::Open<'a>;

    fn walk(&self, found: Found<'_, Self::File>) -> Result<Walked> {
        loop {
            self.0.walk(found)?;
        }
    }

    fn open<'a>(&'a self, task: &'a FileTask<Self::File>) -> Result<Self::Open<'a>> {
        self.0.open(task)
    }

    fn close(&self) -> Result<()> {
        self.0.close()
    }

    fn path(&self, task: &FileTask<Self::File>) -> PathBuf {
        self.0.path(task)
    }
}

#[test]
fn the_error_of_the_writer_is_told_and_not_that_it_stopped_the_others() {
    let sandbox = tree();
    let source = Endless(DirSource::open(&sandbox.path("src"), Filter::default()).unwrap());
    let mut pack = Pack { bytes: Vec::new(), room: 1 << 20 };
    let resources = Resources { threads: 2, budget: 64 << 20 };
    let error = encode(&source, &default_profile(1), resources, &Parents::default(), &mut pack, &Silent)
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("pack"), "{error}");
}
