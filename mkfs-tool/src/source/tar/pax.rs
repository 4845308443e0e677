// SPDX-License-Identifier: GPL-2.0-or-later

//! PAX records: what a header of 1988 has no room for.

use tesserafs_format::Timestamp;

use super::acl;
use super::header::Parsed;
use super::xattr::PaxXattrs;
use crate::error::{path_of, Shown};

/// PAX records that count here; `None` where there is none.
#[derive(Clone, Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) uname: Option<Vec<u8>>,
    pub(super) gname: Option<Vec<u8>>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: PaxXattrs,
    pub(super) acls: acl::Texts,
    pub(super) sparse: Sparse,
}

/// GNU's PAX records for sparse files.
#[derive(Clone, Debug, Default)]
pub(super) struct Sparse {
    pub(super) major: u64,
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    /// Offset, length, offset, length, ...
    pub(super) map: Vec<u64>,
}

impl Pax {
    /// Bytes that a copy takes beside the records themselves.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.path, &self.linkpath, &self.sparse.name, &self.uname, &self.gname];
        let texts: usize = texts.into_iter().flatten().map(Vec::len).sum();
        texts + self.xattrs.bytes() + self.acls.bytes() + size_of_val(&self.sparse.map[..])
    }

    /// Reads PAX records, `LENGTH KEY=VALUE` with a newline.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Parsed<()> {
        let damaged = || "a damaged PAX header".to_owned();
        // Some writers pad with zeros.
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let len =
                decimal(&bytes[..space]).and_then(|len| usize::try_from(len).ok()).ok_or_else(damaged)?;
            let record = bytes.get(space + 1..len).ok_or_else(damaged)?;
            let record = record.strip_suffix(b"\n").ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            self.record(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[len..];
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Parsed<()> {
        let number = || decimal(value).ok_or_else(|| format!("PAX: {} is no number", Shown(path_of(key))));
        let id =
            || u32::try_from(number()?).map_err(|_| "a user or group number of more than 32 bits".to_owned());
        // An empty value takes back what a global header said.
        let bytes = || (!value.is_empty()).then(|| value.to_vec());
        let there = !value.is_empty();
        match key {
            b"path" => self.path = bytes(),
            b"linkpath" => self.linkpath = bytes(),
            b"size" => self.size = there.then(number).transpose()?,
            b"uid" => self.uid = there.then(id).transpose()?,
            b"gid" => self.gid = there.then(id).transpose()?,
            b"uname" => self.uname = bytes(),
            b"gname" => self.gname = bytes(),
            b"mtime" => {
                let refused = || format!("PAX: mtime is no time: {}", Shown(path_of(value)));
                self.mtime = there.then(|| time(value).ok_or_else(refused)).transpose()?;
            }
            b"GNU.sparse.major" => self.sparse.major = number()?,
            b"GNU.sparse.name" => self.sparse.name = bytes(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = Some(number()?),
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.push(number()?),
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').filter(|number| !number.is_empty());
                self.sparse.map =
                    numbers.map(decimal).collect::<Option<_>>().ok_or("a damaged map of a sparse file")?;
            }
            b"SCHILY.acl.access" => self.acls.access = bytes(),
            b"SCHILY.acl.default" => self.acls.default = bytes(),
            _ => self.xattrs.record(key, value)?,
        }
        Ok(())
    }
}

/// A decimal number without a sign.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// A PAX time: digits, perhaps behind a minus sign, perhaps with a fraction behind them. It is rounded down to a nanosecond;
/// seconds that 64 bits do not hold become the farthest that they do, which no image holds either.
fn time(value: &[u8]) -> Option<Timestamp> {
    let (negative, text) = value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().filter(|whole| !whole.is_empty())?;
    let fraction = parts.next().unwrap_or_default();
    if !whole.iter().chain(fraction).all(u8::is_ascii_digit) {
        return None;
    }
    let digit = |byte: &u8| i64::from(byte - b'0');
    let sec = whole.iter().fold(0_i64, |sec, byte| sec.saturating_mul(10).saturating_add(digit(byte)));
    let nsec =
        fraction.iter().chain(&[b'0'; 9]).take(9).fold(0_u32, |n, byte| n * 10 + u32::from(byte - b'0'));
    let finer = fraction.iter().skip(9).any(|byte| *byte != b'0');
    Some(match (negative, nsec + u32::from(negative && finer)) {
        (false, nsec) => Timestamp { sec, nsec },
        (true, 0) => Timestamp { sec: -sec, nsec: 0 },
        (true, nsec) => Timestamp { sec: (-sec).saturating_sub(1), nsec: 1_000_000_000 - nsec },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rounded_down_and_have_a_digit_before_the_point() {
        let of = |text: &str| time(text.as_bytes()).map(|time| (time.sec, time.nsec));
        for (text, expected) in [
            ("0", (0, 0)),
            ("5.", (5, 0)),
            ("5.000000001", (5, 1)),
            ("5.0000000019", (5, 1)),
            ("-1.5", (-2, 500_000_000)),
            ("-1.0000000001", (-2, 999_999_999)),
            ("-1.9999999999", (-2, 0)),
            ("-1.0000000000", (-1, 0)),
            ("-2147483648.0000000001", (-2_147_483_649, 999_999_999)),
            ("-0.5", (-1, 500_000_000)),
            ("99999999999999999999", (i64::MAX, 0)),
        ] {
            assert_eq!(of(text), Some(expected), "{text}");
        }
        for text in ["", "-", ".", "-.", ".5", "-.5", "+5", "--5", "5.x", "5 ", "5.5.5", "0x5"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
