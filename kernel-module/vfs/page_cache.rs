// SPDX-License-Identifier: GPL-2.0

//! Pages that files of equal bytes share, whichever mount they are in.
//!
//! The pages lie in the mapping of a nameless inode, one for each key, on a mount of the kernel's
//! own; the file itself keeps its inode, and with it its owner, mode, times and path. An open file
//! reads and maps its `f_mapping`, so `->open` points that to the shared mapping, as block devices
//! do with theirs. A page is filled through the file that asks for it: no shared inode needs to
//! know which mounts it serves, and a mount that cannot deliver fails its own readers only.
//!
//! While a page is filled its lock is held, and all tasks that want it wait for the store of the mount that
//! fills it. The filesystem decides with that in mind which files may share.
//!
//! A shared inode is held by the inodes that were opened with its key. When the last of them goes it
//! stays in the inode cache, with its pages, until memory is wanted: the next mount finds them.
//!
//! C headers: [`include/linux/pseudo_fs.h`](srctree/include/linux/pseudo_fs.h)

use super::{
    inode::INode,
    registration::FileSystem,
    super_block, //
};
use crate::bindings;
use core::{
    cell::UnsafeCell,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    str::as_char_ptr_in_const_context,
    time::{
        delay::fsleep,
        Delta, //
    }, //
};

/// How often unloading looks whether all walkers of superblocks are done with ours.
const WALKERS_POLL: Delta = Delta::from_millis(10);

/// The name of shared pages: two files with one key have the same bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageKey(pub(crate) [u8; 32]);

/// The mount that the shared inodes are on.
///
/// # Invariants
///
/// `mount` is a kernel mount of [`TYPE`], and its superblock has a backing device of its own.
pub(crate) struct PageCache {
    mount: NonNull<bindings::vfsmount>,
}

// SAFETY: A mount may be used, and unmounted, from any thread.
unsafe impl Send for PageCache {}

// SAFETY: `iget5_locked()` is all that a shared reference gives, and it locks what it needs.
unsafe impl Sync for PageCache {}

/// The type of the mount: it is not registered, so nobody else can mount it.
struct Type(UnsafeCell<bindings::file_system_type>);

// SAFETY: Its content is for the VFS, which locks it.
unsafe impl Sync for Type {}

/// It has no owner: the mount is the module's own, and would keep it from ever being unloaded. So dropping
/// the mount waits for all references to the type.
static TYPE: Type = Type(UnsafeCell::new(bindings::file_system_type {
    name: as_char_ptr_in_const_context(c"tesserafs_pages"),
    init_fs_context: Some(init_fs_context),
    kill_sb: Some(bindings::kill_anon_super),
    ..pin_init::zeroed()
}));

static SUPER_OPERATIONS: bindings::super_operations = bindings::super_operations {
    statfs: Some(bindings::simple_statfs),
    free_inode: Some(free_inode),
    ..pin_init::zeroed()
};

/// # Safety
///
/// To be called by the VFS as `->init_fs_context` of [`TYPE`].
unsafe extern "C" fn init_fs_context(fc: *mut kernel::bindings::fs_context) -> c_int {
    // SAFETY: The context is new. The magic is nobody's: there is no path to a file here. CAST: Both
    // are bindings of `struct fs_context`; the kernel crate's is opaque.
    let context = unsafe { bindings::init_pseudo(fc.cast(), 0) };
    let Some(context) = NonNull::new(context) else {
        return ENOMEM.to_errno();
    };
    // SAFETY: `init_pseudo()` allocated it for the mount that is being made.
    unsafe { (*context.as_ptr()).ops = &SUPER_OPERATIONS };
    0
}

/// # Safety
///
/// To be called by the VFS as `->free_inode`: an RCU grace period after the inode was destroyed.
unsafe extern "C" fn free_inode(inode: *mut bindings::inode) {
    // SAFETY: The inode is valid, and nobody else sees it any more.
    let identity = unsafe { (*inode).i_private };
    if !identity.is_null() {
        // SAFETY: `Wanted::set` made it from such a box.
        drop(unsafe { KBox::<Identity>::from_raw(identity.cast()) });
    }
    // SAFETY: The superblock has no `->alloc_inode`, so the inode is of the VFS's own slab.
    unsafe { bindings::free_inode_nonrcu(inode) };
}

