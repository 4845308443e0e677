// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs pack` and `tesserafs unpack`: the other form of an image.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use mkfs_tesserafs::convert::{convert, Conversion, Form};
use mkfs_tesserafs::output;
use mkfs_tesserafs::packs::SharedForm;
use mkfs_tesserafs::progress::{Bar, Progress, Silent};

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
    common: Common,
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
    common: Common,
}

/// What both take.
#[derive(Args, Debug)]
struct Common {
    /// Replace an existing NEW
    #[arg(long, short)]
    force: bool,

    /// Report as JSON
    #[arg(long)]
    json: bool,

    /// No report, no progress
    #[arg(long, short)]
    quiet: bool,
}

impl PackArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { new, image, packdir, parent, rebase, common } = self;
        let form = Form::Shared(SharedForm { dir: packdir.clone(), parents: parent, rebase });
        common.run(&Conversion { output: new, image, pack_dir: Some(packdir), form, force: common.force })
    }
}

impl UnpackArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { new, image, packdir, common } = self;
        common.run(&Conversion {
            output: new,
            image,
            pack_dir: packdir,
            form: Form::OneFile,
            force: common.force,
        })
    }
}

impl Common {
    fn run(&self, conversion: &Conversion) -> Result<(), String> {
        output::remove_on_signal().map_err(|error| format!("cannot wait for signals: {error}"))?;
        let progress: Box<dyn Progress> =
            if self.quiet || !io::stderr().is_terminal() { Box::new(Silent) } else { Box::new(Bar::new()) };
        let report = convert(conversion, &*progress);
        drop(progress);
        let report = report.map_err(|error| chain(&error))?;
        let text = match (self.json, self.quiet) {
            (true, _) => report.to_json(),
            (false, false) => report.to_text(),
            (false, true) => return Ok(()),
        };
        // Standard output may have the image.
        let said = if output::is_stdout(&conversion.output) {
            io::stderr().write_all(text.as_bytes())
        } else {
            io::stdout().write_all(text.as_bytes())
        };
        match said {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(format!("cannot report: {error}")),
            _ => Ok(()),
        }
    }
}
