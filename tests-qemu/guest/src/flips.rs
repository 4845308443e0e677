// SPDX-License-Identifier: GPL-2.0
//! One bit of a signed image is flipped, in up to two hundred places of each region in turn.
//!
//! Either the mount is refused, or the data that the bit belongs to cannot be read, each with the right
//! errno; everything else is read right, and the log says so of each image. A wrong byte, a wrong name, a
//! wrong attribute fails the test.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use rustix::io::Errno;
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::plan::{Flip, Plan};
use tesserafs_guest::tree;

use crate::kmsg::Log;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::signatures::{require, trust};
use crate::suite::Suite;

pub(crate) const COPY: &str = "/tmp/flipped.tess";

/// Every so many places of each region are tried.
pub(crate) fn tests(suite: &mut Suite, plan: &Plan, every: usize) {
    let mut regions: BTreeMap<&str, Vec<&Flip>> = BTreeMap::new();
    for flip in &plan.flips {
        regions.entry(&flip.region).or_default().push(flip);
    }
    for flips in regions.values_mut() {
        *flips = flips.iter().copied().step_by(every).collect();
    }
    // With the policy off the structure itself must hold; the signature is looked at below.
    for (region, flips) in &regions {
        if *region != "signature" {
            suite.test(&format!("{region}-unsigned"), || run(plan, region, flips, ""));
        }
    }
    if let Some(flips) = regions.get("superblock") {
        let options = format!("digest=sha256:{}", plan.signed.good[0].image_id);
        suite.test("superblock-pinned", || run(plan, "superblock", flips, &options));
    }
    if let Some(flip) = regions.get("pack").and_then(|flips| flips.first()) {
        suite.test("one-image-silences-no-other", || log_of_two(plan, flip));
    }
    suite.test("require-signatures", || {
        require()?;
        trust(plan)?;
        Ok(String::new())
    });
    for region in ["superblock", "signature"] {
        if let Some(flips) = regions.get(region) {
            suite.test(&format!("{region}-signed"), || run(plan, region, flips, ""));
        }
    }
}

/// The effect of one flip.
enum Effect {
    Refused(Errno),
    /// Something could not be read, and everything else was right.
    Failed,
    /// Everything was read, and right: the kernel has no use for this bit.
    Silent,
}

/// Flips each bit, looks, and flips it back.
fn run(plan: &Plan, region: &str, flips: &[&Flip], options: &str) -> Result<String> {
    let image = &plan.signed.good[0];
    let expected = Manifest::load(&on_disk(&image.manifest))?;
    let file = copy(plan, Path::new(COPY))?;
    let (mut refused, mut failed, mut silent) = (BTreeMap::new(), 0, Vec::new());
    for flip in flips {
        toggle(&file, flip)?;
        let effect = look(region, &expected, options).with_context(|| format!("{flip:?}"))?;
        toggle(&file, flip)?;
        match effect {
            Effect::Refused(errno) => *refused.entry(errno.raw_os_error()).or_insert(0) += 1,
            Effect::Failed => failed += 1,
            Effect::Silent => silent.push((flip.offset, flip.bit)),
        }
    }
    // The untouched image must mount: otherwise every refusal above proves nothing.
    let whole = look(region, &expected, options).context("the image itself")?;
    ensure!(matches!(whole, Effect::Silent), "the image itself is refused or fails");
    // A chunk is hashed whole, and so are superblock and signature: nothing in them may go unnoticed.
    // Of the other regions, tables that only tools use (digests of contents, raw digests) are never read.
    if matches!(region, "pack" | "superblock" | "signature") && !silent.is_empty() {
        bail!("{} bits were not noticed: {silent:?}", silent.len());
    }
    ensure!(silent.len() < flips.len(), "no bit was noticed");
    Ok(format!(
        "{} flips: refused (by errno) {refused:?}, {failed} fail reading, {} concern only tools",
        flips.len(),
        silent.len()
    ))
}

/// A copy of the image, open to be changed.
pub(crate) fn copy(plan: &Plan, to: &Path) -> Result<File> {
    std::fs::copy(on_disk(&plan.signed.good[0].image), to)
        .and_then(|_| File::options().read(true).write(true).open(to))
        .with_context(|| format!("failed to copy the image to {}", to.display()))
}

pub(crate) fn toggle(file: &File, flip: &Flip) -> Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, flip.offset)
        .and_then(|()| file.write_all_at(&[byte[0] ^ (1 << flip.bit)], flip.offset))
        .with_context(|| format!("failed to flip {flip:?}"))
}

