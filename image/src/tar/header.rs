// SPDX-License-Identifier: GPL-2.0-or-later

//! The header of an entry: what fits in ustar's fields, and a PAX record for what does not.

use std::io::{self, Write};

use ::tar::{Builder, EntryType, Header};
use tesserafs_format::Inode;

use super::{acl, BLOCK};

/// The largest number that 7 octal digits hold, in ustar's fields for owners.
const OWNER_MAX: u32 = 0o7_777_777;

/// The largest one of 11 digits, in the fields for sizes and times.
const NUMBER_MAX: u64 = 0o77_777_777_777;

/// An entry that is being put together.
pub(super) struct Entry {
    header: Header,
    records: Vec<(String, Vec<u8>)>,
    /// A path in a record is not UTF-8, which POSIX wants it to be.
    is_binary: bool,
}

impl Entry {
    pub(super) fn new(kind: EntryType, name: &[u8], inode: &Inode) -> Self {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(inode.mode.into());
        if let Some(ustar) = header.as_ustar_mut() {
            // Zero of all but whiteouts, of which it is the device.
            ustar.set_device_major(0);
            ustar.set_device_minor(0);
        }
        let mut entry = Self { header, records: Vec::new(), is_binary: false };
        entry.path(name);
        entry.owner("uid", inode.uid, Header::set_uid);
        entry.owner("gid", inode.gid, Header::set_gid);
        entry.mtime(inode.mtime.sec, inode.mtime.nsec);
        entry
    }

    fn path(&mut self, name: &[u8]) {
        fill(&mut self.header.as_old_mut().name, name);
        // Text that is not ASCII is in no charset in a field, and in UTF-8 in a record.
        if name.len() > 100 || (!name.is_ascii() && std::str::from_utf8(name).is_ok()) {
            self.record_path("path", name);
        }
    }

    /// The target of a symlink or a hard link; nothing for any other type.
    pub(super) fn target(&mut self, target: &[u8]) {
        fill(&mut self.header.as_old_mut().linkname, target);
        if target.len() > 100 || (!target.is_ascii() && std::str::from_utf8(target).is_ok()) {
            self.record_path("linkpath", target);
        }
    }

    fn record_path(&mut self, key: &str, path: &[u8]) {
        self.is_binary |= std::str::from_utf8(path).is_err();
        self.record(key, path);
    }

    fn owner(&mut self, key: &str, id: u32, set: impl Fn(&mut Header, u64)) {
        if id > OWNER_MAX {
            self.record(key, id.to_string().as_bytes());
        }
        set(&mut self.header, id.min(OWNER_MAX).into());
    }

    fn mtime(&mut self, sec: i64, nsec: u32) {
        match u64::try_from(sec) {
            Ok(sec) if nsec == 0 && sec <= NUMBER_MAX => self.header.set_mtime(sec),
            whole => {
                self.header.set_mtime(whole.unwrap_or(0).min(NUMBER_MAX));
                self.record("mtime", seconds(sec, nsec).as_bytes());
            }
        }
    }

    /// An xattr; an ACL also as text, for readers that set ACLs by their own calls.
    pub(super) fn xattr(&mut self, name: &[u8], value: &[u8]) {
        match std::str::from_utf8(name) {
            Ok(name) => {
                let key = match name {
                    "system.posix_acl_access" => Some("SCHILY.acl.access"),
                    "system.posix_acl_default" => Some("SCHILY.acl.default"),
                    _ => None,
                };
                if let Some((key, text)) = key.zip(acl::text(value)) {
                    self.record(key, text.as_bytes());
                }
                // As GNU tar escapes them: the name ends at the first `=`.
                let name = name.replace('%', "%25").replace('=', "%3D");
                self.record(&format!("SCHILY.xattr.{name}"), value);
            }
            Err(_) => self.record(&format!("LIBARCHIVE.xattr.{}", url(name)), base64(value).as_bytes()),
        }
    }

