// SPDX-License-Identifier: GPL-2.0
//! `tesserafs mount` where the kernel driver is loaded: it is taken, and what it says is told, but where only FUSE has what is
//! asked for.

use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::plan::{Image, Plan};

use super::{daemons, said, PATIENCE, PROGRAM};
use crate::compare::compare;
use crate::mounts::{drop_caches, on_disk, Mount};
use crate::suite::Suite;

/// Where images are mounted.
const TARGET: &str = "/mnt/by-program";

/// The types of such mounts.
const KERNEL: &str = "tesserafs";
const FUSE: &str = "fuse.tesserafs";

pub(super) fn tests(suite: &mut Suite, plan: &Plan) {
    let small = &plan.small;
    suite.test("driver-is-taken-where-it-is-loaded", || taken(small));
    suite.test("driver-takes-the-options", || options(small));
    suite.test("driver-refuses-and-nobody-else-is-asked", || refused(small));
    suite.test("driver-has-no-threads-so-fuse-serves", || only_fuse(small));
    for (name, driver, kind) in [("driver", "--kernel", KERNEL), ("fuse", "--fuse", FUSE)] {
        suite.test(&format!("{name}-takes-packs"), || packs(plan, driver, kind));
    }
}

/// `tesserafs mount`; what it says, and whether it mounted.
fn mount(arguments: &[&str], image: &Path) -> Result<(bool, String)> {
    std::fs::create_dir_all(TARGET).with_context(|| format!("failed to create {TARGET}"))?;
    let output = Command::new(PROGRAM).arg("mount").args(arguments).arg(image).arg(TARGET).output();
    let output = output.with_context(|| format!("failed to start {PROGRAM}"))?;
    match output.status.code() {
        Some(code @ 0..=1) => Ok((code == 0, said(&output))),
        _ => bail!("{PROGRAM} mount: {}: {}", output.status, said(&output)),
    }
}

/// Type and options of what is mounted there.
fn mounted() -> Result<Option<(String, String)>> {
    let mounts = std::fs::read_to_string("/proc/mounts").context("failed to read /proc/mounts")?;
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.rfind(|words| words.get(1) == Some(&TARGET));
    Ok(line.and_then(|words| Some(((*words.get(2)?).to_owned(), (*words.get(3)?).to_owned()))))
}

/// Mounts with success, and gives type, options and what was said.
fn expect(arguments: &[&str], image: &Image) -> Result<(String, String, String)> {
    expect_at(arguments, &on_disk(&image.image))
}

/// The same of what has this path or name.
pub(super) fn expect_at(arguments: &[&str], image: &Path) -> Result<(String, String, String)> {
    let (is_mounted, text) = mount(arguments, image)?;
    ensure!(is_mounted, "{arguments:?}: not mounted: {text}");
    let (kind, options) = mounted()?.with_context(|| format!("{arguments:?}: nothing is mounted: {text}"))?;
    Ok((kind, options, text))
}

/// `tesserafs umount`, which serves for both.
pub(super) fn unmount() -> Result<()> {
    let output = Command::new(PROGRAM).args(["umount", TARGET]).output();
    let output = output.with_context(|| format!("failed to start {PROGRAM}"))?;
    ensure!(output.status.success(), "not unmounted: {}: {}", output.status, said(&output));
    ensure!(mounted()?.is_none(), "it is still mounted");
    let start = std::time::Instant::now();
    while !daemons()?.is_empty() {
        ensure!(start.elapsed() < PATIENCE, "the daemon goes on after its mount is gone");
    }
    Ok(())
}

fn taken(image: &Image) -> Result<String> {
    drop_caches()?;
    let (kind, _, text) = expect(&[], image)?;
    ensure!(kind == KERNEL && text.contains("by the kernel driver"), "{kind}: {text}");
    ensure!(daemons()?.is_empty(), "there is a daemon");
    let note = compare(image, Path::new(TARGET))?;
    unmount()?;
    Ok(note)
}

fn options(image: &Image) -> Result<String> {
    let id = image_id(image)?;
    let all = ["--kernel", "--digest", &id, "-o", "noacl,nosuid,noexec,private_pages"];
    let (kind, options, _) = expect(&all, image)?;
    let words: Vec<&str> = options.split(',').collect();
    let digest = format!("digest={id}");
    for option in ["ro", "noacl", "nosuid", "noexec", "private_pages", &digest] {
        ensure!(kind == KERNEL && words.contains(&option), "{kind}: no {option} in {options}");
    }
    unmount()?;
    Ok(options)
}

