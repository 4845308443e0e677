// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs diff`: the differences of two images, for people and for machines.

mod json;
mod lines;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use tesserafs_format::{FileKind, Ino};
use tesserafs_image::diff::{diff, needs, Aspect, Difference, Differences, Needs};
use tesserafs_image::text::{escape, size};
use tesserafs_image::unchecked::Unchecked;
use tesserafs_image::{superblock, text, Broken, Source, VerifiedMetadata};

use crate::chain;

/// Two images to compare.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first one.
    pub a: PathBuf,
    /// The second one.
    pub b: PathBuf,
    /// Only what is at this path, or below it.
    pub path: Option<Vec<u8>>,
    /// Aspects that are no difference.
    pub ignored: Vec<Aspect>,
    /// A line for each difference, or only how many there are and what the second image needs.
    pub stat: bool,
    /// For machines.
    pub json: bool,
    /// Nothing is printed.
    pub quiet: bool,
}

/// How many differences there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    added: u64,
    removed: u64,
    changed: u64,
    renamed: u64,
}

/// The kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Added,
    Removed,
    Changed,
    Renamed,
}

impl Kind {
    fn of(difference: &Difference) -> Self {
        match (difference.before, difference.after, &difference.from) {
            (None, ..) => Kind::Added,
            (_, None, _) => Kind::Removed,
            (.., Some(_)) => Kind::Renamed,
            _ => Kind::Changed,
        }
    }

    /// The word in the machine report.
    fn name(self) -> &'static str {
        match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Changed => "changed",
            Kind::Renamed => "renamed",
        }
    }
}

/// Compares two images; whether they differ.
pub fn run(request: &Request) -> Result<bool, String> {
    let source = |path| Source::open(path).map_err(|error| chain(&error));
    let (source_a, source_b) = (source(&request.a)?, source(&request.b)?);
    let (sb_a, sb_b) = (superblock_of(&source_a)?, superblock_of(&source_b)?);
    let (metadata_a, metadata_b) =
        (VerifiedMetadata::new(&source_a, &sb_a), VerifiedMetadata::new(&source_b, &sb_b));
    let (a, b) = (Unchecked::new(&metadata_a), Unchecked::new(&metadata_b));
    let differences = diff(&a, &b, &request.ignored).map_err(|error| chain(&error))?;
    let names = names(request.path.as_deref().unwrap_or_default());
    let is_there = |side| has(side, &names).map_err(|error| chain(&error));
    if !is_there(&a)? && !is_there(&b)? {
        return Err(format!("--path {}: neither image has it", escape(&names.join(&b'/'))));
    }
    let differences = within(differences, &names);
    if !request.quiet {
        let mut out = BufWriter::new(io::stdout().lock());
        let printed =
            print(request, &a, &b, &differences, &mut out).and_then(|()| out.flush().map_err(cannot_write));
        match printed {
            // A closed pipe: the reader has seen enough.
            Err(Stop::Closed) | Ok(()) => (),
            Err(Stop::Failed(error)) => return Err(error),
        }
    }
    Ok(!differences.all.is_empty())
}

fn superblock_of(source: &Source) -> Result<tesserafs_format::SuperBlock, String> {
    superblock::read(source).map_err(|error| match error {
        Broken::Rule(error) => format!("{}: {error}", text::path(source.path())),
        Broken::Stop(error) => chain(&error),
    })
}

/// The differences at a path, which one of the images has, and below it.
fn within(mut differences: Differences, names: &[&[u8]]) -> Differences {
    if names.is_empty() {
        return differences;
    }
    let top = names.join(&b'/');
    let mut all = std::mem::take(&mut differences.all);
    all.retain(|difference| {
        let mut paths = [Some(difference.path), difference.from].into_iter().flatten();
        paths.any(|path| is_within(&differences.path(path), &top))
    });
    differences.all = all;
    differences
}

