// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs export`: an image of the store as a file.

use std::path::PathBuf;

use clap::Args;
use tesserafs_image::text;

use super::made::{bar, remove_on_signal, Made};
use super::store::{self, StoreArgs};
use crate::chain;
use crate::export::{self, Exported};
use crate::reference::Reference;

const EXPORT_HELP: &str = "\
Examples:
  tesserafs export registry.example/app:1 app.tess      for a disk, to boot from, or to carry away
  tesserafs export registry.example/app:1 - | ssh host tee app.tess

It is the image in one file, as `tesserafs unpack` makes it. A signature is for one form: sign the new one
(mkfs.tesserafs --emit-signed-data and --attach-signature). An image that was pushed in one file is copied, with its signature.

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Makes one file of an image in the store
#[derive(Args, Debug)]
#[command(after_help = EXPORT_HELP)]
pub(super) struct ExportArgs {
    /// The name of the image
    #[arg(value_name = "REF", value_parser = Reference::parse)]
    reference: Reference,

    /// The image to make; - is standard output
    #[arg(value_name = "NEW")]
    new: PathBuf,

    #[command(flatten)]
    made: Made,

    #[command(flatten)]
    store: StoreArgs,
}

impl ExportArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let Self { reference, new, made, store: args } = self;
        let store = args.open()?;
        let using = store::using(&store)?;
        let image = store::image(&using, &reference)?;
        // It stays, and nobody who removes others has to wait.
        let _pin = using.pin(&image).map_err(|error| chain(&error))?;
        drop(using);
        remove_on_signal()?;
        match export::export(&image, &new, made.force, &*bar(&made)).map_err(|error| chain(&error))? {
            Exported::Converted(report) => made.report(&new, || report.to_text(), || report.to_json()),
            Exported::Copied(bytes) => {
                let id = image.artifact.image_id;
                let shown = text::path(&new);
                let json =
                    serde_json::json!({ "image": shown, "bytes": bytes, "image_id": format!("sha256:{id}") });
                made.report(
                    &new,
                    || format!("{shown}: {}, copied\n  image ID  sha256:{id}\n", text::size(bytes)),
                    || store::json(&json),
                )
            }
        }
    }
}
