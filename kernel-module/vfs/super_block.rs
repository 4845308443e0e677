// SPDX-License-Identifier: GPL-2.0

//! Superblocks.
//!
//! C headers: [`include/linux/fs/super_types.h`](srctree/include/linux/fs/super_types.h)

use super::{
    export,
    inode::INodeWithData,
    meta_inode::{
        self,
        Meta, //
    },
    registration::{
        FileSystem,
        Registration, //
    },
    xattr, //
};
use crate::bindings;
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_result,
        to_result, //
    },
    prelude::*,
    seq_file::SeqFile,
    sync::SetOnce,
    types::Opaque, //
};

/// The state of a superblock that is being filled: nobody but the mounter sees it.
pub(crate) struct New(());

/// The state of a superblock that has its data: it may have inodes.
pub(crate) struct Ready(());

/// A superblock of the filesystem `T`, in the state `S`.
///
/// # Invariants
///
/// - The superblock is of the type that a [`Registration<T>`] registered, and its `s_fs_info` is a
///   [`SbInfo<T>`].
/// - In the state [`Ready`] that has its data.
#[repr(transparent)]
pub(crate) struct SuperBlock<T: FileSystem, S = Ready> {
    inner: Opaque<bindings::super_block>,
    _p: PhantomData<(fn() -> T, S)>,
}

// SAFETY: A superblock may be used from any thread, and its data is `Send` and `Sync`. The pointer to
// its metadata inode is written before this state, and when no inode and no reader is left. `New` is
// excluded: its setters must not race with each other.
unsafe impl<T: FileSystem> Sync for SuperBlock<T, Ready> {}

/// The private data of a superblock: `s_fs_info` points to it.
pub(super) struct SbInfo<T: FileSystem> {
    /// The metadata inode, with a reference; null before it is made and after shutdown.
    meta_inode: UnsafeCell<*mut bindings::inode>,
    meta: SetOnce<T::Meta>,
    data: SetOnce<T::Data>,
}

impl<T: FileSystem> SbInfo<T> {
    pub(super) const fn new() -> Self {
        Self {
            meta_inode: UnsafeCell::new(core::ptr::null_mut()),
            meta: SetOnce::new(),
            data: SetOnce::new(),
        }
    }

    /// # Safety
    ///
    /// `sb` must be a superblock of `T` whose `s_fs_info` was set, and stay for `'a`.
    pub(super) unsafe fn of<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: The superblock is valid, as the caller promises; this is set once.
        let info = unsafe { (*sb).s_fs_info };
        // SAFETY: As the caller promises. It is freed after the last inode is gone.
        unsafe { &*info.cast() }
    }

    pub(super) fn meta_source(&self) -> Option<&T::Meta> {
        self.meta.as_ref()
    }

    pub(super) fn set_data(&self, data: T::Data) {
        self.data.populate(data);
    }

    /// The device number will be given back: that of a superblock without a device at once to the
    /// next mount.
    fn shut_down(&self) {
        if let Some(data) = self.data.as_ref() {
            T::shut_down(data);
        }
    }

    fn meta_inode(&self) -> *mut bindings::inode {
        // SAFETY: It is set while only the mounter sees the superblock, and cleared when nobody
        // uses it any more.
        unsafe { *self.meta_inode.get() }
    }

    /// Drops the metadata inode.
    ///
    /// # Safety
    ///
    /// Nobody may be using it: the superblock is being shut down.
    unsafe fn drop_meta_inode(&self) {
        // SAFETY: As the caller promises, nobody reads the pointer.
        let inode = unsafe { self.meta_inode.get().replace(core::ptr::null_mut()) };
        // SAFETY: Null, or an inode of which we own a reference.
        unsafe { bindings::iput(inode) };
    }
}

