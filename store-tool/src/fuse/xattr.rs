// SPDX-License-Identifier: GPL-2.0-or-later

//! Extended attributes, POSIX ACLs among them.

use fuser::{Errno, INodeNo, Request};
use tesserafs_format::settable::{ACCESS_ACL, DEFAULT_ACL};
use tesserafs_image::Broken;

use super::Server;

impl Server {
    /// The value of an xattr; only its length where nothing more is asked for.
    pub(super) fn xattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &[u8],
        size: u32,
    ) -> Result<(u32, Vec<u8>), Errno> {
        if name.starts_with(b"trusted.") && !self.sees_trusted(req) {
            return Err(Errno::NO_XATTR);
        }
        if !self.is_known(name)? {
            return Err(Errno::EOPNOTSUPP);
        }
        let inode = self.inode(ino)?;
        let report = |failure: Broken| self.report(&failure);
        let (set, entry) = self.tree.xattr(&inode, name).map_err(report)?.ok_or(Errno::NO_XATTR)?;
        if size == 0 {
            return Ok((entry.value_len, Vec::new()));
        }
        if entry.value_len > size {
            return Err(Errno::ERANGE);
        }
        Ok((entry.value_len, self.tree.xattr_value(set, &entry).map_err(report)?))
    }

    /// Whether a file could have an xattr of that name; the VFS says so of the kernel driver.
    fn is_known(&self, name: &[u8]) -> Result<bool, Errno> {
        if name == ACCESS_ACL || name == DEFAULT_ACL {
            return Ok(self.shown.acl);
        }
        let prefixes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
        if prefixes.contains(&name) {
            return Err(Errno::EINVAL);
        }
        Ok(prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Whether the caller may see `trusted.*`. The kernel driver asks for `CAP_SYS_ADMIN`, which a request does not tell; for
    /// getxattr(2) the VFS has asked already.
    fn sees_trusted(&self, req: &Request) -> bool {
        self.shown.trusted && req.uid() == 0
    }

    /// The names of the xattrs that the caller may see, with a NUL after each.
    pub(super) fn names(&self, req: &Request, ino: INodeNo) -> Result<Vec<u8>, Errno> {
        let inode = self.inode(ino)?;
        let sees_trusted = self.sees_trusted(req);
        let mut names = Vec::new();
        let listed = self.tree.xattr_names(&inode, |name| {
            let is_acl = name == ACCESS_ACL || name == DEFAULT_ACL;
            let is_hidden = is_acl && !self.shown.acl || name.starts_with(b"trusted.") && !sees_trusted;
            if !is_hidden {
                names.extend_from_slice(name);
                names.push(0);
            }
        });
        listed.map(|()| names).map_err(|failure| self.report(&failure))
    }
}
