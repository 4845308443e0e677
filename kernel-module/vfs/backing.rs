// SPDX-License-Identifier: GPL-2.0

//! The backing store: an open regular file, or a block device.
//!
//! C headers: [`include/linux/fs.h`](srctree/include/linux/fs.h)

use super::{c_bytes, source::type_of};
use crate::{
    bindings,
    klib::buffer::Buffer, //
};
use core::{
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut,
        Range, //
    },
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};

/// The file or device that an image is read from.
///
/// Bytes are read into memory of the kernel's own, by copy or by the device: the file may be written
/// by others at any time, so what was verified must not be read again. Cloning shares the open file.
///
/// Reads happen in page faults, with folios locked, of a task that may be in the middle of a system
/// call on the very file or filesystem. So a file is read as a mapping of it would be, from its page
/// cache: no lock of its filesystem is taken, such as the `i_rwsem` that XFS and NFS take in
/// `->read_iter`; programs that listen for accesses are asked once, when the image is mounted, and not
/// at each read; and the access time stays. [`Reading`] has what follows for filesystems without a page
/// cache of their own.
///
/// # Invariants
///
/// `file` is open for reading, is a regular file or a block device, and its position is used by
/// nobody.
#[derive(Clone)]
pub(crate) struct Backing {
    file: ARef<File>,
    len: u64,
    /// Whether it is on this machine, and no program serves it.
    is_local: bool,
    /// The device that it lies on.
    device: u32,
    /// The number of filesystems below one that is read from it.
    stack_depth: c_int,
    reading: Reading,
    /// The flags for requests of bytes that the store need not keep.
    once: c_int,
}

/// How bytes are read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// From the page cache, by `filemap_read()`.
    PageCache,
    /// As [`PageCache`](Self::PageCache), after a program that fills the file when it is accessed was
    /// asked to: a pre-content listener, for which the file was marked before it was opened.
    Filled,
    /// By the `->read_iter` of its filesystem, which is known to take no lock that a writer holds:
    /// tmpfs, which has no `->read_folio`; FUSE, as a server that wants no page cache may change the
    /// bytes.
    Filesystem,
    /// Of a block device, past the page cache, in whole pages where bytes need not be kept.
    Direct,
}

impl Backing {
    /// The file that `file` is on the layer of an overlay, opened once more there; any other file as it is.
    ///
    /// overlayfs reads by the function of its layer, which may take a lock that writers hold, and it asks
    /// listeners on the layer each time. Whoever changes the file makes a copy of it on the upper layer:
    /// the image goes on being read as it was.
    pub(super) fn on_layer(file: ARef<File>) -> Result<ARef<File>> {
        if magic_of(&file) != bindings::OVERLAYFS_SUPER_MAGIC {
            return Ok(file);
        }
        let raw = file.as_ptr();
        // SAFETY: The file is open; its credentials do not change.
        let cred = unsafe { (*raw).f_cred };
        // SAFETY: The file is open; the flags of one that no process has do not change.
        let flags = unsafe { (*raw).f_flags };
        ask_for_leave(&file)?;
        // SAFETY: The file is a regular one of an overlay, and its credentials are valid.
        let layer = unsafe { bindings::tesserafs_file_open_layer(raw, flags as c_int, cred) };
        let layer = NonNull::new(from_err_ptr(layer)?).ok_or(ENOMEM)?;
        // SAFETY: The file is new, with a reference for us; nobody else has it, so there is no
        // `fdget_pos` of it.
        Ok(unsafe { ARef::from_raw(layer.cast()) })
    }

