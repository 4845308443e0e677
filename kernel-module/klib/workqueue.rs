// SPDX-License-Identifier: GPL-2.0

//! Work that several processors share.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use core::ptr::NonNull;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Helpers of a task, at most: more would wait for memory rather than compute.
const HELPERS: usize = 7;

/// A task that is helped.
struct Helped<'a, F> {
    run: &'a F,
    /// The limits on its memory allocations (`PF_MEMALLOC_NOFS`, `PF_MEMALLOC_NOIO`).
    scope: c_uint,
}

/// A call of `F` that a worker may take over.
#[repr(C)]
struct Helper<'a, F> {
    work: Opaque<bindings::work_struct>,
    task: &'a Helped<'a, F>,
}

/// The workers that help, for all readers.
///
/// Their work is charged to no task, so a limit of processor time for a group of tasks does not see
/// it. It is bounded otherwise: a worker helps only while the task that it helps works, too, so a
/// task gets [`HELPERS`] times its own time at most; and all of them together leave one processor
/// alone. An administrator finds the queue in `/sys/devices/virtual/workqueue/tesserafs`, and may
/// bind it to processors (`cpumask`) or slow it down (`nice`).
///
/// # Invariants
///
/// The queue is allocated, and owned.
pub(crate) struct Helpers(NonNull<bindings::workqueue_struct>);

// SAFETY: A workqueue may be used, and destroyed, from any thread.
unsafe impl Send for Helpers {}

// SAFETY: Work may be queued from any thread.
unsafe impl Sync for Helpers {}

impl Helpers {
    /// Makes the queue.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: Has no arguments and no effects.
        let cpus = unsafe { bindings::tesserafs_num_possible_cpus() };
        let limit = c_int::try_from(cpus.saturating_sub(1).max(1))?;
        // SAFETY: Has no requirements.
        let queue = unsafe { bindings::tesserafs_alloc_helpers(limit) };
        Ok(Self(NonNull::new(queue).ok_or(ENOMEM)?))
    }

    /// Calls `run` here and on other processors at the same time, on `width` in all at most; returns
    /// when every call has returned.
    ///
    /// The number of calls is not known in advance: a helper that no worker has taken over when the
    /// call here returns is called off. So `run` has to take its share from a common list of work.
    /// This function never waits for a worker to begin, and needs none to come to an end.
    pub(crate) fn share<F: Fn() + Sync>(&self, width: usize, run: &F) {
        // SAFETY: Has no arguments, and only reads.
        let cpus = unsafe { bindings::tesserafs_num_online_cpus() };
        let others = usize::try_from(cpus)
            .unwrap_or(1)
            .min(width)
            .saturating_sub(1);
        if others == 0 {
            return run();
        }
        // SAFETY: Has no arguments, and only reads.
        let scope = unsafe { bindings::tesserafs_memalloc_scope() };
        let task = Helped { run, scope };
        let helpers: [_; HELPERS] = core::array::from_fn(|_| Helper {
            work: Opaque::uninit(),
            task: &task,
        });
        for helper in helpers.iter().take(others) {
            // SAFETY: The work lies on this stack, and does not move until it is destroyed below.
            unsafe { bindings::tesserafs_init_work_onstack(helper.work.get(), Some(call::<F>)) };
            // SAFETY: The queue exists by the type invariants; the work is initialised, and stays
            // until it is off the queue. It was not queued before.
            unsafe {
                bindings::queue_work_on(
                    bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                    self.0.as_ptr(),
                    helper.work.get(),
                )
            };
        }
        run();
        for helper in helpers.iter().take(others) {
            // SAFETY: The work was initialised above. After this it is not queued, and not running.
            unsafe { bindings::cancel_work_sync(helper.work.get()) };
            // SAFETY: As above, so nobody uses it any more.
            unsafe { bindings::tesserafs_destroy_work_on_stack(helper.work.get()) };
        }
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        // SAFETY: By the type invariants; nobody has work on it, as `share` returns without any.
        unsafe { bindings::destroy_workqueue(self.0.as_ptr()) };
    }
}

/// # Safety
///
/// `work` must be that of a [`Helper`] of `F`, and the helper stay until this returns.
unsafe extern "C" fn call<F: Fn() + Sync>(work: *mut bindings::work_struct) {
    // CAST: The work is the first member of a helper, and `Opaque` is transparent.
    let helper = work.cast::<Helper<'_, F>>();
    // SAFETY: The helper is valid, as the caller promises. `F` is `Sync`, so any thread may use it.
    let task = unsafe { (*helper).task };
    // The task waits for this worker, so the worker must not wait for anything that the task must
    // not wait for.
    //
    // SAFETY: These are flags of a task.
    let saved = unsafe { bindings::tesserafs_memalloc_save(task.scope) };
    (task.run)();
    // SAFETY: These are the flags that were set above.
    unsafe { bindings::tesserafs_memalloc_restore(saved) };
}
