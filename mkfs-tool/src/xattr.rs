// SPDX-License-Identifier: GPL-2.0

//! Xattrs as setxattr(2) takes them: an image holds none that could not be set on a copy of its tree.

use tesserafs_format::FileType;

use crate::source::owner::IdMap;

const CAPABILITY: &[u8] = b"security.capability";
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// An ACL's tag of a user by number.
const ACL_USER: u16 = 0x02;
/// An ACL's tag of a group by number.
const ACL_GROUP: u16 = 0x08;

/// Why setxattr(2) refuses an xattr on a file of that type, if it does.
pub fn refusal(file_type: FileType, name: &[u8], value: &[u8]) -> Option<&'static str> {
    let holds_user = matches!(file_type, FileType::Regular | FileType::Directory);
    if name.starts_with(b"user.") && !holds_user {
        return Some("only files and directories have user.* xattrs");
    }
    match name {
        ACCESS_ACL | DEFAULT_ACL if matches!(file_type, FileType::Symlink) => Some("a symlink has no ACL"),
        DEFAULT_ACL if !matches!(file_type, FileType::Directory) => {
            Some("only a directory has a default ACL")
        }
        ACCESS_ACL | DEFAULT_ACL if !is_acl(value) => Some("its value is no ACL"),
        CAPABILITY if !is_capability(value) => Some("its value is no file capability"),
        _ => None,
    }
}

/// The entries of an ACL: tag, permissions, and user or group.
fn acl_entries(value: &[u8]) -> Option<impl Iterator<Item = (u16, u16, u32)> + '_> {
    let (version, entries) = value.split_first_chunk()?;
    (u32::from_le_bytes(*version) == 2 && entries.len() % 8 == 0).then(|| {
        entries.chunks_exact(8).map(|entry| {
            let tag = u16::from_le_bytes([entry[0], entry[1]]);
            let permissions = u16::from_le_bytes([entry[2], entry[3]]);
            (tag, permissions, u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]))
        })
    })
}

/// As `posix_acl_valid` of the kernel: owner, users, group, groups, mask, others; a mask where users or groups are named.
fn is_acl(value: &[u8]) -> bool {
    let Some(entries) = acl_entries(value) else { return false };
    let mut before = 0;
    let (mut named, mut mask) = (false, false);
    for (tag, permissions, id) in entries {
        let repeats = matches!(tag, ACL_USER | ACL_GROUP);
        let next = before < tag || before == tag && repeats;
        if !matches!(tag, 0x01 | ACL_USER | 0x04 | ACL_GROUP | 0x10 | 0x20) || !next || permissions > 7 {
            return false;
        }
        // No entry before it is left out that must be there.
        if before == 0 && tag != 0x01 || before < 0x04 && tag > 0x04 || repeats && id == u32::MAX {
            return false;
        }
        named |= repeats;
        mask |= tag == 0x10;
        before = tag;
    }
    before == 0x20 && (mask || !named)
}

/// Revision 2, or 3 with a root user of a namespace.
fn is_capability(value: &[u8]) -> bool {
    let Some((magic, _)) = value.split_first_chunk() else { return false };
    // The lowest bit says that they are effective.
    matches!((u32::from_le_bytes(*magic) & !1, value.len()), (0x0200_0000, 20) | (0x0300_0000, 24))
}

/// Gives the users and groups in the value of an xattr other numbers.
pub(crate) fn map_owners(name: &[u8], value: &mut [u8], uids: &IdMap, gids: &IdMap) {
    match name {
        ACCESS_ACL | DEFAULT_ACL if is_acl(value) => {
            for entry in value[4..].chunks_exact_mut(8) {
                match u16::from_le_bytes([entry[0], entry[1]]) {
                    ACL_USER => uids.map_at(entry, 4),
                    ACL_GROUP => gids.map_at(entry, 4),
                    _ => {}
                }
            }
        }
        CAPABILITY if value.len() == 24 && is_capability(value) => uids.map_at(value, 20),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    const NOBODY: u32 = u32::MAX;

    #[test]
    fn what_setxattr_refuses_is_known() {
        let good = acl(&[
            (1, 6, NOBODY),
            (2, 4, 1000),
            (4, 4, NOBODY),
            (8, 4, 50),
            (16, 6, NOBODY),
            (32, 4, NOBODY),
        ]);
        let least = acl(&[(1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]);
        let bad = [
            Vec::new(),
            acl(&[]),
            acl(&[(1, 6, NOBODY), (4, 4, NOBODY)]),
            acl(&[(4, 6, NOBODY), (1, 4, NOBODY), (32, 4, NOBODY)]),
            acl(&[(1, 6, NOBODY), (2, 4, 7), (4, 4, NOBODY), (32, 4, NOBODY)]),
            acl(&[(1, 8, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]),
            acl(&[(1, 6, NOBODY), (2, 4, 7), (16, 4, NOBODY), (32, 4, NOBODY)]),
            acl(&[(1, 6, NOBODY), (1, 6, NOBODY), (4, 4, NOBODY), (32, 4, NOBODY)]),
            good[..good.len() - 1].to_vec(),
        ];
        for value in [&good, &least] {
            assert_eq!(refusal(FileType::Fifo, ACCESS_ACL, value), None);
            assert_eq!(refusal(FileType::Directory, DEFAULT_ACL, value), None);
            assert!(refusal(FileType::Regular, DEFAULT_ACL, value).is_some());
            assert!(refusal(FileType::Symlink, ACCESS_ACL, value).is_some());
        }
        for value in bad {
            assert!(refusal(FileType::Regular, ACCESS_ACL, &value).is_some(), "{value:?}");
        }
        for file_type in [FileType::Symlink, FileType::Fifo, FileType::Socket, FileType::Whiteout] {
            assert!(refusal(file_type, b"user.a", b"").is_some());
            assert_eq!(refusal(file_type, b"trusted.a", b""), None);
        }
        assert_eq!(refusal(FileType::Directory, b"user.a", b""), None);
        let mut capability = vec![1, 0, 0, 2];
        capability.resize(20, 0);
        assert_eq!(refusal(FileType::Regular, CAPABILITY, &capability), None);
        assert!(refusal(FileType::Regular, CAPABILITY, &capability[..19]).is_some());
    }

    #[test]
    fn owners_in_values_are_mapped() {
        let map = |text: &str| IdMap::parse("--uid-map", &[text.to_owned()]).unwrap();
        let mut value = acl(&[
            (1, 6, NOBODY),
            (2, 4, 1000),
            (4, 4, NOBODY),
            (8, 4, 1000),
            (16, 6, NOBODY),
            (32, 4, NOBODY),
        ]);
        map_owners(ACCESS_ACL, &mut value, &map("1000:0:1"), &map("1000:7:1"));
        let ids: Vec<u32> = acl_entries(&value).unwrap().map(|entry| entry.2).collect();
        assert_eq!(ids, [NOBODY, 0, NOBODY, 7, NOBODY, NOBODY]);
        let mut capability = vec![0, 0, 0, 3];
        capability.resize(20, 0);
        capability.extend(100_000_u32.to_le_bytes());
        map_owners(CAPABILITY, &mut capability, &map("100000:0:65536"), &IdMap::default());
        assert_eq!(capability[20..], [0; 4]);
    }
}
