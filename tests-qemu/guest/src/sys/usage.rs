// SPDX-License-Identifier: GPL-2.0
//! Resources that this process has used so far.

use std::io;
use std::mem::MaybeUninit;

use super::checked;

fn of(whom: libc::c_int) -> io::Result<libc::rusage> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: The call writes a `struct rusage`, for which there is room; zeros are one, too.
    unsafe {
        checked(libc::getrusage(whom, usage.as_mut_ptr()).into())?;
        Ok(usage.assume_init())
    }
}

/// Page faults of this process so far that had to wait for something to be read.
pub(crate) fn major_faults() -> io::Result<u64> {
    Ok(of(libc::RUSAGE_SELF)?.ru_majflt.unsigned_abs())
}

/// Seconds of processors that this process has taken so far, and its children that have ended.
pub(crate) fn processor_seconds() -> io::Result<f64> {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    let (own, children) = (of(libc::RUSAGE_SELF)?, of(libc::RUSAGE_CHILDREN)?);
    Ok([own.ru_utime, own.ru_stime, children.ru_utime, children.ru_stime].map(seconds).iter().sum())
}
