// SPDX-License-Identifier: GPL-2.0
//! Reports of a few samples.

use super::super::fuse;
use super::super::images::{EROFS_VERITY, SQUASHFS_VERITY};
use super::super::releases::EROFS_SHARED;
use super::super::scaling::PROGRAM;
use super::targets::{QUOTED, THE_FASTER, THE_FASTER_FUSE};
use super::*;
use tesserafs_guest::reading::{ONE_CPU, TWO_CPUS};

pub(super) fn sample(measure: &str, system: &str, value: f64) -> Sample {
    let (measure, system) = (measure.to_owned(), system.to_owned());
    Sample { measure, system, round: 1, value, count: 1, bytes: 0, decoded: None }
}

pub(super) fn measured(samples: Vec<Sample>) -> Measured<Sample> {
    Measured {
        commit: String::new(),
        command: String::new(),
        machine: String::new(),
        programs: Vec::new(),
        notes: Vec::new(),
        samples,
    }
}

#[test]
fn each_part_has_its_table_and_its_target() {
    let releases = vec![sample("memory: all", OURS, 3e6), sample("memory: all", EROFS_SHARED, 4e6)];
    let scaling = vec![sample(PROGRAM, ONE_CPU, 0.9), sample(PROGRAM, TWO_CPUS, 0.5)];
    let text = markdown(&Record {
        releases: Some(measured(releases)),
        scaling: Some(measured(scaling)),
        ..Record::default()
    })
    .unwrap();
    assert!(text.contains("two releases read | EROFS with inode_share | ≤ 0.8 | 0.750 | yes |"), "{text}");
    assert!(text.contains("| memory: all | 3.0 MB | 4.0 MB (1.33) |"), "{text}");
    assert!(text.contains("itself on one | ≥ 1.6 | 1.800 | yes |"), "{text}");
    assert!(text.contains("one large program | 0.900 s (0.900 s – 0.900 s) | 0.500 s"), "{text}");
    assert!(text.contains("stat of all, cold, time | EROFS | ≤ 1 | not measured |"), "{text}");
}

#[test]
fn the_readme_quotes_what_was_measured() {
    let samples = vec![sample("random 4 KiB", OURS, 3.0), sample("random 4 KiB", "EROFS", 4.0)];
    let record = Record { read: Some(measured(samples)), ..Record::default() };
    let [begin, end] = QUOTED;
    let readme = format!("# Before\n\n{begin}\nold\n{end}\n\nAfter\n");
    let text = quoted(&readme, &record).unwrap();
    assert!(text.starts_with("# Before\n") && text.ends_with(&format!("{end}\n\nAfter\n")), "{text}");
    assert!(text.contains("| random 4 KiB, verified, time | EROFS | 0.75 |"), "{text}");
    assert!(!text.contains("old") && !text.contains("not measured"), "{text}");
    assert_eq!(quoted(&text, &record).unwrap(), text);
}

#[test]
fn a_fault_is_measured_against_the_faster_system() {
    let measure = "fault: 8 pages of a large program";
    let bytes = Sample { decoded: Some(10 * 131_072), count: 8, ..sample(measure, OURS, 2.0) };
    let others = [sample(measure, EROFS_VERITY, 4.0), sample(measure, SQUASHFS_VERITY, 2.5)];
    let fault = Some(measured([vec![bytes], others.to_vec()].concat()));
    let row = |measure, [ours, erofs, squashfs]: [f64; 3]| {
        let all = [(OURS, ours), (EROFS_VERITY, erofs), (SQUASHFS_VERITY, squashfs)];
        all.map(|(system, value)| sample(measure, system, value)).to_vec()
    };
    let rows = [row("start of bash", [1.0, 2.0, 4.0]), row("start of perl", [1.8, 3.0, 2.0])];
    let fault_two = Some(measured(rows.concat()));
    let text = markdown(&Record { fault, fault_two, ..Record::default() }).unwrap();
    let target = format!("| {measure}, time | {THE_FASTER} | ≤ 1 | 0.800 | yes | 0.800 |");
    assert!(text.contains(&target), "{text}");
    let target = format!("| {measure}, bytes decoded for each | two chunks of 128 KiB | ≤ 1 | 0.625 |");
    assert!(text.contains(&target), "{text}");
    assert!(text.contains(&format!("| {measure} | 160 |")), "{text}");
    assert!(text.contains(&format!("of all rows, time | {THE_FASTER} | ≤ 1 | 0.900 | yes |")), "{text}");
}