    /// Takes a regular file, which must be open for reading, by this context alone.
    ///
    /// `EOPNOTSUPP` if its filesystem is one that [`refusal`](Self::refusal) names; else what a
    /// security module or a listener answers to the question whether it may be read.
    pub(super) fn from_file(file: ARef<File>, stack_depth: c_int) -> Result<Self> {
        let reading = Self::reading(&file).map_err(|_| EOPNOTSUPP)?;
        let raw = file.as_ptr();
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*raw).f_inode };
        // SAFETY: The file keeps the inode.
        let len = unsafe { bindings::tesserafs_i_size_read(inode) };
        // SAFETY: The file is open, and no process has it: only this mount's context, which one thread uses.
        unsafe { bindings::tesserafs_file_set_noatime(raw) };
        // The one question for all that will be read. Bytes that are written to the file later are not
        // shown: they are not those of the image ID.
        ask_for_leave(&file)?;
        if reading == Reading::Filled {
            // Of the listeners, only the one that fills the file is asked again.
            //
            // SAFETY: As for the access time.
            unsafe { bindings::tesserafs_file_set_no_access_perm(raw) };
        }
        // SAFETY: The file keeps the inode; its superblock does not change.
        let sb = unsafe { (*inode).i_sb };
        Ok(Self {
            is_local: is_local(&file),
            // SAFETY: The file keeps the superblock, whose device number is set before it has files.
            device: unsafe { (*sb).s_dev },
            stack_depth,
            reading,
            once: uncached_flags(&file),
            len: u64::try_from(len).map_err(|_| EIO)?,
            file,
        })
    }

    /// Why a file cannot be what an image lies on, after the name of its filesystem; none if it can.
    pub(super) fn refusal(file: &File) -> Option<&'static str> {
        Self::reading(file).err()
    }

    /// The name of the filesystem of a file.
    pub(super) fn filesystem_name(file: &File) -> &[u8] {
        // SAFETY: An open file has an inode, which does not change.
        let inode = unsafe { (*file.as_ptr()).f_inode };
        // SAFETY: The file keeps the inode; its superblock does not change.
        let sb = unsafe { (*inode).i_sb };
        // SAFETY: The file keeps the superblock; its type is assigned once.
        let fs_type = unsafe { (*sb).s_type };
        // SAFETY: A superblock that is in use keeps its type; a type has a name.
        let name = unsafe { (*fs_type).name };
        // SAFETY: The name is a C string that stays as long as the type.
        unsafe { c_bytes(name) }
    }

    /// How a file is read, or why it cannot be.
    fn reading(file: &File) -> Result<Reading, &'static str> {
        let raw = file.as_ptr();
        // SAFETY: The file is open, and the word aligned; advice may change other bits of it at any time.
        let mode = unsafe { (&raw const (*raw).f_mode).read_volatile() };
        if mode & bindings::TESSERAFS_CONST_FMODE_CAN_READ == 0 {
            return Err("whose files cannot be read");
        }
        // SAFETY: The file is open.
        if unsafe { bindings::tesserafs_file_is_dax(raw) } {
            return Err("in DAX mode, where reading takes the lock that writers hold");
        }
        match magic_of(file) {
            bindings::TMPFS_MAGIC => Ok(Reading::Filesystem),
            bindings::FUSE_SUPER_MAGIC => {
                // SAFETY: The file is open.
                if unsafe { bindings::tesserafs_file_stack_depth(raw) } > 0 {
                    return Err(
                        "whose server may pass reads on to another filesystem: use a loop device",
                    );
                }
                Ok(Reading::Filesystem)
            }
            bindings::OCFS2_SUPER_MAGIC | GFS2_MAGIC | bindings::CEPH_SUPER_MAGIC => {
                Err("where a file must not be read without a lock of its cluster")
            }
            // SAFETY: The file is open.
            _ if !unsafe { bindings::tesserafs_file_has_page_cache(raw) } => {
                Err("which has no page cache to read from")
            }
            // SAFETY: The file is open.
            _ if unsafe { bindings::tesserafs_file_is_filled_on_access(raw) } => {
                Ok(Reading::Filled)
            }
            _ => Ok(Reading::PageCache),
        }
    }

    /// Takes the block device of a superblock.
    ///
    /// # Safety
    ///
    /// `sb` must be a superblock that `get_tree_bdev()` is filling.
    pub(super) unsafe fn from_bdev(sb: *mut bindings::super_block) -> Result<Self> {
        // SAFETY: The superblock is valid.
        let file = NonNull::new(unsafe { (*sb).s_bdev_file }).ok_or(ENOTBLK)?;
        // SAFETY: The device is open, and its file has no position that anybody uses.
        let file = ARef::<File>::from(unsafe { File::from_raw_file(file.as_ptr()) });
        let raw = file.as_ptr();
        // SAFETY: The mapping of an open file does not change.
        let mapping = unsafe { (*raw).f_mapping };
        // Files of block devices that the kernel opens come without readahead.
        //
        // SAFETY: Nobody reads from this file yet.
        unsafe { bindings::file_ra_state_init(&raw mut (*raw).__bindgen_anon_3.f_ra, mapping) };
        // SAFETY: The mapping of a block device has its inode as host, which does not change.
        let host = unsafe { (*mapping).host };
        // SAFETY: The open file keeps the inode.
        let len = unsafe { bindings::tesserafs_i_size_read(host) };
        // SAFETY: The file is that of a block device, which is open.
        let is_direct = unsafe { takes_pages(&file) };
        Ok(Self {
            is_local: true,
            // SAFETY: The superblock has the number of its device.
            device: unsafe { (*sb).s_dev },
            stack_depth: 0,
            reading: if is_direct {
                Reading::Direct
            } else {
                Reading::PageCache
            },
            once: if is_direct {
                bindings::TESSERAFS_CONST_IOCB_DIRECT
            } else {
                uncached_flags(&file)
            },
            file,
            len: u64::try_from(len).map_err(|_| EIO)?,
        })
    }

    /// Whether a read waits for a device of this machine at most: not for a program that serves a
    /// filesystem, nor for another machine. Of block devices that is assumed.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// Whether it is a block device.
    pub(crate) fn is_device(&self) -> bool {
        // SAFETY: The file is open.
        unsafe { type_of(self.file.as_ptr()) == bindings::S_IFBLK }
    }

    /// The device that it lies on: of a file, that of its filesystem.
    pub(crate) fn device(&self) -> u32 {
        self.device
    }

    /// The number of filesystems below one that is read from it: none for a block device.
    pub(crate) fn stack_depth(&self) -> c_int {
        self.stack_depth
    }

    /// The length in bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Asks for the `len` bytes at `pos`, and does not wait for them if the store can do without: who
    /// reads them soon will find them in the page cache, or on their way.
    pub(crate) fn ask_for(&self, pos: u64, len: usize) {
        let (Ok(pos), Ok(len)) = (pos.try_into(), len.try_into()) else {
            return;
        };
        // SAFETY: The file is open.
        unsafe {
            bindings::vfs_fadvise(
                self.file.as_ptr(),
                pos,
                len,
                bindings::POSIX_FADV_WILLNEED as c_int,
            )
        };
    }

    /// The `len` bytes at `pos`; errors as for [`read_run`](Self::read_run).
    pub(crate) fn read(&self, pos: u64, len: usize) -> Result<Buffer<u8>> {
        if len as u64 > self.len {
            return Err(EIO);
        }
        let mut to = Buffer::with_capacity(len)?;
        self.read_run(pos, core::slice::from_mut(&mut to))?;
        Ok(to)
    }

    /// Fills all of `run`, one after the other, with the bytes from `pos` on.
    ///
    /// `EIO` if they lie beyond the length, or if the store ends earlier than it did; else what the
    /// store answers. `EINTR` says that the task is being killed, or that a FUSE server gives a read up
    /// as its reader has got a signal: the read says nothing about the store, and is to be given up
    /// without a report. May sleep; no lock is needed.
    pub(crate) fn read_run<R: Room>(&self, pos: u64, run: &mut [R]) -> Result {
        self.scatter(pos, run, 0)
    }

    /// The `len` bytes at `pos`, which will not be wanted again soon: the store keeps none of them in
    /// its page cache, if it can do without. Errors as for [`read_run`](Self::read_run).
    ///
    /// A block device is read past the page cache, with requests as long as its driver takes; a task
    /// that waits for one cannot be killed. A file is not, as a direct read takes `i_rwsem`. Of its
    /// pages, those go that this has brought there, where its filesystem knows `IOCB_DONTCACHE`.
    pub(crate) fn read_once(&self, pos: u64, len: usize) -> Result<Bytes> {
        let flags = self.once;
        let multiple = match self.reading {
            Reading::Direct => bindings::PAGE_SIZE,
            _ => 1,
        };
        let before = pos.checked_rem(multiple as u64).ok_or(EIO)?;
        let start = pos.checked_sub(before).ok_or(EIO)?;
        // CAST: Less than `multiple`.
        let before = before as usize;
        let end = before.checked_add(len).ok_or(EIO)?;
        let whole = end.checked_next_multiple_of(multiple).ok_or(EIO)?;
        let mut buffer = Buffer::with_capacity(whole)?;
        self.scatter(start, core::slice::from_mut(&mut buffer), flags)?;
        Ok(Bytes {
            buffer,
            range: before..end,
        })
    }

    fn scatter<R: Room>(&self, mut pos: u64, run: &mut [R], flags: c_int) -> Result {
        for part in run.chunks_mut(SEGMENTS) {
            let mut vecs = [const { NOWHERE }; SEGMENTS];
            let mut len = 0_usize;
            for (vec, room) in vecs.iter_mut().zip(part.iter_mut()) {
                let room = room.room();
                vec.iov_base = room.as_mut_ptr().cast();
                vec.iov_len = room.len();
                len = len.checked_add(room.len()).ok_or(EIO)?;
            }
            let end = pos.checked_add(len as u64).ok_or(EIO)?;
            if end > self.len {
                return Err(EIO);
            }
            let mut to = MaybeUninit::<bindings::iov_iter>::uninit();
            // SAFETY: `to` becomes an iterator over the first segments of `vecs`: as many as `part`
            // has, which are set.
            unsafe {
                bindings::iov_iter_kvec(
                    to.as_mut_ptr(),
                    bindings::ITER_DEST,
                    vecs.as_ptr(),
                    part.len() as c_ulong,
                    len,
                )
            };
            // SAFETY: The segments are the rooms of `part`, which stays borrowed exclusively until
            // the read is over, and `len` is the sum of their lengths.
            unsafe { self.fill(to.as_mut_ptr(), len, pos, flags) }?;
            for room in part {
                // SAFETY: The read has filled every byte of every segment.
                unsafe { room.set_filled() };
            }
            pos = end;
        }
        Ok(())
    }

    /// Reads until `to` is full.
    ///
    /// # Safety
    ///
    /// `to` must be an iterator over `len` bytes of kernel memory that may be written and that
    /// nobody else uses.
    unsafe fn fill(
        &self,
        to: *mut bindings::iov_iter,
        mut len: usize,
        pos: u64,
        flags: c_int,
    ) -> Result {
        let raw = self.file.as_ptr();
        let mut kiocb = MaybeUninit::<bindings::kiocb>::uninit();
        // SAFETY: The file is open, and `kiocb` is memory for a request.
        unsafe { bindings::tesserafs_init_sync_kiocb(kiocb.as_mut_ptr(), raw) };
        // SAFETY: It was initialised just now.
        let kiocb = unsafe { kiocb.assume_init_mut() };
        kiocb.ki_pos = bindings::loff_t::try_from(pos).map_err(|_| EIO)?;
        kiocb.ki_flags |= flags;
        while len > 0 {
            // SAFETY: As the caller promises, for what is left of `to`.
            let n = as_mounter(&self.file, || unsafe { self.read_some(kiocb, to) });
            // CAST: A negative result is an error number.
            let n = usize::try_from(n).map_err(|_| Error::from_errno(n as c_int));
            // Listeners and NFS have another number for a task that is being killed.
            let n = n.map_err(|error| if error == ERESTARTSYS { EINTR } else { error })?;
            if n == 0 {
                return Err(EIO);
            }
            len = len.checked_sub(n).ok_or(EIO)?;
        }
        Ok(())
    }

    /// Reads once; the request and `to` advance by what there was.
    ///
    /// For a block device no security module is asked: it is the filesystem that reads its device, for
    /// whichever task. Nor is its `->read_iter` called for what is cached: that
    /// takes `i_rwsem`, to keep `set_blocksize()` away, and a page fault may come from a read of the same
    /// device, which holds it. This superblock has claimed the device, so its block size does not change.
    ///
    /// # Safety
    ///
    /// As for [`fill`](Self::fill); `kiocb` must be a request to our file.
    unsafe fn read_some(&self, kiocb: &mut bindings::kiocb, to: *mut bindings::iov_iter) -> isize {
        let raw = self.file.as_ptr();
        if self.reading == Reading::Filled {
            // SAFETY: The iterator is valid.
            let len = unsafe { bindings::tesserafs_iov_iter_count(to) };
            // SAFETY: The file is open.
            let answer = unsafe {
                bindings::rw_verify_area(bindings::READ as c_int, raw, &kiocb.ki_pos, len)
            };
            if answer != 0 {
                return answer as isize;
            }
        }
        let is_direct = kiocb.ki_flags & bindings::TESSERAFS_CONST_IOCB_DIRECT != 0;
        if is_direct || self.reading == Reading::Filesystem {
            // A direct read of whole blocks, into one segment, fails or leaves nothing that this would
            // read from the page cache, with the lock.
            //
            // SAFETY: The file is open, and can be read; the caller promises the rest.
            unsafe { bindings::tesserafs_file_read_iter(kiocb, to) }
        } else {
            // SAFETY: The mapping has a `->read_folio`; the caller promises the rest.
            unsafe { bindings::filemap_read(kiocb, to, 0) }
        }
    }
}

