// SPDX-License-Identifier: GPL-2.0
//! Memory after reading two releases of one distribution that are mounted at once.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::manifest::{Entry, Manifest};
use tesserafs_guest::reading::{self, Pair, Sample, System, Task, IMAGES};
use tesserafs_guest::tree;

use super::images::{device, LEVEL, OURS, OURS_FILE, OURS_PACKS};
use super::machine::{self, MEMORY};
use super::record::{Measured, Program};
use super::{build, uml, Bench};
use crate::kernel::Toolchain;
use crate::releases::{self, Releases};
use crate::{disk, run, trees};

/// How long a round may take on a slow machine that others use, too.
const LIMIT: Duration = Duration::from_secs(300);

/// EROFS with one page of memory for equal files of all mounts of a domain.
pub(super) const EROFS_SHARED: &str = "EROFS with inode_share";

/// What makes it so. The name of the domain is for the administrator to choose.
const SHARE: &str = "domain_id=bench,inode_share";

/// Option of `mkfs.erofs` that writes the fingerprints which sharing goes by.
const FINGERPRINTS: &str = "--xattr-inode-digest";

/// The disk with images that are files, and the folder of packs on it.
const DISK: &str = "disk";
const PACKS: &str = "packs";

/// A file system that holds both releases.
struct Contender {
    name: &'static str,
    kind: &'static str,
    options: &'static str,
    build: fn(&Bench<'_>, &Path) -> Command,
}

const CONTENDERS: [Contender; 6] = [
    Contender {
        name: OURS,
        kind: "tesserafs",
        options: "",
        build: |b, image| build::tesserafs(b, LEVEL, image),
    },
    Contender {
        name: "EROFS",
        kind: "erofs",
        options: "",
        build: |b, image| build::erofs(b, Some(LEVEL), image),
    },
    Contender {
        name: EROFS_SHARED,
        kind: "erofs",
        options: SHARE,
        build: |bench, image| with_fingerprints(build::erofs(bench, Some(LEVEL), image)),
    },
    Contender {
        name: "EROFS uncompressed",
        kind: "erofs",
        options: "",
        build: |bench, image| build::erofs(bench, None, image),
    },
    Contender {
        name: "EROFS uncompressed with inode_share",
        kind: "erofs",
        options: SHARE,
        build: |bench, image| with_fingerprints(build::erofs(bench, None, image)),
    },
    Contender {
        name: "squashfs",
        kind: "squashfs",
        options: "",
        build: |bench, image| build::squashfs(bench, LEVEL, image),
    },
];

fn with_fingerprints(mut command: Command) -> Command {
    command.arg(FINGERPRINTS);
    command
}

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let toolchain = Toolchain::find(&bench.cache)?;
    let releases = releases::prepare(&bench.cache)?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let linux = uml::build(&bench.cache, &toolchain, scratch.path())?;
    run::say("building the images of two releases");
    let mut devices = Vec::new();
    let mut pairs = Vec::new();
    for contender in &CONTENDERS {
        let source = device(devices.len());
        for root in [&releases.before, &releases.after] {
            let image = scratch.path().join(format!("image-{}", devices.len()));
            run::capture(&mut (contender.build)(&bench.of(root), &image))?;
            // The host holds all images in memory: its disk is not what is measured.
            let mut file = std::fs::File::open(&image).context("a builder made no image")?;
            std::io::copy(&mut file, &mut std::io::sink()).context("failed to read an image")?;
            devices.push(image);
        }
        let system = System {
            name: contender.name.to_owned(),
            kind: contender.kind.to_owned(),
            options: contender.options.to_owned(),
            source,
        };
        pairs.push(Pair { system, second: device(devices.len() - 1) });
    }
    pairs.extend(files(bench, &releases, scratch.path())?);
    let disk = scratch.path().join(DISK);
    std::io::copy(&mut std::fs::File::open(&disk).context("there is no disk")?, &mut std::io::sink())
        .context("failed to read the disk")?;
    devices.push(disk);
    let rounds = bench.options.rounds;
    let disk = device(devices.len() - 1);
    let task = Task::Releases(reading::Releases { pairs, disk, rounds });
    let initramfs = machine::initramfs(scratch.path(), &task, None, &[])?;
    let command = machine::user_mode(bench, &linux.program, MEMORY, &initramfs, &devices, "");
    let shown = run::shown(&command).replace(&format!("{}/", scratch.path().display()), "");
    run::say(format_args!("reading two releases: {rounds} rounds of up to a minute"));
    let samples = machine::samples(command, bench, "bench-releases", LIMIT * rounds.max(1) as u32)?;

    let mut programs = build::programs(bench)?;
    programs.push(Program {
        name: EROFS_SHARED.to_owned(),
        version: format!("images of `mkfs.erofs {FINGERPRINTS}`"),
        command: format!("mount -t erofs -o ro,{SHARE} DEVICE FOLDER"),
    });
    programs.push(machine::program(&linux, &toolchain, shown));
    Measured::new(bench, programs, notes(&releases, rounds)?, samples)
}

