// SPDX-License-Identifier: GPL-2.0

//! Inodes.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    address_space,
    dentry::{
        Spliced,
        Unhashed, //
    },
    file,
    page_cache::Shared,
    registration::FileSystem,
    super_block::{
        Ready,
        SuperBlock, //
    },
    xattr, //
};
use crate::{
    bindings,
    klib::buffer::Array, //
};
use core::{
    cell::UnsafeCell,
    marker::PhantomData,
    mem::{
        ManuallyDrop,
        MaybeUninit, //
    },
    ops::Deref,
    ptr::NonNull, //
};
use kernel::{
    alloc::allocator::Kmalloc,
    prelude::*,
    sync::SetOnce,
    types::Opaque, //
};

/// An inode of the filesystem `T`, initialised and in use.
///
/// # Invariants
///
/// - The inode is the first member of an [`INodeWithData<T>`] whose data is initialised.
/// - Its superblock is [`Ready`].
#[repr(transparent)]
pub(crate) struct INode<T: FileSystem> {
    inner: Opaque<bindings::inode>,
    _p: PhantomData<fn() -> T>,
}

// SAFETY: A C inode may be used from any thread, and its data is `Send` and `Sync`.
unsafe impl<T: FileSystem> Send for INode<T> {}

// SAFETY: A shared reference only reads fields that do not change after `init`, but for
// `shared`, which is a `SetOnce`, and `i_mapping`, which is written once, as a whole.
unsafe impl<T: FileSystem> Sync for INode<T> {}

impl<T: FileSystem> INode<T> {
    /// # Safety
    ///
    /// `inode` must be an inode that [`NewINode::init`] initialised for `T`, and stay for `'a`.
    pub(super) unsafe fn from_raw<'a>(inode: *mut bindings::inode) -> &'a Self {
        // SAFETY: As the caller promises. INVARIANT: `init` established both.
        // CAST: `Self` is transparent over `struct inode`.
        unsafe { &*inode.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::inode {
        self.inner.get()
    }

    /// The type and permission bits.
    pub(crate) fn mode(&self) -> u16 {
        // SAFETY: The inode is valid; nothing changes the mode of an inode on a read-only
        // superblock.
        unsafe { (*self.as_ptr()).i_mode }
    }

    /// Whether this is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        u32::from(self.mode()) & bindings::S_IFMT == bindings::S_IFDIR
    }

    /// Whether this is a regular file.
    pub(super) fn is_regular(&self) -> bool {
        u32::from(self.mode()) & bindings::S_IFMT == bindings::S_IFREG
    }

    /// The length of the file in bytes.
    pub(crate) fn size(&self) -> u64 {
        // SAFETY: The inode is valid.
        let size = unsafe { bindings::tesserafs_i_size_read(self.as_ptr()) };
        // CAST: `init` checked that the size is not negative, and nothing changes it.
        size as u64
    }

    /// The superblock.
    pub(crate) fn super_block(&self) -> &SuperBlock<T> {
        // SAFETY: The inode is valid; `i_sb` is assigned once, before the inode is visible.
        let sb = unsafe { (*self.as_ptr()).i_sb };
        // SAFETY: By the type invariants it is a ready superblock of `T`; it outlives its inodes.
        unsafe { SuperBlock::from_raw(sb) }
    }

    /// The shared inode whose pages are this file's, once it is decided that there is one, or none.
    pub(super) fn shared(&self) -> &SetOnce<Option<Shared>> {
        // CAST: By the type invariants the inode is the first member of an `INodeWithData<T>`.
        let this = self.as_ptr().cast::<INodeWithData<T>>();
        // SAFETY: `prepare` initialised the field, and it is dropped when the inode is destroyed,
        // after the last reference to it has gone.
        unsafe { &*(&raw const (*this).shared).cast() }
    }

    /// The data that was given to [`NewINode::init`].
    pub(crate) fn data(&self) -> &T::INodeData {
        // CAST: By the type invariants the inode is the first member of an `INodeWithData<T>`.
        let this = self.as_ptr().cast::<INodeWithData<T>>();
        // SAFETY: `this` is valid as long as the inode is.
        let data = unsafe { &raw const (*this).data };
        // SAFETY: `prepare` initialised the field; the data is dropped when the inode is destroyed,
        // after the last reference to it has gone.
        match unsafe { &*UnsafeCell::raw_get(data).cast::<Option<T::INodeData>>() } {
            Some(data) => data,
            // SAFETY: By the type invariants there is data.
            None => unsafe { core::hint::unreachable_unchecked() },
        }
    }
}

/// A counted reference to an inode.
///
/// It lives no longer than the borrow of the superblock it was taken from: a reference that was
/// kept in the superblock's own data would keep the superblock from ever being shut down.
///
/// # Invariants
///
/// `inode` satisfies the invariants of [`INode<T>`], and one of its references is owned.
pub(crate) struct Ref<'a, T: FileSystem> {
    inode: NonNull<bindings::inode>,
    _p: PhantomData<&'a SuperBlock<T>>,
}