/// Asks security modules and listeners whether all of `file` may be read.
fn ask_for_leave(file: &File) -> Result {
    let raw = file.as_ptr();
    // SAFETY: An open file has an inode, which does not change.
    let inode = unsafe { (*raw).f_inode };
    // SAFETY: The file keeps the inode.
    let len = unsafe { bindings::tesserafs_i_size_read(inode) };
    to_result(as_mounter(file, || {
        // SAFETY: The file is open, and the position is one of ours. CAST: A size is not negative.
        unsafe { bindings::rw_verify_area(bindings::READ as c_int, raw, &0, len as usize) }
    }))
}

/// Calls `f` with the credentials that `file` was opened with: a server, and whoever is asked for leave, is
/// told of the mounter, whoever reads.
fn as_mounter<R>(file: &File, f: impl FnOnce() -> R) -> R {
    // SAFETY: The file is open; its credentials do not change.
    let cred = unsafe { (*file.as_ptr()).f_cred };
    // SAFETY: They live as long as the file, which is longer than they are in force here.
    let old = unsafe { bindings::tesserafs_override_creds(cred) };
    let answer = f();
    // SAFETY: `old` is what was in force before.
    unsafe { bindings::tesserafs_revert_creds(old) };
    answer
}

/// The magic number of the filesystem of `file`.
fn magic_of(file: &File) -> u32 {
    // SAFETY: An open file has an inode, which does not change.
    let inode = unsafe { (*file.as_ptr()).f_inode };
    // SAFETY: The file keeps the inode; its superblock does not change.
    let sb = unsafe { (*inode).i_sb };
    // SAFETY: The file keeps the superblock, whose number is set before it has files. CAST: All of them
    // are 32-bit numbers.
    unsafe { (*sb).s_magic as u32 }
}

