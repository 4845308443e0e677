// SPDX-License-Identifier: GPL-2.0
//! Pages that mounts of different images share: that they do, that no image can put bytes of its own
//! into them, and that mounts may come and go in any order.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;
use crate::sys::Mapping;

const FORGED: &str = "/tmp/forged.tess";

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("two-images-have-one-copy", || one_copy(plan));
    suite.test("pages-outlive-their-mounts", || outlive(plan));
    suite.test("unmounting-the-first-leaves-the-second", || leave(plan, true));
    suite.test("unmounting-the-second-leaves-the-first", || leave(plan, false));
    suite.test("a-forged-image-poisons-nothing", || forged(plan));
    suite.test("private-pages-are-private", || private(plan));
    suite.test("a-trusted-backing-shares-nothing", || trusted(plan));
    suite.test("mounts-come-and-go-while-files-are-mapped", || storm(plan));
}

/// An image of the small tree, and another one with the same files: it is signed.
fn two(plan: &Plan) -> Result<(Mount, Mount)> {
    let mount = |image: &str, target: &str| {
        Mount::image(&beside_the_forged(image)?, Path::new(target), "")
            .with_context(|| format!("failed to mount {image}"))
    };
    Ok((mount(&plan.small.image, "/mnt/one")?, mount(&plan.signed.good[0].image, "/mnt/two")?))
}

/// A copy of an image where the forged one lies: images on one device share pages, and no others.
fn beside_the_forged(image: &str) -> Result<PathBuf> {
    let copy = Path::new(FORGED).with_file_name(image);
    std::fs::copy(on_disk(image), &copy).with_context(|| format!("failed to copy {image}"))?;
    Ok(copy)
}

/// The files of the small tree with different bytes: equal ones share their pages, too.
fn files(plan: &Plan) -> Result<Vec<Entry>> {
    let manifest = Manifest::load(&on_disk(&plan.small.manifest))?;
    let mut files: Vec<Entry> = Vec::new();
    for entry in manifest.entries.into_iter().filter(|entry| tree::is_file(entry.mode) && entry.size > 0) {
        if files.iter().all(|known| known.content != entry.content) {
            files.push(entry);
        }
    }
    ensure!(files.len() > 100, "the tree has {} files only", files.len());
    Ok(files)
}

/// The longest file.
pub(crate) fn longest(plan: &Plan) -> Result<Entry> {
    files(plan)?.into_iter().max_by_key(|entry| entry.size).context("the tree has no file")
}

pub(crate) fn read(entry: &Entry, root: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let path = entry.below(root);
    let content = tree::checksum(&path, entry.size, &mut buffer)
        .with_context(|| format!("failed to read {}", path.display()))?;
    ensure!(content == entry.content, "{} has wrong bytes", path.display());
    Ok(())
}

fn map(entry: &Entry, root: &Path) -> io::Result<Mapping> {
    Mapping::new(&File::open(entry.below(root))?, entry.size as usize)
}

/// Pages of a file, and how many of them are in memory.
fn resident(entry: &Entry, root: &Path) -> Result<(usize, usize)> {
    let mapping = map(entry, root).context("failed to map a file")?;
    Ok((entry.size.div_ceil(4096) as usize, mapping.resident().context("mincore failed")?))
}

fn one_copy(plan: &Plan) -> Result<String> {
    let (one, two) = two(plan)?;
    drop_caches()?;
    let files = files(plan)?;
    let mut pages = 0;
    for entry in &files {
        let (_, before) = resident(entry, two.path())?;
        ensure!(before == 0, "/{} is in memory before anybody read it", entry.path.escape_ascii());
        read(entry, one.path())?;
        let (all, there) = resident(entry, two.path())?;
        ensure!(there == all, "/{}: {there} of {all} pages are shared", entry.path.escape_ascii());
        read(entry, two.path())?;
        pages += all;
    }
    // Either mount can have them dropped.
    drop_caches()?;
    for entry in &files {
        for root in [one.path(), two.path()] {
            let (_, left) = resident(entry, root)?;
            ensure!(left == 0, "/{}: {left} pages cannot be dropped", entry.path.escape_ascii());
        }
    }
    one.unmount()?;
    two.unmount()?;
    Ok(format!("{} files, {pages} pages", files.len()))
}

fn outlive(plan: &Plan) -> Result<String> {
    let entry = longest(plan)?;
    drop_caches()?;
    let (one, two) = self::two(plan)?;
    read(&entry, one.path())?;
    one.unmount()?;
    two.unmount()?;
    let (one, two) = self::two(plan)?;
    let (all, there) = resident(&entry, two.path())?;
    ensure!(there == all, "{there} of {all} pages are still there");
    read(&entry, two.path())?;
    one.unmount()?;
    two.unmount()?;
    Ok(String::new())
}

/// A file stays mapped through one mount while the other goes, and its pages are filled and dropped
/// before and after.
fn leave(plan: &Plan, first: bool) -> Result<String> {
    let entry = longest(plan)?;
    let (one, two) = two(plan)?;
    let (stays, goes) = if first { (two, one) } else { (one, two) };
    drop_caches()?;
    let mapping = map(&entry, stays.path()).context("failed to map a file")?;
    let half = mapping.bytes().len() / 2;
    let before = mapping.bytes()[..half].to_vec();
    read(&entry, goes.path())?;
    goes.unmount()?;
    drop_caches()?;
    ensure!(mapping.bytes()[..half] == before, "the bytes are others after the unmount");
    drop(mapping);
    read(&entry, stays.path())?;
    drop_caches()?;
    read(&entry, stays.path())?;
    stays.unmount()?;
    Ok(String::new())
}

