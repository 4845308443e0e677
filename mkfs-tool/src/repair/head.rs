// SPDX-License-Identifier: GPL-2.0-or-later

//! The first block, and the signature that it names.
//!
//! The image ID proves the first 512 bytes. Nothing proves the length and the digest of the signature behind them, and nothing has to: a
//! signature is good or not whatever stands there. So the image's own fields count while they are believable and lead to a signature that
//! some file has; else those of a copy that has one.

use tesserafs_format::limits::{BLOCK_BYTES, BLOCK_SIZE, SIGNATURE_MAX, SIGNED_PREFIX};
use tesserafs_format::superblock::check_prefix;
use tesserafs_format::{Digest, SuperBlock};
use tesserafs_image::metadata::Block;
use tesserafs_image::Source;

use super::donor::{self, Donor, Kind};
use super::RepairRequest;
use crate::bundle::salvage;
use crate::encode::{sha256, Sha2};
use crate::error::{Error, Result, Shown};

/// Where the digest of the signed prefix is, and its end, where the signature's length is.
const PREFIX_DIGEST: usize = SIGNED_PREFIX;
const SIGNATURE_BYTES: usize = PREFIX_DIGEST + 32;

/// Where the signature's digest is.
const SIGNATURE_DIGEST: usize = SIGNATURE_BYTES + 16;

/// IDs that a hint names, at most.
const HINTS: usize = 5;

/// The first block, and the signature.
pub(super) struct Head {
    /// The image ID.
    pub(super) id: Digest,
    /// The first block.
    pub(super) block: Box<Block>,
    /// The superblock.
    pub(super) sb: SuperBlock,
    /// The signature; empty of an unsigned image.
    pub(super) signature: Vec<u8>,
    /// No file has the signature; the superblock says that there is none.
    pub(super) is_signature_lost: bool,
}

/// The length and the digest of a signature, as a superblock has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    bytes: u32,
    digest: Digest,
}

const UNSIGNED: Fields = Fields { bytes: 0, digest: Digest([0; 32]) };

impl Fields {
    fn of(block: &Block) -> Self {
        let bytes = block[SIGNATURE_BYTES..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        let digest = Digest(block[SIGNATURE_DIGEST..].first_chunk().copied().unwrap_or_default());
        Self { bytes, digest }
    }

    /// Whether a superblock can have them.
    fn are_possible(self) -> bool {
        let is_signed = self.bytes > 0 && self.digest != UNSIGNED.digest;
        self.bytes <= SIGNATURE_MAX && (is_signed || self == UNSIGNED)
    }
}

/// The first block of a file, and its signature where the file is a bundle.
struct Copy<'d> {
    donor: &'d Donor,
    block: Box<Block>,
    signature: Option<Vec<u8>>,
}

impl Head {
    /// Finds both.
    pub(super) fn find(request: &RepairRequest, image: &Source, donors: &[Donor]) -> Result<Self> {
        let own = donor::first_block(image);
        let id = id(request, &own, donors)?;
        let copies = copies(id, donors);
        let is_own_right = prefix_digest(&own) == id;
        let mut prefix = own.clone();
        match copies.first() {
            _ if is_own_right => (),
            Some(copy) => {
                donor::count(&copy.donor.taken.heads, 1);
                prefix.clone_from(&copy.block);
            }
            None if flip_one_bit(&mut prefix, id) => (),
            None => {
                let reason = format!("no file of --from has the first 512 bytes of sha256:{id}");
                return Err(Error::unsupported(&request.image, reason));
            }
        }
        let at_fault = |source| Error::Image { path: request.image.clone(), source };
        let unsigned = assemble(&prefix, id, UNSIGNED);
        let end = SuperBlock::parse(&unsigned).map_err(at_fault)?.layout.image_bytes;
        // The whole block may be lost, and zeros say that there is no signature.
        let is_believable = is_own_right || own[PREFIX_DIGEST..SIGNATURE_BYTES] == id.0;
        let own_fields = own_fields(image, &own, end).filter(|_| is_believable);
        let found = find_signature(image, end, own_fields, &copies);
        let (fields, signature) = found.clone().unwrap_or((UNSIGNED, Vec::new()));
        let block = assemble(&prefix, id, fields);
        let sb = SuperBlock::parse(&block).map_err(at_fault)?;
        Ok(Self { id, block, sb, signature, is_signature_lost: found.is_none() })
    }
}

/// The fields of the image. Where only one of the two says that there is a signature, the bytes at `end` of the image tell; none if these
/// do not.
fn own_fields(image: &Source, own: &Block, end: u64) -> Option<Fields> {
    let fields = Fields::of(own);
    if fields.are_possible() {
        return Some(fields);
    }
    let is_alone = image.len() >= end && donor::are_zeros(image, end, image.len().min(end + BLOCK_BYTES));
    (is_alone && !image.is_device()).then_some(UNSIGNED)
}

