// SPDX-License-Identifier: GPL-2.0-or-later

//! Profiles: those that have a name, and any in the machine reports of the tools.

use serde::Serialize;
use tesserafs_format::Profile;

/// The profiles that have a name, of which `FORMAT.md` 5.6 has the figures.
///
/// An image has the numbers alone: it has the name whose numbers they are, whoever chose them, and whatever its level is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProfileName {
    /// Between the two others, and taken unless one is named.
    #[default]
    Default,
    /// For images that are shipped more often than they are read at random.
    Small,
    /// For reads at random, and of small files.
    Fast,
}

impl ProfileName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Default, Self::Small, Self::Fast];

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Small => "small",
            Self::Fast => "fast",
        }
    }

    /// The use of it, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::Default => "chunks of 16,64,128 KiB, groups of 96 KiB of files up to 64 KiB",
            Self::Small => {
                "for images that are shipped more often than they are read at random: the smallest; chunks of 32,128,256 KiB, groups \
                 of 128 KiB of files up to 64 KiB"
            }
            Self::Fast => {
                "for reads at random and small files: a larger image; chunks of 12,40,80 KiB, groups of 32 KiB of files up to 32 KiB"
            }
        }
    }

    /// The profile of this name that a text names.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }

    /// Its numbers.
    pub fn profile(self, level: u32, zstd_version: u32) -> Profile {
        let (chunks, group_size, small_max) = match self {
            Self::Default => ([16, 64, 128], 96, 64),
            Self::Small => ([32, 128, 256], 128, 64),
            Self::Fast => ([12, 40, 80], 32, 32),
        };
        let [chunk_min, chunk_avg, chunk_max] = chunks.map(|kib: u32| kib << 10);
        Profile {
            chunk_min,
            chunk_avg,
            chunk_max,
            group_size: group_size << 10,
            small_max: small_max << 10,
            hole_min: 32 << 10,
            level,
            zstd_version,
        }
    }

    /// The name of a profile that is cut as one of these.
    pub fn of(profile: &Profile) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.profile(profile.level, profile.zstd_version) == *profile)
    }
}

/// How an image was cut and compressed: the fields of `FORMAT.md` 5.2, by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProfileReport {
    /// The name of the profile, where the numbers are those of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<&'static str>,
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

impl ProfileReport {
    /// The name in a line for people, behind a separator; nothing where there is none.
    pub fn named(&self, separator: &str) -> String {
        self.name.map_or_else(String::new, |name| format!("{separator}profile {name}"))
    }
}

/// A version of libzstd as its releases are named.
pub fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

impl From<Profile> for ProfileReport {
    fn from(profile: Profile) -> Self {
        let name = ProfileName::of(&profile).map(ProfileName::as_str);
        // All of them, so that a field that comes is not forgotten here.
        let Profile { chunk_min, chunk_avg, chunk_max, group_size, small_max, hole_min, level, zstd_version } =
            profile;
        Self { name, chunk_min, chunk_avg, chunk_max, group_size, small_max, hole_min, level, zstd_version }
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
        let report = ProfileReport::from(profile);
        let json = serde_json::to_string(&report).expect("JSON");
        assert_eq!(
            json,
            r#"{"chunk_min":1,"chunk_avg":2,"chunk_max":3,"group_size":4,"small_max":5,"hole_min":6,"level":7,"zstd_version":8}"#
        );
        assert_eq!(report.named(", "), "");
    }

    #[test]
    fn a_profile_has_the_name_whose_numbers_it_has_at_any_level() {
        for name in ProfileName::ALL {
            assert_eq!(ProfileName::parse(name.as_str()), Some(name));
            let profile = name.profile(19, 10_404);
            assert_eq!(ProfileName::of(&profile), Some(name));
            let report = ProfileReport::from(profile);
            assert_eq!(report.named("; "), format!("; profile {}", name.as_str()));
            // Readers accept it.
            assert_eq!(Profile::parse(&profile.to_raw()).expect("a profile"), profile);
            for other in [
                Profile { chunk_avg: profile.chunk_avg + 2, ..profile },
                Profile { small_max: profile.small_max - 1, ..profile },
                Profile { hole_min: profile.hole_min * 2, ..profile },
            ] {
                assert_eq!(ProfileName::of(&other), None, "{other:?}");
            }
        }
        assert_eq!(ProfileName::parse("Small"), None);
    }
}
