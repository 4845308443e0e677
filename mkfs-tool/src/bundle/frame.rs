// SPDX-License-Identifier: GPL-2.0-or-later

//! zstd frames that refer to bytes that both sides have.

use zstd_safe::{CCtx, CParameter, DCtx, DParameter};

use crate::error::{Error, Result};

/// The logarithm of the longest window: a prefix and what refers to it are shorter.
const WINDOW_LOG: u32 = 26;

/// The highest level that searches by chains; those above it build trees.
const CHAINS: i32 = 12;

/// The logarithm of how many places these levels look at. A prefix has most bytes of what refers to it, and the first places that look
/// alike are seldom the right ones: steps of the Python application are 0.84 to 0.93 of what level 9 has by itself, in a third of a
/// second more.
const SEARCH_LOG: u32 = 8;

/// The logarithm of the longest chains and hash tables, 16 MiB of memory each.
const TABLE_LOG: u32 = 22;

/// A frame of these bytes, which refers to `prefix`.
///
/// Long distance matching is off: it takes the first match that is long enough, which doubles the frames of small changes.
pub(super) fn compress(bytes: &[u8], prefix: &[u8], level: i32) -> Result<Vec<u8>> {
    let failed = |code| Error::Compress(zstd_safe::get_error_name(code));
    let mut zstd = CCtx::try_create().ok_or(Error::Compress("out of memory"))?;
    let window = (bytes.len() + prefix.len()).next_power_of_two().ilog2().clamp(10, WINDOW_LOG);
    let mut parameters = vec![
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(window),
        CParameter::ChecksumFlag(true),
    ];
    if level <= CHAINS {
        let table = window.min(TABLE_LOG);
        parameters.extend([
            CParameter::ChainLog(table),
            CParameter::HashLog(table),
            CParameter::SearchLog(SEARCH_LOG),
        ]);
    }
    for parameter in parameters {
        zstd.set_parameter(parameter).map_err(failed)?;
    }
    zstd.ref_prefix(prefix).map_err(failed)?;
    let mut frame = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    zstd.compress2(&mut frame, bytes).map_err(failed)?;
    Ok(frame)
}

/// The bytes of a frame that refers to `prefix`; none unless they are so many.
pub(super) fn decompress(frame: &[u8], prefix: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut zstd = DCtx::try_create()?;
    zstd.set_parameter(DParameter::WindowLogMax(WINDOW_LOG)).ok()?;
    zstd.ref_prefix(prefix).ok()?;
    let mut bytes = Vec::with_capacity(len);
    let found = zstd.decompress(&mut bytes, frame).ok()?;
    (found == len).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_with_their_prefix_and_with_no_other() {
        let prefix: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let mut bytes = prefix.clone();
        bytes.splice(1000..1010, *b"others");
        let frame = compress(&bytes, &prefix, 9).unwrap();
        assert!(frame.len() < 200, "{}", frame.len());
        assert_eq!(decompress(&frame, &prefix, bytes.len()).unwrap(), bytes);
        assert_eq!(decompress(&frame, &prefix[1..], bytes.len()), None);
        assert_eq!(decompress(&frame, &prefix, bytes.len() - 1), None);
        for len in [0, 1, 300_000] {
            let same = vec![2; len];
            let frame = compress(&same, &[], 19).unwrap();
            assert_eq!(decompress(&frame, &[], len).unwrap(), same);
        }
    }
}