#[test]
fn a_server_for_fuse_is_measured_against_the_faster_one_and_by_its_memory() {
    let row = |measure, [ours, erofs, squashfs]: [f64; 3]| {
        let all = [(OURS, ours), (fuse::EROFS, erofs), (fuse::SQUASHFS, squashfs)];
        all.map(|(system, value)| sample(measure, system, value)).to_vec()
    };
    let mib = f64::from(1 << 20);
    let rows = [
        row("stat of all", [3.0, 4.0, 2.5]),
        row("processors: stat of all", [1.0, 2.0, 3.0]),
        row("memory: stat of all", [16.0 * mib, 8.0 * mib, 8.0 * mib]),
        row("memory: small files", [32.0 * mib, 8.0 * mib, 8.0 * mib]),
    ];
    let read = Some(measured(vec![sample("stat of all", OURS, 1.0), sample("stat of all", "EROFS", 2.0)]));
    let record = Record { fuse: Some(measured(rows.concat())), read, ..Record::default() };
    let text = markdown(&record).unwrap();
    let target = format!("| FUSE: stat of all, time | {THE_FASTER_FUSE} | ≤ 1 | 1.200 | **no** | 1.200 |");
    assert!(text.contains(&target), "{text}");
    assert!(text.contains("| FUSE: memory of the server at most | 64 MiB | ≤ 1 | 0.500 | yes |"), "{text}");
    assert!(text.contains("| stat of all | 3.000 s | 4.000 s (1.33) | 2.500 s (0.83) |"), "{text}");
    assert!(text.contains("| processors: stat of all | 1.000 s |"), "{text}");
    assert!(text.contains("| memory: stat of all | 16.8 MB | 8.4 MB (0.50) |"), "{text}");
    // The figures of another part stay, also in the file that they are kept in.
    assert!(text.contains("| stat of all, cold, time | EROFS | ≤ 1 | 0.500 | yes |"), "{text}");
    let kept: Record = serde_json::from_slice(&record.to_json().unwrap()).unwrap();
    assert_eq!(markdown(&kept).unwrap(), text);
}

#[test]
fn the_faster_system_is_not_known_before_both_are_measured() {
    let measure = "start of bash";
    let fault = measured(vec![sample(measure, OURS, 2.0), sample(measure, EROFS_VERITY, 4.0)]);
    let text = markdown(&Record { fault: Some(fault), ..Record::default() }).unwrap();
    assert!(text.contains(&format!("| {measure}, time | {THE_FASTER} | ≤ 1 | not measured |")), "{text}");
}

#[test]
fn a_target_is_judged_by_its_side() {
    let samples = vec![
        sample("sequential, all files", OURS, 1.0),
        sample("sequential, all files", EROFS_VERITY, 1.5),
        sample("random 4 KiB", OURS, 3.0),
        sample("random 4 KiB", EROFS_VERITY, 1.5),
    ];
    let text = markdown(&Record { read: Some(measured(samples)), ..Record::default() }).unwrap();
    assert!(text.contains("throughput | EROFS on dm-verity | ≥ 1.3 | 1.500 | yes | 1.500 |"), "{text}");
    assert!(text.contains("time | EROFS on dm-verity | ≤ 0.6 | 2.000 | **no** | 2.000 |"), "{text}");
    assert!(text.contains("| random 4 KiB | 3.000 s | 1.500 s (0.50) |"), "{text}");
}