impl<T: FileSystem> Ref<'_, T> {
    /// Gives the reference away.
    pub(super) fn into_raw(self) -> *mut bindings::inode {
        ManuallyDrop::new(self).inode.as_ptr()
    }
}

impl<T: FileSystem> Deref for Ref<'_, T> {
    type Target = INode<T>;

    fn deref(&self) -> &INode<T> {
        // SAFETY: By the type invariants.
        unsafe { INode::from_raw(self.inode.as_ptr()) }
    }
}

impl<T: FileSystem> Drop for Ref<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::iput(self.inode.as_ptr()) };
    }
}

/// The answer of [`SuperBlock::iget`].
pub(crate) enum Iget<'a, T: FileSystem> {
    /// The inode is in the inode cache.
    Cached(Ref<'a, T>),
    /// It is not; the caller has to initialise it. Other tasks that want it wait.
    New(NewINode<'a, T>),
}

impl<T: FileSystem> SuperBlock<T, Ready> {
    /// Looks an inode up in the inode cache, or begins a new one. May sleep.
    pub(crate) fn iget(&self, ino: u64) -> Result<Iget<'_, T>> {
        // SAFETY: The superblock is valid and has an `->alloc_inode`.
        let inode = unsafe { bindings::iget_locked(self.as_ptr(), ino) };
        let inode = NonNull::new(inode).ok_or(ENOMEM)?;
        // SAFETY: `iget_locked()` returned an inode with a reference for us.
        if unsafe { bindings::tesserafs_inode_state_is_new(inode.as_ptr()) } {
            // INVARIANT: The reference is ours, and so is `I_NEW`: `iget_locked()` waits for that of
            // another task.
            let fresh = Fresh { inode };
            // INVARIANT: The superblock's `->alloc_inode` made it, and `prepare` left it without data.
            Ok(Iget::New(NewINode {
                fresh,
                _p: PhantomData,
            }))
        } else {
            // INVARIANT: A hashed inode that is not new was initialised by `NewINode::init`: one
            // that failed was unhashed, and the metadata inode never is hashed.
            Ok(Iget::Cached(Ref {
                inode,
                _p: PhantomData,
            }))
        }
    }
}

/// The type of an inode, with the tables that belong to it.
pub(crate) enum Kind<T: FileSystem> {
    /// A regular file.
    Regular {
        /// `read`, `mmap`, `lseek`.
        file: file::Ops<T>,
        /// The page cache.
        mapping: address_space::Ops<T>,
    },
    /// A directory.
    Directory {
        /// `getdents`.
        file: file::Ops<T>,
    },
    /// A symbolic link whose target is kept in memory, so that path walks need not leave RCU mode.
    Symlink(Target),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A whiteout as overlayfs knows it: the character device 0:0.
    Whiteout,
}

