// SPDX-License-Identifier: GPL-2.0-or-later

//! Xattrs and labels in PAX records.
//!
//! GNU tar writes `SCHILY.xattr.NAME` with `=` and `%` of the name as `%3D` and `%25`. bsdtar writes the same key, and
//! `LIBARCHIVE.xattr.NAME` with the value in base 64 beside it, both with the name percent-encoded; the former is the latter once more.

use std::collections::BTreeMap;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::Engine as _;
use percent_encoding::percent_decode;
use tesserafs_format::limits::XATTR_LIST_MAX;
use tesserafs_format::num::usize_from_u32;
use tesserafs_format::xattr::is_valid_name;

use super::header::Parsed;
use crate::error::{path_of, Shown};
use crate::tree::Xattrs;

const SCHILY: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE: &[u8] = b"LIBARCHIVE.xattr.";
/// The label of SELinux as text.
const SELINUX: &[u8] = b"RHT.security.selinux";
/// The xattr that holds it, with a NUL behind.
const SELINUX_NAME: &[u8] = b"security.selinux";

/// Base 64 as libarchive writes it, without padding, or as others would.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The cost of a value in a map beside its bytes.
const OVERHEAD: usize = 64;

/// Names and values.
type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The xattrs of an entry as its PAX records have them.
#[derive(Clone, Debug, Default)]
pub(super) struct PaxXattrs {
    schily: Map,
    /// By encoded name.
    libarchive: Map,
    selinux: Option<Vec<u8>>,
    /// Keys of what cannot be in an image.
    unknown: Vec<Vec<u8>>,
}

impl PaxXattrs {
    /// Bytes that a copy takes.
    pub(super) fn bytes(&self) -> usize {
        let pairs = self.schily.iter().chain(&self.libarchive);
        let pairs: usize = pairs.map(|(name, value)| OVERHEAD + name.len() + value.len()).sum();
        let unknown: usize = self.unknown.iter().map(|key| OVERHEAD + key.len()).sum();
        pairs + unknown + self.selinux.as_ref().map_or(0, Vec::len)
    }

    /// Notes a record, if it is one of these.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Parsed<()> {
        if let Some(name) = key.strip_prefix(SCHILY) {
            insert(&mut self.schily, name, value.to_vec())?;
        } else if let Some(name) = key.strip_prefix(LIBARCHIVE) {
            let value =
                BASE64.decode(value).map_err(|_| format!("PAX: {} is no base 64", Shown(path_of(key))))?;
            insert(&mut self.libarchive, name, value)?;
        } else if key == SELINUX {
            self.selinux = (!value.is_empty()).then(|| value.to_vec());
        } else if [&b"SCHILY.acl."[..], b"RHT.security."].iter().any(|prefix| key.starts_with(prefix)) {
            // The lists of NFSv4, for one.
            self.unknown.push(key.to_vec());
        }
        Ok(())
    }

    /// Notes a record that cannot be in an image.
    pub(super) fn leave_out(&mut self, key: &[u8]) {
        self.unknown.push(key.to_vec());
    }

    /// The xattrs, and the names of those that cannot be in an image.
    pub(super) fn finish(self) -> (Xattrs, Vec<Vec<u8>>) {
        let Self { schily, libarchive, selinux, unknown: mut left_out } = self;
        let decoded: Map =
            libarchive.iter().map(|(name, value)| (percent_decode(name).collect(), value.clone())).collect();
        let is_twin = |name: &Vec<u8>| libarchive.contains_key(name) || decoded.contains_key(name);
        let single = schily.into_iter().filter(|(name, _)| !is_twin(name));
        let mut all: Map = single.map(|(name, value)| (unescape(&name), value)).collect();
        all.extend(decoded);
        if let Some(mut label) = selinux {
            if label.last() != Some(&0) {
                label.push(0);
            }
            all.entry(SELINUX_NAME.to_vec()).or_insert(label);
        }
        let mut xattrs = Xattrs::new();
        for (name, value) in all {
            if is_valid_name(&name) {
                xattrs.push((name, value));
            } else {
                left_out.push(name);
            }
        }
        (xattrs, left_out)
    }
}

