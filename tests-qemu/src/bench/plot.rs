// SPDX-License-Identifier: GPL-2.0
//! BENCH.svg: of each measure, a bar for each system, as long as its time is a multiple of the driver's.

use std::fmt::Write as _;

use tesserafs_guest::reading::Sample;

use super::images::OURS;
use super::record::Record;
use super::report::{baseline, names, of, systems};

/// Height of a bar and width of a ratio of 1, in pixels.
const BAR: usize = 13;
const UNIT: f64 = 110.0;

/// Bars longer than this many times the driver's end here.
const LONGEST: f64 = 5.0;

const LEFT: usize = 250;
const WIDTH: usize = 1000;

const COLOURS: [&str; 8] =
    ["#1b6ca8", "#e07b39", "#b5462f", "#e8b48a", "#5c8a4f", "#33592b", "#6fa8d6", "#f2a65e"];

/// The whole drawing.
pub(super) fn svg(record: &Record) -> String {
    let parts = [&record.read, &record.fault].into_iter().flatten();
    let samples: Vec<Sample> = parts.flat_map(|part| part.samples.iter().cloned()).collect();
    let (measures, systems) = (names(&samples, |sample| &sample.measure), systems(&samples));
    let mut body = String::new();
    let mut y = 10;
    for (index, system) in systems.iter().enumerate() {
        let (x, row) = (10 + index % 4 * 240, y + index / 4 * 20);
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(body, r#"<rect x="{x}" y="{row}" width="12" height="12" fill="{colour}"/>"#);
        let _ = writeln!(body, r#"<text x="{}" y="{}">{system}</text>"#, x + 18, row + 10);
    }
    y += systems.len().div_ceil(4) * 20 + 10;
    for measure in &measures {
        let _ = writeln!(body, r#"<text x="10" y="{}">{measure}</text>"#, y + 10);
        for (index, system) in systems.iter().enumerate() {
            let (Some(theirs), Some(ours)) =
                (of(&samples, measure, system), of(&samples, measure, baseline(system)))
            else {
                continue;
            };
            let ratio = theirs.median / ours.median;
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
         <title>Medians as a multiple of {OURS}: longer is slower, or more memory</title>\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"white\"/>\n{body}\
         <line x1=\"{one}\" y1=\"50\" x2=\"{one}\" y2=\"{y}\" stroke=\"black\" stroke-dasharray=\"2 3\"/>\n</svg>\n"
    )
}
