// SPDX-License-Identifier: GPL-2.0-or-later

//! The removal of all that can go.

use std::collections::HashSet;

use tesserafs_format::Digest;
use tesserafs_image::Error;

use super::{Garbage, Item, Wanted, What};
use crate::artifact::Artifact;
use crate::store::dir::Dir;
use crate::store::images::files;
use crate::store::in_use::Places;
use crate::store::lock::Collecting;
use crate::store::Store;

impl Collecting<'_> {
    /// Removes what can go. The result is what went.
    pub fn sweep(&self, wanted: &Wanted<'_>) -> Result<Garbage, Error> {
        let garbage = self.garbage(wanted)?;
        self.remove_all(&garbage)?;
        Ok(garbage)
    }

    /// Removes what can go of these images, which have no name any more: `manifests` are theirs.
    pub fn sweep_images(&self, places: &Places, manifests: &[(Digest, Artifact)]) -> Result<Garbage, Error> {
        let ids: HashSet<_> = manifests.iter().map(|(_, artifact)| artifact.image_id).collect();
        let mut garbage = self.find(places, &|id, _| !ids.contains(id))?;
        let mut theirs: HashSet<Digest> = manifests.iter().map(|(manifest, _)| *manifest).collect();
        theirs.extend(manifests.iter().flat_map(|(_, artifact)| files(artifact)).map(|file| file.0));
        garbage.items.retain(|item| match (item.what, &item.digest) {
            (What::Unfinished, Some(id)) => ids.contains(id),
            (_, Some(digest)) => theirs.contains(digest),
            (_, None) => false,
        });
        garbage.kept.retain(|kept| kept.image_id.is_some_and(|id| ids.contains(&id)));
        self.remove_all(&garbage)?;
        Ok(garbage)
    }

    fn remove_all(&self, garbage: &Garbage) -> Result<(), Error> {
        garbage.items.iter().try_for_each(|item| self.remove_item(item))
    }
}

impl Store {
    /// Removes an item; of the path to it no part is a symlink.
    fn remove_item(&self, item: &Item) -> Result<(), Error> {
        let Some((last, above)) = item.names.split_last() else { return Ok(()) };
        let mut dirs: Vec<Dir> = Vec::new();
        for name in above {
            match dirs.last().unwrap_or(&self.root).dir(name)? {
                Some(dir) => dirs.push(dir),
                None => return Ok(()),
            }
        }
        let dir = dirs.last().unwrap_or(&self.root);
        if item.what == What::Unfinished {
            if let Some(files) = dir.dir(last)? {
                for name in files.names()? {
                    files.remove(name)?;
                }
            }
            return dir.remove_dir(last).map(drop);
        }
        dir.remove(last).map(drop)
    }
}