    /// Makes it a sparse file of `size` bytes with these runs of data; the map that stands before the data.
    pub(super) fn sparse(&mut self, name: &[u8], size: u64, runs: &[(u64, u64)]) -> Vec<u8> {
        // Readers that know no sparse files should not take the data for the file.
        let mut stand_in = b"GNUSparseFile.0/".to_vec();
        stand_in.extend_from_slice(name);
        fill(&mut self.header.as_old_mut().name, &stand_in);
        self.records.retain(|(key, _)| key != "path");
        if stand_in.len() > 100 {
            self.record_path("path", &stand_in);
        }
        self.record("GNU.sparse.major", b"1");
        self.record("GNU.sparse.minor", b"0");
        self.record_path("GNU.sparse.name", name);
        self.record("GNU.sparse.realsize", size.to_string().as_bytes());
        let mut runs = runs.to_vec();
        if runs.last().is_none_or(|(start, len)| start + len < size) {
            // A hole at the end is told by an empty run behind it.
            runs.push((size, 0));
        }
        let mut map = format!("{}\n", runs.len());
        for (start, len) in runs {
            map.push_str(&format!("{start}\n{len}\n"));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK as usize), 0);
        map
    }

    fn record(&mut self, key: &str, value: &[u8]) {
        self.records.push((key.to_owned(), value.to_vec()));
    }

    /// Writes the header of an entry with `len` bytes of data.
    pub(super) fn write(mut self, out: &mut dyn Write, len: u64) -> io::Result<()> {
        if len > NUMBER_MAX {
            self.record("size", len.to_string().as_bytes());
        }
        self.header.set_size(len.min(NUMBER_MAX));
        if self.is_binary {
            self.records.insert(0, ("hdrcharset".to_owned(), b"BINARY".to_vec()));
        }
        self.header.set_cksum();
        // A builder ends its archive whatever happened, so that it gets one of its own for these records alone.
        let mut records = Builder::new(Vec::new());
        records.append_pax_extensions(
            self.records.iter().map(|(key, value)| (key.as_str(), value.as_slice())),
        )?;
        out.write_all(records.get_ref())?;
        out.write_all(self.header.as_bytes())
    }
}

/// Fills a field with the beginning of `bytes`; a record has all of what does not fit.
fn fill(field: &mut [u8; 100], bytes: &[u8]) {
    field.fill(0);
    let len = bytes.len().min(field.len());
    field[..len].copy_from_slice(&bytes[..len]);
}

/// A time as a decimal number, exactly.
fn seconds(sec: i64, nsec: u32) -> String {
    let total = i128::from(sec) * 1_000_000_000 + i128::from(nsec);
    let sign = if total < 0 { "-" } else { "" };
    let (whole, part) = (total.unsigned_abs() / 1_000_000_000, total.unsigned_abs() % 1_000_000_000);
    if part == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{part:09}").trim_end_matches('0'))
}

/// The name as libarchive encodes it.
fn url(name: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=');
    name.iter()
        .map(|byte| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// The value as libarchive encodes it: base64 (RFC 4648) without padding.
fn base64(value: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in value.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..=three.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_on_both_sides_of_1970() {
        assert_eq!(seconds(0, 0), "0");
        assert_eq!(seconds(7, 500_000_000), "7.5");
        assert_eq!(seconds(-5, 999_999_999), "-4.000000001");
        assert_eq!(seconds(-1, 500_000_000), "-0.5");
        assert_eq!(seconds(-2, 0), "-2");
    }

    #[test]
    fn names_and_values_are_encoded_as_libarchive_does() {
        assert_eq!(url(b"user.a=\xff%"), "user.a%3D%FF%25");
        assert_eq!(base64(b""), "");
        assert_eq!(base64(b"f"), "Zg");
        assert_eq!(base64(b"fo"), "Zm8");
        assert_eq!(base64(b"foobar"), "Zm9vYmFy");
    }
}
