// SPDX-License-Identifier: GPL-2.0-or-later

//! How a chunk is stored: as a frame, as a frame of filtered bytes, or plain (`FORMAT.md` 5.4, 5.5).

use std::fmt;

use tesserafs_format::limits::FRAME_BLOCK;
use tesserafs_format::{x86, Codec};
use zstd_safe::{CCtx, CParameter, ParamSwitch};

use crate::error::{Error, Result};

/// The version of the libzstd that is in this program: major * 10000 + minor * 100 + patch.
pub fn zstd_version() -> u32 {
    zstd_safe::version_number()
}

/// Compresses chunks at one level.
pub struct Compressor {
    zstd: CCtx<'static>,
    frame: Vec<u8>,
    filtered: Vec<u8>,
}

impl fmt::Debug for Compressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compressor").finish_non_exhaustive()
    }
}

impl Compressor {
    /// A compressor of a level that a profile can have.
    pub fn new(level: u32) -> Result<Self> {
        let mut zstd = CCtx::try_create().ok_or(Error::Compress("out of memory"))?;
        let parameters = [
            CParameter::CompressionLevel(level as i32),
            CParameter::MaxBlockSize(FRAME_BLOCK),
            CParameter::UseBlockSplitter(ParamSwitch::Disable),
        ];
        for parameter in parameters {
            zstd.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Self { zstd, frame: Vec::new(), filtered: Vec::new() })
    }

    /// The codec of a chunk, and its stored bytes; those of a plain one are `raw`.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> Result<(Codec, &'a [u8])> {
        let (codec, from) =
            if self.filter(raw) { (Codec::ZstdX86, self.filtered.as_slice()) } else { (Codec::Zstd, raw) };
        self.frame.clear();
        self.frame.reserve(zstd_safe::compress_bound(from.len()));
        self.zstd.compress2(&mut self.frame, from).map_err(failed)?;
        Ok(if self.frame.len() < raw.len() { (codec, &self.frame) } else { (Codec::Plain, raw) })
    }

    /// Filters a chunk, if that is worthwhile.
    fn filter(&mut self, raw: &[u8]) -> bool {
        if !x86::may_be_worthwhile(raw) {
            return false;
        }
        self.filtered.clear();
        self.filtered.extend_from_slice(raw);
        let calls = x86::encode(&mut self.filtered);
        x86::is_worthwhile(calls, raw.len())
    }
}

fn failed(code: usize) -> Error {
    Error::Compress(zstd_safe::get_error_name(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_stored_in_the_form_that_the_specification_says() {
        let mut compressor = Compressor::new(3).unwrap();
        let text = b"one line like all the others\n".repeat(200);
        let (codec, stored) = compressor.compress(&text).unwrap();
        assert!(codec == Codec::Zstd && stored.len() < text.len());
        // A call every 16 bytes, to places nearby: more than one in 128 bytes.
        let code = [0xe8, 0x10, 0x20, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].repeat(500);
        assert_eq!(compressor.compress(&code).unwrap().0, Codec::ZstdX86);
        // Calls that a linker has still to give their targets.
        let object = [0xe8, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11].repeat(500);
        assert_eq!(compressor.compress(&object).unwrap().0, Codec::Zstd);
        let few = [1, 2, 3];
        assert_eq!(compressor.compress(&few).unwrap(), (Codec::Plain, few.as_slice()));
    }
}