/// Makes the disk with images that are files: of both releases in one file each, and in packs of which they share one.
fn files(bench: &Bench<'_>, releases: &Releases, scratch: &Path) -> Result<[Pair; 2]> {
    let folder = scratch.join("files");
    let packs = folder.join(PACKS);
    std::fs::create_dir_all(&packs).context("failed to create a folder")?;
    let mut parent = None;
    for (number, root) in [&releases.before, &releases.after].into_iter().enumerate() {
        let of_root = bench.of(root);
        run::capture(&mut build::tesserafs(&of_root, LEVEL, &folder.join(format!("file-{number}"))))?;
        let image = folder.join(format!("packed-{number}"));
        let mut packed = build::tesserafs(&of_root, LEVEL, &image);
        if let Some(parent) = parent.replace(image) {
            packed.arg("--parent").arg(parent);
        }
        run::capture(packed.arg("--packdir").arg(&packs))?;
    }
    disk::write(&scratch.join(DISK), &folder)?;
    std::fs::remove_dir_all(&folder).context("failed to remove a folder")?;
    let pair = |name: &str, file: &str, options: String| {
        let [source, second] = [0, 1].map(|number| format!("{IMAGES}/{file}-{number}"));
        let system = System { name: name.to_owned(), kind: "tesserafs".to_owned(), options, source };
        Pair { system, second }
    };
    let packdir = format!("packdir={IMAGES}/{PACKS}");
    Ok([pair(OURS_FILE, "file", String::new()), pair(OURS_PACKS, "packed", packdir)])
}

fn notes(releases: &Releases, rounds: usize) -> Result<Vec<String>> {
    let common = common(&trees::described(&releases.before)?, &trees::described(&releases.after)?);
    Ok(vec![
        format!(
            "the first release is the suite {} of Debian without its updates, the second the same root after the installation \
             of all updates and security updates; {} of {} packages differ: {}",
            releases.suite,
            releases.updated.len(),
            releases.packages,
            releases.updated.join(", ")
        ),
        format!(
            "files hold {:.1} MB in the first and {:.1} MB in the second; {:.1} MB of the second are in files whose bytes are \
             those of a file of the first; both are without package lists and downloaded packages; whoever keeps each different \
             content once in the page cache has {:.1} MB of pages there",
            common.first as f64 / 1e6,
            common.second as f64 / 1e6,
            common.both as f64 / 1e6,
            common.pages as f64 / 1e6
        ),
        format!(
            "both images are mounted, then all files of the first are read, then all of the second; memory is what is in use \
             then and was not before the mounts; {rounds} rounds, one process with {MEMORY} of memory, as in reading"
        ),
        format!(
            "tesserafs shares by the digests of chunks that it verifies, as it is mounted by default; EROFS by fingerprints that \
             it believes the images (`{SHARE}`), compressed files as well as others"
        ),
    ])
}

/// How much two trees have in common, in bytes of files.
#[derive(Debug, PartialEq, Eq)]
struct Common {
    first: u64,
    second: u64,
    /// Of the second, in files that the first has, too.
    both: u64,
    /// Of the pages of all different contents.
    pages: u64,
}

const PAGE: u64 = 4096;

fn common(first: &Manifest, second: &Manifest) -> Common {
    // Names of one file count once.
    let files = |manifest: &Manifest| -> Vec<(u128, u64)> {
        let files = manifest.entries.iter().filter(|entry| tree::is_file(entry.mode));
        let one = |entry: &&Entry| entry.first_name.as_ref().is_none_or(|first| *first == entry.path);
        files.filter(one).map(|entry| (entry.content, entry.size)).collect()
    };
    let (first, second) = (files(first), files(second));
    let known: HashMap<u128, u64> = first.iter().copied().collect();
    let all: HashMap<u128, u64> = first.iter().chain(&second).copied().collect();
    let sum = |files: &[(u128, u64)]| files.iter().map(|(_, size)| size).sum();
    let both = second.iter().filter(|(content, size)| known.get(content) == Some(size));
    Common {
        first: sum(&first),
        second: sum(&second),
        both: both.map(|(_, size)| size).sum(),
        pages: all.values().map(|size| size.next_multiple_of(PAGE)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_trees_have_in_common_is_counted_by_content() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (folder, name, text) in [
            (&first, "a", "same"),
            (&first, "b", "old text"),
            (&second, "elsewhere", "same"),
            (&second, "b", "new"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        std::fs::hard_link(second.path().join("b"), second.path().join("c")).unwrap();
        let described = |folder: &tempfile::TempDir| trees::described(folder.path()).unwrap();
        let expected = Common { first: 12, second: 7, both: 4, pages: 3 * PAGE };
        assert_eq!(common(&described(&first), &described(&second)), expected);
    }
}
