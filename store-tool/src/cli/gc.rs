// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs rm` and `tesserafs gc`: what goes.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tesserafs_image::text;

use super::store::{self, StoreArgs};
use crate::reference::Reference;
use crate::store::{Garbage, Kept, Places, Wanted, What, UNFINISHED};
use crate::{chain, say};

/// The time that others have to end their use of the store: most look at it only.
const PATIENCE: Duration = Duration::from_secs(1);

const RM_HELP: &str = "\
Examples:
  tesserafs rm registry.example/app:1
  tesserafs rm app:1 app:2            names as in `tesserafs images`, or as docker and podman shorten them

The name goes at once, and with the last name of an image all that no other image needs. Of an image that is mounted
the files stay, until `tesserafs gc` after that; so they do while another process uses the store.

Exit status: 0 done; 1 not done, or not for all of them, and standard error says why; 2 usage error.";

/// Removes images from the store, by name
#[derive(Args, Debug)]
#[command(after_help = RM_HELP)]
pub(super) struct RmArgs {
    /// Names of images
    #[arg(required = true, value_name = "REF", value_parser = Reference::parse)]
    references: Vec<Reference>,

    /// Say nothing of a success
    #[arg(long, short)]
    quiet: bool,

    #[command(flatten)]
    store: StoreArgs,
}

const GC_HELP: &str = "\
Examples:
  tesserafs gc --dry-run
  tesserafs gc

These stay: images that have a name; images that are mounted, in any mount namespace, by the kernel driver or by FUSE;
and what a pull has begun that was cut off, for a day after its last byte. Where it cannot be told what is mounted, or
what an image needs, it stays. It waits for processes that use the store.

Exit status: 0 done; 1 not done, and standard error says why; 2 usage error.";

/// Removes files from the store that no image needs
#[derive(Args, Debug)]
#[command(after_help = GC_HELP)]
pub(super) struct GcArgs {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    /// Also files of pulls that were cut off
    #[arg(long)]
    unfinished: bool,

    /// A JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl RmArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let store = self.store.open()?;
        let mut removed = HashMap::new();
        let mut failed = 0;
        for reference in &self.references {
            let using = store::using(&store)?;
            let mut remove = || {
                // A name whose manifest cannot be read goes as well.
                let manifest = using.manifest_of(reference).ok().flatten();
                let artifact =
                    manifest.and_then(|manifest| Some((manifest, using.artifact(&manifest).ok()?)));
                let is_gone = using.remove_name(reference).map_err(|error| chain(&error))?;
                if !is_gone {
                    return Err(store::no_image(reference, store.path()));
                }
                removed.extend(artifact);
                Ok(())
            };
            match remove() {
                Err(error) => {
                    say(&error);
                    failed += 1;
                }
                Ok(()) if self.quiet => (),
                Ok(()) => say(&format!("{}: removed", text::escape(reference.to_string().as_bytes()))),
            }
        }
        self.sweep(&store, &removed.into_iter().collect::<Vec<_>>());
        match failed {
            0 => Ok(()),
            _ => Err(format!("{failed} of {} names were not removed", self.references.len())),
        }
    }

    /// Removes the files of images whose last name is gone. The names are gone in any case: what stays is said, and no error.
    fn sweep(
        &self,
        store: &crate::store::Store,
        removed: &[(tesserafs_format::Digest, crate::artifact::Artifact)],
    ) {
        if removed.is_empty() {
            return;
        }
        let later =
            |why: &str| say(&format!("{}: files stay until `tesserafs gc`: {why}", text::path(store.path())));
        match store.try_collect(PATIENCE) {
            Err(error) => later(&chain(&error)),
            Ok(None) => later("another process uses the store"),
            Ok(Some(collecting)) => match collecting.sweep_images(&Places::default(), removed) {
                Err(error) => later(&chain(&error)),
                Ok(garbage) => {
                    garbage.kept.iter().for_each(|kept| later(&kept.why));
                    if !self.quiet && garbage.bytes() > 0 {
                        say(&format!(
                            "{}: {} are free",
                            text::path(store.path()),
                            text::size(garbage.bytes())
                        ));
                    }
                }
            },
        }
    }
}

impl GcArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let store = self.store.open()?;
        let unfinished = if self.unfinished { Duration::ZERO } else { UNFINISHED };
        let wanted = Wanted { places: &Places::default(), unfinished };
        let found = if self.dry_run {
            store::using(&store)?.garbage(&wanted)
        } else {
            store::collecting(&store)?.sweep(&wanted)
        };
        let garbage = found.map_err(|error| chain(&error))?;
        store::print(&if self.json {
            to_json(&garbage, self.dry_run)
        } else {
            to_lines(&garbage, self.dry_run)
        })
    }
}

fn name(what: What) -> &'static str {
    match what {
        What::Blob => "blob",
        What::Document => "document",
        What::Unfinished => "unfinished",
        What::Leftover => "leftover",
    }
}

fn to_json(garbage: &Garbage, dry_run: bool) -> String {
    let items = garbage
        .items
        .iter()
        .map(|item| json!({ "kind": name(item.what), "path": text::path(&item.path), "bytes": item.bytes }));
    let kept = garbage.kept.iter().map(
        |Kept { image_id, why }| json!({ "image_id": image_id.map(|id| format!("sha256:{id}")), "why": why }),
    );
    store::json(&json!({
        "dry_run": dry_run,
        "bytes": garbage.bytes(),
        "removed": items.collect::<Vec<_>>(),
        "kept": kept.collect::<Vec<_>>(),
    }))
}

fn to_lines(garbage: &Garbage, dry_run: bool) -> String {
    let (each, sum) = if dry_run { ("would remove", "would be") } else { ("removed", "are") };
    let mut lines = String::new();
    for item in &garbage.items {
        let (bytes, path) = (text::size(item.bytes), text::path(&item.path));
        lines.push_str(&format!("{each} {bytes:>10} {:10} {path}\n", name(item.what)));
    }
    for Kept { image_id, why } in &garbage.kept {
        let image = image_id.map_or("a file".to_owned(), |id| format!("image {id}"));
        lines.push_str(&format!("kept {image}: {why}\n"));
    }
    lines.push_str(&format!("{} {sum} free\n", text::size(garbage.bytes())));
    lines
}
