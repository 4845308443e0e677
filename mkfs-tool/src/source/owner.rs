// SPDX-License-Identifier: GPL-2.0-or-later

//! Owners: other numbers for those of the source.

use crate::error::{Error, Result, Shown};

/// Ranges of numbers that become others, as `FROM:TO:COUNT`; a number in none stays what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMap(Vec<IdRange>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdRange {
    from: u32,
    to: u32,
    count: u32,
}

impl IdRange {
    fn parse(text: &str) -> Option<Self> {
        let numbers: Vec<u32> =
            text.split(':').map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
        let [from, to, count] = numbers[..] else { return None };
        // The last number is no owner.
        let fits = |start: u32| start.checked_add(count).is_some();
        (count > 0 && fits(from) && fits(to)).then_some(Self { from, to, count })
    }
}

impl IdMap {
    /// Reads the values of `option`.
    pub fn parse(option: &str, values: &[String]) -> Result<Self> {
        let mut ranges: Vec<IdRange> = Vec::new();
        for value in values {
            let refused = |what: &str| Error::Usage(format!("{option} {}: {what}", Shown(value.as_ref())));
            let range = IdRange::parse(value).ok_or_else(|| {
                refused("FROM:TO:COUNT is wanted, three numbers whose ranges end below 4294967295")
            })?;
            let overlaps = |other: &IdRange| {
                range.from < other.from + other.count && other.from < range.from + range.count
            };
            if ranges.iter().any(overlaps) {
                return Err(refused("another range has some of its numbers"));
            }
            ranges.push(range);
        }
        Ok(Self(ranges))
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number in the image.
    pub fn map(&self, id: u32) -> u32 {
        let range = self.0.iter().find(|range| id >= range.from && id - range.from < range.count);
        range.map_or(id, |range| range.to + (id - range.from))
    }

    /// Maps 32 bits of an xattr's value at `at`, if it has them.
    pub(crate) fn map_at(&self, value: &mut [u8], at: usize) {
        if let Some(bytes) = value.get_mut(at..at + 4) {
            let id = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            bytes.copy_from_slice(&self.map(id).to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_mapped_and_the_rest_stays() {
        let map = |values: &[&str]| {
            IdMap::parse("--uid-map", &values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
        };
        let ids = map(&["100000:0:65536", "1000:0:1", "0:4294967294:1"]).unwrap();
        let expected =
            [(100_000, 0), (165_535, 65_535), (165_536, 165_536), (1000, 0), (1001, 1001), (0, u32::MAX - 1)];
        for (from, to) in expected {
            assert_eq!(ids.map(from), to);
        }
        for bad in [
            &["1:2"][..],
            &["1:2:0"],
            &["a:0:1"],
            &["0:0:4294967295", "5:6:1"],
            &["1:4294967295:1"],
            &["-1:0:1"],
        ] {
            assert!(map(bad).is_err(), "{bad:?}");
        }
    }
}
