// SPDX-License-Identifier: GPL-2.0-or-later

//! The capabilities that daemon and kernel agree on when the mount begins.

use fuser::{InitFlags, KernelConfig};

/// Requests of the kernel that nobody waits for at once, such as readahead.
const MAX_BACKGROUND: u16 = 64;

/// The answer to `open` and `opendir` that a kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening {
    /// `ENOSYS` to `open`, after which it asks no more; else that is an error for the program.
    pub(super) file: bool,
    /// The same for `opendir`: since Linux 5.1.
    pub(super) directory: bool,
}

impl Opening {
    fn of(kernel: InitFlags) -> Self {
        Self {
            file: kernel.contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
            directory: kernel.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
        }
    }
}

/// Asks for what makes the mount faster, as far as this kernel has it, and for ACLs: a kernel before 4.9 ignores these.
pub(super) fn configure(config: &mut KernelConfig, acl: bool) -> Opening {
    let mut wanted = InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
        | InitFlags::FUSE_EXPORT_SUPPORT
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
    Opening::of(config.capabilities())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_want_directories_to_be_opened_are_told_from_others() {
        let old = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_NO_OPEN_SUPPORT;
        assert_eq!(Opening::of(old), Opening { file: true, directory: false });
        let new = old | InitFlags::FUSE_NO_OPENDIR_SUPPORT;
        assert_eq!(Opening::of(new), Opening { file: true, directory: true });
    }
}
