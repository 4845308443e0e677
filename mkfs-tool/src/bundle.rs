// SPDX-License-Identifier: GPL-2.0-or-later

//! Updates in a file: what a host with one image needs to make another one, byte for byte.
//!
//! A bundle has, in this order, the head of the new image, its tables as differences to those of the old one, and the chunks that the old
//! one lacks, in pieces: raw, as zstd frames that refer to what resembles them in the old image. To apply it is to compress the chunks
//! again, to the bytes that the new image's digests name. That is tied to the version of libzstd, which the bundle names; a
//! *portable* bundle has chunks as they are stored.
//!
//! Memory: both sides hold the tables of both images, so it grows with their metadata; and the chunks that each thread works on, which is
//! why there is a limit of threads.
//!
//! - [`stream`]: header and sections, each with its digest;
//! - [`side`]: an image, its tables and raw bytes; [`matches`]: what both images have; [`wanted`] and [`covers`]: what the old one lacks of
//!   the new one, found alike on both sides;
//! - [`head`] and [`tables`]: metadata; [`bases`]: what resembles a chunk; [`piece`]: chunks; [`frame`]: zstd, [`numbers`] in sections;
//! - [`mod@create`] writes a bundle; [`mod@apply`] reads it, and makes the image by [`rebuild`] in [`partial`] files; [`report`] tells of
//!   both; [`salvage`] reads a bundle for what a damaged image lacks.

mod apply;
mod bases;
mod covers;
mod create;
mod frame;
mod head;
mod matches;
mod numbers;
mod partial;
mod piece;
mod rebuild;
mod report;
pub(crate) mod salvage;
pub(crate) mod side;
pub(crate) mod stream;
mod tables;
mod wanted;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::thread;

use crate::error::{Error, Result};

pub use self::apply::apply;
pub use self::create::create;
pub use self::report::{ApplyReport, BundleReport};

/// Does `work` with as many threads as there are processors, but no more than memory is for.
pub(crate) fn in_pool<T: Send>(most: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(most);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let no_thread = |error| Error::Usage(format!("cannot start threads: {error}"));
    pool.map_err(no_thread)?.install(work)
}

/// Pieces that are made or applied at once: two for each thread, as they take different times.
fn at_once() -> usize {
    2 * rayon::current_num_threads()
}

/// A request to make a bundle.
#[derive(Clone, Debug)]
pub struct BundleRequest {
    /// The bundle that is made.
    pub output: PathBuf,
    /// The image that hosts have.
    pub old: PathBuf,
    /// The image that they get.
    pub new: PathBuf,
    /// Where the packs of both are, if they are not beside them.
    pub pack_dir: Option<PathBuf>,
    /// Whether chunks are shipped as they are stored.
    pub portable: bool,
    /// The level of zstd, 1 to 22.
    pub level: i32,
    /// Whether a file of its name is replaced.
    pub force: bool,
}

/// A request to apply a bundle.
#[derive(Clone, Debug)]
pub struct ApplyRequest {
    /// The image that there is.
    pub old: PathBuf,
    /// The bundle; `-` is standard input.
    pub bundle: PathBuf,
    /// The image that is made.
    pub new: PathBuf,
    /// Where packs are, and go to, if that is not beside the images.
    pub pack_dir: Option<PathBuf>,
    /// Whether a file of its name is replaced.
    pub force: bool,
}

/// The bytes at the beginning of a file that are those of a bundle, section by section: a download that was cut off goes on behind
/// them. That it is the right bundle, only the digest of all of it tells.
pub fn proven(path: &Path) -> Result<u64> {
    let from = BufReader::new(File::open(path).map_err(Error::io("open", path))?);
    let Ok((mut reader, _)) = stream::Reader::open(from, path) else { return Ok(0) };
    loop {
        let at = reader.at();
        match reader.next(&stream::Kind::ALL) {
            Ok((stream::Kind::End, _)) => return Ok(reader.at()),
            Ok(_) => (),
            Err(_) => return Ok(at),
        }
    }
}
