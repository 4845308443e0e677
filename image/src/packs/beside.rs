// SPDX-License-Identifier: GPL-2.0-or-later

//! Packs beside the image: whether they are those that it names, as far as a mount wants to know.

use tesserafs_format::{FormatError, Image, Place, Rule};

use super::{PackFile, Packs};
use crate::error::{Broken, Error};
use crate::metadata::VerifiedMetadata;

impl Packs<'_> {
    /// Compares the length of each pack beside the image, and the digest of the first chunk in it, as the kernel driver does. So another
    /// file under the name of a pack is refused when an image is mounted, and not met when somebody reads.
    pub(crate) fn check_first(&self, image: &Image<'_, VerifiedMetadata<'_>>) -> Result<(), Broken> {
        let mut stored = Vec::new();
        for file in self.files.iter().flatten() {
            let PackFile::File(source, pack) = file else { continue };
            let broken = |rule| Broken::from(Error::Pack { path: source.path().to_owned(), rule });
            if source.len() != pack.bytes {
                let place = Place::Pack(pack.index.0);
                return Err(broken(FormatError::new(Rule::PackDigest, place, source.len(), pack.bytes)));
            }
            let Some(chunk) = image.first_chunk(pack.index)? else { continue };
            self.read_stored(&chunk, &mut stored).map_err(|error| match error {
                Broken::Rule(rule) => broken(rule),
                stop => stop,
            })?;
        }
        Ok(())
    }
}
