// SPDX-License-Identifier: GPL-2.0
//! BENCH-growth.svg: time and memory by the size of the input, on logarithmic axes.

use std::fmt::Write as _;

use super::super::growth::{Grown, Kind, Measure};
use super::super::record::Record;
use super::super::report::growth::{kinds, of, sizes};
use super::{COLOURS, WIDTH};

/// Size of a graph with its labels, and the place of the axes in it, in pixels.
const GRAPH: (f64, f64) = (490.0, 330.0);
const LEFT: f64 = 75.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 15.0;
const BOTTOM: f64 = 30.0;

/// Where the first graph begins: the legend is above.
const LEGEND: f64 = 60.0;

/// A line for each measure of each kind: how it is drawn, and its name.
const MEASURES: [(Measure, &str, &str); 6] = [
    (Measure::Mkfs, "", "mkfs"),
    (Measure::Fsck, "7 3", "fsck"),
    (Measure::Mount, "2 3", "mount to first stat"),
    (Measure::Stat, "9 3 2 3", "stat of all"),
    (Measure::MkfsMemory, "", "mkfs"),
    (Measure::FsckMemory, "7 3", "fsck"),
];

/// Those of memory come last.
const TIMES: usize = 4;

/// A place in a graph, in decimal logarithms.
type Point = (f64, f64);

/// One line.
struct Line {
    colour: &'static str,
    dashes: &'static str,
    points: Vec<Point>,
}

/// Time and memory, of trees above and of files below.
pub(in super::super) fn growth(record: &Record) -> Option<String> {
    let samples = &record.growth.as_ref()?.samples;
    let mut body = legend(&kinds(samples));
    for (row, trees) in [true, false].into_iter().enumerate() {
        for (column, measures) in [&MEASURES[..TIMES], &MEASURES[TIMES..]].into_iter().enumerate() {
            let place = (column as f64 * GRAPH.0, LEGEND + row as f64 * GRAPH.1);
            let (input, unit) = match (trees, column) {
                (true, 0) => ("Files", "time"),
                (true, _) => ("Files", "memory"),
                (false, 0) => ("Bytes of one file", "time"),
                (false, _) => ("Bytes of one file", "memory"),
            };
            graph(
                &mut body,
                place,
                &format!("{input}: {unit}"),
                &lines(samples, trees, measures),
                |axis, decade| match (axis, column) {
                    (Axis::Input, _) => size(trees, decade),
                    (Axis::Value, 0) => seconds(decade),
                    (Axis::Value, _) => format!("{} MiB", number(decade)),
                },
            );
        }
    }
    let height = LEGEND + 2.0 * GRAPH.1;
    let title = "Time and memory by the size of the input: steeper than the dotted grey line is faster than the input";
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n"
    ))
}

