// SPDX-License-Identifier: GPL-2.0
//! Programs of another Debian than this machine's, run in a root that holds it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

use crate::run;

/// The search path of the programs of a root.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Enters the root, its arguments: the root, the folders to show in it, `--`, the program with its arguments.
const ENTER: &str = r#"
set -e
root=$1
shift
# Programs that unpack container images mount their root anew.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
done
shift
exec chroot "$root" "$@"
"#;

/// A root, and the folders of this machine that its programs see at the same paths.
#[derive(Debug, Clone)]
pub(crate) struct Chroot {
    root: PathBuf,
    shared: Vec<PathBuf>,
}

impl Chroot {
    pub(crate) fn new(root: PathBuf, shared: Vec<PathBuf>) -> Self {
        Self { root, shared }
    }

    /// A program of the root, with nothing of this machine's environment.
    ///
    /// Only the program sees the mounts that are made for it: they go with the program, however that ends.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = run::command("unshare");
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C");
        command.args(["--mount", "--", "sh", "-c", ENTER, "sh"]).arg(&self.root);
        command.args(&self.shared).arg("--").arg(program);
        command
    }
}
