// SPDX-License-Identifier: GPL-2.0
//! Broken images for the guest: how each differs from the good one, and how the kernel may answer to it.

use std::path::Path;

use anyhow::{ensure, Context, Result};
use libc::{EBADMSG, EINVAL, ENOENT, EOPNOTSUPP, EUCLEAN};
use tesserafs_format::{FormatError, Rule};
use tesserafs_guest::plan::{Expected, Mutant, Mutants, Patch, READ_WHOLE};

use super::parts::{self, Parts};
use super::reader::{self, At, Reading, Refusal};
use super::{good, random, rules, sign_with, Sign};
use crate::tools::Tools;

/// Where the guest finds them.
pub(crate) const MUTANTS: &str = "mutants.bin";

/// The good image, as the guest finds it.
const GOOD: &str = "mutants.tess";

/// Bytes that are equal and still cheaper to write again than to begin a new patch.
const GAP: usize = 16;

/// Makes all named images, which are signed, and `count` random ones, which are not, into `disk`.
///
/// With a signature that the kernel knows or without one, it parses the same; signing thousands of images takes its time.
pub(crate) fn stage(tools: &Tools, disk: &Path, sign: Sign<'_>, seed: u64, count: usize) -> Result<()> {
    let good = Parts::read(&good::scratch(tools)?)?;
    let (mut image, layout) = good.lay_out()?;
    parts::digest(&mut image, &layout)?;
    sign_with(&mut image, Some(sign))?;
    let mut list = Vec::new();
    for case in rules::all() {
        let broken = case.image(&good, Some(sign)).with_context(|| case.name.to_owned())?;
        let verdict = case.kernel;
        ensure!(verdict.is_verdict_of(&reader::read(&broken)), "{} does not get {verdict:?}", case.name);
        list.push(mutant(case.name.to_owned(), &image, &broken)?);
    }
    random::mutants(&good, seed, count, None, |random| {
        list.push(mutant(random.name, &image, &random.image)?);
        Ok(())
    })?;
    std::fs::write(disk.join(GOOD), &image).context("failed to write the good image")?;
    Mutants { image: GOOD.to_owned(), list }.save(&disk.join(MUTANTS))
}

/// The differences, and the answers that the kernel is held to.
fn mutant(name: String, good: &[u8], broken: &[u8]) -> Result<Mutant> {
    let reading = reader::read(broken);
    // A kernel that has a chunk of that digest, from another image, has no reason to look for it in this one.
    let is_elsewhere = |failure: &reader::Failure| {
        matches!(failure.error.rule, Rule::ChunkDigest | Rule::ChunkRange | Rule::ExtentRange)
    };
    Ok(Mutant {
        name,
        length: u32::try_from(broken.len()).context("a large image")?,
        patches: patches(good, broken)?,
        expected: expected(&reading),
        cold: reading.failures.iter().any(is_elsewhere),
    })
}

/// The errno of a broken rule, as the driver's `error.rs` has it.
fn errno(error: &FormatError) -> i32 {
    match error {
        _ if error.is_foreign() => EINVAL,
        _ if error.is_unsupported() => EOPNOTSUPP,
        _ if error.is_digest_mismatch() => EBADMSG,
        _ => EUCLEAN,
    }
}

/// The answers that the kernel may give, by the failures that the reader met.
pub(crate) fn expected(reading: &Reading) -> Expected {
    let refusal = reading.refusal.map(|refusal| match refusal {
        Refusal::Broken(error) => errno(&error),
        Refusal::External => EINVAL,
    });
    let mut errors: Vec<i32> = reading.failures.iter().map(|failure| errno(&failure.error)).collect();
    if reading.lost_names > 0 {
        errors.push(ENOENT);
    }
    // An open of a file asks for its ACL, which the VFS refuses if it is none.
    if reading.has_acls {
        errors.extend([EINVAL, EOPNOTSUPP]);
    }
    errors.sort_unstable();
    errors.dedup();
    // Not every reader reads a beginning, or several pages at once, or all of a large file.
    let is_met = |failure: &reader::Failure| match failure.at {
        At::Beginning | At::Across => false,
        At::Data => failure.size <= READ_WHOLE,
        At::List | At::Lookup | At::Xattr => true,
    };
    Expected { refusal, must_fail: reading.failures.iter().any(is_met), errors }
}

/// The bytes of `broken` that are not those of `good`.
pub(crate) fn patches(good: &[u8], broken: &[u8]) -> Result<Vec<Patch>> {
    let mut patches: Vec<Patch> = Vec::new();
    let mut end = 0;
    let differs = |at: usize| good.get(at) != Some(&broken[at]);
    for at in (0..broken.len()).filter(|at| differs(*at)) {
        match patches.last_mut() {
            Some(patch) if at - end <= GAP => patch.bytes.extend(&broken[end..=at]),
            _ => {
                let offset = u32::try_from(at).context("a large image")?;
                patches.push(Patch { offset, bytes: vec![broken[at]] });
            }
        }
        end = at + 1;
    }
    Ok(patches)
}