/// Whether the filesystem of `file` keeps its files in memory, or on a device that is this machine's alone.
fn is_local(file: &File) -> bool {
    // SAFETY: An open file has an inode, which does not change.
    let inode = unsafe { (*file.as_ptr()).f_inode };
    // SAFETY: The file keeps the inode; its superblock does not change.
    let sb = unsafe { (*inode).i_sb };
    // SAFETY: The file keeps the superblock, whose device is set before it has files.
    let device = unsafe { (*sb).s_bdev };
    match magic_of(file) {
        // It has a program that serves it, even if it lies on a device.
        bindings::FUSE_SUPER_MAGIC => false,
        bindings::TMPFS_MAGIC => true,
        _ => !device.is_null(),
    }
}

/// The flags for a read of `file` whose bytes it need not keep: none if it cannot, as tmpfs, or if
/// its pages are the storage itself.
fn uncached_flags(file: &File) -> c_int {
    let file = file.as_ptr();
    // SAFETY: The operations of an open file do not change.
    let operations = unsafe { (*file).f_op };
    // SAFETY: They are static, or of a module that the open file keeps.
    let fop_flags = unsafe { (*operations).fop_flags };
    // SAFETY: The file is open.
    let is_dax = unsafe { bindings::tesserafs_file_is_dax(file) };
    if fop_flags & bindings::TESSERAFS_CONST_FOP_DONTCACHE != 0 && !is_dax {
        bindings::TESSERAFS_CONST_IOCB_DONTCACHE
    } else {
        0
    }
}

