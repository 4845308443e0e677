// SPDX-License-Identifier: GPL-2.0-or-later

//! The image of a mount: a file, or an image of the store by its name.

use std::fs::File;
use std::path::Path;

use tesserafs_image::text;

use super::store::{self, StoreArgs};
use crate::chain;
use crate::mount::Request;
use crate::reference::Reference;

/// Whether an argument is a path: it is one if it looks like one, or if there is a file.
fn is_path(image: &Path) -> bool {
    let bytes = image.as_os_str().as_encoded_bytes();
    let looks_like_one = [&b"/"[..], b"./", b"../"].iter().any(|start| bytes.starts_with(start));
    looks_like_one || image.symlink_metadata().is_ok()
}

/// Makes of a request for the name of an image one for its files in the store. The result keeps these from being removed until the
/// mount does that itself; `None` where the request is for a file.
pub(super) fn resolve(request: &mut Request, args: &StoreArgs) -> Result<Option<File>, String> {
    if is_path(&request.image) {
        return Ok(None);
    }
    let shown = text::path(&request.image);
    let nothing = |why: String| format!("{shown}: there is no such file, and {why}");
    let name = request.image.to_str().ok_or_else(|| nothing("it is no name of an image".into()))?;
    let reference = Reference::parse(name).map_err(nothing)?;
    let store = args.open().map_err(nothing)?;
    let using = store::using(&store)?;
    let found = using.image(&reference).map_err(|error| chain(&error))?;
    let image = found.ok_or_else(|| nothing(store::no_image(&reference, store.path())))?;
    let id = image.artifact.image_id;
    if let Some(wanted) = request.options.digest.filter(|wanted| *wanted != id) {
        return Err(format!("{shown}: found image ID {id}, expected {wanted}"));
    }
    let pin = using.pin(&image).map_err(|error| chain(&error))?;
    request.options.digest = Some(id);
    request.options.pack_dir.get_or_insert(image.pack_dir);
    request.image = image.path;
    request.name = Some(text::escape(reference.to_string().as_bytes()));
    Ok(Some(pin))
}
