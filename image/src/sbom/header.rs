// SPDX-License-Identifier: GPL-2.0-or-later

//! The header of an rpm, as the database has it: a count of entries, one of bytes, the entries, and the bytes that they point to.

use super::Wrong;

/// Bytes of an entry: tag, type, offset and count.
const ENTRY_BYTES: usize = 16;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Char = 1,
    Int16 = 3,
    Int32 = 4,
    Text = 6,
    Texts = 8,
    /// In several languages, of which the first one is none.
    I18nText = 9,
}

/// A header, whose entries lie in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    entries: &'a [u8],
    store: &'a [u8],
}

impl<'a> Header<'a> {
    /// Splits a blob, which is `place` in the database.
    pub(super) fn parse(blob: &'a [u8], place: &str) -> Result<Self, Wrong> {
        let wrong =
            |expected| Wrong::new(place.to_owned(), format!("a header of {} bytes", blob.len()), expected);
        let (counts, rest) = blob.split_at_checked(8).ok_or_else(|| wrong("8 bytes of counts"))?;
        let count = |at: usize| number(&counts[at..]).and_then(|count| usize::try_from(count).ok());
        let entries = count(0).and_then(|count| count.checked_mul(ENTRY_BYTES));
        let split = entries.and_then(|bytes| rest.split_at_checked(bytes));
        let (entries, rest) = split.ok_or_else(|| wrong("as many entries as it says"))?;
        let store = count(4).and_then(|bytes| rest.get(..bytes));
        Ok(Self { entries, store: store.ok_or_else(|| wrong("as many bytes of values as it says"))? })
    }

    /// The bytes from the first value of a tag on, and how many values there are.
    fn find(&self, tag: u32, types: &[Type]) -> Option<(&'a [u8], usize)> {
        let entry = self.entries.chunks_exact(ENTRY_BYTES).find(|entry| number(entry) == Some(tag))?;
        let kind = number(&entry[4..])?;
        if !types.iter().any(|wanted| *wanted as u32 == kind) {
            return None;
        }
        let offset = usize::try_from(number(&entry[8..])?).ok()?;
        Some((self.store.get(offset..)?, usize::try_from(number(&entry[12..])?).ok()?))
    }

    /// The text of a tag; of several the first.
    pub(super) fn text(&self, tag: u32) -> Option<&'a [u8]> {
        let (bytes, _) = self.find(tag, &[Type::Text, Type::I18nText, Type::Texts])?;
        bytes.split(|byte| *byte == 0).next()
    }

    /// The texts of a tag; fewer than it says where the header ends before.
    pub(super) fn texts(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> {
        let (mut rest, count) =
            self.find(tag, &[Type::Texts, Type::Text, Type::I18nText]).unwrap_or((&[], 0));
        std::iter::from_fn(move || {
            let end = rest.iter().position(|byte| *byte == 0)?;
            let text = &rest[..end];
            rest = &rest[end + 1..];
            Some(text)
        })
        .take(count)
    }

    /// The bytes of a tag, a number each; fewer than it says where the header ends before.
    pub(super) fn states(&self, tag: u32) -> &'a [u8] {
        let (bytes, count) = self.find(tag, &[Type::Char]).unwrap_or((&[], 0));
        bytes.get(..count).unwrap_or(bytes)
    }

    /// The numbers of a tag, of 32 bits or 16; fewer than it says where the header ends before.
    pub(super) fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> + 'a {
        let wide = self.find(tag, &[Type::Int32]).unwrap_or((&[], 0));
        let narrow = self.find(tag, &[Type::Int16]).unwrap_or((&[], 0));
        let wide = wide.0.chunks_exact(4).take(wide.1).filter_map(number);
        wide.chain(
            narrow.0.chunks_exact(2).take(narrow.1).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])),
        )
    }
}

/// The number that bytes begin with.
fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of a name, three numbers and two texts.
    fn blob() -> Vec<u8> {
        let entries: [[u32; 4]; 4] = [[1000, 6, 0, 1], [1030, 3, 6, 2], [1037, 4, 12, 1], [1118, 8, 16, 2]];
        let store = b"name\0\0\x81\xa4\xa1\xff\0\0\0\0\0\x40/a/\0/b/\0";
        let counts = [entries.len() as u32, store.len() as u32].map(u32::to_be_bytes).concat();
        let entries: Vec<u8> = entries.iter().flatten().flat_map(|number| number.to_be_bytes()).collect();
        [counts, entries, store.to_vec()].concat()
    }

    #[test]
    fn values_are_found_by_tag_and_type() {
        let blob = blob();
        let header = Header::parse(&blob, "x").expect("a header");
        assert_eq!(
            (header.text(1000), header.text(1001), header.text(1037)),
            (Some(&b"name"[..]), None, None)
        );
        assert_eq!(header.numbers(1030).collect::<Vec<_>>(), [0o100_644, 0o120_777]);
        assert_eq!(header.numbers(1037).collect::<Vec<_>>(), [0x40]);
        assert_eq!(header.texts(1118).collect::<Vec<_>>(), [&b"/a/"[..], b"/b/"]);
    }

    #[test]
    fn what_is_cut_or_lies_is_refused_or_shorter() {
        let whole = blob();
        for end in 0..whole.len() {
            assert!(Header::parse(&whole[..end], "x").is_err(), "{end}");
        }
        // Each byte of the entries says something else.
        for at in 0..8 + 4 * ENTRY_BYTES {
            for value in [0, 1, 0x7f, 0xff] {
                let mut blob = whole.clone();
                blob[at] = value;
                let Ok(header) = Header::parse(&blob, "x") else { continue };
                for tag in [1000, 1030, 1037, 1118] {
                    let (texts, numbers) = (header.texts(tag).count(), header.numbers(tag).count());
                    assert!(
                        texts <= blob.len()
                            && numbers <= blob.len()
                            && header.states(tag).len() <= blob.len()
                    );
                    let _ = header.text(tag);
                }
            }
        }
    }
}
