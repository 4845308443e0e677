// SPDX-License-Identifier: GPL-2.0-or-later

//! The image here.

use std::path::{Path, PathBuf};

use mkfs_tesserafs::source::oci::CONFIG;
use tesserafs_format::{Digest, PackIndex, PackKind};
use tesserafs_image::hash::Hasher;
use tesserafs_image::packs::{DataError, Packs};
use tesserafs_image::superblock::{read_head, Head};
use tesserafs_image::unchecked::Unchecked;
use tesserafs_image::{text, Broken, Cancel, Error, Source, VerifiedMetadata};

use super::blobs::Content;
use crate::artifact::{compressed, Artifact, Blob, DOCUMENT_MAX};

/// Bytes that are read at once.
const PIECE: u64 = 1 << 20;

/// An image, and the packs that it names.
#[derive(Debug)]
pub(super) struct Local<'a> {
    source: &'a Source,
    head: Head,
    pack_dir: PathBuf,
    packs: Vec<tesserafs_format::Pack>,
}

impl<'a> Local<'a> {
    /// Reads superblock and pack table.
    pub(super) fn open(source: &'a Source, pack_dir: Option<&Path>) -> Result<Self, Error> {
        let head = read_head(source).map_err(|error| named(source, error))?;
        let metadata = VerifiedMetadata::new(source, &head.sb);
        let image = Unchecked::new(&metadata);
        let count = u16::try_from(head.sb.layout.packs.records()).unwrap_or(u16::MAX);
        let packs = (0..count)
            .map(|number| image.of(image.image.pack(PackIndex(number))))
            .collect::<Result<_, _>>()?;
        let beside = source.path().parent().unwrap_or(Path::new(""));
        let pack_dir = pack_dir.unwrap_or(beside).to_owned();
        Ok(Self { source, head, pack_dir, packs })
    }

    /// Its name in messages.
    pub(super) fn shown(&self) -> String {
        text::path(self.source.path())
    }

    /// The image ID.
    pub(super) fn id(&self) -> Digest {
        self.head.id
    }

    /// Compares all that will be sent with the digests that vouch for it: what is damaged here is not spread.
    pub(super) fn verify(&self, cancel: &Cancel) -> Result<(), Error> {
        let metadata = VerifiedMetadata::new(self.source, &self.head.sb);
        let geometry = self.head.sb.layout.geometry;
        for block in 0..geometry.total_blocks() {
            cancel.check()?;
            metadata.with_block(block, |_| ()).map_err(|error| named(self.source, error))?;
        }
        let packs: Vec<_> = self.packs.iter().copied().map(Some).collect();
        let packs = Packs::open(self.source, &packs, &self.pack_dir)?;
        for index in 0..packs.len() {
            packs.check_digest(index, cancel).map_err(|error| match error {
                DataError::Broken(finding) => Error::Refused(format!("{}: {finding}", self.shown())),
                DataError::Stop(error) => error,
            })?;
        }
        Ok(())
    }

    /// The manifest but for the configuration, and the blob of the image file: one that is metadata alone is compressed, as chunks are already.
    pub(super) fn artifact(&self, cancel: &Cancel) -> Result<(Artifact, Content), Error> {
        let packs = self.packs.iter().filter(|pack| pack.kind == PackKind::File);
        let packs: Vec<_> = packs.map(|pack| Blob { digest: pack.digest, len: pack.bytes }).collect();
        let (image, compressed, content) = if packs.is_empty() {
            (self.image_blob(cancel)?, None, Content::File(self.source.path().to_owned()))
        } else {
            let failed = |source| Error::Io { what: "cannot make a temporary file".into(), source };
            let mut file = tempfile::tempfile().map_err(failed)?;
            let len = self.head.sb.file_bytes();
            let (compressed, image) = compressed::compress(self.source, len, &mut file, cancel)?;
            (image, Some(compressed), Content::Open(file, self.source.path().to_owned()))
        };
        let (image_id, tree_id) = (self.head.id, self.head.sb.tree_id);
        Ok((Artifact { image_id, tree_id, packs, image, compressed, config: Blob::of(&[]) }, content))
    }

    /// The configuration that it was built with.
    pub(super) fn config(&self) -> Result<Option<Vec<u8>>, Error> {
        let metadata = VerifiedMetadata::new(self.source, &self.head.sb);
        Unchecked::new(&metadata).annotation(CONFIG.as_bytes(), DOCUMENT_MAX as u32)
    }

    /// The file of a pack.
    pub(super) fn pack_path(&self, pack: &Blob) -> PathBuf {
        self.pack_dir.join(pack.digest.to_string())
    }

    /// The image file, without what can lie behind it on a device.
    fn image_blob(&self, cancel: &Cancel) -> Result<Blob, Error> {
        let len = self.head.sb.file_bytes();
        let mut hasher = Hasher::default();
        let mut buf = vec![0; PIECE.min(len) as usize];
        let mut at = 0;
        while at < len {
            cancel.check()?;
            let part = &mut buf[..PIECE.min(len - at) as usize];
            self.source.read_at(at, part)?;
            hasher.update(part);
            at += part.len() as u64;
        }
        Ok(Blob { digest: hasher.finish(), len })
    }
}

fn named(source: &Source, error: Broken) -> Error {
    match error {
        Broken::Rule(error) => Error::Refused(format!("{}: {error}", text::path(source.path()))),
        Broken::Stop(error) => error,
    }
}
