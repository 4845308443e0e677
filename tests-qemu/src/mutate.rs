// SPDX-License-Identifier: GPL-2.0
//! Images that are broken by design: a good image, one thing in it changed, and then every digest made right again,
//! and the signature, so that verification passes and nothing but validation is left.
//!
//! [`rules`] names the changes, with the verdict that each must get; [`random`] makes as many as one likes from a
//! number. [`parts`] takes an image apart and puts it together, [`frames`] makes zstd frames that libzstd would not,
//! [`reader`] says what the kernel must say, [`pack`] writes it all down for the guest.

pub(crate) mod frames;
pub(crate) mod good;
pub(crate) mod pack;
pub(crate) mod parts;
pub(crate) mod random;
pub(crate) mod reader;
pub(crate) mod rules;
#[cfg(test)]
mod tests;

use anyhow::Result;
use tesserafs_format::superblock::Layout;
use tesserafs_format::Rule;

use parts::Parts;
use reader::{At, Failure, Reading, Refusal};

/// The kernel's verdict on an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// It does not mount it, because of this rule.
    Refuses(Rule),
    /// It does not mount it, as the mounter does not say where a pack is.
    LacksPack,
    /// It mounts it; something fails because of this rule.
    Fails(At, Rule),
    /// It reads all of it: its oddity need not bother a kernel.
    Reads,
}

impl Kernel {
    /// Whether the reader gave it.
    pub(crate) fn is_verdict_of(self, reading: &Reading) -> bool {
        match self {
            Kernel::Refuses(rule) => {
                matches!(reading.refusal, Some(Refusal::Broken(error)) if error.rule == rule)
            }
            Kernel::LacksPack => reading.refusal == Some(Refusal::External),
            Kernel::Fails(at, rule) => {
                let is_it = |failure: &Failure| failure.at == at && failure.error.rule == rule;
                reading.refusal.is_none() && reading.failures.iter().any(is_it)
            }
            Kernel::Reads => reading.refusal.is_none() && reading.failures.is_empty(),
        }
    }
}

/// When something is changed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Break {
    /// In the tables, before anything is digested.
    Records(fn(&mut Parts) -> Result<()>),
    /// In the bytes that the tables make, before they are digested.
    Laid(fn(&mut [u8], &Layout) -> Result<()>),
    /// In the digested image, before it is signed. A change of the superblock repairs the digest of its
    /// prefix.
    Digested(fn(&mut Vec<u8>, &Layout) -> Result<()>),
    /// At last: in bytes that no digest covers, or that are not to be covered.
    Late(fn(&mut Vec<u8>, &Layout) -> Result<()>),
}

/// A named way to break an image.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    /// Unlike that of any other.
    pub(crate) name: &'static str,
    pub(crate) kernel: Kernel,
    /// The rule that fsck finds broken, perhaps beside others; none at all in an image that is odd but valid.
    #[cfg_attr(not(test), allow(dead_code, reason = "fsck needs no machine: cargo test asks it"))]
    pub(crate) fsck: Option<Rule>,
    pub(crate) breaks: Break,
}

/// Makes the signature of a signed prefix.
pub(crate) type Sign<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>>;

impl Case {
    /// The image that it makes of a good one.
    pub(crate) fn image(&self, good: &Parts, sign: Option<Sign<'_>>) -> Result<Vec<u8>> {
        let mut parts = good.clone();
        if let Break::Records(change) = self.breaks {
            change(&mut parts)?;
        }
        let (mut image, layout) = parts.lay_out()?;
        if let Break::Laid(change) = self.breaks {
            change(&mut image, &layout)?;
        }
        parts::digest(&mut image, &layout)?;
        if let Break::Digested(change) = self.breaks {
            change(&mut image, &layout)?;
        }
        sign_with(&mut image, sign)?;
        if let Break::Late(change) = self.breaks {
            change(&mut image, &layout)?;
        }
        Ok(image)
    }
}

/// Puts a signature behind the image, if it is to have one.
fn sign_with(image: &mut Vec<u8>, sign: Option<Sign<'_>>) -> Result<()> {
    let Some(sign) = sign else { return Ok(()) };
    let signature = sign(&image[..tesserafs_format::limits::SIGNED_PREFIX])?;
    parts::attach(image, &signature)
}
