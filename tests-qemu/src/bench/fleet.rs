// SPDX-License-Identifier: GPL-2.0
//! Many containers on one machine, from a few images that have a base in common.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tesserafs_guest::reading::{Fleet, Sample, Store, Task, PLAN};

use super::images::{LEVEL, OURS};
use super::machine;
use super::record::{Measured, Program};
use super::{build, Bench};
use crate::appliance::Appliance;
use crate::kernel::Toolchain;
use crate::{disk, run, sign, trees};

/// Containers, and the images that they run from.
const CONTAINERS: usize = 100;
const IMAGES: usize = 10;

/// How long a round may take in an emulated machine that others use, too.
const LIMIT: Duration = Duration::from_secs(3600);

/// Where in the Debian root the applications are from: what is there is dealt out to the images.
const FROM: &str = "usr/share/perl";

/// What each container does: much of the standard library, all files of its application, then nothing.
const PROGRAM: &str = "\
import asyncio, decimal, email, hashlib, http.server, json, os, signal, sqlite3, ssl, xml.dom.minidom
for folder, _, names in os.walk('/srv/app'):
    for name in names:
        with open(os.path.join(folder, name), 'rb') as file:
            while file.read(1 << 16):
                pass
open('/ready', 'w').close()
signal.pause()
";

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Sample>> {
    let toolchain = Toolchain::find(&bench.cache)?;
    let appliance = Appliance::prepare(&bench.cache, &toolchain, &bench.tools)?;
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    run::say(format_args!("building {IMAGES} images of containers"));
    let contents = scratch.path().join("contents");
    std::fs::create_dir(&contents).context("failed to create a folder")?;
    let stores = stores(bench, &appliance, scratch.path(), &contents)?;
    let rounds = bench.options.rounds.div_ceil(2);
    let task = Task::Fleet(Fleet { stores, containers: CONTAINERS, program: PROGRAM.to_owned(), rounds });
    let text = serde_json::to_vec_pretty(&task).context("the task cannot be written down")?;
    std::fs::write(contents.join(PLAN), text).context("failed to write the task")?;
    let images = scratch.path().join("images.ext4");
    disk::write(&images, &contents)?;

    let command = appliance.bench(&images);
    let shown = without_folders(&run::shown(&command));
    run::say(format_args!("{CONTAINERS} containers from {IMAGES} images: {rounds} rounds"));
    let samples = machine::samples(command, bench, "bench-fleet", LIMIT * rounds.max(1) as u32)?;

    let mut programs = build::programs(bench)?;
    programs.retain(|program| program.name != build::MKSQUASHFS);
    let qemu = run::capture(run::command("qemu-system-x86_64").arg("--version"))?;
    programs.push(Program {
        name: "QEMU".to_owned(),
        version: format!("{}, {}", qemu.lines().next().unwrap_or_default(), machine::versions(&toolchain)),
        command: shown,
    });
    Measured::new(bench, programs, notes(), samples)
}

/// A command line whose files have lost their folders: those are of this machine.
fn without_folders(command: &str) -> String {
    let name = |word: &str| match word.split_once("file=") {
        Some((before, path)) => format!("{before}file={}", path.rsplit('/').next().unwrap_or(path)),
        None if word.starts_with('/') => word.rsplit('/').next().unwrap_or(word).to_owned(),
        None => word.to_owned(),
    };
    command.split(' ').map(name).collect::<Vec<_>>().join(" ")
}

fn notes() -> Vec<String> {
    vec![
        format!(
            "{CONTAINERS} containers (crun, with cgroups) from {IMAGES} images, each with an overlay of its own, whose upper \
             layer is on a tmpfs; a container imports a good part of Python's standard library, reads its application, and waits"
        ),
        format!(
            "an image is Debian with python3, the same in all, and an application, a {IMAGES}th of the Debian root's {FROM}; it \
             is a signed tesserafs, an EROFS (both files of an ext4, zstd level {LEVEL}), or two folders of that ext4, of which the lower \
             one is the same for all"
        ),
        "memory is what is in use when all are ready and was not before, the containers' own memory with it".to_owned(),
    ]
}

/// Builds everything that is mounted into `contents`.
fn stores(bench: &Bench<'_>, appliance: &Appliance, scratch: &Path, contents: &Path) -> Result<Vec<Store>> {
    let layers = applications(bench, contents)?;
    let base = contents.join("base");
    copy(&appliance.base, &base)?;
    let sign = sign::options(&appliance.vendor.current)?;
    let (mut tesserafs, mut erofs, mut folders) = (Vec::new(), Vec::new(), Vec::new());
    for (index, layer) in layers.iter().enumerate() {
        let tree = scratch.join("tree");
        copy(&base, &tree)?;
        run::quiet(run::command("cp").arg("-al").arg(layer.join(".")).arg(&tree))?;
        let of_tree = bench.of(&tree);
        let (ours, theirs) = (format!("tesserafs-{index}"), format!("erofs-{index}"));
        run::capture(build::tesserafs(&of_tree, LEVEL, &contents.join(&ours)).args(&sign))?;
        run::capture(&mut build::erofs(&of_tree, Some(LEVEL), &contents.join(&theirs)))?;
        std::fs::remove_dir_all(&tree).context("failed to remove a tree")?;
        tesserafs.push(vec![ours]);
        erofs.push(vec![theirs]);
        folders.push(vec![layer_name(index), "base".to_owned()]);
    }
    let store =
        |name: &str, kind: &str, images| Store { name: name.to_owned(), kind: kind.to_owned(), images };
    Ok(vec![
        store(OURS, "tesserafs", tesserafs),
        store("EROFS", "erofs", erofs),
        store("unpacked layers", "", folders),
    ])
}

fn layer_name(index: usize) -> String {
    format!("layer-{index}")
}

/// A tree of hard links: all of them are in the cache.
fn copy(source: &Path, target: &Path) -> Result<()> {
    run::quiet(run::command("cp").arg("-al").arg(source).arg(target))
}

/// Deals out the files of [`FROM`] to the images: a layer each.
fn applications(bench: &Bench<'_>, contents: &Path) -> Result<Vec<PathBuf>> {
    let source = bench.source.join(FROM);
    let layers: Vec<PathBuf> = (0..IMAGES).map(|index| contents.join(layer_name(index))).collect();
    let manifest = trees::described(&source)?;
    let files = manifest.entries.iter().filter(|entry| tesserafs_guest::tree::is_file(entry.mode));
    for (index, entry) in files.enumerate() {
        let target = entry.below(&layers[index % IMAGES].join("srv/app"));
        std::fs::create_dir_all(target.parent().context("a file in no folder")?)
            .and_then(|()| std::fs::copy(entry.below(&source), &target).map(|_| ()))
            .with_context(|| format!("failed to copy to {}", target.display()))?;
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    #[test]
    fn folders_of_this_machine_are_not_reported() {
        let command = "qemu -kernel /a/b/bzImage -append root=/dev/vda -drive if=virtio,file=/c/d/data.ext4";
        let expected = "qemu -kernel bzImage -append root=/dev/vda -drive if=virtio,file=data.ext4";
        assert_eq!(super::without_folders(command), expected);
    }
}
