// SPDX-License-Identifier: GPL-2.0
//! mkfs against the builders of squashfs and EROFS.
//!
//! All run with the same zstd level, from a warm page cache to the same folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::record::{Built, Measured, Program};
use super::Bench;
use crate::run;

/// The one that the others are measured against.
pub(super) const OURS: &str = "mkfs.tesserafs";
/// The one of squashfs.
pub(super) const MKSQUASHFS: &str = "mksquashfs";

/// A builder of images.
struct Builder {
    name: &'static str,
    command: fn(&Bench<'_>, u32, &Path) -> Command,
}

const BUILDERS: [Builder; 3] = [
    Builder { name: OURS, command: tesserafs },
    Builder { name: MKSQUASHFS, command: squashfs },
    Builder { name: "mkfs.erofs", command: |bench, level, image| erofs(bench, Some(level), image) },
];

/// The command that builds an image of tesserafs.
pub(super) fn tesserafs(bench: &Bench<'_>, level: u32, image: &Path) -> Command {
    let mut command = run::command(&bench.tools.mkfs);
    command
        .args(["--quiet", "--force", "--level", &level.to_string()])
        // With a slash: a name alone is left out wherever it is.
        .args(bench.excluded.map(|path| ["--exclude".to_owned(), format!("/{path}")]).into_iter().flatten())
        .args(&bench.options.mkfs)
        .arg(image)
        .arg(&bench.source);
    command
}

/// The command that builds an image of squashfs.
pub(super) fn squashfs(bench: &Bench<'_>, level: u32, image: &Path) -> Command {
    let mut command = run::command("mksquashfs");
    command
        .arg(&bench.source)
        .arg(image)
        .args(["-noappend", "-no-progress", "-quiet", "-comp", "zstd"])
        .args(["-Xcompression-level", &level.to_string(), "-b", "128K"])
        .args(bench.excluded.map(|path| ["-e", path]).into_iter().flatten());
    command
}

/// The command that builds an image of EROFS; without a level, uncompressed.
pub(super) fn erofs(bench: &Bench<'_>, level: Option<u32>, image: &Path) -> Command {
    let mut command = run::command(&bench.erofs.mkfs);
    command.arg("--quiet");
    if let Some(level) = level {
        command.arg(format!("-zzstd,level={level}")).arg("-C65536");
    }
    command.args(bench.excluded.map(|path| format!("--exclude-path={path}")));
    command.arg(image).arg(&bench.source);
    command
}

/// Level of the round that is not counted: a quick one.
const WARM_UP: u32 = 3;

/// Runs everything.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Measured<Built>> {
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let image = scratch.path().join("image");
    let mut samples = Vec::new();
    let mut warm = false;
    for &level in &bench.options.levels {
        // The very first round fills the page cache and is not counted: any level will do for it.
        for run in usize::from(warm)..=bench.options.runs {
            let level = if run == 0 { WARM_UP } else { level };
            for builder in &BUILDERS {
                let mut command = (builder.command)(bench, level, &image);
                let sample = once(builder.name, &mut command, level, run, &image)?;
                eprintln!(
                    "level {level} run {run}: {:18} {:7.2} s {:11} bytes, peak {:4} MiB",
                    sample.builder,
                    sample.seconds,
                    sample.bytes,
                    sample.peak >> 20
                );
                if run > 0 {
                    samples.push(sample);
                }
            }
        }
        warm = true;
    }
    let bytes = crate::trees::described(&bench.source)?.data_bytes();
    let notes = vec![format!(
        "the Debian root of the tests (with its special cases, without the file of terabytes) holds {:.1} MB in files",
        bytes as f64 / 1e6
    )];
    Measured::new(bench, programs(bench)?, notes, samples)
}

/// Builds `image` once, by this command, from nothing.
pub(super) fn once(name: &str, command: &mut Command, level: u32, run: usize, image: &Path) -> Result<Built> {
    if image.exists() {
        std::fs::remove_file(image).context("failed to remove the last image")?;
    }
    // What the last builder wrote goes to the disk on its own time.
    rustix::fs::sync();
    let cost = run::measured(command)?;
    let bytes = std::fs::metadata(image).with_context(|| format!("{name} made no image"))?.len();
    Ok(Built {
        builder: name.to_owned(),
        level,
        run,
        seconds: cost.elapsed.as_secs_f64(),
        processor: Some(cost.processor.as_secs_f64()),
        bytes,
        peak: cost.peak,
    })
}

/// What built, in which version.
pub(super) fn programs(bench: &Bench<'_>) -> Result<Vec<Program>> {
    let first_line = |program: &Path, argument: &str| -> Result<String> {
        let output = run::output(run::command(program).arg(argument))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    let versions = [
        first_line(&bench.tools.mkfs, "--version")?,
        first_line(Path::new("mksquashfs"), "-version")?,
        bench.erofs.version.clone(),
    ];
    Ok(BUILDERS
        .iter()
        .zip(versions)
        .map(|(builder, version)| Program {
            name: builder.name.to_owned(),
            version,
            command: plain(bench, &(builder.command)(bench, 0, Path::new("IMAGE")))
                .replace("level 0", "level L"),
        })
        .collect())
}

/// A command as one would type it elsewhere: without the folders of this machine.
fn plain(bench: &Bench<'_>, command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
    let shown = run::shown(command).replace(&bench.source.display().to_string(), "ROOT");
    let arguments = shown.split_once(' ').map_or("", |(_, arguments)| arguments);
    format!("{program} {}", arguments.replace("level=0", "level=L"))
}