impl<T: FileSystem, S> SuperBlock<T, S> {
    /// # Safety
    ///
    /// `sb` must satisfy the invariants of the type in the state `S`, and stay for `'a`.
    pub(super) unsafe fn from_raw<'a>(sb: *mut bindings::super_block) -> &'a Self {
        // SAFETY: As the caller promises. CAST: `Self` is transparent over `struct super_block`.
        unsafe { &*sb.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::super_block {
        self.inner.get()
    }

    fn info(&self) -> &SbInfo<T> {
        // SAFETY: By the type invariants.
        unsafe { SbInfo::of(self.as_ptr()) }
    }

    /// The metadata inode; one of length zero if [`SuperBlock::set_meta`] was not called.
    pub(crate) fn meta(&self) -> Meta<'_> {
        // SAFETY: The metadata inode, if there is one, stays until the superblock is shut down.
        unsafe { Meta::from_raw(self.info().meta_inode()) }
    }

    /// The value that was given to [`Registration::new`].
    pub(crate) fn global(&self) -> &T::Global {
        // SAFETY: The superblock is valid; `s_type` is assigned once.
        let fs_type = unsafe { (*self.as_ptr()).s_type };
        // SAFETY: By the type invariants it is a type that a `Registration<T>` registered.
        unsafe { Registration::<T>::global_of(fs_type) }
    }

    /// On how many filesystems this one is stacked.
    pub(crate) fn stack_depth(&self) -> c_int {
        // SAFETY: The superblock is valid; the depth is set before it is filled.
        unsafe { (*self.as_ptr()).s_stack_depth }
    }

    /// Whether POSIX ACLs are enabled.
    pub(crate) fn has_posix_acl(&self) -> bool {
        // SAFETY: The superblock is valid; a remount may write the word at any time, as a whole.
        let flags = unsafe { (&raw const (*self.as_ptr()).s_flags).read_volatile() };
        flags & flag(bindings::TESSERAFS_CONST_SB_POSIXACL) != 0
    }

    /// Whether the mount that made it is complete: others may have mounted it, too.
    pub(super) fn is_born(&self) -> bool {
        // SAFETY: The superblock is valid; a remount may write the word, but not change this bit.
        let flags = unsafe { (&raw const (*self.as_ptr()).s_flags).read_volatile() };
        flags & flag(bindings::TESSERAFS_CONST_SB_BORN) != 0
    }

    /// Whether the backing store is a block device, rather than a file.
    pub(crate) fn is_block_device(&self) -> bool {
        // SAFETY: The superblock is valid; `s_bdev` is set before it is filled.
        unsafe { !(*self.as_ptr()).s_bdev.is_null() }
    }
}

/// How a superblock is set up. In this state nobody but the mounter sees it, and the type cannot
/// leave the thread, so the setters need no exclusive reference.
impl<T: FileSystem> SuperBlock<T, New> {
    /// The device number that `stat` shows for its files.
    pub(crate) fn device(&self) -> bindings::dev_t {
        // SAFETY: The superblock is valid; the number is assigned when it is allocated.
        unsafe { (*self.as_ptr()).s_dev }
    }

    /// The UUID, as `blkid`-like tools and overlayfs see it; `statfs` derives its `f_fsid` from it.
    pub(crate) fn set_uuid(&self, uuid: &[u8; 16]) {
        // SAFETY: The superblock is valid and ours; `uuid` is as long as is said.
        unsafe { bindings::tesserafs_super_set_uuid(self.as_ptr(), uuid.as_ptr(), 16) };
    }

    /// Where extended attributes come from.
    pub(crate) fn set_xattr<U: xattr::Operations<FileSystem = T>>(&self) {
        // SAFETY: The superblock is valid and ours; the table is static and ends with null.
        unsafe { (*self.as_ptr()).s_xattr = xattr::Table::<U>::HANDLERS.as_ptr() };
    }

    /// How file handles are decoded.
    pub(crate) fn set_export<U: export::Operations<FileSystem = T>>(&self) {
        // SAFETY: The superblock is valid and ours; the table is static. CAST: The kernel crate's
        // type is the same C struct.
        unsafe { (*self.as_ptr()).s_export_op = (&raw const *export::ops::<U>()).cast() };
    }

