// SPDX-License-Identifier: GPL-2.0
//! The pages that a page fault on a mapped file reads: a few around it, more if the mapping is read in order,
//! and those that `madvise` asks for.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use rustix::mm::Advice;
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::mounts::{drop_caches, on_disk, Mount};
use crate::observe::{folder, number};
use crate::suite::Suite;
use crate::sys::{major_faults, Mapping};

const PAGE: usize = 4096;

/// Pages between two faults of which neither is near the other.
const FAR: usize = 600;

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    for (name, options) in [("shared-pages", ""), ("private-pages", "private_pages")] {
        suite.test(&format!("a-page-fault-decodes-two-chunks-at-most/{name}"), || few_chunks(plan, options));
        suite.test(&format!("a-mapping-in-order-has-few-faults/{name}"), || in_order(plan, options));
        suite.test(&format!("a-mapping-follows-advice/{name}"), || advice(plan, options));
        suite.test(&format!("a-header-brings-no-window/{name}"), || header(plan, options));
    }
}

/// The largest program of the Debian root, in an image that was just mounted.
struct Program {
    mount: Mount,
    counters: PathBuf,
    entry: Entry,
}

impl Program {
    fn new(plan: &Plan, options: &str) -> Result<Self> {
        let manifest = Manifest::load(&on_disk(&plan.root.manifest))?;
        let is_program = |entry: &Entry| tree::is_file(entry.mode) && entry.mode & 0o111 != 0;
        let programs = manifest.entries.into_iter().filter(is_program);
        let entry = programs.max_by_key(|entry| entry.size).context("the root has no program")?;
        let mount = Mount::image(&on_disk(&plan.root.image), Path::new("/mnt/image"), options)
            .context("failed to mount the image")?;
        Ok(Self { counters: folder(&mount)?, mount, entry })
    }

    /// Opened, and mapped, with nothing of it in memory.
    fn map(&self) -> Result<(File, Mapping)> {
        let path = self.entry.below(self.mount.path());
        let file = File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        let length = usize::try_from(self.entry.size).context("a large program")?;
        let mapping = Mapping::new(&file, length).context("failed to map the program")?;
        drop_caches()?;
        Ok((file, mapping))
    }

    fn counter(&self, name: &str) -> Result<u64> {
        number(&self.counters, name)
    }
}

fn touch(mapping: &Mapping, page: usize) {
    std::hint::black_box(mapping.bytes()[page * PAGE]);
}

/// A miss here and there decodes what its page needs, and fills the pages that this is good for.
fn few_chunks(plan: &Plan, options: &str) -> Result<String> {
    let program = Program::new(plan, options)?;
    let (file, mapping) = program.map()?;
    let pages = mapping.bytes().len() / PAGE;
    let (mut faults, mut chunks) = (0, 0);
    for page in (FAR / 2..pages).step_by(FAR) {
        let before = program.counter("chunk_misses")?;
        touch(&mapping, page);
        let read = program.counter("chunk_misses")? - before;
        ensure!((1..=2).contains(&read), "a fault on page {page} read {read} chunks");
        (faults, chunks) = (faults + 1, chunks + read);
    }
    ensure!(faults > 5, "{faults} faults only");
    let resident = mapping.resident().context("mincore failed")?;
    ensure!(resident > 2 * faults, "{faults} faults brought {resident} pages only");
    drop((mapping, file));
    program.mount.unmount()?;
    Ok(format!("{faults} faults, {chunks} chunks, {resident} pages"))
}

/// Each fault of a mapping that is read from its beginning to its end brings more than the one before, and most of it
/// is decoded to where it is mapped from.
fn in_order(plan: &Plan, options: &str) -> Result<String> {
    let program = Program::new(plan, options)?;
    let (file, mapping) = program.map()?;
    let pages = mapping.bytes().len() / PAGE;
    let (before, copied_before) = (major_faults()?, program.counter("copied_bytes")?);
    for page in 0..pages {
        touch(&mapping, page);
    }
    let faults = major_faults()? - before;
    let copied = program.counter("copied_bytes")? - copied_before;
    ensure!(faults > 0, "nothing was read");
    ensure!(faults < pages as u64 / 128, "{faults} faults for {pages} pages in order");
    ensure!(copied < program.entry.size / 4, "{copied} bytes are copied, of {}", program.entry.size);
    drop((mapping, file));
    program.mount.unmount()?;
    Ok(format!("{faults} faults for {pages} pages, {copied} bytes copied"))
}

/// `MADV_RANDOM` brings one page, `MADV_SEQUENTIAL` a wide window.
fn advice(plan: &Plan, options: &str) -> Result<String> {
    let program = Program::new(plan, options)?;
    let (file, mapping) = program.map()?;
    mapping.advise(Advice::Random).context("madvise failed")?;
    touch(&mapping, FAR);
    let random = mapping.resident().context("mincore failed")?;
    ensure!(random == 1, "{random} pages of a mapping with MADV_RANDOM");
    drop((mapping, file));
    let (file, mapping) = program.map()?;
    mapping.advise(Advice::Sequential).context("madvise failed")?;
    touch(&mapping, FAR);
    let sequential = mapping.resident().context("mincore failed")?;
    ensure!(sequential > 64, "{sequential} pages of a mapping with MADV_SEQUENTIAL");
    drop((mapping, file));
    program.mount.unmount()?;
    Ok(format!("{random} page, {sequential} pages"))
}

/// A loader reads the header of a program, and maps it then: that is no stream.
fn header(plan: &Plan, options: &str) -> Result<String> {
    let program = Program::new(plan, options)?;
    let (mut file, mapping) = program.map()?;
    file.read_exact(&mut [0; 832]).context("failed to read the header")?;
    let first = program.counter("chunk_misses")?;
    // The mark of the page cache is on one of these.
    for page in 1..8 {
        touch(&mapping, page);
    }
    let more = program.counter("chunk_misses")? - first;
    ensure!(more <= 2, "seven pages behind a header read {more} chunks");
    drop((mapping, file));
    program.mount.unmount()?;
    Ok(format!("{more} more chunks"))
}
