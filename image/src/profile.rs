// SPDX-License-Identifier: GPL-2.0-or-later

//! The profile of an image in the machine reports of the tools.

use serde::Serialize;
use tesserafs_format::Profile;

/// How an image was cut and compressed: the fields of `FORMAT.md` 5.2, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProfileReport {
    /// Least bytes of a chunk.
    pub chunk_min: u32,
    /// Average.
    pub chunk_avg: u32,
    /// Most.
    pub chunk_max: u32,
    /// Bytes of a group of small files.
    pub group_size: u32,
    /// The largest file in a group.
    pub small_max: u32,
    /// Least bytes of a hole.
    pub hole_min: u32,
    /// zstd level.
    pub level: u32,
    /// Version of libzstd, as its own number.
    pub zstd_version: u32,
}

/// A version of libzstd as its releases are named.
pub fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

impl From<Profile> for ProfileReport {
    fn from(profile: Profile) -> Self {
        // All of them, so that a field that comes is not forgotten here.
        let Profile { chunk_min, chunk_avg, chunk_max, group_size, small_max, hole_min, level, zstd_version } =
            profile;
        Self { chunk_min, chunk_avg, chunk_max, group_size, small_max, hole_min, level, zstd_version }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_as_releases_are() {
        assert_eq!(version(10_507), "1.5.7");
        assert_eq!(version(20_012), "2.0.12");
    }

    #[test]
    fn fields_have_the_names_and_values_of_the_profile() {
        let profile = Profile {
            chunk_min: 1,
            chunk_avg: 2,
            chunk_max: 3,
            group_size: 4,
            small_max: 5,
            hole_min: 6,
            level: 7,
            zstd_version: 8,
        };
        let json = serde_json::to_string(&ProfileReport::from(profile)).expect("JSON");
        assert_eq!(
            json,
            r#"{"chunk_min":1,"chunk_avg":2,"chunk_max":3,"group_size":4,"small_max":5,"hole_min":6,"level":7,"zstd_version":8}"#
        );
    }
}
