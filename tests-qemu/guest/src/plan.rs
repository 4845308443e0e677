// SPDX-License-Identifier: GPL-2.0
//! The files that the host prepared for the guest: images, manifests, keys and places to damage.
//!
//! The plan lies as `plan.json` on the data disk; every path in it is relative to that disk's root.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// An image, and what must be found in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Image {
    /// The image file.
    pub image: String,
    /// The [`Manifest`](crate::manifest::Manifest) of its source tree.
    pub manifest: String,
    /// Image ID in hexadecimal, as `digest=sha256:` takes it.
    pub image_id: String,
}

/// A filesystem in a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Nest {
    /// The kernel's name of its type.
    pub kind: String,
    /// The file.
    pub file: String,
}

/// One bit to flip.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Flip {
    /// Name of the region, as fsck names it.
    pub region: String,
    /// Byte in the image.
    pub offset: u64,
    /// Bit in that byte.
    pub bit: u8,
}

/// The images of the signature tests, all of one small tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Signed {
    /// Certificates (DER) that are put into the keyring.
    pub trusted: Vec<String>,
    /// Images signed by those, in the same order.
    pub good: Vec<Image>,
    /// Image without a signature.
    pub unsigned: Image,
    /// Signed by a key that is in no keyring.
    pub stranger: Image,
    /// Carries the signature of another image, made by a trusted key.
    pub transplanted: Image,
    /// One bit of the tree ID flipped after signing.
    pub tampered: Image,
}

/// One tree in three file systems, each to be mounted read-only and asked the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answers {
    /// The image.
    pub image: Image,
    /// The tree in ext4, whose answers are the measure.
    pub ext4: String,
    /// The tree in EROFS.
    pub erofs: String,
}

/// Bytes of the file `large` in that tree: more than two huge pages.
pub const ANSWERS_LARGE: usize = 5 << 20;

/// A tree with SELinux labels: the files `open` and `secret`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Labels {
    /// The image.
    pub image: Image,
    /// A policy as the kernel takes it, by which nobody may read `secret`.
    pub policy: String,
}

/// The label of `open` in that tree.
pub const LABEL_OPEN: &str = "system_u:object_r:open_t";

/// The label of `secret`.
pub const LABEL_SECRET: &str = "system_u:object_r:secret_t";

/// Images in the shared form, and their packs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Packed {
    /// The directory of packs.
    pub directory: String,
    /// The small tree, all of it in one pack.
    pub base: Image,
    /// That pack.
    pub base_pack: String,
    /// The same and more, signed: in that pack and in another one.
    pub next: Image,
    /// The other one.
    pub next_pack: String,
    /// A tree in as many packs as an image can have.
    pub many: Image,
    /// The directory of these.
    pub many_directory: String,
    /// Layers, the lowest first, with whiteouts and opaque directories.
    pub layers: Vec<Image>,
    /// The image that is composed of them.
    pub composed: String,
}

/// Everything the guest needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The Debian root. Its image is on the second virtio disk, too, raw.
    pub root: Image,
    /// A tree with a file of 2^63-1 bytes.
    pub sparse: Image,
    /// A few megabytes with every kind of file.
    pub small: Image,
    /// Read-only filesystems with the image of `small` in their root, under its name.
    pub nests: Vec<Nest>,
    /// The tree that the cases of xfstests need (see [`crate::cases`]).
    pub cases: Image,
    /// The tree whose answers are compared with those of other file systems.
    pub answers: Answers,
    /// The tree whose files SELinux tells apart.
    pub labels: Labels,
    /// An image of a layer in which `directory` is opaque, and has the file `new`.
    pub opaque: String,
    /// Images whose chunks lie in packs.
    pub packed: Packed,
    /// The signature tests.
    pub signed: Signed,
    /// Bits of `signed.good[0]` to flip, one at a time.
    pub flips: Vec<Flip>,
    /// `small` with an incompat bit set that nobody knows.
    pub unknown_feature: String,
    /// Path, in the root image, of the directory with a great many entries.
    pub big_directory: String,
}

/// The annotation with the OCI image configuration: entrypoint, environment, user.
pub const OCI_CONFIG: &str = "org.opencontainers.image.config";

/// Facts for the tests of a machine that boots from an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Appliance {
    /// Image ID of the root, in hexadecimal.
    pub image_id: String,
    /// That of the root with packs, where one is booted as a file.
    pub packed_id: Option<String>,
    /// Path of a file of the root that nothing needs at boot.
    pub touched: String,
    /// Entry for the blacklist, whose signature is `blacklist.p7s`.
    pub blacklist_entry: String,
}

/// Names that are looked up in each folder of a broken image. The good one has none of them, and where a search goes for
/// them differs.
pub const MISSING: [&[u8]; 4] = [b"\x01", b"no such name", b"m\xff", b"\xff\xff"];

/// Files of a broken image up to this size are read from end to end.
pub const READ_WHOLE: u64 = 1 << 20;

/// Bytes of an image to be written over.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Patch {
    /// Byte in the image.
    pub offset: u32,
    /// The bytes to write.
    pub bytes: Vec<u8>,
}

/// The answers that the kernel may give to a broken image. Errnos are Linux's numbers.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Expected {
    /// The mount is refused with this one.
    pub refusal: Option<i32>,
    /// The errnos that anything may fail with, once it is mounted.
    pub errors: Vec<i32>,
    /// Something fails for sure.
    pub must_fail: bool,
}

/// An image that is broken, and signed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mutant {
    /// The change that was made to it.
    pub name: String,
    /// Its bytes; those of the good image and zeros, but for the patches.
    pub length: u32,
    /// Where it differs from the good image.
    pub patches: Vec<Patch>,
    /// The answers that the kernel may give.
    pub expected: Expected,
    /// Data that was verified in other images may hide the defect of this one: it is to be forgotten before.
    pub cold: bool,
}

impl Mutant {
    /// Whether it was broken at random: then its name begins with the number that it was made from.
    pub fn is_random(&self) -> bool {
        self.name.starts_with(|first: char| first.is_ascii_digit())
    }
}

/// Broken images of one good one: thousands, so they have a file of their own, in a compact form.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mutants {
    /// The good image.
    pub image: String,
    /// The broken ones.
    pub list: Vec<Mutant>,
}

impl Mutants {
    /// Writes them down.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = postcard::to_stdvec(self).context("broken images cannot be written down")?;
        std::fs::write(path, bytes).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Reads them back.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        postcard::from_bytes(&bytes).with_context(|| format!("{} is damaged", path.display()))
    }
}
