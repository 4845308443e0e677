// SPDX-License-Identifier: GPL-2.0-or-later

//! Text of lines, as most databases are.

/// The lines of a text with their numbers, from 1, and without what ends them.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let lines = text.split(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        .map(|(index, line)| (index + 1, line))
}

/// The name and the value of a line `NAME: VALUE`.
pub(super) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    if colon == 0 {
        return None;
    }
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_numbers_and_fields_names() {
        let all: Vec<_> = lines(b"A: b\r\n\nC:d").collect();
        assert_eq!(all, [(1, &b"A: b"[..]), (2, b""), (3, b"C:d")]);
        assert_eq!(
            (field(b"A: b "), field(b"C:"), field(b":x"), field(b"x")),
            (Some((&b"A"[..], &b"b"[..])), Some((&b"C"[..], &b""[..])), None, None)
        );
    }
}
