// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs sbom`.

use std::path::PathBuf;

use clap::Args;

use crate::sbom::{Check, Request};

const SBOM_HELP: &str = "\
Examples:
  tesserafs sbom root.tess >root.cdx.json
  tesserafs sbom --check root.tess
  tesserafs sbom --check --ignore /etc --ignore '*.md' root.tess
  tesserafs sbom --check --json root.tess | jq -r '.changed[].path'

The document is the one that mkfs.tesserafs --sbom has put into the image: CycloneDX, hashed and signed with the rest.
Of an image without one it is made of the tree, from the databases of dpkg, apk and rpm (sqlite) and the metadata of
Python, Node and Rust packages; of the same tree it is the same.

--check reads the lists of files that dpkg, apk, rpm and Python keep, and tells of
  unowned   a file or symlink that belongs to no package
  changed   a file whose bytes, target or type are not those that the list of its package says
  missing   files of a package that are not there
Bytes are decoded and hashed. Lists without digests, as those of Node packages, tell whose a file is and no more.
Files that packages make once they are installed, such as caches, logs, databases of package managers, alternatives and
compiled Python, are counted apart; --verbose names them. They are no differences.

Exit status: 0 done, and with --check no difference; 1 differences; 2 trouble, and standard error says what.";

/// Prints the bill of materials of an image, or checks its files against the lists of its packages
#[derive(Args, Debug)]
#[command(after_help = SBOM_HELP)]
pub(super) struct SbomArgs {
    /// The image
    image: PathBuf,

    /// Where packs beside the embedded one are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// Compare the files with the lists of the packages
    #[arg(long)]
    check: bool,

    /// No difference is what matches, and everything below it: a name at any depth, or, with a slash, a path from the root;
    /// repeatable
    #[arg(long, value_name = "GLOB", requires = "check")]
    ignore: Vec<String>,

    /// Name the files that packages have made, too
    #[arg(long, short, requires = "check")]
    verbose: bool,

    /// One JSON object
    #[arg(long, requires = "check")]
    json: bool,

    /// Print nothing; the exit status tells
    #[arg(long, short, requires = "check")]
    quiet: bool,
}

impl SbomArgs {
    pub(super) fn into_request(self) -> Request {
        let Self { image, packdir, check, ignore, verbose, json, quiet } = self;
        Request { image, pack_dir: packdir, check: check.then_some(Check { ignore, verbose, json, quiet }) }
    }
}
