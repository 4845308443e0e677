// SPDX-License-Identifier: GPL-2.0-or-later

//! The report of a check, as text for people and as JSON for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tesserafs_format::superblock::Profile;
use tesserafs_format::{Digest, Rule, SuperBlock};

use crate::canonical::Difference;
use crate::exit_code::ExitCode;
use tesserafs_image::error::Error;
use tesserafs_image::finding::{spares_the_tree, Finding, Findings, Value};
use tesserafs_image::losses::{Loss, Losses};
use tesserafs_image::profile::ProfileReport;
use tesserafs_image::text;

/// A part of the image; pack and signature without the zeros behind them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Region {
    /// `superblock`, `pack`, `tree`, `map`, `hash` or `signature`.
    pub name: &'static str,
    /// Its first byte.
    pub offset: u64,
    /// Its bytes; 0 for the signature of an unsigned image.
    pub length: u64,
}

/// Records in the tables, as the superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Inodes.
    pub inodes: u64,
    /// Directory entries.
    pub dirents: u64,
    /// Xattr sets.
    pub xattr_sets: u64,
    /// Distinct contents.
    pub contents: u64,
    /// Packs.
    pub packs: u64,
    /// Chunks.
    pub chunks: u64,
    /// Extents.
    pub extents: u64,
    /// Annotations.
    pub annotations: u64,
}

impl Counts {
    pub(crate) fn of(sb: &SuperBlock) -> Self {
        let layout = &sb.layout;
        Self {
            inodes: layout.inodes.records(),
            dirents: layout.dirents.records(),
            xattr_sets: layout.xattr_sets.records(),
            contents: layout.content_digests.records(),
            packs: layout.packs.records(),
            chunks: layout.chunks.records(),
            extents: layout.extents.records(),
            annotations: layout.annotations.records(),
        }
    }
}

/// The report of a check.
#[derive(Debug)]
pub struct Report {
    /// The image.
    pub path: PathBuf,
    /// The image ID, if there is a superblock.
    pub image_id: Option<Digest>,
    /// The tree ID that the superblock says.
    pub tree_id: Option<Digest>,
    /// Whether there is a signature.
    pub signed: bool,
    /// Whether a trusted key made it; `None` where no signer was named.
    pub signature_is_trusted: Option<bool>,
    /// How the image was cut and compressed.
    pub profile: Option<Profile>,
    /// Records in the tables.
    pub counts: Option<Counts>,
    /// Bytes of all distinct contents.
    pub file_bytes: u64,
    /// Where the parts of the image are.
    pub regions: Vec<Region>,
    /// Broken rules, at most [`KEPT_PER_RULE`](tesserafs_image::finding::KEPT_PER_RULE) of each.
    pub findings: Vec<Finding>,
    /// How often each rule is broken.
    pub totals: BTreeMap<Rule, u64>,
    /// Whether whoever asked for the check wants to know whether the image is canonical.
    pub is_canonical_asked: bool,
    /// Whether the image is what a builder makes; `None` where it was not compared.
    pub canonical: Option<bool>,
    /// Where it is not what a builder makes.
    pub difference: Option<Difference>,
    /// The losses of an extraction or an archive; `None` where there was neither.
    pub losses: Option<Losses>,
    /// Why the check ended early.
    pub error: Option<Error>,
}

impl Report {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            image_id: None,
            tree_id: None,
            signed: false,
            signature_is_trusted: None,
            profile: None,
            counts: None,
            file_bytes: 0,
            regions: Vec::new(),
            findings: Vec::new(),
            totals: BTreeMap::new(),
            is_canonical_asked: false,
            canonical: None,
            difference: None,
            losses: None,
            error: None,
        }
    }

    pub(crate) fn finish(mut self, findings: Findings, error: Option<Error>) -> Self {
        (self.findings, self.totals) = findings.into_sorted();
        self.error = error;
        self
    }

    /// Whether everything was checked, and no rule of the format is broken.
    pub fn is_clean(&self) -> bool {
        self.errors() == 0 && self.error.is_none()
    }

    /// How often rules of the format are broken: a difference from what a builder makes breaks none.
    fn errors(&self) -> u64 {
        self.totals.iter().filter(|(rule, _)| **rule != Rule::Canonical).map(|(_, total)| total).sum()
    }

    /// Whether everything that was wanted of the tree was done, and of all of it, whatever else is wrong with the image.
    pub(crate) fn is_served(&self) -> bool {
        self.error.is_none() && self.totals.keys().all(|rule| spares_the_tree(*rule))
    }

    /// The exit code of fsck(8).
    pub fn exit_code(&self) -> ExitCode {
        let errors = if self.errors() == 0 { ExitCode::CLEAN } else { ExitCode::ERRORS };
        let canonical = if self.canonical == Some(false) { ExitCode::NOT_CANONICAL } else { ExitCode::CLEAN };
        errors
            | canonical
            | match self.error {
                None => ExitCode::CLEAN,
                Some(Error::Cancelled) => ExitCode::CANCELLED,
                Some(_) => ExitCode::OPERATIONAL,
            }
    }

    /// Writes a line for each finding, and, unless `quiet`, one that sums up.
    pub fn write_text(&self, out: &mut dyn Write, quiet: bool) -> io::Result<()> {
        let image = text::path(&self.path);
        for finding in &self.findings {
            writeln!(out, "{image}: {finding}")?;
        }
        for (rule, total) in &self.totals {
            let kept = self.findings.iter().filter(|finding| finding.rule == *rule).count() as u64;
            if *total > kept {
                writeln!(out, "{image}: {}: {} more like these", rule.name(), total - kept)?;
            }
        }
        if quiet || self.error.is_some() {
            return Ok(());
        }
        match (&self.counts, self.errors()) {
            (Some(counts), 0) => {
                let signature = match (self.signed, self.signature_is_trusted) {
                    (_, Some(true)) => "signed by a trusted key",
                    (true, _) => "signed, signer not checked",
                    (false, _) => "not signed",
                };
                let of =
                    |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
                let inodes = of(counts.inodes, "inode");
                let (contents, chunks) = (of(counts.contents, "content"), of(counts.chunks, "chunk"));
                let canonical = match self.canonical {
                    None => "",
                    Some(true) => ", canonical",
                    Some(false) => ", not canonical",
                };
                let profile = self.profile.map(ProfileReport::from).map(|profile| profile.named(", "));
                let profile = profile.unwrap_or_default();
                writeln!(
                    out,
                    "{image}: clean, {inodes}, {contents}, {chunks}{profile}, {signature}{canonical}"
                )
            }
            (_, errors) => {
                let s = if errors == 1 { "" } else { "s" };
                let compared =
                    if self.is_canonical_asked { "; not compared with what a builder makes" } else { "" };
                writeln!(out, "{image}: {errors} error{s}, not repaired{compared}")
            }
        }
    }

    /// Writes the report as one JSON object; `code` is what the program ends with.
    pub fn write_json(&self, code: ExitCode, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, &Json::new(self, code))?;
        writeln!(out)
    }
}

