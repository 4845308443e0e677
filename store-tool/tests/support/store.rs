// SPDX-License-Identifier: GPL-2.0-or-later

//! Images in the shared form, put into a store as a pull does it.

use std::fs;
use std::path::{Path, PathBuf};

use mkfs_tesserafs::packs::SharedForm;
use tesserafs_format::Digest;
use tesserafs_image::hash::sha256;
use tesserafs_image::{superblock, Cancel, Source, VerifiedMetadata};
use tesserafs_store::artifact::{Artifact, Blob};
use tesserafs_store::reference::Reference;
use tesserafs_store::store::{Filling, Finished, Problem, Slot, Store, Using};

use super::{build_with, noise};

/// An image with packs, and where they are.
pub(crate) struct Made {
    /// The image.
    pub(crate) path: PathBuf,
    /// Its packs and those of other images.
    pub(crate) packs: PathBuf,
    /// The contents of its manifest.
    pub(crate) artifact: Artifact,
}

/// The config of all images.
pub(crate) const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux"}"#;

/// Builds an image of these files in `folder`, whose chunks its parents have, or new packs.
pub(crate) fn make(folder: &Path, name: &str, files: &[(&str, &[u8])], parents: &[&Made]) -> Made {
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("a file");
    }
    let (path, packs) = (folder.join(name), folder.join("packs"));
    fs::create_dir_all(&packs).expect("a folder");
    let parents = parents.iter().map(|parent| parent.path.clone()).collect();
    build_with(folder, |config| {
        config.image = path.clone();
        config.shared = Some(SharedForm { dir: packs.clone(), parents, rebase: false });
    });
    let artifact = artifact(&path);
    Made { path, packs, artifact }
}

/// Two images with one pack in common: the second one has more.
pub(crate) fn two(folder: &Path) -> [Made; 2] {
    let (base, more) = (noise(1, 300_000), noise(2, 120_000));
    let one = make(folder, "one.tess", &[("base", &base)], &[]);
    let two = make(folder, "two.tess", &[("base", &base), ("more", &more)], &[&one]);
    assert_eq!((one.artifact.packs.len(), two.artifact.packs.len()), (1, 2));
    assert_eq!(one.artifact.packs[0], two.artifact.packs[0]);
    [one, two]
}

/// The contents of the manifest of an image.
pub(crate) fn artifact(path: &Path) -> Artifact {
    let source = Source::open(path).expect("an image");
    let head = superblock::read_head(&source).expect("a superblock");
    let metadata = VerifiedMetadata::new(&source, &head.sb);
    let image = tesserafs_format::Image::new(&head.sb, &metadata);
    let packs = (1..head.sb.layout.packs.records()).map(|number| {
        let number = tesserafs_format::PackIndex(u16::try_from(number).expect("a number"));
        let pack = image.pack(number).expect("a pack");
        Blob { digest: pack.digest, len: pack.bytes }
    });
    Artifact {
        image_id: head.id,
        tree_id: head.sb.tree_id,
        packs: packs.collect(),
        image: Blob::of(&fs::read(path).expect("an image")),
        compressed: None,
        config: Blob::of(CONFIG),
    }
}

/// A reference.
pub(crate) fn reference(text: &str) -> Reference {
    Reference::parse(text).expect("a reference")
}

/// Begins to use a store.
pub(crate) fn using(store: &Store) -> Using<'_> {
    store.use_it(&Cancel::default(), &mut || ()).expect("the lock")
}

/// Fills one file.
pub(crate) fn fill(filling: &Filling<'_>, digest: &Digest, bytes: &[u8]) -> Result<(), String> {
    let error = |error: tesserafs_image::Error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let file = match filling.file(digest, bytes.len() as u64).map_err(error)? {
        Slot::Complete(_) => return Ok(()),
        Slot::Unfinished(file) => file,
    };
    for (number, piece) in bytes.chunks(1 << 16).enumerate() {
        let at = (number as u64) << 16;
        let mut there = vec![0; piece.len()];
        if file.is_kept() {
            file.read_at(at, &mut there).map_err(error)?;
        }
        if there != piece {
            file.write_at(at, piece).map_err(error)?;
        }
    }
    match filling.finish(file, &Cancel::default()).map_err(error)? {
        Finished::Complete(_) => Ok(()),
        Finished::Not { found, .. } => Err(format!("{digest}: found {found}")),
    }
}

/// Puts an image into a store, as a pull does.
pub(crate) fn pull(store: &Store, name: &str, made: &Made) -> Result<(), String> {
    let text = |error: tesserafs_image::Error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let using = store.use_it(&Cancel::default(), &mut || ()).map_err(text)?;
    let Artifact { image_id, image, packs, .. } = &made.artifact;
    let filling = using.begin_image(image_id, &Cancel::default(), &mut || ()).map_err(text)?;
    fill(&filling, &image.digest, &fs::read(&made.path).expect("an image"))?;
    for pack in packs {
        let bytes = fs::read(made.packs.join(pack.digest.to_string())).expect("a pack");
        fill(&filling, &pack.digest, &bytes)?;
    }
    using.add_document(CONFIG).map_err(text)?;
    let manifest = using.add_document(&made.artifact.to_manifest()).map_err(text)?;
    using.set_name(&reference(name), &manifest).map_err(text)?;
    let files: Vec<_> = made.artifact.files().map(|blob| blob.digest).collect();
    filling.close(&files).map(drop).map_err(text)
}

/// All that a check finds.
pub(crate) fn problems(store: &Store) -> Vec<Problem> {
    let mut problems = Vec::new();
    using(store).check(&Cancel::default(), &mut |problem| problems.push(problem)).expect("a check");
    problems
}

/// The path of a blob.
pub(crate) fn blob(store: &Store, digest: &Digest) -> PathBuf {
    store.path().join("blobs/sha256").join(digest.to_string())
}

/// All files below a directory, and links, by their paths in it, sorted.
pub(crate) fn tree(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).expect("a directory") {
            let path = entry.expect("a name").path();
            if path.symlink_metadata().expect("a file").is_dir() {
                open.push(path);
            } else {
                found.push(path.strip_prefix(dir).expect("a path").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// The digest of bytes.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    sha256(bytes)
}
