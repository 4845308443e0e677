// SPDX-License-Identifier: GPL-2.0

//! File handles: `name_to_handle_at`, `open_by_handle_at`, NFS, overlayfs.
//!
//! Handles hold a 32-bit inode number, and the parent's.
//!
//! C headers: [`include/linux/exportfs.h`](srctree/include/linux/exportfs.h)

use super::{
    inode::{
        INode,
        Ref, //
    },
    registration::FileSystem,
    super_block::SuperBlock, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::prelude::*;

/// The operations of `struct export_operations` that a filesystem has to provide.
pub(crate) trait Operations {
    /// The filesystem whose handles these operations decode.
    type FileSystem: FileSystem;

    /// Finds an inode by its number, which may be made up: `ESTALE` if there is none.
    fn iget(sb: &SuperBlock<Self::FileSystem>, ino: u64) -> Result<Ref<'_, Self::FileSystem>>;

    /// The directory that a directory lies in.
    fn parent<'a>(dir: &'a INode<Self::FileSystem>) -> Result<Ref<'a, Self::FileSystem>>;
}

/// The table of `U`.
pub(super) const fn ops<U: Operations>() -> &'static bindings::export_operations {
    &Table::<U>::TABLE
}

/// The callbacks of `U`, as C calls them.
struct Table<U: Operations>(PhantomData<U>);

impl<U: Operations> Table<U> {
    const TABLE: bindings::export_operations = bindings::export_operations {
        encode_fh: Some(bindings::generic_encode_ino32_fh),
        fh_to_dentry: Some(Self::fh_to_dentry),
        fh_to_parent: Some(Self::fh_to_parent),
        get_name: None,
        get_parent: Some(Self::get_parent),
        commit_metadata: None,
        permission: None,
        open: None,
        flags: 0,
        #[cfg(CONFIG_EXPORTFS_BLOCK_OPS)]
        block_ops: core::ptr::null(),
    };

    /// # Safety
    ///
    /// To be called by exportfs as `->fh_to_dentry` of a superblock of `U::FileSystem`.
    unsafe extern "C" fn fh_to_dentry(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        // SAFETY: The arguments are those of this callback; `iget` is for such superblocks.
        unsafe { bindings::generic_fh_to_dentry(sb, fid, len, kind, Some(Self::iget)) }
    }

    /// # Safety
    ///
    /// To be called by exportfs as `->fh_to_parent` of a superblock of `U::FileSystem`.
    unsafe extern "C" fn fh_to_parent(
        sb: *mut bindings::super_block,
        fid: *mut bindings::fid,
        len: c_int,
        kind: c_int,
    ) -> *mut bindings::dentry {
        // SAFETY: The arguments are those of this callback; `iget` is for such superblocks.
        unsafe { bindings::generic_fh_to_parent(sb, fid, len, kind, Some(Self::iget)) }
    }

    /// # Safety
    ///
    /// `sb` must be a mounted superblock of `U::FileSystem`.
    unsafe extern "C" fn iget(
        sb: *mut bindings::super_block,
        ino: u64,
        generation: u32,
    ) -> *mut bindings::inode {
        if generation != 0 {
            return ESTALE.to_ptr();
        }
        // SAFETY: As the caller promises; a mounted superblock is ready.
        let sb = unsafe { SuperBlock::from_raw(sb) };
        match U::iget(sb, ino) {
            Ok(inode) => inode.into_raw(),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// To be called by exportfs as `->get_parent` of a superblock of `U::FileSystem`.
    unsafe extern "C" fn get_parent(child: *mut bindings::dentry) -> *mut bindings::dentry {
        // SAFETY: The child is a positive dentry that the caller holds.
        let inode = unsafe { (*child).d_inode };
        // SAFETY: It is one of a superblock of `U::FileSystem`, and so is its inode.
        let dir = unsafe { INode::from_raw(inode) };
        match U::parent(dir) {
            // SAFETY: The reference is given away.
            Ok(parent) => unsafe { bindings::d_obtain_alias(parent.into_raw()) },
            Err(e) => e.to_ptr(),
        }
    }
}
