// SPDX-License-Identifier: GPL-2.0

//! Filesystem contexts: from `mount` or `fsopen` to a superblock.
//!
//! The source is a block device, or a regular file that is opened here, once, with the mounter's
//! credentials; or a file that the mounter has opened and passes by `fsconfig(FSCONFIG_SET_FD)`. In a
//! user namespace only files are mounted; whether they may be, the filesystem decides
//! ([`FsContext::is_privileged`]).
//!
//! C headers: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h),
//! [`include/linux/fs_parser.h`](srctree/include/linux/fs_parser.h)

use super::{
    backing::Backing,
    c_bytes, is_initial,
    registration::{
        FileSystem,
        Registration, //
    },
    super_block::{
        self,
        SbInfo,
        SuperBlock, //
    },
};
use crate::{
    bindings,
    klib::{
        buffer::Buffer,
        printk::within_rate, //
    }, //
};
use core::{
    ffi::CStr,
    marker::PhantomData, //
};
use kernel::{
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    fmt,
    fs::File,
    prelude::*,
    str::{
        BStr,
        CString, //
    },
    sync::aref::ARef,
    types::Opaque, //
};

/// A mount, or remount, in preparation.
///
/// # Invariants
///
/// The context is one of the type that a `Registration<T>` registered.
#[repr(transparent)]
pub(crate) struct FsContext<T: FileSystem> {
    inner: Opaque<bindings::fs_context>,
    _p: PhantomData<fn() -> T>,
}

impl<T: FileSystem> FsContext<T> {
    /// # Safety
    ///
    /// `fc` must be a context of the type that a `Registration<T>` registered, used by this thread
    /// alone, for `'a`.
    unsafe fn from_raw<'a>(fc: *mut bindings::fs_context) -> &'a Self {
        // SAFETY: As the caller promises. CAST: `Self` is transparent over `struct fs_context`.
        unsafe { &*fc.cast() }
    }

    fn as_ptr(&self) -> *mut bindings::fs_context {
        self.inner.get()
    }

    /// Whether the mounter has the rights for it in the whole machine, and not in a user namespace of
    /// his own alone. Of a remount it says where the first mount was made.
    pub(crate) fn is_privileged(&self) -> bool {
        // SAFETY: The context is valid; its namespace does not change.
        let user_ns = unsafe { (*self.as_ptr()).user_ns };
        is_initial(user_ns)
    }

    /// What was given to [`Registration::new`].
    pub(crate) fn global(&self) -> &T::Global {
        // SAFETY: The context is valid; `fs_type` is assigned once.
        let fs_type = unsafe { (*self.as_ptr()).fs_type };
        // SAFETY: By the type invariants.
        unsafe { Registration::<T>::global_of(fs_type) }
    }

    /// Tells the mounter, and the kernel log, why it does not work.
    ///
    /// Use it through [`mount_error!`](crate::mount_error).
    pub(crate) fn error(&self, message: fmt::Arguments<'_>) {
        let formatted = CString::try_from_fmt(message);
        let text: &CStr = match &formatted {
            Ok(text) => text,
            Err(_) => c"(no memory for the message)",
        };
        // With the old mount API the context's log is the kernel log.
        //
        // SAFETY: The context is valid, and used by this thread alone.
        if !unsafe { bindings::tesserafs_fc_log_is_printk(self.as_ptr()) } {
            // SAFETY: As above.
            unsafe { bindings::tesserafs_fc_log(self.as_ptr(), b'e', text.as_char_ptr()) };
        }
        // Anybody can set options, be it only to have them refused.
        //
        // SAFETY: Only looks at the current task.
        let is_admin =
            unsafe { bindings::tesserafs_capable_noaudit(bindings::CAP_SYS_ADMIN as c_int) };
        if is_admin || within_rate() {
            pr_err!("{}\n", text);
        }
    }
}

/// Tells the mounter why a mount is refused: `mount_error!(fc, "bad magic {:#x}", magic)`.
#[macro_export]
macro_rules! mount_error {
    ($fc:expr, $($arg:tt)+) => (
        $fc.error(::kernel::prelude::fmt!($($arg)+))
    );
}

/// The table of options, for `struct file_system_type`.
pub(super) fn parameters() -> *const bindings::fs_parameter_spec {
    // CAST: An array of unknown length, to a pointer to its first element.
    (&raw const bindings::tesserafs_fs_parameters).cast()
}

