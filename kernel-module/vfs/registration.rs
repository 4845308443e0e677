// SPDX-License-Identifier: GPL-2.0

//! Filesystem types.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    backing::Backing,
    context::{
        self,
        FsContext, //
    },
    inode::{
        INodeWithData,
        Ref, //
    },
    meta_inode::MetaSource,
    pack_files::PackFiles,
    page_cache::PageCache,
    super_block::{
        self,
        New,
        Ready,
        StatFs,
        SuperBlock, //
    },
};
use crate::bindings;
use core::{
    ffi::CStr,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    str::as_char_ptr_in_const_context,
    types::Opaque, //
};

/// A read-only filesystem: what `struct file_system_type`, `struct fs_context_operations` and
/// `struct super_operations` ask of it.
#[vtable]
pub(crate) trait FileSystem: Sized + Send + Sync + 'static {
    /// The state that the loaded module has once, such as keyrings and pools.
    type Global: Send + Sync + 'static;

    /// The mount options, as they are collected before there is a superblock.
    type Options: Default + Send + 'static;

    /// An image of which all that a mount needs was read, before there is a superblock.
    type Image: Send + 'static;

    /// The data of a superblock. It is dropped after the superblock's last inode.
    type Data: Send + Sync + 'static;

    /// Where a superblock's metadata comes from; see [`SuperBlock::set_meta`].
    type Meta: MetaSource;

    /// The data of an inode, next to the `struct inode`. It is dropped in process context.
    type INodeData: Send + Sync + 'static;

    /// The name that `mount -t` uses.
    const NAME: &'static CStr;

    /// The name of the inode slab, in `/proc/slabinfo`.
    const INODE_CACHE: &'static CStr;

    /// The type that `statfs` shows.
    const MAGIC: u32;

    /// The logarithm of the block size.
    const BLOCK_BITS: u8;

    /// Where files share their pages.
    fn page_cache(global: &Self::Global) -> &PageCache;

    /// Takes one mount option, other than `source`; `key` is one of the table in `helpers.c`. The
    /// value of a flag is empty.
    fn parse_param(
        fc: &FsContext<Self>,
        options: &mut Self::Options,
        key: &[u8],
        value: &[u8],
    ) -> Result;

    /// Where the options say that packs are.
    fn pack_files(options: &mut Self::Options) -> &mut PackFiles;

    /// Decides whether the mounter may mount anything at all. Called before anything is opened, so maybe
    /// more than once.
    fn check_mounter(fc: &FsContext<Self>) -> Result;

    /// Reads and verifies all of the image in `backing` that a mount takes: nothing is read after this
    /// until the superblock has its root. An image that must not be mounted is refused here.
    fn open_image(
        fc: &FsContext<Self>,
        options: &Self::Options,
        backing: Backing,
    ) -> Result<Self::Image>;

    /// The number of filesystems below: the most that are below any file of the image.
    fn stack_depth(image: &Self::Image) -> c_int;

    /// Sets the superblock up for `image`, without reading, and returns its data.
    fn fill_super(
        fc: &FsContext<Self>,
        options: &Self::Options,
        sb: &SuperBlock<Self, New>,
        image: Self::Image,
    ) -> Result<Self::Data>;

    /// The root directory, without reading. Called once, after [`FileSystem::fill_super`].
    fn root(sb: &SuperBlock<Self, Ready>) -> Result<Ref<'_, Self>>;

    /// Ends what depends on the superblock's device number. Its files are closed, and the data stays
    /// for the inodes that are left.
    fn shut_down(data: &Self::Data);

    /// Decides whether a superblock that exists may be mounted once more with these options. It has
    /// to refuse all that [`FileSystem::open_image`] would refuse, judged by what was found then.
    ///
    /// Two mounts of one block device share a superblock; two mounts of one file do not.
    fn check_second_mount(
        fc: &FsContext<Self>,
        options: &Self::Options,
        sb: &SuperBlock<Self, Ready>,
    ) -> Result;

    /// Changes what these options can change of a superblock that is being remounted, and refuses the rest.
    fn reconfigure(
        fc: &FsContext<Self>,
        options: &Self::Options,
        sb: &SuperBlock<Self, Ready>,
    ) -> Result;

    /// Answers `statfs`.
    fn statfs(sb: &SuperBlock<Self, Ready>) -> Result<StatFs>;

    /// Prints the mount options, each with a comma before it, for `/proc/mounts`.
    fn show_options(sb: &SuperBlock<Self, Ready>, seq: &SeqFile);
}

/// A registered filesystem type.
///
/// It has to lie in the module's static memory, as lockdep takes its keys from there: pin it in the
/// module's own type.
///
/// # Invariants
///
/// `fs` is registered; `inode_cache` is a slab of [`INodeWithData<T>`].
#[pin_data(PinnedDrop)]
pub(crate) struct Registration<T: FileSystem> {
    #[pin]
    fs: Opaque<bindings::file_system_type>,
    inode_cache: INodeCache<T>,
    global: T::Global,
}