fn insert(map: &mut Map, name: &[u8], value: Vec<u8>) -> Parsed<()> {
    map.insert(name.to_vec(), value);
    // `user.`, a byte and a NUL are the least that a name takes in the list.
    if map.len() > usize_from_u32(XATTR_LIST_MAX / 7) {
        return Err("more names of xattrs than an inode can have".into());
    }
    Ok(())
}

/// A name without the escapes of GNU tar.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, behind)) = rest.split_first() {
        let (byte, behind) = match rest {
            [b'%', b'3', b'D', behind @ ..] => (b'=', behind),
            [b'%', b'2', b'5', behind @ ..] => (b'%', behind),
            _ => (*first, behind),
        };
        plain.push(byte);
        rest = behind;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[(&str, &[u8])]) -> (Vec<(String, Vec<u8>)>, usize) {
        let mut pax = PaxXattrs::default();
        for (key, value) in records {
            pax.record(key.as_bytes(), value).unwrap();
        }
        let (xattrs, left_out) = pax.finish();
        let text = |name: Vec<u8>| String::from_utf8(name).unwrap();
        (xattrs.into_iter().map(|(name, value)| (text(name), value)).collect(), left_out.len())
    }

    fn one(name: &str, value: &[u8]) -> Vec<(String, Vec<u8>)> {
        vec![(name.to_owned(), value.to_vec())]
    }

    #[test]
    fn the_escapes_of_gnu_tar_are_undone_once() {
        assert_eq!(of(&[("SCHILY.xattr.user.a%3Db%253D%3d%", b"v")]).0, one("user.a=b%3D%3d%", b"v"));
    }

    #[test]
    fn the_names_of_libarchive_are_exact_and_its_values_base_64() {
        let (both, left_out) =
            of(&[("SCHILY.xattr.user.a%25b", b"\0v"), ("LIBARCHIVE.xattr.user.a%2525b", b"AHY")]);
        assert_eq!((both, left_out), (one("user.a%25b", b"\0v"), 0));
        assert_eq!(of(&[("LIBARCHIVE.xattr.user.%3d", b"dg==")]).0, one("user.=", b"v"));
        // As bsdtar 3.6.2 writes it.
        let twins: [(&str, &[u8]); 2] =
            [("LIBARCHIVE.xattr.user.%253D%3Dx", b"AHY"), ("SCHILY.xattr.user.%253D%3Dx", b"\0v")];
        assert_eq!(of(&twins).0, one("user.%3D=x", b"\0v"));
        // As fsck.tesserafs does: what is not UTF-8 has the former key, and all else the latter, with the escapes of GNU tar.
        let mixed: [(&str, &[u8]); 2] =
            [("LIBARCHIVE.xattr.user.%C3%A9", b"AHY"), ("SCHILY.xattr.user.a%3D%25", b"w")];
        let expected = [one("user.a=%", b"w"), one("user.\u{e9}", b"\0v")].concat();
        assert_eq!(of(&mixed).0, expected);
        let error = PaxXattrs::default().record(b"LIBARCHIVE.xattr.user.a", b"\xff").unwrap_err();
        assert!(error.contains("no base 64"), "{error}");
    }

    #[test]
    fn a_label_has_a_nul_behind_it_and_is_second_to_the_xattr() {
        assert_eq!(of(&[("RHT.security.selinux", b"u:r:t:s0")]).0, one("security.selinux", b"u:r:t:s0\0"));
        let both = of(&[("RHT.security.selinux", b"a"), ("SCHILY.xattr.security.selinux", b"b\0")]).0;
        assert_eq!(both, one("security.selinux", b"b\0"));
    }

    #[test]
    fn names_that_no_image_holds_are_told_apart() {
        let long = format!("SCHILY.xattr.user.{}", "n".repeat(251));
        let records =
            ["SCHILY.xattr.odd.name", "SCHILY.xattr.user.", &long, "SCHILY.acl.ace", "RHT.security.other"];
        assert_eq!(of(&records.map(|key| (key, &b"x"[..]))), (Vec::new(), 5));
        assert_eq!(of(&[("SCHILY.fflags", b"x"), ("LIBARCHIVE.creationtime", b"1")]), (Vec::new(), 0));
    }
}
