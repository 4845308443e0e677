// SPDX-License-Identifier: GPL-2.0

//! Extended attributes and POSIX ACLs.
//!
//! C headers: [`include/linux/xattr.h`](srctree/include/linux/xattr.h),
//! [`include/linux/posix_acl.h`](srctree/include/linux/posix_acl.h)

use super::{
    c_bytes,
    inode::INode,
    is_initial,
    registration::FileSystem, //
};
use crate::{
    bindings,
    klib::buffer::{
        self,
        Buffer, //
    }, //
};
use core::{
    ffi::CStr,
    marker::PhantomData,
    mem::MaybeUninit, //
};
use kernel::{
    prelude::*,
    str::as_char_ptr_in_const_context, //
};

/// The longest value the kernel hands out.
const SIZE_MAX: usize = bindings::XATTR_SIZE_MAX as usize;

/// The name under which an access ACL is kept.
pub(crate) const POSIX_ACL_ACCESS: &[u8] = b"system.posix_acl_access";

/// The name under which a directory's default ACL is kept.
pub(crate) const POSIX_ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// Where a filesystem's extended attributes come from.
pub(crate) trait Operations {
    /// The filesystem whose inodes these operations serve.
    type FileSystem: FileSystem;

    /// Copies the value of the attribute with the full name `name` to `value`; returns its length.
    ///
    /// `name` begins with `user.`, `trusted.` or `security.`, or is one of [`POSIX_ACL_ACCESS`] and
    /// [`POSIX_ACL_DEFAULT`]. An empty `value` only asks for the length. `ENODATA` if there is no
    /// such attribute, `ERANGE` if `value` is too short.
    fn get(inode: &INode<Self::FileSystem>, name: &[u8], value: &mut [u8]) -> Result<usize>;

    /// Adds the full name of each attribute of the inode to `names`.
    ///
    /// All of them: [`Names::push`] leaves out those that the caller of `listxattr` may not see.
    fn list(inode: &INode<Self::FileSystem>, names: &mut Names<'_>) -> Result;
}

/// The names that `listxattr` returns.
pub(crate) struct Names<'a> {
    /// Where they go; empty if only the length is asked for.
    to: &'a mut [u8],
    count_only: bool,
    used: usize,
    acl: bool,
}

impl Names<'_> {
    /// Adds a name, unless the caller may not see it: `trusted.` needs `CAP_SYS_ADMIN`, and ACLs
    /// need a superblock that has them enabled. `ERANGE` if the caller's buffer is full.
    pub(crate) fn push(&mut self, name: &[u8]) -> Result {
        let hidden = if name.starts_with(b"trusted.") {
            !may_see_trusted()
        } else if name == POSIX_ACL_ACCESS || name == POSIX_ACL_DEFAULT {
            !self.acl
        } else {
            false
        };
        if hidden {
            return Ok(());
        }
        let end = self.used.checked_add(name.len()).ok_or(ERANGE)?;
        let next = end.checked_add(1).ok_or(ERANGE)?;
        if !self.count_only {
            let to = self.to.get_mut(self.used..next).ok_or(ERANGE)?;
            let (nul, to) = to.split_last_mut().ok_or(ERANGE)?;
            buffer::copy(to, name)?;
            *nul = 0;
        }
        self.used = next;
        Ok(())
    }
}

/// Whether the current task may see `trusted.` attributes; not audited, as it is no access yet.
fn may_see_trusted() -> bool {
    // SAFETY: Only looks at the current task's credentials.
    unsafe { bindings::tesserafs_capable_noaudit(bindings::CAP_SYS_ADMIN as c_int) }
}

/// The handlers of `U`, as `sb->s_xattr` wants them.
pub(super) struct Table<U: Operations>(PhantomData<U>);

impl<U: Operations> Table<U> {
    const fn handler(prefix: &'static CStr) -> bindings::xattr_handler {
        bindings::xattr_handler {
            prefix: as_char_ptr_in_const_context(prefix),
            get: Some(Self::get),
            ..pin_init::zeroed()
        }
    }

    const USER: bindings::xattr_handler = Self::handler(c"user.");
    const TRUSTED: bindings::xattr_handler = Self::handler(c"trusted.");
    const SECURITY: bindings::xattr_handler = Self::handler(c"security.");