/// The attributes that `stat` shows, beyond the [`Kind`].
pub(crate) struct Attributes {
    /// The permission bits, with set-id and sticky; the type is the [`Kind`]'s.
    pub(crate) permissions: u16,
    /// The owner.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The number of names; not zero.
    pub(crate) nlink: u32,
    /// The length in bytes; at most `i64::MAX`.
    pub(crate) size: u64,
    /// The allocated space in units of 512 bytes.
    pub(crate) blocks: u64,
    /// The modification time in seconds, which is also shown as the access and change time.
    pub(crate) mtime: i64,
    /// Its nanoseconds; below 1 000 000 000.
    pub(crate) mtime_nsec: u32,
    /// Whether the inode may have a POSIX ACL. If not, it will not be asked for one.
    pub(crate) may_have_acl: bool,
}

/// An inode that nobody else looks at yet.
///
/// # Invariants
///
/// `inode` is valid, as is its superblock; a reference to it is owned, and `I_NEW` is set for us to
/// clear. Until it is cleared no dentry refers to the inode, and a task that finds it in the inode
/// cache waits for the flag to go before it reads or writes anything: the fields that the methods below
/// set are ours.
struct Fresh {
    inode: NonNull<bindings::inode>,
}

impl Fresh {
    fn as_ptr(&self) -> *mut bindings::inode {
        self.inode.as_ptr()
    }

    /// Sets what `stat` shows; `size` is not negative, and the nanoseconds are below a second.
    fn set_attributes(&self, attributes: &Attributes, size: bindings::loff_t, nsec: c_long) {
        let inode = self.as_ptr();
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::tesserafs_i_uid_write(inode, attributes.uid) };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::tesserafs_i_gid_write(inode, attributes.gid) };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::set_nlink(inode, attributes.nlink) };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::tesserafs_i_size_write(inode, size) };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { (*inode).i_blocks = attributes.blocks };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { (*inode).i_generation = 0 };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::tesserafs_inode_set_times(inode, attributes.mtime, nsec) };
    }

    /// Keeps the VFS from asking for POSIX ACLs.
    fn deny_acl(&self) {
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::tesserafs_cache_no_acl(self.as_ptr()) };
    }

    /// Sets the type and the permission bits.
    fn set_mode(&self, mode: u16) {
        // SAFETY: The inode is ours by the type invariants.
        unsafe { (*self.as_ptr()).i_mode = mode };
    }

    /// Makes it a pipe, a socket, or the device 0:0, as `mode` says.
    fn set_special(&self, mode: u16) {
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::init_special_inode(self.as_ptr(), mode, 0) };
    }

    fn set_operations(&self, table: &'static bindings::inode_operations) {
        // SAFETY: The inode is ours by the type invariants.
        unsafe { (*self.as_ptr()).i_op = table };
    }

    fn set_file_operations(&self, table: &'static bindings::file_operations) {
        // SAFETY: The inode is ours by the type invariants.
        unsafe { (*self.as_ptr()).__bindgen_anon_3.i_fop = table };
    }

    /// Lets the page cache fill pages of the file by `table`, in folios of any size.
    fn set_mapping(&self, table: &'static bindings::address_space_operations) {
        let inode = self.as_ptr();
        // SAFETY: The inode is ours by the type invariants; `i_mapping` is the mapping within it.
        unsafe { (*(*inode).i_mapping).a_ops = table };
        // SAFETY: The inode is ours by the type invariants.
        unsafe { bindings::tesserafs_mapping_set_large_folios(inode) };
        // SAFETY: The superblock is valid by the type invariants; its depth is set before it is
        // filled.
        let depth = unsafe { (*(*inode).i_sb).s_stack_depth };
        // SAFETY: The inode is ours by the type invariants; the superblock's depth is within the limit.
        unsafe { bindings::tesserafs_set_invalidate_lock_class(inode, depth, false) };
    }

    /// Sets the target that RCU path walks follow.
    ///
    /// # Safety
    ///
    /// `link` must be a C string of length `len` that lives as long as the inode, and for an RCU grace
    /// period after it is destroyed.
    unsafe fn set_link(&self, link: *mut c_char, len: c_int) {
        // SAFETY: The inode is ours by the type invariants; the caller promises the rest.
        unsafe { bindings::tesserafs_inode_set_cached_link(self.as_ptr(), link, len) };
    }

    /// Makes the inode available, as it is, and gives the reference away.
    fn unlock(self) -> NonNull<bindings::inode> {
        // SAFETY: By the type invariants `I_NEW` is ours to clear.
        unsafe { bindings::unlock_new_inode(self.as_ptr()) };
        ManuallyDrop::new(self).inode
    }
}

