// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs bundle` and `tesserafs apply`: updates in a file.

use std::path::PathBuf;

use clap::Args;
use mkfs_tesserafs::bundle::{apply, create, ApplyRequest, BundleRequest};

use super::made::{bar, remove_on_signal, Made};
use crate::chain;

const BUNDLE_HELP: &str = "\
Examples:
  tesserafs bundle monday.tess tuesday.tess > update
  tesserafs bundle --packdir packs/ --output update monday.tess tuesday.tess
  tesserafs bundle --portable monday.tess tuesday.tess > update      for hosts with another version of tesserafs

`tesserafs apply` compresses chunks again, to the bytes that NEW has: with the version of libzstd that this program
has, which the bundle names. A portable bundle has chunks as they are stored, and is longer.

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Makes the file by which a host that has OLD makes NEW, byte for byte
#[derive(Args, Debug)]
#[command(after_help = BUNDLE_HELP)]
pub(super) struct BundleArgs {
    /// The image that hosts have, in one file or with packs
    old: PathBuf,

    /// The image that they get, in one file or with packs
    new: PathBuf,

    /// The bundle to make; - is standard output
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,

    /// Where the packs of both images are [default: beside each]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// Ship chunks as they are stored
    #[arg(long)]
    portable: bool,

    /// zstd level, 1 to 22
    #[arg(long, short, default_value_t = 19, value_parser = clap::value_parser!(i32).range(1..=22))]
    level: i32,

    #[command(flatten)]
    made: Made,
}

const APPLY_HELP: &str = "\
Examples:
  tesserafs apply monday.tess update tuesday.tess
  tesserafs apply --packdir packs/ monday.tess update tuesday.tess

NEW gets its name when all of it is there and has the image ID that the bundle names. Until then it is NEW.partial:
a run that was cut off goes on with that. Packs are made in the same way. Which image it makes, the bundle says:
tesserafs mount --cert or --digest, or fsck.tesserafs --cert, tell whose it is.

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Makes an image of an older one and a bundle
#[derive(Args, Debug)]
#[command(after_help = APPLY_HELP)]
pub(super) struct ApplyArgs {
    /// The image that there is
    old: PathBuf,

    /// The bundle; - is standard input
    bundle: PathBuf,

    /// The image to make
    new: PathBuf,

    /// Where the packs of OLD are, and those of NEW will be [default: beside each]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    #[command(flatten)]
    made: Made,
}

impl BundleArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { old, new, output, packdir, portable, level, made } = self;
        let request =
            BundleRequest { output, old, new, pack_dir: packdir, portable, level, force: made.force };
        remove_on_signal()?;
        let report = create(&request, &*bar(&made)).map_err(|error| chain(&error))?;
        made.report(&request.output, || report.to_text(), || report.to_json())
    }
}

impl ApplyArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { old, bundle, new, packdir, made } = self;
        let request = ApplyRequest { old, bundle, new, pack_dir: packdir, force: made.force };
        // The file that is not finished stays, for the next run.
        remove_on_signal()?;
        let report = apply(&request, &*bar(&made)).map_err(|error| chain(&error))?;
        made.report(&request.new, || report.to_text(), || report.to_json())
    }
}
