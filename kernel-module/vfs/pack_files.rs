// SPDX-License-Identifier: GPL-2.0

//! Packs in files of their own: where a mounter says that they are.
//!
//! The mounter names a directory, by its path or by `fsconfig(FSCONFIG_SET_FD)`, or passes the packs
//! themselves, open, in the order of the pack table. All are opened while the image is mounted, with the
//! mounter's credentials; nothing is opened later, by a remount neither.
//!
//! C headers: [`include/linux/fs_parser.h`](srctree/include/linux/fs_parser.h),
//! [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{
    backing::Backing,
    context::FsContext,
    copy_c_string,
    registration::FileSystem,
    source::{
        self,
        Named, //
    }, //
};
use crate::{
    bindings,
    klib::buffer::Buffer,
    mount_error, //
};
use core::ffi::CStr;
use kernel::{
    error::from_err_ptr,
    fs::File,
    prelude::*,
    str::CString,
    sync::aref::ARef, //
};

/// Packs of an image beside the embedded one, at most.
const FILES_MAX: usize = 1023;

/// A directory is only looked up in.
const DIRECTORY_FLAGS: c_int = (bindings::O_PATH | bindings::O_DIRECTORY) as c_int;

/// Where packs are.
#[derive(Default)]
pub(crate) enum PackFiles {
    /// The mounter has not said it.
    #[default]
    Unnamed,
    /// In this directory, each under its name.
    Directory {
        directory: ARef<File>,
        /// Its path, for `show_options`.
        path: CString,
    },
    /// These are they, in the order of the pack table.
    Open(Buffer<ARef<File>>),
    /// A remount says the path of the directory once more: nothing is opened.
    Repeated(CString),
}

impl PackFiles {
    /// Takes the option `packdir`, of a mounter who may mount.
    ///
    /// # Safety
    ///
    /// As for [`source::take`].
    pub(super) unsafe fn take<T: FileSystem>(
        &mut self,
        fc: &FsContext<T>,
        param: *mut bindings::fs_parameter,
    ) -> Result {
        T::check_mounter(fc)?;
        // SAFETY: The parameter is valid.
        if !unsafe { bindings::tesserafs_fs_parameter_is_file(param) } {
            // SAFETY: It is a string then.
            let path = unsafe { (*param).__bindgen_anon_1.string };
            if fc.is_remount() {
                // SAFETY: It is a C string that stays for this call.
                let path = unsafe { copy_c_string(path) }?;
                return self.set(fc, Self::Repeated(path));
            }
            // SAFETY: It is a C string that stays for this call.
            let directory = unsafe { source::open(fc, path, DIRECTORY_FLAGS) }?;
            return self.set_directory(fc, directory);
        }
        // SAFETY: It is an open file that stays for this call.
        let file = unsafe { (*param).__bindgen_anon_1.file };
        // SAFETY: The file is open.
        match unsafe { source::type_of(file) } {
            bindings::S_IFDIR if fc.is_remount() => {
                // SAFETY: The file is open.
                let path = unsafe { source::path_of(file) }?;
                return self.set(fc, Self::Repeated(path));
            }
            bindings::S_IFDIR => {
                // SAFETY: The file is open.
                let directory = unsafe { source::reopen(fc, file, DIRECTORY_FLAGS) }?;
                return self.set_directory(fc, directory);
            }
            bindings::S_IFREG => {}
            _ => {
                mount_error!(fc, "{} is no regular file", Named::AnyPack);
                return Err(EINVAL);
            }
        }
        // SAFETY: The file is open.
        let own = unsafe { source::reopen_to_read(fc, Named::AnyPack, file) }?;
        if matches!(self, Self::Unnamed) {
            *self = Self::Open(Buffer::with_capacity(1)?);
        }
        match self {
            Self::Open(files) if files.len() < FILES_MAX => Ok(files.push(own)?),
            Self::Open(_) => {
                mount_error!(fc, "more than {} packs", FILES_MAX);
                Err(EINVAL)
            }
            _ => Self::refuse_second(fc),
        }
    }

    /// Takes a directory; it has the path that it is mounted at for the mounter now, however it was named.
    fn set_directory<T: FileSystem>(&mut self, fc: &FsContext<T>, directory: ARef<File>) -> Result {
        // SAFETY: The file is open.
        let path = unsafe { source::path_of(directory.as_ptr()) }?;
        self.set(fc, Self::Directory { directory, path })
    }

