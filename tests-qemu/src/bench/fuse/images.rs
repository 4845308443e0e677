// SPDX-License-Identifier: GPL-2.0
//! The images that are served.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::images::{self, LEVEL};
use super::super::{build, Bench};
use super::{EROFS, OURS, SQUASHFS};
use crate::run;

/// One image of each kind, of the same tree.
pub(super) struct Images {
    pub(super) tesserafs: PathBuf,
    pub(super) erofs: PathBuf,
    pub(super) squashfs: PathBuf,
}

impl Images {
    fn of(folder: &Path) -> Self {
        let [tesserafs, erofs, squashfs] = ["tesserafs", "erofs", "squashfs"].map(|name| folder.join(name));
        Self { tesserafs, erofs, squashfs }
    }

    /// Size of each, by the server's name.
    pub(super) fn sizes(&self) -> Result<Vec<(&'static str, u64)>> {
        [(OURS, &self.tesserafs), (EROFS, &self.erofs), (SQUASHFS, &self.squashfs)]
            .into_iter()
            .map(|(name, path)| {
                let metadata =
                    std::fs::metadata(path).with_context(|| format!("there is no {}", path.display()))?;
                Ok((name, metadata.len()))
            })
            .collect()
    }
}

/// Puts the images into `folder`.
pub(super) fn provide(bench: &Bench<'_>, folder: &Path) -> Result<Images> {
    let sources: [&[u8]; 2] = [include_bytes!("images.rs"), include_bytes!("../build.rs")];
    images::provide(bench, "fuse-images", &sources, folder, |folder| make(bench, folder))?;
    Ok(Images::of(folder))
}

fn make(bench: &Bench<'_>, folder: &Path) -> Result<()> {
    run::say("building the images to serve");
    let images = Images::of(folder);
    for mut command in [
        build::tesserafs(bench, LEVEL, &images.tesserafs),
        build::erofs(bench, Some(LEVEL), &images.erofs),
        build::squashfs(bench, LEVEL, &images.squashfs),
    ] {
        run::capture(&mut command)?;
    }
    // Pages that are not on the disk yet cannot be dropped.
    for image in [&images.tesserafs, &images.erofs, &images.squashfs] {
        File::open(image)
            .and_then(|file| file.sync_all())
            .with_context(|| format!("failed to write {} to the disk", image.display()))?;
    }
    Ok(())
}