impl Drop for Fresh {
    /// The inode becomes bad and is unhashed, so it is never taken for an initialised one.
    fn drop(&mut self) {
        // SAFETY: By the type invariants `I_NEW` is ours to clear, and the reference ours to drop.
        unsafe { bindings::iget_failed(self.as_ptr()) };
    }
}

/// An inode that is hashed, locked, and not initialised yet.
///
/// [`NewINode::init`] makes it a usable one. Dropping it gives up: tasks that wait for the inode find
/// it bad and try again.
///
/// # Invariants
///
/// The inode is the first member of an [`INodeWithData<T>`] without data, in a ready superblock of
/// `T`.
pub(crate) struct NewINode<'a, T: FileSystem> {
    fresh: Fresh,
    _p: PhantomData<&'a SuperBlock<T>>,
}

impl<'a, T: FileSystem> NewINode<'a, T> {
    /// Initialises the inode and makes it available.
    ///
    /// `EFSCORRUPTED` if the attributes are none that an inode can have.
    pub(crate) fn init(
        self,
        kind: Kind<T>,
        ops: Ops<T>,
        attributes: Attributes,
        data: T::INodeData,
    ) -> Result<Ref<'a, T>> {
        let size = i64::try_from(attributes.size).map_err(|_| EFSCORRUPTED)?;
        if attributes.nlink == 0 || attributes.mtime_nsec >= 1_000_000_000 {
            return Err(EFSCORRUPTED);
        }
        let fresh = self.fresh;
        // CAST: Below a thousand million, as was checked.
        fresh.set_attributes(&attributes, size, attributes.mtime_nsec as c_long);
        if !attributes.may_have_acl {
            fresh.deny_acl();
        }
        // SAFETY: By the type invariants the inode is one with room for data of `T`, and has none yet.
        unsafe { INodeWithData::<T>::set_data(fresh.as_ptr(), data) };
        fresh.set_operations(&ops.tables.other);
        let file_type = match kind {
            Kind::Regular { file, mapping } => {
                fresh.set_file_operations(file.table);
                fresh.set_mapping(mapping.table);
                bindings::S_IFREG
            }
            Kind::Directory { file } => {
                fresh.set_file_operations(file.table);
                fresh.set_operations(&ops.tables.directory);
                bindings::S_IFDIR
            }
            Kind::Symlink(target) => {
                let len = c_int::try_from(target.len()).map_err(|_| EFSCORRUPTED)?;
                let link = target.into_raw();
                // SAFETY: As for the data.
                unsafe { INodeWithData::<T>::set_link(fresh.as_ptr(), link) };
                // SAFETY: `link` is a C string of that length, which is freed with the inode.
                unsafe { fresh.set_link(link, len) };
                fresh.set_operations(&ops.tables.symlink);
                bindings::S_IFLNK
            }
            Kind::Fifo => bindings::S_IFIFO,
            Kind::Socket => bindings::S_IFSOCK,
            Kind::Whiteout => bindings::S_IFCHR,
        };
        // CAST: The file types are 16-bit values; the kernel's constants are not typed.
        let mode = file_type as u16 | (attributes.permissions & 0o7777);
        fresh.set_mode(mode);
        if let bindings::S_IFIFO | bindings::S_IFSOCK | bindings::S_IFCHR = file_type {
            fresh.set_special(mode);
        }
        // INVARIANT: The inode has its data, and the reference of `self` is given to the result.
        Ok(Ref {
            inode: fresh.unlock(),
            _p: PhantomData,
        })
    }
}

/// The target of a symbolic link: a C string of its own.
pub(crate) struct Target(Array<u8, Kmalloc>);