    fn set<T: FileSystem>(&mut self, fc: &FsContext<T>, named: Self) -> Result {
        if !self.is_unnamed() {
            return Self::refuse_second(fc);
        }
        *self = named;
        Ok(())
    }

    fn refuse_second<T: FileSystem>(fc: &FsContext<T>) -> Result {
        mount_error!(fc, "packdir= names one directory, or open packs");
        Err(EINVAL)
    }

    /// Whether the mounter has not said where packs are.
    pub(crate) fn is_unnamed(&self) -> bool {
        matches!(self, Self::Unnamed)
    }

    /// The path of the directory, if one was named.
    pub(crate) fn path(&self) -> Option<&CStr> {
        match self {
            Self::Directory { path, .. } | Self::Repeated(path) => Some(path),
            Self::Unnamed | Self::Open(_) => None,
        }
    }

    /// Whether the mounter has named the directory that has this path; open packs are none.
    pub(crate) fn is_at(&self, path: Option<&CStr>) -> bool {
        self.path().is_some() && self.path() == path
    }

    /// Refuses open packs that an image with so many does not have.
    pub(crate) fn check_count<T: FileSystem>(&self, fc: &FsContext<T>, packs: u64) -> Result {
        match self {
            Self::Open(files) if u64::try_from(files.len()).map_or(true, |open| open > packs) => {
                mount_error!(
                    fc,
                    "{} packs are open, the image has {}",
                    files.len(),
                    packs
                );
                Err(EINVAL)
            }
            _ => Ok(()),
        }
    }

    /// Opens the pack with this index in the table, 1 at least, and this name.
    pub(crate) fn open<T: FileSystem>(
        &self,
        fc: &FsContext<T>,
        index: u16,
        name: &CStr,
    ) -> Result<Backing> {
        let named = Named::Pack(index, name.to_str().map_err(|_| EINVAL)?);
        let file = match self {
            // A remount opens no image.
            Self::Unnamed | Self::Repeated(_) => {
                mount_error!(fc, "{} is a file: packdir= says where", named);
                return Err(EINVAL);
            }
            Self::Directory { directory, .. } => open_in(fc, directory, name)
                .inspect_err(|e| mount_error!(fc, "cannot open {}: {:?}", named, e))?,
            Self::Open(files) => {
                let at = usize::from(index).checked_sub(1).ok_or(EINVAL)?;
                let Some(file) = files.get(at) else {
                    mount_error!(
                        fc,
                        "{} is not among the {} that are open",
                        named,
                        files.len()
                    );
                    return Err(ENOENT);
                };
                file.clone()
            }
        };
        // SAFETY: The file is open.
        if unsafe { source::type_of(file.as_ptr()) } != bindings::S_IFREG {
            mount_error!(fc, "{} is no regular file", named);
            return Err(EINVAL);
        }
        source::backing(fc, named, file)
    }
}

/// Opens the file of that name in a directory, as the mounter.
fn open_in<T: FileSystem>(fc: &FsContext<T>, directory: &File, name: &CStr) -> Result<ARef<File>> {
    // SAFETY: The directory is open; the place of its path in it is taken, and nothing is read.
    let path = unsafe { &raw const (*directory.as_ptr()).__bindgen_anon_1.f_path };
    let file = source::as_opener(fc, || {
        // SAFETY: The path of an open file is valid, and the name a C string.
        unsafe { bindings::file_open_root(path, name.as_char_ptr(), source::OPEN_FLAGS, 0) }
    });
    // SAFETY: `file_open_root()` returned a new file with a reference for us.
    unsafe { source::own(from_err_ptr(file)?) }
}

/// Prints `,packdir=` and the path, with the characters escaped that end an option.
pub(crate) fn show_path(seq: &kernel::seq_file::SeqFile, path: &CStr) {
    // CAST: `SeqFile` is transparent over `struct seq_file`.
    let seq = core::ptr::from_ref(seq).cast_mut().cast();
    // SAFETY: The VFS prints into it now, and the path is a C string.
    unsafe { bindings::tesserafs_seq_show_packdir(seq, path.as_char_ptr()) };
}