/// Version of the machine report: it changes when a field changes its meaning or goes, not when one comes.
const VERSION: u32 = 2;

/// The machine report; `fsck-tool/JSON.md` says what the fields mean.
#[derive(Debug, Serialize)]
struct Json<'a> {
    version: u32,
    image: String,
    clean: bool,
    exit_code: u8,
    image_id: Option<String>,
    tree_id: Option<String>,
    signed: bool,
    signature_is_trusted: Option<bool>,
    profile: Option<ProfileReport>,
    counts: Option<Counts>,
    file_bytes: u64,
    regions: &'a [Region],
    findings: Vec<JsonFinding>,
    totals: BTreeMap<&'static str, u64>,
    canonical: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_restored: Option<JsonLosses>,
    error: Option<String>,
}

/// The losses of an extraction, in the machine report.
#[derive(Debug, Serialize)]
struct JsonLosses {
    counts: BTreeMap<&'static str, u64>,
    examples: Vec<JsonLoss>,
}

#[derive(Debug, Serialize)]
struct JsonLoss {
    kind: &'static str,
    what: String,
    path: String,
    why: String,
    by_privilege: bool,
}

impl From<&Losses> for JsonLosses {
    fn from(losses: &Losses) -> Self {
        let mut counts = BTreeMap::new();
        for ((kind, _), count) in losses.counts() {
            *counts.entry(kind.name()).or_default() += count;
        }
        let loss = |loss: Loss| JsonLoss {
            kind: loss.kind.name(),
            what: loss.what,
            path: loss.path,
            why: loss.why,
            by_privilege: loss.by_privilege,
        };
        Self { counts, examples: losses.kept().into_iter().map(loss).collect() }
    }
}

/// A finding in the machine report.
#[derive(Debug, Serialize)]
struct JsonFinding {
    rule: &'static str,
    severity: &'static str,
    place: String,
    found: JsonValue,
    expected: JsonValue,
    text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum JsonValue {
    Number(u64),
    Text(String),
}

impl From<&Value> for JsonValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Number(value) => JsonValue::Number(*value),
            other => JsonValue::Text(other.to_string()),
        }
    }
}

impl<'a> Json<'a> {
    fn new(report: &'a Report, code: ExitCode) -> Self {
        let finding = |finding: &Finding| JsonFinding {
            rule: finding.rule.name(),
            severity: finding.severity.name(),
            place: finding.place.to_string(),
            found: (&finding.found).into(),
            expected: (&finding.expected).into(),
            text: finding.rule.text(),
            detail: finding.detail.clone(),
            path: finding.path.as_deref().map(text::escape),
        };
        Json {
            version: VERSION,
            image: text::path(&report.path),
            clean: report.is_clean(),
            exit_code: code.value(),
            image_id: report.image_id.map(id),
            tree_id: report.tree_id.map(id),
            signed: report.signed,
            signature_is_trusted: report.signature_is_trusted,
            profile: report.profile.map(ProfileReport::from),
            counts: report.counts,
            file_bytes: report.file_bytes,
            regions: &report.regions,
            findings: report.findings.iter().map(finding).collect(),
            totals: report.totals.iter().map(|(rule, total)| (rule.name(), *total)).collect(),
            canonical: report.canonical,
            difference: report.difference,
            not_restored: report.losses.as_ref().map(JsonLosses::from),
            error: report.error.as_ref().map(chain),
        }
    }
}

/// An image or tree ID as `FORMAT.md` writes it, and as the mount option `digest=` takes it.
fn id(digest: Digest) -> String {
    format!("sha256:{digest}")
}

/// An error with its causes, on one line.
pub fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
