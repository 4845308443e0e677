// SPDX-License-Identifier: GPL-2.0-or-later

//! The check as one JSON object. Paths are text as everywhere: bytes that are none are `\ooo`.

use std::io::{self, Write};

use serde::Serialize;
use tesserafs_image::sbom::check::Report;
use tesserafs_image::text::escape;

/// Version of the fields: it changes when one changes its meaning or goes, not when one comes.
const VERSION: u32 = 1;

#[derive(Debug, Serialize)]
struct Json<'a> {
    version: u32,
    packages: u64,
    files: u64,
    compared: u64,
    without_digest: u64,
    ignored: u64,
    unowned: Vec<String>,
    changed: Vec<Changed<'a>>,
    missing: Vec<Missing<'a>>,
    runtime: Vec<String>,
    notes: &'a [String],
}

#[derive(Debug, Serialize)]
struct Changed<'a> {
    path: String,
    package: &'a str,
    what: &'static str,
    config: bool,
}

#[derive(Debug, Serialize)]
struct Missing<'a> {
    package: &'a str,
    paths: Vec<String>,
}

/// Writes the object, with a newline.
pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    let changed = report.changed.iter().map(|changed| Changed {
        path: escape(&changed.path),
        package: &changed.package,
        what: changed.what.name(),
        config: changed.is_config,
    });
    let missing = report
        .missing
        .iter()
        .map(|(package, paths)| Missing { package, paths: paths.iter().map(|path| escape(path)).collect() });
    let json = Json {
        version: VERSION,
        packages: report.packages,
        files: report.files,
        compared: report.compared,
        without_digest: report.without_digest,
        ignored: report.ignored,
        unowned: report.unowned.iter().map(|path| escape(path)).collect(),
        changed: changed.collect(),
        missing: missing.collect(),
        runtime: report.runtime.iter().map(|path| escape(path)).collect(),
        notes: &report.notes,
    };
    serde_json::to_writer_pretty(&mut *out, &json).map_err(io::Error::from)?;
    writeln!(out)
}
