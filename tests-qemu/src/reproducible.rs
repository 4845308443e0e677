// SPDX-License-Identifier: GPL-2.0
//! The same tree gives the same image, wherever it lies and however it is read.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{bail, Context, Result};

use crate::cache::{sha256_of, Cache};
use crate::rootfs::set_time;
use crate::tools::Tools;
use crate::{run, trees};

/// Builds `source` from where it is, from a copy on tmpfs and from a copy at another path that was made
/// in another order, with one thread and with two; all images must be equal.
pub(crate) fn check(cache: &Cache, tools: &Tools, source: &Path) -> Result<String> {
    let memory = trees::in_memory()?;
    let scratch = cache.folder("scratch")?;
    let elsewhere = tempfile::Builder::new()
        .prefix("another-path-")
        .tempdir_in(&scratch)
        .context("failed to make a scratch folder")?;
    let in_memory = memory.path().join("tree");
    let on_disk = elsewhere.path().join("a-tree-with-a-longer-name");
    copy(source, &in_memory, Order::Forward)?;
    copy(source, &on_disk, Order::Backward)?;

    let image = elsewhere.path().join("image");
    let mut digests: Vec<(String, String)> = Vec::new();
    let variants = [
        ("the source, 2 threads", source, "2"),
        ("the source, 1 thread", source, "1"),
        ("a copy on tmpfs, 2 threads", &in_memory, "2"),
        ("a copy in another order, 1 thread", &on_disk, "1"),
    ];
    for (what, tree, threads) in variants {
        tools.mkfs(&image, tree, &["--threads", threads, "--level", "3"])?;
        digests.push((what.to_owned(), sha256_of(&image)?));
    }
    let (_, first) = &digests[0];
    if digests.iter().any(|(_, digest)| digest != first) {
        let lines: Vec<String> = digests.iter().map(|(what, digest)| format!("{digest}  {what}")).collect();
        bail!("the images differ:\n{}", lines.join("\n"));
    }
    Ok(format!("{} builds, all {}", digests.len(), &first[..16]))
}

/// In which order the entries of the top folders are created.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Forward,
    Backward,
}

/// Copies a tree with everything in it. Folders of the first level, and what lies directly in them, are
/// created in the given order; a file system that remembers the order of creation will list it.
fn copy(from: &Path, to: &Path, order: Order) -> Result<()> {
    let mut names = Vec::new();
    for entry in from.read_dir().with_context(|| format!("failed to list {}", from.display()))? {
        names.push(entry.with_context(|| format!("failed to list {}", from.display()))?.path());
    }
    names.sort();
    if order == Order::Backward {
        names.reverse();
    }
    std::fs::create_dir(to).with_context(|| format!("failed to create {}", to.display()))?;
    // One call, so that hard links across folders stay links.
    run::quiet(run::command("cp").args(["--archive", "--target-directory"]).arg(to).args(&names))?;
    // The root's own attributes, after everything was made in it.
    let stat = std::fs::metadata(from).with_context(|| format!("failed to look at {}", from.display()))?;
    std::os::unix::fs::chown(to, Some(stat.uid()), Some(stat.gid()))
        .and_then(|()| std::fs::set_permissions(to, stat.permissions()))
        .with_context(|| format!("failed to set the owner of {}", to.display()))?;
    set_time(to, stat.mtime(), stat.mtime_nsec())
}
