// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The xattrs that setxattr(2) takes.

use tesserafs_format::settable::{has_form, refusal, ACCESS_ACL, CAPABILITY, DEFAULT_ACL};
use tesserafs_format::FileType;

const NOBODY: u32 = u32::MAX;

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

#[test]
fn what_setxattr_refuses_is_known() {
    let good =
        acl(&[(1, 6, NOBODY), (2, 4, 1000), (4, 4, NOBODY), (8, 4, 50), (16, 6, NOBODY), (32, 4, NOBODY)]);
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
    assert_eq!([CAPABILITY, ACCESS_ACL, DEFAULT_ACL, b"user.a"].map(has_form), [true, true, true, false]);
}