/// Mounts the copy and reads everything, with nothing in memory from the mount before: bytes that were
/// verified then may be used again, and would hide the damage.
fn look(region: &str, expected: &Manifest, options: &str) -> Result<Effect> {
    drop_caches()?;
    let mount = match Mount::image(Path::new(COPY), Path::new("/mnt/flipped"), options) {
        Ok(mount) => mount,
        Err(errno) if refusals(region).contains(&errno) => return Ok(Effect::Refused(errno)),
        Err(errno) => bail!("the mount is refused with {errno}"),
    };
    let scan = tree::scan_damaged(mount.path(), 1);
    mount.unmount()?;
    for (path, error) in &scan.errors {
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        ensure!(errno == Some(Errno::BADMSG), "/{} cannot be read because of {error}", path.escape_ascii());
    }
    if scan.errors.is_empty() {
        expected.expect_equal(&scan.manifest)?;
        return Ok(Effect::Silent);
    }
    right_as_far_as_read(expected, &scan.manifest)?;
    Ok(Effect::Failed)
}

/// Two mounts of one broken image: the first fails more often than the log takes lines of it, and the second, which then
/// fails once, has its line all the same.
fn log_of_two(plan: &Plan, flip: &Flip) -> Result<String> {
    const FAILURES: usize = 50;
    let copies = [Path::new(COPY), Path::new("/tmp/flipped-too.tess")];
    for copy in copies {
        toggle(&self::copy(plan, copy)?, flip)?;
    }
    drop_caches()?;
    let mount = |copy: &Path, target: &str| {
        Mount::image(copy, Path::new(target), "private_pages")
            .with_context(|| format!("failed to mount {}", copy.display()))
    };
    let (loud, quiet) = (mount(copies[0], "/mnt/loud")?, mount(copies[1], "/mnt/quiet")?);
    let broken = tree::scan_damaged(loud.path(), 1).errors;
    let (path, _) = broken.first().context("nothing is broken")?;
    let path = Path::new(OsStr::from_bytes(path));

    let mut log = Log::from_now()?;
    for _ in 0..FAILURES {
        fails(&loud.path().join(path))?;
    }
    let lines = log.said()?.len();
    ensure!(lines < FAILURES, "each of {FAILURES} failures has its line");
    fails(&quiet.path().join(path))?;
    let line = log.expect_line("chunk-digest").context("of the other image")?;
    loud.unmount()?;
    quiet.unmount()?;
    for copy in copies {
        std::fs::remove_file(copy).context("failed to remove a copy")?;
    }
    Ok(format!("{lines} lines of {FAILURES} failures; then {line}"))
}

/// Reads a file, which must not work.
fn fails(path: &Path) -> Result<()> {
    match std::fs::read(path) {
        Err(error) if error.raw_os_error() == Some(Errno::BADMSG.raw_os_error()) => Ok(()),
        other => bail!("reading {} gives {:?}", path.display(), other.map(|bytes| bytes.len())),
    }
}

/// Errnos that a mount may be refused with, by the region that the bit lies in.
pub(crate) fn refusals(region: &str) -> &'static [Errno] {
    match region {
        // Magic; version; the fields behind the signed prefix; the digests of the prefix and of the
        // signature.
        "superblock" => &[Errno::INVAL, Errno::OPNOTSUPP, Errno::UCLEAN, Errno::BADMSG],
        "signature" => &[Errno::BADMSG, Errno::KEYREJECTED, Errno::NOKEY],
        _ => &[Errno::BADMSG],
    }
}

/// Every entry that was read must be the source's; missing ones are excused.
pub(crate) fn right_as_far_as_read(expected: &Manifest, found: &Manifest) -> Result<()> {
    // Names of an inode, and folders of a folder, are counted among the entries that were read, of which some
    // are missing.
    let comparable = |entry: &Entry| {
        let mut entry = entry.clone();
        entry.first_name = None;
        if tree::is_dir(entry.mode) {
            entry.nlink = 0;
        }
        entry
    };
    let known: BTreeMap<&[u8], &Entry> =
        expected.entries.iter().map(|entry| (&entry.path[..], entry)).collect();
    for entry in &found.entries {
        let source = known
            .get(&entry.path[..])
            .with_context(|| format!("/{} is not in the source", entry.path.escape_ascii()))?;
        ensure!(
            comparable(source) == comparable(entry),
            "/{} is wrong:\n expected {source:?}\n found    {entry:?}",
            entry.path.escape_ascii()
        );
    }
    Ok(())
}
