// SPDX-License-Identifier: GPL-2.0-or-later

//! The image file as it travels: zstd frames of [`PART`] bytes each, so that a download that was cut off goes on behind the last good one.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use tesserafs_image::hash::Hasher;
use tesserafs_image::{text, Cancel, Error, Source};
use zstd_safe::{CCtx, CParameter, DCtx};

use super::Blob;

/// Bytes of the image file in a frame; the last one has the rest.
const PART: usize = 1 << 20;

/// The level: a tenth of a second for a megabyte, and a fifteenth less bytes than those below.
const LEVEL: i32 = 19;

/// Compresses the first `len` bytes of an image into an empty file, the same ones always; its blob, and that of the bytes.
pub fn compress(image: &Source, len: u64, to: &mut File, cancel: &Cancel) -> Result<(Blob, Blob), Error> {
    let failed =
        |code| refuse(image.path(), &format!("cannot compress it: {}", zstd_safe::get_error_name(code)));
    let mut zstd = CCtx::try_create().ok_or_else(|| no_memory(image.path()))?;
    for parameter in [CParameter::CompressionLevel(LEVEL), CParameter::ChecksumFlag(true)] {
        zstd.set_parameter(parameter).map_err(failed)?;
    }
    let (mut raw_digest, mut digest, mut written) = (Hasher::default(), Hasher::default(), 0);
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(PART));
    let mut part = vec![0; PART];
    for (at, bytes) in parts(len) {
        cancel.check()?;
        let part = &mut part[..bytes];
        image.read_at(at, part)?;
        frame.clear();
        zstd.compress2(&mut frame, part).map_err(failed)?;
        to.write_all(&frame).map_err(|source| Error::Io {
            what: format!("cannot write {} compressed", text::path(image.path())),
            source,
        })?;
        raw_digest.update(part);
        digest.update(&frame);
        written += frame.len() as u64;
    }
    Ok((Blob { digest: digest.finish(), len: written }, Blob { digest: raw_digest.finish(), len }))
}

/// The bytes at the beginning of a file that are frames of an image file of `len` bytes. That they are the right ones, only the digest of
/// all of it tells.
///
/// A frame of another length ends them: each takes the time of a whole one, and a liar makes a million of a byte each.
pub fn proven(path: &Path, len: u64) -> Result<u64, Error> {
    let mut frames = Frames::open(path)?;
    let mut part = Vec::with_capacity(PART);
    let mut proven = 0;
    for (_, bytes) in parts(len) {
        if frames.next(&mut part)? != Some(bytes) {
            break;
        }
        proven = frames.at;
    }
    Ok(proven)
}

/// Gives the bytes of the image file in order, which must be `len`.
pub fn decompress(
    path: &Path,
    len: u64,
    cancel: &Cancel,
    mut give: impl FnMut(u64, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut frames = Frames::open(path)?;
    let mut part = Vec::with_capacity(PART);
    for (at, bytes) in parts(len) {
        cancel.check()?;
        let found = frames.next(&mut part)?;
        if found != Some(bytes) {
            let found =
                found.map_or_else(|| "no frame".to_owned(), |found| format!("a frame of {found} bytes"));
            let place = frames.at;
            return Err(refuse(path, &format!("found {found} before byte {place}, expected one of {bytes}")));
        }
        give(at, &part)?;
    }
    if frames.at != frames.len {
        let (found, expected) = (frames.len, frames.at);
        return Err(refuse(
            path,
            &format!("found {found} bytes, expected {expected}, the end of its last frame"),
        ));
    }
    Ok(())
}

/// The parts of so many bytes: where each begins, and its length.
fn parts(len: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..len).step_by(PART).map(move |at| (at, (len - at).min(PART as u64) as usize))
}

/// A file, frame by frame.
struct Frames<'p> {
    path: &'p Path,
    file: File,
    len: u64,
    zstd: DCtx<'static>,
    frame: Vec<u8>,
    /// The end of the last good frame.
    at: u64,
}

