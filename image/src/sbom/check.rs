// SPDX-License-Identifier: GPL-2.0-or-later

//! The files of an image against the lists of its packages: files of no package, files with other bytes, files that are missing.
//!
//! - `owners` reads the lists, and finds what they name in the tree;
//! - `digests` hashes what has to be compared, each content once, on all processors;
//! - `runtime` knows what packages make for themselves once they are installed.

mod digests;
mod owners;
mod runtime;

use std::collections::{BTreeMap, BTreeSet};

use self::owners::{Expected, Owners};
use super::package::Bytes;
use super::{ImageTree, Kind, Names, NodeIndex};
use crate::error::Error;
use crate::parallel::Cancel;

/// How the files of an image are different from the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packages whose lists were read.
    pub packages: u64,
    /// Regular files and symlinks.
    pub files: u64,
    /// Files that were compared with a digest or a target.
    pub compared: u64,
    /// Files of packages whose databases do not say which bytes they have.
    pub without_digest: u64,
    /// Files, and listed paths, that were ignored because the caller asked for it.
    pub ignored: u64,
    /// Files that belong to no package.
    pub unowned: Vec<Vec<u8>>,
    /// Files that no list has, at places where packages make files when they are installed or run.
    pub runtime: Vec<Vec<u8>>,
    /// Files with other bytes than the list says.
    pub changed: Vec<Changed>,
    /// Listed files that are not there, by package.
    pub missing: BTreeMap<String, BTreeSet<Vec<u8>>>,
    /// Files and databases that could not be read, in sentences.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether there is a difference.
    pub fn differs(&self) -> bool {
        !(self.unowned.is_empty() && self.changed.is_empty() && self.missing.is_empty())
    }
}

/// A file with other bytes than the list of its package says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// Its path.
    pub path: Vec<u8>,
    /// The package.
    pub package: String,
    /// The administrator may change it.
    pub is_config: bool,
    /// The difference.
    pub what: Difference,
}

/// How a file differs from its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The bytes.
    Bytes,
    /// The target of a symlink.
    Target,
    /// It is no regular file, or no symlink.
    Type,
}

impl Difference {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Difference::Bytes => "bytes",
            Difference::Target => "target",
            Difference::Type => "type",
        }
    }
}

/// Whether a path is no difference.
pub type Ignore<'a> = &'a dyn Fn(&[u8]) -> bool;

/// Compares the files of an image with the lists of its packages, on `threads` threads. A path that is `ignored`, or lies below one, is
/// no difference.
pub fn check(
    tree: &ImageTree<'_>,
    ignored: Option<Ignore<'_>>,
    threads: usize,
    cancel: &Cancel,
) -> Result<Report, Error> {
    let names = tree.names();
    let ignored = Ignored::new(names, ignored);
    let mut owners = owners::read(tree, &ignored)?;
    let mut report = Report { notes: std::mem::take(&mut owners.notes), ..Report::default() };
    report.packages = owners.packages.len() as u64;
    report.ignored = owners.ignored;
    let digests = digests::compute(tree, &owners.expected, threads, cancel)?;
    let compared = compare(names, &owners, &digests, &mut report);
    for (package, paths) in &owners.missing {
        report
            .missing
            .entry(owners.packages[*package as usize].clone())
            .or_default()
            .extend(paths.iter().cloned());
    }
    count(names, &owners, &compared, &ignored, &mut report);
    Ok(report)
}

/// Compares the files that a database has a digest or a target of: whether it does, by name.
fn compare(names: &Names, owners: &Owners, digests: &digests::Digests, report: &mut Report) -> Vec<bool> {
    let mut compared = vec![false; names.count()];
    for Expected { node, bytes, package, is_config } in &owners.expected {
        compared[node.index()] = true;
        let what = match (names.kind(*node), bytes) {
            (_, Bytes::Unknown) => None,
            (Kind::File(_), Bytes::Digest(algorithm, expected)) => {
                let found = digests.get(names.ino(*node), *algorithm);
                (found != Some(&**expected)).then_some(Difference::Bytes)
            }
            (Kind::Symlink, Bytes::Digest(algorithm, expected)) => {
                let found = digests::of(*algorithm, names.target(*node));
                (found != *expected).then_some(Difference::Target)
            }
            (Kind::Symlink, Bytes::Target(target)) => {
                (*names.target(*node) != **target).then_some(Difference::Target)
            }
            _ => Some(Difference::Type),
        };
        if let Some(what) = what {
            let package = owners.packages[*package as usize].clone();
            report.changed.push(Changed { path: names.path(*node), package, is_config: *is_config, what });
        }
    }
    report.changed.sort();
    report.changed.dedup();
    compared
}

/// Counts all files, and tells those that no list has.
fn count(names: &Names, owners: &Owners, compared: &[bool], ignored: &Ignored<'_>, report: &mut Report) {
    for node in names.all() {
        let is_file = matches!(names.kind(node), Kind::File(_));
        if !is_file && names.kind(node) != Kind::Symlink {
            continue;
        }
        report.files += 1;
        let index = node.index();
        if ignored.has(node) {
            report.ignored += 1;
        } else if compared[index] {
            report.compared += 1;
        } else if owners.owned[index] {
            report.without_digest += u64::from(is_file);
        } else {
            let path = names.path(node);
            let is_made = owners.made[index] || runtime::is_made(&path);
            if is_made { &mut report.runtime } else { &mut report.unowned }.push(path);
        }
    }
    report.unowned.sort_unstable();
    report.runtime.sort_unstable();
}

/// The paths that the caller does not ask about.
struct Ignored<'a> {
    by_path: Option<Ignore<'a>>,
    /// By name; empty where nothing is ignored.
    nodes: Vec<bool>,
}

impl<'a> Ignored<'a> {
    fn new(names: &Names, by_path: Option<Ignore<'a>>) -> Self {
        let mut nodes = Vec::new();
        if let Some(is_ignored) = by_path {
            nodes.push(false);
            for node in names.all() {
                let above = nodes[names.parent(node).index()];
                // What is deeper has no path that a pattern could be about.
                nodes.push(above || names.has_path(node) && is_ignored(&names.path(node)));
            }
        }
        Self { by_path, nodes }
    }

    fn has(&self, node: NodeIndex) -> bool {
        self.nodes.get(node.index()).copied().unwrap_or(false)
    }

    /// Whether a path that is not there is ignored.
    fn has_path(&self, path: &[u8]) -> bool {
        let Some(is_ignored) = self.by_path else { return false };
        let ends =
            path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        ends.filter(|end| *end > 0).any(|end| is_ignored(&path[..end]))
    }
}
