// SPDX-License-Identifier: GPL-2.0-or-later

//! A plain archive in a file, whatever it comes as.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use flate2::bufread::GzDecoder;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use crate::error::{Error, Result};

/// Bytes that are read and written at once.
const BUFFER: usize = 1 << 18;

/// The longest window of a zstd frame, as with `zstd -d --long=31`.
const WINDOW_LOG_MAX: u32 = 31;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compression {
    Plain,
    Gzip,
    Zstd,
}

/// First bytes of compressed files that are not read, and the programs that read them.
const FOREIGN: [(&[u8], &str); 4] =
    [(b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x04\"M\x18", "lz4"), (b"LZIP", "lzip")];

/// The longest of the first bytes that tell how an archive is compressed.
const MAGIC_MAX: u64 = 6;

impl Compression {
    /// Tells compression by the first bytes.
    fn of(start: &[u8], path: &Path) -> Result<Self> {
        if let Some((_, program)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
            let reason = format!(
                "is compressed with {program}; use {program} -dc ARCHIVE | mkfs.tesserafs --tar - IMAGE"
            );
            return Err(Error::unsupported(path, reason));
        }
        Ok(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or a skippable frame before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        })
    }
}

/// Whether a file is an archive, or is compressed as one may be.
pub(super) fn is_archive(start: &[u8]) -> bool {
    let is_tar = start.get(257..262).is_some_and(|magic| magic == b"ustar");
    let is_foreign = FOREIGN.iter().any(|(magic, _)| start.starts_with(magic));
    is_tar || is_foreign || !matches!(Compression::of(start, Path::new("")), Ok(Compression::Plain))
}

/// A file that holds the plain archive and nothing else. An archive that must be unpacked goes to an unnamed file in `spool`.
pub(super) fn in_place(input: File, path: &Path, spool: &Path) -> Result<File> {
    let is_file = input.metadata().map_err(Error::io("stat", path))?.is_file();
    let at_start = is_file && (&input).stream_position().map_err(Error::io("seek in", path))? == 0;
    // All of them: a pipe may give less at once than there will be.
    let mut start = Vec::with_capacity(MAGIC_MAX as usize);
    (&input).take(MAGIC_MAX).read_to_end(&mut start).map_err(Error::io("read", path))?;
    let compression = Compression::of(&start, path)?;
    if compression == Compression::Plain && at_start {
        return Ok(input);
    }
    let unpacked = tempfile::tempfile_in(spool).map_err(Error::io("create a file in", spool))?;
    Job::new(start.as_slice().chain(&input), &unpacked, path, spool).run(compression)?;
    Ok(unpacked)
}

/// Writes the plain archive that `input` is, or is compressed: all that there is to read.
pub(in crate::source) fn unpack(
    mut input: impl Read,
    output: impl Write,
    path: &Path,
    spool: &Path,
) -> Result<()> {
    let mut start = Vec::with_capacity(MAGIC_MAX as usize);
    (&mut input).take(MAGIC_MAX).read_to_end(&mut start).map_err(Error::io("read", path))?;
    let compression = Compression::of(&start, path)?;
    Job::new(start.as_slice().chain(input), output, path, spool).run(compression)
}

/// A reader that knows where it stands.
struct Counted<R> {
    inner: R,
    at: u64,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount as u64;
        self.inner.consume(amount);
    }
}

/// An archive on its way into a file.
struct Job<'a, R, W: Write> {
    reader: Counted<BufReader<R>>,
    writer: BufWriter<W>,
    path: &'a Path,
    spool: &'a Path,
}

impl<'a, R: Read, W: Write> Job<'a, R, W> {
    fn new(input: R, output: W, path: &'a Path, spool: &'a Path) -> Self {
        let reader = Counted { inner: BufReader::with_capacity(BUFFER, input), at: 0 };
        Self { reader, writer: BufWriter::with_capacity(BUFFER, output), path, spool }
    }

    fn run(mut self, compression: Compression) -> Result<()> {
        match compression {
            Compression::Plain => self.copy()?,
            Compression::Gzip => self.gzip()?,
            Compression::Zstd => self.zstd()?,
        }
        self.writer.flush().map_err(Error::io("unpack the archive into", self.spool))
    }

    fn copy(&mut self) -> Result<()> {
        loop {
            let bytes = again(|| self.reader.inner.fill_buf().map(<[u8]>::len));
            let read = bytes.map_err(Error::io("read", self.path))?;
            if read == 0 {
                return Ok(());
            }
            let bytes = self.reader.inner.buffer();
            self.writer.write_all(bytes).map_err(Error::io("unpack the archive into", self.spool))?;
            self.reader.consume(read);
        }
    }

    /// Members one behind the other.
    fn gzip(&mut self) -> Result<()> {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut member = GzDecoder::new(&mut self.reader);
            loop {
                match again(|| member.read(&mut buffer)).map_err(Error::io("decompress", self.path))? {
                    0 => break,
                    read => self
                        .writer
                        .write_all(&buffer[..read])
                        .map_err(Error::io("unpack the archive into", self.spool))?,
                }
            }
            if !self.goes_on(Compression::Gzip, "gzip member")? {
                return Ok(());
            }
        }
    }

    /// Frames one behind the other.
    fn zstd(&mut self) -> Result<()> {
        let path = self.path;
        let failed = |code| Error::io("decompress", path)(io::Error::other(zstd_safe::get_error_name(code)));
        let no_memory = || Error::io("decompress", path)(io::Error::from(io::ErrorKind::OutOfMemory));
        let mut context = DCtx::try_create().ok_or_else(no_memory)?;
        context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX)).map_err(failed)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            again(|| self.reader.fill_buf().map(<[u8]>::len)).map_err(Error::io("read", path))?;
            let bytes = self.reader.inner.buffer();
            let is_end = bytes.is_empty();
            let mut input = InBuffer::around(bytes);
            let mut output = OutBuffer::around(&mut buffer[..]);
            let wanted = context.decompress_stream(&mut output, &mut input).map_err(failed)?;
            let (read, written) = (input.pos(), output.pos());
            self.reader.consume(read);
            self.writer
                .write_all(&buffer[..written])
                .map_err(Error::io("unpack the archive into", self.spool))?;
            if wanted == 0 {
                if !self.goes_on(Compression::Zstd, "zstd frame")? {
                    return Ok(());
                }
            } else if is_end && written == 0 {
                return Err(Error::io("decompress", path)(io::Error::from(io::ErrorKind::UnexpectedEof)));
            }
        }
    }

    /// Whether more of the same follows. Tapes, `dd` and some registries leave zeros, which say nothing.
    fn goes_on(&mut self, compression: Compression, what: &str) -> Result<bool> {
        loop {
            let bytes = again(|| self.reader.fill_buf().map(<[u8]>::len));
            let len = bytes.map_err(Error::io("read", self.path))?;
            let bytes = self.reader.inner.buffer();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let next = bytes.get(zeros).copied();
            self.reader.consume(zeros);
            return match (next, compression) {
                (None, _) if len == 0 => Ok(false),
                (None, _) => continue,
                (Some(0x1f), Compression::Gzip) | (Some(0x28 | 0x50..=0x5f), Compression::Zstd) => Ok(true),
                _ => {
                    let reason = format!("neither zeros nor another {what} behind the last one");
                    Err(Error::Archive { path: self.path.to_owned(), offset: self.reader.at, reason })
                }
            };
        }
    }
}

/// Repeats a read that a signal interrupted.
fn again<T>(mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
