// SPDX-License-Identifier: GPL-2.0-or-later

//! A tiny writer of tar archives, for tests: entries in, bytes with right checksums out.
//! The tests of archives and the fuzz targets share it.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each program uses a part")]

/// An archive in the making.
#[derive(Clone, Default)]
pub struct Archive(Vec<u8>);

impl Archive {
    /// Adds a header record of any kind, with what follows it.
    pub fn raw(
        &mut self,
        name: &[u8],
        kind: u8,
        link: &[u8],
        bytes: &[u8],
        edit: impl FnOnce(&mut [u8; 512]),
    ) -> &mut Self {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name);
        header[100..107].copy_from_slice(if kind == b'5' { b"0000755" } else { b"0000644" });
        header[108..115].copy_from_slice(b"0000001");
        header[116..123].copy_from_slice(b"0000002");
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000144");
        header[156] = kind;
        header[157..157 + link.len()].copy_from_slice(link);
        header[257..265].copy_from_slice(b"ustar\x0000");
        edit(&mut header);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend(header);
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(&mut self, name: &str, bytes: &[u8]) -> &mut Self {
        self.raw(name.as_bytes(), b'0', b"", bytes, |_| {})
    }

    pub fn dir(&mut self, name: &str) -> &mut Self {
        self.raw(name.as_bytes(), b'5', b"", b"", |_| {})
    }

    pub fn link(&mut self, kind: u8, name: &str, target: &str) -> &mut Self {
        self.raw(name.as_bytes(), kind, target.as_bytes(), b"", |_| {})
    }

    /// PAX records for the next entry.
    pub fn pax(&mut self, kind: u8, records: &[(&[u8], &[u8])]) -> &mut Self {
        let mut bytes = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            // The length counts its own digits.
            let len =
                (1..).map(|digits| rest + digits).find(|len| len.to_string().len() + rest == *len).unwrap();
            bytes.extend([len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat());
        }
        self.raw(b"pax", kind, b"", &bytes, |_| {})
    }

    /// The archive with its end mark.
    pub fn end(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}
