// SPDX-License-Identifier: GPL-2.0-or-later

//! `tesserafs images`.

use clap::Args;
use serde_json::{json, Value};
use tesserafs_image::text;

use super::store::{self, StoreArgs};
use crate::say;
use crate::store::{Listed, MountedAt, Places, Summary};

const IMAGES_HELP: &str = "\
Examples:
  tesserafs images
  tesserafs images --json | jq -r '.[] | select(.in_use | not) | .reference'

SIZE is that of all files that an image needs, SHARED that of those of them that other images of the list need, too.
USED BY has the directories at which it is mounted, in any mount namespace that this user may look into; \"in use\"
stands for mounts elsewhere, and where it cannot be told whether there are any.

Exit status: 0 done; 1 not done, or not for all of them, and standard error says why; 2 usage error.";

/// Lists the images of the store
#[derive(Args, Debug)]
#[command(after_help = IMAGES_HELP)]
pub(super) struct ImagesArgs {
    /// A JSON array
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

impl ImagesArgs {
    pub(super) fn run(self) -> Result<(), String> {
        let store = self.store.open()?;
        let using = store::using(&store)?;
        let images = using.list(&Places::default()).map_err(|error| crate::chain(&error))?;
        store::print(&if self.json { to_json(&images) } else { to_table(&images) })?;
        let broken: Vec<_> =
            images.iter().filter_map(|listed| Some((name(listed), listed.image.as_ref().err()?))).collect();
        match &broken[..] {
            [] => Ok(()),
            broken => {
                broken.iter().for_each(|(name, why)| say(&format!("{name}: {why}")));
                Err(format!("{} of {} images cannot be read", broken.len(), images.len()))
            }
        }
    }
}

fn name(listed: &Listed) -> String {
    text::escape(listed.named.reference.to_string().as_bytes())
}

fn to_json(images: &[Listed]) -> String {
    let described = |listed: &Listed| {
        let mut described = json!({
            "reference": listed.named.reference.to_string(),
            "manifest": format!("sha256:{}", listed.named.manifest),
        });
        let facts = match &listed.image {
            Err(why) => json!({ "error": why }),
            Ok(image) => json!({
                "image_id": format!("sha256:{}", image.image_id),
                "bytes": image.bytes,
                "shared_bytes": image.shared_bytes,
                "incomplete_packs": image.incomplete_packs,
                "in_use": image.is_used,
                "mounts": image.mounts.iter().map(mount).collect::<Vec<_>>(),
            }),
        };
        if let (Some(all), Value::Object(facts)) = (described.as_object_mut(), facts) {
            all.extend(facts);
        }
        described
    };
    store::json(&images.iter().map(described).collect())
}

fn mount(at: &MountedAt) -> Value {
    json!({ "dir": text::path(&at.dir), "process": at.process })
}

fn to_table(images: &[Listed]) -> String {
    let header = ["REFERENCE", "IMAGE ID", "SIZE", "SHARED", "USED BY"].map(str::to_owned);
    let row = |listed: &Listed| match &listed.image {
        Ok(image) => [
            name(listed),
            image.image_id.to_string().chars().take(12).collect(),
            text::size(image.bytes),
            text::size(image.shared_bytes),
            used_by(image),
        ],
        Err(_) => [name(listed), "-".into(), "-".into(), "-".into(), "broken".into()],
    };
    let rows: Vec<[String; 5]> = [header].into_iter().chain(images.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let mut table = String::new();
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            table.push_str(&format!("{cell:width$}  "));
        }
        table.push_str(&row[4]);
        table.truncate(table.trim_end_matches(' ').len());
        table.push('\n');
    }
    table
}

fn used_by(image: &Summary) -> String {
    let mounts: Vec<_> = image.mounts.iter().map(MountedAt::to_string).collect();
    match (mounts.is_empty(), image.is_used) {
        (true, true) => "in use".to_owned(),
        _ => mounts.join(", "),
    }
}
