// SPDX-License-Identifier: GPL-2.0

//! Module parameters that the `module!` macro cannot express; they are defined in `helpers.c`.
//!
//! C header: [`include/linux/moduleparam.h`](srctree/include/linux/moduleparam.h)

use crate::bindings;

/// Whether only images whose signature verifies may be mounted. Once true, always true.
pub(crate) fn require_signatures() -> bool {
    // SAFETY: Reads one static variable, atomically.
    unsafe { bindings::tesserafs_require_signatures() }
}