/// The private data of a shared inode.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    key: PageKey,
    /// The filesystem whose files share it, and that its table of operations is of.
    fs: *mut bindings::file_system_type,
}

/// A search in the inode cache.
struct Wanted {
    identity: Identity,
    /// The same, for the inode that is made if there is none.
    own: Option<KBox<Identity>>,
}

impl Wanted {
    /// # Safety
    ///
    /// To be called by [`PageCache::get`] through `iget5_locked()`, with an inode of the mount.
    unsafe extern "C" fn test(inode: *mut bindings::inode, data: *mut c_void) -> c_int {
        // SAFETY: `PageCache::get` passes a `Wanted` that nobody uses meanwhile.
        let wanted = unsafe { &*data.cast::<Self>() };
        // SAFETY: The caller holds the lock of the hash, and so the inode.
        let identity = unsafe { (*inode).i_private };
        // SAFETY: `set` gave every hashed inode its identity, which is freed an RCU grace period
        // after the inode is unhashed.
        let identity = unsafe { &*identity.cast::<Identity>() };
        c_int::from(*identity == wanted.identity)
    }

    /// # Safety
    ///
    /// As for [`Wanted::test`], with an inode that nobody else sees.
    unsafe extern "C" fn set(inode: *mut bindings::inode, data: *mut c_void) -> c_int {
        // SAFETY: `PageCache::get` passes a `Wanted` that nobody uses meanwhile.
        let wanted = unsafe { &mut *data.cast::<Self>() };
        let Some(identity) = wanted.own.take() else {
            return ENOMEM.to_errno();
        };
        // SAFETY: The inode is the caller's.
        unsafe { (*inode).i_private = KBox::into_raw(identity).cast() };
        0
    }
}

impl PageCache {
    /// Makes the mount; files on it are read ahead by `readahead` bytes.
    pub(crate) fn new(readahead: usize) -> Result<Self> {
        // SAFETY: The type is static, and complete.
        let mount = from_err_ptr(unsafe { bindings::kern_mount(TYPE.0.get()) })?;
        // INVARIANT: Established below; if that fails, dropping it unmounts.
        let this = Self {
            mount: NonNull::new(mount).ok_or(ENOMEM)?,
        };
        let sb = this.super_block();
        // Without a backing device of its own, a superblock has no readahead and takes no advice.
        //
        // SAFETY: The superblock is valid, and nobody else knows it.
        to_result(unsafe { bindings::super_setup_bdi(sb) })?;
        // SAFETY: As above, and it has its backing device.
        unsafe { super_block::read_ahead(sb, readahead) };
        Ok(this)
    }

    fn super_block(&self) -> *mut bindings::super_block {
        // SAFETY: By the type invariants; a mount keeps its superblock.
        unsafe { (*self.mount.as_ptr()).mnt_sb }
    }

