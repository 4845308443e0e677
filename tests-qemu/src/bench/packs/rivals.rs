// SPDX-License-Identifier: GPL-2.0
//! The forms that others give a version: an image, a layer, or chunks.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{ensure, Context, Result};

use super::super::images::LEVEL;
use super::super::record::Program;
use super::super::{build, Bench};
use super::{len, timed};
use crate::run;

/// The rivals that can be mounted, and the layers.
pub(in super::super) const SQUASHFS: &str = "squashfs";
pub(in super::super) const EROFS: &str = "EROFS";
pub(in super::super) const LAYERS: [&str; 2] = ["OCI layer, tar.gz", "OCI layer, tar.zst"];
pub(in super::super) const CASYNC: &str = "casync";

/// How a layer is compressed.
const COMPRESSED: [&str; 2] = ["gzip -6", "zstd -3 -q"];

/// A store of chunks.
pub(super) struct Casync {
    store: PathBuf,
    bytes: u64,
}

impl Casync {
    pub(super) fn new(store: &Path) -> Result<Self> {
        std::fs::create_dir(store).context("failed to create a store")?;
        Ok(Self { store: store.to_owned(), bytes: 0 })
    }

    /// Adds a tree: bytes of its index and of the chunks that were not there, and seconds.
    pub(super) fn add(&mut self, tree: &Path) -> Result<(u64, f64)> {
        let index = self.store.join("index.caidx");
        let (seconds, _) = timed(
            run::command("casync")
                .args(["make", "--compression=zstd", "--store"])
                .arg(self.store.join("chunks.castr"))
                .arg(&index)
                .arg(tree),
        )?;
        let index = len(&index)?;
        let all = bytes_below(&self.store.join("chunks.castr"))?;
        let new = all - self.bytes;
        self.bytes = all;
        Ok((index + new, seconds))
    }
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    let mut todo = vec![folder.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in folder.read_dir().with_context(|| format!("failed to list {}", folder.display()))? {
            let entry = entry.context("failed to list a folder")?;
            let metadata = entry.metadata().context("failed to stat a file")?;
            if metadata.is_dir() {
                todo.push(entry.path());
            } else {
                sum += metadata.len();
            }
        }
    }
    Ok(sum)
}

/// Makes a version into what each rival has of it; `add` hears its name, bytes on a disk and fetched, and seconds.
pub(super) fn measure(
    bench: &Bench<'_>,
    tree: &Path,
    image: &Path,
    store: &mut Casync,
    add: &mut impl FnMut(&str, u64, u64, f64),
) -> Result<()> {
    for (name, mut command) in
        [(SQUASHFS, build::squashfs(bench, LEVEL, image)), (EROFS, build::erofs(bench, Some(LEVEL), image))]
    {
        std::fs::remove_file(image).context("failed to remove the last image")?;
        let (seconds, _) = timed(&mut command)?;
        let bytes = len(image)?;
        add(name, bytes, bytes, seconds);
    }
    layers(tree, |name, bytes, seconds| add(name, bytes, bytes, seconds))?;
    let (bytes, seconds) = store.add(tree)?;
    add(CASYNC, bytes, bytes, seconds);
    Ok(())
}

/// Makes a version into layers; `add` hears the name, the bytes and the seconds of each.
pub(super) fn layers(tree: &Path, mut add: impl FnMut(&str, u64, f64)) -> Result<()> {
    for (name, compressor) in LAYERS.iter().zip(COMPRESSED) {
        let begin = std::time::Instant::now();
        let script = format!("tar --sort=name --numeric-owner -C \"$1\" -cf - . | {compressor} | wc -c");
        let output = run::command("bash")
            .args(["-euo", "pipefail", "-c", &script, "layer"])
            .arg(tree)
            .stdin(Stdio::null())
            .output()
            .context("failed to start bash")?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let bytes = String::from_utf8_lossy(&output.stdout).trim().parse().context("wc printed no number")?;
        add(name, bytes, begin.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The programs, beside those of the builders.
pub(super) fn programs() -> Result<Vec<Program>> {
    let version = |program: &str| -> Result<String> {
        let said = run::capture(run::command(program).arg("--version"))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    };
    let mut programs = Vec::new();
    for (name, compressor) in LAYERS.iter().zip(COMPRESSED) {
        let program = compressor.split(' ').next().unwrap_or_default();
        let command = format!("tar --sort=name --numeric-owner -C TREE -cf - . | {compressor}");
        programs.push(Program { name: (*name).to_owned(), version: version(program)?, command });
    }
    let command = "casync make --compression=zstd --store STORE INDEX TREE".to_owned();
    programs.push(Program { name: CASYNC.to_owned(), version: version("casync")?, command });
    Ok(programs)
}
