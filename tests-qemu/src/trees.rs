// SPDX-License-Identifier: GPL-2.0
//! The small trees of the tests, and their images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Image;
use tesserafs_guest::tree;

use crate::rootfs::{noise, prose, set_time};
use crate::tools::Tools;
use crate::{kernel, rootfs};

/// A few megabytes with every kind of file. It is read more than a thousand times over by the tests
/// that damage it, so it is as small as it can be with something in every table.
pub(crate) fn small(folder: &Path) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).with_context(|| format!("failed to write {name}"))
    };
    for sub in ["data", "many", "special"] {
        std::fs::create_dir(folder.join(sub)).with_context(|| format!("failed to create {sub}"))?;
    }
    write("data/noise", &noise(1, 500_000))?;
    write("data/prose", &prose(2, 700_000))?;
    let mut mixed = noise(3, 120_000);
    mixed[40_000..90_000].fill(0);
    write("data/holes", &mixed)?;
    // Enough names for regions of many blocks: damage in one must leave the others readable.
    for index in 0..400u64 {
        let sub = format!("many/{}", index % 8);
        std::fs::create_dir_all(folder.join(&sub)).with_context(|| format!("failed to create {sub}"))?;
        write(&format!("{sub}/file-{index:03}"), &prose(index, 101 * (index as usize % 40)))?;
    }
    write("data/more-noise", &noise(7, 900_000))?;
    write("special/one", b"two names\n")?;
    std::fs::hard_link(folder.join("special/one"), folder.join("special/two")).context("failed to link")?;
    std::os::unix::fs::symlink("one", folder.join("special/link")).context("failed to link")?;
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.join("special/fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .context("failed to make a FIFO")?;
    rustix::fs::lsetxattr(
        folder.join("special/one"),
        "trusted.tesserafs",
        &noise(4, 700),
        rustix::fs::XattrFlags::empty(),
    )
    .context("failed to set an attribute")?;
    // Everything was made now: times must not make the image differ from run to run.
    for entry in described(folder)?.entries.iter().rev() {
        set_time(&entry.below(folder), 1_700_000_000, 5)?;
    }
    Ok(())
}

/// Where a file of 2^63-1 bytes can be: no disk file system holds one.
const MEMORY: &str = "/dev/shm";

/// A tree with sparse files, on tmpfs; it vanishes with the value.
pub(crate) fn sparse() -> Result<tempfile::TempDir> {
    let folder = in_memory()?;
    rootfs::sparse(folder.path())?;
    let size =
        std::fs::metadata(folder.path().join("huge")).context("failed to look at the huge file")?.len();
    anyhow::ensure!(
        size == i64::MAX as u64,
        "{MEMORY} is no tmpfs: a file of 2^63-1 bytes cannot be made, only one of {size}"
    );
    Ok(folder)
}

/// A scratch folder on tmpfs.
pub(crate) fn in_memory() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("tesserafs-")
        .tempdir_in(MEMORY)
        .with_context(|| format!("failed to make a folder in {MEMORY}"))
}

/// Builds the image of `source` and its manifest into `disk`, under `name`.
pub(crate) fn image(
    tools: &Tools,
    disk: &Path,
    name: &str,
    source: &Path,
    options: &[&str],
) -> Result<Image> {
    let image = format!("{name}.tess");
    let report = tools
        .mkfs(&disk.join(&image), source, options)
        .with_context(|| format!("failed to build {image}"))?;
    let manifest = manifest(disk, name, source)?;
    Ok(Image { image, manifest, image_id: report.image_id()?.to_owned() })
}

/// Describes `source` into `disk`.
pub(crate) fn manifest(disk: &Path, name: &str, source: &Path) -> Result<String> {
    let file = format!("{name}.manifest");
    described(source)?.save(&disk.join(&file))?;
    Ok(file)
}

/// A source tree as the guest must find it.
///
/// Nothing but what an image is asked to keep: the modes and times of whiteouts are kept, too.
pub(crate) fn described(source: &Path) -> Result<Manifest> {
    tree::scan(source, kernel::processors())
        .with_context(|| format!("failed to describe {}", source.display()))
}

/// The file of an image.
pub(crate) fn path(disk: &Path, image: &Image) -> PathBuf {
    disk.join(&image.image)
}
