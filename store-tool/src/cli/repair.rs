// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs repair`: a damaged image made whole.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use mkfs_tesserafs::repair::{repair, RepairRequest};
use tesserafs_format::Digest;

use super::made::{bar, remove_on_signal, Made};
use super::parse_image_id;
use crate::chain;

const REPAIR_HELP: &str = "\
Examples:
  tesserafs repair root.tess --from backup.tess
  tesserafs repair root.tess --from monday.tess tuesday.tess         other versions, each with some of it
  tesserafs repair --packdir packs/ shared.tess --from old.tess update
                                  a bundle that makes the image, and the image that it is applied to
  tesserafs repair --id sha256:... root.tess --from backup.tess
                                  where the first 512 bytes are damaged
  tesserafs repair --dry-run --json root.tess --from backup.tess

Good bytes come from whatever has them: another copy, other versions in any form and of any profile, packs, bundles;
files that are damaged, too, for what of them is whole. Names and attributes are in copies, in bundles with the image
that they are applied to, and in other images of the same tree; chunk tables in the first two only. Each byte is compared with a digest that the image ID proves,
so no file need be trusted. Chunks are compressed again where only their raw bytes are there.

The result is a new file, byte for byte the one that the image ID names. It is read back, forced to the disk and then
renamed over IMAGE, with the mode, owner and xattrs of the damaged one. A mount that is in use is not disturbed, and
serves the damaged file until it is unmounted. Packs that IMAGE names are repaired in their directory in the same
way, also with --output. Nothing is put in place unless all of it is found: what is not is listed by file.
--dry-run does all but that: it writes files without a name, and takes the space of them.

The signature is no part of what the image ID proves: that of IMAGE is kept, or found again, by its digest; where
IMAGE does not tell any more, it is that of a copy.

Exit status: 0 whole, or nothing was damaged; 1 not repaired, and standard error says why; 2 usage error.";

/// Makes a damaged image whole, by good bytes from other files
#[derive(Args, Debug)]
#[command(after_help = REPAIR_HELP, override_usage = "tesserafs repair [OPTIONS] IMAGE --from OTHER...")]
pub(super) struct RepairArgs {
    /// The image, in one file or with packs
    image: PathBuf,

    /// Look for good bytes in these images, packs and bundles; repeatable. Packs of images are looked for beside each of them,
    /// and in DIR
    #[arg(long, value_name = "OTHER", required = true, num_args = 1..)]
    from: Vec<PathBuf>,

    /// The image ID, where the first 512 bytes of IMAGE are damaged
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_image_id)]
    id: Option<Digest>,

    /// Where the packs of IMAGE are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// Write the whole image to NEW, and leave IMAGE as it is; NEW is not written where nothing is damaged
    #[arg(long, short, value_name = "NEW")]
    output: Option<PathBuf>,

    /// Keep each damaged file, with SUFFIX behind its name
    #[arg(long, value_name = "SUFFIX")]
    keep: Option<OsString>,

    /// Make the image without its signature if no file has that; the image ID stays the same
    #[arg(long)]
    drop_signature: bool,

    /// Say what would be done, and put nothing in place
    #[arg(long, short = 'n')]
    dry_run: bool,

    #[command(flatten)]
    made: Made,
}

impl RepairArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let request = RepairRequest {
            image: self.image,
            from: self.from,
            id: self.id,
            pack_dir: self.packdir,
            output: self.output,
            force: self.made.force,
            keep: self.keep,
            drop_signature: self.drop_signature,
            dry_run: self.dry_run,
        };
        remove_on_signal()?;
        let report = repair(&request, &*bar(&self.made)).map_err(|error| chain(&error))?;
        self.made.report(&request.image, || report.to_text(), || report.to_json())?;
        report.failure().map_or(Ok(()), Err)
    }
}