    /// Switches POSIX ACLs on or off: the kernel applies those that [`xattr::Operations::get`] returns.
    /// They are off where the kernel has none.
    pub(crate) fn set_posix_acl(&self, on: bool) {
        let acl = flag(bindings::TESSERAFS_CONST_SB_POSIXACL);
        // SAFETY: The superblock is valid and ours.
        let flags = unsafe { &mut (*self.as_ptr()).s_flags };
        // mount(2) has a flag for it, too, so it may be set already.
        if on && cfg!(CONFIG_FS_POSIX_ACL) {
            *flags |= acl;
        } else {
            *flags &= !acl;
        }
    }

    /// Makes `FS_IOC_GETFSSYSFSPATH` name the folder of this superblock below that of its type in
    /// `/sys/fs`. The name is the one that `sysfs::Folder` uses: `MAJOR:MINOR` of the device
    /// number.
    pub(crate) fn set_sysfs_name(&self) {
        // SAFETY: The superblock is valid and ours.
        unsafe { bindings::tesserafs_super_set_sysfs_name(self.as_ptr()) };
    }

    /// How far ahead of a sequential reader the page cache reads. Only for a backing file: that of
    /// a block device is the device's.
    pub(crate) fn set_readahead(&self, bytes: usize) {
        if self.is_block_device() {
            return;
        }
        // SAFETY: The superblock is valid and ours; `set_up_backing` gave it a backing device of its own,
        // as it has no other, before the filesystem gets at it.
        unsafe { read_ahead(self.as_ptr(), bytes) };
    }

    /// Makes the metadata inode: `len` bytes that `source` provides. Once.
    pub(crate) fn set_meta(&self, len: u64, source: T::Meta) -> Result<Meta<'_>> {
        let info = self.info();
        if !info.meta.populate(source) {
            return Err(EBUSY);
        }
        // SAFETY: By the type invariants; the reference is dropped by `SbInfo::drop_meta_inode`.
        let inode = unsafe { meta_inode::new_inode::<T>(self.as_ptr(), len) }?;
        // SAFETY: Nobody but this thread sees the superblock yet.
        unsafe { *info.meta_inode.get() = inode.as_ptr() };
        Ok(self.meta())
    }
}

