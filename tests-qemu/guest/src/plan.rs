// SPDX-License-Identifier: GPL-2.0
//! What the host prepared for the guest: images, manifests, keys and places to damage.
//!
//! The plan lies as `plan.json` on the data disk; every path in it is relative to that disk's root.

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

/// Everything the guest needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The Debian root. Its image is on the second virtio disk, too, raw.
    pub root: Image,
    /// A tree with a file of 2^63-1 bytes.
    pub sparse: Image,
    /// A few megabytes with every kind of file.
    pub small: Image,
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

/// What the tests of a machine that boots from an image need to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Appliance {
    /// Image ID of the root, in hexadecimal.
    pub image_id: String,
    /// Path of a file of the root that nothing needs at boot.
    pub touched: String,
    /// Entry for the blacklist, whose signature is `blacklist.p7s`.
    pub blacklist_entry: String,
}