/// What `fs_private` points to.
struct Context<T: FileSystem> {
    options: T::Options,
    /// The backing file, once there is one.
    file: Option<ARef<File>>,
    /// Whether a superblock was filled, rather than found.
    filled: bool,
}

/// # Safety
///
/// To be called by the VFS as `->init_fs_context` of the type that a `Registration<T>` registered.
pub(super) unsafe extern "C" fn init_fs_context<T: FileSystem>(
    fc: *mut kernel::bindings::fs_context,
) -> c_int {
    // CAST: Both are bindings of `struct fs_context`; the kernel crate's is opaque.
    let fc = fc.cast::<bindings::fs_context>();
    from_result(|| {
        let context = KBox::new(
            Context::<T> {
                options: T::Options::default(),
                file: None,
                filled: false,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The context is valid and ours.
        unsafe { (*fc).fs_private = KBox::into_raw(context).cast() };
        // SAFETY: As above.
        unsafe { (*fc).ops = &Table::<T>::TABLE };
        Ok(0)
    })
}

/// The context operations of `T`.
struct Table<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Table<T> {
    const TABLE: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        dup: None,
        parse_param: Some(Self::parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
    };

    /// What [`init_fs_context`] put there.
    ///
    /// # Safety
    ///
    /// `fc` must have this table, and `'a` end before the callback returns and before this is
    /// called again.
    unsafe fn context<'a>(fc: *mut bindings::fs_context) -> &'a mut Context<T> {
        // SAFETY: As the caller promises; only contexts with `fs_private` set have this table.
        let context = unsafe { (*fc).fs_private };
        // SAFETY: `init_fs_context` made it; a context is used by one thread at a time, and borrowed
        // once at a time by the caller's promise.
        unsafe { &mut *context.cast() }
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->free` of a context with this table.
    unsafe extern "C" fn free(fc: *mut bindings::fs_context) {
        // SAFETY: The context is valid; only contexts with `fs_private` set have this table.
        let context = unsafe { (*fc).fs_private }.cast::<Context<T>>();
        // SAFETY: `init_fs_context` made it from such a box, and nothing uses it any more.
        drop(unsafe { KBox::from_raw(context) });
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->parse_param` of a context with this table.
    unsafe extern "C" fn parse_param(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> c_int {
        // SAFETY: Both are valid for this call.
        let option = unsafe { bindings::tesserafs_fs_parse(fc, param) };
        if option < 0 {
            // `ENOPARAM` among others, which the VFS turns into its own words.
            return option;
        }
        from_result(|| {
            if option == bindings::TESSERAFS_OPT_SOURCE as c_int {
                // SAFETY: The parameter is valid and was found to be `source`.
                unsafe { Self::parse_source(fc, param) }?;
                return Ok(0);
            }
            // SAFETY: This callback runs alone.
            let context = unsafe { Self::context(fc) };
            // SAFETY: The context has this table.
            let fc = unsafe { FsContext::<T>::from_raw(fc) };
            // SAFETY: The parameter is valid.
            let key = unsafe { (*param).key };
            // SAFETY: The key is a C string that stays for this call.
            let key = unsafe { c_bytes(key) };
            let value = if option == bindings::TESSERAFS_OPT_FLAG as c_int {
                &[]
            } else {
                // SAFETY: `fs_parse()` checked that the value is a string.
                let value = unsafe { (*param).__bindgen_anon_1.string };
                // SAFETY: It is a C string that stays for this call.
                unsafe { c_bytes(value) }
            };
            T::parse_param(fc, &mut context.options, key, value)?;
            Ok(0)
        })
    }

    /// Takes the source, as a name or as an open file.
    ///
    /// # Safety
    ///
    /// As for [`Self::parse_param`]; `fs_parse()` must have accepted `param` as a file or a string.
    unsafe fn parse_source(
        fc: *mut bindings::fs_context,
        param: *mut bindings::fs_parameter,
    ) -> Result {
        // SAFETY: This callback runs alone.
        let context = unsafe { Self::context(fc) };
        // SAFETY: The context has this table.
        let log = unsafe { FsContext::<T>::from_raw(fc) };
        // SAFETY: The context is valid.
        if unsafe { !(*fc).source.is_null() } {
            mount_error!(log, "more than one source");
            return Err(EINVAL);
        }
        // SAFETY: The parameter is valid.
        if unsafe { !bindings::tesserafs_fs_parameter_is_file(param) } {
            // SAFETY: It is a string then.
            let string = unsafe { (*param).__bindgen_anon_1.string };
            // SAFETY: The context is valid, takes the string over, and frees it.
            unsafe { (*fc).source = string };
            // SAFETY: The parameter is valid, and gives the string away.
            unsafe { (*param).__bindgen_anon_1.string = core::ptr::null_mut() };
            return Ok(());
        }
        // SAFETY: It is an open file that stays for this call.
        let file = unsafe { (*param).__bindgen_anon_1.file };
        // SAFETY: `f_mode` does not change once a file is open.
        if unsafe { (*file).f_mode } & bindings::TESSERAFS_CONST_FMODE_READ == 0 {
            mount_error!(log, "the source is not open for reading");
            return Err(EBADF);
        }
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file).f_inode };
        // SAFETY: As above.
        let mode = unsafe { (*inode).i_mode };
        if u32::from(mode) & bindings::S_IFMT != bindings::S_IFREG {
            mount_error!(log, "the source is open, and no regular file");
            return Err(ENOTBLK);
        }
        // SAFETY: The file is open; the place of its path in it is taken, and nothing is read.
        let location = unsafe { &raw const (*file).__bindgen_anon_1.f_path };
        // SAFETY: The credentials of a context do not change.
        let cred = unsafe { (*fc).cred };
        // Opened once more: the mounter may change the flags of the file that it has.
        //
        // SAFETY: The path of an open file is valid, and so are the mounter's credentials.
        let own = unsafe { bindings::dentry_open(location, Self::OPEN_FLAGS, cred) };
        let own = from_err_ptr(own)?;
        // SAFETY: `dentry_open()` returned a new file with a reference for us; nobody else has it,
        // so there is no `fdget_pos` of it.
        let own = unsafe { ARef::from_raw(core::ptr::NonNull::new(own).ok_or(ENOMEM)?.cast()) };

        let mut path = Buffer::<u8>::zeroed(bindings::PATH_MAX as usize)?;
        let room = c_int::try_from(path.len())?;
        // SAFETY: The file is valid, and `path` as long as is said.
        let name = unsafe { bindings::file_path(file, path.as_mut_ptr().cast(), room) };
        let name = from_err_ptr(name)?;
        // SAFETY: `file_path()` returned a C string within `path`.
        let name = unsafe { bindings::kstrdup(name, bindings::GFP_KERNEL) };
        if name.is_null() {
            return Err(ENOMEM);
        }
        // SAFETY: The context is valid, has no source, and frees the string in the end.
        unsafe { (*fc).source = name };
        context.file = Some(own);
        Ok(())
    }

    /// A regular file needs no more; `O_NONBLOCK` keeps what is not a regular file from waiting for
    /// a peer before it is refused.
    const OPEN_FLAGS: c_int =
        (bindings::O_RDONLY | bindings::O_LARGEFILE | bindings::O_NONBLOCK) as c_int;

    /// # Safety
    ///
    /// To be called by the VFS as `->get_tree` of a context with this table.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // There is no other way to mount it; and the device is then opened for reading only.
            //
            // SAFETY: The context is valid, and used by this thread alone.
            unsafe { (*fc).sb_flags |= bindings::TESSERAFS_CONST_SB_RDONLY };
            // SAFETY: The borrow ends before anything else gets at the context.
            let has_file = unsafe { Self::context(fc).file.is_some() };
            // SAFETY: The context has this table.
            let log = unsafe { FsContext::<T>::from_raw(fc) };
            // Before anybody else can come across the superblock, or it meets a byte of the image.
            T::admit_mounter(log)?;
            if !has_file {
                if log.is_privileged() {
                    // SAFETY: As above.
                    match unsafe { Self::get_tree_bdev(fc) } {
                        Err(e) if e == ENOTBLK => (),
                        other => return other.map(|()| 0),
                    }
                }
                // SAFETY: As above.
                unsafe { Self::open_source(fc) }?;
            }
            // SAFETY: The context is valid, and `fill_super` is for contexts with this table.
            to_result(unsafe { bindings::get_tree_nodev(fc, Some(Self::fill_super)) })?;
            Ok(0)
        })
    }

    /// Mounts the source as a block device; `ENOTBLK` if it is none.
    ///
    /// # Safety
    ///
    /// As for [`Self::get_tree`].
    unsafe fn get_tree_bdev(fc: *mut bindings::fs_context) -> Result {
        // SAFETY: The context is valid, and `fill_super` is for contexts with this table.
        to_result(unsafe {
            bindings::get_tree_bdev_flags(
                fc,
                Some(Self::fill_super),
                bindings::GET_TREE_BDEV_QUIET_LOOKUP,
            )
        })?;
        // SAFETY: The borrow ends with the call, or before `fc` is used otherwise.
        let context = unsafe { Self::context(fc) };
        if context.filled {
            return Ok(());
        }
        // The device is mounted already, and was checked against the options of that mount.
        //
        // SAFETY: The context got a root, which is `get_tree_bdev_flags()`'s success.
        let root = unsafe { (*fc).root };
        // SAFETY: A root dentry is valid and has a superblock.
        let raw = unsafe { (*root).d_sb };
        // SAFETY: Superblocks of one type have one `T`; one that is found rather than filled is
        // complete. It is active and locked for us.
        let sb = unsafe { SuperBlock::<T>::from_raw(raw) };
        // SAFETY: The context has this table.
        let log = unsafe { FsContext::<T>::from_raw(fc) };
        T::admit(log, &context.options, sb).inspect_err(|_| {
            // SAFETY: The context is valid; as `fc_drop_locked()`, which is not exported.
            unsafe { (*fc).root = core::ptr::null_mut() };
            // SAFETY: The reference was the context's.
            unsafe { bindings::dput(root) };
            // SAFETY: `get_tree_bdev_flags()` left the superblock active and locked for us.
            unsafe { bindings::deactivate_locked_super(raw) };
        })
    }

    /// Opens the source as a regular file.
    ///
    /// # Safety
    ///
    /// As for [`Self::get_tree`].
    unsafe fn open_source(fc: *mut bindings::fs_context) -> Result {
        // SAFETY: The context has this table.
        let log = unsafe { FsContext::<T>::from_raw(fc) };
        // SAFETY: The context is valid.
        let source = unsafe { (*fc).source };
        if source.is_null() {
            mount_error!(log, "no source");
            return Err(EINVAL);
        }
        // SAFETY: The credentials of a context do not change.
        let cred = unsafe { (*fc).cred };
        // SAFETY: They live as long as the context, which is longer than they are in force here.
        let old = unsafe { bindings::tesserafs_override_creds(cred) };
        // SAFETY: The source is a C string. Who made the context is the mounter, whoever has it now.
        let file = unsafe { bindings::filp_open(source, Self::OPEN_FLAGS, 0) };
        // SAFETY: `old` is what was in force before.
        unsafe { bindings::tesserafs_revert_creds(old) };
        // SAFETY: The source is a C string that stays as long as the context.
        let name = BStr::from_bytes(unsafe { c_bytes(source) });
        let file = from_err_ptr(file)
            .inspect_err(|e| mount_error!(log, "cannot open {}: {:?}", name, e))?;
        // SAFETY: `filp_open()` returned a new file with a reference for us; nobody else has it, so
        // there is no `fdget_pos` of it.
        let file = unsafe { ARef::from_raw(core::ptr::NonNull::new(file).ok_or(ENOENT)?.cast()) };
        // SAFETY: This callback runs alone.
        unsafe { Self::context(fc) }.file = Some(file);
        Ok(())
    }

    /// # Safety
    ///
    /// To be called by `get_tree_*()` for a new superblock and a context with this table.
    unsafe extern "C" fn fill_super(
        sb: *mut bindings::super_block,
        fc: *mut bindings::fs_context,
    ) -> c_int {
        from_result(|| {
            // SAFETY: This callback runs alone; nothing else borrows the context until it returns.
            let context = unsafe { Self::context(fc) };
            context.filled = true;
            // SAFETY: The context has this table.
            let log = unsafe { FsContext::<T>::from_raw(fc) };

            let info = KBox::new(SbInfo::<T>::new(), GFP_KERNEL)?;
            // SAFETY: The superblock is new and ours. `kill_sb` takes the box back, whatever
            // happens.
            unsafe { (*sb).s_fs_info = KBox::into_raw(info).cast() };
            // SAFETY: The superblock is new, of our type, and has its `s_fs_info`.
            let new = unsafe { super_block::set_up::<T>(sb) };

            let backing = match context.file.take() {
                Some(file) => {
                    let depth = Self::check_file(log, &file)?;
                    // SAFETY: The superblock is ours.
                    unsafe { (*sb).s_stack_depth = depth };
                    if let Some(reason) = Backing::refusal(&file) {
                        let name = Backing::filesystem_name(&file);
                        mount_error!(
                            log,
                            "no image can lie on {}, {}",
                            BStr::from_bytes(name),
                            reason
                        );
                    }
                    let backing = Backing::from_file(file)?;
                    // Until it has a root, whoever walks all superblocks waits for this one.
                    if !log.is_privileged() && !backing.is_local() {
                        mount_error!(
                            log,
                            "in a user namespace the source must lie on this machine"
                        );
                        return Err(EPERM);
                    }
                    backing
                }
                // SAFETY: The superblock came from `get_tree_bdev_flags()`, which opened the
                // device.
                None => unsafe { Backing::from_bdev(sb) }?,
            };
            // SAFETY: As for `set_up`.
            unsafe { super_block::set_up_backing::<T>(sb) }
                .inspect_err(|e| mount_error!(log, "cannot set up the backing store: {:?}", e))?;

            let data = T::fill_super(log, &context.options, new, backing)?;
            // SAFETY: `s_fs_info` is set, to an `SbInfo<T>`.
            unsafe { SbInfo::<T>::of(sb) }.set_data(data);
            // SAFETY: Now it has its data.
            let ready = unsafe { SuperBlock::<T>::from_raw(sb) };
            let root = T::root(log, ready)?;
            if !root.is_dir() {
                mount_error!(log, "the root is not a directory");
                return Err(EFSCORRUPTED);
            }
            if !core::ptr::eq(root.super_block().as_ptr(), sb) {
                return Err(EINVAL);
            }
            // SAFETY: The superblock has its data and no root; the inode was found to be its own.
            unsafe { super_block::make_root(sb, root.into_raw()) }?;
            Ok(0)
        })
    }

    /// Checks that a file can back a filesystem; returns the stack depth of that filesystem.
    fn check_file(log: &FsContext<T>, file: &File) -> Result<c_int> {
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file.as_ptr()).f_inode };
        // SAFETY: As above.
        let mode = unsafe { (*inode).i_mode };
        let kind = u32::from(mode) & bindings::S_IFMT;
        if kind == bindings::S_IFBLK && !log.is_privileged() {
            mount_error!(log, "in a user namespace no block device is mounted");
            return Err(EPERM);
        }
        if kind != bindings::S_IFREG {
            mount_error!(
                log,
                "the source is neither a block device nor a regular file"
            );
            return Err(ENOTBLK);
        }
        // SAFETY: The file keeps the inode; `i_sb` is assigned once.
        let sb = unsafe { (*inode).i_sb };
        // SAFETY: The file keeps the superblock, whose depth is set before it has files.
        let depth = unsafe { (*sb).s_stack_depth };
        let limit = bindings::FILESYSTEM_MAX_STACK_DEPTH as c_int;
        match depth.checked_add(1) {
            Some(depth) if depth <= limit => Ok(depth),
            _ => {
                mount_error!(
                    log,
                    "the source lies {} filesystems deep, at most {} can be stacked",
                    depth,
                    limit
                );
                Err(EINVAL)
            }
        }
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->reconfigure` of a context with this table.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: This callback runs alone.
            let context = unsafe { Self::context(fc) };
            // SAFETY: The context has this table.
            let log = unsafe { FsContext::<T>::from_raw(fc) };
            let read_only = bindings::TESSERAFS_CONST_SB_RDONLY;
            // SAFETY: The context is valid.
            let flags = unsafe { (*fc).sb_flags };
            // SAFETY: The context is valid.
            let mask = unsafe { (*fc).sb_flags_mask };
            if mask & read_only != 0 && flags & read_only == 0 {
                mount_error!(log, "cannot be mounted read-write");
                return Err(EROFS);
            }
            // SAFETY: A context for reconfiguration has a root.
            let root = unsafe { (*fc).root };
            // SAFETY: A root dentry is valid and has a superblock.
            let sb = unsafe { (*root).d_sb };
            // SAFETY: It is of this type, and complete, as it has a root.
            let sb = unsafe { SuperBlock::<T>::from_raw(sb) };
            T::reconfigure(log, &context.options, sb)?;
            Ok(0)
        })
    }
}