/// Whether the block device `file` takes direct reads of whole pages: then it still does when
/// somebody has changed it below the mount to one with longer blocks.
///
/// Memory for so many bytes is aligned to a page: the allocators align to the largest power of two
/// that divides the length, up to that.
///
/// # Safety
///
/// `file` must be one of those by which the kernel opens a block device.
unsafe fn takes_pages(file: &File) -> bool {
    // SAFETY: As the caller promises.
    let block = unsafe { bindings::tesserafs_bdev_logical_block_size(file.as_ptr()) };
    // SAFETY: As for the block size.
    let mask = unsafe { bindings::tesserafs_bdev_dma_alignment(file.as_ptr()) };
    // CAST: No more than 2^32.
    block as usize <= bindings::PAGE_SIZE && (mask as usize) < bindings::PAGE_SIZE
}

/// Bytes that were read.
pub(crate) struct Bytes {
    /// Holds some around them, too.
    buffer: Buffer<u8>,
    range: Range<usize>,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.get(self.range.clone()).unwrap_or(&[])
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.range.clone()).unwrap_or(&mut [])
    }
}

/// From `linux/gfs2_ondisk.h`.
const GFS2_MAGIC: u32 = 0x0116_1970;

/// Segments of a read, at most: a page of a window each.
const SEGMENTS: usize = 16;

/// No segment.
const NOWHERE: bindings::kvec = bindings::kvec {
    iov_base: core::ptr::null_mut(),
    iov_len: 0,
};

/// Memory that waits to be filled.
pub(crate) trait Room {
    /// The memory: all that is not filled, or all, which then is to be filled anew.
    fn room(&mut self) -> &mut [MaybeUninit<u8>];

    /// Counts all of it as filled.
    ///
    /// # Safety
    ///
    /// Every byte of [`room`](Self::room) must be initialised.
    unsafe fn set_filled(&mut self);
}

impl Room for Buffer<u8> {
    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        self.spare()
    }

    unsafe fn set_filled(&mut self) {
        let n = self.spare().len();
        // SAFETY: As the caller promises.
        unsafe { self.assume_init(n) };
    }
}
