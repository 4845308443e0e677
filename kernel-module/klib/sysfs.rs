// SPDX-License-Identifier: GPL-2.0

//! Folders below `/sys/fs`, with files that can be read.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use super::{
    buffer::Buffer,
    completion::Completion, //
};
use crate::bindings;
use core::{
    ffi::CStr,
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// The content of a file.
pub(crate) enum Value<'a> {
    /// A number, in decimal.
    Number(u64),
    /// `sha256:` and a digest.
    Digest(&'a [u8; 32]),
}

/// A file of a folder about a `T`.
pub(crate) struct File<T: 'static> {
    /// Its name.
    pub(crate) name: &'static CStr,
    /// Its content.
    pub(crate) show: fn(&T) -> Value<'_>,
}

/// The folder `/sys/fs/NAME`.
///
/// # Invariants
///
/// `kobj` is a kobject that `kobject_create_and_add()` returned, and a reference to it is owned.
pub(crate) struct Root {
    kobj: NonNull<bindings::kobject>,
}

// SAFETY: A kobject may be used, and put, from any thread.
unsafe impl Send for Root {}

// SAFETY: A shared reference only gives a parent for other kobjects, which takes locks.
unsafe impl Sync for Root {}

impl Root {
    /// Creates it.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is a C string; `fs_kobj` is set when the VFS is initialised, before any
        // module or filesystem.
        let kobj =
            unsafe { bindings::kobject_create_and_add(name.as_char_ptr(), bindings::fs_kobj) };
        // INVARIANT: As is checked.
        Ok(Self {
            kobj: NonNull::new(kobj).ok_or(ENOMEM)?,
        })
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // SAFETY: By the type invariants. All folders below it are gone.
        unsafe { bindings::kobject_del(self.kobj.as_ptr()) };
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::kobject_put(self.kobj.as_ptr()) };
    }
}

/// A folder below a [`Root`], about a `T`.
///
/// # Invariants
///
/// `object` was initialised as a kobject and is not released; the first reference to it is owned.
pub(crate) struct Folder<T: Send + Sync + 'static> {
    object: Pin<KBox<Object<T>>>,
}

/// The kobject comes first, so one pointer serves for both.
#[pin_data]
#[repr(C)]
struct Object<T: 'static> {
    #[pin]
    kobj: Opaque<bindings::kobject>,
    about: T,
    files: &'static [File<T>],
    attributes: Buffer<Attribute>,
    #[pin]
    released: Completion,
}

/// The attribute comes first, so one pointer serves for both.
#[repr(C)]
struct Attribute {
    raw: bindings::attribute,
    /// Which of the files it is.
    index: usize,
}

// SAFETY: Everything that it points to is static.
unsafe impl Send for Attribute {}

// SAFETY: As above.
unsafe impl Sync for Attribute {}

// SAFETY: A kobject may be used from any thread, and the rest is `Send`.
unsafe impl<T: Send> Send for Object<T> {}

// SAFETY: A kobject locks itself, and the rest is `Sync`.
unsafe impl<T: Sync> Sync for Object<T> {}

