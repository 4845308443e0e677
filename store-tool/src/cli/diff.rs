// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs diff`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::Args;
use tesserafs_image::diff::Aspect;

use crate::diff::Request;

const DIFF_HELP: &str = "\
Examples:
  tesserafs diff monday.tess tuesday.tess
  tesserafs diff --ignore time --path /usr/lib monday.tess tuesday.tess
  tesserafs diff --stat monday.tess tuesday.tess     how many, and what a host with monday's lacks of tuesday's
  tesserafs diff --json monday.tess tuesday.tess | jq -r 'select(.what | index(\"mode\")) | .path'

A line begins with A for a file that was added, D for one that was removed, M for one that changed, R for one that
was renamed: it has the bytes of one that is gone. Bytes are compared by their digests, which the metadata holds;
packs need not be there. Of an image from elsewhere fsck.tesserafs proves these digests first. Hard links are compared name by name.

Exit status: 0 no difference; 1 differences; 2 trouble, and standard error says what.";

/// Says what is different in a second image, by the metadata alone
#[derive(Args, Debug)]
#[command(after_help = DIFF_HELP)]
pub(super) struct DiffArgs {
    /// The first image
    a: PathBuf,

    /// The second image
    b: PathBuf,

    /// Only what is at this path of the images, or below it
    #[arg(long, value_name = "PATH")]
    path: Option<OsString>,

    /// No difference: type, bytes, target, mode, owner, time, xattrs; several with commas between
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = aspect)]
    ignore: Vec<Aspect>,

    /// How many differences, and which stored bytes B needs that A has not
    #[arg(long)]
    stat: bool,

    /// A JSON object a line
    #[arg(long)]
    json: bool,

    /// Print nothing; the exit status tells
    #[arg(long, short)]
    quiet: bool,
}

impl DiffArgs {
    pub(super) fn into_request(self) -> Request {
        let Self { a, b, path, ignore: ignored, stat, json, quiet } = self;
        Request { a, b, path: path.map(OsString::into_vec), ignored, stat, json, quiet }
    }
}

fn aspect(text: &str) -> Result<Aspect, String> {
    let aspect = Aspect::ALL.into_iter().find(|aspect| aspect.name() == text);
    aspect.ok_or_else(|| {
        let names = Aspect::ALL.map(Aspect::name);
        format!("not one of {}", names.join(", "))
    })
}