    /// Ends with a null pointer. The ACLs are not here: the VFS asks `->get_inode_acl` for them.
    pub(super) const HANDLERS: &'static [*const bindings::xattr_handler; 4] = &[
        &Self::USER,
        &Self::TRUSTED,
        &Self::SECURITY,
        core::ptr::null(),
    ];

    /// # Safety
    ///
    /// To be called by the VFS as the `->get` of a handler of a superblock of `U::FileSystem`.
    unsafe extern "C" fn get(
        handler: *const bindings::xattr_handler,
        _dentry: *mut bindings::dentry,
        inode: *mut bindings::inode,
        name: *const c_char,
        buffer: *mut c_void,
        size: usize,
    ) -> c_int {
        kernel::error::from_result(|| {
            // SAFETY: The VFS passes the part of the full name behind the prefix, as a pointer into
            // that name.
            let name = unsafe { bindings::xattr_full_name(handler, name) };
            // SAFETY: The full name is a C string that stays for this call.
            let name = unsafe { c_bytes(name) };
            // SAFETY: Handlers are installed in superblocks of `U::FileSystem` only, and the VFS
            // asks for attributes of initialised inodes.
            let inode = unsafe { INode::from_raw(inode) };
            // SAFETY: A buffer that is not null is kernel memory of `size` bytes.
            let value = unsafe { slice_of(buffer.cast(), size) };
            reply(U::get(inode, name, value)?)
        })
    }

    /// # Safety
    ///
    /// To be called by the VFS as the `->listxattr` of an inode of `U::FileSystem`.
    pub(super) unsafe extern "C" fn listxattr(
        dentry: *mut bindings::dentry,
        buffer: *mut c_char,
        size: usize,
    ) -> isize {
        // SAFETY: `->listxattr` is called on a positive dentry that is held by the caller.
        let inode = unsafe { (*dentry).d_inode };
        // SAFETY: Only `NewINode::init` installs this function, on inodes of `U::FileSystem`.
        let inode = unsafe { INode::<U::FileSystem>::from_raw(inode) };
        let mut names = Names {
            // SAFETY: A buffer that is not null is kernel memory of `size` bytes.
            to: unsafe { slice_of(buffer.cast(), size) },
            count_only: size == 0 || buffer.is_null(),
            used: 0,
            acl: inode.super_block().has_posix_acl(),
        };
        match U::list(inode, &mut names).and_then(|()| reply(names.used)) {
            Ok(len) => len as isize,
            Err(e) => e.to_errno() as isize,
        }
    }

    /// # Safety
    ///
    /// To be called by the VFS as the `->get_inode_acl` of an inode of `U::FileSystem`.
    #[cfg(CONFIG_FS_POSIX_ACL)]
    pub(super) unsafe extern "C" fn get_inode_acl(
        inode: *mut bindings::inode,
        kind: c_int,
        rcu: bool,
    ) -> *mut bindings::posix_acl {
        // In RCU mode nothing keeps the inode's data; the VFS comes back with a reference.
        if rcu {
            return ECHILD.to_ptr();
        }
        // SAFETY: Only `NewINode::init` installs this function, on inodes of `U::FileSystem`; out
        // of RCU mode the caller holds a reference.
        let inode = unsafe { INode::<U::FileSystem>::from_raw(inode) };
        match Self::acl(inode, kind) {
            Ok(acl) => acl,
            Err(e) => e.to_ptr(),
        }
    }

    /// Reads an ACL; null if the inode has none.
    #[cfg(CONFIG_FS_POSIX_ACL)]
    fn acl(inode: &INode<U::FileSystem>, kind: c_int) -> Result<*mut bindings::posix_acl> {
        let name = match u32::try_from(kind)? {
            bindings::ACL_TYPE_ACCESS => POSIX_ACL_ACCESS,
            bindings::ACL_TYPE_DEFAULT => POSIX_ACL_DEFAULT,
            _ => return Err(EINVAL),
        };
        let len = match U::get(inode, name, &mut []) {
            Ok(len) => len,
            Err(e) if e == ENODATA => return Ok(core::ptr::null_mut()),
            Err(e) => return Err(e),
        };
        if len > SIZE_MAX {
            return Err(EFSCORRUPTED);
        }
        let mut value = Buffer::<u8>::zeroed(len)?;
        if U::get(inode, name, &mut value)? != len {
            return Err(EFSCORRUPTED);
        }
        // SAFETY: `i_sb` and its user namespace are assigned once and outlive the inode.
        let user_ns = unsafe { bindings::tesserafs_i_user_ns(inode.as_ptr()) };
        // SAFETY: The namespace is valid; `value` is `len` bytes of kernel memory.
        let acl = unsafe { bindings::posix_acl_from_xattr(user_ns, value.as_ptr().cast(), len) };
        match kernel::error::from_err_ptr(acl) {
            // A list with a user that the namespace does not know grants access to nobody.
            // Privileges that override any list override this one, too.
            Err(e) if e == EINVAL && !is_initial(user_ns) => Err(EACCES),
            acl => acl,
        }
    }
}

/// The caller's buffer, cleared, as it may be memory that nobody has written yet; empty if there is none.
///
/// # Safety
///
/// `buffer` must be null or point to `size` bytes of kernel memory that nobody else uses for `'a`.
unsafe fn slice_of<'a>(buffer: *mut MaybeUninit<u8>, size: usize) -> &'a mut [u8] {
    if buffer.is_null() {
        return &mut [];
    }
    // SAFETY: As the caller promises.
    buffer::zero(unsafe { core::slice::from_raw_parts_mut(buffer, size) })
}

/// A length as the positive result of a C function.
fn reply(len: usize) -> Result<c_int> {
    if len > SIZE_MAX {
        return Err(E2BIG);
    }
    Ok(c_int::try_from(len)?)
}
