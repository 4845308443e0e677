// SPDX-License-Identifier: GPL-2.0

//! Sources: which backing store a mounter has named.
//!
//! A source is a block device; or a regular file that is opened here, once, with the mounter's
//! credentials; or a file that the mounter has opened and passes by `fsconfig(FSCONFIG_SET_FD)`. In a user
//! namespace it is a file.
//!
//! C headers: [`include/linux/fs_parser.h`](srctree/include/linux/fs_parser.h),
//! [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use super::{
    backing::Backing,
    c_bytes,
    context::FsContext,
    copy_c_string,
    registration::FileSystem, //
};
use crate::{
    bindings,
    klib::buffer::Buffer,
    mount_error, //
};
use core::ptr::NonNull;
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fmt,
    fs::File,
    prelude::*,
    str::{
        BStr,
        CString, //
    },
    sync::aref::ARef, //
};

/// What an error is about.
#[derive(Clone, Copy)]
pub(super) enum Named<'a> {
    /// The source.
    Source,
    /// An open pack whose index is not known yet.
    AnyPack,
    /// The pack with this index and name.
    Pack(u16, &'a str),
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("the source"),
            Self::AnyPack => f.write_str("a pack"),
            Self::Pack(index, name) => write!(f, "pack {} ({})", index, name),
        }
    }
}

/// A source, found.
pub(super) enum Source {
    /// The block device that the context names as its source.
    Device,
    /// This regular file, which nobody else has open.
    File(ARef<File>),
}

/// A regular file needs no more. `O_NONBLOCK` keeps the open of another type of file from waiting
/// for a peer before it is refused, and `O_NOCTTY` a terminal from becoming the mounter's.
pub(super) const OPEN_FLAGS: c_int =
    (bindings::O_RDONLY | bindings::O_LARGEFILE | bindings::O_NONBLOCK | bindings::O_NOCTTY)
        as c_int;

/// Takes the option `source`: a name is kept in the context; an open file is named there and opened once
/// more, and returned.
///
/// # Safety
///
/// `param` must be the parameter that `->parse_param` was called with for `fc`, and `fs_parse()` have
/// accepted it as a file or a string.
pub(super) unsafe fn take<T: FileSystem>(
    fc: &FsContext<T>,
    param: *mut bindings::fs_parameter,
) -> Result<Option<ARef<File>>> {
    let raw = fc.as_ptr();
    // SAFETY: The context is valid.
    if unsafe { !(*raw).source.is_null() } {
        mount_error!(fc, "more than one source");
        return Err(EINVAL);
    }
    // SAFETY: The parameter is valid.
    if unsafe { !bindings::tesserafs_fs_parameter_is_file(param) } {
        // SAFETY: It is a string then.
        let string = unsafe { (*param).__bindgen_anon_1.string };
        // SAFETY: The context is valid, takes the string over, and frees it.
        unsafe { (*raw).source = string };
        // SAFETY: The parameter is valid, and gives the string away.
        unsafe { (*param).__bindgen_anon_1.string = core::ptr::null_mut() };
        return Ok(None);
    }
    T::check_mounter(fc)?;
    // SAFETY: It is an open file that stays for this call.
    let file = unsafe { (*param).__bindgen_anon_1.file };
    // SAFETY: The file is open.
    if unsafe { type_of(file) } != bindings::S_IFREG {
        mount_error!(fc, "the source is open, and no regular file");
        return Err(ENOTBLK);
    }
    // SAFETY: The file is open.
    let own = unsafe { reopen_to_read(fc, Named::Source, file) }?;
    // SAFETY: The file is open.
    let path = unsafe { path_of(file) }?;
    // SAFETY: It is a C string.
    let name = unsafe { bindings::kstrdup(path.as_char_ptr(), bindings::GFP_KERNEL) };
    if name.is_null() {
        return Err(ENOMEM);
    }
    // SAFETY: The context is valid, has no source, and frees the string in the end.
    unsafe { (*raw).source = name };
    Ok(Some(own))
}