/// The ID that the image should have.
fn id(request: &RepairRequest, own: &Block, donors: &[Donor]) -> Result<Digest> {
    let found = check_prefix::<Sha2>(own);
    match (request.id, found) {
        (None, Ok(id)) => Ok(id),
        (Some(wanted), Ok(id)) if wanted != id && request.output.is_none() => Err(Error::unsupported(
            &request.image,
            format!(
                "is the image sha256:{id}, not sha256:{wanted}: its first 512 bytes are not damaged; write the other image \
                 elsewhere, with --output"
            ),
        )),
        (Some(wanted), _) => Ok(wanted),
        (None, Err(error)) => {
            let mut hints: Vec<String> = Vec::new();
            for donor in donors {
                let id = match &donor.kind {
                    Kind::Image { id, .. } => *id,
                    Kind::Bundle(header) => header.new,
                    Kind::Other => continue,
                };
                hints.push(format!("{} has sha256:{id}", Shown(donor.path())));
            }
            hints.truncate(HINTS);
            let hints = if hints.is_empty() { String::new() } else { format!(" ({})", hints.join(", ")) };
            let reason = format!(
                "the first 512 bytes, of which the image ID is the digest, or that digest, are damaged ({error}), so nothing tells \
                 which image this was: name it by --id sha256:HEX{hints}"
            );
            Err(Error::unsupported(&request.image, reason))
        }
    }
}

/// The first blocks of files that have this image, by its ID.
fn copies(id: Digest, donors: &[Donor]) -> Vec<Copy<'_>> {
    let mut copies = Vec::new();
    for donor in donors {
        let (block, signature) = match &donor.kind {
            Kind::Bundle(header) if header.new != id => continue,
            Kind::Bundle(_) => match salvage::first_block(&donor.source) {
                Ok((block, signature)) => (block, Some(signature)),
                Err(error) => {
                    donor.note(error.to_string());
                    continue;
                }
            },
            _ => (donor::first_block(&donor.source), None),
        };
        if prefix_digest(&block) == id {
            copies.push(Copy { donor, block, signature });
        }
    }
    copies
}

/// The signature that the image should have, with its length and digest; none if it is lost.
fn find_signature(
    image: &Source,
    offset: u64,
    own: Option<Fields>,
    copies: &[Copy<'_>],
) -> Option<(Fields, Vec<u8>)> {
    let in_file = |source: &Source, fields: Fields| {
        let mut bytes = vec![0; fields.bytes as usize];
        donor::read_all(source, offset, &mut bytes).then_some(bytes)
    };
    let in_copy = |copy: &Copy<'_>, fields: Fields| {
        let bytes = copy.signature.clone().or_else(|| in_file(&copy.donor.source, fields));
        bytes.filter(|bytes| bytes.len() == fields.bytes as usize && sha256(bytes) == fields.digest)
    };
    match own {
        Some(UNSIGNED) => return Some((UNSIGNED, Vec::new())),
        Some(own) => {
            if let Some(bytes) = in_file(image, own).filter(|bytes| sha256(bytes) == own.digest) {
                return Some((own, bytes));
            }
            for copy in copies {
                if let Some(bytes) = in_copy(copy, own) {
                    donor::count(&copy.donor.taken.heads, 1);
                    return Some((own, bytes));
                }
            }
        }
        None => (),
    }
    // The fields may be what is damaged: of several signatures that is the one which the image has.
    let mut whole: Vec<(&Copy<'_>, Fields, Vec<u8>)> = Vec::new();
    for copy in copies {
        let fields = Fields::of(&copy.block);
        if fields.are_possible() && fields != UNSIGNED {
            whole.extend(in_copy(copy, fields).map(|bytes| (copy, fields, bytes)));
        }
    }
    let is_own =
        |(_, fields, bytes): &(&Copy<'_>, Fields, Vec<u8>)| in_file(image, *fields).as_ref() == Some(bytes);
    let at = whole.iter().position(is_own).unwrap_or(0);
    if at < whole.len() {
        let (copy, fields, bytes) = whole.swap_remove(at);
        donor::count(&copy.donor.taken.heads, 1);
        return Some((fields, bytes));
    }
    // The image says nothing that can be believed, and a copy says that there is none.
    let is_unsigned = own.is_none() && copies.iter().any(|copy| Fields::of(&copy.block) == UNSIGNED);
    is_unsigned.then(|| (UNSIGNED, Vec::new()))
}

/// Whether the first bytes have their digest with one bit that is another one; that is flipped then. It is the damage that needs no copy.
fn flip_one_bit(block: &mut Block, id: Digest) -> bool {
    (0..8 * SIGNED_PREFIX).any(|bit| {
        block[bit / 8] ^= 1 << (bit % 8);
        let is_right = prefix_digest(block) == id;
        if !is_right {
            block[bit / 8] ^= 1 << (bit % 8);
        }
        is_right
    })
}

fn prefix_digest(block: &Block) -> Digest {
    sha256(&block[..SIGNED_PREFIX])
}

/// The first block of an image: all that is not said here is zero.
fn assemble(prefix: &Block, id: Digest, fields: Fields) -> Box<Block> {
    let mut block = Box::new([0; BLOCK_SIZE]);
    block[..SIGNED_PREFIX].copy_from_slice(&prefix[..SIGNED_PREFIX]);
    block[PREFIX_DIGEST..SIGNATURE_BYTES].copy_from_slice(&id.0);
    block[SIGNATURE_BYTES..SIGNATURE_BYTES + 4].copy_from_slice(&fields.bytes.to_le_bytes());
    block[SIGNATURE_DIGEST..SIGNATURE_DIGEST + 32].copy_from_slice(&fields.digest.0);
    block
}
