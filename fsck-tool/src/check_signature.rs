// SPDX-License-Identifier: GPL-2.0-or-later

//! The signature: its digest, its padding, and whether a trusted key made it.

use std::path::Path;

use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::X509;
use tesserafs_format::limits::BLOCK_BYTES;
use tesserafs_format::superblock::signed_prefix;
use tesserafs_format::{Place, Rule, SuperBlock};

use tesserafs_image::error::Error;
use tesserafs_image::finding::{Finding, Findings};
use tesserafs_image::hash::sha256;
use tesserafs_image::metadata::Block;
use tesserafs_image::source::Source;
use tesserafs_image::text;

/// The certificate of a trusted signer.
#[derive(Clone, Debug)]
pub struct Certificate(X509);

impl Certificate {
    /// Reads all certificates of a PEM file.
    pub fn read_pem(path: &Path) -> Result<Vec<Self>, Error> {
        let what = || format!("cannot read certificate {}", text::path(path));
        let pem = std::fs::read(path).map_err(|source| Error::Io { what: what(), source })?;
        let certificates = X509::stack_from_pem(&pem).unwrap_or_default();
        if certificates.is_empty() {
            return Err(Error::Refused(format!("{}: no PEM certificate in it", what())));
        }
        Ok(certificates.into_iter().map(Certificate).collect())
    }
}

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

/// Why a signature does not count.
struct Refusal {
    found: &'static str,
    detail: String,
}

/// Verifies a detached signature over `data`. Trust comes from `trusted` alone: certificates in the signature are not used,
/// and, as in the kernel, neither chains nor dates are looked at.
fn verify(signature: &[u8], data: &[u8], trusted: &[Certificate]) -> Result<(), Refusal> {
    let refuse = |found| move |stack: ErrorStack| Refusal { found, detail: reasons(&stack) };
    let mut cms =
        CmsContentInfo::from_der(signature).map_err(refuse("bytes that are no PKCS#7 signature"))?;
    let mut certificates = Stack::new().map_err(refuse("no answer of the library"))?;
    for certificate in trusted {
        certificates.push(certificate.0.clone()).map_err(refuse("no answer of the library"))?;
    }
    let options =
        CMSOptions::BINARY | CMSOptions::DETACHED | CMSOptions::NOINTERN | CMSOptions::NO_SIGNER_CERT_VERIFY;
    cms.verify(Some(&certificates), None, Some(data), None, options).map_err(|stack| {
        let has = |reason: &str| stack.errors().iter().any(|error| error.reason() == Some(reason));
        let found = if has("signer certificate not found") {
            "a signature by an unknown signer"
        } else if has("verification failure") || has("content verify error") {
            "a signature over other data, or by another key of the same name"
        } else {
            "a signature that cannot be verified"
        };
        Refusal { found, detail: reasons(&stack) }
    })
}

/// The reasons of the library, in one line.
fn reasons(stack: &ErrorStack) -> String {
    let reasons: Vec<&str> = stack.errors().iter().filter_map(|error| error.reason()).collect();
    if reasons.is_empty() {
        return "the library gives no reason".to_owned();
    }
    reasons.join(", ")
}
