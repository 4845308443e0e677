// SPDX-License-Identifier: GPL-2.0-or-later

//! Reading the headers of an archive: where they are close together, many with one system call.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are read at once where little lies between headers.
const AHEAD: usize = 16 << 10;

/// A file that is read from its start on, by small parts.
#[derive(Debug)]
pub(super) struct Ahead {
    file: File,
    /// Bytes that were read ahead.
    bytes: Vec<u8>,
    /// Where they begin in the file.
    start: u64,
    /// Where the part that was read last ends.
    end: u64,
}

impl Ahead {
    /// Nothing was read yet; the first part is expected at `start`.
    pub(super) fn new(file: File, start: u64) -> Self {
        Self { file, bytes: Vec::new(), start, end: start }
    }

    /// Reads the bytes at `offset`. Where the part before ends close by, those behind are likely to be wanted next, and are
    /// read with them.
    pub(super) fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let is_near = offset.abs_diff(self.end) < AHEAD as u64 / 2;
        self.end = offset.saturating_add(buf.len() as u64);
        if !self.has(offset, buf.len()) {
            if !is_near || buf.len() > AHEAD {
                return self.file.read_exact_at(buf, offset);
            }
            self.fill(offset, buf.len())?;
            if !self.has(offset, buf.len()) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let at = (offset - self.start) as usize;
        buf.copy_from_slice(&self.bytes[at..at + buf.len()]);
        Ok(())
    }

    /// Whether bytes were read ahead.
    fn has(&self, offset: u64, len: usize) -> bool {
        let before = offset.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        before.and_then(|at| at.checked_add(len)).is_some_and(|end| end <= self.bytes.len())
    }

    /// Reads ahead from `offset`, up to the end of the file at most, or to a place that cannot be read behind the bytes that are `wanted`.
    fn fill(&mut self, offset: u64, wanted: usize) -> io::Result<()> {
        self.start = offset;
        self.bytes.resize(AHEAD, 0);
        let mut len = 0;
        while len < AHEAD {
            match self.file.read_at(&mut self.bytes[len..], offset + len as u64) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if len >= wanted => break,
                Err(error) => {
                    self.bytes.clear();
                    return Err(error);
                }
            }
        }
        self.bytes.truncate(len);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn all_parts_have_the_bytes_of_the_file_wherever_they_are() {
        let content: Vec<u8> = (0..100_000_u64).map(|at| (at * at / 128) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        let mut ahead = Ahead::new(file, 0);
        let steps =
            [(0, 512), (0, 3), (512, 512), (1024, 20_000), (21_024, 16_384), (90_000, 10_000), (37_000, 1)];
        for (start, len) in steps.into_iter().chain((0..195).map(|record| (record * 512, 512))) {
            let mut part = vec![0; len];
            ahead.read(start as u64, &mut part).unwrap();
            assert!(part == content[start..start + len], "{len} bytes from {start}");
        }
        // A file that ends within a part, close to the one before and far from it.
        for offset in [99_800, 99_999, 1 << 40, u64::MAX - 100] {
            let error = ahead.read(offset, &mut [0; 512]).unwrap_err();
            assert!(
                matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput),
                "{error}"
            );
        }
        // It goes on behind an error.
        let mut part = [0; 4];
        ahead.read(5, &mut part).unwrap();
        assert_eq!(part, content[5..9]);
    }
}
