// SPDX-License-Identifier: GPL-2.0-or-later

//! The check in lines: one for each file, and one that counts.

use std::io::{self, Write};

use tesserafs_image::sbom::check::Report;
use tesserafs_image::text::escape;

/// Writes the lines.
pub(super) fn write(report: &Report, verbose: bool, out: &mut dyn Write) -> io::Result<()> {
    for path in &report.unowned {
        writeln!(out, "unowned  {}", escape(path))?;
    }
    for changed in &report.changed {
        let config = if changed.is_config { ", configuration" } else { "" };
        let (path, what) = (escape(&changed.path), changed.what.name());
        writeln!(out, "changed  {path}  ({what}{config}; {})", changed.package)?;
    }
    for (package, paths) in &report.missing {
        for path in paths {
            writeln!(out, "missing  {}  ({package})", escape(path))?;
        }
    }
    if verbose {
        for path in &report.runtime {
            writeln!(out, "made     {}", escape(path))?;
        }
    }
    let Report { packages, files, compared, without_digest, ignored, .. } = report;
    let missing: usize = report.missing.values().map(|paths| paths.len()).sum();
    writeln!(
        out,
        "{packages} packages, {files} files: {} unowned, {} changed, {missing} missing of {} packages",
        report.unowned.len(),
        report.changed.len(),
        report.missing.len()
    )?;
    writeln!(
        out,
        "{compared} compared, {without_digest} of packages that have no digest of them, {} made by packages, {ignored} ignored",
        report.runtime.len()
    )
}
