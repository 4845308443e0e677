// SPDX-License-Identifier: GPL-2.0-or-later

//! Names are bytes; printed text has no control bytes.

use std::fmt::Write;
use std::path::Path;

use tesserafs_format::FileType;

/// The bytes as text: printable UTF-8 stays, a backslash becomes two, everything else `\ooo` (octal).
///
/// No two byte strings give the same text.
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if is_printable(c) => out.push(c),
                c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| octal(&mut out, byte)),
            }
        }
        chunk.invalid().iter().for_each(|byte| octal(&mut out, *byte));
    }
    out
}

/// A path as text that a terminal can be given.
pub fn path(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

fn octal(out: &mut String, byte: u8) {
    // Writing to a `String` cannot fail.
    let _ = write!(out, "\\{byte:03o}");
}

/// Whether a terminal shows `c` and does nothing else: no control character, and none that reorders or hides text.
pub fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Whether text of several lines can be given to a terminal as it is.
pub fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || is_printable(c))
}

/// The word for the type of a file in a machine listing.
pub const fn file_type(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::Whiteout => "whiteout",
    }
}

/// Bytes with a unit.
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut shown = "B";
    for unit in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = unit;
    }
    if shown == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {shown}")
    }
}

/// The line of `sha256sum` for a file: a name with a backslash, newline or carriage return is escaped, and the line then begins
/// with a backslash.
pub fn sha256sum_line(digest: &str, name: &[u8]) -> Vec<u8> {
    let special = name.iter().any(|byte| matches!(byte, b'\\' | b'\n' | b'\r'));
    let mut line = Vec::with_capacity(name.len() + digest.len() + 4);
    if special {
        line.push(b'\\');
    }
    line.extend_from_slice(digest.as_bytes());
    line.extend_from_slice(b"  ");
    for byte in name {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_leaves_no_control_byte() {
        let all: Vec<u8> = (0..=255).collect();
        assert!(escape(&all).chars().all(|c| c.is_ascii_graphic() || c == ' '));
        assert_eq!(escape(b"a\x1b[31m\\\n\xff"), "a\\033[31m\\\\\\012\\377");
        assert_eq!(escape("\u{e4}\u{202e}".as_bytes()), "\u{e4}\\342\\200\\256");
    }

    #[test]
    fn what_reorders_or_hides_text_is_not_plain() {
        assert!(is_plain("a \\ line\nand \u{e4}nother\n"));
        for evil in ["\t", "\x1b[m", "\u{202e}", "\u{9b}", "\u{feff}", "\u{200f}"] {
            assert!(!is_plain(evil), "{}", escape(evil.as_bytes()));
        }
    }

    #[test]
    fn sha256sum_escapes_as_coreutils_do() {
        assert_eq!(sha256sum_line("00", b"a b"), b"00  a b\n");
        assert_eq!(sha256sum_line("00", b"a\\\nb\r"), b"\\00  a\\\\\\nb\\r\n");
    }
}
