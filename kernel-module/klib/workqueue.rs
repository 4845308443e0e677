// SPDX-License-Identifier: GPL-2.0

//! Work that several processors share.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use crate::bindings;
use kernel::{
    prelude::*,
    types::Opaque, //
};

/// Helpers at most: more would wait for memory rather than compute.
const HELPERS: usize = 7;

/// A call of `F` that a worker may take over.
#[repr(C)]
struct Helper<'a, F> {
    work: Opaque<bindings::work_struct>,
    run: &'a F,
}

/// Calls `run` here and on other processors at the same time, on `width` in all at most; returns
/// when every call has returned.
///
/// `run` has to take its share from a list of what is to be done, as nothing says how many calls
/// there will be: a helper that no worker has taken over when the call here returns is called off.
/// So this never waits for a worker to begin, and needs none to come to an end.
pub(crate) fn share<F: Fn() + Sync>(width: usize, run: &F) {
    // SAFETY: Has no arguments, and only reads.
    let cpus = unsafe { bindings::tesserafs_num_online_cpus() };
    let others = usize::try_from(cpus)
        .unwrap_or(1)
        .min(width)
        .saturating_sub(1);
    let helpers: [_; HELPERS] = core::array::from_fn(|_| Helper {
        work: Opaque::uninit(),
        run,
    });
    for helper in helpers.iter().take(others) {
        // SAFETY: The work lies on this stack, and does not move until it is destroyed below.
        unsafe { bindings::tesserafs_init_work_onstack(helper.work.get(), Some(call::<F>)) };
        // SAFETY: The queue exists as long as the kernel runs; the work is initialised, and stays
        // until it is off the queue. Whether it was queued before: it was not.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
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

/// # Safety
///
/// `work` must be that of a [`Helper`] of `F`, and the helper stay until this returns.
unsafe extern "C" fn call<F: Fn() + Sync>(work: *mut bindings::work_struct) {
    // CAST: The work is the first member of a helper, and `Opaque` is transparent.
    let helper = work.cast::<Helper<'_, F>>();
    // SAFETY: As the caller promises. `F` is `Sync`, so any thread may call it.
    unsafe { ((*helper).run)() }
}
