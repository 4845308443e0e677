// SPDX-License-Identifier: GPL-2.0-or-later

//! Failures as errnos: those that a mount by the kernel driver gives.

use std::io;

use fuser::Errno;
use tesserafs_image::{Broken, Error};

/// The errno of a failure, as `README.md` lists them.
pub fn errno(failure: &Broken) -> Errno {
    let errno = |errno: rustix::io::Errno| Errno::from_i32(errno.raw_os_error());
    match failure {
        Broken::Rule(error) if error.is_foreign() => Errno::EINVAL,
        Broken::Rule(error) if error.is_unsupported() => Errno::EOPNOTSUPP,
        Broken::Rule(error) if error.is_digest_mismatch() => Errno::EBADMSG,
        Broken::Rule(_) => errno(rustix::io::Errno::UCLEAN),
        Broken::Stop(Error::Memory { .. }) => Errno::ENOMEM,
        Broken::Stop(Error::Io { source, .. }) if source.kind() == io::ErrorKind::OutOfMemory => {
            Errno::ENOMEM
        }
        Broken::Stop(_) => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tesserafs_format::{FormatError, Place, Rule};

    #[test]
    fn errnos_are_those_of_the_kernel_driver() {
        for (rule, expected) in [
            (Rule::Magic, Errno::EINVAL),
            (Rule::Incompat, Errno::EOPNOTSUPP),
            (Rule::HashBlock, Errno::EBADMSG),
            (Rule::ChunkDigest, Errno::EBADMSG),
            (Rule::ChunkDecode, Errno::from_i32(117)),
            (Rule::DirentType, Errno::from_i32(117)),
        ] {
            let found = errno(&FormatError::new(rule, Place::Block(0), 1, 2).into());
            assert_eq!(i32::from(found), i32::from(expected), "{}", rule.name());
        }
        let read = Error::Io { what: String::new(), source: io::ErrorKind::UnexpectedEof.into() };
        assert_eq!(i32::from(errno(&read.into())), i32::from(Errno::EIO));
    }
}
