// SPDX-License-Identifier: GPL-2.0

//! The signature of an image, over its signed prefix, and what the machine asks for.

use kernel::prelude::*;

use tesserafs_format::limits::BLOCK_SIZE;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::superblock::signed_prefix;
use tesserafs_format::{FormatError, Place, Rule, SuperBlock as ImageSuperBlock, Verified};

use crate::error::Failure;
use crate::klib::keyring::Keyring;
use crate::klib::param::require_signatures;
use crate::klib::pkcs7::{self, TrustedKeys};
use crate::verify::KernelSha256;
use crate::vfs::Backing;

/// The finding of the kernel about the signature of an image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    /// A trusted key signed it.
    Trusted,
    /// A key signed it that no keyring holds.
    Unknown,
    /// Nobody signed it.
    Nobody,
}

impl Signer {
    /// Refuses images with such a signature if the machine does not allow them now.
    ///
    /// # Errors
    ///
    /// Where signatures are required: `ENOKEY` for an unknown signer, `ENODATA` for none.
    pub(crate) fn check_policy(self) -> Result {
        match self {
            Signer::Unknown if require_signatures() => Err(ENOKEY),
            Signer::Nobody if require_signatures() => Err(ENODATA),
            _ => Ok(()),
        }
    }

    /// How the log says it.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Signer::Trusted => "signed by a trusted key",
            Signer::Unknown => "signed by an unknown key",
            Signer::Nobody => "not signed",
        }
    }
}

/// Reads the signature of the image that begins with `block`, and looks for a key of it in
/// `.tesserafs`, then in the kernel's builtin and secondary trusted keyrings.
///
/// # Errors
///
/// `EBADMSG` for a signature that is damaged or no PKCS#7 message, `EKEYREJECTED` for one over
/// something else.
pub(crate) fn verify(
    backing: &Backing,
    block: &[u8; BLOCK_SIZE],
    sb: &ImageSuperBlock,
    keyring: &Keyring,
) -> Result<Signer, Failure> {
    if sb.signature_bytes == 0 {
        return Ok(Signer::Nobody);
    }
    let place = Place::Byte(sb.layout.image_bytes);
    let signature = backing
        .read(sb.layout.image_bytes, usize_from_u32(sb.signature_bytes))
        .map_err(|error| Failure::backing(place, error))?;
    let signature =
        Verified::check::<KernelSha256>(&signature, &sb.signature_digest).map_err(|found| {
            FormatError::new(
                Rule::SignatureDigest,
                place,
                found.prefix(),
                sb.signature_digest.prefix(),
            )
        })?;
    for keys in [TrustedKeys::Keyring(keyring), TrustedKeys::System] {
        match pkcs7::verify(signed_prefix(block), signature.bytes(), keys) {
            Ok(()) => return Ok(Signer::Trusted),
            // A kernel that lacks the algorithm, or all of PKCS#7, knows no signer either.
            Err(error) if error == ENOKEY || error == ENOPKG || error == EOPNOTSUPP => {}
            // Of the right form, and by a key that is there, but not over these bytes.
            Err(error) if error == EINVAL => return Err(Failure::Signature(place, EKEYREJECTED)),
            Err(error) => return Err(Failure::Signature(place, error)),
        }
    }
    Ok(Signer::Unknown)
}
