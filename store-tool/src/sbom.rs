// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs sbom`: the bill of materials of an image, and its files against the lists of its packages.

mod json;
mod lines;

use std::ffi::OsStr;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use mkfs_tesserafs::source::exclude::Exclude;
use tesserafs_image::sbom::check::{check, Ignore, Report};
use tesserafs_image::sbom::{document, inventory, stored, ImageTree};
use tesserafs_image::{superblock, text, Broken, Cancel, Source, VerifiedMetadata};

use crate::{chain, say};

/// An image, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The image.
    pub image: PathBuf,
    /// Where its packs are; beside it unless this says otherwise.
    pub pack_dir: Option<PathBuf>,
    /// The check that is wanted; nothing to print the document.
    pub check: Option<Check>,
}

/// How files are checked.
#[derive(Clone, Debug, Default)]
pub struct Check {
    /// Patterns of what is no difference.
    pub ignore: Vec<String>,
    /// Files that packages have made are named.
    pub verbose: bool,
    /// For machines.
    pub json: bool,
    /// Nothing is printed.
    pub quiet: bool,
}

/// Prints the document, or checks the files; whether they differ from the lists.
pub fn run(request: &Request) -> Result<bool, String> {
    let source = Source::open(&request.image).map_err(|error| chain(&error))?;
    let sb = superblock::read(&source).map_err(|error| match error {
        Broken::Rule(error) => format!("{}: {error}", text::path(source.path())),
        Broken::Stop(error) => chain(&error),
    })?;
    let metadata = VerifiedMetadata::new(&source, &sb);
    let beside = request.image.parent().unwrap_or(Path::new(""));
    let pack_dir = request.pack_dir.as_deref().unwrap_or(beside);
    match &request.check {
        None => print(&metadata, pack_dir).map(|()| false),
        Some(wanted) => checked(wanted, &metadata, pack_dir),
    }
}

fn print(metadata: &VerifiedMetadata<'_>, pack_dir: &Path) -> Result<(), String> {
    let stored = stored(metadata).map_err(|error| chain(&error))?;
    let json = match stored {
        Some(json) => json,
        None => made(metadata, pack_dir)?,
    };
    let mut out = io::stdout().lock();
    let written = if out.is_terminal() {
        // A document by mkfs has nothing that a terminal obeys; other programs make images, too.
        let shown = String::from_utf8_lossy(&json);
        let plain = |c| if c == '\n' || text::is_printable(c) { c } else { '?' };
        out.write_all(shown.chars().map(plain).collect::<String>().as_bytes())
    } else {
        out.write_all(&json)
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the bill of materials: {error}"))
        }
        _ => Ok(()),
    }
}

/// The document of the tree, for an image that has none.
fn made(metadata: &VerifiedMetadata<'_>, pack_dir: &Path) -> Result<Vec<u8>, String> {
    let image = text::path(metadata.source().path());
    say(&format!(
        "{image} has no bill of materials: this one is made of its tree, and is not signed with it"
    ));
    let of_image = |error: tesserafs_image::Error| named(metadata, &error);
    let tree = ImageTree::open(metadata, pack_dir).map_err(of_image)?;
    let inventory = inventory(tree.names(), &tree).map_err(of_image)?;
    inventory.notes.iter().for_each(|note| say(&format!("{image}: {note}")));
    document(&inventory).map(|document| document.json).map_err(of_image)
}

/// An error of something in the image, with the name of the image.
fn named(metadata: &VerifiedMetadata<'_>, error: &tesserafs_image::Error) -> String {
    let (image, said) = (text::path(metadata.source().path()), chain(error));
    if said.contains(&image) {
        said
    } else {
        format!("{image}: {said}")
    }
}

fn checked(wanted: &Check, metadata: &VerifiedMetadata<'_>, pack_dir: &Path) -> Result<bool, String> {
    let exclude = Exclude::new(&wanted.ignore);
    let exclude =
        exclude.map_err(|error| format!("--ignore: {}", text::escape(error.to_string().as_bytes())))?;
    let is_ignored = |path: &[u8]| exclude.is_match(Path::new(OsStr::from_bytes(path)));
    let ignored: Option<Ignore<'_>> = if exclude.is_empty() { None } else { Some(&is_ignored) };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let report = ImageTree::open(metadata, pack_dir)
        .and_then(|tree| check(&tree, ignored, threads, &Cancel::default()))
        .map_err(|error| named(metadata, &error))?;
    let image = text::path(metadata.source().path());
    report.notes.iter().for_each(|note| say(&format!("{image}: {note}")));
    for pattern in exclude.unmatched() {
        say(&format!("--ignore '{}' matches nothing", text::escape(pattern.as_bytes())));
    }
    if !wanted.quiet {
        tell(wanted, &report)?;
    }
    Ok(report.differs())
}

fn tell(wanted: &Check, report: &Report) -> Result<(), String> {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if wanted.json {
        json::write(report, &mut out)
    } else {
        lines::write(report, wanted.verbose, &mut out)
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write the differences: {error}"))
        }
        // A closed pipe: the reader has seen enough.
        _ => Ok(()),
    }
}
