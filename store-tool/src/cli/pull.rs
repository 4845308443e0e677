// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs pull`: an image from a registry.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use mkfs_tesserafs::source::oci::Platform;

use super::registry::{parse_reference, RegistryArgs};
use super::store::StoreArgs;
use super::transfer::{Said, TransferArgs};
use crate::pull::{self, Request};
use crate::reference::Reference;
use crate::registry::Options;

const PULL_HELP: &str = "\
Examples:
  tesserafs pull registry.example/team/app:tuesday
  tesserafs mount registry.example/team/app:tuesday mnt/
  tesserafs pull --cert signer.pem registry.example/team/app@sha256:...
  tesserafs pull --json --connections 4 registry.example/team/app
  tesserafs pull --mirror cache.example:5000 registry.example/team/app:tuesday

Bytes that other images of the store have are not fetched. An image of the store under the same name or in the same
repository becomes the new one by a bundle, where the registry has one (tesserafs push --delta-from) that is smaller
than what is lacking. A pull that was cut off or interrupted goes on when it is repeated.

Exit status: 0 pulled; 1 not pulled, and standard error says why; 2 usage error.";

/// Brings an image from a registry into the store, with what the store lacks of it
#[derive(Args, Debug)]
#[command(after_help = PULL_HELP)]
pub(super) struct PullArgs {
    /// HOST/REPOSITORY:TAG, or HOST/REPOSITORY@sha256:HEX
    #[arg(value_name = "REF", value_parser = parse_reference)]
    reference: Reference,

    #[command(flatten)]
    store: StoreArgs,

    /// Ask for a signature by one of the certificates in this file, and by no other signer; repeatable
    #[arg(long, value_name = "PEM")]
    cert: Vec<PathBuf>,

    /// The platform whose image is taken of an index [default: that of this machine]
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<Platform>,

    /// Fetch chunks, even where there is a bundle
    #[arg(long)]
    no_delta: bool,

    /// A registry that may have the same repositories, and is asked before that of REF; repeatable. Its answers are compared
    /// as those of any other
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]")]
    mirror: Vec<String>,

    /// Requests at once, 1 to 16
    #[arg(long, value_name = "N", default_value = "6", value_parser = parse_connections)]
    connections: NonZeroUsize,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    transfer: TransferArgs,
}

impl PullArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let request = Request {
            reference: self.reference,
            store: self.store.dir()?,
            platform: self.platform.unwrap_or_else(Platform::host),
            signers: self.cert,
            deltas: !self.no_delta,
            connections: self.connections,
            options: Options { mirrors: self.mirror, ..self.registry.into_options() },
            lines: self.transfer.lines(),
        };
        let state = "what came is kept, and the next pull of the image goes on with it";
        self.transfer.run(&request.options.cancel, state, |progress| {
            let report = pull::run(&request, progress)?;
            Ok(Said { text: report.to_text(), json: report.to_json() })
        })
    }
}

fn parse_connections(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse().ok().filter(|number: &NonZeroUsize| number.get() <= 16);
    number.ok_or_else(|| "expected a number from 1 to 16".to_owned())
}
