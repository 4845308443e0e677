// SPDX-License-Identifier: GPL-2.0

//! The backing store: an open regular file, or a block device.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

/// What an image is read from.
///
/// Bytes are copied out of it into memory of the kernel's own: the file may be written by others at
/// any time, so what was verified must not be read again. Cloning shares the open file.
///
/// A read happens in page faults too, with `mmap_lock` held. Filesystems that take `i_rwsem` for a
/// buffered read (XFS, NFS) can then deadlock with a writer of the image file that waits for it, if
/// the fault comes from a `read()` of that same image file into a mapping of a file inside it.
///
/// # Invariants
///
/// `file` is open for reading, is a regular file or a block device, and its position is used by
/// nobody.
#[derive(Clone)]
pub(crate) struct Backing {
    file: ARef<File>,
    len: u64,
    is_block_device: bool,
}

impl Backing {
    /// Takes a regular file, which must be open for reading.
    pub(super) fn from_file(file: ARef<File>) -> Result<Self> {
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file.as_ptr()).f_inode };
        // SAFETY: The file keeps the inode.
        let len = unsafe { bindings::tesserafs_i_size_read(inode) };
        Ok(Self {
            file,
            len: u64::try_from(len).map_err(|_| EIO)?,
            is_block_device: false,
        })
    }

    /// Takes the block device of a superblock.
    ///
    /// # Safety
    ///
    /// `sb` must be a superblock that `get_tree_bdev_flags()` is filling.
    pub(super) unsafe fn from_bdev(sb: *mut bindings::super_block) -> Result<Self> {
        // SAFETY: The superblock is valid.
        let file = NonNull::new(unsafe { (*sb).s_bdev_file }).ok_or(ENOTBLK)?;
        // SAFETY: The device is open, and its file has no position that anybody uses.
        let file = ARef::<File>::from(unsafe { File::from_raw_file(file.as_ptr()) });
        let raw = file.as_ptr();
        // SAFETY: The mapping of an open file does not change.
        let mapping = unsafe { (*raw).f_mapping };
        // Files of block devices that the kernel opens come without readahead.
        //
        // SAFETY: Nobody reads from this file yet.
        unsafe { bindings::file_ra_state_init(&raw mut (*raw).__bindgen_anon_3.f_ra, mapping) };
        // SAFETY: The mapping of a block device has its inode as host.
        let len = unsafe { bindings::tesserafs_i_size_read((*mapping).host) };
        Ok(Self {
            file,
            len: u64::try_from(len).map_err(|_| EIO)?,
            is_block_device: true,
        })
    }

    /// The length in bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `to` with the bytes at `pos`.
    ///
    /// `EIO` if they lie beyond the length, or if the store ends earlier than it did; else what the
    /// store answers. `EINTR` says that the task is being killed: the read says nothing about the
    /// store, and is to be given up without a report. May sleep; no lock is needed.
    pub(crate) fn read_exact_at(&self, mut to: &mut [u8], mut pos: u64) -> Result {
        let end = pos.checked_add(to.len() as u64).ok_or(EIO)?;
        if end > self.len {
            return Err(EIO);
        }
        while !to.is_empty() {
            let n = self.read_at(to, pos)?;
            if n == 0 {
                return Err(EIO);
            }
            let (_, rest) = core::mem::take(&mut to)
                .split_at_mut_checked(n)
                .ok_or(EIO)?;
            to = rest;
            pos = pos.checked_add(n as u64).ok_or(EIO)?;
        }
        Ok(())
    }

    fn read_at(&self, to: &mut [u8], pos: u64) -> Result<usize> {
        let mut pos = bindings::loff_t::try_from(pos).map_err(|_| EIO)?;
        let raw = self.file.as_ptr();
        if self.is_block_device {
            // Not `kernel_read()`: that takes the `i_rwsem` of the device, to keep `set_blocksize()`
            // away. A page fault must not: it may come from a read of the same device into a private
            // mapping of a file of this filesystem, which holds the lock already.
            //
            // SAFETY: The file is that of a block device which this superblock has claimed, so its
            // block size does not change; `to` is kernel memory that is ours to be written, as long
            // as is said.
            let n = unsafe {
                bindings::tesserafs_filemap_read(raw, to.as_mut_ptr().cast(), to.len(), pos)
            };
            // CAST: A negative result is an error number.
            return usize::try_from(n).map_err(|_| Error::from_errno(n as c_int));
        }
        // SAFETY: The credentials of an open file do not change, and live as long as the file,
        // which is longer than they are in force here.
        let old = unsafe { bindings::tesserafs_override_creds((*raw).f_cred) };
        // SAFETY: The file is open for reading by the type invariants, and `to` is kernel memory
        // that is ours to be written, as long as is said.
        let n = unsafe { bindings::kernel_read(raw, to.as_mut_ptr().cast(), to.len(), &mut pos) };
        // SAFETY: `old` is what was in force before.
        unsafe { bindings::tesserafs_revert_creds(old) };
        match usize::try_from(n) {
            Ok(n) => Ok(n),
            // CAST: A negative result is an error number.
            Err(_) => Err(Error::from_errno(n as c_int)),
        }
    }
}