/// Whether a path is `top`, or below it.
fn is_within(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// The names of a path from the root.
fn names(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect()
}

/// Whether an image has a file of that path; no symlink is followed.
fn has(side: &Unchecked<'_>, names: &[&[u8]]) -> Result<bool, tesserafs_image::Error> {
    let mut inode = side.of(side.image.inode(Ino::ROOT))?;
    for name in names {
        let FileKind::Directory(directory) = inode.kind else { return Ok(false) };
        let Some(entry) = side.of(side.image.lookup(&directory, name))? else { return Ok(false) };
        inode = side.of(side.image.inode(entry.ino))?;
    }
    Ok(true)
}

/// Why no more is printed.
enum Stop {
    /// Nobody reads it.
    Closed,
    Failed(String),
}

fn cannot_write(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::Closed,
        _ => Stop::Failed(format!("cannot write the differences: {error}")),
    }
}

impl From<tesserafs_image::Error> for Stop {
    fn from(error: tesserafs_image::Error) -> Self {
        Stop::Failed(chain(&error))
    }
}

fn print(
    request: &Request,
    a: &Unchecked<'_>,
    b: &Unchecked<'_>,
    differences: &Differences,
    out: &mut dyn Write,
) -> Result<(), Stop> {
    if request.stat {
        let counts = counts(&differences.all);
        let needs = needs(a, b)?;
        return if request.json { json::stat(counts, &needs, out) } else { stat(counts, &needs, out) };
    }
    for difference in &differences.all {
        let paths = Paths::of(differences, difference);
        if request.json {
            json::line(a, b, difference, &paths, out)?;
        } else {
            lines::line(a, b, difference, &paths, out)?;
        }
    }
    Ok(())
}

fn counts(differences: &[Difference]) -> Counts {
    let mut counts = Counts::default();
    for difference in differences {
        *match Kind::of(difference) {
            Kind::Added => &mut counts.added,
            Kind::Removed => &mut counts.removed,
            Kind::Changed => &mut counts.changed,
            Kind::Renamed => &mut counts.renamed,
        } += 1;
    }
    counts
}

fn stat(counts: Counts, needs: &Needs, out: &mut dyn Write) -> Result<(), Stop> {
    let Counts { added, removed, changed, renamed } = counts;
    writeln!(out, "{added} added, {removed} removed, {changed} changed, {renamed} renamed")
        .map_err(cannot_write)?;
    let Needs { chunks, chunk_bytes, packs, metadata_bytes } = needs;
    writeln!(
        out,
        "needs {chunks} chunks ({}) that the first image has not, and {} of metadata",
        size(*chunk_bytes),
        size(*metadata_bytes)
    )
    .map_err(cannot_write)?;
    for (digest, bytes) in packs {
        writeln!(out, "needs pack {digest} ({})", size(*bytes)).map_err(cannot_write)?;
    }
    Ok(())
}

/// The paths of a difference, as they are printed.
struct Paths {
    path: String,
    from: Option<String>,
}

impl Paths {
    fn of(differences: &Differences, difference: &Difference) -> Self {
        let text = |path| shown(&differences.path(path));
        Self { path: text(difference.path), from: difference.from.map(text) }
    }
}

/// A path or a name as it is printed.
fn shown(path: &[u8]) -> String {
    escape(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_that_of_a_file_or_of_what_is_below_it() {
        let is_within = |path: &str, top: &str| is_within(path.as_bytes(), top.as_bytes());
        assert!(is_within("usr", "usr") && is_within("usr/lib", "usr") && is_within("usr/lib", "usr/lib"));
        assert!(!is_within("usrx", "usr") && !is_within("usr", "usr/lib") && !is_within("x/usr", "usr"));
        let of = |path: &str| names(path.as_bytes()).len();
        assert_eq!((of("/usr"), of("usr/"), of("./usr/lib"), of("/"), of(".")), (1, 1, 2, 0, 0));
    }
}
