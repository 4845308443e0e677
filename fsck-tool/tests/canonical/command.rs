// SPDX-License-Identifier: GPL-2.0-or-later

//! `fsck.tesserafs --canonical`: its lines, its exit status, its JSON.

use super::bench::{text, Bench};
use super::common::{pattern, Draft, Piece};
use super::freedoms::{draft, files};

/// One file of 20,000 bytes; cut in two where only one chunk is canonical.
fn image(is_cut: bool) -> Vec<u8> {
    let bytes = pattern(20_000, 1);
    let mut draft = draft();
    if is_cut {
        draft.content(&[Piece::Data(&bytes[..10_000]), Piece::Data(&bytes[10_000..])], &bytes);
    } else {
        draft.content(&[Piece::Data(&bytes)], &bytes);
    }
    files(draft, &[bytes.len()])
}

#[test]
fn the_last_line_says_whether_an_image_is_canonical() {
    let good = Bench::new(&image(false));
    let output = good.run(["--canonical"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.ends_with(": clean, 2 inodes, 1 content, 1 chunk, not signed, canonical\n"), "{said}");
    // Nobody asked.
    assert!(!text(&good.run(["--threads=1"]).stdout).contains("canonical"));

    let cut = Bench::new(&image(true));
    assert_eq!(cut.run(["--threads=1"]).status.code(), Some(0));
    let output = cut.run(["--canonical"]);
    assert_eq!(output.status.code(), Some(64), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].contains(": difference: canonical @ byte "), "{said}");
    assert!(
        lines[0].contains("(/a): found bytes 0..10000 as a chunk, expected bytes 0..20000 as a chunk"),
        "{said}"
    );
    assert!(lines[0].contains("in the map: cut elsewhere (FORMAT.md 5.1, 5.3)"), "{said}");
    assert!(lines[1].ends_with(", not signed, not canonical"), "{said}");
    assert_eq!(text(&cut.run(["--canonical", "--quiet"]).stdout), format!("{}\n", lines[0]));
}

#[test]
fn a_broken_image_is_not_compared() {
    let mut broken = image(true);
    broken[4096] ^= 1;
    let output = Bench::new(&broken).run(["--canonical"]);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stdout);
    assert!(said.ends_with(" errors, not repaired; not compared with what a builder makes\n"), "{said}");
    assert!(!said.contains("canonical @"), "{said}");

    // A rule of the form alone: a block of zeros too much before the tree region.
    let mut draft = Draft::sample();
    draft.pack_padding = Some(vec![0; draft.pack.len().next_multiple_of(4096) - draft.pack.len() + 4096]);
    let bench = Bench::new(&draft.image());
    let output = bench.run(["--canonical"]);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stdout);
    assert!(said.contains(": form: pack-padding @ ") && said.contains("; not compared with"), "{said}");
    let report = json(&bench);
    assert_eq!((&report["clean"], &report["canonical"]), (&false.into(), &serde_json::Value::Null));
}

fn json(bench: &Bench) -> serde_json::Value {
    serde_json::from_slice(&bench.run(["--canonical", "--json"]).stdout).expect("JSON")
}

#[test]
fn the_json_says_it_in_fields() {
    let report = json(&Bench::new(&image(false)));
    assert_eq!((&report["version"], &report["canonical"]), (&2.into(), &true.into()));
    assert!(report.get("difference").is_none() && report["findings"].as_array().is_some_and(Vec::is_empty));

    let cut = Bench::new(&image(true));
    let report = json(&cut);
    assert_eq!((&report["clean"], &report["canonical"]), (&true.into(), &false.into()));
    assert_eq!(report["exit_code"], 64);
    assert_eq!(report["difference"]["freedom"], "cut-point");
    assert_eq!(report["difference"]["region"], "map");
    let finding = &report["findings"][0];
    assert_eq!((&finding["rule"], &finding["severity"]), (&"canonical".into(), &"difference".into()));
    assert_eq!(finding["place"], format!("byte {}", report["difference"]["byte"]));
    assert_eq!(finding["path"], "/a");

    let unasked = cut.run(["--json"]).stdout;
    let report: serde_json::Value = serde_json::from_slice(&unasked).expect("JSON");
    assert!(report["canonical"].is_null() && report["exit_code"] == 0);
}

#[test]
fn it_is_a_question_of_its_own() {
    let bench = Bench::new(&image(false));
    for other in ["--list", "--metadata-only", "--tar", "--cat=a"] {
        assert_eq!(bench.run(["--canonical", other]).status.code(), Some(16), "{other}");
    }
    let output = bench.run(["--canonical", "--progress=plain"]);
    assert!(text(&output.stderr).contains("encode: "), "{}", text(&output.stderr));
}