    /// The inode whose pages are those of every file with that key.
    ///
    /// `like` is such a file: its size is part of what the key stands for.
    fn get<T: FileSystem>(&self, key: PageKey, like: &INode<T>) -> Result<Shared> {
        let [a, b, c, d, e, f, g, h, ..] = key.0;
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // SAFETY: `s_type` is assigned once.
        let fs = unsafe { (*like.super_block().as_ptr()).s_type };
        let identity = Identity { key, fs };
        let mut wanted = Wanted {
            identity,
            own: Some(KBox::new(identity, GFP_KERNEL)?),
        };
        // SAFETY: The superblock is valid; both callbacks take a `Wanted`, which lives until the
        // call returns.
        let inode = unsafe {
            bindings::iget5_locked(
                self.super_block(),
                hash,
                Some(Wanted::test),
                Some(Wanted::set),
                (&raw mut wanted).cast(),
            )
        };
        // INVARIANT: `iget5_locked()` returned an inode with a reference for us.
        let shared = Shared(NonNull::new(inode).ok_or(ENOMEM)?);
        // SAFETY: We have a reference to the inode.
        if !unsafe { bindings::tesserafs_inode_state_is_new(inode) } {
            return Ok(shared);
        }

        // SAFETY (each up to `unlock_new_inode()`): `I_NEW` is set for us to clear, and until then
        // nobody else reads or writes the inode.

        // CAST: `NewINode::init` checked that the size of a file is not negative.
        let size = like.size() as bindings::loff_t;
        // SAFETY: As above.
        unsafe { bindings::tesserafs_i_size_write(inode, size) };
        // CAST: The constant is a 16-bit value.
        let mode = bindings::S_IFREG as u16 | 0o444;
        // SAFETY: As above.
        unsafe { (*inode).i_mode = mode };
        // SAFETY: `NewINode::init` gave the file its table; it does not change.
        let table = unsafe { (*like.as_ptr()).i_data.a_ops };
        // SAFETY: As above. The table serves folios of this mapping too: it finds the inode that it
        // reads through the open file.
        unsafe { (*inode).i_data.a_ops = table };
        // SAFETY: As above.
        unsafe { bindings::tesserafs_mapping_set_large_folios(inode) };
        let depth = like.super_block().stack_depth();
        // SAFETY: As above; the depth is within the limit.
        unsafe { bindings::tesserafs_set_invalidate_lock_class(inode, depth, false) };
        // SAFETY: As above.
        unsafe { bindings::unlock_new_inode(inode) };
        Ok(shared)
    }
}

impl Drop for PageCache {
    /// Unmounts, and waits until nothing in the kernel refers to [`TYPE`] or its tables any more.
    ///
    /// A walk over all superblocks, such as that of sync(2), keeps the superblock that it looked at
    /// last until it is done with the next. A superblock is taken off its type's list when the last
    /// of these passive references is dropped. If a walker drops it, the walker reads the owner of
    /// the type after that. The module's memory must not be gone then, and [`TYPE`] has no owner
    /// that would keep it. So this makes its own reference the last one: unloading the module waits
    /// for the walk.
    fn drop(&mut self) {
        let sb = self.super_block();
        // SAFETY: The mount keeps the superblock, which has passive references as long as it is active.
        unsafe { bindings::tesserafs_super_get_passive(sb) };
        // SAFETY: The mount is ours. No inode of it is in use: each is held by one of a superblock
        // that holds the module.
        unsafe { bindings::kern_unmount(self.mount.as_ptr()) };
        // Nothing tells when it happens. New references are only taken to superblocks that are not
        // dying, and those that are active have two besides ours.
        //
        // SAFETY: Our reference keeps the superblock.
        while unsafe { bindings::tesserafs_super_passive_count(sb) } > 1 {
            fsleep(WALKERS_POLL);
        }
        // Of the functions that drop a passive reference, those that modules may call unlock the
        // superblock, too.
        //
        // SAFETY: Our reference keeps the superblock.
        unsafe { bindings::tesserafs_super_lock_shared(sb) };
        // SAFETY: The lock and the reference are ours. The reference is the last one.
        unsafe { bindings::drop_super(sb) };
        // `free_inode` runs after a grace period, and must have run before the module goes.
        //
        // SAFETY: This may sleep.
        unsafe { bindings::rcu_barrier() };
    }
}

/// A counted reference to a shared inode.
///
/// # Invariants
///
/// The inode is one that [`PageCache::get`] returned, and one of its references is owned.
pub(super) struct Shared(NonNull<bindings::inode>);

// SAFETY: A C inode may be used from any thread.
unsafe impl Send for Shared {}

// SAFETY: As above; a shared reference gives the address of its mapping only.
unsafe impl Sync for Shared {}

impl Shared {
    fn mapping(&self) -> *mut bindings::address_space {
        // SAFETY: By the type invariants the inode is valid.
        unsafe { &raw mut (*self.0.as_ptr()).i_data }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::iput(self.0.as_ptr()) };
    }
}

