// SPDX-License-Identifier: GPL-2.0-or-later

//! Content-defined cut points (`FORMAT.md` 5.3).

use fastcdc::v2020;
use tesserafs_format::Profile;

/// The cut points of FastCDC for a profile.
#[derive(Clone, Copy, Debug)]
pub struct FastCdc {
    min: usize,
    avg: usize,
    pub(super) max: usize,
    mask_s: u64,
    mask_l: u64,
}

impl FastCdc {
    /// The cut points of `profile`.
    pub fn new(profile: &Profile) -> Self {
        let (mask_s, mask_l) = v2020::select_masks(profile.chunk_avg as usize, v2020::Normalization::Level1);
        Self {
            min: profile.chunk_min as usize,
            avg: profile.chunk_avg as usize,
            max: profile.chunk_max as usize,
            mask_s,
            mask_l,
        }
    }

    /// The length of the first chunk of `segment`, the rest of a segment or `chunk_max` bytes of it at least.
    pub(super) fn first(&self, segment: &[u8]) -> usize {
        let (_, len) = v2020::cut(
            segment,
            self.min,
            self.avg,
            self.max,
            self.mask_s,
            self.mask_l,
            self.mask_s << 1,
            self.mask_l << 1,
        );
        len
    }
}
