// SPDX-License-Identifier: GPL-2.0
//! Eight processes read everything at once.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::manifest::Manifest;
use tesserafs_guest::plan::Plan;
use tesserafs_guest::tree;

use crate::compare::mounted;
use crate::mounts::{drop_caches, on_disk};
use crate::suite::Suite;

const READERS: usize = 8;

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("eight-at-once-twice", || {
        let mount = mounted(&on_disk(&plan.root.image))?;
        let manifest = on_disk(&plan.root.manifest);
        for round in 1..=2 {
            drop_caches()?;
            read_at_once(&manifest, mount.path()).with_context(|| format!("in round {round}"))?;
        }
        let bytes = Manifest::load(&manifest)?.data_bytes();
        mount.unmount()?;
        Ok(format!("{READERS} x 2 x {} MB", bytes / 1_000_000))
    });
}

fn read_at_once(manifest: &Path, root: &Path) -> Result<()> {
    let mut readers = Vec::new();
    for number in 0..READERS {
        let reader = Command::new("/proc/self/exe")
            .arg("read")
            .arg(manifest)
            .arg(root)
            .arg(number.to_string())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to start a reader")?;
        readers.push(reader);
    }
    let mut errors = Vec::new();
    for (number, reader) in readers.into_iter().enumerate() {
        let output = reader.wait_with_output().context("failed to wait for a reader")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            errors.push(format!("reader {number} ended with {}: {}", output.status, said.trim()));
        }
    }
    if !errors.is_empty() {
        bail!("{}", errors.join("\n"));
    }
    Ok(())
}

/// One reader: every file of the manifest, once. Even readers start together at the first file, where
/// they meet in the same chunks; odd ones start at places of their own.
pub(crate) fn helper(arguments: &[OsString]) -> Result<()> {
    let [manifest, root, number] = arguments else {
        bail!("read takes a manifest, a root and a number");
    };
    let number: usize =
        number.to_str().and_then(|number| number.parse().ok()).context("the third argument is no number")?;
    let manifest = Manifest::load(Path::new(manifest))?;
    let root = Path::new(root);
    let files: Vec<_> =
        manifest.entries.iter().filter(|entry| tree::is_file(entry.mode) && entry.size > 0).collect();
    let start = if number % 2 == 0 { 0 } else { files.len() * number / READERS };
    let mut buffer = vec![0; 1 << 18];
    for entry in files[start..].iter().chain(&files[..start]) {
        let content = tree::checksum(&entry.below(root), entry.size, &mut buffer)
            .with_context(|| format!("failed to read /{}", entry.path.escape_ascii()))?;
        ensure!(content == entry.content, "/{} has other bytes than its source", entry.path.escape_ascii());
    }
    Ok(())
}