impl<'p> Frames<'p> {
    fn open(path: &'p Path) -> Result<Self, Error> {
        let cannot = |source| Error::Io { what: format!("cannot open {}", text::path(path)), source };
        let file = File::open(path).map_err(cannot)?;
        let len = file.metadata().map_err(cannot)?.len();
        let zstd = DCtx::try_create().ok_or_else(|| no_memory(path))?;
        Ok(Self { path, file, len, zstd, frame: vec![0; zstd_safe::compress_bound(PART)], at: 0 })
    }

    /// Reads the next frame; its bytes, or nothing where there is no good one.
    fn next(&mut self, part: &mut Vec<u8>) -> Result<Option<usize>, Error> {
        part.clear();
        let left = self.len - self.at;
        let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(self.frame.len());
        let frame = &mut self.frame[..bytes];
        self.file
            .read_exact_at(frame, self.at)
            .map_err(|source| Error::Io { what: format!("cannot read {}", text::path(self.path)), source })?;
        let Ok(bytes) = zstd_safe::find_frame_compressed_size(frame) else { return Ok(None) };
        match self.zstd.decompress(part, &frame[..bytes]) {
            Ok(found) if found > 0 => {
                self.at += bytes as u64;
                Ok(Some(found))
            }
            _ => Ok(None),
        }
    }
}

fn no_memory(path: &Path) -> Error {
    refuse(path, "no memory for zstd")
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::Refused(format!("{}: {why}", text::path(path)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn bytes_come_back_and_a_cut_file_counts_up_to_its_last_frame() {
        let folder = tempfile::tempdir().unwrap();
        let (image, packed) = (folder.path().join("image"), folder.path().join("packed"));
        let bytes: Vec<u8> = (0..PART * 2 + 5000).map(|n| (n >> 3) as u8 ^ (n >> 11) as u8).collect();
        fs::write(&image, &bytes).unwrap();
        let source = Source::open(&image).unwrap();
        let cancel = Cancel::default();
        let mut to = File::create(&packed).unwrap();
        let (blob, raw) = compress(&source, bytes.len() as u64, &mut to, &cancel).unwrap();
        let frames = fs::read(&packed).unwrap();
        assert_eq!((blob, raw), (Blob::of(&frames), Blob::of(&bytes)));
        assert!(blob.len < raw.len / 10, "{blob:?}");

        let mut found = Vec::new();
        let give = |at: u64, part: &[u8]| {
            assert_eq!(at, found.len() as u64);
            found.extend_from_slice(part);
            Ok(())
        };
        decompress(&packed, raw.len, &cancel, give).unwrap();
        assert!(found == bytes);
        assert_eq!(proven(&packed, raw.len).unwrap(), blob.len);

        let first = zstd_safe::find_frame_compressed_size(&frames).unwrap() as u64;
        for (what, change) in [
            (
                "zeros",
                Box::new(|frames: &mut Vec<u8>| frames[first as usize..].fill(0))
                    as Box<dyn Fn(&mut Vec<u8>)>,
            ),
            ("a cut", Box::new(|frames| frames.truncate(first as usize + 9))),
            ("a changed byte", Box::new(|frames| *frames.get_mut(first as usize + 40).unwrap() ^= 1)),
        ] {
            let mut frames = frames.clone();
            change(&mut frames);
            fs::write(&packed, &frames).unwrap();
            assert_eq!(proven(&packed, raw.len).unwrap(), first, "{what}");
            let error = decompress(&packed, raw.len, &cancel, |_, _| Ok(())).unwrap_err().to_string();
            assert!(error.contains("expected one of 1048576"), "{what}: {error}");
        }
        // Each byte in a frame of its own: none is one of the image file.
        let mut tiny = CCtx::create();
        let mut frame = Vec::with_capacity(64);
        tiny.compress2(&mut frame, b"x").unwrap();
        fs::write(&packed, [&frames[..first as usize], &frame.repeat(1000)].concat()).unwrap();
        assert_eq!(proven(&packed, raw.len).unwrap(), first);
        for (len, more, why) in [
            (raw.len - 1, &b""[..], "expected one of 4999"),
            (raw.len + 1, b"", "expected one of 5001"),
            (raw.len, b"more", "the end of its last frame"),
        ] {
            fs::write(&packed, [&frames, more].concat()).unwrap();
            let error = decompress(&packed, len, &cancel, |_, _| Ok(())).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