impl<T: Send + Sync + 'static> Folder<T> {
    /// Creates the folder `MAJOR:MINOR` of a device, with `files` about `about`.
    pub(crate) fn new(
        root: &Root,
        device: bindings::dev_t,
        about: T,
        files: &'static [File<T>],
    ) -> Result<Self> {
        let mut attributes = Buffer::with_capacity(files.len())?;
        for (index, file) in files.iter().enumerate() {
            let mut raw: bindings::attribute = pin_init::zeroed();
            raw.name = file.name.as_char_ptr();
            raw.mode = 0o444;
            // SAFETY: The attribute is ours. The key that this sets is static.
            unsafe { bindings::tesserafs_sysfs_attr_init(&mut raw) };
            attributes.push(Attribute { raw, index })?;
        }
        let object = KBox::pin_init(
            pin_init!(Object {
                kobj <- Opaque::ffi_init(|kobj: *mut bindings::kobject| {
                    // SAFETY: The memory is ours, and zero is a valid value of each field.
                    unsafe { kobj.write(pin_init::zeroed()) };
                    let kind: &'static bindings::kobj_type = &Type::<T>::TYPE;
                    // SAFETY: The kobject is zeroed, and pinned.
                    unsafe { bindings::kobject_init(kobj, kind) };
                }),
                about,
                files,
                attributes,
                released <- Completion::new(),
            }),
            GFP_KERNEL,
        )?;
        // INVARIANT: `kobject_init()` gave us the first reference. From here on dropping `this`
        // puts it.
        let this = Self { object };
        let kobj = this.object.kobj.get();
        // SAFETY: Both kobjects are initialised.
        to_result(unsafe {
            bindings::tesserafs_kobject_add_device(kobj, root.kobj.as_ptr(), device)
        })?;
        for attribute in this.object.attributes.iter() {
            // CAST: The attribute comes first.
            let raw = core::ptr::from_ref(attribute).cast::<bindings::attribute>();
            // SAFETY: The kobject was added; the attribute lives as long. Its files are removed with
            // it.
            to_result(unsafe { bindings::sysfs_create_file_ns(kobj, raw, core::ptr::null()) })?;
        }
        Ok(this)
    }
}

impl<T: Send + Sync + 'static> Drop for Folder<T> {
    fn drop(&mut self) {
        let kobj = self.object.kobj.get();
        // SAFETY: By the type invariants. It waits for tasks that are reading a file. A kobject
        // that was not added has nothing to delete.
        unsafe { bindings::kobject_del(kobj) };
        // SAFETY: By the type invariants the reference is ours.
        unsafe { bindings::kobject_put(kobj) };
        // Somebody may have a reference still.
        self.object.released.wait();
    }
}

/// The type of the kobjects about a `T`.
struct Type<T: 'static>(PhantomData<T>);

impl<T: Send + Sync + 'static> Type<T> {
    const TYPE: bindings::kobj_type = bindings::kobj_type {
        release: Some(Self::release),
        sysfs_ops: &Self::OPERATIONS,
        ..pin_init::zeroed()
    };

    const OPERATIONS: bindings::sysfs_ops = bindings::sysfs_ops {
        show: Some(Self::show),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// To be called as the `release` of a kobject that is in an [`Object<T>`].
    unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
        // CAST: The kobject comes first.
        // SAFETY: `Folder::drop` waits for this before it frees the object.
        let object = unsafe { &*kobj.cast::<Object<T>>() };
        object.released.complete_all();
    }

    /// # Safety
    ///
    /// To be called as the `show` of an attribute of an [`Object<T>`], with room for a page.
    unsafe extern "C" fn show(
        kobj: *mut bindings::kobject,
        attribute: *mut bindings::attribute,
        to: *mut c_char,
    ) -> isize {
        // CAST: The kobject comes first.
        // SAFETY: kernfs holds an active reference for this call; `kobject_del()` waits for it, before the
        // object goes.
        let object = unsafe { &*kobj.cast::<Object<T>>() };
        // CAST: The attribute comes first.
        // SAFETY: The folder has no attributes but those of the object.
        let index = unsafe { (*attribute.cast::<Attribute>()).index };
        let len = match object
            .files
            .get(index)
            .map(|file| (file.show)(&object.about))
        {
            // SAFETY: There is room for a page.
            Some(Value::Number(number)) => unsafe {
                bindings::tesserafs_sysfs_emit_number(to, number)
            },
            // SAFETY: There is room for a page; a digest has 32 bytes.
            Some(Value::Digest(digest)) => unsafe {
                bindings::tesserafs_sysfs_emit_digest(to, digest.as_ptr())
            },
            None => EIO.to_errno(),
        };
        // CAST: Widened.
        len as isize
    }
}
