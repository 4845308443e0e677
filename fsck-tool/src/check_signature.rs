// SPDX-License-Identifier: GPL-2.0-or-later

//! The signature: its digest, its padding, and whether a trusted key made it.

use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::superblock::signed_prefix;
use tesserafs_format::{Place, Rule, SuperBlock};

use tesserafs_image::error::Error;
use tesserafs_image::finding::{Finding, Findings};
use tesserafs_image::hash::sha256;
use tesserafs_image::metadata::Block;
use tesserafs_image::signature::verify;
pub use tesserafs_image::signature::Certificate;
use tesserafs_image::source::Source;

/// Checks the signature behind the image; whether one of `trusted` made it, `None` where there is none to ask for.
pub(crate) fn check(
    source: &Source,
    block: &Block,
    sb: &SuperBlock,
    trusted: &[Certificate],
    findings: &Findings,
) -> Result<Option<bool>, Error> {
    let place = Place::Byte(sb.layout.image_bytes);
    let asked = (!trusted.is_empty()).then_some(false);
    if sb.signature_bytes == 0 {
        if asked.is_some() {
            let finding = Finding::new(Rule::Signature, place, "no signature", "a signature");
            findings.add(finding.detail("the image is not signed"));
        }
        return Ok(asked);
    }
    if source.len() < sb.file_bytes() {
        // Reported as `file-length`.
        return Ok(asked);
    }
    let mut bytes = vec![0; u64::from(sb.signature_bytes).next_multiple_of(BLOCK_BYTES) as usize];
    source.read_at(sb.layout.image_bytes, &mut bytes)?;
    let (signature, padding) = bytes.split_at(sb.signature_bytes as usize);
    if let Some(at) = padding.iter().position(|byte| *byte != 0) {
        let place = Place::Byte(sb.layout.image_bytes + (signature.len() + at) as u64);
        findings.add(Finding::new(Rule::SignaturePadding, place, u32::from(padding[at]), 0_u32));
    }
    let found = sha256(signature);
    if found != sb.signature_digest {
        let finding = Finding::new(Rule::SignatureDigest, place, found, sb.signature_digest);
        findings.add(finding.detail("the signature is damaged; whose it was cannot be told"));
        return Ok(asked);
    }
    if asked.is_none() {
        return Ok(None);
    }
    match verify(signature, signed_prefix(block), trusted) {
        Ok(()) => Ok(Some(true)),
        Err(refusal) => {
            let finding = Finding::new(Rule::Signature, place, refusal.found, "a signature by a trusted key");
            findings.add(finding.detail(refusal.detail));
            Ok(asked)
        }
    }
}
