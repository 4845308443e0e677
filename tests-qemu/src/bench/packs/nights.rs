// SPDX-License-Identifier: GPL-2.0
//! Fifty builds of a tree of which a fiftieth of the files is of another version each night: what is uploaded and kept by the rule for packs, and
//! by others that it could be.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tesserafs_format::Digest;

use super::series::{self, PYTHON, VERSIONS};
use super::{new_packs, timed};
use crate::bench::images::LEVEL;
use crate::bench::Bench;
use crate::mutate::parts::Parts;
use crate::run;

/// Builds after the first one.
const NIGHTS: usize = 50;

/// One file of so many changes in a night.
const ONE_OF: u64 = 50;

/// The cost of a rule for packs, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Rule {
    /// Its name.
    pub(in super::super) rule: String,
    /// All packs that were written: what is uploaded, and what a registry keeps.
    pub(in super::super) uploaded: u64,
    /// The packs of the last image: what a new host fetches.
    pub(in super::super) fetched: u64,
    /// Bytes of these that it does not use.
    pub(in super::super) dead: u64,
    /// Packs of an image, at most.
    pub(in super::super) packs: usize,
    /// The pack of the first build.
    pub(in super::super) base: u64,
}

/// The chunks of an image: stored bytes, by the digests of the raw ones.
type Chunks = HashMap<Digest, u64>;

/// A rule that is followed by the chunks of images alone.
#[derive(Default)]
struct Followed {
    /// Which packs there are: the chunks of each.
    packs: Vec<Chunks>,
    /// Those of the image before.
    named: Vec<usize>,
    most: usize,
}

impl Followed {
    /// The next image: `known` says which packs may be referred to, and all other chunks go to a new one.
    fn add(&mut self, chunks: &Chunks, known: &[usize]) {
        let mut used = Vec::new();
        let mut new = chunks.clone();
        for pack in known {
            let before = new.len();
            new.retain(|digest, _| !self.packs[*pack].contains_key(digest));
            if new.len() < before {
                used.push(*pack);
            }
        }
        if !new.is_empty() {
            used.push(self.packs.len());
            self.packs.push(new);
        }
        self.most = self.most.max(used.len());
        self.named = used;
    }

    fn cost(&self, rule: &str, last: &Chunks) -> Rule {
        let bytes = |pack: &Chunks| pack.values().sum::<u64>();
        let fetched: u64 = self.named.iter().map(|pack| bytes(&self.packs[*pack])).sum();
        Rule {
            rule: rule.to_owned(),
            uploaded: self.packs.iter().map(bytes).sum(),
            fetched,
            dead: fetched - bytes(last),
            packs: self.most,
            base: self.packs.first().map_or(0, bytes),
        }
    }
}

/// Builds every night; the costs of the rules, and about the tree.
pub(super) fn measure(bench: &Bench<'_>) -> Result<Option<Vec<Rule>>> {
    let Some(versions) = series::open(bench, PYTHON)? else { return Ok(None) };
    let scratch =
        tempfile::tempdir_in(bench.cache.folder("scratch")?).context("failed to make a scratch folder")?;
    let at = |name: &str| scratch.path().join(name);
    let (tree, packs) = (at("tree"), at("packs"));
    std::fs::create_dir(&packs).context("failed to create a folder")?;
    run::quiet(run::command("cp").arg("-a").arg(versions.folder(1)).arg(&tree))?;
    let files = files(&tree)?;
    let (mut incremental, mut cumulative) = (Followed::default(), Followed::default());
    let mut ours = Rule { rule: "as built".to_owned(), uploaded: 0, fetched: 0, dead: 0, packs: 0, base: 0 };
    let mut last = Chunks::new();
    for night in 0..=NIGHTS {
        if night > 0 {
            change(&tree, &files, night, &versions.folder(1 + night % VERSIONS))?;
        }
        let (image, before) = (at(&format!("{night}.tess")), at(&format!("{}.tess", night.max(1) - 1)));
        let mut mkfs = run::command(&bench.tools.mkfs);
        mkfs.args(["--quiet", "--json", "--level", &LEVEL.to_string(), "--packdir"]).arg(&packs);
        if night > 0 {
            mkfs.arg("--parent").arg(&before);
        }
        let (_, report) = timed(mkfs.arg(&image).arg(&tree))?;
        ours.uploaded += new_packs(&report)?;
        let (chunks, named) = read(&image)?;
        let live: u64 = chunks.values().sum();
        ours.fetched = named.values().sum();
        ours.dead = ours.fetched - live;
        ours.packs = ours.packs.max(named.len());
        ours.base = if night == 0 { ours.fetched } else { ours.base };
        let known = incremental.named.clone();
        incremental.add(&chunks, &known);
        cumulative.add(&chunks, if night > 0 { &[0] } else { &[] });
        last = chunks;
        eprintln!("night {night}: {} packs, {} bytes uploaded so far", named.len(), ours.uploaded);
    }
    let rules = vec![
        ours,
        incremental.cost("never absorbed", &last),
        cumulative.cost("one pack beside the base", &last),
    ];
    Ok(Some(rules))
}

/// The regular files of a tree.
fn files(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(folder) = todo.pop() {
        for entry in tree.join(&folder).read_dir().context("failed to list a tree")? {
            let entry = entry.context("failed to list a tree")?;
            let path = folder.join(entry.file_name());
            match entry.file_type().context("failed to stat a file")? {
                kind if kind.is_dir() => todo.push(path),
                kind if kind.is_file() => files.push(path),
                _ => (),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Gives some files the bytes that they have in another version.
fn change(tree: &Path, files: &[PathBuf], night: usize, other: &Path) -> Result<()> {
    for file in files {
        let mut hasher = DefaultHasher::new();
        (night, file).hash(&mut hasher);
        let from = other.join(file);
        if hasher.finish() % ONE_OF == 0 && from.is_file() {
            std::fs::copy(&from, tree.join(file)).context("failed to copy a file")?;
        }
    }
    Ok(())
}

/// The chunks of an image, and the packs that it names with their bytes.
fn read(image: &Path) -> Result<(Chunks, BTreeMap<Digest, u64>)> {
    let bytes = std::fs::read(image).with_context(|| format!("failed to read {}", image.display()))?;
    let parts = Parts::read(&bytes)?;
    let stored = parts.chunks.iter().map(|chunk| u64::from(chunk.stored_len()));
    let chunks = parts.raw_digests.iter().copied().map(Digest).zip(stored).collect();
    let packs = parts.packs.iter().skip(1);
    Ok((chunks, packs.map(|pack| (Digest(pack.digest), pack.bytes.get())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(numbers: &[u8]) -> Chunks {
        numbers.iter().map(|number| (Digest([*number; 32]), 10)).collect()
    }

    #[test]
    fn rules_are_followed_by_chunks() {
        let (mut incremental, mut cumulative) = (Followed::default(), Followed::default());
        let nights = [chunks(&[1, 2, 3, 4]), chunks(&[1, 2, 3, 5]), chunks(&[1, 2, 5, 6])];
        for (night, chunks) in nights.iter().enumerate() {
            let known = incremental.named.clone();
            incremental.add(chunks, &known);
            cumulative.add(chunks, if night > 0 { &[0] } else { &[] });
        }
        let cost = incremental.cost("", &nights[2]);
        assert_eq!((cost.uploaded, cost.fetched, cost.dead, cost.packs, cost.base), (60, 60, 20, 3, 40));
        let cost = cumulative.cost("", &nights[2]);
        assert_eq!((cost.uploaded, cost.fetched, cost.dead, cost.packs, cost.base), (70, 60, 20, 2, 40));
    }
}
