// SPDX-License-Identifier: GPL-2.0
//! fsck must find each flipped bit, and nothing in the image as it was.

use std::path::Path;

use anyhow::{bail, Context, Result};
use tesserafs_guest::plan::Flip;

use crate::stage::Stage;
use crate::tools::Tools;
use crate::{corrupt, kernel, run};

/// Flips them one by one.
pub(super) fn test(tools: &Tools, stage: &Stage, certificate: &Path) -> Result<String> {
    let image = stage.path(&stage.plan.signed.good[0].image);
    let bytes = std::fs::read(&image).with_context(|| format!("failed to read {}", image.display()))?;
    let check = |path: &Path| -> Result<(Option<i32>, String)> {
        let output = run::output(run::command(&tools.fsck).arg("--cert").arg(certificate).arg(path))?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
    };
    let (code, said) = check(&image)?;
    if code != Some(0) {
        bail!("fsck ends with {code:?} for the image itself: {said}");
    }
    let flips = &stage.plan.flips;
    let half = flips.len().div_ceil(kernel::processors());
    let missed: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> =
            flips.chunks(half).map(|flips| scope.spawn(|| missed(flips, &bytes, &check))).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| anyhow::anyhow!("a checking thread panicked"))?)
            .collect::<Result<Vec<_>>>()
            .map(|lists| lists.concat())
    })?;
    if !missed.is_empty() {
        let shown: Vec<&str> = missed.iter().take(20).map(String::as_str).collect();
        bail!("{} of {} are not named:\n{}", missed.len(), flips.len(), shown.join("\n"));
    }
    Ok(format!("{} flips", flips.len()))
}

/// Flips that fsck does not answer with "errors left" and a reason.
fn missed(
    flips: &[Flip],
    bytes: &[u8],
    check: &(impl Fn(&Path) -> Result<(Option<i32>, String)> + Sync),
) -> Result<Vec<String>> {
    const ERRORS_LEFT: i32 = 4;
    let folder = crate::trees::in_memory()?;
    let path = folder.path().join("flipped.tess");
    let mut bytes = bytes.to_vec();
    let mut missed = Vec::new();
    for flip in flips {
        corrupt::flip(&mut bytes, flip)?;
        std::fs::write(&path, &bytes).context("failed to write a damaged image")?;
        let (code, said) = check(&path)?;
        if code != Some(ERRORS_LEFT) || said.trim().is_empty() {
            missed.push(format!("{flip:?}: exit {code:?} {}", said.trim()));
        }
        corrupt::flip(&mut bytes, flip)?;
    }
    Ok(missed)
}
