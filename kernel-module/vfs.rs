// SPDX-License-Identifier: GPL-2.0

//! Safe wrappers of the C objects of the VFS, as far as a read-only filesystem needs them.
//!
//! The object model is C's, and so are the names: `struct file_system_type`, `struct fs_context`,
//! `struct super_block`, `struct inode`, `struct dentry`, `struct file`, `struct address_space`,
//! each in a file of its own, with the operations table that C attaches to it as a trait.
//! Tables are chosen for each inode; a [`Ops`](inode::Ops) value is a typed pointer to one, so a
//! table of another filesystem cannot be attached.
//!
//! | C                                  | here                                              |
//! |------------------------------------|---------------------------------------------------|
//! | `file_system_type`                 | [`FileSystem`], [`Registration`]                  |
//! | `fs_context`                       | [`FsContext`]; its steps: `source`, `pack_files`, `tree` |
//! | `super_block`                      | [`SuperBlock`] in the states [`New`] and [`Ready`]|
//! | `inode`, `inode_operations`        | [`inode::INode`], [`inode::Operations`]           |
//! | `dentry`                           | [`dentry::Unhashed`]                              |
//! | `file_operations`                  | [`file::Operations`]                              |
//! | `address_space_operations`, `folio`| [`address_space::Operations`], [`LockedFolio`]    |
//! | `address_space` of several inodes  | [`page_cache::PageCache`]                         |
//! | `xattr_handler`                    | [`xattr::Operations`]                             |
//! | `export_operations`                | [`export::Operations`]                            |
//!
//! The order in which objects outlive each other, which the types express as lifetimes:
//!
//! 1. The module outlives every superblock: `file_system_type.owner`. The type of the [`page_cache`] has no
//!    owner, so unloading the module waits for that type's superblock.
//! 2. [`Registration::global`](Registration) outlives every superblock.
//! 3. A superblock's data ([`FileSystem::Data`]) outlives every inode of the superblock; it is
//!    dropped in `kill_sb`, after the last of them was evicted.
//! 4. An [`inode::Ref`] is bound to the borrow of the superblock that it was taken from, so it
//!    cannot be kept in per-mount or per-inode data, where it would pin the inode for ever.
//! 5. Per-inode data ([`FileSystem::INodeData`]) is dropped when the inode is destroyed, in process
//!    context; the memory follows after an RCU grace period. Callbacks that may run in RCU mode
//!    never reach it: they answer `ECHILD`.
//! 6. A file's pages may be those of a shared inode ([`page_cache`]), which the file's inode holds
//!    from its first open until it is destroyed: so an open file, and a mapping, always has its
//!    pages' inode. No superblock is held by the pages.

pub(crate) mod address_space;
pub(crate) mod backing;
pub(crate) mod context;
pub(crate) mod dentry;
pub(crate) mod export;
pub(crate) mod file;
pub(crate) mod folio;
pub(crate) mod inode;
pub(crate) mod meta_inode;
mod mmap;
pub(crate) mod pack_files;
pub(crate) mod page_cache;
pub(crate) mod registration;
mod source;
pub(crate) mod super_block;
mod tree;
pub(crate) mod xattr;

pub(crate) use self::{
    backing::Backing,
    context::FsContext,
    folio::LockedFolio,
    meta_inode::{
        Meta,
        MetaSource, //
    },
    registration::{
        FileSystem,
        Registration, //
    },
    super_block::{
        New,
        Ready,
        StatFs,
        SuperBlock, //
    },
};

use kernel::prelude::*;
use kernel::str::CString;

use crate::bindings;

// Folios are reached through their address in the kernel's linear mapping.
#[cfg(CONFIG_HIGHMEM)]
compile_error!("tesserafs does not support CONFIG_HIGHMEM");
// A metadata block and the hash block that vouches for it must not share a folio.
#[cfg(not(CONFIG_PAGE_SIZE_4KB))]
compile_error!("tesserafs needs pages of 4 KiB: its metadata is verified in blocks of that size");
#[cfg(not(CONFIG_64BIT))]
compile_error!("tesserafs needs a 64-bit kernel: file positions must fit the page cache's index");

/// The bytes of a C string, without the NUL.
///
/// # Safety
///
/// `string` must be a C string that stays as it is for `'a`.
unsafe fn c_bytes<'a>(string: *const kernel::ffi::c_char) -> &'a [u8] {
    // SAFETY: As the caller promises.
    let len = unsafe { bindings::strlen(string) };
    // SAFETY: There are that many bytes before the NUL.
    unsafe { core::slice::from_raw_parts(string.cast(), len) }
}

/// A C string of its own with the bytes of this one. (`CStr::from_ptr()` has an addition that may panic.)
///
/// # Safety
///
/// `string` must be a C string that stays as it is for this call.
unsafe fn copy_c_string(string: *const kernel::ffi::c_char) -> Result<CString> {
    // SAFETY: As the caller promises.
    let len = unsafe { bindings::strlen(string) };
    // SAFETY: There are that many bytes, and the NUL.
    let bytes = unsafe { core::slice::from_raw_parts(string.cast(), len.saturating_add(1)) };
    let string = core::ffi::CStr::from_bytes_with_nul(bytes).map_err(|_| EINVAL)?;
    Ok(CString::try_from(string)?)
}

/// Whether a user namespace is that of the machine.
fn is_initial(user_ns: *const bindings::user_namespace) -> bool {
    core::ptr::eq(user_ns, &raw const bindings::init_user_ns)
}

/// Whether the current task is being killed, so that its work is not wanted any more.
pub(crate) fn fatal_signal_pending() -> bool {
    // SAFETY: Only looks at the current task.
    unsafe { bindings::tesserafs_fatal_signal_pending() }
}
