// SPDX-License-Identifier: GPL-2.0

//! zstd decompression, in memory that was allocated in advance.
//!
//! C header: [`include/linux/zstd.h`](srctree/include/linux/zstd.h)

use super::buffer::Buffer;
use crate::bindings;
use core::{
    mem::MaybeUninit,
    ptr::NonNull, //
};
use kernel::{
    new_condvar,
    new_mutex,
    prelude::*,
    sync::{
        CondVar,
        Mutex, //
    }, //
};

/// The context and the memory that one decompression needs.
///
/// # Invariants
///
/// `ctx` is a context of zstd that lies in `memory`, which does not move.
pub(crate) struct Workspace {
    ctx: NonNull<bindings::zstd_dctx>,
    /// Of 64-bit words, as zstd wants it aligned; never initialised from here.
    _memory: Buffer<u64>,
}

// SAFETY: A context may be used by any thread, by one at a time.
unsafe impl Send for Workspace {}

impl Workspace {
    /// Allocates a workspace.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Has no arguments and no effects.
        let size = unsafe { bindings::zstd_dctx_workspace_bound() };
        let mut memory = Buffer::<u64>::with_capacity_for_all(size.div_ceil(size_of::<u64>()))?;
        // SAFETY: `memory` has room for `size` bytes, aligned for 64-bit words. They stay as long
        // as the buffer, which is used for nothing else.
        let ctx = unsafe { bindings::zstd_init_dctx(memory.as_mut_ptr().cast(), size) };
        // INVARIANT: The context lies in the buffer's allocation, which does not move with it.
        Ok(Self {
            ctx: NonNull::new(ctx).ok_or(ENOMEM)?,
            _memory: memory,
        })
    }

    /// Decompresses `from` to the beginning of `to`, and gives what it has filled of it.
    ///
    /// `EFSCORRUPTED` if `from` is not zstd or does not fit. Only for bytes that are authentic.
    pub(crate) fn decompress<'a>(
        &mut self,
        from: &[u8],
        to: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8]> {
        // SAFETY: The context is valid by the type invariants, and ours; both slices are as long
        // as is said, and distinct. Where zstd copies in longer steps than it needs it may read
        // bytes of `to` that it has not written; none of them is part of what it then counts.
        let n = unsafe {
            bindings::zstd_decompress_dctx(
                self.ctx.as_ptr(),
                to.as_mut_ptr().cast(),
                to.len(),
                from.as_ptr().cast(),
                from.len(),
            )
        };
        // SAFETY: Only looks at the number.
        if unsafe { bindings::zstd_is_error(n) } != 0 {
            return Err(EFSCORRUPTED);
        }
        let filled = to.get_mut(..n).ok_or(EFSCORRUPTED)?;
        // SAFETY: zstd has written these bytes, which stay borrowed exclusively.
        Ok(unsafe { core::slice::from_raw_parts_mut(filled.as_mut_ptr().cast(), n) })
    }
}

/// Workspaces that were made in advance, so that no read ever fails for want of one.
///
/// Rule: a task that holds a workspace does not wait for anything that may need one. In particular
/// it does no I/O: the backing store may be a filesystem of this type itself.
#[pin_data]
pub(crate) struct Pool {
    #[pin]
    free: Mutex<Buffer<Workspace>>,
    #[pin]
    returned: CondVar,
}

impl Pool {
    /// Makes a pool with a workspace for each possible processor.
    pub(crate) fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            free <- new_mutex!(Self::fill()?, "tesserafs zstd workspaces"),
            returned <- new_condvar!("tesserafs zstd workspace returned"),
        }? Error)
    }

    fn fill() -> Result<Buffer<Workspace>> {
        // SAFETY: Has no arguments and no effects.
        let n = unsafe { bindings::tesserafs_num_possible_cpus() };
        let n = usize::try_from(n)?.max(1);
        let mut free = Buffer::with_capacity(n)?;
        for _ in 0..n {
            free.push(Workspace::new()?)?;
        }
        Ok(free)
    }

    /// Takes a workspace; sleeps until there is one.
    pub(crate) fn get(&self) -> Lease<'_> {
        let mut free = self.free.lock();
        loop {
            if let Some(workspace) = free.pop() {
                return Lease {
                    pool: self,
                    workspace: Some(workspace),
                };
            }
            self.returned.wait(&mut free);
        }
    }
}

/// A workspace of a [`Pool`], which goes back on drop.
pub(crate) struct Lease<'a> {
    pool: &'a Pool,
    /// Only taken by `drop`.
    workspace: Option<Workspace>,
}

impl Lease<'_> {
    /// As [`Workspace::decompress`].
    pub(crate) fn decompress<'a>(
        &mut self,
        from: &[u8],
        to: &'a mut [MaybeUninit<u8>],
    ) -> Result<&'a mut [u8]> {
        match &mut self.workspace {
            Some(workspace) => workspace.decompress(from, to),
            None => Err(EIO),
        }
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(workspace) = self.workspace.take() {
            // There is room: the buffer has held all workspaces of the pool before. If there were
            // none the workspace would be freed, and the pool be smaller.
            let _ = self.pool.free.lock().push_within_capacity(workspace);
            self.pool.returned.notify_one();
        }
    }
}
