// SPDX-License-Identifier: GPL-2.0
//! Many containers at once, each with an overlay over one of some images: how long they take to start, and how much
//! memory they take.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{ensure, Context, Result};
use rustix::mount::MountFlags;
use tesserafs_guest::reading::{Fleet, Store, IMAGES};

use super::{memory, report, Work};
use crate::appliance::scratch;
use crate::containers::{Bundle, Process};
use crate::mounts::Mount;

/// How long all containers may take, in an emulated machine that others use, too.
const LIMIT: Duration = Duration::from_secs(900);

/// The time between two looks at whether a container works.
const LOOK: Duration = Duration::from_millis(20);

pub(super) fn run(plan: &Fleet) -> Result<()> {
    for round in 1..=plan.rounds {
        // Another one begins each round, so that the leftovers of the one before meet all alike.
        let start = round % plan.stores.len();
        for store in plan.stores[start..].iter().chain(&plan.stores[..start]) {
            sample(plan, store, round).with_context(|| format!("on {}", store.name))?;
        }
    }
    Ok(())
}

/// Starts all containers, looks at the memory in use, and takes everything apart.
fn sample(plan: &Fleet, store: &Store, round: usize) -> Result<()> {
    memory::settle()?;
    let before = memory::used()?;
    let work = Work { count: plan.containers as u64, ..Work::default() };

    let start = Instant::now();
    let tmpfs = scratch(Path::new("/mnt/fleet"))?;
    let mut layers = Vec::new();
    let lowers =
        store.images.iter().map(|image| lower(store, image, &mut layers)).collect::<Result<Vec<String>>>()?;
    let bundles = (0..plan.containers)
        .map(|index| Bundle::new(tmpfs.path(), &name(index), &lowers[index % lowers.len()], 0))
        .collect::<Result<Vec<Bundle>>>()?;
    report("mount all", &store.name, round, start.elapsed().as_secs_f64(), work)?;

    let process = Process::root(&["/usr/bin/python3", "-c", &plan.program]);
    bundles.iter().try_for_each(|bundle| bundle.configure(&process, None))?;
    let start = Instant::now();
    for (index, bundle) in bundles.iter().enumerate() {
        runtime(&["run", "--detach", "--bundle", &bundle.path(), &name(index)])?;
    }
    for bundle in &bundles {
        while !bundle.upper().join("ready").exists() {
            ensure!(start.elapsed() < LIMIT, "{} does not get ready", bundle.path());
            std::thread::sleep(LOOK);
        }
    }
    report("start all", &store.name, round, start.elapsed().as_secs_f64(), work)?;
    memory::report(&before, &store.name, round, work)?;

    for index in 0..plan.containers {
        runtime(&["delete", "--force", &name(index)])?;
    }
    bundles.into_iter().try_for_each(Bundle::end)?;
    while let Some(layer) = layers.pop() {
        layer.unmount()?;
    }
    tmpfs.unmount()
}

/// The layers of an image as an overlay takes them; those that are images are mounted.
fn lower(store: &Store, image: &[String], mounts: &mut Vec<Mount>) -> Result<String> {
    let mut folders = Vec::new();
    for layer in image {
        let source = Path::new(IMAGES).join(layer);
        let folder = if store.kind.is_empty() {
            source
        } else {
            let target = PathBuf::from(format!("/mnt/layers/{}", mounts.len()));
            let mount = Mount::new(&source, &target, &store.kind, MountFlags::RDONLY, "")
                .with_context(|| format!("failed to mount {layer}"))?;
            mounts.push(mount);
            target
        };
        folders.push(folder.to_string_lossy().into_owned());
    }
    Ok(folders.join(":"))
}

fn name(index: usize) -> String {
    format!("container-{index}")
}

/// Runs the container runtime; the container that it starts goes on, and holds nothing of this process.
fn runtime(arguments: &[&str]) -> Result<()> {
    let status = Command::new("crun")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("failed to start crun")?;
    ensure!(status.success(), "`crun {}` ended with {status}", arguments.join(" "));
    Ok(())
}
