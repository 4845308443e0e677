// SPDX-License-Identifier: GPL-2.0
//! `cargo xtask bench`: mkfs against the builders of squashfs and EROFS, on the Debian root of the tests.
//!
//! All builders run in turn, again and again (whatever else the machine does meets them alike), with the
//! same zstd level, from a warm page cache to the same folder. Reported are medians and ratios; every
//! sample is kept.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::cache::Cache;
use crate::setup::{self, Need};
use crate::tools::{self, Tools};
use crate::{erofs, kernel, rootfs, run};

/// What to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Runs of each builder at each level
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// zstd levels
    #[arg(long, value_delimiter = ',', default_values_t = [3, 15])]
    levels: Vec<u32>,
    /// Tree to build from, instead of the Debian root of the tests
    #[arg(long, value_name = "DIR")]
    source: Option<PathBuf>,
    /// Folder for BENCH.md and BENCH.json [default: the repository]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// The one file that is left out: squashfs's builder would read its 16 TB of zeros.
const HUGE: &str = "srv/cases/sparse/huge";

/// The one that the others are measured against.
const OURS: &str = "mkfs.tesserafs";

/// One run of one builder.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    builder: &'static str,
    level: u32,
    run: usize,
    seconds: f64,
    bytes: u64,
}

/// A builder of images.
struct Builder {
    name: &'static str,
    version: String,
    options: &'static str,
    command: Box<CommandOf>,
}

/// The command that builds an image at a level from a source.
type CommandOf = dyn Fn(u32, &Path, &Path) -> Command;

pub(crate) fn bench(options: &Options) -> Result<ExitCode> {
    let cache = Cache::open()?;
    setup::ensure(&cache, &[Need::Machine, Need::Bench])?;
    let builders = builders(&cache, Tools::build()?)?;
    let source = match &options.source {
        Some(folder) => folder.clone(),
        None => rootfs::debian(&cache)?,
    };
    let scratch =
        tempfile::tempdir_in(cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let image = scratch.path().join("image");

    let mut samples = Vec::new();
    let mut warm = false;
    for &level in &options.levels {
        // The very first round fills the page cache and is not counted.
        for run in usize::from(warm)..=options.runs {
            for builder in &builders {
                let sample = measure(builder, level, run, &image, &source)?;
                eprintln!(
                    "level {level} run {run}: {:18} {:7.2} s {:11} bytes",
                    sample.builder, sample.seconds, sample.bytes
                );
                if run > 0 {
                    samples.push(sample);
                }
            }
        }
        warm = true;
    }
    let table = report(&builders, &samples, options, &source)?;
    let output = options.output.clone().unwrap_or_else(tools::repository);
    write(&output.join("BENCH.md"), table.as_bytes())?;
    let json = serde_json::to_vec_pretty(&samples).context("the samples cannot be written down")?;
    write(&output.join("BENCH.json"), &json)?;
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
}

fn builders(cache: &Cache, tools: Tools) -> Result<Vec<Builder>> {
    let (erofs, erofs_version) = erofs::mkfs(cache)?;
    let first_line = |program: &Path, argument: &str| -> Result<String> {
        let output = run::output(run::command(program).arg(argument))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().next().unwrap_or_default().to_owned())
    };
    Ok(vec![
        Builder {
            name: OURS,
            version: first_line(&tools.mkfs, "--version")?,
            options: "--level L",
            command: Box::new(move |level, image, source| {
                let mut command = run::command(&tools.mkfs);
                command
                    .args(["--quiet", "--force", "--level", &level.to_string()])
                    .args(["--exclude", HUGE])
                    .arg(image)
                    .arg(source);
                command
            }),
        },
        Builder {
            name: "mksquashfs",
            version: first_line(Path::new("mksquashfs"), "-version")?,
            options: "-comp zstd -Xcompression-level L -b 128K",
            command: Box::new(|level, image, source| {
                let mut command = run::command("mksquashfs");
                command
                    .arg(source)
                    .arg(image)
                    .args(["-noappend", "-no-progress", "-quiet", "-comp", "zstd"])
                    .args(["-Xcompression-level", &level.to_string(), "-b", "128K"])
                    .args(["-e", HUGE]);
                command
            }),
        },
        Builder {
            name: "mkfs.erofs",
            version: erofs_version,
            options: "-zzstd,level=L -C65536",
            command: Box::new(move |level, image, source| {
                let mut command = run::command(&erofs);
                command
                    .arg("--quiet")
                    .arg(format!("-zzstd,level={level}"))
                    .arg("-C65536")
                    .arg(format!("--exclude-path={HUGE}"))
                    .arg(image)
                    .arg(source);
                command
            }),
        },
    ])
}

/// Builds once, from nothing.
fn measure(builder: &Builder, level: u32, run: usize, image: &Path, source: &Path) -> Result<Sample> {
    if image.exists() {
        std::fs::remove_file(image).context("failed to remove the last image")?;
    }
    // What the last builder wrote goes to the disk on its own time.
    rustix::fs::sync();
    let start = Instant::now();
    run::capture(&mut (builder.command)(level, image, source))?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = std::fs::metadata(image).with_context(|| format!("{} made no image", builder.name))?.len();
    Ok(Sample { builder: builder.name, level, run, seconds, bytes })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

/// The table, with everything that is needed to repeat it.
fn report(builders: &[Builder], samples: &[Sample], options: &Options, source: &Path) -> Result<String> {
    let mut out = String::from("# Building an image\n\nMade by `cargo xtask bench`. ");
    let names = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor = names
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let bytes = source_bytes(source)?;
    writeln!(
        out,
        "{} runs of each, interleaved, medians; {} processors ({processor}); the Debian root of the tests \
         (with its special cases, without the file of terabytes) holds {:.1} MB in files.\n",
        options.runs,
        kernel::processors(),
        bytes as f64 / 1e6
    )?;
    writeln!(out, "| zstd level | builder | seconds | times {OURS} | image, MB | times {OURS} |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for &level in &options.levels {
        let of = |name: &str| -> (f64, f64) {
            let mine = || samples.iter().filter(|s| s.level == level && s.builder == name);
            (median(mine().map(|s| s.seconds).collect()), median(mine().map(|s| s.bytes as f64).collect()))
        };
        let ours = of(OURS);
        for builder in builders {
            let (seconds, size) = of(builder.name);
            writeln!(
                out,
                "| {level} | {} | {seconds:.2} | {:.2} | {:.1} | {:.3} |",
                builder.name,
                seconds / ours.0,
                size / 1e6,
                size / ours.1
            )?;
        }
    }
    writeln!(out)?;
    for builder in builders {
        writeln!(out, "* {}: {}; `{}`", builder.name, builder.version, builder.options)?;
    }
    writeln!(out, "\nEvery sample is in `BENCH.json`.")?;
    Ok(out)
}

/// Bytes in the regular files of the source, without the one that is left out.
fn source_bytes(source: &Path) -> Result<u64> {
    let manifest = crate::trees::described(source)?;
    Ok(manifest.data_bytes())
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
