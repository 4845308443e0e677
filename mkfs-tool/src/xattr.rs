// SPDX-License-Identifier: GPL-2.0-or-later

//! Users and groups in the values of xattrs.

use tesserafs_format::settable::{
    is_acl, is_capability, ACCESS_ACL, ACL_GROUP, ACL_USER, CAPABILITY, DEFAULT_ACL,
};

use crate::source::owner::IdMap;

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
    use tesserafs_format::settable::acl_entries;

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
