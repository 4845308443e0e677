// SPDX-License-Identifier: GPL-2.0

//! The head of an image: all that a mount reads of it, in the order in which it is read and checked.
//!
//! It is read before there is a superblock. Until the signature is checked, nothing of the image is looked
//! at but its superblock, which is parsed in place, and the signature itself.

use kernel::fmt;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE};
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{
    Digest, FormatError, Image, Ino, Inode, Pack, PackIndex, PackKind, Place, Rule,
    SuperBlock as ImageSuperBlock,
};

use crate::error::{Failure, ImageId};
use crate::klib::buffer::Buffer;
use crate::meta::EarlyReader;
use crate::mount::Tesserafs;
use crate::mount_error;
use crate::options::Options;
use crate::pack::Packs;
use crate::signature::{self, Signer};
use crate::stats::Stats;
use crate::verify::KernelSha256;
use crate::vfs::{Backing, FsContext};

/// The head of an image, read and verified, and not refused.
pub(crate) struct Head {
    pub(crate) backing: Backing,
    /// The superblock of the image.
    pub(crate) sb: KBox<ImageSuperBlock>,
    /// The finding about its signature.
    pub(crate) signer: Signer,
    /// Its ID, and what is counted for it.
    pub(crate) stats: Arc<Stats>,
    /// Where its chunks are.
    pub(crate) packs: Packs,
    /// Its root directory.
    pub(crate) root: Inode,
}

impl Head {
    /// Reads the head of the image in `backing`.
    pub(crate) fn read(
        fc: &FsContext<Tesserafs>,
        options: &Options,
        backing: Backing,
    ) -> Result<KBox<Self>> {
        let refuse = |failure: Failure| {
            mount_error!(fc, "{}", failure);
            failure.errno()
        };

        // 1. The superblock, which is proven by its own digest: the image ID.
        if backing.len() < BLOCK_BYTES {
            mount_error!(
                fc,
                "{} bytes are no image, a superblock has {}",
                backing.len(),
                BLOCK_BYTES
            );
            return Err(EINVAL);
        }
        let block = read_superblock(&backing).map_err(refuse)?;
        let block: &[u8; BLOCK_SIZE] = block.first_chunk().ok_or(EIO)?;
        let id = check_prefix::<KernelSha256>(block).map_err(|error| refuse(error.into()))?;
        let id = ImageId(id);
        let sb = parse(block).map_err(refuse)?;
        let refuse = |failure: Failure| {
            mount_error!(fc, "{}: {}", id, failure);
            failure.errno()
        };

        // 2. Whether the image is all there.
        check_length(&backing, &sb).map_err(refuse)?;

        // 3. Whether it is the one that the mounter wants.
        options.check_digest(id).map_err(refuse)?;

        // 4. Whether the machine allows it: by its signature, and by what the mounter vouches for.
        let signer =
            signature::verify(&backing, block, &sb, &fc.global().keyring).map_err(refuse)?;
        check_signer(fc, id, signer)?;
        options.check_trust(fc, id)?;

        // 5. The first metadata, which the superblock vouches for.
        let stats = Arc::pin_init(Stats::new(id, fc.is_privileged()), GFP_KERNEL)?;
        let reader = EarlyReader::new(&backing, &sb, &stats);
        let layout = &sb.layout;
        reader.ask_for(&[layout.packs, layout.attributes, layout.inodes]);
        let image = Image::new(&sb, &reader);
        let root = image.inode(Ino::ROOT).map_err(refuse)?;

        // 6. The packs, those in files of their own, too.
        let beside = layout.packs.records().saturating_sub(1);
        check_device(fc, id, &backing, beside)?;
        options.packs.check_count(fc, beside)?;
        let mut packs = Packs::new(layout.packs.records())?;
        for index in 0..layout.packs.records() {
            let index = PackIndex(index as u16);
            let pack = image.pack(index).map_err(refuse)?;
            packs.add(open(fc, options, &backing, id, &pack)?, pack)?;
        }
        if let Err((pack, failure)) = packs.check_first(&image) {
            mount_error!(fc, "{}: {}: in {}", id, failure, PackName(pack.digest));
            return Err(failure.errno());
        }

        Ok(KBox::new(
            Self {
                backing,
                sb,
                signer,
                stats,
                packs,
                root,
            },
            GFP_KERNEL,
        )?)
    }
}

/// Refuses an image on a device that has packs beside it.
///
/// A device is read while its superblock is on the list of all superblocks, locked: nobody else may wait for
/// the store of a pack. And another mount of the device would get this superblock, whatever packs it names.
fn check_device(fc: &FsContext<Tesserafs>, id: ImageId, image: &Backing, beside: u64) -> Result {
    if image.is_device() && beside > 0 {
        mount_error!(
            fc,
            "{}: an image on a device is in one file, this one has {} packs beside it: tesserafs unpack",
            id,
            beside
        );
        return Err(EINVAL);
    }
    Ok(())
}

/// What the bytes of a pack are read from: the image, or a file of their own, which has no others.
fn open(
    fc: &FsContext<Tesserafs>,
    options: &Options,
    image: &Backing,
    id: ImageId,
    pack: &Pack,
) -> Result<Backing> {
    if pack.kind == PackKind::Embedded {
        return Ok(image.clone());
    }
    let name = CString::try_from_fmt(fmt!("{}", PackName(pack.digest)))?;
    let file = options.packs.open(fc, pack.index.0, &name)?;
    if file.len() != pack.bytes {
        let place = Place::Pack(pack.index.0);
        let failure = Failure::from(FormatError::new(
            Rule::PackDigest,
            place,
            file.len(),
            pack.bytes,
        ));
        mount_error!(
            fc,
            "{}: {}: bytes of {}",
            id,
            failure,
            PackName(pack.digest)
        );
        return Err(failure.errno());
    }
    Ok(file)
}

/// The name of the file that a pack is.
struct PackName(Digest);

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Reads the first block of the backing store.
fn read_superblock(backing: &Backing) -> Result<Buffer<u8>, Failure> {
    backing
        .read(0, BLOCK_SIZE)
        .map_err(|error| Failure::backing(Place::SuperBlock(0), error))
}

/// Parses the superblock, which is too large to be passed by value.
#[inline(never)]
fn parse(block: &[u8; BLOCK_SIZE]) -> Result<KBox<ImageSuperBlock>, Failure> {
    let sb = ImageSuperBlock::parse(block)?;
    Ok(KBox::new(sb, GFP_KERNEL).map_err(Error::from)?)
}

/// Refuses an image of which the backing store does not hold all.
fn check_length(backing: &Backing, sb: &ImageSuperBlock) -> Result<(), Failure> {
    let (found, expected) = (backing.len(), sb.file_bytes());
    if found < expected {
        return Err(FormatError::new(Rule::FileLength, Place::Byte(found), found, expected).into());
    }
    Ok(())
}

/// Refuses an image with such a signature if the machine does not allow it, and says why.
pub(crate) fn check_signer(fc: &FsContext<Tesserafs>, id: ImageId, signer: Signer) -> Result {
    signer.check_policy().inspect_err(|_| {
        mount_error!(
            fc,
            "{}: {}, and signatures are required",
            id,
            signer.describe()
        );
    })
}
