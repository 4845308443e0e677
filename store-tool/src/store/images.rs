// SPDX-License-Identifier: GPL-2.0-or-later

//! The content of a manifest, and how much of it is there.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use tesserafs_format::{Digest, PackIndex, SuperBlock};
use tesserafs_image::superblock::{self, Head};
use tesserafs_image::{text, Broken, Error, Source, VerifiedMetadata};

use super::dir::refuse;
use super::in_use::{InUse, MountedAt, Places};
use super::refs::Named;
use super::Store;
use crate::artifact::{Artifact, Blob, Document};
use crate::reference::Reference;

/// An image of the store, complete as far as it is needed.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its manifest, compared with its digest.
    pub artifact: Artifact,
    /// The image file.
    pub path: PathBuf,
    /// Where its packs are.
    pub pack_dir: PathBuf,
}

/// A line of the list of images.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The name.
    pub named: Named,
    /// The image that has it, or why that cannot be told.
    pub image: Result<Summary, String>,
}

/// An image in the list.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its ID.
    pub image_id: Digest,
    /// Bytes of all that it needs.
    pub bytes: u64,
    /// Those of them that other images need, too.
    pub shared_bytes: u64,
    /// Packs of which only the image's own chunks are there.
    pub incomplete_packs: usize,
    /// Where it is mounted, as far as there are processes that see it.
    pub mounts: Vec<MountedAt>,
    /// Whether it is mounted, or may be.
    pub is_used: bool,
}

impl Store {
    /// The image that a manifest of the store describes; what it says is proven to be the manifest's, and no more.
    pub(crate) fn artifact(&self, manifest: &Digest) -> Result<Artifact, Error> {
        let path = self.images.join(manifest.to_string());
        let bytes = self.document(manifest)?.ok_or_else(|| refuse(&path, "nothing", "a manifest"))?;
        let refused = |why: String| Error::Refused(format!("{}: {why}", text::path(&path)));
        match Document::parse(&bytes).map_err(refused)? {
            Document::Image(artifact) => Ok(artifact),
            _ => Err(refuse(&path, "another document", "the manifest of an image")),
        }
    }

    /// The image with this name. `None` where none has it.
    pub fn image(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        let Some(manifest) = self.manifest_of(reference)? else { return Ok(None) };
        let artifact = self.artifact(&manifest)?;
        let shown = text::escape(reference.to_string().as_bytes());
        let again =
            |what: String| Error::Refused(format!("{shown}: {what}; `tesserafs pull` fetches it again"));
        let image = &artifact.image;
        let lacking = || {
            again(format!(
                "found no file {}, expected the image",
                self.blobs.join(image.digest.to_string()).display()
            ))
        };
        let path = self.blob_of(&image.digest, image.len)?.ok_or_else(lacking)?.path;
        let packs: Vec<_> = artifact.packs.iter().map(|pack| pack.digest).collect();
        let pack_dir = self.pack_dir(&artifact.image_id, &packs)?;
        let pack_dir = pack_dir
            .ok_or_else(|| again("found no file of one of its packs, expected all of them".into()))?;
        Ok(Some(Image { artifact, path, pack_dir }))
    }

    /// All names, with what the images are that have them.
    pub fn list(&self, places: &Places) -> Result<Vec<Listed>, Error> {
        let names = self.names()?;
        let in_use = InUse::look(places);
        let manifests: HashSet<_> = names.iter().map(|named| named.manifest).collect();
        let artifacts: HashMap<_, _> =
            manifests.into_iter().map(|manifest| (manifest, self.artifact(&manifest))).collect();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for artifact in artifacts.values().flatten() {
            for file in files(artifact) {
                *users.entry(file.0).or_default() += 1;
            }
        }
        let is_shared = |digest: &Digest| users.get(digest).is_some_and(|users| *users > 1);
        let summary = |manifest: &Digest| -> Result<Summary, String> {
            let artifact = match artifacts.get(manifest) {
                Some(Ok(artifact)) => artifact,
                Some(Err(error)) => return Err(crate::chain(error)),
                None => return Err("the manifest was not read".into()),
            };
            self.summary(artifact, &in_use, is_shared).map_err(|error| crate::chain(&error))
        };
        Ok(names.into_iter().map(|named| Listed { image: summary(&named.manifest), named }).collect())
    }

    fn summary(
        &self,
        artifact: &Artifact,
        in_use: &InUse,
        is_shared: impl Fn(&Digest) -> bool,
    ) -> Result<Summary, Error> {
        let image = &artifact.image.digest;
        let all = || files(artifact);
        let incomplete = |pack: &&Blob| !matches!(self.blob(&pack.digest), Ok(Some(_)));
        // A manifest was refused whose lengths have a sum beyond that of any file, but for the config's.
        let sum = |files: &mut dyn Iterator<Item = (Digest, u64)>| {
            files.fold(0, |sum: u64, file| sum.saturating_add(file.1))
        };
        Ok(Summary {
            image_id: artifact.image_id,
            bytes: sum(&mut all()),
            shared_bytes: sum(&mut all().filter(|file| is_shared(&file.0))),
            incomplete_packs: artifact.packs.iter().filter(incomplete).count(),
            mounts: in_use.mounts(image).cloned().collect(),
            is_used: in_use.has(self, image, &artifact.image_id),
        })
    }
}

/// Digests and lengths of all that an image needs, but for the manifest.
pub(super) fn files(artifact: &Artifact) -> impl Iterator<Item = (Digest, u64)> + '_ {
    artifact.files().chain([artifact.config]).map(|blob| (blob.digest, blob.len))
}

/// The packs beside an image file, as its pack table has them.
pub(super) fn packs_of(source: &Source, sb: &SuperBlock) -> Result<Vec<Blob>, Broken> {
    let metadata = VerifiedMetadata::new(source, sb);
    let image = tesserafs_format::Image::new(sb, &metadata);
    let numbers = 1..u16::try_from(sb.layout.packs.records()).unwrap_or(u16::MAX);
    let pack =
        |number| image.pack(PackIndex(number)).map(|pack| Blob { digest: pack.digest, len: pack.bytes });
    numbers.map(pack).collect()
}

/// Compares an image file with what its manifest says: the image ID, and the packs that it needs.
pub fn check_image(artifact: &Artifact, source: &Source) -> Result<Head, Error> {
    let shown = text::path(source.path());
    let broken = |error: Broken| match error {
        Broken::Rule(rule) => Error::Refused(format!("{shown}: {rule}")),
        Broken::Stop(error) => error,
    };
    let head = superblock::read_head(source).map_err(broken)?;
    if head.id != artifact.image_id {
        let (found, expected) = (head.id, artifact.image_id);
        return Err(refuse(
            source.path(),
            format_args!("image ID {found}"),
            format_args!("{expected}, as the manifest says"),
        ));
    }
    let packs = packs_of(source, &head.sb).map_err(broken)?;
    if packs != artifact.packs {
        let differs = packs.iter().zip(&artifact.packs).position(|(own, said)| own != said);
        let number = differs.unwrap_or(packs.len().min(artifact.packs.len())) + 1;
        let said = |packs: &[Blob]| match packs.get(number - 1) {
            Some(Blob { digest, len }) => format!("pack {number} {digest} of {len} bytes"),
            None => format!("no pack {number}"),
        };
        let expected = format!("{}, as the manifest says", said(&artifact.packs));
        return Err(refuse(source.path(), said(&packs), expected));
    }
    Ok(head)
}
