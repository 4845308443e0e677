// SPDX-License-Identifier: GPL-2.0-or-later

//! Signatures over an image, and the certificates of those who are trusted to make them.

use std::path::Path;

use openssl::cms::{CMSOptions, CmsContentInfo};
use openssl::error::ErrorStack;
use openssl::stack::Stack;
use openssl::x509::X509;

use crate::error::Error;
use crate::text;

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

/// Why a signature does not count.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The thing found instead of a signature by a trusted key.
    pub found: &'static str,
    /// The reasons of the library.
    pub detail: String,
}

/// Verifies a detached signature over `data`. Trust comes from `trusted` alone: certificates in the signature are not used,
/// and, as in the kernel, neither chains nor dates are looked at.
pub fn verify(signature: &[u8], data: &[u8], trusted: &[Certificate]) -> Result<(), Refusal> {
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
