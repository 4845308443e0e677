// SPDX-License-Identifier: GPL-2.0

//! Filesystem contexts: the request of a mounter, for a new superblock or to an existing one.
//!
//! [`source`] takes and opens what the mounter names as the source; [`tree`] makes the superblock.
//!
//! C headers: [`include/linux/fs_context.h`](srctree/include/linux/fs_context.h),
//! [`include/linux/fs_parser.h`](srctree/include/linux/fs_parser.h)

use super::{
    c_bytes,
    is_initial,
    registration::{
        FileSystem,
        Registration, //
    },
    source,
    super_block::SuperBlock,
    tree, //
};
use crate::{
    bindings,
    klib::printk::within_rate, //
};
use core::{
    ffi::CStr,
    marker::PhantomData, //
};
use kernel::{
    error::from_result,
    fmt,
    fs::File,
    prelude::*,
    str::CString,
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
    pub(super) unsafe fn from_raw<'a>(fc: *mut bindings::fs_context) -> &'a Self {
        // SAFETY: As the caller promises. CAST: `Self` is transparent over `struct fs_context`.
        unsafe { &*fc.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::fs_context {
        self.inner.get()
    }

    /// Whether the mounter has rights over the whole machine, rather than over a user namespace
    /// alone. For a remount, the namespace of the first mount counts.
    pub(crate) fn is_privileged(&self) -> bool {
        // SAFETY: The context is valid; its namespace does not change.
        let user_ns = unsafe { (*self.as_ptr()).user_ns };
        is_initial(user_ns)
    }

    /// Whether this is about a superblock that exists.
    pub(super) fn is_remount(&self) -> bool {
        // SAFETY: The context is valid; its purpose does not change.
        let purpose = unsafe { (*self.as_ptr()).purpose() };
        purpose == bindings::fs_context_purpose_FS_CONTEXT_FOR_RECONFIGURE
    }

    /// Lets a remount switch POSIX ACLs on or off, where the kernel has them.
    pub(crate) fn set_posix_acl(&self, on: bool) {
        if !cfg!(CONFIG_FS_POSIX_ACL) {
            return;
        }
        let acl = bindings::TESSERAFS_CONST_SB_POSIXACL;
        // SAFETY: The context is valid, and used by this thread alone.
        let fc = unsafe { &mut *self.as_ptr() };
        fc.sb_flags_mask |= acl;
        if on {
            fc.sb_flags |= acl;
        } else {
            fc.sb_flags &= !acl;
        }
    }

    /// The value that was given to [`Registration::new`].
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
        // Anybody can set options, if only to have them refused.
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

/// The private data of a context: `fs_private` points to it.
pub(super) struct Context<T: FileSystem> {
    pub(super) options: T::Options,
    /// The source, if the mounter has passed an open file.
    pub(super) file: Option<ARef<File>>,
    /// The image that was read from the source, until the superblock has it.
    pub(super) opened: Option<T::Image>,
}

impl<T: FileSystem> Context<T> {
    /// The private data that [`init_fs_context`] set.
    ///
    /// # Safety
    ///
    /// `fc` must be a context of the type that a `Registration<T>` registered, and `'a` end before the
    /// callback that it was passed to returns, and before this is called again.
    pub(super) unsafe fn of<'a>(fc: *mut bindings::fs_context) -> &'a mut Self {
        // SAFETY: As the caller promises; `init_fs_context` sets it before any other callback.
        let context = unsafe { (*fc).fs_private };
        // SAFETY: `init_fs_context` made it; a context is used by one thread at a time, and borrowed
        // once at a time by the caller's promise.
        unsafe { &mut *context.cast() }
    }
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
                opened: None,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The context is valid and ours.
        unsafe { (*fc).fs_private = KBox::into_raw(context).cast() };
        // SAFETY: As above.
        unsafe { (*fc).ops = &Callbacks::<T>::TABLE };
        Ok(0)
    })
}

/// The context operations of `T`.
struct Callbacks<T: FileSystem>(PhantomData<T>);

impl<T: FileSystem> Callbacks<T> {
    const TABLE: bindings::fs_context_operations = bindings::fs_context_operations {
        free: Some(Self::free),
        dup: None,
        parse_param: Some(Self::parse_param),
        parse_monolithic: None,
        get_tree: Some(Self::get_tree),
        reconfigure: Some(Self::reconfigure),
    };

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
            // SAFETY: This callback runs alone.
            let context = unsafe { Context::<T>::of(fc) };
            // SAFETY: The context has this table.
            let fc = unsafe { FsContext::<T>::from_raw(fc) };
            if option == bindings::TESSERAFS_OPT_SOURCE as c_int {
                // SAFETY: The parameter is valid and was found to be `source`.
                context.file = unsafe { source::take(fc, param) }?;
                return Ok(0);
            }
            if option == bindings::TESSERAFS_OPT_PACKDIR as c_int {
                // SAFETY: The parameter is valid and was found to be `packdir`.
                unsafe { T::pack_files(&mut context.options).take(fc, param) }?;
                return Ok(0);
            }
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

    /// # Safety
    ///
    /// To be called by the VFS as `->get_tree` of a context with this table.
    unsafe extern "C" fn get_tree(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: The context has this table, and this is `->get_tree`.
            unsafe { tree::get_tree::<T>(fc) }?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// To be called by the VFS as `->reconfigure` of a context with this table.
    unsafe extern "C" fn reconfigure(fc: *mut bindings::fs_context) -> c_int {
        from_result(|| {
            // SAFETY: This callback runs alone.
            let context = unsafe { Context::<T>::of(fc) };
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
