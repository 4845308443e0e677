// SPDX-License-Identifier: GPL-2.0
//! `mkfs.tesserafs` and `fsck.tesserafs` of this machine's architecture, and images of another one's.

use std::path::Path;
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use tesserafs_guest::plan::Plan;

use crate::compare::mounted;
use crate::mounts::on_disk;
use crate::suite::Suite;

/// The image that is made here.
const MADE: &str = "/tmp/made.tess";

pub(crate) fn tests(suite: &mut Suite, plan: &Plan) {
    suite.test("fsck-accepts-what-another-architecture-made", || {
        run("fsck-tesserafs", &[&on_disk(&plan.root.image)]).map(|()| String::new())
    });
    suite.test("fsck-refuses-a-tampered-image", || {
        let tampered = on_disk(&plan.signed.tampered.image);
        match run("fsck-tesserafs", &[&tampered]) {
            Ok(()) => bail!("{} is accepted", tampered.display()),
            Err(error) => Ok(format!("{error:#}").lines().next().unwrap_or_default().to_owned()),
        }
    });
    suite.test("mkfs-makes-the-same-bytes", || {
        let expected = on_disk(&plan.small.image);
        let mount = mounted(&expected)?;
        run("mkfs-tesserafs", &[Path::new("--quiet"), Path::new("--force"), Path::new(MADE), mount.path()])?;
        mount.unmount()?;
        let expected = std::fs::read(&expected).context("failed to read the image")?;
        let made = std::fs::read(MADE).with_context(|| format!("failed to read {MADE}"))?;
        let place = expected.iter().zip(&made).position(|(expected, made)| expected != made);
        ensure!(place.is_none(), "the images differ from byte {} on", place.unwrap_or_default());
        ensure!(made.len() == expected.len(), "{} bytes, expected {}", made.len(), expected.len());
        std::fs::remove_file(MADE).with_context(|| format!("failed to remove {MADE}"))?;
        Ok(format!("{} bytes, image ID {}", made.len(), plan.small.image_id))
    });
}

/// Runs a program, which must succeed.
fn run(program: &str, arguments: &[&Path]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("failed to start {program}"))?;
    ensure!(
        output.status.success(),
        "{program} ended with {}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
