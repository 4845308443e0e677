// SPDX-License-Identifier: GPL-2.0-or-later

//! Access control lists as text, as `tar --acls`, star and bsdtar store them, and the xattrs that they stand for.
//!
//! A list names users by name, an image by number. star and bsdtar write the number too; GNU tar does not, so it comes from the
//! headers of the same archive, which have names and numbers of owners. A name or number that no header has is looked up on this machine only
//! where that is asked for: the same archive gives the same image everywhere.

use std::collections::HashMap;

use super::header::Parsed;
use crate::error::{path_of, Shown};
use crate::source::AclNames;
use crate::tree::Attributes;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";
/// Version of the xattr's value.
const VERSION: u32 = 2;
/// The ID of entries that are for nobody by number.
const NO_ID: u32 = u32::MAX;

/// Kinds of entries, as in `linux/posix_acl.h`; a list is in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    UserObj = 0x01,
    User = 0x02,
    GroupObj = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

/// The lists of an entry as its PAX records have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) access: Option<Vec<u8>>,
    pub(super) default: Option<Vec<u8>>,
}

/// The numbers of the users and groups that an archive names.
#[derive(Clone, Debug, Default)]
pub(super) struct Owners {
    /// `None` where headers differ.
    users: HashMap<Box<[u8]>, Option<u32>>,
    groups: HashMap<Box<[u8]>, Option<u32>>,
}

impl Owners {
    /// Notes what a header says.
    pub(super) fn note(&mut self, user: (&[u8], u32), group: (&[u8], u32)) {
        for (known, (name, id)) in [(&mut self.users, user), (&mut self.groups, group)] {
            match known.get_mut(name) {
                _ if name.is_empty() => {}
                Some(known) if *known == Some(id) => {}
                Some(known) => *known = None,
                None => {
                    known.insert(name.into(), Some(id));
                }
            }
        }
    }

    /// The number of a name.
    fn id(&self, tag: Tag, name: &[u8], names: AclNames) -> Parsed<u32> {
        if let Some(id) = id(name) {
            return Ok(id);
        }
        let (known, what) = match tag {
            Tag::User => (&self.users, "user"),
            _ => (&self.groups, "group"),
        };
        let header = known.get(name).copied().flatten();
        let host = || (names == AclNames::Host).then(|| on_this_machine(tag, name)).flatten();
        header.or_else(host).ok_or_else(|| {
            let name = Shown(path_of(name));
            match names {
                AclNames::Archive => format!(
                    "its ACL names the {what} {name}, and no header of the archive says which number that is; \
                     --acl-names=host takes it from this machine, as tar does"
                ),
                AclNames::Host => {
                    format!("its ACL names the {what} {name}, whom neither the archive nor this machine knows")
                }
            }
        })
    }
}

/// The number that the C library has for a name.
fn on_this_machine(tag: Tag, name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    match tag {
        Tag::User => nix::unistd::User::from_name(name).ok()?.map(|user| user.uid.as_raw()),
        _ => nix::unistd::Group::from_name(name).ok()?.map(|group| group.gid.as_raw()),
    }
}

fn id(digits: &[u8]) -> Option<u32> {
    let id = super::pax::decimal(digits)?;
    u32::try_from(id).ok().filter(|id| *id != NO_ID)
}

impl Texts {
    /// Bytes that a copy takes.
    pub(super) fn bytes(&self) -> usize {
        [&self.access, &self.default].into_iter().flatten().map(Vec::len).sum()
    }

    /// Gives an inode its lists, unless it has them as xattrs; the mode follows the access list, as it does in a filesystem.
    pub(super) fn apply(&self, attributes: &mut Attributes, owners: &Owners, names: AclNames) -> Parsed<()> {
        for (text, name) in [(&self.access, ACCESS), (&self.default, DEFAULT)] {
            let has = attributes.xattrs.iter().any(|(known, _)| known == name);
            let Some(text) = text.as_ref().filter(|_| !has) else { continue };
            let list = List::parse(text, name == DEFAULT, owners, names)?;
            if list.0.is_empty() {
                continue;
            }
            if name == ACCESS {
                attributes.mode = attributes.mode & !0o777 | list.mode();
            }
            // A list that says no more than the mode is none.
            if name == DEFAULT || list.0.len() > 3 {
                attributes.xattrs.push((name.to_vec(), list.to_xattr()));
            }
        }
        Ok(())
    }
}

/// Tag, ID, permissions.
type AclEntry = (Tag, u32, u16);

/// A list in the order of the kernel.
struct List(Vec<AclEntry>);

