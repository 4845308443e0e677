// SPDX-License-Identifier: GPL-2.0-or-later

//! One header record of a tar archive: its numbers, its name, its checksum.

use std::ops::Range;

/// Bytes in a header, and the unit in which everything is padded.
pub(super) const RECORD: u64 = 512;

/// Where the checksum stands.
const CHECKSUM: Range<usize> = 148..156;

/// A result, or the defect of an archive in words.
pub(super) type Parsed<T> = Result<T, String>;

/// A header record.
pub(super) struct Header(pub(super) [u8; RECORD as usize]);

impl Header {
    /// Proves the checksum, which counts its own bytes as spaces.
    pub(super) fn check(&self) -> Parsed<()> {
        // Each entry of an archive gets here. Sums that may wrap, and of whole slices, are of several bytes at once; those of a record
        // are far from wrapping.
        let total = |bytes: &[u8], of: fn(u8) -> u8| {
            bytes.iter().fold(0_i32, |sum, byte| sum.wrapping_add(i32::from(of(*byte))))
        };
        let sum = |bytes: &[u8]| total(bytes, |byte| byte);
        let negative = |bytes: &[u8]| total(bytes, |byte| byte >> 7);
        let (all, own) = (&self.0, &self.0[CHECKSUM]);
        let unsigned = sum(all) - sum(own) + sum(&[b' '; CHECKSUM.end - CHECKSUM.start]);
        // As old programs did it.
        let signed = unsigned - 256 * (negative(all) - negative(own));
        match self.number(CHECKSUM) {
            Ok(found) if found == i64::from(unsigned) || found == i64::from(signed) => Ok(()),
            _ => Err("no tar header: its checksum is wrong".into()),
        }
    }

    /// Whether the record is zero, which is one half of an end mark.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The type of the entry.
    pub(super) const fn kind(&self) -> u8 {
        self.0[156]
    }

    /// Whether the header is one of POSIX, where a hard link may have data.
    pub(super) fn is_posix(&self) -> bool {
        &self.0[257..263] == b"ustar\0"
    }

    /// A number.
    pub(super) fn number(&self, range: Range<usize>) -> Parsed<i64> {
        field(&self.0[range])
    }

    /// Bytes behind the header.
    pub(super) fn size(&self) -> Parsed<u64> {
        unsigned(self.number(124..136)?)
    }

    /// A user or group number.
    pub(super) fn id(&self, range: Range<usize>) -> Parsed<u32> {
        u32::try_from(self.number(range)?).map_err(|_| "a user or group number of more than 32 bits".into())
    }

    /// The name of the user or group, which the oldest headers do not have.
    pub(super) fn owner_name(&self, range: Range<usize>) -> &[u8] {
        if &self.0[257..262] == b"ustar" {
            until_nul(&self.0[range])
        } else {
            b""
        }
    }

    /// The name, behind the prefix where there is one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        // GNU's own format has other things in the prefix' place; star's has times in the last part of it.
        let prefix = match (self.is_posix(), &self.0[508..512]) {
            (true, b"tar\0") => until_nul(&self.0[345..476]),
            (true, _) => until_nul(&self.0[345..500]),
            _ => b"",
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    /// The target of a link.
    pub(super) fn link(&self) -> &[u8] {
        until_nul(&self.0[157..257])
    }
}

/// The bytes before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Not below zero.
pub(super) fn unsigned(number: i64) -> Parsed<u64> {
    u64::try_from(number).map_err(|_| "a negative size".into())
}

/// A number in a header: octal digits, or, with the first bit set, a big-endian two's complement of the other bits.
pub(super) fn field(bytes: &[u8]) -> Parsed<i64> {
    let refused = || "a number that is none".to_owned();
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => {
            // The second bit is the sign.
            let start = if first & 0x40 != 0 { -1 } else { i128::from(first & 0x3f) };
            let rest = bytes.iter().skip(1).try_fold(start, |number: i128, byte| {
                number.checked_mul(256).map(|number| number + i128::from(*byte))
            });
            rest.and_then(|number| i64::try_from(number).ok()).ok_or_else(refused)
        }
        _ => {
            let text = until_nul(bytes).trim_ascii();
            if text.is_empty() {
                return Ok(0);
            }
            let digits = std::str::from_utf8(text).ok().filter(|digits| !digits.starts_with('+'));
            i64::from_str_radix(digits.ok_or_else(refused)?, 8).map_err(|_| refused())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_of_bytes_with_a_sign_or_without() {
        let mut record = [0; RECORD as usize];
        record[..100].fill(b'A');
        record[500..510].fill(0xe9);
        let takes = |sum: i32, record: &mut [u8; RECORD as usize]| {
            record[CHECKSUM].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            Header(*record).check().is_ok()
        };
        let unsigned = 100 * 0x41 + 10 * 0xe9 + 8 * 0x20;
        assert!(takes(unsigned, &mut record));
        assert!(takes(unsigned - 10 * 256, &mut record));
        assert!(!takes(unsigned + 1, &mut record) && !takes(unsigned - 256, &mut record));
        // Its own bytes count as spaces, whatever they are.
        record[CHECKSUM].copy_from_slice(&[0xff; 8]);
        assert!(Header(record).check().is_err());
    }
}