/// Opens once more, as the mounter, a file that the mounter has opened for reading: it may change the flags of its own.
///
/// # Safety
///
/// `file` must be open.
pub(super) unsafe fn reopen_to_read<T: FileSystem>(
    fc: &FsContext<T>,
    named: Named<'_>,
    file: *mut bindings::file,
) -> Result<ARef<File>> {
    // Advice about the mounter's file changes other bits at any time.
    //
    // SAFETY: The file is open, and the word aligned.
    let mode = unsafe { (&raw const (*file).f_mode).read_volatile() };
    if mode & bindings::TESSERAFS_CONST_FMODE_READ == 0 {
        mount_error!(fc, "{} is not open for reading", named);
        return Err(EBADF);
    }
    // SAFETY: As the caller promises.
    unsafe { reopen(fc, file, OPEN_FLAGS) }
}

/// Opens once more, as the mounter, what the mounter has open.
///
/// # Safety
///
/// `file` must be open.
pub(super) unsafe fn reopen<T: FileSystem>(
    fc: &FsContext<T>,
    file: *mut bindings::file,
    flags: c_int,
) -> Result<ARef<File>> {
    // SAFETY: The file is open; the place of its path in it is taken, and nothing is read.
    let location = unsafe { &raw const (*file).__bindgen_anon_1.f_path };
    // SAFETY: The credentials of a context do not change.
    let cred = unsafe { (*fc.as_ptr()).cred };
    let own_file = as_opener(fc, || {
        // SAFETY: The path of an open file is valid, and so are the mounter's credentials.
        from_err_ptr(unsafe { bindings::dentry_open(location, flags, cred) })
    })?;
    // SAFETY: `dentry_open()` returned a new file with a reference for us.
    unsafe { own(own_file) }
}

/// Takes the reference to a file that nobody else has.
///
/// # Safety
///
/// `file` must be new, with a reference that is the caller's to give.
pub(super) unsafe fn own(file: *mut bindings::file) -> Result<ARef<File>> {
    let file = NonNull::new(file).ok_or(ENOENT)?;
    // SAFETY: As the caller promises; nobody else has the file, so there is no `fdget_pos` of it.
    Ok(unsafe { ARef::from_raw(file.cast()) })
}

/// The path of an open file, as a C string.
///
/// # Safety
///
/// `file` must be open.
pub(super) unsafe fn path_of(file: *mut bindings::file) -> Result<CString> {
    let mut room = Buffer::<u8>::zeroed(bindings::PATH_MAX as usize)?;
    let len = c_int::try_from(room.len())?;
    // SAFETY: The file is open, and `room` as long as is said.
    let path = from_err_ptr(unsafe { bindings::file_path(file, room.as_mut_ptr().cast(), len) })?;
    // SAFETY: `file_path()` returned a C string within `room`.
    unsafe { copy_c_string(path) }
}

/// Finds out what the mounter has named, and opens it if it is a file. `opened` is what [`take`] returned.
pub(super) fn find<T: FileSystem>(fc: &FsContext<T>, opened: Option<ARef<File>>) -> Result<Source> {
    if let Some(file) = opened {
        return Ok(Source::File(file));
    }
    let raw = fc.as_ptr();
    // SAFETY: The context is valid.
    let name = unsafe { (*raw).source };
    if name.is_null() {
        mount_error!(fc, "no source");
        return Err(EINVAL);
    }
    if fc.is_privileged() {
        let mut device = 0;
        // SAFETY: The source is a C string that stays as long as the context.
        match to_result(unsafe { bindings::lookup_bdev(name, &mut device) }) {
            Ok(()) => return Ok(Source::Device),
            // Something else has that name.
            Err(error) if error == ENOTBLK => {}
            Err(error) => return Err(error),
        }
    }
    // SAFETY: The source is a C string.
    let file = unsafe { open(fc, name, OPEN_FLAGS) }?;
    // SAFETY: The file is open.
    match unsafe { type_of(file.as_ptr()) } {
        bindings::S_IFREG => Ok(Source::File(file)),
        bindings::S_IFBLK if !fc.is_privileged() => {
            mount_error!(fc, "in a user namespace no block device is mounted");
            Err(EPERM)
        }
        _ => {
            mount_error!(
                fc,
                "the source is neither a block device nor a regular file"
            );
            Err(ENOTBLK)
        }
    }
}

