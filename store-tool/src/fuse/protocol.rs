// SPDX-License-Identifier: GPL-2.0-or-later

//! The capabilities that daemon and kernel agree on when the mount begins.

use fuser::{InitFlags, KernelConfig};

/// Requests of the kernel that nobody waits for at once, such as readahead.
const MAX_BACKGROUND: u16 = 64;

/// Asks for what makes the mount faster, as far as this kernel has it, and for ACLs: a kernel before 4.9 ignores these.
pub(super) fn configure(config: &mut KernelConfig, acl: bool) {
    let mut wanted = InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
        | InitFlags::FUSE_NO_OPEN_SUPPORT
        | InitFlags::FUSE_NO_OPENDIR_SUPPORT
        | InitFlags::FUSE_PARALLEL_DIROPS;
    if acl {
        wanted |= InitFlags::FUSE_POSIX_ACL;
    }
    for flag in wanted.iter() {
        let _ = config.add_capabilities(flag);
    }
    let _ = config.set_max_background(MAX_BACKGROUND);
}
