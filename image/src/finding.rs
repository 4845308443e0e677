// SPDX-License-Identifier: GPL-2.0-or-later

//! Findings: which rule is broken, where, what stands there, and which file is affected.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tesserafs_format::{Digest, FormatError, Place, Rule};

use crate::text;

/// Findings of one rule that are kept; the rest is counted. So a hostile image cannot fill the memory with them.
pub const KEPT_PER_RULE: usize = 64;

/// How bad a broken rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing behind it could be checked.
    Fatal,
    /// The bytes that a reader wants are refused, or not authentic.
    Error,
    /// Reads are right, but no builder makes such an image.
    Form,
    /// No rule of the format is broken, but a builder makes another image of the same tree.
    Difference,
}

impl Severity {
    /// The severity of a rule, where a finding does not say another.
    pub const fn of(rule: Rule) -> Self {
        match rule {
            Rule::Magic
            | Rule::Version
            | Rule::Incompat
            | Rule::SuperBlockPadding
            | Rule::Count
            | Rule::RegionOffset
            | Rule::ImageBytes
            | Rule::ProfileRange
            | Rule::SignatureBytes => Severity::Fatal,
            Rule::TablePadding
            | Rule::HashPadding
            | Rule::ChunkFrame
            | Rule::TreeOrder
            | Rule::TreeEntries
            | Rule::TreeNames
            | Rule::TreeTargets
            | Rule::TreeXattrs
            | Rule::TreeAttributes
            | Rule::TreeContents
            | Rule::ContentHoles
            | Rule::MapExtents
            | Rule::MapChunks
            | Rule::MapPacks
            | Rule::RawDigest
            | Rule::SignaturePadding => Severity::Form,
            Rule::Canonical => Severity::Difference,
            _ => Severity::Error,
        }
    }

    /// The word in a report.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Fatal => "fatal",
            Severity::Error => "error",
            Severity::Form => "form",
            Severity::Difference => "difference",
        }
    }
}

/// Whether an image that breaks this rule only can be extracted, less what breaks it.
pub fn spares_the_tree(rule: Rule) -> bool {
    rule == Rule::XattrSettable
}

/// A value that stands in an image, or should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// A digest.
    Digest(Digest),
    /// A few words.
    Text(String),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Value::Number(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Value::Number(value.into())
    }
}

impl From<Digest> for Value {
    fn from(value: Digest) -> Self {
        Value::Digest(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(value) => write!(f, "{value}"),
            Value::Digest(value) => write!(f, "{value}"),
            Value::Text(value) => f.write_str(value),
        }
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule; its name is the stable identifier.
    pub rule: Rule,
    /// How bad it is.
    pub severity: Severity,
    /// Where it is broken.
    pub place: Place,
    /// The value that stands there.
    pub found: Value,
    /// The value that should stand there, or the limit.
    pub expected: Value,
    /// Details that the rule's sentence does not have.
    pub detail: Option<String>,
    /// The file affected, the first of them where there are several; from the root, with a leading slash.
    pub path: Option<Vec<u8>>,
}

impl Finding {
    /// A finding without detail and path.
    pub fn new(rule: Rule, place: Place, found: impl Into<Value>, expected: impl Into<Value>) -> Self {
        Self {
            rule,
            severity: Severity::of(rule),
            place,
            found: found.into(),
            expected: expected.into(),
            detail: None,
            path: None,
        }
    }

    /// The same with a detail.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same with another severity.
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }
}

impl From<FormatError> for Finding {
    fn from(error: FormatError) -> Self {
        let value = |value: u64| match error.rule {
            // The first bytes of a digest, and of a file.
            Rule::HashBlock => Value::Text(format!("{value:016x}...")),
            Rule::Magic => Value::Text(text::escape(&value.to_le_bytes())),
            _ => Value::Number(value),
        };
        Finding::new(error.rule, error.place, value(error.found), value(error.expected))
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} @ {}", self.severity.name(), self.rule.name(), self.place)?;
        if let Some(path) = &self.path {
            write!(f, " ({})", text::escape(path))?;
        }
        write!(f, ": found {}, expected {}: {}", self.found, self.expected, self.rule.text())?;
        match &self.detail {
            Some(detail) => write!(f, "; {detail}"),
            None => Ok(()),
        }
    }
}

/// Collects findings from all threads.
#[derive(Debug, Default)]
pub struct Findings {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    kept: Vec<Finding>,
    counts: BTreeMap<Rule, u64>,
}

impl Findings {
    /// Adds a finding, or counts it where its rule has enough.
    pub fn add(&self, finding: impl Into<Finding>) {
        let finding = finding.into();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let count = inner.counts.entry(finding.rule).or_default();
        *count += 1;
        if *count <= KEPT_PER_RULE as u64 {
            inner.kept.push(finding);
        }
    }

    /// Findings so far, those not kept included.
    pub fn count(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).counts.values().sum()
    }

    /// Whether no more findings of a rule are kept.
    pub fn is_full(&self, rule: Rule) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.counts.get(&rule).is_some_and(|count| *count >= KEPT_PER_RULE as u64)
    }

    /// Whether all names and bytes of the tree can be had: nothing is broken but rules about single xattrs, which can be left
    /// out.
    pub fn spare_the_tree(&self) -> bool {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.counts.keys().all(|rule| spares_the_tree(*rule))
    }

    /// Hands `change` the kept findings.
    pub fn with_kept<T>(&self, change: impl FnOnce(&mut [Finding]) -> T) -> T {
        let lock = || self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        // Not under the lock: whatever `change` does may find something itself.
        let mut kept = std::mem::take(&mut lock().kept);
        let changed = change(&mut kept);
        lock().kept.append(&mut kept);
        changed
    }

    /// The kept findings in the order of rules and places, and how many each rule has in all.
    pub fn into_sorted(self) -> (Vec<Finding>, BTreeMap<Rule, u64>) {
        let mut inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.kept.sort_by_key(|finding| (finding.rule, finding.place));
        (inner.kept, inner.counts)
    }
}