/// Opens what has that path, as the mounter.
///
/// # Safety
///
/// `path` must be a C string.
pub(super) unsafe fn open<T: FileSystem>(
    fc: &FsContext<T>,
    path: *const c_char,
    flags: c_int,
) -> Result<ARef<File>> {
    // SAFETY: As the caller promises.
    let file = as_opener(fc, || unsafe { bindings::filp_open(path, flags, 0) });
    // SAFETY: As the caller promises.
    let name = BStr::from_bytes(unsafe { c_bytes(path) });
    let file =
        from_err_ptr(file).inspect_err(|e| mount_error!(fc, "cannot open {}: {:?}", name, e))?;
    // SAFETY: `filp_open()` returned a new file with a reference for us.
    unsafe { own(file) }
}

/// Calls `f` with the credentials of the mounter: the task that made the context, whichever has it now.
pub(super) fn as_opener<T: FileSystem, R>(fc: &FsContext<T>, f: impl FnOnce() -> R) -> R {
    // SAFETY: The credentials of a context do not change.
    let cred = unsafe { (*fc.as_ptr()).cred };
    // SAFETY: They live as long as the context, which is longer than they are in force here.
    let old = unsafe { bindings::tesserafs_override_creds(cred) };
    let answer = f();
    // SAFETY: `old` is what was in force before.
    unsafe { bindings::tesserafs_revert_creds(old) };
    answer
}

/// What an image or a pack can be read from: this regular file, if it may be.
pub(super) fn backing<T: FileSystem>(
    fc: &FsContext<T>,
    named: Named<'_>,
    file: ARef<File>,
) -> Result<Backing> {
    let stack_depth = stack_depth(fc, named, &file)?;
    let file = Backing::on_layer(file)?;
    if let Some(reason) = Backing::refusal(&file) {
        let name = BStr::from_bytes(Backing::filesystem_name(&file));
        mount_error!(fc, "{} cannot lie on {}, {}", named, name, reason);
    }
    let backing = Backing::from_file(file, stack_depth)?;
    // The program or machine that serves such a file may be the mounter's own.
    if !fc.is_privileged() && !backing.is_local() {
        mount_error!(fc, "in a user namespace {} must lie on this machine", named);
        return Err(EPERM);
    }
    Ok(backing)
}

/// The number of filesystems below one that is read from `file`; `EINVAL` if that is one too many.
fn stack_depth<T: FileSystem>(fc: &FsContext<T>, named: Named<'_>, file: &File) -> Result<c_int> {
    // SAFETY: An open file has an inode, which does not change.
    let inode = unsafe { (*file.as_ptr()).f_inode };
    // SAFETY: The file keeps the inode; `i_sb` is assigned once.
    let sb = unsafe { (*inode).i_sb };
    // SAFETY: The file keeps the superblock, whose depth is set before it has files.
    let depth = unsafe { (*sb).s_stack_depth };
    let limit = bindings::FILESYSTEM_MAX_STACK_DEPTH as c_int;
    match depth.checked_add(1) {
        Some(depth) if depth <= limit => Ok(depth),
        _ => {
            mount_error!(
                fc,
                "{} lies {} filesystems deep, at most {} can be stacked",
                named,
                depth,
                limit
            );
            Err(EINVAL)
        }
    }
}

/// The type of an open file, as one of the constants `S_IF…`.
///
/// # Safety
///
/// `file` must be open.
pub(super) unsafe fn type_of(file: *const bindings::file) -> u32 {
    // SAFETY: An open file has an inode, which does not change.
    let inode = unsafe { (*file).f_inode };
    // SAFETY: The file keeps the inode.
    let mode = unsafe { (*inode).i_mode };
    u32::from(mode) & bindings::S_IFMT
}
