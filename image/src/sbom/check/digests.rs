// SPDX-License-Identifier: GPL-2.0-or-later

//! The digests of files as the databases have them. Bytes are decoded and hashed, also where the image's own digest would do: of an image
//! from elsewhere nobody knows yet that it tells the truth.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use tesserafs_format::limits::PLAIN_DIGEST_MAX;
use tesserafs_format::{FileKind, Inode};

use super::owners::Expected;
use crate::error::Error;
use crate::parallel::{for_each, Cancel};
use crate::sbom::package::{Algorithm, Bytes};
use crate::sbom::{ImageTree, Kind};

/// Bytes that are read of a file at once.
const WINDOW: u64 = 1 << 20;

/// Contents that a thread takes at once: those of a group of small files are one after the other, and one thread decodes it.
const BATCH: usize = 64;

/// A content that has to be hashed.
struct Job {
    inode: Inode,
    size: u64,
    algorithms: Vec<Algorithm>,
}

/// A digest of a content.
type Computed = (Algorithm, Box<[u8]>);

/// The digests of contents.
#[derive(Debug, Default)]
pub(super) struct Digests {
    /// The content of an inode; nothing of an empty file.
    contents: HashMap<u32, Option<u32>>,
    digests: HashMap<(Option<u32>, Algorithm), Box<[u8]>>,
}

impl Digests {
    /// The digest of a file.
    pub(super) fn get(&self, ino: u32, algorithm: Algorithm) -> Option<&[u8]> {
        self.digests.get(&(*self.contents.get(&ino)?, algorithm)).map(|digest| &**digest)
    }
}

/// The digest of bytes.
pub(super) fn of(algorithm: Algorithm, bytes: &[u8]) -> Box<[u8]> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// Hashes what is expected to have a digest, each content once. A file that is so long that the format has no plain digest of it, with holes
/// that nobody could wait for, has none here either: no package has such a file, so it is a changed one.
pub(super) fn compute(
    tree: &ImageTree<'_>,
    expected: &[Expected],
    threads: usize,
    cancel: &Cancel,
) -> Result<Digests, Error> {
    let mut digests = Digests::default();
    // In the order of contents, which is about that of their bytes.
    let mut jobs: BTreeMap<u32, Job> = BTreeMap::new();
    for Expected { node, bytes, .. } in expected {
        let (Kind::File(_), Bytes::Digest(algorithm, _)) = (tree.names().kind(*node), bytes) else {
            continue;
        };
        let ino = tree.names().ino(*node);
        let inode = tree.inode(ino)?;
        let FileKind::Regular { size, content } = inode.kind else { continue };
        if size > PLAIN_DIGEST_MAX {
            continue;
        }
        digests.contents.insert(ino, content.map(|content| content.0));
        match content {
            None => {
                digests.digests.entry((None, *algorithm)).or_insert_with(|| of(*algorithm, &[]));
            }
            Some(content) => {
                let new = || Job { inode, size, algorithms: Vec::new() };
                let job = jobs.entry(content.0).or_insert_with(new);
                if job.size != size {
                    let found = format!("content {} is in files of {} and {size} bytes", content.0, job.size);
                    return Err(Error::Refused(found));
                }
                if !job.algorithms.contains(algorithm) {
                    job.algorithms.push(*algorithm);
                }
            }
        }
    }
    let jobs: Vec<(u32, Job)> = jobs.into_iter().collect();
    let batches: Vec<&[(u32, Job)]> = jobs.chunks(BATCH).collect();
    let done = Mutex::new(&mut digests.digests);
    for_each(threads, batches.len() as u64, cancel, |number| {
        let Some(batch) = usize::try_from(number).ok().and_then(|number| batches.get(number)) else {
            return Ok(());
        };
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        for (content, job) in *batch {
            for (algorithm, digest) in hash(tree, job, &mut buffer, cancel)? {
                found.push(((Some(*content), algorithm), digest));
            }
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        Ok(())
    })?;
    Ok(digests)
}

fn hash(
    tree: &ImageTree<'_>,
    job: &Job,
    buffer: &mut Vec<u8>,
    cancel: &Cancel,
) -> Result<Vec<Computed>, Error> {
    let mut hashers: Vec<_> =
        job.algorithms.iter().map(|algorithm| (*algorithm, Hasher::new(*algorithm))).collect();
    let mut at = 0;
    while at < job.size {
        cancel.check()?;
        let end = job.size.min(at.saturating_add(WINDOW));
        tree.with(&job.inode, at..end, buffer, |bytes| {
            hashers.iter_mut().for_each(|(_, hasher)| hasher.update(bytes));
        })?;
        at = end;
    }
    Ok(hashers.into_iter().map(|(algorithm, hasher)| (algorithm, hasher.finish())).collect())
}

/// A digest that is being computed.
enum Hasher {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Md5 => Hasher::Md5(Md5::new()),
            Algorithm::Sha1 => Hasher::Sha1(Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Md5(hasher) => hasher.update(bytes),
            Hasher::Sha1(hasher) => hasher.update(bytes),
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha384(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> Box<[u8]> {
        match self {
            Hasher::Md5(hasher) => hasher.finalize().to_vec().into(),
            Hasher::Sha1(hasher) => hasher.finalize().to_vec().into(),
            Hasher::Sha256(hasher) => hasher.finalize().to_vec().into(),
            Hasher::Sha384(hasher) => hasher.finalize().to_vec().into(),
            Hasher::Sha512(hasher) => hasher.finalize().to_vec().into(),
        }
    }
}
