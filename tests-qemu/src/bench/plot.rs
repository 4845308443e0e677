// SPDX-License-Identifier: GPL-2.0
//! BENCH.svg: of each measure, a bar for each system, as long as its time is a multiple of the driver's. BENCH-packs.svg: the same of
//! the bytes that versions of trees take. BENCH-growth.svg: time and memory by the size of the input ([`growth`](mod@growth)).

mod growth;

use std::fmt::Write as _;

use tesserafs_guest::reading::Sample;

use super::images::OURS;
use super::packs::{CASYNC, CHUNKS, EROFS, LAYERS, ONE_FILE, PACKS, SQUASHFS};
use super::record::Record;
use super::report::packs::{disk, fetched, series};
use super::report::{baseline, names, of, systems};

pub(super) use self::growth::growth;

/// Height of a bar and width of a ratio of 1, in pixels.
const BAR: usize = 13;
const UNIT: f64 = 110.0;

/// Bars longer than this many times the driver's end here.
const LONGEST: f64 = 5.0;

const LEFT: usize = 250;
const WIDTH: usize = 1000;

const COLOURS: [&str; 8] =
    ["#1b6ca8", "#e07b39", "#b5462f", "#e8b48a", "#5c8a4f", "#33592b", "#6fa8d6", "#f2a65e"];

/// Times of the driver's measures.
pub(super) fn svg(record: &Record) -> String {
    let parts = [&record.read, &record.fault].into_iter().flatten();
    let samples: Vec<Sample> = parts.flat_map(|part| part.samples.iter().cloned()).collect();
    let systems = systems(&samples);
    let title = format!("Medians as a multiple of {OURS}: longer is slower, or more memory");
    bars(&title, &systems, &names(&samples, |sample| &sample.measure), |measure, system| {
        let (theirs, ours) = (of(&samples, measure, system)?, of(&samples, measure, baseline(system))?);
        Some(theirs.median / ours.median)
    })
}

/// Bytes of the versions of trees.
pub(super) fn packs(record: &Record) -> Option<String> {
    let versions = &record.packs.as_ref()?.samples;
    let forms = [PACKS, CHUNKS, ONE_FILE, SQUASHFS, EROFS, LAYERS[0], LAYERS[1], CASYNC];
    let mut measures = Vec::new();
    for series in series(versions) {
        measures.push(format!("{series}: disk"));
        measures.push(format!("{series}: to fetch"));
    }
    let shown: Vec<&str> = measures.iter().map(|measure| &**measure).collect();
    let title = format!("Bytes as a multiple of {PACKS}, or to fetch of {CHUNKS}: longer is more");
    Some(bars(&title, &forms, &shown, |measure, form| {
        let (series, what) = measure.split_once(": ")?;
        match what {
            "disk" if form == CHUNKS => None,
            "disk" => Some(disk(versions, series, form)? / disk(versions, series, PACKS)?),
            _ => Some(fetched(versions, series, form)? / fetched(versions, series, CHUNKS)?),
        }
    }))
}

/// A bar for each measure and system that there is a ratio of.
fn bars(
    title: &str,
    systems: &[&str],
    measures: &[&str],
    ratio: impl Fn(&str, &str) -> Option<f64>,
) -> String {
    let mut body = String::new();
    let mut y = 10;
    for (index, system) in systems.iter().enumerate() {
        let (x, row) = (10 + index % 4 * 240, y + index / 4 * 20);
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(body, r#"<rect x="{x}" y="{row}" width="12" height="12" fill="{colour}"/>"#);
        let _ = writeln!(body, r#"<text x="{}" y="{}">{system}</text>"#, x + 18, row + 10);
    }
    y += systems.len().div_ceil(4) * 20 + 10;
    for measure in measures {
        let _ = writeln!(body, r#"<text x="10" y="{}">{measure}</text>"#, y + 10);
        for (index, system) in systems.iter().enumerate() {
            let Some(ratio) = ratio(measure, system) else { continue };
            let length = ratio.clamp(0.0, LONGEST) * UNIT;
            let colour = COLOURS[index % COLOURS.len()];
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{}" fill="{colour}"/>"#,
                BAR - 2
            );
            let place = LEFT as f64 + length + 5.0;
            let _ = writeln!(body, r#"<text x="{place:.1}" y="{}">{ratio:.2}</text>"#, y + BAR - 3);
            y += BAR;
        }
        y += 10;
    }
    let one = LEFT as f64 + UNIT;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"white\"/>\n{body}\
         <line x1=\"{one}\" y1=\"50\" x2=\"{one}\" y2=\"{y}\" stroke=\"black\" stroke-dasharray=\"2 3\"/>\n</svg>\n"
    )
}