/// The meaning of colours and dashes.
fn legend(kinds: &[Kind]) -> String {
    let mut body = String::new();
    for (index, kind) in kinds.iter().enumerate() {
        let x = 10 + index * 160;
        let _ = writeln!(body, r#"<rect x="{x}" y="10" width="12" height="12" fill="{}"/>"#, colour(*kind));
        let _ = writeln!(body, r#"<text x="{}" y="20">{}</text>"#, x + 18, kind.name());
    }
    for (index, (_, dashes, name)) in MEASURES[..TIMES].iter().enumerate() {
        let x = 10 + index * 160;
        let _ = writeln!(
            body,
            r#"<line x1="{x}" y1="36" x2="{}" y2="36" stroke="black" stroke-width="2" stroke-dasharray="{dashes}"/>"#,
            x + 30
        );
        let _ = writeln!(body, r#"<text x="{}" y="40">{name}</text>"#, x + 36);
    }
    body
}

fn colour(kind: Kind) -> &'static str {
    let index = match kind {
        Kind::Archive => 0,
        Kind::Directory => 1,
        Kind::Sparse => 2,
        Kind::Random => 4,
        Kind::Text => 7,
    };
    COLOURS[index]
}

/// The lines of a graph.
fn lines(samples: &[Grown], trees: bool, measures: &[(Measure, &'static str, &str)]) -> Vec<Line> {
    let mut lines = Vec::new();
    for kind in kinds(samples).into_iter().filter(|kind| kind.is_tree() == trees) {
        for &(measure, dashes, _) in measures {
            // Memory is in MiB.
            let unit = if measures.len() == TIMES { 1.0 } else { f64::from(1 << 20) };
            let point = |size| {
                let value = of(samples, kind, size, measure)?.median / unit;
                Some(((size as f64).log10(), value.log10()))
            };
            let points: Vec<Point> = sizes(samples, kind).into_iter().filter_map(point).collect();
            if !points.is_empty() {
                lines.push(Line { colour: colour(kind), dashes, points });
            }
        }
    }
    lines
}

/// The two axes.
#[derive(Clone, Copy)]
enum Axis {
    Input,
    Value,
}

/// Draws a graph with its axes; `label` names a power of ten.
fn graph(
    body: &mut String,
    (left, top): Point,
    title: &str,
    lines: &[Line],
    label: impl Fn(Axis, i32) -> String,
) {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (Some(inputs), Some(values)) =
        (decades(points().map(|point| point.0)), decades(points().map(|point| point.1)))
    else {
        return;
    };
    let (left, right) = (left + LEFT, left + GRAPH.0 - RIGHT);
    let (top, bottom) = (top + TOP, top + GRAPH.1 - BOTTOM);
    let place = |at: f64, (first, last): (i32, i32), begin: f64, end: f64| {
        begin + (at - f64::from(first)) / f64::from(last - first) * (end - begin)
    };
    let x = |at: f64| place(at, inputs, left, right);
    let y = |at: f64| place(at, values, bottom, top);
    let _ = writeln!(body, r#"<text x="{left}" y="{}" font-weight="bold">{title}</text>"#, top - 10.0);
    let grid = r##"stroke="#dddddd""##;
    for decade in inputs.0..=inputs.1 {
        let at = x(decade.into());
        let _ = writeln!(body, r#"<line x1="{at:.1}" y1="{top}" x2="{at:.1}" y2="{bottom}" {grid}/>"#);
        let text = label(Axis::Input, decade);
        let _ =
            writeln!(body, r#"<text x="{at:.1}" y="{}" text-anchor="middle">{text}</text>"#, bottom + 15.0);
    }
    for decade in values.0..=values.1 {
        let at = y(decade.into());
        let _ = writeln!(body, r#"<line x1="{left}" y1="{at:.1}" x2="{right}" y2="{at:.1}" {grid}/>"#);
        let text = label(Axis::Value, decade);
        let _ =
            writeln!(body, r#"<text x="{}" y="{:.1}" text-anchor="end">{text}</text>"#, left - 5.0, at + 4.0);
    }
    // From the corner, as far as both axes go.
    let both = f64::from((inputs.1 - inputs.0).min(values.1 - values.0));
    let (end_x, end_y) = (x(f64::from(inputs.0) + both), y(f64::from(values.0) + both));
    let _ = writeln!(
        body,
        r##"<line x1="{left}" y1="{bottom}" x2="{end_x:.1}" y2="{end_y:.1}" stroke="#888888" stroke-dasharray="2 3"/>"##
    );
    // Below the line over its whole width.
    let slope = (bottom - end_y) / (end_x - left);
    let (text_x, text_y) = (end_x - 4.0, end_y + 72.0 * slope + 10.0);
    let _ = writeln!(
        body,
        r##"<text x="{text_x:.1}" y="{text_y:.1}" text-anchor="end" fill="#888888">as the input</text>"##
    );
    for line in lines {
        let points: Vec<String> =
            line.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        let _ = writeln!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2" stroke-dasharray="{}"/>"#,
            points.join(" "),
            line.colour,
            line.dashes
        );
        for point in &line.points {
            let _ = writeln!(
                body,
                r#"<circle cx="{:.1}" cy="{:.1}" r="2.5" fill="{}"/>"#,
                x(point.0),
                y(point.1),
                line.colour
            );
        }
    }
}

/// The powers of ten that hold all of these logarithms: one below, and one above, at least.
fn decades(logarithms: impl Iterator<Item = f64> + Clone) -> Option<(i32, i32)> {
    let least = logarithms.clone().reduce(f64::min)?.floor() as i32;
    let most = logarithms.reduce(f64::max)?.ceil() as i32;
    Some((least, most.max(least + 1)))
}

/// Names of powers of ten.
fn number(decade: i32) -> String {
    match u32::try_from(decade) {
        Ok(decade) => 10_u64.pow(decade).to_string(),
        Err(_) => format!("{:.*}", decade.unsigned_abs() as usize, 10_f64.powi(decade)),
    }
}

fn seconds(decade: i32) -> String {
    match decade {
        ..-3 => format!("{} µs", number(decade + 6)),
        -3..0 => format!("{} ms", number(decade + 3)),
        0.. => format!("{} s", number(decade)),
    }
}

fn size(trees: bool, decade: i32) -> String {
    match (trees, decade) {
        (true, 6..) => format!("{} million", number(decade - 6)),
        (true, 3..) => format!("{} thousand", number(decade - 3)),
        (true, _) => number(decade),
        (false, _) => format!("{} GB", number(decade - 9)),
    }
}