impl Target {
    /// Takes over `target`, which must not contain NUL, nor be empty: `EFSCORRUPTED`.
    pub(crate) fn from_bytes(mut target: Array<u8, Kmalloc>) -> Result<Self> {
        if target.is_empty() || target.contains(&0) {
            return Err(EFSCORRUPTED);
        }
        target.push(0)?;
        Ok(Self(target))
    }

    /// The length without the NUL.
    fn len(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// Gives the string away; it is to be freed with `kfree`.
    fn into_raw(self) -> *mut c_char {
        let (target, _len) = self.0.into_raw();
        target.as_ptr().cast()
    }
}

/// The operations of `struct inode_operations` that a read-only filesystem has to provide.
///
/// `permission` is the VFS's own, and `getattr` nearly so, over what [`NewINode::init`] was given.
pub(crate) trait Operations {
    /// The filesystem whose inodes these operations serve.
    type FileSystem: FileSystem;

    /// Where extended attributes and ACLs come from.
    type Xattr: xattr::Operations<FileSystem = Self::FileSystem>;

    /// Whether a file's bytes are compressed: `STATX_ATTR_COMPRESSED`. Asked for every `stat`.
    fn is_compressed(inode: &INode<Self::FileSystem>) -> bool;

    /// Finds a name in a directory. May sleep; runs in parallel for different names.
    fn lookup<'a>(
        dir: &INode<Self::FileSystem>,
        dentry: Unhashed<'a, Self::FileSystem>,
    ) -> Result<Spliced<'a>>;
}

/// The tables of inode operations of the filesystem `T`.
pub(crate) struct Ops<T: FileSystem> {
    tables: &'static Tables,
    _p: PhantomData<fn() -> T>,
}

impl<T: FileSystem> Ops<T> {
    /// The tables of `U`.
    pub(crate) const fn new<U: Operations<FileSystem = T>>() -> Self {
        Self {
            tables: &Table::<U>::TABLES,
            _p: PhantomData,
        }
    }
}

struct Tables {
    directory: bindings::inode_operations,
    /// For inodes with `i_link` set.
    symlink: bindings::inode_operations,
    other: bindings::inode_operations,
}

/// The callbacks of `U`, as C calls them.
struct Table<U: Operations>(PhantomData<U>);

impl<U: Operations> Table<U> {
    const TABLES: Tables = Tables {
        directory: bindings::inode_operations {
            lookup: Some(Self::lookup),
            ..Self::COMMON
        },
        symlink: bindings::inode_operations {
            get_link: Some(bindings::simple_get_link),
            ..Self::COMMON
        },
        other: Self::COMMON,
    };

    const COMMON: bindings::inode_operations = bindings::inode_operations {
        getattr: Some(Self::getattr),
        listxattr: Some(xattr::Table::<U::Xattr>::listxattr),
        #[cfg(CONFIG_FS_POSIX_ACL)]
        get_inode_acl: Some(xattr::Table::<U::Xattr>::get_inode_acl),
        #[cfg(CONFIG_FS_POSIX_ACL)]
        set_acl: Some(Self::set_acl),
        fileattr_get: Some(Self::fileattr_get),
        ..pin_init::zeroed()
    };