/// An image that names the chunks of another one, and has other bytes in their place.
pub(crate) fn forge(plan: &Plan, options: &str) -> Result<Mount> {
    let good = on_disk(&plan.signed.good[0].image);
    std::fs::copy(good, FORGED).context("failed to copy the image")?;
    let file = File::options().read(true).write(true).open(FORGED).context("failed to open the copy")?;
    for flip in plan.flips.iter().filter(|flip| flip.region == "pack") {
        let mut byte = [0];
        file.read_exact_at(&mut byte, flip.offset)
            .and_then(|()| file.write_all_at(&[byte[0] ^ (1 << flip.bit)], flip.offset))
            .context("failed to forge a chunk")?;
    }
    Mount::image(Path::new(FORGED), Path::new("/mnt/forged"), options)
        .context("failed to mount the forged image")
}

fn forged(plan: &Plan) -> Result<String> {
    let forged = forge(plan, "")?;
    let good = beside_the_forged(&plan.signed.good[0].image)?;
    let good = Mount::image(&good, Path::new("/mnt/two"), "").context("failed to mount the image")?;
    let (mut refused, mut served) = (0, 0);
    for entry in files(plan)? {
        drop_caches()?;
        // First the forged image: it gives an error or, where nothing of a chunk was changed, the right
        // bytes.
        match tree::checksum(&entry.below(forged.path()), entry.size, &mut vec![0; 1 << 16]) {
            Ok(content) => ensure!(content == entry.content, "the forged image gives forged bytes"),
            Err(error) if error.raw_os_error() == Some(Errno::BADMSG.raw_os_error()) => refused += 1,
            Err(error) => bail!("/{}: {error}", entry.path.escape_ascii()),
        }
        read(&entry, good.path()).context("after the forger's attempt")?;
        // Bytes that others have verified serve the readers of the forged image, too: they are the same.
        read(&entry, forged.path()).context("after it was verified")?;
        served += 1;
    }
    ensure!(refused > 20, "{refused} files of the forged image are damaged: the test proves nothing");
    good.unmount()?;
    forged.unmount()?;
    Ok(format!("{refused} of {served} refused"))
}

fn private(plan: &Plan) -> Result<String> {
    let (one, two) = two(plan)?;
    two.unmount()?;
    let two = beside_the_forged(&plan.signed.good[0].image)?;
    let two = Mount::image(&two, Path::new("/mnt/two"), "private_pages")
        .context("failed to mount with private_pages")?;
    drop_caches()?;
    let entry = longest(plan)?;
    read(&entry, one.path())?;
    let (_, there) = resident(&entry, two.path())?;
    ensure!(there == 0, "{there} pages are shared");
    read(&entry, two.path())?;
    one.unmount()?;
    two.unmount()?;
    Ok(String::new())
}

/// Nobody compares digests for an image whose backing store is trusted: chunks that are decoded for it, right
/// or forged, serve no other image.
fn trusted(plan: &Plan) -> Result<String> {
    let (one, two) = two(plan)?;
    drop_caches()?;
    let forged = forge(plan, "trusted_backing")?;
    let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
    ensure!(
        mounts.lines().any(|line| line.contains("/mnt/forged") && line.contains(",trusted_backing")),
        "the option is not shown"
    );
    let mut taken = 0;
    for entry in files(plan)? {
        // Forged bytes, where they decode at all.
        match tree::checksum(&entry.below(forged.path()), entry.size, &mut vec![0; 1 << 16]) {
            Ok(content) if content != entry.content => taken += 1,
            _ => {}
        }
        let (_, there) = resident(&entry, one.path())?;
        ensure!(there == 0, "/{}: {there} pages are shared", entry.path.escape_ascii());
    }
    ensure!(taken > 20, "{taken} files are forged: the digests are compared, or the test proves nothing");
    // The chunk cache was full of forged chunks.
    for entry in files(plan)? {
        read(&entry, two.path())?;
    }
    forged.unmount()?;
    one.unmount()?;
    two.unmount()?;
    Ok(format!("{taken} forged files"))
}

/// Mounts, reads and unmounts by several at once, with one mapping that stays.
fn storm(plan: &Plan) -> Result<String> {
    const ROUNDS: usize = 12;
    let entry = longest(plan)?;
    let (one, two) = two(plan)?;
    two.unmount()?;
    let mapping = map(&entry, one.path()).context("failed to map a file")?;
    let expected = mapping.bytes().to_vec();
    let images = [&plan.small.image, &plan.signed.good[0].image, &plan.signed.good[1].image];
    std::thread::scope(|scope| -> Result<()> {
        let mut workers = Vec::new();
        for (number, image) in images.into_iter().enumerate() {
            let entry = &entry;
            workers.push(scope.spawn(move || -> Result<()> {
                let target = format!("/mnt/storm-{number}");
                for round in 0..ROUNDS {
                    let mount = Mount::image(&on_disk(image), Path::new(&target), "")
                        .with_context(|| format!("failed to mount {image} in round {round}"))?;
                    read(entry, mount.path())?;
                    if round % 3 == number {
                        drop_caches()?;
                    }
                    mount.unmount()?;
                }
                Ok(())
            }));
        }
        for _ in 0..ROUNDS {
            drop_caches()?;
            ensure!(mapping.bytes() == expected, "the mapped bytes change");
        }
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok(())
    })?;
    drop(mapping);
    one.unmount()?;
    Ok(format!("{} mounts", images.len() * ROUNDS))
}
