// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs push`: an image to a registry.

use std::path::{Path, PathBuf};

use clap::Args;
use mkfs_tesserafs::source::oci::{OciImage, Platform};

use super::registry::{parse_reference, RegistryArgs};
use super::transfer::{Said, TransferArgs};
use crate::push::{self, Request};
use crate::reference::Reference;

const PUSH_HELP: &str = "\
Examples:
  tesserafs push --packdir packs/ tuesday.tess registry.example/team/app:tuesday
  tesserafs push --with oci:layout/ app.tess registry.example/team/app:1.2
                                  clients without tesserafs get the image of the layout under the same name
  tesserafs push --delta-from monday.tess tuesday.tess registry.example/team/app:tuesday
                                  hosts that have monday's image can get tuesday's by a bundle

The name REF is that of an index, which a push replaces; with --add, it keeps what it has for other platforms. The image alone has the same tag with -tesserafs behind it. Blobs that the registry
has are not sent again, and an upload that is cut off goes on. An image in one file is one blob: hosts that have
another one get all of it. After tesserafs pack they share the packs that both images name.

Exit status: 0 pushed; 1 not pushed, and standard error says why; 2 usage error.";

/// Brings an image to a registry, with what the registry lacks of it
#[derive(Args, Debug)]
#[command(after_help = PUSH_HELP)]
pub(super) struct PushArgs {
    /// The image, in one file or with packs
    image: PathBuf,

    /// HOST/REPOSITORY:TAG
    #[arg(value_name = "REF", value_parser = parse_reference)]
    reference: Reference,

    /// Where its packs are [default: beside IMAGE]
    #[arg(long, value_name = "DIR")]
    packdir: Option<PathBuf>,

    /// An ordinary image for the same index, in an OCI image layout: first of all, for clients that know nothing else
    #[arg(long, value_name = "oci:LAYOUT[:REF]", value_parser = parse_layout)]
    with: Option<OciImage>,

    /// Keep what the index of that name has for other platforms
    #[arg(long)]
    add: bool,

    /// Push a bundle, too, by which hosts with this image make the new one; its packs are in DIR or beside it
    #[arg(long, value_name = "OLD")]
    delta_from: Option<PathBuf>,

    /// Take blobs from this repository of the registry, if they are there; repeatable
    #[arg(long, value_name = "REPOSITORY", value_parser = parse_repository)]
    mount: Vec<String>,

    /// The platform of an image without a configuration [default: that of this machine]
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<Platform>,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    transfer: TransferArgs,
}

impl PushArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let request = Request {
            image: self.image,
            reference: self.reference,
            pack_dir: self.packdir,
            with: self.with,
            add: self.add,
            delta_from: self.delta_from,
            mount_from: self.mount,
            platform: self.platform.unwrap_or_else(Platform::host),
            options: self.registry.into_options(),
            lines: self.transfer.lines(),
        };
        let state = "the next push does not send again what the registry has";
        self.transfer.run(&request.options.cancel, state, |progress| {
            let report = push::run(&request, progress)?;
            Ok(Said { text: report.to_text(), json: report.to_json() })
        })
    }
}

/// `oci:` and a place as skopeo has it.
fn parse_layout(text: &str) -> Result<OciImage, String> {
    let place = text.strip_prefix("oci:").ok_or("oci:LAYOUT or oci:LAYOUT:REF is wanted")?;
    Ok(OciImage::parse(Path::new(place), None))
}

fn parse_repository(text: &str) -> Result<String, String> {
    if crate::reference::is_repository(text) {
        Ok(text.to_owned())
    } else {
        Err("a repository of the same registry is wanted, without its host".into())
    }
}