    /// Adds the attributes of `statx` that are not fields of the inode.
    ///
    /// Immutable, as nobody can write, rename or remove it; this is not `S_IMMUTABLE`, which would
    /// turn the VFS's `EROFS` into `EPERM` and which overlayfs would copy up. Not
    /// `STATX_ATTR_VERITY`: a program that finds it asks for the fs-verity digest of that one file,
    /// and there is none; nor do mounts with `trusted_backing` verify what they read.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as the `->getattr` of an inode that `NewINode::init` gave this table.
    unsafe extern "C" fn getattr(
        idmap: *mut bindings::mnt_idmap,
        path: *const bindings::path,
        stat: *mut bindings::kstat,
        request_mask: u32,
        _flags: c_uint,
    ) -> c_int {
        // SAFETY: The caller holds the path.
        let dentry = unsafe { (*path).dentry };
        // SAFETY: A path that is asked for attributes has a positive dentry.
        let raw = unsafe { (*dentry).d_inode };
        // SAFETY: Only `NewINode::init` installs this table, on inodes of `U::FileSystem`; the dentry
        // holds the inode.
        let inode = unsafe { INode::<U::FileSystem>::from_raw(raw) };
        // SAFETY: The arguments are those of this callback.
        unsafe { bindings::generic_fillattr(idmap, request_mask, raw, stat) };
        // SAFETY: `stat` is the caller's to be filled, and nobody else's.
        let stat = unsafe { &mut *stat };
        let (immutable, compressed) = (
            u64::from(bindings::STATX_ATTR_IMMUTABLE),
            u64::from(bindings::STATX_ATTR_COMPRESSED),
        );
        // No file has one of these.
        let absent = bindings::STATX_ATTR_APPEND
            | bindings::STATX_ATTR_NODUMP
            | bindings::STATX_ATTR_ENCRYPTED;
        stat.attributes_mask |= immutable | compressed | u64::from(absent);
        stat.attributes |= immutable;
        if U::is_compressed(inode) {
            stat.attributes |= compressed;
        }
        // A direct read is one through the page cache: the alignments stay zero, which says so.
        if request_mask & bindings::STATX_DIOALIGN != 0 && inode.is_regular() {
            stat.result_mask |= bindings::STATX_DIOALIGN;
        }
        0
    }

    /// Refuses. On a mount, the VFS has always refused before. But overlayfs sets an ACL on a file
    /// of a lower layer, which it copies up first, only if that layer has this operation, too.
    #[cfg(CONFIG_FS_POSIX_ACL)]
    extern "C" fn set_acl(
        _idmap: *mut bindings::mnt_idmap,
        _dentry: *mut bindings::dentry,
        _acl: *mut bindings::posix_acl,
        _kind: c_int,
    ) -> c_int {
        EROFS.to_errno()
    }

    /// No inode has a flag of `chattr`, and the caller passes attributes that say so already.
    /// overlayfs asks for the flags of a file in a lower layer before it copies the file up to set
    /// one.
    extern "C" fn fileattr_get(
        _dentry: *mut bindings::dentry,
        _attributes: *mut bindings::file_kattr,
    ) -> c_int {
        0
    }

    /// # Safety
    ///
    /// To be called by the VFS as the `->lookup` of an inode that `NewINode::init` gave this table.
    unsafe extern "C" fn lookup(
        dir: *mut bindings::inode,
        dentry: *mut bindings::dentry,
        _flags: c_uint,
    ) -> *mut bindings::dentry {
        // SAFETY: Only `NewINode::init` installs this table, on inodes of `U::FileSystem`; the
        // caller holds the directory.
        let dir = unsafe { INode::from_raw(dir) };
        // SAFETY: This is `->lookup`, and `dentry` its argument.
        let dentry = unsafe { Unhashed::from_raw(dentry) };
        if dentry.name().len() > bindings::NAME_MAX as usize {
            return ENAMETOOLONG.to_ptr();
        }
        match U::lookup(dir, dentry) {
            Ok(spliced) => spliced.into_raw(),
            Err(e) => e.to_ptr(),
        }
    }
}

/// An object of the inode slab: an inode, and the filesystem's own data about it.
///
/// The C inode is the first member, so one pointer serves for both.
#[repr(C)]
pub(super) struct INodeWithData<T: FileSystem> {
    inode: Opaque<bindings::inode>,
    /// The target of a [`Kind::Symlink`], to be freed with the inode; else null.
    link: UnsafeCell<*mut c_char>,
    /// Where its pages are, if it shares them.
    shared: UnsafeCell<MaybeUninit<SetOnce<Option<Shared>>>>,
    /// The data that `init` was given.
    data: UnsafeCell<MaybeUninit<Option<T::INodeData>>>,
}

