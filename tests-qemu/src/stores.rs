// SPDX-License-Identifier: GPL-2.0
//! Filesystems that the guest lays an image on: empty ones that it writes to, and read-only ones that hold one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tesserafs_guest::plan::{Image, Nest};

use crate::run;
use crate::tools::Tools;

/// Where Debian has the programs that make filesystems.
const PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// An empty filesystem, a disk of its own.
struct Empty {
    kind: &'static str,
    /// As small as its program makes one; the file is sparse.
    mebibytes: u64,
    options: &'static [&'static str],
}

/// In the order of the guest's disks from `/dev/vdc` on.
const EMPTY: [Empty; 3] = [
    Empty { kind: "xfs", mebibytes: 320, options: &["-q", "-m", "reflink=1"] },
    Empty { kind: "ext4", mebibytes: 64, options: &["-q", "-F", "-O", "has_journal"] },
    Empty { kind: "btrfs", mebibytes: 160, options: &["-q"] },
];

/// The disks with empty filesystems in `folder`.
pub(crate) fn empty(folder: &Path) -> Vec<PathBuf> {
    EMPTY.iter().map(|empty| empty.disk(folder)).collect()
}

impl Empty {
    fn disk(&self, folder: &Path) -> PathBuf {
        folder.join(format!("empty.{}", self.kind))
    }
}

/// Makes them.
pub(crate) fn make_empty(folder: &Path) -> Result<()> {
    for empty in EMPTY {
        let (disk, Empty { kind, mebibytes, options }) = (empty.disk(folder), empty);
        let file = File::create(&disk).with_context(|| format!("failed to create {}", disk.display()))?;
        file.set_len(mebibytes << 20).with_context(|| format!("failed to extend {}", disk.display()))?;
        run::capture(maker(&format!("mkfs.{kind}")).args(options).arg(&disk))
            .with_context(|| format!("failed to make an empty {kind}"))?;
    }
    Ok(())
}

/// Makes, in `contents`, the filesystems that hold an image.
pub(crate) fn nests(tools: &Tools, contents: &Path, image: &Image) -> Result<Vec<Nest>> {
    let folder = tempfile::tempdir_in(contents).context("failed to make a scratch folder")?;
    let source = folder.path();
    std::fs::hard_link(contents.join(&image.image), source.join(&image.image))
        .with_context(|| format!("failed to link {}", image.image))?;
    let nest = |kind: &str| Nest { kind: kind.to_owned(), file: format!("nest.{kind}") };
    let nests = ["erofs", "squashfs", "tesserafs"].map(nest);
    let [erofs, squashfs, tesserafs] = &nests;
    run::capture(maker("mkfs.erofs").arg("--quiet").arg(contents.join(&erofs.file)).arg(source))?;
    run::capture(
        maker("mksquashfs")
            .arg(source)
            .arg(contents.join(&squashfs.file))
            // The image is compressed already; the kernel of the tests knows zstd alone.
            .args(["-quiet", "-no-progress", "-comp", "zstd", "-noD", "-noF"]),
    )?;
    tools.mkfs::<&str>(&contents.join(&tesserafs.file), source, &[])?;
    Ok(nests.into())
}

fn maker(program: &str) -> Command {
    let mut command = run::command(program);
    command.env("PATH", PATH);
    command
}