impl<T: FileSystem> SuperBlock<T, Ready> {
    /// The data that [`FileSystem::fill_super`] returned.
    pub(crate) fn data(&self) -> &T::Data {
        match self.info().data.as_ref() {
            Some(data) => data,
            // SAFETY: By the type invariants a ready superblock has its data.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }
}

/// The answer to `statfs`.
#[derive(Default)]
pub(crate) struct StatFs {
    /// The size of a block in bytes.
    pub(crate) block_size: u32,
    /// The number of blocks.
    pub(crate) blocks: u64,
    /// The number of inodes.
    pub(crate) files: u64,
}

/// The superblock operations of `T`.
pub(super) struct Callbacks<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    pub(super) const TABLE: bindings::super_operations = bindings::super_operations {
        alloc_inode: Some(Self::alloc_inode),
        destroy_inode: Some(INodeWithData::<T>::destroy),
        free_inode: Some(INodeWithData::<T>::free),
        put_super: Some(Self::put_super),
        statfs: Some(Self::statfs),
        show_options: Some(Self::show_options),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// To be called by the VFS as `->alloc_inode` of a superblock of `T`.
    unsafe extern "C" fn alloc_inode(sb: *mut bindings::super_block) -> *mut bindings::inode {
        // SAFETY: Only superblocks of a type that a `Registration<T>` registered have this table.
        let cache = unsafe { Registration::<T>::inode_cache_of((*sb).s_type) };
        // SAFETY: The slab lives as long as the registration, and makes `INodeWithData<T>`.
        let inode = unsafe { bindings::tesserafs_alloc_inode_sb(sb, cache) };
        if !inode.is_null() {
            // SAFETY: The object was allocated just now.
            unsafe { INodeWithData::<T>::prepare(inode) };
        }
        inode
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->put_super` of a superblock of `T`: its inodes are evicted.
    unsafe extern "C" fn put_super(sb: *mut bindings::super_block) {
        // SAFETY: Only superblocks that have an `SbInfo<T>` get a root, and this callback is for
        // those only.
        let info = unsafe { SbInfo::<T>::of(sb) };
        info.shut_down();
        // SAFETY: All inodes that were in use are evicted, so nobody reads metadata.
        unsafe { info.drop_meta_inode() };
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->statfs` of a superblock of `T`.
    unsafe extern "C" fn statfs(
        dentry: *mut bindings::dentry,
        to: *mut kernel::bindings::kstatfs,
    ) -> c_int {
        from_result(|| {
            // CAST: Both are bindings of `struct kstatfs`; the kernel crate's is opaque.
            let to = to.cast::<bindings::kstatfs>();
            // SAFETY: `d_sb` is assigned once; the caller holds the dentry.
            let raw = unsafe { (*dentry).d_sb };
            // SAFETY: A superblock with dentries is ready, and this is one of `T`.
            let sb = unsafe { SuperBlock::<T>::from_raw(raw) };
            let stat = T::statfs(sb)?;
            // SAFETY: The superblock is valid, and its UUID does not change once it is ready.
            let uuid = unsafe { (*raw).s_uuid.b };
            // As `uuid_to_fsid()` does: the exclusive or of both halves.
            let uuid = u128::from_le_bytes(uuid);
            let fsid = (uuid ^ (uuid >> 64)) as u64;
            // SAFETY: `to` is the caller's to be filled.
            let to = unsafe { &mut *to };
            // CAST: All of these are positive, and `long` has 64 bits.
            to.f_type = T::MAGIC as c_long;
            to.f_bsize = stat.block_size as c_long;
            to.f_frsize = stat.block_size as c_long;
            to.f_blocks = stat.blocks;
            to.f_files = stat.files;
            to.f_namelen = bindings::NAME_MAX as c_long;
            // CAST: The two halves of the number.
            to.f_fsid.val = [fsid as c_int, (fsid >> 32) as c_int];
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->show_options` of a superblock of `T`.
    unsafe extern "C" fn show_options(
        seq: *mut bindings::seq_file,
        dentry: *mut bindings::dentry,
    ) -> c_int {
        // SAFETY: `d_sb` is assigned once; the caller holds the dentry.
        let sb = unsafe { (*dentry).d_sb };
        // SAFETY: A superblock with dentries is ready, and this is one of `T`.
        let sb = unsafe { SuperBlock::<T>::from_raw(sb) };
        // SAFETY: The VFS calls this with a `seq_file` of its own.
        let seq = unsafe { SeqFile::from_raw(seq) };
        T::show_options(sb, seq);
        0
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->kill_sb` of a superblock of `T`.
    pub(super) unsafe extern "C" fn kill_sb(sb: *mut bindings::super_block) {
        // SAFETY: The superblock is valid, and is being shut down by this thread alone.
        let info = unsafe { (*sb).s_fs_info }.cast::<SbInfo<T>>();
        // SAFETY: As above. Without a root `->put_super` will not be called.
        if !info.is_null() && unsafe { (*sb).s_root.is_null() } {
            // SAFETY: `info` is what `fill_super` set.
            unsafe { (*info).shut_down() };
            // SAFETY: As above; without a root there are no users.
            unsafe { (*info).drop_meta_inode() };
        }
        // `s_bdev` would not tell: it is null when the device could not be opened.
        //
        // SAFETY: The superblock is valid.
        if unsafe { bindings::tesserafs_sb_is_anon(sb) } {
            // SAFETY: It came from `get_tree_nodev()`.
            unsafe { bindings::kill_anon_super(sb) };
        } else {
            // SAFETY: It came from `get_tree_bdev()`.
            unsafe { bindings::kill_block_super(sb) };
        }
        // SAFETY: All inodes are gone, so nobody uses the information.
        unsafe { (*sb).s_fs_info = core::ptr::null_mut() };
        if !info.is_null() {
            // SAFETY: `fill_super` made it from such a box.
            drop(unsafe { KBox::from_raw(info) });
        }
    }
}

/// A 32-bit word as an `unsigned long`.
const fn flag(flag: u32) -> c_ulong {
    // CAST: `long` has 64 bits.
    flag as c_ulong
}

/// Sets the fields that are the same for all superblocks of `T`.
///
/// # Safety
///
/// `sb` must be a new superblock of a type that a `Registration<T>` registered, with its
/// `s_fs_info` set to an [`SbInfo<T>`].
pub(super) unsafe fn set_up<'a, T: FileSystem>(
    sb: *mut bindings::super_block,
) -> &'a SuperBlock<T, New> {
    let read_only = flag(bindings::TESSERAFS_CONST_SB_RDONLY);
    let no_atime = flag(bindings::TESSERAFS_CONST_SB_NOATIME);
    // SAFETY: The superblock is new: nobody but this thread writes it, as the caller promises.
    unsafe { (*sb).s_op = &Callbacks::<T>::TABLE };
    // SAFETY: As above.
    unsafe { (*sb).s_magic = flag(T::MAGIC) };
    // SAFETY: As above.
    unsafe { (*sb).s_flags |= read_only | no_atime };
    // SAFETY: As above.
    unsafe { (*sb).s_maxbytes = bindings::TESSERAFS_CONST_MAX_LFS_FILESIZE };
    // SAFETY: As above.
    unsafe { (*sb).s_time_gran = 1 };
    // SAFETY: As above.
    unsafe { (*sb).s_time_min = i64::MIN };
    // SAFETY: As above.
    unsafe { (*sb).s_time_max = i64::MAX };
    // SAFETY: The superblock is of the right type and has its `s_fs_info`, as the caller promises.
    unsafe { SuperBlock::from_raw(sb) }
}

/// Sets the block size, and gives a superblock without a device what readahead needs.
///
/// # Safety
///
/// As for [`set_up`].
pub(super) unsafe fn set_up_backing<T: FileSystem>(sb: *mut bindings::super_block) -> Result {
    let size = 1u32.checked_shl(u32::from(T::BLOCK_BITS)).ok_or(EINVAL)?;
    // SAFETY: The superblock is valid and ours.
    if unsafe { (*sb).s_bdev.is_null() } {
        // SAFETY: As above.
        unsafe { (*sb).s_blocksize = flag(size) };
        // SAFETY: As above.
        unsafe { (*sb).s_blocksize_bits = T::BLOCK_BITS };
        // SAFETY: As above; it has no backing device yet.
        return to_result(unsafe { bindings::super_setup_bdi(sb) });
    }
    // SAFETY: The superblock has a device, which it opened for itself.
    match unsafe { bindings::sb_set_blocksize(sb, size as c_int) } {
        0 => Err(EINVAL),
        _ => Ok(()),
    }
}

/// Sets how far ahead of a sequential reader files of the superblock are read.
///
/// # Safety
///
/// `sb` must be a superblock that nobody else uses yet, with a backing device of its own.
pub(super) unsafe fn read_ahead(sb: *mut bindings::super_block, bytes: usize) {
    let pages = bytes.checked_div(bindings::PAGE_SIZE).unwrap_or(0);
    // SAFETY: As the caller promises.
    let device = unsafe { (*sb).s_bdi };
    // SAFETY: As the caller promises. CAST: A few pages.
    unsafe { (*device).ra_pages = pages as c_ulong };
    // SAFETY: As above.
    unsafe { (*device).io_pages = pages as c_ulong };
}

/// The root of a superblock.
///
/// # Safety
///
/// `sb` must be a superblock of `T` that has its data, and no root; `root` an inode of it, whose
/// reference is given away.
pub(super) unsafe fn make_root(
    sb: *mut bindings::super_block,
    root: *mut bindings::inode,
) -> Result {
    // SAFETY: The reference is given away, on failure too.
    let root = unsafe { bindings::d_make_root(root) };
    let root = NonNull::new(root).ok_or(ENOMEM)?;
    // SAFETY: The superblock is valid and ours.
    unsafe { (*sb).s_root = root.as_ptr() };
    Ok(())
}
