// SPDX-License-Identifier: GPL-2.0
//! The images that are pushed: three versions of a tree, whose packs they share.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::rootfs::{noise, prose};
use crate::tools::Tools;
use crate::{run, trees};

/// Bytes of the file that makes the first version's pack larger than one request.
const LARGE: usize = 4_000_000;

/// Bytes that each version after the first one adds.
const ADDED: usize = 300_000;

/// The folder of packs, beside each image.
pub(super) const PACKS: &str = "packs";

/// A version.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// `v1`, and so on.
    pub(super) name: String,
    /// The image, whose packs are in the folder of packs.
    pub(super) image: PathBuf,
    /// The same image in one file.
    pub(super) one_file: PathBuf,
    /// Hexadecimal digits.
    pub(super) image_id: String,
    /// Hexadecimal digests and lengths of all packs that it needs.
    pub(super) packs: Vec<(String, u64)>,
    /// Those that the build wrote.
    pub(super) new_packs: Vec<(String, u64)>,
}

impl Version {
    /// Bytes of the image file.
    pub(super) fn len(&self) -> Result<u64> {
        Ok(self.image.metadata().context("there is no image")?.len())
    }

    /// Bytes that a host fetches for it that has nothing, without documents.
    pub(super) fn all_bytes(&self) -> Result<u64> {
        Ok(self.len()? + self.packs.iter().map(|(_, bytes)| bytes).sum::<u64>())
    }
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Images {
    pub(super) versions: Vec<Version>,
    /// An image of another tree, a bit smaller than the first version, with a pack of its own.
    pub(super) other: Version,
}

impl Images {
    pub(super) fn make(tools: &Tools, scratch: &Path) -> Result<Self> {
        let packs = scratch.join(PACKS);
        let tree = scratch.join("tree");
        for folder in [&packs, &tree] {
            std::fs::create_dir(folder).with_context(|| format!("failed to create {}", folder.display()))?;
        }
        trees::small(&tree)?;
        std::fs::write(tree.join("large"), noise(31, LARGE)).context("failed to write a file")?;
        let mut versions: Vec<Version> = Vec::new();
        for number in 1..=3_u64 {
            if number > 1 {
                std::fs::write(tree.join(format!("added-{number}")), noise(number + 40, ADDED))
                    .context("failed to write a file")?;
                // One that is like the one before, so that a delta has something to do.
                let mut text = prose(2, 700_000);
                text[usize::try_from(number)? * 1000..][..8].copy_from_slice(b"changed!");
                std::fs::write(tree.join("data/prose"), text).context("failed to write a file")?;
            }
            let parent = versions.last().map(|version| version.image.clone());
            versions.push(build(tools, scratch, &format!("v{number}"), &tree, &packs, parent.as_deref())?);
        }
        let tree = scratch.join("other-tree");
        std::fs::create_dir(&tree).context("failed to create a folder")?;
        std::fs::write(tree.join("large"), noise(32, LARGE + LARGE / 4)).context("failed to write a file")?;
        let other = build(tools, scratch, "other", &tree, &packs, None)?;
        versions.push(other.clone());
        Ok(Self { versions, other })
    }

    /// The versions of the tree, without the other image.
    pub(super) fn series(&self) -> &[Version] {
        let count = self.versions.len() - 1;
        &self.versions[..count]
    }
}

fn build(
    tools: &Tools,
    scratch: &Path,
    name: &str,
    tree: &Path,
    packdir: &Path,
    parent: Option<&Path>,
) -> Result<Version> {
    let image = scratch.join(format!("{name}.tess"));
    let mut mkfs = run::command(&tools.mkfs);
    mkfs.args(["--json", "--quiet", "--packdir"]).arg(packdir);
    if let Some(parent) = parent {
        mkfs.arg("--parent").arg(parent);
    }
    let report = run::capture(mkfs.arg(&image).arg(tree))?;
    let report: serde_json::Value = serde_json::from_str(&report).context("mkfs reported no JSON")?;
    let digits = |value: &serde_json::Value| -> Result<String> {
        let text = value.as_str().context("mkfs reports no digest")?;
        Ok(text.strip_prefix("sha256:").unwrap_or(text).to_owned())
    };
    let (mut packs, mut new_packs) = (Vec::new(), Vec::new());
    for pack in report["shared"]["packs"].as_array().context("mkfs reports no packs")? {
        let bytes = pack["bytes"].as_u64().context("a pack without a length")?;
        let entry = (digits(&pack["digest"])?, bytes);
        if pack["new"] == true {
            new_packs.push(entry.clone());
        }
        packs.push(entry);
    }
    let one_file = scratch.join(format!("{name}-one-file.tess"));
    let mut unpack = run::command(&tools.store);
    run::quiet(unpack.args(["unpack", "--quiet", "--packdir"]).arg(packdir).arg(&one_file).arg(&image))?;
    Ok(Version {
        name: name.to_owned(),
        image_id: digits(&report["image_id"])?,
        image,
        one_file,
        packs,
        new_packs,
    })
}
