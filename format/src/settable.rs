// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Xattrs as setxattr(2) takes them: an image holds none that could not be set on a copy of its tree.
//!
//! C files: `fs/xattr.c`, `fs/posix_acl.c`, `security/commoncap.c`. Not for the driver, which sets none.

use crate::inode::FileType;

/// The name of file capabilities.
pub const CAPABILITY: &[u8] = b"security.capability";
/// The name of an access ACL.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The name of a default ACL.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// An ACL's tag of the owner.
const ACL_USER_OBJ: u16 = 0x01;
/// An ACL's tag of a user by number.
pub const ACL_USER: u16 = 0x02;
/// An ACL's tag of the owner's group.
const ACL_GROUP_OBJ: u16 = 0x04;
/// An ACL's tag of a group by number.
pub const ACL_GROUP: u16 = 0x08;
/// An ACL's tag of the mask.
const ACL_MASK: u16 = 0x10;
/// An ACL's tag of all others.
const ACL_OTHER: u16 = 0x20;

/// The version of an ACL's value.
const ACL_VERSION: u32 = 2;

/// Bytes of an ACL's entry.
const ACL_ENTRY: usize = 8;

/// Why setxattr(2) refuses an xattr on a file of that type, if it does. The name is one that an image holds.
///
/// `value` is looked at where [`has_form`] says so.
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

/// Whether the value of an xattr of that name has a form that the kernel checks.
pub fn has_form(name: &[u8]) -> bool {
    [CAPABILITY, ACCESS_ACL, DEFAULT_ACL].contains(&name)
}

/// The entries of an ACL: tag, permissions, and user or group; `None` where the value is none.
pub fn acl_entries(value: &[u8]) -> Option<impl Iterator<Item = (u16, u16, u32)> + '_> {
    let (version, entries) = value.split_first_chunk()?;
    let is_whole = u32::from_le_bytes(*version) == ACL_VERSION && entries.len() % ACL_ENTRY == 0;
    is_whole.then(|| {
        entries.chunks_exact(ACL_ENTRY).filter_map(|entry| {
            let [tag, tag_high, bits, bits_high, id @ ..] = *entry.first_chunk::<ACL_ENTRY>()?;
            let (tag, bits) = ([tag, tag_high], [bits, bits_high]);
            Some((u16::from_le_bytes(tag), u16::from_le_bytes(bits), u32::from_le_bytes(id)))
        })
    })
}

/// Whether a value is an ACL, as `posix_acl_valid` has it: owner, users, group, groups, mask, others; a mask where users or groups are named.
pub fn is_acl(value: &[u8]) -> bool {
    let Some(entries) = acl_entries(value) else { return false };
    let mut before = 0;
    let (mut named, mut mask) = (false, false);
    for (tag, permissions, id) in entries {
        let repeats = matches!(tag, ACL_USER | ACL_GROUP);
        let is_tag = repeats || matches!(tag, ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_MASK | ACL_OTHER);
        let is_next = before < tag || before == tag && repeats;
        if !is_tag || !is_next || permissions > 7 || repeats && id == u32::MAX {
            return false;
        }
        // No entry before it is left out that must be there.
        if before == 0 && tag != ACL_USER_OBJ || before < ACL_GROUP_OBJ && tag > ACL_GROUP_OBJ {
            return false;
        }
        named |= repeats;
        mask |= tag == ACL_MASK;
        before = tag;
    }
    before == ACL_OTHER && (mask || !named)
}

/// Whether a value is a file capability: of revision 2, or of 3, with a root user of a namespace.
pub fn is_capability(value: &[u8]) -> bool {
    let Some((magic, _)) = value.split_first_chunk() else { return false };
    // The lowest bit says that they are effective.
    matches!((u32::from_le_bytes(*magic) & !1, value.len()), (0x0200_0000, 20) | (0x0300_0000, 24))
}
