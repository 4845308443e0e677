// SPDX-License-Identifier: GPL-2.0

//! Directory entries, as `->lookup` sees them.
//!
//! C headers: [`include/linux/dcache.h`](srctree/include/linux/dcache.h)

use super::{
    inode::Ref,
    registration::FileSystem,
    super_block::SuperBlock, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    error::from_err_ptr,
    prelude::*, //
};

/// A dentry that is being looked up: negative and not hashed yet.
///
/// As long as it is in that state its name and parent cannot change, no matter which locks are
/// held: a rename needs a hashed dentry. [`Unhashed::splice_alias`] ends the state, and so consumes
/// the value; there is no other way to answer a lookup.
///
/// # Invariants
///
/// `dentry` is valid, in lookup, negative and unhashed for `'a`, in a directory of a `T`.
pub(crate) struct Unhashed<'a, T: FileSystem> {
    dentry: *mut bindings::dentry,
    _p: PhantomData<&'a SuperBlock<T>>,
}

impl<'a, T: FileSystem> Unhashed<'a, T> {
    /// # Safety
    ///
    /// `dentry` must be the argument of a `->lookup` in a `T`, for the duration `'a` of that call.
    pub(super) unsafe fn from_raw(dentry: *mut bindings::dentry) -> Self {
        // INVARIANT: The VFS calls `->lookup` with such a dentry.
        Self {
            dentry,
            _p: PhantomData,
        }
    }

    /// The name that is looked up: without `/` and NUL, never empty.
    pub(crate) fn name(&self) -> &[u8] {
        // SAFETY: By the type invariants the dentry is valid, and its name is stable.
        let name = unsafe { (*self.dentry).__bindgen_anon_1.d_name };
        // SAFETY: Every member of the union is a view of the same two words.
        let len = unsafe { name.__bindgen_anon_1.__bindgen_anon_1.len };
        // SAFETY: `name` points to `len` bytes, which stay as long as the name is stable.
        unsafe { core::slice::from_raw_parts(name.name, len as usize) }
    }

    /// Connects the name with `inode`, or with nothing: then it is remembered that it is absent.
    ///
    /// An inode of another superblock is `EINVAL`.
    pub(crate) fn splice_alias(self, inode: Option<Ref<'_, T>>) -> Result<Spliced<'a>> {
        let inode = match inode {
            Some(inode) => {
                // SAFETY: `d_sb` is assigned once, when the dentry is allocated.
                let sb = unsafe { (*self.dentry).d_sb };
                if !core::ptr::eq(SuperBlock::as_ptr(inode.super_block()), sb) {
                    return Err(EINVAL);
                }
                inode.into_raw()
            }
            None => core::ptr::null_mut(),
        };
        // SAFETY: By the type invariants the dentry is in lookup and unhashed; it and the inode
        // belong to one superblock; the inode's reference is given away.
        let spliced = unsafe { bindings::d_splice_alias(inode, self.dentry) };
        Ok(Spliced {
            dentry: from_err_ptr(spliced)?,
            _p: PhantomData,
        })
    }
}

/// The answer to a lookup; only [`Unhashed::splice_alias`] makes one.
pub(crate) struct Spliced<'a> {
    dentry: *mut bindings::dentry,
    _p: PhantomData<&'a ()>,
}

impl Spliced<'_> {
    /// The result of `->lookup`: another dentry with a reference, or null for the one it was given.
    pub(super) fn into_raw(self) -> *mut bindings::dentry {
        self.dentry
    }
}
