// SPDX-License-Identifier: GPL-2.0
//! A layer of an OCI image that hides the content of a directory of the layers below.

use std::path::Path;

use anyhow::{Context, Result};

use crate::run;
use crate::tools::Tools;

/// Makes the archive in `folder`, and its image in `contents`; returns the name of the image.
pub(crate) fn stage(tools: &Tools, contents: &Path, folder: &Path) -> Result<String> {
    let directory = folder.join("directory");
    std::fs::create_dir(&directory).context("failed to create a directory")?;
    for name in ["new", ".wh..wh..opq"] {
        std::fs::write(directory.join(name), "").with_context(|| format!("failed to write {name}"))?;
    }
    let archive = folder.join("layer.tar");
    run::capture(run::command("tar").arg("-C").arg(folder).arg("-cf").arg(&archive).arg("directory"))?;
    let image = "opaque.tess";
    run::capture(
        run::command(&tools.mkfs).arg("--quiet").arg("--tar").arg(&archive).arg(contents.join(image)),
    )?;
    Ok(image.to_owned())
}
