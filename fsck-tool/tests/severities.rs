// SPDX-License-Identifier: GPL-2.0-or-later

//! How bad a broken rule is, as section 9 of `FORMAT.md` says.

use std::collections::BTreeSet;
use std::io::Write;

use fsck_tesserafs::parallel::Cancel;
use fsck_tesserafs::progress::Silent;
use fsck_tesserafs::{check, Options, Report, Severity, Source};
use tesserafs_format::Rule;

#[path = "../../format/tests/common/mod.rs"]
mod common;

use common::{superblock, Draft};

fn report(image: &[u8]) -> Report {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(image).expect("written");
    let source = Source::open(file.path()).expect("opened");
    check(&source, &Options { threads: 1, ..Options::default() }, &Silent, &Cancel::default())
}

/// The rules that the paragraph of a severity names before its exceptions.
fn named(severity: Severity) -> BTreeSet<&'static str> {
    let spec = include_str!("../../format/FORMAT.md");
    let (_, text) = spec.split_once(&format!("\n*{}*: ", severity.name())).expect("a paragraph");
    let (paragraph, _) = text.split_once("\n\n").expect("its end");
    let (all, _) = paragraph.split_once(';').unwrap_or((paragraph, ""));
    all.split('`').skip(1).step_by(2).collect()
}

#[test]
fn rules_are_as_bad_as_the_specification_says() {
    let (fatal, form) = (named(Severity::Fatal), named(Severity::Form));
    let difference = named(Severity::Difference);
    assert!(named(Severity::Error).is_empty(), "all others");
    let known: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert!([&fatal, &form, &difference].into_iter().flatten().all(|name| known.contains(name)));
    for rule in Rule::ALL {
        let expected = match rule.name() {
            name if fatal.contains(name) => Severity::Fatal,
            name if form.contains(name) => Severity::Form,
            name if difference.contains(name) => Severity::Difference,
            _ => Severity::Error,
        };
        assert_eq!(Severity::of(*rule), expected, "{}", rule.name());
    }
}

/// The severity of the only finding, which is of that rule.
fn only(image: &[u8], rule: Rule) -> Severity {
    let report = report(image);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.rule, rule);
    finding.severity
}

#[test]
fn padding_of_a_pack_is_worse_where_a_reader_looks_at_it() {
    let mut draft = Draft::sample();
    draft.packs[0].reserved[0] = 1.into();
    assert_eq!(only(&draft.image(), Rule::PackPadding), Severity::Error);
    let mut draft = Draft::sample();
    let len = draft.pack.len().next_multiple_of(4096) - draft.pack.len();
    draft.pack_padding = Some([vec![0; len - 1], vec![1]].concat());
    assert_eq!(only(&draft.image(), Rule::PackPadding), Severity::Form);
    // The tree region begins a block later, with nothing but zeros before it.
    draft.pack_padding = Some(vec![0; len + 4096]);
    assert_eq!(only(&draft.image(), Rule::PackPadding), Severity::Form);
}

#[test]
fn a_file_that_is_too_short_is_fatal_where_metadata_is_missing() {
    let mut image = Draft::sample().image();
    let metadata_end = image.len();
    common::attach(&mut image, b"signature");
    let of = |len: usize| {
        let report = report(&image[..len]);
        let finding = report.findings.iter().find(|finding| finding.rule == Rule::FileLength);
        finding.expect("a finding").severity
    };
    assert_eq!(of(image.len() - 1), Severity::Error);
    assert_eq!(of(metadata_end), Severity::Error);
    assert_eq!(of(metadata_end - 1), Severity::Fatal);
    assert_eq!(of(100), Severity::Fatal);
}

#[test]
fn a_wrong_digest_of_the_prefix_hides_no_other_rule() {
    let mut image = Draft::sample().image();
    superblock(&mut image, |sb| sb.incompat = 1.into());
    image[0x200] ^= 1;
    let found: Vec<(Rule, Severity)> =
        report(&image).findings.iter().map(|finding| (finding.rule, finding.severity)).collect();
    assert_eq!(found, [(Rule::Incompat, Severity::Fatal), (Rule::PrefixDigest, Severity::Error)]);
}