// SAFETY: The type may be unregistered from any thread.
unsafe impl<T: FileSystem> Send for Registration<T> {}

// SAFETY: A shared reference gives access to nothing but `global`, which is `Sync`.
unsafe impl<T: FileSystem> Sync for Registration<T> {}

impl<T: FileSystem> Registration<T> {
    /// Registers the filesystem type. It can be mounted from then on.
    pub(crate) fn new(global: T::Global) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            global,
            inode_cache: INodeCache::new()?,
            // The last, as mounts may begin before it returns.
            fs <- Opaque::try_ffi_init(|fs: *mut bindings::file_system_type| {
                // SAFETY: `fs` is valid for writes, and zero is a valid value of each field.
                unsafe { fs.write(pin_init::zeroed()) };
                // SAFETY: `fs` is valid, initialised, and ours until it is registered.
                let raw = unsafe { &mut *fs };
                raw.name = as_char_ptr_in_const_context(T::NAME);
                raw.fs_flags = (bindings::FS_ALLOW_IDMAP | bindings::FS_USERNS_MOUNT) as c_int;
                raw.owner = this_module::<T::OwnerModule>().as_ptr();
                raw.init_fs_context = Some(context::init_fs_context::<T>);
                raw.parameters = context::parameters();
                raw.kill_sb = Some(super_block::Callbacks::<T>::kill_sb);
                // SAFETY: `fs` is initialised, and stays where it is until it is unregistered:
                // it is pinned.
                to_result(unsafe { bindings::register_filesystem(fs) })
            }),
        }? Error)
    }

    /// The registration of a filesystem type.
    ///
    /// # Safety
    ///
    /// `fs` must be the type that a `Registration<T>` registered; this is a raw pointer as that may
    /// not be complete.
    unsafe fn of(fs: *mut bindings::file_system_type) -> *mut Self {
        // CAST: `Opaque` is transparent.
        let fs = fs.cast::<Opaque<bindings::file_system_type>>();
        // SAFETY: As the caller promises, `fs` is the field of a `Self`.
        unsafe { kernel::container_of!(fs, Self, fs) }
    }

    /// The value that was given to [`Registration::new`].
    ///
    /// # Safety
    ///
    /// `fs` must be the type that a `Registration<T>` registered, and have a context or a
    /// superblock for `'a`.
    pub(super) unsafe fn global_of<'a>(fs: *mut bindings::file_system_type) -> &'a T::Global {
        // SAFETY: As the caller promises.
        let this = unsafe { Self::of(fs) };
        // SAFETY: `global` is initialised before the type is registered. The module, and so the
        // registration, stays while there are contexts and superblocks: `owner` is set.
        unsafe { &(*this).global }
    }

    /// The inode slab.
    ///
    /// # Safety
    ///
    /// As for [`Registration::global_of`].
    pub(super) unsafe fn inode_cache_of(
        fs: *mut bindings::file_system_type,
    ) -> *mut bindings::kmem_cache {
        // SAFETY: As the caller promises.
        let this = unsafe { Self::of(fs) };
        // SAFETY: `inode_cache` is initialised before the type is registered.
        unsafe { (*this).inode_cache.cache.as_ptr() }
    }
}

#[pinned_drop]
impl<T: FileSystem> PinnedDrop for Registration<T> {
    fn drop(self: Pin<&mut Self>) {
        // It fails for a type that is not registered, which the type invariants exclude.
        //
        // SAFETY: The type is registered. There are no superblocks left: each holds the module.
        unsafe { bindings::unregister_filesystem(self.fs.get()) };
    }
}

/// The slab of the inodes of `T`.
///
/// # Invariants
///
/// `cache` is a slab of [`INodeWithData<T>`], which needs no more alignment than a slab gives.
struct INodeCache<T: FileSystem> {
    cache: NonNull<bindings::kmem_cache>,
    _p: PhantomData<fn() -> T>,
}

impl<T: FileSystem> INodeCache<T> {
    fn new() -> Result<Self> {
        const { assert!(align_of::<INodeWithData<T>>() <= align_of::<c_ulonglong>()) };
        let size = c_uint::try_from(size_of::<INodeWithData<T>>())?;
        // SAFETY: The name is static; the constructor is for objects of that size.
        let cache = unsafe {
            bindings::tesserafs_kmem_cache_create(
                as_char_ptr_in_const_context(T::INODE_CACHE),
                size,
                Some(INodeWithData::<T>::init_once),
            )
        };
        // INVARIANT: The slab was made for this type.
        Ok(Self {
            cache: NonNull::new(cache).ok_or(ENOMEM)?,
            _p: PhantomData,
        })
    }
}

impl<T: FileSystem> Drop for INodeCache<T> {
    fn drop(&mut self) {
        // Inodes are freed after an RCU grace period: wait for those.
        //
        // SAFETY: May sleep, as module exit does.
        unsafe { bindings::rcu_barrier() };
        // SAFETY: The slab is ours; by now every object has been freed.
        unsafe { bindings::kmem_cache_destroy(self.cache.as_ptr()) };
    }
}