/// The inode that a page of `mapping` is filled from, when `file`, which may be null, asks for it.
///
/// A private mapping is always filled from its host: filesystems that stack on this one may
/// have borrowed the mapping. A shared one is filled from the inode of the file.
///
/// # Safety
///
/// `mapping` must have the operations that `NewINode::init` gave an inode of `T`, and stay for
/// `'a`, as must `file` if it is not null.
pub(super) unsafe fn source<'a, T: FileSystem>(
    mapping: *mut bindings::address_space,
    file: *mut bindings::file,
) -> Result<&'a INode<T>> {
    // SAFETY: A mapping that is being read has its host set, since `inode_init_always`.
    let host = unsafe { (*mapping).host };
    // SAFETY: The host is valid, and its superblock is assigned once.
    let sb = unsafe { (*host).i_sb };
    // SAFETY: A superblock outlives its inodes; its operations are assigned once.
    let operations = unsafe { (*sb).s_op };
    if !core::ptr::eq(operations, &SUPER_OPERATIONS) {
        // SAFETY: Only `NewINode::init` and `PageCache::get` install the table, and this is not an
        // inode of the latter; the inode outlives its page cache.
        return Ok(unsafe { INode::from_raw(host) });
    }
    if file.is_null() {
        return Err(EIO);
    }
    // SAFETY: The host is valid; the field does not change while it is hashed.
    let identity = unsafe { (*host).i_private };
    // SAFETY: `PageCache::get` gave the host its identity before it was seen by others, and it is
    // freed after the host.
    let identity = unsafe { *identity.cast::<Identity>() };
    // SAFETY: An open file has an inode, which does not change.
    let inode = unsafe { (*file).f_inode };
    // SAFETY: The file holds the inode, whose superblock is assigned once.
    let sb = unsafe { (*inode).i_sb };
    // SAFETY: A superblock outlives its inodes; its type is assigned once.
    let fs = unsafe { (*sb).s_type };
    // SAFETY: The mapping of an open file does not change.
    let own = unsafe { (*file).f_mapping };
    // Another file would fill the page with bytes of its own.
    if !core::ptr::eq(fs, identity.fs) || !core::ptr::eq(own, mapping) {
        return Err(EIO);
    }
    // SAFETY: The inode is one of the filesystem whose files share the mapping, which is `T` as the
    // table is of `T`; only `NewINode::init` makes inodes of it that can be opened.
    Ok(unsafe { INode::from_raw(inode) })
}

/// The mapping that open files of `inode` read and map: a shared one, or its own if `key` has none.
///
/// It is decided when the first of them is opened: all have the same. An open that fails decides nothing.
///
/// # Errors
///
/// `EINTR` if the task is being killed, `ENOMEM` if memory is short, and what `key` answers.
pub(super) fn mapping<T: FileSystem>(
    inode: &INode<T>,
    key: impl FnOnce() -> Result<Option<PageKey>>,
) -> Result<*mut bindings::address_space> {
    if inode.shared().as_ref().is_none() {
        // The task that holds the lock may be waiting for the image's store.
        //
        // SAFETY: The inode is valid, and a task that opens a file for reading does not hold its lock.
        to_result(unsafe { bindings::tesserafs_inode_lock_killable(inode.as_ptr()) })?;
        let decided = decide(inode, key);
        // SAFETY: It was locked above.
        unsafe { bindings::tesserafs_inode_unlock(inode.as_ptr()) };
        decided?;
    }
    Ok(match inode.shared().as_ref() {
        Some(Some(shared)) => shared.mapping(),
        // SAFETY: The inode is valid.
        _ => unsafe { &raw mut (*inode.as_ptr()).i_data },
    })
}

/// Decides which mapping the open files of `inode`, which is locked, read and map; unless that is done.
fn decide<T: FileSystem>(
    inode: &INode<T>,
    key: impl FnOnce() -> Result<Option<PageKey>>,
) -> Result {
    let once = inode.shared();
    if once.as_ref().is_some() {
        return Ok(());
    }
    let pages = T::page_cache(inode.super_block().global());
    let shared = match key()? {
        Some(key) => Some(pages.get(key, inode)?),
        None => None,
    };
    if let Some(shared) = &shared {
        // Users of the file's pages that have not opened it, such as uprobes, find these; its own mapping
        // never had any.
        //
        // SAFETY: The inode is valid and locked; the mapping lives until it is destroyed.
        unsafe { bindings::tesserafs_inode_set_mapping(inode.as_ptr(), shared.mapping()) };
    }
    once.populate(shared);
    Ok(())
}