/// A wrong digest, and an image that is not all there, are no reason to try FUSE.
fn refused(image: &Image) -> Result<String> {
    let file = on_disk(&image.image);
    let wrong = format!("sha256:{}", "0".repeat(64));
    let mut notes = Vec::new();
    for arguments in [&["--digest", &wrong][..], &["--kernel", "--digest", &wrong]] {
        let (is_mounted, text) = mount(arguments, &file)?;
        ensure!(!is_mounted && mounted()?.is_none() && text.contains("image-id"), "{arguments:?}: {text}");
        notes.push(text);
    }
    let cut = Path::new("/tmp/cut.tess");
    std::fs::copy(&file, cut).context("failed to copy")?;
    let len = cut.metadata().context("failed to stat")?.len();
    let copy = std::fs::File::options().write(true).open(cut).context("failed to open")?;
    copy.set_len(len - 4096).context("failed to cut")?;
    let (is_mounted, text) = mount(&[], cut)?;
    ensure!(!is_mounted && mounted()?.is_none() && text.contains("file-length"), "{text}");
    std::fs::remove_file(cut).context("failed to remove")?;
    notes.push(text);
    Ok(notes.join("; "))
}

/// Threads are a daemon's.
fn only_fuse(image: &Image) -> Result<String> {
    let (kind, _, text) = expect(&["--threads", "2"], image)?;
    ensure!(kind == FUSE && text.contains("only FUSE has a daemon"), "{kind}: {text}");
    compare(image, Path::new(TARGET))?;
    unmount()?;
    Ok(text)
}

/// An image with packs that are beside it, in the directory that is said, and nowhere.
fn packs(plan: &Plan, driver: &str, expected: &str) -> Result<String> {
    let (image, directory) = (&plan.packed.next, on_disk(&plan.packed.directory));
    let directory = directory.to_str().context("a path that is no text")?;
    drop_caches()?;
    let (kind, _, _) = expect(&[driver, "--packdir", directory], image)?;
    ensure!(kind == expected, "it is {kind}");
    let note = compare(image, Path::new(TARGET))?;
    unmount()?;

    let (is_mounted, text) = mount(&[driver], &on_disk(&image.image))?;
    ensure!(!is_mounted && text.contains(&plan.packed.base_pack), "without its packs: {text}");

    // A string of a mount is no longer than 255 bytes: the directory is passed open.
    let far = std::path::PathBuf::from(format!("/tmp/far/{}/{}", "a".repeat(200), "b".repeat(200)));
    crate::packs::copies(plan, &far)?;
    expect(&[driver, "--packdir", far.to_str().context("text")?], image)?;
    let line = std::fs::read_to_string("/proc/mounts").context("mounts")?;
    ensure!(driver != "--kernel" || line.contains(&format!("packdir={}", far.display())), "{line}");
    compare(image, Path::new(TARGET))?;
    unmount()?;
    std::fs::remove_dir_all("/tmp/far").context("failed to remove a directory")?;

    let beside = Path::new("/tmp/beside");
    crate::packs::copies(plan, beside)?;
    let copy = beside.join("copy.tess");
    std::fs::copy(on_disk(&image.image), &copy).context("failed to copy an image")?;
    let (is_mounted, text) = mount(&[driver], &copy)?;
    ensure!(is_mounted, "with its packs beside it: {text}");
    compare(image, Path::new(TARGET))?;
    unmount()?;
    std::fs::remove_dir_all(beside).context("failed to remove a directory")?;
    Ok(note)
}

/// The ID of an image, as the driver shows it of a mount.
fn image_id(image: &Image) -> Result<String> {
    let mount = Mount::image(&on_disk(&image.image), Path::new(TARGET), "").context("failed to mount")?;
    let mut folders = Path::new("/sys/fs/tesserafs").read_dir().context("failed to list the mounts")?;
    let folder = folders.next().context("no mount is shown")?.context("failed to list the mounts")?;
    let id = std::fs::read_to_string(folder.path().join("image_id")).context("failed to read the ID")?;
    mount.unmount()?;
    Ok(id.trim().to_owned())
}
