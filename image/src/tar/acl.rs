// SPDX-License-Identifier: GPL-2.0-or-later

//! POSIX ACLs as text: what archives hold of them.

/// The version of the format that Linux has for the xattr.
const VERSION: u32 = 2;

/// The ACL of an xattr value (`struct posix_acl_xattr_header` and its entries) as acl_to_text(3) writes it with numbers;
/// `None` of bytes that are no ACL.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let mut lines = Vec::new();
    for entry in entries.chunks_exact(8) {
        let half = |at: usize| Some(u16::from_le_bytes([*entry.get(at)?, *entry.get(at + 1)?]));
        let id = u32::from(half(4)?) | u32::from(half(6)?) << 16;
        let who = match half(0)? {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let rights = half(2)?;
        if rights > 7 {
            return None;
        }
        let right = |bit: u16, letter: char| if rights & bit == 0 { '-' } else { letter };
        lines.push(format!("{who}:{}{}{}", right(4, 'r'), right(2, 'w'), right(1, 'x')));
    }
    Some(lines.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_have_a_line_each() {
        let entry = |tag: u16, rights: u16, id: u32| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let none = u32::MAX;
        let value = [
            2_u32.to_le_bytes().to_vec(),
            entry(1, 7, none),
            entry(2, 6, 70_000),
            entry(4, 5, none),
            entry(0x10, 7, none),
            entry(0x20, 0, none),
        ]
        .concat();
        let expected = "user::rwx,user:70000:rw-,group::r-x,mask::rwx,other::---";
        assert_eq!(text(&value).as_deref(), Some(expected));
        assert_eq!(text(&value[..value.len() - 1]), None);
        assert_eq!(text(&entry(1, 7, none)), None);
        assert_eq!(text(b""), None);
    }
}
