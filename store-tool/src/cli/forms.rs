// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs pack` and `tesserafs unpack`: the other form of an image.

use std::path::PathBuf;

use clap::Args;
use mkfs_tesserafs::convert::{convert, Conversion, Form};
use mkfs_tesserafs::packs::SharedForm;

use super::made::{bar, remove_on_signal, Made};
use crate::chain;

const PACK_HELP: &str = "\
Examples:
  tesserafs pack --packdir packs/ shared.tess root.tess
  tesserafs pack --packdir packs/ --parent monday.tess tuesday.tess root.tess
                                  chunks that monday's image has stay in its packs

It is what mkfs.tesserafs --packdir makes of the same tree with the same parents, byte for byte. A signature is
for one form: sign the new one (mkfs.tesserafs --emit-signed-data and --attach-signature).

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Makes an image whose chunks lie in packs, files that images share; NEW is little more than metadata then
#[derive(Args, Debug)]
#[command(after_help = PACK_HELP)]
pub(super) struct PackArgs {
    /// The image to make
    new: PathBuf,

    /// The image that there is, in one file or with packs
    image: PathBuf,

    /// The directory for packs: those of parents are there, and of IMAGE if it has any, and the new one will be
    #[arg(long, value_name = "DIR")]
    packdir: PathBuf,

    /// Use the chunks of this image, whose packs are in DIR; repeatable, in order
    #[arg(long, value_name = "IMAGE")]
    parent: Vec<PathBuf>,

    /// Put everything into one new pack, what parents have, too
    #[arg(long)]
    rebase: bool,

    #[command(flatten)]
    made: Made,
}

const UNPACK_HELP: &str = "\
Examples:
  tesserafs unpack root.tess shared.tess                   for a disk, to boot from, or to carry away
  tesserafs unpack --packdir packs/ root.tess shared.tess

It is what mkfs.tesserafs makes of the same tree, byte for byte, and so its image ID. A signature is for one form:
sign the new one (mkfs.tesserafs --emit-signed-data and --attach-signature).

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Makes an image in one file of one whose chunks lie in packs; nothing is compressed again
#[derive(Args, Debug)]
#[command(after_help = UNPACK_HELP)]
pub(super) struct UnpackArgs {
    /// The image to make; - is standard output
    new: PathBuf,

    /// The image that there is
    image: PathBuf,

    /// Where its packs are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    #[command(flatten)]
    made: Made,
}

impl PackArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { new, image, packdir, parent, rebase, made } = self;
        let form = Form::Shared(SharedForm { dir: packdir.clone(), parents: parent, rebase });
        run(&Conversion { output: new, image, pack_dir: Some(packdir), form, force: made.force }, &made)
    }
}

impl UnpackArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { new, image, packdir, made } = self;
        run(
            &Conversion { output: new, image, pack_dir: packdir, form: Form::OneFile, force: made.force },
            &made,
        )
    }
}

/// Converts an image, with a bar on a terminal.
fn run(conversion: &Conversion, made: &Made) -> Result<(), String> {
    remove_on_signal()?;
    let report = convert(conversion, &*bar(made)).map_err(|error| chain(&error))?;
    made.report(&conversion.output, || report.to_text(), || report.to_json())
}