impl List {
    /// Entries stand on lines or between commas, and have a type, a name, permissions, and perhaps a number.
    fn parse(text: &[u8], is_default: bool, owners: &Owners, names: AclNames) -> Parsed<Self> {
        let mut entries = Vec::new();
        for entry in text.split(|byte| matches!(byte, b'\n' | b',')) {
            // A comment says which permissions are effective.
            let entry = entry.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            if entry.is_empty() {
                continue;
            }
            let refused = || format!("its ACL has no entry of this form: {}", Shown(path_of(entry)));
            let mut fields: Vec<&[u8]> = entry.split(|byte| *byte == b':').map(<[u8]>::trim_ascii).collect();
            if is_default && matches!(fields[0], b"default" | b"d") {
                fields.remove(0);
            }
            let (tag, name, permissions, number) = match fields[..] {
                [b"user" | b"u", name, permissions, ref rest @ ..] if rest.len() < 2 => {
                    (if name.is_empty() { Tag::UserObj } else { Tag::User }, name, permissions, rest.first())
                }
                [b"group" | b"g", name, permissions, ref rest @ ..] if rest.len() < 2 => (
                    if name.is_empty() { Tag::GroupObj } else { Tag::Group },
                    name,
                    permissions,
                    rest.first(),
                ),
                [b"mask" | b"m", permissions] | [b"mask" | b"m", b"", permissions] => {
                    (Tag::Mask, &b""[..], permissions, None)
                }
                [b"other" | b"o", permissions] | [b"other" | b"o", b"", permissions] => {
                    (Tag::Other, &b""[..], permissions, None)
                }
                _ => return Err(refused()),
            };
            let permissions = permissions.iter().try_fold(0, |bits, byte| match byte {
                b'r' => Ok(bits | 4),
                b'w' => Ok(bits | 2),
                b'x' => Ok(bits | 1),
                b'-' => Ok(bits),
                _ => Err(refused()),
            })?;
            let id = match (tag, number) {
                (Tag::User | Tag::Group, Some(number)) => id(number).ok_or_else(refused)?,
                (Tag::User | Tag::Group, None) => owners.id(tag, name, names)?,
                _ => NO_ID,
            };
            entries.push((tag, id, permissions));
        }
        entries.sort_unstable();
        let list = Self(entries);
        list.check()?;
        Ok(list)
    }

    /// Proves what the kernel wants of a list: the three of the mode, a mask where there are others, nothing twice.
    fn check(&self) -> Parsed<()> {
        let has = |wanted| self.0.iter().any(|(tag, ..)| *tag == wanted);
        let base = [Tag::UserObj, Tag::GroupObj, Tag::Other].into_iter().all(has);
        let masked = has(Tag::Mask) || !(has(Tag::User) || has(Tag::Group));
        let distinct = self.0.windows(2).all(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1));
        if self.0.is_empty() || base && masked && distinct {
            return Ok(());
        }
        Err("its ACL is none: user::, group:: and other:: must be in it, a mask where it names somebody, and nothing twice"
            .into())
    }

    /// The permission bits that it stands for: of the group those of the mask, if there is one.
    fn mode(&self) -> u16 {
        let of = |wanted| self.0.iter().find(|(tag, ..)| *tag == wanted).map(|entry| entry.2);
        let group = of(Tag::Mask).or_else(|| of(Tag::GroupObj)).unwrap_or(0);
        of(Tag::UserObj).unwrap_or(0) << 6 | group << 3 | of(Tag::Other).unwrap_or(0)
    }

    /// The value of the xattr.
    fn to_xattr(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, id, permissions) in &self.0 {
            value.extend((*tag as u16).to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(access: &str, owners: &Owners) -> Parsed<(u16, Vec<AclEntry>)> {
        let mut attributes = Attributes { mode: 0o4700, ..Attributes::default() };
        let texts = Texts { access: Some(access.into()), default: None };
        texts.apply(&mut attributes, owners, AclNames::Archive)?;
        let list = List::parse(access.as_bytes(), false, owners, AclNames::Archive)?;
        assert_eq!(attributes.xattrs.len(), usize::from(list.0.len() > 3));
        Ok((attributes.mode, list.0))
    }

    #[test]
    fn the_forms_of_gnu_tar_star_and_bsdtar_are_read() {
        let mut owners = Owners::default();
        owners.note((b"games", 5), (b"games", 60));
        let expected = (
            0o4674,
            vec![
                (Tag::UserObj, NO_ID, 6),
                (Tag::User, 5, 6),
                (Tag::GroupObj, NO_ID, 4),
                (Tag::Group, 60, 1),
                (Tag::Mask, NO_ID, 7),
                (Tag::Other, NO_ID, 4),
            ],
        );
        for text in [
            "user::rw-\nuser:games:rw-\ngroup::r--\ngroup:games:--x\nmask::rwx\nother::r--\n",
            "user::rw-,user:games:rw-:5,group::r--,group:other:--x:60,mask::rwx,other::r--",
            "other:r--,m:rwx,g:60:x,u:5:rw,u::rw\t#effective:r--,g::r",
        ] {
            assert_eq!(applied(text, &owners), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn a_list_that_says_what_a_mode_says_is_the_mode() {
        let (mode, list) = applied("user::rwx,group::r-x,other::---", &Owners::default()).unwrap();
        assert_eq!((mode, list.len()), (0o4750, 3));
    }

    #[test]
    fn the_value_is_the_kernels() {
        let text = b"user::rw-,user:1:r--,group::---,mask::r--,other::---";
        let list = List::parse(text, false, &Owners::default(), AclNames::Archive).unwrap();
        let expected =
            b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x04\0\x01\0\0\0\x04\0\0\0\xff\xff\xff\xff\
            \x10\0\x04\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
        assert_eq!(list.to_xattr(), expected);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let mut owners = Owners::default();
        owners.note((b"twice", 1), (b"", 0));
        owners.note((b"twice", 2), (b"", 0));
        for (text, reason) in [
            ("user::rw-", "must be in it"),
            ("user::rw-,group::r--,other::r--,user:5:rw-", "must be in it"),
            ("user::rw-,group::r--,other::r--,mask::r--,mask::r--", "must be in it"),
            ("user::rw-,group::r--,other::r--,mask::r--,user:nobody-here:r--", "--acl-names=host"),
            ("user::rw-,group::r--,other::r--,mask::r--,user:twice:r--", "--acl-names=host"),
            ("user::rw-,group::r--,other::r--,mask::r--,user:5:r--:x", "of this form"),
            ("user::rz-", "of this form"),
            ("everyone@:r:allow", "of this form"),
        ] {
            let error = applied(text, &owners).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
