// SPDX-License-Identifier: GPL-2.0

//! From a filesystem context to the root of a superblock, in this order:
//!
//! 1. Whether the mounter may mount anything ([`FileSystem::check_mounter`]).
//! 2. The kind of the source; a file is opened ([`source::find`]).
//! 3. Whether it may be a source, and how deep it is stacked.
//! 4. All that a mount reads of the image is read and verified ([`FileSystem::open_image`]).
//! 5. The superblock is made, with its data and its root, from what was read.
//!
//! From the beginning of step 5 on the superblock is on the list of all superblocks, and until its end
//! everything that walks that list waits: sync(2), for example. So nothing is read there: a store that
//! does not answer keeps its own mounter waiting, and no other task.
//!
//! A block device is opened by the VFS for a superblock, so there step 4 comes within step 5. Only
//! privileged mounters mount devices, every filesystem reads them in this way, and an image on one has no
//! packs elsewhere.
//!
//! C headers: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h)

use super::{
    backing::Backing,
    context::{
        Context,
        FsContext, //
    },
    registration::FileSystem,
    source::{
        self,
        Named,
        Source, //
    },
    super_block::{
        self,
        New,
        SbInfo,
        SuperBlock, //
    },
};
use crate::{
    bindings,
    mount_error, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

/// All steps.
///
/// # Safety
///
/// `fc` must be a context of the type that a `Registration<T>` registered, whose `->get_tree` this is
/// called from.
pub(super) unsafe fn get_tree<T: FileSystem>(fc: *mut bindings::fs_context) -> Result {
    // SAFETY: As the caller promises.
    let log = unsafe { FsContext::<T>::from_raw(fc) };
    // Step 1.
    T::check_mounter(log)?;
    // There is no other way to mount it; and a device is then opened for reading only.
    //
    // SAFETY: The context is valid, and used by this thread alone.
    unsafe { (*fc).sb_flags |= bindings::TESSERAFS_CONST_SB_RDONLY };
    // SAFETY: The borrow ends before anything else gets at the context.
    let file = unsafe { Context::<T>::of(fc) }.file.take();
    // Step 2.
    match source::find(log, file)? {
        // SAFETY: As the caller promises.
        Source::File(file) => unsafe { get_tree_file::<T>(fc, file) },
        // SAFETY: As the caller promises.
        Source::Device => unsafe { get_tree_device::<T>(fc) },
    }
}

/// Mounts a regular file.
///
/// # Safety
///
/// As for [`get_tree`].
unsafe fn get_tree_file<T: FileSystem>(fc: *mut bindings::fs_context, file: ARef<File>) -> Result {
    // SAFETY: As the caller promises.
    let log = unsafe { FsContext::<T>::from_raw(fc) };
    // Step 3.
    let backing = source::backing(log, Named::Source, file)?;
    // SAFETY: The borrow ends with step 4.
    let context = unsafe { Context::<T>::of(fc) };
    // Step 4.
    context.opened = Some(T::open_image(log, &context.options, backing)?);
    // Step 5.
    //
    // SAFETY: The context is valid, and the callback for contexts of `T`.
    to_result(unsafe { bindings::get_tree_nodev(fc, Some(fill_super_file::<T>)) })
}

/// Mounts the block device that the context names.
///
/// # Safety
///
/// As for [`get_tree`].
unsafe fn get_tree_device<T: FileSystem>(fc: *mut bindings::fs_context) -> Result {
    // Steps 3 to 5, unless it is mounted already.
    //
    // SAFETY: The context is valid, and the callback for contexts of `T`.
    to_result(unsafe { bindings::get_tree_bdev(fc, Some(fill_super_device::<T>)) })?;
    // SAFETY: The context got a root, which is `get_tree_bdev()`'s success.
    let root = unsafe { (*fc).root };
    // SAFETY: A root dentry is valid and has a superblock.
    let raw = unsafe { (*root).d_sb };
    // SAFETY: Superblocks of one type have one `T`; one that has a root is complete. It is active and locked
    // for us.
    let sb = unsafe { SuperBlock::<T>::from_raw(raw) };
    // A new superblock is born when `->get_tree` has returned.
    if !sb.is_born() {
        return Ok(());
    }
    // The device is mounted already, and was checked against the options of that mount.
    //
    // SAFETY: The context is one of `T`.
    let log = unsafe { FsContext::<T>::from_raw(fc) };
    // SAFETY: The borrow ends with the call.
    let context = unsafe { Context::<T>::of(fc) };
    T::check_second_mount(log, &context.options, sb).inspect_err(|_| {
        // SAFETY: The context is valid; as `fc_drop_locked()`, which is not exported.
        unsafe { (*fc).root = core::ptr::null_mut() };
        // SAFETY: The reference was the context's.
        unsafe { bindings::dput(root) };
        // SAFETY: `get_tree_bdev()` left the superblock active and locked for us.
        unsafe { bindings::deactivate_locked_super(raw) };
    })
}

/// Step 5 for a file.
///
/// # Safety
///
/// To be called by `get_tree_nodev()` for a new superblock and a context of `T`.
unsafe extern "C" fn fill_super_file<T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> c_int {
    from_result(|| {
        // SAFETY: The borrow ends before anything else gets at the context.
        let opened = unsafe { Context::<T>::of(fc) }.opened.take();
        let image = opened.ok_or(EINVAL)?;
        // SAFETY: The superblock is new and ours.
        unsafe { (*sb).s_stack_depth = T::stack_depth(&image) };
        // SAFETY: As the caller promises.
        let new = unsafe { begin::<T>(sb, fc) }?;
        // SAFETY: As the caller promises.
        unsafe { finish::<T>(new, fc, image) }?;
        Ok(0)
    })
}

/// Steps 3 to 5 for a block device.
///
/// # Safety
///
/// To be called by `get_tree_bdev()` for a new superblock and a context of `T`.
unsafe extern "C" fn fill_super_device<T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> c_int {
    from_result(|| {
        // The block size of the device is set before anything is read from it.
        //
        // SAFETY: As the caller promises.
        let new = unsafe { begin::<T>(sb, fc) }?;
        // SAFETY: The superblock came from `get_tree_bdev()`, which opened the device.
        let backing = unsafe { Backing::from_bdev(sb) }?;
        // SAFETY: The context is one of `T`.
        let log = unsafe { FsContext::<T>::from_raw(fc) };
        // SAFETY: The borrow ends with the call.
        let context = unsafe { Context::<T>::of(fc) };
        let image = T::open_image(log, &context.options, backing)?;
        // SAFETY: The superblock is new and ours.
        unsafe { (*sb).s_stack_depth = T::stack_depth(&image) };
        // SAFETY: As the caller promises.
        unsafe { finish::<T>(new, fc, image) }?;
        Ok(0)
    })
}

/// Sets up the fields that all superblocks of `T` have.
///
/// # Safety
///
/// `sb` must be new and used by this thread alone, and `fc` the context of `T` that it is for.
unsafe fn begin<'a, T: FileSystem>(
    sb: *mut bindings::super_block,
    fc: *mut bindings::fs_context,
) -> Result<&'a SuperBlock<T, New>> {
    // SAFETY: The context is one of `T`.
    let log = unsafe { FsContext::<T>::from_raw(fc) };
    let info = KBox::new(SbInfo::<T>::new(), GFP_KERNEL)?;
    // SAFETY: The superblock is new and ours. `kill_sb` takes the box back, whatever happens.
    unsafe { (*sb).s_fs_info = KBox::into_raw(info).cast() };
    // SAFETY: The superblock is new, of our type, and has its `s_fs_info`.
    let new = unsafe { super_block::set_up::<T>(sb) };
    // SAFETY: As for `set_up`.
    unsafe { super_block::set_up_backing::<T>(sb) }
        .inspect_err(|e| mount_error!(log, "cannot set up the backing store: {:?}", e))?;
    Ok(new)
}

/// Gives a superblock its data and its root.
///
/// # Safety
///
/// `fc` must be the context of `T` that the superblock is for.
unsafe fn finish<T: FileSystem>(
    new: &SuperBlock<T, New>,
    fc: *mut bindings::fs_context,
    image: T::Image,
) -> Result {
    let sb = new.as_ptr();
    // SAFETY: The context is one of `T`.
    let log = unsafe { FsContext::<T>::from_raw(fc) };
    // SAFETY: The borrow ends with the call.
    let context = unsafe { Context::<T>::of(fc) };
    let data = T::fill_super(log, &context.options, new, image)?;
    // SAFETY: `s_fs_info` is set, to an `SbInfo<T>`.
    unsafe { SbInfo::<T>::of(sb) }.set_data(data);
    // SAFETY: Now it has its data.
    let ready = unsafe { SuperBlock::<T>::from_raw(sb) };
    let root = T::root(ready)?;
    if !root.is_dir() || !core::ptr::eq(root.super_block().as_ptr(), sb) {
        return Err(EINVAL);
    }
    // SAFETY: The superblock has its data and no root; the inode was found to be its own.
    unsafe { super_block::make_root(sb, root.into_raw()) }
}