impl<T: FileSystem> INodeWithData<T> {
    /// The slab's constructor: runs once for an object, not once for an allocation.
    ///
    /// # Safety
    ///
    /// `object` must point to memory for an `INodeWithData<T>`.
    pub(super) unsafe extern "C" fn init_once(object: *mut c_void) {
        // SAFETY: The inode is the first member of the object.
        unsafe { bindings::inode_init_once(object.cast()) };
    }

    /// Gives an inode its data.
    ///
    /// # Safety
    ///
    /// `inode` must be the first member of a `Self` that has no data yet, and that nobody else sees.
    unsafe fn set_data(inode: *mut bindings::inode, data: T::INodeData) {
        // CAST: The inode is the first member.
        let this = inode.cast::<Self>();
        // SAFETY: The object is the caller's.
        let slot = unsafe { (*this).data.get() };
        // SAFETY: The slot holds nothing that would have to be dropped.
        unsafe { slot.write(MaybeUninit::new(Some(data))) };
    }

    /// Gives an inode a string that is freed with it.
    ///
    /// # Safety
    ///
    /// `inode` must be the first member of a `Self` that has none yet, and that nobody else sees;
    /// `link` must have been allocated with `kmalloc`, and is given away.
    unsafe fn set_link(inode: *mut bindings::inode, link: *mut c_char) {
        // CAST: The inode is the first member.
        let this = inode.cast::<Self>();
        // SAFETY: The object is the caller's.
        unsafe { *(*this).link.get() = link };
    }

    /// Prepares an object that was allocated from the slab.
    ///
    /// # Safety
    ///
    /// `inode` must have been allocated from the slab just now.
    pub(super) unsafe fn prepare(inode: *mut bindings::inode) {
        // CAST: The inode is the first member.
        let this = inode.cast::<Self>();
        // SAFETY: The object is ours.
        unsafe { *(*this).link.get() = core::ptr::null_mut() };
        // SAFETY: The object is ours.
        let shared = unsafe { (*this).shared.get() };
        // SAFETY: The object is ours; its content of an earlier life was dropped.
        unsafe { shared.write(MaybeUninit::new(SetOnce::new())) };
        // SAFETY: The object is ours.
        let data = unsafe { (*this).data.get() };
        // SAFETY: As for `shared`.
        unsafe { data.write(MaybeUninit::new(None)) };
    }

    /// Drops the data of an inode that is destroyed.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `->destroy_inode`, of a superblock of `T`: nobody has a
    /// reference to the inode, nor can get one.
    pub(super) unsafe extern "C" fn destroy(inode: *mut bindings::inode) {
        // CAST: The inode is the first member.
        let this = inode.cast::<Self>();
        // SAFETY: The object is valid.
        let shared = unsafe { (*this).shared.get() };
        // SAFETY: `prepare` initialised it, and nobody else has a reference. The shared mapping is
        // not this inode's any more: open files held the inode, and evicting it left `i_data` only.
        unsafe { (*shared).assume_init_drop() };
        // SAFETY: The object is valid.
        let data = unsafe { (*this).data.get() };
        // SAFETY: `prepare` initialised it, and nobody else has a reference. RCU path walks may still
        // see the inode, but none of the callbacks touches the data in RCU mode.
        unsafe { (*data).assume_init_drop() };
    }

    /// Frees an inode.
    ///
    /// # Safety
    ///
    /// To be called by the VFS as `->free_inode`, of a superblock of `T`: an RCU grace period after
    /// the inode was destroyed.
    pub(super) unsafe extern "C" fn free(inode: *mut bindings::inode) {
        // CAST: The inode is the first member.
        let this = inode.cast::<Self>();
        // SAFETY: The object is valid, and nobody else sees it any more.
        let link = unsafe { *(*this).link.get() };
        // SAFETY: The target of a cached symlink was allocated with `kmalloc`; null is nothing. RCU
        // path walks that followed it are over.
        unsafe { bindings::kfree(link.cast()) };
        // The superblock may be gone by now, and with it the way to the slab: `kfree()` finds the
        // slab of an object by itself.
        //
        // SAFETY: The object was allocated from a slab, and `kfree()` serves for those too.
        unsafe { bindings::kfree(inode.cast()) };
    }
}
