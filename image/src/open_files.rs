// SPDX-License-Identifier: GPL-2.0-or-later

//! How many files a program may have open: an image can have 1023 packs, and all are open while it is read.

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

/// Raises the limit of this process to what it may be raised to. The usual one, 1024, is for programs that call select(2).
///
/// Where the system refuses, the limit stays, and a file that cannot be opened is an error with a name.
pub fn allow_many() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
}
