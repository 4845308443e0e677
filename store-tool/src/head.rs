// SPDX-License-Identifier: GPL-2.0-or-later

//! The decision whether an image is the one that is wanted: taken before anything of it is parsed but its superblock.

use tesserafs_format::superblock::signed_prefix;
use tesserafs_format::{Digest, FormatError, Place, Rule};
use tesserafs_image::hash::sha256;
use tesserafs_image::signature::{verify, Certificate};
use tesserafs_image::superblock::{read_head, Head};
use tesserafs_image::{Broken, Error, Source};

/// The demands on an image.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The ID that it has.
    pub id: Option<Digest>,
    /// The signers one of whom has signed it; nobody in particular where there are none.
    pub signers: Vec<Certificate>,
}

/// Reads the superblock of the image in `source`, and refuses an image that is another one.
pub fn read(source: &Source, wanted: &Wanted) -> Result<Head, Broken> {
    let head = read_head(source)?;
    if let Some(id) = wanted.id.filter(|id| *id != head.id) {
        let place = Place::SuperBlock(0);
        return Err(FormatError::new(Rule::ImageId, place, head.id.prefix(), id.prefix()).into());
    }
    check_signature(source, &head, &wanted.signers)?;
    Ok(head)
}

/// As the kernel does, compares the signature of any image that has one with its digest.
fn check_signature(source: &Source, head: &Head, signers: &[Certificate]) -> Result<(), Broken> {
    let sb = &head.sb;
    let place = Place::Byte(sb.layout.image_bytes);
    let refuse = |found: &str| {
        let rule = Rule::Signature.name();
        Error::Refused(format!("{rule} @ {place}: found {found}, expected a signature by a trusted key"))
    };
    if sb.signature_bytes == 0 {
        return if signers.is_empty() { Ok(()) } else { Err(refuse("no signature").into()) };
    }
    // Proven to be 64 KiB at most.
    let mut signature = vec![0; sb.signature_bytes as usize];
    source.read_at(sb.layout.image_bytes, &mut signature)?;
    let found = sha256(&signature);
    if found != sb.signature_digest {
        let (found, expected) = (found.prefix(), sb.signature_digest.prefix());
        return Err(FormatError::new(Rule::SignatureDigest, place, found, expected).into());
    }
    if signers.is_empty() {
        return Ok(());
    }
    let verified = verify(&signature, signed_prefix(&head.block), signers);
    verified.map_err(|refusal| refuse(&format!("{} ({})", refusal.found, refusal.detail)).into())
}
